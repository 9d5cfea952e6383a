"""Methods with teachers, boundaries and random targets, the slow and obvious way: nothing of the library.

Each takes ordinary modules and changes the first; batches are given by the caller, as tensors in their order.
"""

import copy

import torch
import torch.nn.functional as F
from torch import nn

from tests.oracles.unlearning import sgd, step


def softmax(logits, temperature=1.0):
    powers = [(logits[:, k] / temperature).exp() for k in range(logits.shape[1])]
    return torch.stack([p / sum(powers) for p in powers], dim=1)


def kl(targets, predicted):
    """Return the mean of Σ_k t_k log(t_k / p_k), example by example."""
    rows = []
    for t, p in zip(targets, predicted, strict=True):
        rows.append(sum(t[k] * (t[k].log() - p[k].log()) for k in range(len(t))))
    return sum(rows) / len(rows)


def scrub(student, settings, epochs):
    """Take per epoch two lists of batches, of F and of R; return the module after each epoch."""
    teacher, optimizer, kept = copy.deepcopy(student).eval(), sgd(student, settings), []
    heat = settings.temperature

    def distance(images):
        with torch.no_grad():
            taught = softmax(teacher(images), heat)
        return heat**2 * kl(taught, softmax(student(images), heat))

    for number, (of_forget, of_retain) in enumerate(epochs, start=1):
        if number <= settings.msteps:
            for images, _ in of_forget:
                step(optimizer, -distance(images))
        for images, labels in of_retain:
            ce = F.cross_entropy(student(images), labels)
            step(optimizer, settings.gamma * ce + settings.alpha * distance(images))
        kept.append(copy.deepcopy(student))
    return kept


def distil(student, batches, lr, heat=1.0):
    """Take Adam steps of (images, target probabilities) batches, at a temperature."""
    optimizer = torch.optim.Adam(student.parameters(), lr=lr)
    for images, targets in batches:
        step(optimizer, heat**2 * kl(targets, softmax(student(images), heat)))


def nearest_wrong_label(module, image, label, epsilon, exclude=True):
    """Return the class of one image after a step of FGSM, by its own gradient."""
    moved = image[None].clone().requires_grad_()
    F.cross_entropy(module(moved), torch.tensor([label])).backward()
    module.zero_grad()
    signs = moved.grad[0].apply_(lambda g: (g > 0) - (g < 0))
    with torch.no_grad():
        logits = module((image + epsilon * signs)[None])[0].tolist()
    classes = [k for k in range(len(logits)) if not (exclude and k == label)]
    return max(classes, key=lambda k: logits[k])


def learn(module, batches, settings):
    optimizer = sgd(module, settings)
    for images, labels in batches:
        step(optimizer, F.cross_entropy(module(images), labels))


def expand(module, batches, settings, row):
    """Widen the last layer of a Sequential by ``row``, learn class K, and cut it off again."""
    *body, head = module
    classes, features = head.weight.shape
    wide = nn.Linear(features, classes + 1).double()
    with torch.no_grad():
        wide.weight[:classes], wide.weight[classes] = head.weight, row
        wide.bias[:classes], wide.bias[classes] = head.bias, 0.0
    whole = nn.Sequential(*body, wide)
    learn(whole, [(images, torch.full((len(images),), classes)) for images in batches], settings)
    with torch.no_grad():
        head.weight.copy_(wide.weight[:classes])
        head.bias.copy_(wide.bias[:classes])


def one_hot_epochs(module, epochs, lr, patience):
    """Learn (images, wrong labels) batches epoch by epoch as Keras stops early; return its best, and how many ran."""
    optimizer = torch.optim.Adam(module.parameters(), lr=lr)
    best, lowest, waited, done = None, float("inf"), 0, 0
    for batches in epochs:
        summed = count = 0
        for images, labels in batches:
            target = torch.zeros(len(labels), module(images).shape[1], dtype=torch.float64)
            for i, label in enumerate(labels):
                target[i, label] = 1.0
            loss = -(target * softmax(module(images)).log()).sum() / len(labels)
            step(optimizer, loss)
            summed, count = summed + float(loss.detach()) * len(labels), count + len(labels)
        done += 1
        waited += 1
        if summed / count < lowest:
            best, lowest, waited = copy.deepcopy(module), summed / count, 0
        if waited >= patience:
            break
    return best, done
