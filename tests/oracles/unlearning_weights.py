"""Unlearning methods that move the weights by losses, importances or noise: loops, nothing of the library."""

import torch
import torch.nn.functional as F

from tests.oracles.unlearning import cut, masked_fine_tune, sgd, step


def ascend(module, images, labels, settings, passes):
    optimizer = sgd(module, settings)
    for batches in passes:
        for rows in batches:
            step(optimizer, -F.cross_entropy(module(images[rows]), labels[rows]))


def neggrad_plus(module, retain, forget, settings, retain_passes, forget_batches):
    """Descend on R and ascend on F at once; ``forget_batches`` is a list of as many batches as R has in all."""
    optimizer = sgd(module, settings)
    forget_batches = list(forget_batches)
    for batches in retain_passes:
        for rows in batches:
            beside = forget_batches.pop(0)
            good = F.cross_entropy(module(retain.images[rows]), retain.labels[rows])
            bad = F.cross_entropy(module(forget.images[beside]), forget.labels[beside])
            step(optimizer, settings.alpha * good - (1 - settings.alpha) * bad)


def gda(module, retain, forget, settings, seed):
    optimizer = torch.optim.SGD(module.parameters(), lr=settings.lr)
    generator = torch.Generator().manual_seed(seed)
    for epoch in range(settings.epochs):
        if epoch < settings.ascent_epochs:
            order = torch.randperm(forget.size, generator=generator).tolist()
            for rows in cut(order, settings.forget_batch_size):
                step(optimizer, -F.cross_entropy(module(forget.images[rows]), forget.labels[rows]))
        order = torch.randperm(retain.size, generator=generator).tolist()
        for rows in cut(order, settings.batch_size):
            step(optimizer, F.cross_entropy(module(retain.images[rows]), retain.labels[rows]))


def l1_sparse(module, images, labels, settings, passes):
    optimizer = sgd(module, settings)
    for epoch, batches in enumerate(passes):
        penalised = settings.epochs - settings.plain_epochs
        weight = settings.gamma * (1 - epoch / penalised) if epoch < penalised else 0.0
        for rows in batches:
            size = sum(w.abs() for p in module.parameters() for w in p.reshape(-1))
            step(optimizer, F.cross_entropy(module(images[rows]), labels[rows]) + weight * size)


def prune_then_unlearn(module, images, labels, settings, passes):
    """Cut the smallest of all entries of matrices, then fine-tune and put them back to zero after every step."""
    places, place = [], 0
    with torch.no_grad():
        for p in module.parameters():
            for i in range(p.numel()):
                if p.dim() >= 2:
                    places.append((abs(float(p.view(-1)[i])), place, p, i))
                place += 1
        places.sort(key=lambda entry: entry[:2])
        mask = [True] * place
        for _, where, p, i in places[: round(settings.sparsity * len(places))]:
            p.view(-1)[i] = 0.0
            mask[where] = False
    masked_fine_tune(module, [(images[rows], labels[rows]) for b in passes for rows in b], settings, mask)


def mean_squared_gradients(module, images, labels, batch_size):
    """Return per weight, as a list, the mean over batches of the squared gradient of the batch's mean loss."""
    batches = cut(list(range(len(labels))), batch_size)
    total = [0.0] * sum(p.numel() for p in module.parameters())
    for rows in batches:
        loss = F.cross_entropy(module(images[rows]), labels[rows])
        gradients = torch.autograd.grad(loss, list(module.parameters()))
        for i, g in enumerate(torch.cat([g.reshape(-1) for g in gradients]).tolist()):
            total[i] += g * g / len(batches)
    return total


def ssd(module, retain, forget, settings):
    module.eval()
    images, labels = torch.cat([retain.images, forget.images]), torch.cat([retain.labels, forget.labels])
    of_all = mean_squared_gradients(module, images, labels, settings.batch_size)
    of_forget = mean_squared_gradients(module, forget.images, forget.labels, settings.batch_size)
    place = 0
    with torch.no_grad():
        for p in module.parameters():
            for i in range(p.numel()):
                if of_forget[place] > settings.selection * of_all[place]:
                    p.view(-1)[i] *= min(1.0, settings.dampening * of_all[place] / of_forget[place])
                place += 1


def diagonal_fisher(module, images, classes):
    """Return per weight, as a list, the mean over examples of the expected squared gradient of log p(y|x)."""
    module.eval()
    total = [0.0] * sum(p.numel() for p in module.parameters())
    for image in images:
        for y in range(classes):
            log_p = torch.log_softmax(module(image[None]), dim=1)[0, y]
            gradients = torch.autograd.grad(log_p, list(module.parameters()))
            for i, g in enumerate(torch.cat([g.reshape(-1) for g in gradients]).tolist()):
                total[i] += log_p.exp().item() * g * g / len(images)
    return total


def fisher_noise(module, images, classes, settings, noise):
    """Add to each weight its entry of ``noise``, standard normal numbers, times its standard deviation."""
    fisher = diagonal_fisher(module, images, classes)
    place = 0
    with torch.no_grad():
        for p in module.parameters():
            for i in range(p.numel()):
                wide = min((fisher[place] + 1e-8) ** -settings.power, settings.largest)
                p.view(-1)[i] += settings.sigma * wide**0.5 * float(noise[place])
                place += 1
