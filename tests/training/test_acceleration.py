"""What makes the forward pass faster, and what it may change."""

import shutil

import pytest
import torch

from fedunlearn.errors import ConfigError
from fedunlearn.models.flat import FlatModel
from fedunlearn.training import Recipe, accelerate, acceleration, dice_cross_entropy, train_local, train_stack
from tests.training.stacks import clients, generator, generators, network, train_config


def trained(model, batches=None, **options):
    """Return what a client's training changed, and its loss; ``batches`` says how many images of what shape."""
    if options:
        accelerate(model, **options)
    images, labels = clients(**(batches or {"counts": [40]}))
    start = model.vector.clone()
    result = train_local(model, images[0], labels[0], train_config(), lr=0.1, generator=generator(1))
    return model.vector - start, result.loss


def close(found, expected, tolerance):
    return (found - expected).norm() <= tolerance * expected.norm()


def test_nothing_is_accelerated_unless_asked_for():
    model = network()
    assert model.forward is model.module and model.autocast is None
    exact, loss = trained(model)
    again, same_loss = trained(network(), precision="float32", compile=False)
    assert torch.equal(exact, again) and loss == same_loss


@pytest.mark.parametrize("architecture", ["mlp", "small-cnn"])
def test_bfloat16_rounds_the_layers_and_nothing_else(architecture):
    exact, loss = trained(network(architecture))
    model = network(architecture)
    rounded, rounded_loss = trained(model, precision="bfloat16")
    assert model.vector.dtype == model.gradient.dtype == torch.float32
    assert model.forward(clients([2])[0][0]).dtype == torch.float32, "so the loss is, too"
    assert not close(rounded, exact, 1e-5)
    assert close(rounded, exact, 0.25)
    assert rounded_loss == pytest.approx(loss, rel=0.01)


@pytest.mark.parametrize("architecture", ["mlp", "small-cnn"])
def test_a_stack_rounds_likewise(architecture):
    config, (images, labels) = train_config(), clients([9, 20, 20])
    model = network(architecture)
    start = model.vector.clone()

    def stacked():
        return (
            train_stack(model, start, images, labels, config, lr=0.1, generators=generators(3)).vectors
            - start
        )

    exact = stacked()
    accelerate(model, precision="bfloat16")
    rounded = stacked()
    assert rounded.dtype == torch.float32
    assert not close(rounded, exact, 1e-5)
    assert close(rounded, exact, 0.25)
    accelerate(model)
    assert torch.equal(stacked(), exact)


# -- images pixel by pixel ------------------------------------------------------------------------------------


def laid_out(module, kind):
    """Return a list that is told, of every input of a layer of this kind, whether its channels vary fastest."""
    seen = []
    for layer in module.modules():
        if isinstance(layer, kind):
            layer.register_forward_pre_hook(
                lambda _, inputs: seen.append(inputs[0].is_contiguous(memory_format=torch.channels_last))
            )
    return seen


@pytest.mark.quick(architecture=1)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("architecture", ["small-cnn", "resnet18"])
def test_pixel_by_pixel_is_another_order_of_the_same_numbers(architecture, precision):
    """Several channels and pixels, so that the two orders differ; the layers keep to theirs from first to last."""
    shape = {"channels": 3, "size": 16}
    batches = {"counts": [16], **shape}
    options = {} if precision == "float32" else {"precision": precision}
    exact, loss = trained(network(architecture, **shape), batches, **options)
    model = network(architecture, **shape)
    seen = laid_out(model.module, torch.nn.Conv2d)
    found, same_loss = trained(model, batches, **options, channels_last=True)
    assert all(seen) and len(seen) > 2
    assert close(found, exact, 1e-3 if precision == "float32" else 0.25)
    assert same_loss == pytest.approx(loss, rel=1e-4 if precision == "float32" else 0.02)
    usual = laid_out((plain := network(architecture, **shape)).module, torch.nn.Conv2d)
    trained(plain, batches)
    assert not any(usual)


def test_weights_stay_where_they_are():
    model = network(channels=3)
    addresses = [p.data_ptr() for p in model.module.parameters()]
    trained(model, {"counts": [16], "channels": 3}, channels_last=True)
    assert [p.data_ptr() for p in model.module.parameters()] == addresses
    assert all(p.is_contiguous() and p.grad.is_contiguous() for p in model.module.parameters())


def test_what_has_no_pixels_stays_as_it_is():
    model = FlatModel(torch.nn.Linear(5, 2))
    rows = torch.randn(3, 5, generator=generator(0))
    expected = model.module(rows)
    accelerate(model, channels_last=True)
    assert torch.equal(model.forward(rows), expected)


def test_everything_at_once(monkeypatch):
    """Compiled is what sees images pixel by pixel, under autocast."""
    model = network(channels=3)
    seen = []

    def compile(module):
        def compiled(images):
            seen.append(
                (images.is_contiguous(memory_format=torch.channels_last), torch.is_autocast_enabled("cpu"))
            )
            return module(images)

        return compiled

    monkeypatch.setattr(torch, "compile", compile)
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    accelerate(model, precision="bfloat16", compile=True, channels_last=True)
    assert model.forward(clients([2], channels=3)[0][0]).dtype == torch.float32
    assert seen == [(True, True)]


# -- other architectures --------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["batch", "instance"])
@pytest.mark.parametrize("options", [{"precision": "bfloat16"}, {"channels_last": True}], ids=str)
def test_masks_are_learnt_as_well(norm, options):
    """The loss and BatchNorm's statistics stay float32; what rounds is in the layers."""
    draw = generator(3)
    images = torch.randn(8, 3, 16, 16, generator=draw)
    masks = (images.mean(1) > 0).to(torch.uint8)
    losses = []

    def loss(logits, targets):
        losses.append(logits.dtype)
        return dice_cross_entropy(logits, targets)

    def learn(**options):
        model = network("unet", size=16, channels=3, classes=2, base_features=8, levels=3, norm=norm)
        accelerate(model, **options)
        start = model.vector.clone()
        config = train_config(optimizer="adam", local_epochs=6)
        result = train_local(
            model, images, masks, config, lr=1e-3, generator=generator(1), recipe=Recipe(loss)
        )
        return model, model.vector - start, result.loss

    exact, change, expected = learn()
    model, found, learnt = learn(**options)
    assert set(losses) == {torch.float32}
    assert learnt == pytest.approx(expected, rel=0.02)
    # Adam's steps have the size of the rate, whatever the gradient's, so that small gradients may turn about.
    assert close(found, change, 0.5)
    assert model.buffers().keys() == exact.buffers().keys()
    for name, buffer in model.buffers().items():
        assert buffer.dtype == exact.buffers()[name].dtype
        assert torch.allclose(buffer.float(), exact.buffers()[name].float(), rtol=0.05, atol=0.02), name


@pytest.mark.parametrize("options", [{"precision": "bfloat16"}, {"channels_last": True}], ids=str)
def test_transformers_are_accelerated_too(options):
    shape = {"channels": 3, "size": 8}
    layers = {"patch_size": 4, "width": 16, "depth": 2, "heads": 2}
    exact, loss = trained(network("vit", **shape, **layers), {"counts": [16], **shape})
    model = network("vit", **shape, **layers)
    found, found_loss = trained(model, {"counts": [16], **shape}, **options)
    assert model.forward(clients([2], **shape)[0][0]).dtype == torch.float32
    assert close(found, exact, 0.25 if "precision" in options else 1e-3)
    assert found_loss == pytest.approx(loss, rel=0.02)


def test_the_mix_transformer_is_accelerated_too():
    pytest.importorskip("transformers")
    shape = {"channels": 3, "size": 32}
    loss = trained(network("mit-b0", **shape, input_size=32), {"counts": [8], **shape})[1]
    options = {"precision": "bfloat16", "channels_last": True}
    found = trained(network("mit-b0", **shape, input_size=32), {"counts": [8], **shape}, **options)[1]
    assert found == pytest.approx(loss, rel=0.05)


# -- compiled -------------------------------------------------------------------------------------------------


def test_compiled_once_and_called_for_every_batch(monkeypatch):
    model, compiled, called = network(), [], []

    def compile(module):
        compiled.append(module)
        return lambda images: called.append(len(images)) or module(images)

    monkeypatch.setattr(torch, "compile", compile)
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    accelerate(model, compile=True)
    for _ in range(2):
        trained(model)
    assert compiled == [model.module]
    assert called == [8] * 10


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_compiled_model_learns_the_same(precision):
    exact, loss = trained(network("mlp"))
    found, compiled_loss = trained(network("mlp"), precision=precision, compile=True)
    assert close(found, exact, 1e-4 if precision == "float32" else 0.05)
    assert compiled_loss == pytest.approx(loss, rel=0.01)


@pytest.mark.parametrize(("variable", "named"), [(None, r"g\+\+ or clang\+\+"), ("icpx", "icpx")])
def test_a_missing_compiler_is_told_in_one_line(monkeypatch, variable, named):
    monkeypatch.setattr(shutil, "which", lambda name: None)
    if variable is None:
        monkeypatch.delenv("CXX", raising=False)
    else:
        monkeypatch.setenv("CXX", variable)
    model = network()
    with pytest.raises(ConfigError, match=rf"engine\.compile = true: no C\+\+ compiler \({named}\)") as error:
        accelerate(model, compile=True)
    assert "\n" not in str(error.value)
    assert model.forward is model.module


def test_an_accelerator_needs_triton(monkeypatch):
    monkeypatch.setattr(acceleration, "find_spec", lambda name: None)
    with pytest.raises(
        ConfigError, match=r"engine\.compile = true: Triton, which compiles for cuda, is missing"
    ):
        acceleration._need_compiler("cuda")
