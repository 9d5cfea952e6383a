"""What makes the forward pass faster, and what it may change."""

import shutil

import pytest
import torch

from fedunlearn.errors import ConfigError
from fedunlearn.training import accelerate, acceleration, train_local, train_stack
from tests.training.stacks import clients, generator, generators, network, train_config


def trained(model, **options):
    """Return what a client's training changed, and its loss."""
    if options:
        accelerate(model, **options)
    images, labels = clients([40])
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
    with pytest.raises(ConfigError, match=r"engine\.compile = true: Triton is missing"):
        acceleration._need_compiler("cuda")
