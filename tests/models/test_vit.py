"""The vision transformer: what it is made of, what it computes, what it refuses, and that it trains in a stack."""

import pytest
import torch
import torch.nn.functional as F

from fedunlearn.errors import ConfigError
from fedunlearn.training import train_stack, why_not_stackable
from fedunlearn.training.stackable import Vmapped, stack_forward
from tests.models.small import make, parameters
from tests.training.stacks import clients, generators, network, one_by_one, train_config

TINY = {"width": 12, "depth": 2, "heads": 3, "patch_size": 4}


@pytest.mark.parametrize(
    ("in_channels", "image_size", "patch", "width", "depth", "heads"),
    [(3, 32, 4, 192, 6, 3), (1, 28, 7, 16, 1, 4), (4, 8, 8, 6, 3, 1)],
)
def test_it_has_the_layers_asked_for(in_channels, image_size, patch, width, depth, heads):
    model = make(
        "vit",
        num_classes=10,
        in_channels=in_channels,
        image_size=image_size,
        patch_size=patch,
        width=width,
        depth=depth,
        heads=heads,
    )
    tokens = (image_size // patch) ** 2 + 1
    embedding = (in_channels * patch**2 + 1) * width + width + tokens * width
    attention = (width + 1) * 3 * width + (width + 1) * width
    block = 4 * width + attention + (width + 1) * 4 * width + (4 * width + 1) * width
    assert parameters(model) == embedding + depth * block + 2 * width + (width + 1) * 10
    assert {layer.num_heads for layer in model.modules() if hasattr(layer, "num_heads")} == {heads}
    assert not list(model.buffers())


def test_parameters_on_cifar10_with_the_defaults():
    model = make("vit", num_classes=10, image_size=32, width=192, depth=6)
    assert parameters(model) == 2_693_578


def by_hand(weights, images, *, patch, depth, heads):
    """Return the logits that the paper's formulas give for weights under torchvision's names."""

    def linear(x, name):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(x, name):
        centred = x - x.mean(-1, keepdim=True)
        scaled = centred / (centred.square().mean(-1, keepdim=True) + 1e-6).sqrt()
        return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    n, channels, side, _ = images.shape
    grid = side // patch
    cut = images.reshape(n, channels, grid, patch, grid, patch).permute(0, 2, 4, 1, 3, 5)
    x = cut.reshape(n, grid**2, -1) @ weights["conv_proj.weight"].flatten(1).T + weights["conv_proj.bias"]
    x = torch.cat([weights["class_token"].expand(n, 1, -1), x], dim=1) + weights["encoder.pos_embedding"]
    for number in range(depth):
        block = f"encoder.layers.encoder_layer_{number}"
        y = norm(x, f"{block}.ln_1")
        joint = y @ weights[f"{block}.self_attention.in_proj_weight"].T
        joint = joint + weights[f"{block}.self_attention.in_proj_bias"]
        q, k, v = (each.unflatten(-1, (heads, -1)).transpose(1, 2) for each in joint.chunk(3, dim=-1))
        seen = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v
        x = x + linear(seen.transpose(1, 2).flatten(2), f"{block}.self_attention.out_proj")
        y = linear(norm(x, f"{block}.ln_2"), f"{block}.mlp.0")
        x = x + linear(F.gelu(y), f"{block}.mlp.3")
    return linear(norm(x, "encoder.ln")[:, 0], "heads.head")


def test_it_computes_what_the_paper_says():
    model = make("vit", **TINY).double()
    draw = torch.Generator().manual_seed(0)
    for parameter in model.parameters():  # none of them zero or one
        parameter.data += 0.2 * torch.randn(parameter.shape, generator=draw, dtype=torch.float64)
    images = torch.randn(3, 3, 16, 16, generator=draw, dtype=torch.float64)
    expected = by_hand(model.state_dict(), images, patch=4, depth=2, heads=3)
    for mode in (True, False):
        torch.testing.assert_close(model.train(mode)(images).detach(), expected)


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        (
            {"patch_size": 5},
            "model.patch-size = 5: must divide the height and width of the images, 16 pixels",
        ),
        (
            {"patch_size": 32},
            "model.patch-size = 32: must divide the height and width of the images, 16 pixels",
        ),
        ({"width": 20, "heads": 3}, "model.heads = 3: must divide model.width = 20"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(settings, told):
    with pytest.raises(ConfigError) as error:
        make("vit", **settings)
    assert str(error.value) == told


def test_it_trains_in_a_stack_as_one_by_one():
    model = network("vit", dtype=torch.float64, **TINY)
    assert why_not_stackable(model.module) == why_not_stackable(model.module, (1, 8, 8)) == ""
    assert type(stack_forward(model.module, (1, 8, 8))) is Vmapped
    images, labels = clients([11, 3, 8], dtype=torch.float64)
    settings = train_config(local_epochs=2, optimizer="adamw", weight_decay=1e-3)
    start = model.vector.clone()
    stacked = train_stack(model, start, images, labels, settings, lr=3e-3, generators=generators(3))
    found = stacked.vectors.clone()
    vectors, losses = one_by_one(model, start, images, labels, settings, lr=3e-3)
    torch.testing.assert_close(found, vectors, rtol=0, atol=1e-9)
    assert stacked.losses == pytest.approx(losses)
    assert (found - start).abs().max() > 1e-3
