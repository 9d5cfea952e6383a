"""FedUNRAN: random labels drawn anew for every batch, until they are learned no better."""

import pytest
import torch

from fedunlearn.randomness import torch_generator
from fedunlearn.unlearning import Conditions, fedunran, method
from fedunlearn.unlearning.fedunran import FedUnran, improves, stops
from tests.oracles import unlearning as oracle
from tests.oracles import unlearning_teachers as teachers
from tests.unlearning import tiny

FORGET = tiny.examples(9, 1)
EMPTY = FORGET.select(torch.arange(0))


def run(model, settings, told=None):
    conditions = Conditions(progress=told.append if told is not None else None)
    given = {"settings": settings, "generator": tiny.generator(3), "conditions": conditions}
    return method("fedunran")(model, FORGET, EMPTY, **given)


def epochs_of(settings):
    """Return the oracle's batches: every example gets a label from a stream of their own, batch after batch."""
    drawing, found = torch_generator(3, "labels"), []
    for batches in oracle.orders(FORGET.size, settings.batch_size, settings.epochs, seed=3):
        found.append([])
        for rows in batches:
            labels = torch.randint(tiny.CLASSES, (len(rows),), generator=drawing)
            found[-1].append((FORGET.images[rows], labels))
    return found


@pytest.mark.parametrize(
    "settings", [FedUnran(epochs=2, batch_size=4, lr=0.01), FedUnran(batch_size=4, lr=0.05)]
)
def test_epochs_are_those_of_the_oracle(settings):
    model = tiny.flat()
    best, done = teachers.one_hot_epochs(
        tiny.plain_copy(model), epochs_of(settings), settings.lr, settings.patience
    )
    told = []
    found = run(model, settings, told)
    torch.testing.assert_close(found.vector, tiny.weights(best), rtol=0, atol=1e-10)
    assert len(told) == 3 * done


def test_labels_are_drawn_anew_for_every_batch(monkeypatch):
    drawn = []

    def random_labels(labels, *rest, **options):
        drawn.append(original(labels, *rest, **options))
        return drawn[-1]

    original = fedunran.random_labels
    monkeypatch.setattr(fedunran, "random_labels", random_labels)
    run(tiny.flat(), FedUnran(epochs=6, batch_size=9, patience=6))
    assert len(drawn) == 6 and len({tuple(labels.tolist()) for labels in drawn}) == 6


# -- stopping -------------------------------------------------------------------------------------------------


def keras(losses, patience):
    """Return after how many epochs a callback that counts them stops, or None."""
    lowest, waited = float("inf"), 0
    for done, loss in enumerate(losses, start=1):
        waited += 1
        if loss < lowest:
            lowest, waited = loss, 0
        if waited >= patience and done > 1:
            return done
    return None


SERIES = [
    [5, 4, 3, 2, 1],
    [1, 1, 1, 1, 1],
    [3, 4, 4, 2, 3, 3, 3, 1],
    [3, 2, 3, 3, 2, 1],
    [3, 2, 3, 3, 1.9, 2, 2, 2],
    [float("nan")] * 5,
]


@pytest.mark.parametrize("losses", SERIES)
@pytest.mark.parametrize("patience", [1, 2, 3])
def test_it_stops_when_counting_says_so(losses, patience):
    stopped = [n for n in range(1, len(losses) + 1) if stops(losses[:n], patience)]
    if losses[0] == losses[0]:  # Keras calls the first of losses that are no numbers a failure, too
        assert (stopped[0] if stopped else None) == keras(losses, patience)
    else:
        assert stopped[0] == patience + 1


def test_only_a_lower_loss_is_better():
    assert improves([2.0]) and improves([2.0, 1.0])
    assert not improves([2.0, 2.0]) and not improves([2.0, 1.0, 1.5])


def rigged(monkeypatch, losses):
    """Let the epochs have these losses, whatever is learned."""
    series = iter(losses)

    def cross_entropy(logits, labels):
        return next(series) + 1e-3 * (logits - logits.detach()).sum()  # exactly, whatever the logits

    monkeypatch.setattr(fedunran.F, "cross_entropy", cross_entropy)


def test_the_best_epoch_is_what_comes_back(monkeypatch):
    settings = FedUnran(epochs=30, batch_size=9, lr=0.01)
    model = tiny.flat()
    rigged(monkeypatch, [3.0, 2.0])
    two = run(model, FedUnran(epochs=2, batch_size=9, lr=0.01))
    rigged(monkeypatch, [3.0, 2.0, 2.5, 2.0, 2.1])
    told = []
    found = run(model, settings, told)
    assert len(told) == 5 and told[-1].steps == 30
    assert torch.equal(found.vector, two.vector)


def test_at_the_last_epoch_too(monkeypatch):
    model = tiny.flat()
    rigged(monkeypatch, [3.0])
    one = run(model, FedUnran(epochs=1, batch_size=9, lr=0.01))
    rigged(monkeypatch, [3.0, 4.0])
    assert torch.equal(run(model, FedUnran(epochs=2, batch_size=9, lr=0.01)).vector, one.vector)


def test_of_losses_next_to_nothing_the_lower_is_better(monkeypatch):
    model, settings = tiny.flat(), FedUnran(epochs=2, batch_size=9, lr=0.01)
    rigged(monkeypatch, [3.0, 2.0])
    two = run(model, settings)
    rigged(monkeypatch, [2e-20, 1e-20])
    assert torch.equal(run(model, settings).vector, two.vector)
