"""A model as one flat vector: views that really share memory."""

import pytest
import torch
from torch import nn

from fedunlearn.errors import UserError
from fedunlearn.models.flat import FlatModel


def module():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, bias=False), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3 * 4 * 4, 5)
    )


@pytest.fixture
def model():
    return FlatModel(module())


def inside(view, vector):
    """Whether a tensor lies in a vector's memory."""
    first, last = vector.data_ptr(), vector.data_ptr() + vector.numel() * vector.element_size()
    return first <= view.data_ptr() and view.data_ptr() + view.numel() * view.element_size() <= last


def test_the_vector_is_all_parameters_in_order(model):
    plain = torch.cat([p.detach().reshape(-1) for p in module().parameters()])
    assert torch.equal(model.vector, plain)
    assert model.num_parameters == len(plain) == 27 + 3 + 3 + 48 * 5 + 5


def test_parameters_and_gradients_are_views(model):
    offset = 0
    for p in model.module.parameters():
        assert inside(p, model.vector) and inside(p.grad, model.gradient)
        assert p.storage_offset() == p.grad.storage_offset() == offset
        assert p.is_contiguous() and p.requires_grad
        offset += p.numel()
    assert model.parameter.data_ptr() == model.vector.data_ptr()
    assert model.parameter.grad.data_ptr() == model.gradient.data_ptr()


def test_writing_to_either_side_shows_on_the_other(model):
    weight = model.module[3].weight
    model.vector.fill_(2.0)
    assert (weight == 2.0).all()
    with torch.no_grad():
        weight.fill_(3.0)
    assert (model.vector == 3.0).sum() == weight.numel()


def test_the_forward_pass_sees_what_was_loaded(model):
    images = torch.randn(2, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    model.module.eval()
    before = model.module(images)
    model.load(torch.zeros_like(model.vector))
    assert (model.module(images) == 0).all()
    assert not (before == 0).any()


def test_backward_fills_the_flat_gradient_and_goes_on_doing_so(model):
    images = torch.randn(4, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    plain = module()
    memory = model.gradient.data_ptr()
    for _ in range(3):
        model.zero_grad()
        plain.zero_grad()
        for each in (model.module, plain):
            each(images).square().sum().backward()
        assert torch.equal(model.gradient, torch.cat([p.grad.reshape(-1) for p in plain.parameters()]))
        assert all(inside(p.grad, model.gradient) for p in model.module.parameters())
        assert model.gradient.data_ptr() == memory
    model.zero_grad()
    assert (model.gradient == 0).all()
    assert all((p.grad == 0).all() for p in model.module.parameters())


def test_one_optimiser_step_on_the_vector_moves_every_layer(model):
    before = [p.detach().clone() for p in model.module.parameters()]
    model.gradient.fill_(1.0)
    torch.optim.SGD([model.parameter], lr=0.5).step()
    for p, old in zip(model.module.parameters(), before, strict=True):
        assert torch.equal(p, old - 0.5)
    assert inside(model.module[3].weight, model.vector)


# -- loading -----------------------------------------------------------------------------------------------


def test_loading_copies(model):
    vector = torch.ones_like(model.vector)
    model.load(vector)
    model.vector.add_(1.0)
    assert (vector == 1.0).all()


def test_buffers_are_handed_out_as_copies_and_loaded_in_place(model):
    taken = model.buffers()
    assert sorted(taken) == ["1.num_batches_tracked", "1.running_mean", "1.running_var"]
    taken["1.running_mean"].fill_(7.0)
    assert (model.module[1].running_mean == 0).all()
    taken["1.num_batches_tracked"].fill_(9)
    running_mean = model.module[1].running_mean
    model.load(model.vector.clone(), taken)
    assert model.module[1].running_mean is running_mean
    assert (running_mean == 7.0).all()
    assert model.module[1].num_batches_tracked == 9
    running_mean.zero_()
    assert (taken["1.running_mean"] == 7.0).all()


def test_the_buffers_are_those_that_training_moves(model):
    model.module.train()
    model.module(torch.ones(2, 1, 6, 6))
    assert model.buffers()["1.num_batches_tracked"] == 1
    assert (model.buffers()["1.running_mean"] != 0).all()


def test_without_buffers_only_the_parameters_are_loaded(model):
    kept = model.buffers()["1.running_var"]
    model.load(torch.zeros_like(model.vector))
    assert torch.equal(model.buffers()["1.running_var"], kept)
    assert (model.vector == 0).all()


@pytest.mark.parametrize("shape", [(3,), (1, 278), (279,), ()])
def test_another_shape_is_refused(model, shape):
    assert model.num_parameters == 278
    with pytest.raises(ValueError, match="this model has 278 parameters, got a vector of"):
        model.load(torch.zeros(shape))


@pytest.mark.parametrize("change", [{"1.running_mean": None}, {"more": torch.zeros(1)}])
def test_other_buffers_are_refused(model, change):
    buffers = {k: v for k, v in (model.buffers() | change).items() if v is not None}
    with pytest.raises(ValueError, match="this model has buffers"):
        model.load(torch.zeros_like(model.vector), buffers)
    assert not (model.vector == 0).all(), "nothing of it was loaded"


def test_a_dtype_for_everything_but_the_counters():
    model = FlatModel(module(), dtype=torch.float64)
    assert model.vector.dtype == model.gradient.dtype == torch.float64
    assert {p.dtype for p in model.module.parameters()} == {torch.float64}
    dtypes = {name: buffer.dtype for name, buffer in model.buffers().items()}
    assert dtypes["1.running_mean"] == torch.float64
    assert dtypes["1.num_batches_tracked"] == torch.int64
    model.module.eval()
    assert model.module(torch.zeros(1, 1, 6, 6, dtype=torch.float64)).dtype == torch.float64


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Sequential(nn.Flatten(), nn.ReLU()), "has no parameters"),
        (nn.Sequential(nn.LazyLinear(3)), "'0.weight' has no shape yet; run the model on an image first"),
        (
            nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).requires_grad_(False)),
            "2 of its 4 parameters require no",
        ),
    ],
)
def test_what_cannot_be_one_vector_that_is_trained_is_refused_in_one_line(module, message):
    with pytest.raises(UserError, match=message) as refused:
        FlatModel(module)
    assert str(refused.value).startswith("the model (Sequential)") and "\n" not in str(refused.value)
