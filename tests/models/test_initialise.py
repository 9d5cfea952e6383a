"""How each kind of layer is filled: compared with what PyTorch draws, and with what variances should be."""

import math

import pytest
import torch
from torch import nn

from fedunlearn.models.initialise import EMBEDDINGS, initialise


def filled(layer):
    """Return a layer whose memory held something else, initialised."""
    for tensor in [*layer.parameters(), *layer.buffers()]:
        tensor.data.fill_(7)
    initialise(layer, torch.Generator().manual_seed(0))
    return layer


AS_PYTORCH = {
    "linear": (lambda: nn.Linear(300, 400), ("weight", "bias")),
    "patches": (lambda: nn.Conv2d(24, 500, 4, stride=4), ("weight", "bias")),
    "grouped patches": (lambda: nn.Conv2d(48, 500, 4, stride=4, groups=2), ("weight", "bias")),
    "transposed": (lambda: nn.ConvTranspose2d(96, 400, 3, stride=2), ("weight", "bias")),
    "attention": (lambda: nn.MultiheadAttention(192, 3), ("in_proj_weight", "in_proj_bias")),
    "end of attention": (lambda: nn.MultiheadAttention(192, 3).out_proj, ("weight",)),
}


@pytest.mark.parametrize(("make", "names"), AS_PYTORCH.values(), ids=list(AS_PYTORCH))
def test_uniform_as_pytorch_has_it(make, names):
    torch.manual_seed(0)
    theirs, ours = make(), filled(make())
    for name in names:
        drawn, expected = getattr(ours, name), getattr(theirs, name)
        assert drawn.abs().max().item() == pytest.approx(expected.abs().max().item(), rel=0.02)
        assert drawn.std().item() == pytest.approx(expected.std().item(), rel=0.1)


@pytest.mark.parametrize(("channels", "groups"), [(64, 1), (64, 4), (512, 512)])
def test_convolutions_are_he_normal_in_every_group(channels, groups):
    weight = filled(nn.Conv2d(channels, channels, 3, groups=groups, bias=False)).weight
    fan_out = channels / groups * 9
    assert weight.std().item() == pytest.approx(math.sqrt(2 / fan_out), rel=0.05)
    # Normal, not uniform: a uniform draw has no value beyond √3 standard deviations.
    assert weight.abs().max() > 3 * weight.std()


@pytest.mark.parametrize("groups", [1, 64])
def test_a_convolution_keeps_the_variance_of_a_gradient(groups):
    layer = filled(nn.Conv2d(64, 64, 3, padding=1, groups=groups, bias=False))
    draw = torch.Generator().manual_seed(1)
    images = torch.randn(8, 64, 16, 16, generator=draw, requires_grad=True)
    output = layer(images)
    # As an activation would, half of what comes back is cut off.
    gradient = torch.randn(output.shape, generator=draw) * (torch.rand(output.shape, generator=draw) < 0.5)
    output.backward(gradient)
    inner = images.grad[:, :, 1:-1, 1:-1]
    assert inner.var().item() == pytest.approx(1, rel=0.15)


def test_a_biased_convolution_draws_its_bias_within_pytorchs_bound():
    layer = filled(nn.Conv2d(4, 256, 3))
    assert 0.9 / 6 < layer.bias.abs().max() <= 1 / 6


def test_a_pointwise_convolution_is_no_patch():
    weight = filled(nn.Conv2d(100, 100, 1, bias=False)).weight
    assert weight.std().item() == pytest.approx(math.sqrt(2 / 100), rel=0.05)


@pytest.mark.parametrize(
    "layer",
    [
        nn.GroupNorm(2, 4),
        nn.BatchNorm2d(4),
        nn.LayerNorm(4),
        nn.InstanceNorm2d(4, affine=True),
        nn.InstanceNorm2d(4, affine=True, track_running_stats=True),
    ],
    ids=str,
)
def test_normalisation_layers_start_as_the_identity(layer):
    filled(layer)
    assert layer.weight.tolist() == [1, 1, 1, 1]
    assert layer.bias.tolist() == [0, 0, 0, 0]
    buffers = dict(layer.named_buffers())
    if buffers:
        assert buffers["running_mean"].tolist() == [0, 0, 0, 0]
        assert buffers["running_var"].tolist() == [1, 1, 1, 1]
        assert buffers["num_batches_tracked"] == 0


def test_the_slope_of_a_prelu():
    assert filled(nn.PReLU(3)).weight.tolist() == [0.25] * 3


@pytest.mark.parametrize(
    "layer",
    [nn.InstanceNorm2d(4), nn.LayerNorm(4, elementwise_affine=False), nn.PReLU(), nn.Dropout(), nn.GELU()],
    ids=str,
)
def test_what_has_nothing_to_draw_draws_nothing(layer):
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    initialise(layer, generator)
    assert torch.equal(before, generator.get_state())


class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.class_token = nn.Parameter(torch.full((1, 1, 500), 7.0))
        self.pos_embedding = nn.Parameter(torch.full((1, 20, 500), 7.0))


def test_tokens_and_positions_are_narrow_normals():
    tokens = filled(Tokens())
    assert (tokens.class_token == 0).all()
    assert tokens.pos_embedding.std().item() == pytest.approx(0.02, rel=0.05)
    assert tokens.pos_embedding.abs().max() > 3 * 0.02
    assert set(EMBEDDINGS) == dict(tokens.named_parameters()).keys()


class Scaled(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.ones(3), persistent=False)


@pytest.mark.parametrize(
    ("layer", "what"),
    [
        (nn.Embedding(3, 4), "'weight' of a Embedding"),
        (Scaled(), "'scale' of a Scaled"),
        (nn.MultiheadAttention(4, 2, kdim=3), "'q_proj_weight' of a MultiheadAttention"),
        (nn.MultiheadAttention(4, 2, add_bias_kv=True), "'in_proj_weight' of a MultiheadAttention"),
    ],
    ids=["embedding", "buffer", "other keys", "added keys"],
)
def test_a_layer_nobody_knows_how_to_fill_is_refused(layer, what):
    with pytest.raises(TypeError, match=f"does not know how to fill {what}"):
        initialise(nn.Sequential(layer), torch.Generator())
