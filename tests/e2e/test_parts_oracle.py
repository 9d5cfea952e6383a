"""Forgetting parts of clients' data, beside a few obvious lines in float64 that share none with the framework."""

import copy

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from fedunlearn import workspace
from fedunlearn.runs.checkpoints import Checkpoints
from tests.e2e.tiny import PARTS, run, tiny
from tests.oracles.puf_in_one_file import derive_seed, flatten, unflatten

SHARE, CLASS, MIXED = [4], [5, 6, 7, 8], [9, 10]
"""The numbers of the three targets' parts: half of client 1; class 2 of everyone; 60 % of classes 0 and 1 of two."""
OWNER = {4: 1, 5: 0, 6: 1, 7: 2, 8: 3, 9: 0, 10: 3}
ROUNDS = 3


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    experiment = tiny("engine.precision=float64", text=PARTS)
    folder = run(experiment, tmp_path_factory.mktemp("parts"))
    data = workspace.data_of(experiment, 1)
    clients = {k: tuple(map(torch.clone, data.client(k))) for k in range(4)}
    return experiment, folder, clients, workspace.new_model(experiment, data, 1).module


def rows_of(number, labels):
    """Return a part's rows, from what its target says."""
    if number in CLASS:
        return [i for i, label in enumerate(labels) if label == 2]
    if number in SHARE:
        pool, share = list(range(len(labels))), 0.5
    else:
        pool, share = [i for i, label in enumerate(labels) if label in (0, 1)], 0.6
    generator = np.random.Generator(np.random.PCG64(derive_seed(1, "part", 0, number)))
    return sorted(pool[i] for i in generator.permutation(len(pool))[: round(share * len(pool))])


def delta(module, w, images, labels, t, number):
    """Return n and w_k − w after one epoch of ordinary training."""
    if not len(labels):
        return 0, torch.zeros_like(w)
    model = copy.deepcopy(module).train()
    unflatten(w, model)
    sgd = torch.optim.SGD(model.parameters(), lr=0.1)
    generator = torch.Generator().manual_seed(derive_seed(1, "batches", t, number))
    for batch in torch.split(torch.randperm(len(labels), generator=generator), 8):
        sgd.zero_grad()
        cross_entropy(model(images[batch]), labels[batch]).backward()
        sgd.step()
    return len(labels), flatten(model) - w


def forget_and_keep(clients, parts):
    """Return part → its data, and client → what is left of its."""
    forgotten, kept = {}, {}
    for k, (images, labels) in clients.items():
        gone = set()
        for number in parts:
            if OWNER[number] == k:
                rows = rows_of(number, labels.tolist())
                forgotten[number] = (images[rows], labels[rows])
                gone |= set(rows)
        left = [i for i in range(len(labels)) if i not in gone]
        kept[k] = (images[left], labels[left])
    return forgotten, kept


def mean(pairs):
    """Return Σ n Δ and Σ n."""
    return sum(n * d for n, d in pairs), sum(n for n, _ in pairs)


@pytest.mark.parametrize(("target", "parts"), [(0, SHARE), (1, CLASS), (2, MIXED)])
@pytest.mark.parametrize("mode", ["special", "regular"])
def test_puf_and_its_recovery(world, target, parts, mode):
    """The client trains on what it keeps (regular) while what it forgets is negated; recovery is without it."""
    _, folder, clients, module = world
    forgotten, kept = forget_and_keep(clients, parts)
    w = Checkpoints(folder / "checkpoints", "original-s1").load(ROUNDS).vector
    against, n_against = mean([delta(module, w, *forgotten[u], ROUNDS + 1, u) for u in parts])
    if mode == "special":
        w = w - 2 * against / n_against
    else:
        along, n_along = mean([delta(module, w, *kept[k], ROUNDS + 1, k) for k in sampled(folder, target)])
        w = w + (along - 3 * against) / (n_along + n_against)
    label = "puf-special-2" if mode == "special" else "puf-regular-3"
    checkpoints = Checkpoints(folder / "checkpoints", f"{label}-{target}-s1")
    torch.testing.assert_close(checkpoints.load(ROUNDS + 1).vector, w, rtol=0, atol=1e-12)
    along, n_along = mean([delta(module, w, *kept[k], ROUNDS + 2, k) for k in range(4)])
    torch.testing.assert_close(checkpoints.load(ROUNDS + 2).vector, w + along / n_along, rtol=0, atol=1e-12)


def sampled(folder, target):
    """Return who trained beside, from the record: who is drawn into the slots left has tests of its own."""
    from fedunlearn.requests import Ledger

    with Ledger(folder / "requests.sqlite") as ledger:
        return ledger.plan(f"puf-regular-3-{target}-s1", ROUNDS + 1).plan["train"]


@pytest.mark.parametrize(("target", "parts"), [(0, SHARE), (1, CLASS), (2, MIXED)])
def test_retraining_never_sees_them(world, target, parts):
    _, folder, clients, module = world
    _, kept = forget_and_keep(clients, parts)
    w = flatten(module)
    for t in range(1, ROUNDS + 1):
        along, n_along = mean([delta(module, w, *kept[k], t, k) for k in range(4)])
        w = w + along / n_along
    found = Checkpoints(folder / "checkpoints", f"retrain-{target}-s1").load(ROUNDS).vector
    torch.testing.assert_close(found, w, rtol=0, atol=1e-12)
    original = Checkpoints(folder / "checkpoints", "original-s1").load(ROUNDS).vector
    assert (found - original).abs().max() > 1e-4, "it is another model"


def test_forget_quality_is_of_the_parts_and_retain_quality_of_the_rest(world):
    from fedunlearn.simulation.runner import read_scorecard

    _, folder, clients, module = world
    for row in read_scorecard(folder)["rows"]:
        if row["label"] != "original":
            continue
        forgotten, kept = forget_and_keep(clients, row["forget"].get("parts") or row["forget"]["clients"])
        model = copy.deepcopy(module).eval()
        unflatten(Checkpoints(folder / "checkpoints", "original-s1").load(ROUNDS).vector, model)
        for name, groups in (("forget", forgotten), ("retain", kept)):
            right = [int((model(x).argmax(1) == y).sum()) for x, y in groups.values()]
            total = sum(len(y) for _, y in groups.values())
            assert row["metrics"][f"{name}_accuracy"] == pytest.approx(100 * sum(right) / total)
