"""Centralised unlearning methods, the slow and obvious way: torch.optim, loops, nothing of the library.

Each takes an ordinary module and changes it; orders of batches are given by the caller, as lists of index lists.
"""

import torch
import torch.nn.functional as F


def orders(count, batch_size, passes, seed):
    """Return per pass its batches of rows: what a generator of this seed shuffles, one pass after the other."""
    generator = torch.Generator().manual_seed(seed)
    return [cut(torch.randperm(count, generator=generator).tolist(), batch_size) for _ in range(passes)]


def cut(rows, batch_size):
    return [rows[i : i + batch_size] for i in range(0, len(rows), batch_size)]


def sgd(module, settings):
    return torch.optim.SGD(
        module.parameters(), lr=settings.lr, momentum=settings.momentum, weight_decay=settings.weight_decay
    )


def step(optimizer, loss):
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def fine_tune(module, images, labels, settings, passes):
    optimizer = sgd(module, settings)
    for batches in passes:
        for rows in batches:
            step(optimizer, F.cross_entropy(module(images[rows]), labels[rows]))


def salient(module, images, labels, share):
    """Return per weight whether it is among the share with the largest absolute gradient of the summed loss."""
    module.zero_grad()
    F.cross_entropy(module(images), labels, reduction="sum").backward()
    sizes = [abs(g) for p in module.parameters() for g in p.grad.reshape(-1).tolist()]
    module.zero_grad()
    chosen = sorted(range(len(sizes)), key=lambda i: -sizes[i])[: int(share * len(sizes))]
    return [i in chosen for i in range(len(sizes))]


def masked_fine_tune(module, batches, settings, mask):
    """Take SGD steps of (images, labels) batches, and put every weight that may not move back after each."""
    optimizer = sgd(module, settings)
    before = [p.detach().clone() for p in module.parameters()]
    for images, labels in batches:
        step(optimizer, F.cross_entropy(module(images), labels))
        place = 0
        with torch.no_grad():
            for p, old in zip(module.parameters(), before, strict=True):
                for i in range(p.numel()):
                    if not mask[place]:
                        p.view(-1)[i] = old.view(-1)[i]
                    place += 1


def relabelled(forget, retain, classes, drawing, shuffling, order, exclude, batch_size, epochs):
    """Return batches (images, labels): per epoch F with labels drawn anew, then R, or both shuffled together."""
    found = []
    for _ in range(epochs):
        if exclude:  # so many classes further on, at least one
            steps = torch.randint(1, classes, (len(forget.labels),), generator=drawing).tolist()
            wrong = [(y + n) % classes for y, n in zip(forget.labels.tolist(), steps, strict=True)]
        else:
            wrong = torch.randint(classes, (len(forget.labels),), generator=drawing).tolist()
        parts = [(forget.images, torch.tensor(wrong)), (retain.images, retain.labels)]
        if order == "mixed":
            parts = [tuple(torch.cat(pair) for pair in zip(*parts, strict=True))]
        for images, labels in parts:
            rows = torch.randperm(len(labels), generator=shuffling).tolist()
            found += [(images[batch], labels[batch]) for batch in cut(rows, batch_size)]
    return found
