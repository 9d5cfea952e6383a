"""Weights from a file: what is taken over, what stays random, and what is refused in one line."""

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from fedunlearn.config import ModelConfig
from fedunlearn.errors import ConfigError
from fedunlearn.models import origin_of
from fedunlearn.models.weights_file import Naming, WeightsFile

NAMING = Naming(body="net.", head="head.")


class Net(nn.Module):
    """A body and a head, as large architectures have them."""

    def __init__(self, num_classes=3, width=4):
        super().__init__()
        self.net = nn.ModuleDict({"first": nn.Linear(2, width), "norm": nn.LayerNorm(width)})
        self.head = nn.Linear(width, num_classes)


def weights(model, seed=0):
    draw = torch.Generator().manual_seed(seed)
    return {name: torch.randn(values.shape, generator=draw) for name, values in model.state_dict().items()}


@pytest.fixture
def write(tmp_path):
    def save(stored):
        path = tmp_path / "w.safetensors"
        save_file(stored, path)
        return str(path)

    return save


def loaded(path, num_classes=3):
    model = Net(num_classes)
    WeightsFile(path, NAMING).load_into(model, num_classes)
    return model.state_dict()


def test_every_number_is_taken_over(write):
    stored = weights(Net())
    found = loaded(write(stored))
    assert found.keys() == stored.keys()
    assert all(torch.equal(found[name], stored[name]) for name in stored)


def test_the_first_part_of_the_names_may_be_left_out(write):
    stored = weights(Net())
    found = loaded(write({name.removeprefix("net."): values for name, values in stored.items()}))
    assert all(torch.equal(found[name], stored[name]) for name in stored)


def test_lower_precision_is_taken_over_as_it_is(write):
    stored = {name: values.half() for name, values in weights(Net()).items()}
    found = loaded(write(stored))
    assert all(torch.equal(found[name], stored[name].float()) for name in stored)


@pytest.mark.parametrize("what", ["a head for others", "no head"])
def test_a_head_that_does_not_fit_stays_as_it_was(write, what):
    stored = weights(Net(num_classes=1000))
    if what == "no head":
        stored = {name: values for name, values in stored.items() if not name.startswith("head.")}
    model = Net()
    before = {name: values.clone() for name, values in model.state_dict().items()}
    file = WeightsFile(write(stored), NAMING)
    file.load_into(model, 3)
    for name, values in model.state_dict().items():
        assert torch.equal(values, before[name] if name.startswith("head.") else stored[name])
    assert file.origin(3).endswith("; head random")


def test_the_origin_names_file_content_and_head(write):
    path = write(weights(Net()))
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    assert (
        WeightsFile(path, NAMING).origin(3) == f"weights of {path} (sha256 {digest[:16]}…); head of the file"
    )
    assert WeightsFile(path, NAMING).origin(4).endswith("; head random")


def without(name):
    return lambda stored: {key: values for key, values in stored.items() if key != name}


FOREIGN = {
    "another architecture": (
        lambda stored: {f"layer{k}.weight": torch.ones(1) for k in range(5)},
        "is of another architecture: it holds layer0.weight, layer1.weight, layer2.weight and 2 more",
    ),
    "one more": (
        lambda stored: stored | {"decode_head.bias": torch.ones(1)},
        "is of another architecture: it holds decode_head.bias",
    ),
    "one less": (
        without("net.norm.weight"),
        "is of another architecture or incomplete: it lacks norm.weight",
    ),
    "half a head": (
        without("head.bias"),
        "is of another architecture or incomplete: it lacks head.bias",
    ),
    "nothing": (
        lambda stored: {},
        "is of another architecture or incomplete: it lacks first.weight, first.bias, norm.weight and 1 more",
    ),
    "another width": (
        lambda stored: stored | {"net.first.weight": torch.ones(5, 2)},
        "is of another architecture: first.weight has shape (5, 2) instead of (4, 2)",
    ),
    "a head of another width": (
        lambda stored: stored | {"head.weight": torch.ones(3, 9)},
        "is of another architecture: head.weight has shape (3, 9) instead of (3, 4)",
    ),
    "not a number": (
        lambda stored: stored | {"net.first.bias": torch.full((4,), float("nan"))},
        "is damaged: first.bias contains NaN or infinite numbers",
    ),
}


@pytest.mark.parametrize(("change", "told"), FOREIGN.values(), ids=list(FOREIGN))
def test_a_file_that_does_not_fit_is_refused_and_nothing_is_loaded(write, change, told):
    path = write(change(weights(Net())))
    model = Net()
    before = {name: values.clone() for name, values in model.state_dict().items()}
    with pytest.raises(ConfigError) as error:
        WeightsFile(path, NAMING).load_into(model, 3)
    assert str(error.value) == f'model.weights = "{path}": {told}'
    assert all(torch.equal(values, before[name]) for name, values in model.state_dict().items())


def test_no_file_a_folder_and_another_format_are_refused_in_one_line(tmp_path, write):
    missing = tmp_path / "none.safetensors"
    pickled = tmp_path / "pytorch_model.bin"
    torch.save(Net().state_dict(), pickled)
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(Path(write(weights(Net()))).read_bytes()[:-4])
    empty = tmp_path / "empty.safetensors"
    empty.write_bytes(b"")
    for path, told in [
        (missing, "cannot be read (No such file or directory); name a safetensors file, or leave it out"),
        (tmp_path, "cannot be read (Is a directory); name a safetensors file, or leave it out"),
        (pickled, "is not a safetensors file ("),
        (cut, "is not a safetensors file ("),
        (empty, "is not a safetensors file ("),
    ]:
        with pytest.raises(ConfigError) as error:
            WeightsFile(str(path), NAMING)
        assert str(error.value).startswith(f'model.weights = "{path}": {told}')
        assert "\n" not in str(error.value)


def test_a_model_that_cannot_start_from_a_file_refuses_one():
    with pytest.raises(ConfigError) as error:
        ModelConfig.of(name="mlp", weights="w.safetensors")
    told = 'weights = "w.safetensors" (ModelConfig): belongs to name = "mit-b0"; leave it out'
    assert str(error.value) == told


@pytest.mark.parametrize("name", ["mlp", "resnet18", "vit", "unet"])
def test_where_weights_can_only_be_random_there_is_nothing_to_say(name):
    assert origin_of(ModelConfig.of(name=name), 10) == ""
