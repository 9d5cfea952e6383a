"""MPRU puts a filter behind the model: the weights are the same bits, the class has nothing."""

from itertools import permutations

import numpy as np
import pytest
import torch

from fedunlearn.errors import UserError
from fedunlearn.unlearning import Examples, method
from fedunlearn.unlearning.mpru import MPRU
from fedunlearn.unlearning.output_filter import Redistribution
from fedunlearn.unlearning.redistribution import VARIANTS, drop, nothing_dropped
from tests.oracles import unlearning_outputs as oracle
from tests.unlearning import tiny

KINDS = tuple(VARIANTS)


def examples_of(classes, count=40, seed=1):
    """Return F of these classes, and R of the others."""
    some = tiny.examples(count, seed)
    mine = torch.isin(some.labels, torch.tensor(classes))
    return some.select(mine.nonzero().flatten()), some.select((~mine).nonzero().flatten())


def run(model, classes, redistribution="proportional", **given):
    forget, retain = examples_of(classes)
    settings = MPRU(redistribution=redistribution, **given)
    return method("mpru")(model, forget, retain, settings=settings, generator=tiny.generator())


def probabilities(model, images):
    return model.module(images).exp()


def said(model, examples):
    return [oracle.softmax(row) for row in model.module(examples.images).tolist()]


# -- what it gives out ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [[2], [0, 3]])
@pytest.mark.parametrize("kind", ["proportional", "uniform", "constant"])
def test_outputs_are_the_oracles(kind, classes):
    model, seen = tiny.flat(), tiny.examples(10, 5)
    forget, _ = examples_of(classes)
    shares = {}
    for f in classes:
        rows = [p for p, y in zip(said(model, forget), forget.labels.tolist(), strict=True) if y == f]
        equal = [float(j != f) / (tiny.CLASSES - 1) for j in range(tiny.CLASSES)]
        mean = oracle.mean_without(rows, f)
        shares[f] = {"proportional": None, "uniform": equal, "constant": mean}[kind]
    found = probabilities(run(model, classes, kind), seen.images)
    for p, q in zip(said(model, seen), found.tolist(), strict=True):
        assert q == pytest.approx(oracle.pushed_on(p, shares), abs=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_they_stay_on_the_simplex_and_k_outputs_stay_k(kind):
    found = run(tiny.flat(), [0, 3], kind).module(tiny.examples(10, 5).images).detach()
    assert found.shape == (10, tiny.CLASSES) and found.isfinite().all()
    torch.testing.assert_close(found.exp().sum(1), torch.ones(10, dtype=torch.float64), rtol=0, atol=1e-12)
    assert float(found.exp()[:, [0, 3]].max()) < 1e-300
    again = found.softmax(1)  # what reads them as logits finds the same
    torch.testing.assert_close(again, found.exp(), rtol=0, atol=1e-12)
    assert not set(found.argmax(1).tolist()) & {0, 3}


def test_the_learnt_one_fits_the_labels_at_least_as_well_as_the_uniform_one():
    model = tiny.flat()
    _, retain = examples_of([2])

    @torch.no_grad()
    def loss(kind):
        return float(torch.nn.functional.nll_loss(run(model, [2], kind).module(retain.images), retain.labels))

    assert loss("learnt") < loss("uniform")


@pytest.mark.parametrize("kind", KINDS)
def test_the_filter_and_the_arithmetic_on_probabilities_are_one(kind):
    from fedunlearn.unlearning.redistribution import redistribute

    model, seen = tiny.flat(), tiny.examples(10, 5).images
    filtered = run(model, [0, 3], kind)
    p = model.module(seen).softmax(1)
    torch.testing.assert_close(
        filtered.module(seen).exp(),
        redistribute(p, filtered.module.redistribution.transfer),
        rtol=0,
        atol=1e-12,
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("fixed", [False, True])
def test_certainty_of_the_class_does_no_harm(fixed, dtype):
    rows = np.array([[0.0, 0.5, 0.5, 0.0]] if fixed else [[0.0] * 4])
    layer = Redistribution(drop(nothing_dropped(4), [0], rows)).to(torch.float32)
    logits = torch.tensor([[1000.0, 2.0, 1.0, 0.0]], dtype=dtype, requires_grad=True)
    q = layer(logits)
    expected = torch.tensor([0.5, 0.5, 0.0]) if fixed else torch.tensor([2.0, 1.0, 0.0]).softmax(0)
    torch.testing.assert_close(q[0, 1:].exp().float(), expected, rtol=1e-5, atol=1e-6)
    q[0, 1:].sum().backward()
    assert logits.grad.isfinite().all() and q.isfinite().all()


def test_gradients_are_those_of_differences():
    rows = np.array([[0.0, 0.5, 0.0, 0.5], [0.3, 0.7, 0.0, 0.0]])
    layer = Redistribution(drop(nothing_dropped(4), [0, 2], rows))
    logits = torch.randn(3, 4, generator=tiny.generator(), dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda z: layer(z)[:, [1, 3]], logits)


# -- what stays -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("training", [False, True])
def test_weights_and_buffers_are_the_same_bits(kind, training):
    model = tiny.flat(norm=True)
    model.module.train(training)
    found = run(model, [2], kind)
    assert torch.equal(found.vector, model.vector) and found.num_parameters == model.num_parameters
    assert found.module.training is training
    buffers = found.buffers()
    assert torch.equal(buffers.pop("redistribution.transfer").diagonal() == 0, torch.arange(4) == 2)
    for (name, mine), (of, given) in zip(buffers.items(), model.buffers().items(), strict=True):
        assert name == f"model.{of}" and torch.equal(mine, given)


def test_a_filtered_model_is_copied_with_its_filter():
    model, seen = run(tiny.flat(), [2], "uniform"), tiny.examples(5, 5).images
    assert torch.equal(model.copy().module(seen), model.module(seen))


def test_it_can_be_trained_on():
    model, (_, retain) = run(tiny.flat(), [2], "uniform"), examples_of([2])
    tune = method("fine-tune")
    settings = tune.settings(epochs=30, lr=0.1)
    found = tune(model, retain, retain, settings=settings, generator=tiny.generator())

    @torch.no_grad()
    def loss(of):
        return float(torch.nn.functional.cross_entropy(of.module(retain.images), retain.labels))

    assert loss(found) < loss(model)
    assert torch.equal(found.module.redistribution.transfer, model.module.redistribution.transfer)


# -- several classes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["proportional", "uniform", "constant"])
def test_one_request_or_several_in_any_order(kind):
    seen = tiny.examples(10, 5).images
    at_once = run(tiny.flat(), [0, 3], kind).module(seen)  # two are left, or there would be nothing to share
    for order in permutations([0, 3]):
        model = tiny.flat()
        for f in order:
            model = run(model, [f], kind)
        torch.testing.assert_close(model.module(seen), at_once, rtol=0, atol=1e-9)
        assert torch.equal(model.vector, tiny.flat().vector)


def test_kinds_can_be_mixed():
    seen, model = tiny.examples(10, 5), tiny.flat()
    found = probabilities(run(run(model, [0], "uniform"), [3], "proportional"), seen.images)
    shares = {0: [0, 1 / 3, 1 / 3, 1 / 3], 3: None}
    for p, q in zip(said(model, seen), found.tolist(), strict=True):
        assert q == pytest.approx(oracle.pushed_on(p, shares), abs=1e-12)


def test_all_classes_are_too_many():
    with pytest.raises(UserError, match="mpru: without class 3 no class is left"):
        run(tiny.flat(), [0, 1, 2, 3])


# -- what it reads --------------------------------------------------------------------------------------------


def test_calibration_reads_no_more_than_it_is_told_to():
    forget, retain = examples_of([2], count=60)
    few = MPRU(redistribution="learnt", calibration=3)
    one, same, all_of_them = (
        method("mpru")(tiny.flat(), forget, retain, settings=settings, generator=tiny.generator(seed))
        for settings, seed in ((few, 3), (few, 3), (MPRU(redistribution="learnt"), 3))
    )
    assert torch.equal(one.module.redistribution.transfer, same.module.redistribution.transfer)
    assert not torch.equal(one.module.redistribution.transfer, all_of_them.module.redistribution.transfer)


def test_without_retained_examples_nothing_can_be_learnt():
    forget, retain = examples_of([2])
    nobody = Examples(retain.images[:0], retain.labels[:0])
    with pytest.raises(UserError, match=r"mpru: needs retained examples"):
        method("mpru")(tiny.flat(), forget, nobody, settings=MPRU("learnt"), generator=tiny.generator())


def test_it_reads_outputs_in_evaluation_mode():
    model = tiny.flat(norm=True)
    found = [run(model, [2], "constant").module.redistribution.transfer]
    model.module.eval()
    found.append(run(model, [2], "constant").module.redistribution.transfer)
    assert torch.equal(*found)
