"""Initial weights depend on the training seed alone, and drawing them leaves no trace."""

import threading

import pytest
import torch
from torch import nn

from fedunlearn import plugins
from tests.models.small import VARIANTS, make

every_variant = pytest.mark.parametrize("variant", VARIANTS)


def state(model):
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@every_variant
def test_one_seed_one_set_of_weights_whatever_was_drawn_before(variant):
    first = state(make(variant))
    torch.manual_seed(1234)
    torch.rand(10)
    assert equal(first, state(make(variant)))
    assert not equal(first, state(make(variant, seed=2)))


@every_variant
def test_building_does_not_touch_the_global_generator(variant):
    before = torch.get_rng_state()
    make(variant)
    assert torch.equal(before, torch.get_rng_state())


@every_variant
def test_nothing_stays_as_its_memory_was(variant, monkeypatch):
    expected = state(make(variant))
    to_empty = nn.Module.to_empty

    def poisoned(module, **where):
        filled = to_empty(module, **where)
        for tensor in [*filled.parameters(), *filled.buffers()]:
            tensor.data.fill_(float("nan") if tensor.is_floating_point() else -77)
        return filled

    monkeypatch.setattr(nn.Module, "to_empty", poisoned)
    model = make(variant)
    assert equal(state(model), expected)
    # Buffers that are not persistent are in no state_dict.
    assert all(tensor.isfinite().all() for tensor in [*model.parameters(), *model.buffers()])
    assert not any(tensor.is_meta for tensor in [*model.parameters(), *model.buffers()])


@every_variant
def test_models_are_float32_and_finite_whatever_the_default_dtype(variant):
    default = torch.get_default_dtype()
    expected = state(make(variant))
    try:
        torch.set_default_dtype(torch.float64)
        built = state(make(variant))
    finally:
        torch.set_default_dtype(default)
    dtypes = {tensor.dtype for name, tensor in built.items() if not name.endswith("num_batches_tracked")}
    assert dtypes == {torch.float32}
    assert all(tensor.isfinite().all() for tensor in built.values())
    assert equal(built, expected)


def test_threads_building_at_once_get_the_same_weights():
    built = []
    threads = [threading.Thread(target=lambda: built.append(state(make("small-cnn")))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(built) == 4
    assert all(equal(built[0], other) for other in built)


def test_every_model_has_a_one_line_description():
    lines = [plugins.summary(plugins.find("models", name)) for name in plugins.names("models")]
    assert all(line.endswith(".") and len(line) < 118 for line in lines)
