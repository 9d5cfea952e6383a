"""SSD shrinks what matters for F more than for all, and nothing grows."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from fedunlearn.unlearning import Examples, method
from fedunlearn.unlearning.ssd import SSD, dampened, importances, unlearn
from tests.oracles import unlearning_weights as oracles
from tests.unlearning import tiny


def run(model, settings):
    forget, retain = tiny.examples(5, 1, label=2), tiny.examples(10, 2)
    return method("ssd")(model, forget, retain, settings=settings, generator=tiny.generator())


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("selection, dampening", [(1.0, 1.0), (1.5, 0.3), (0.5, 1.0)])
def test_the_weights_are_those_of_the_oracle(selection, dampening, norm):
    settings = SSD(selection=selection, dampening=dampening, batch_size=4)
    model, forget, retain = tiny.flat(norm=norm), tiny.examples(5, 1, label=2), tiny.examples(10, 2)
    module = tiny.plain_copy(model)
    oracles.ssd(module, retain, forget, settings)
    found = run(model, settings).vector
    torch.testing.assert_close(found, tiny.weights(module), rtol=0, atol=1e-12)
    assert not torch.equal(found, model.vector)


def test_with_f_all_there_is_nothing_changes():
    model, everything = tiny.flat(), tiny.examples(10, 1)
    nothing = Examples(everything.images[:0], everything.labels[:0])
    settings = SSD(selection=1.0, dampening=0.1, batch_size=4)
    found = unlearn(model, everything, nothing, settings=settings, generator=tiny.generator())
    assert torch.equal(found.vector, model.vector) and found is not model


@pytest.mark.parametrize("dampening", [0.1, 1.0, 50.0])
def test_no_weight_grows_or_changes_sign(dampening):
    model = tiny.flat()
    found = run(model, SSD(selection=1.0, dampening=dampening, batch_size=4)).vector
    assert (found.abs() <= model.vector.abs()).all()
    assert (found * model.vector >= 0).all()


numbers = st.floats(0, 1e6, allow_subnormal=False)


@given(
    st.lists(st.tuples(st.floats(-10, 10), numbers, numbers), min_size=1), st.floats(0, 20), st.floats(0, 20)
)
def test_only_what_is_selected_moves(entries, selection, dampening):
    weights, of_forget, of_all = torch.tensor(entries, dtype=torch.float64).unbind(dim=1)
    found = dampened(weights, of_forget, of_all, SSD(selection=selection, dampening=dampening))
    chosen = of_forget > selection * of_all
    assert torch.equal(found[~chosen], weights[~chosen])
    assert (found.abs() <= weights.abs()).all()


def test_weights_that_the_rest_does_not_need_at_all_become_nothing():
    weights, of_forget, of_all = torch.tensor([2.0, 2.0]), torch.tensor([1.0, 0.0]), torch.tensor([0.0, 0.0])
    assert dampened(weights, of_forget, of_all, SSD()).tolist() == [0.0, 2.0]


def test_the_batch_size_changes_the_importances_and_statistics_stay():
    model, examples = tiny.flat(norm=True), tiny.examples(8, 1)
    one, four = (importances(model, examples, size, F.cross_entropy) for size in (1, 4))
    assert one.sum() > four.sum()
    found = run(model, SSD(selection=1.0, batch_size=4))
    assert torch.equal(found.module[2].running_mean, model.module[2].running_mean)
