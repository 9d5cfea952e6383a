"""TRW teaches F what the original says without the class, tilted towards classes whose weights look alike."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedunlearn.errors import UserError
from fedunlearn.unlearning import Conditions, Examples, method, tilting
from fedunlearn.unlearning.tilting import tilted_targets
from fedunlearn.unlearning.trw import TRW, target_entropy
from tests.oracles import unlearning as plain
from tests.oracles import unlearning_outputs as oracle
from tests.unlearning import tiny

CLASSES = 5


def gone_of(*classes, count=CLASSES):
    gone = torch.zeros(count, dtype=torch.bool)
    gone[list(classes)] = True
    return gone


def weight(seed=0, features=7, count=CLASSES):
    return torch.randn(count, features, generator=tiny.generator(seed), dtype=torch.float64)


def similarities(rows, gone, settings):
    """Return them with the settings of the method."""
    return tilting.similarities(
        rows,
        gone,
        temperature=settings.temperature,
        components=settings.components,
        centre=settings.centre,
    )


def drawn(seed, count=6, classes=CLASSES, scale=4.0):
    return scale * torch.randn(count, classes, generator=tiny.generator(seed), dtype=torch.float64)


def forgotten(labels, count=12):
    """Return F of these classes, and R of the others."""
    some = tiny.examples(count, 1)
    some = Examples(some.images, torch.arange(count) % tiny.CLASSES)
    mine = torch.isin(some.labels, torch.tensor(labels))
    return some.select(mine.nonzero().flatten()), some.select((~mine).nonzero().flatten())


# -- the whole method -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("classes", [[2], [0, 3]])
@pytest.mark.parametrize("settings", [{}, {"components": 2, "temperature": 0.5, "beta": 3.0}])
def test_two_epochs_are_those_of_the_oracle(classes, settings):
    settings = TRW(epochs=2, batch_size=4, lr=0.1, weight_decay=0.01, **settings)
    model, (forget, retain) = tiny.flat(), forgotten(classes)
    module, teacher = tiny.plain_copy(model), tiny.plain_copy(model)
    images, labels = (torch.cat(pair) for pair in zip(forget, retain, strict=True))
    passes = plain.orders(len(labels), 4, 2, seed=3)
    oracle.trw(module, teacher, images, labels, set(classes), settings, passes)
    found = method("trw")(model, forget, retain, settings=settings, generator=tiny.generator(3))
    torch.testing.assert_close(found.vector, tiny.weights(module), rtol=0, atol=1e-12)


def test_a_pass_over_f_and_then_one_over_r_are_those_of_the_oracle():
    settings = TRW(epochs=2, batch_size=4, lr=0.1, order="forget-then-retain")
    model, (forget, retain) = tiny.flat(), forgotten([2], count=20)
    module, teacher = tiny.plain_copy(model), tiny.plain_copy(model)
    images, labels = (torch.cat(pair) for pair in zip(forget, retain, strict=True))
    shuffling, passes = tiny.generator(3), []
    for _ in range(2):
        for first, count in ((0, forget.size), (forget.size, retain.size)):
            order = torch.randperm(count, generator=shuffling) + first
            passes.append(plain.cut(order.tolist(), 4))
    oracle.trw(module, teacher, images, labels, {2}, settings, passes)
    found = method("trw")(model, forget, retain, settings=settings, generator=tiny.generator(3))
    torch.testing.assert_close(found.vector, tiny.weights(module), rtol=0, atol=1e-12)


def test_progress_counts_its_steps():
    told = []
    settings, (forget, retain) = TRW(epochs=2, batch_size=5), forgotten([2], count=20)
    for order, steps in (("mixed", 8), ("forget-then-retain", 8)):
        told.clear()
        chosen = TRW(**{**vars(settings), "order": order})
        conditions = Conditions(progress=told.append)
        method("trw")(
            tiny.flat(), forget, retain, settings=chosen, generator=tiny.generator(), conditions=conditions
        )
        assert [report.step for report in told] == list(range(1, steps + 1))
        assert {report.steps for report in told} == {steps}


def test_the_class_is_forgotten_and_the_others_are_not():
    model, (forget, retain) = tiny.flat(), forgotten([2], count=40)
    learn = method("fine-tune")
    everything = Examples(*(torch.cat(pair) for pair in zip(forget, retain, strict=True)))
    many = learn.settings(epochs=300, lr=0.1, batch_size=40, weight_decay=0.0)
    model = learn(model, forget, everything, settings=many, generator=tiny.generator())
    settings = TRW(epochs=200, lr=0.1, batch_size=40, weight_decay=0.0)
    found = method("trw")(model, forget, retain, settings=settings, generator=tiny.generator())

    def accuracy(of, examples):
        return float((of.module(examples.images).argmax(1) == examples.labels).double().mean())

    assert accuracy(model, forget) > 0.9 and accuracy(found, forget) < 0.1
    assert accuracy(found, retain) > 0.8


def test_models_without_a_head_and_requests_for_everything_are_refused():
    images, labels = tiny.examples(8, 1)
    with pytest.raises(UserError, match="trw: F holds all 4 classes"):
        method("trw")(
            tiny.flat(),
            Examples(images, torch.arange(8) % tiny.CLASSES),
            Examples(images[:0], labels[:0]),
            generator=tiny.generator(),
        )
    headless = torch.nn.Sequential(torch.nn.Conv2d(1, tiny.CLASSES, (2, 3)), torch.nn.Flatten()).double()
    from fedunlearn.models.flat import FlatModel

    forget, retain = forgotten([2])
    with pytest.raises(UserError, match="trw: Sequential does not end in a linear layer"):
        method("trw")(FlatModel(headless, dtype=torch.float64), forget, retain, generator=tiny.generator())


# -- targets --------------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 99), beta=st.floats(0, 30), scale=st.floats(0.1, 40), forget=st.integers(0, 4))
def test_targets_are_distributions_without_the_class(seed, beta, scale, forget):
    gone = gone_of(forget)
    similarity = similarities(weight(seed), gone, TRW())
    labels = torch.full((6,), forget)
    q = tilted_targets(drawn(seed, scale=scale), labels, similarity, gone, beta)
    assert (q[:, forget] == 0).all() and (q >= 0).all()
    torch.testing.assert_close(q.sum(1), torch.ones(6, dtype=torch.float64), rtol=0, atol=1e-12)


def test_targets_are_the_oracles():
    gone, settings = gone_of(1, 3), TRW(components=2)
    similarity, logits = similarities(weight(), gone, settings), drawn(4)
    labels = torch.tensor([1, 3, 1, 3, 3, 1])
    q = tilted_targets(logits, labels, similarity, gone, 10.0)
    for row, label, target in zip(logits, labels.tolist(), q, strict=True):
        s = oracle.similarities(weight().numpy(), label, {1, 3}, 2, 0.1)
        expected = oracle.tilted(oracle.softmax(row.tolist()), s, 10.0)
        assert target.tolist() == pytest.approx(expected, abs=1e-13)


def test_without_a_tilt_they_are_the_softmax_without_the_class():
    gone, logits = gone_of(2), drawn(1)
    similarity = similarities(weight(), gone, TRW())
    q = tilted_targets(logits, torch.full((6,), 2), similarity, gone, 0.0)
    p = logits.softmax(1)
    expected = p / (1 - p[:, [2]])
    expected[:, 2] = 0
    torch.testing.assert_close(q, expected, rtol=1e-12, atol=0)


def test_they_survive_a_model_that_is_certain():
    gone, logits = gone_of(0), torch.tensor([[4000.0, 2.0, 1.0, 0.0, 0.0]], dtype=torch.float64)
    q = tilted_targets(logits, torch.tensor([0]), similarities(weight(), gone, TRW()) * 0, gone, 10.0)
    torch.testing.assert_close(q[0, 1:], logits[0, 1:].softmax(0))


# -- similarities ---------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 99), components=st.integers(0, 6))
def test_similarities_add_up_to_one_over_the_classes_that_stay(seed, components):
    gone = gone_of(0, 4)
    s = similarities(weight(seed), gone, TRW(components=components))
    assert (s[:, gone] == 0).all() and (s[~gone] == 0).all()
    torch.testing.assert_close(s[gone].sum(1), torch.ones(2, dtype=torch.float64))


@pytest.mark.parametrize("components", [0, 2, 16])
def test_they_know_neither_origin_nor_scale_nor_axes(components):
    rows, gone, settings = weight(), gone_of(2), TRW(components=components)
    turn = torch.linalg.qr(weight(5, features=7, count=7)).Q
    expected = similarities(rows, gone, settings)
    for other in (rows + weight(6, count=1), 3.0 * rows, rows @ turn):
        torch.testing.assert_close(similarities(other, gone, settings), expected, rtol=0, atol=1e-12)
    order = torch.tensor([3, 1, 4, 0, 2])
    permuted = similarities(rows[order], gone[order], settings)
    torch.testing.assert_close(permuted, expected[order][:, order], rtol=0, atol=1e-12)


def test_as_many_components_as_there_are_leave_the_cosines_alone():
    rows, gone = weight(), gone_of(2)
    whole, projected = (similarities(rows, gone, TRW(components=count)) for count in (0, 16))
    torch.testing.assert_close(whole, projected, rtol=0, atol=1e-12)
    fewer = similarities(rows, gone, TRW(components=1))
    assert not torch.allclose(whole, fewer)


def test_the_nearest_class_is_the_most_similar():
    rows = torch.tensor([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [-1.0, 0.0]])
    s = similarities(rows, gone_of(0, count=4), TRW(centre=False, components=0))[0]
    assert s.argsort(descending=True).tolist() == [1, 2, 3, 0]


def test_a_low_temperature_names_one_class_and_a_high_one_none():
    gone = gone_of(2)
    sharp, flat = (similarities(weight(), gone, TRW(temperature=t))[2] for t in (1e-3, 1e6))
    assert float(sharp.max()) > 0.999
    torch.testing.assert_close(flat[~gone], torch.full((4,), 0.25, dtype=torch.float64), rtol=0, atol=1e-5)


# -- what a report shows --------------------------------------------------------------------------------------


def test_the_entropy_of_the_targets():
    model, (forget, _) = tiny.flat(), forgotten([2])
    settings = TRW(beta=2.0)
    head = model.module[-1].weight.detach().numpy()
    s = oracle.similarities(head, 2, {2}, 16, 0.1)
    entropies = [
        -sum(q * math.log(q) for q in oracle.tilted(oracle.softmax(row), s, 2.0) if q)
        for row in model.module(forget.images).tolist()
    ]
    assert target_entropy(model, forget, settings) == pytest.approx(sum(entropies) / len(entropies))
    assert target_entropy(model, forget, TRW(beta=1e4)) < 0.1 < target_entropy(model, forget, TRW(beta=0.0))
