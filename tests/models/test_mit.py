"""MiT-B0: the layers and names of the published checkpoint, transformers' own logits, and its weights from a file."""

import sys

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from fedunlearn.config import ModelConfig
from fedunlearn.errors import ConfigError
from fedunlearn.models import build, origin_of
from fedunlearn.models.flat import FlatModel
from fedunlearn.training import train_stack, why_not_stackable
from tests.models.small import make, needs_transformers, parameters
from tests.training.stacks import CLASSES, clients, generators, one_by_one, train_config

WIDTHS, REDUCTIONS, HEADS = (32, 64, 160, 256), (8, 4, 2, 1), (1, 2, 5, 8)


def checkpoint_shapes(num_classes=1000, in_channels=3, widths=WIDTHS, blocks=2):
    """Return names and shapes of the checkpoint nvidia/mit-b0, by SegFormer's table of its B0."""
    shapes = {}

    def layer(name, *weight):
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = weight, weight[:1]

    for stage, (before, width, reduction) in enumerate(
        zip((in_channels, *widths), widths, REDUCTIONS, strict=False)
    ):
        kernel = 7 if stage == 0 else 3
        layer(f"segformer.encoder.patch_embeddings.{stage}.proj", width, before, kernel, kernel)
        layer(f"segformer.encoder.patch_embeddings.{stage}.layer_norm", width)
        for number in range(blocks):
            block = f"segformer.encoder.block.{stage}.{number}"
            layer(f"{block}.layer_norm_1", width)
            for part in ("self.query", "self.key", "self.value", "output.dense"):
                layer(f"{block}.attention.{part}", width, width)
            if reduction > 1:
                layer(f"{block}.attention.self.sr", width, width, reduction, reduction)
                layer(f"{block}.attention.self.layer_norm", width)
            layer(f"{block}.layer_norm_2", width)
            layer(f"{block}.mlp.dense1", 4 * width, width)
            layer(f"{block}.mlp.dwconv.dwconv", 4 * width, 1, 3, 3)
            layer(f"{block}.mlp.dense2", width, 4 * width)
        layer(f"segformer.encoder.layer_norm.{stage}", width)
    layer("classifier", num_classes, widths[-1])
    return shapes


def checkpoint(path, seed=0, prefix="segformer.", **shape):
    """Write random weights under the published names."""
    draw = torch.Generator().manual_seed(seed)
    stored = {
        f"{prefix}{name.removeprefix('segformer.')}" if name.startswith("segformer.") else name: 0.1
        * torch.randn(size, generator=draw)
        for name, size in checkpoint_shapes(**shape).items()
    }
    save_file(stored, path, metadata={"format": "pt"})
    return stored


def start_from(path, num_classes=10, in_channels=3):
    config = ModelConfig.of(name="mit-b0", weights=str(path), input_size=64)
    return build(config, num_classes=num_classes, in_channels=in_channels, image_size=32, seed=1)


def by_transformers(folder, **settings):
    """Return the weights that transformers' own classifier reads from the published names."""
    from transformers import SegformerConfig, SegformerForImageClassification

    SegformerConfig(**settings).save_pretrained(folder)
    return SegformerForImageClassification.from_pretrained(folder, local_files_only=True).state_dict()


@needs_transformers
def test_the_number_of_parameters_for_cifar100():
    model = make("mit-b0", num_classes=100)
    assert parameters(model) == 3_319_392 + 257 * 100


@needs_transformers
def test_logits_are_those_of_transformers_classifier():
    from transformers import SegformerConfig, SegformerForImageClassification

    model = make("mit-b0", num_classes=10, input_size=64).double()
    settings = SegformerConfig(num_labels=10)  # with its own dropout, which evaluation leaves out
    theirs = SegformerForImageClassification(settings).double()
    theirs.load_state_dict(model.state_dict())
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = theirs.eval()(images).logits
        for mode in (True, False):
            torch.testing.assert_close(model.train(mode)(images), expected)


@needs_transformers
def test_other_images_are_enlarged():
    model = make("mit-b0", input_size=64)
    images = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    enlarged = F.interpolate(images, size=(64, 64), mode="bilinear")
    assert torch.equal(model(images), model(enlarged))
    assert not torch.allclose(model(images), make("mit-b0", input_size=32)(images), atol=1e-4)


@needs_transformers
def test_nothing_is_dropped_and_nothing_remembered():
    model = make("mit-b0")
    assert all(layer.p == 0 for layer in model.modules() if isinstance(layer, nn.modules.dropout._DropoutNd))
    assert not [layer for layer in model.modules() if "DropPath" in type(layer).__name__]
    assert not list(model.buffers())


@needs_transformers
def test_it_trains_in_a_stack_as_one_by_one():
    model = FlatModel(make("mit-b0", num_classes=CLASSES, in_channels=1, image_size=8, input_size=32))
    assert why_not_stackable(model.module, (1, 8, 8)) == ""
    images, labels = clients([4, 2])
    start, settings = model.vector.clone(), train_config(batch_size=2)
    stacked = train_stack(model, start, images, labels, settings, lr=0.01, generators=generators(2))
    found = stacked.vectors.clone()
    vectors, _ = one_by_one(model, start, images, labels, settings, lr=0.01)
    torch.testing.assert_close(found, vectors, rtol=0, atol=1e-5)
    assert (found - start).abs().max() > 1e-3


@needs_transformers
def test_the_published_names_mean_what_transformers_reads_from_them(tmp_path):
    path = tmp_path / "model.safetensors"
    stored = checkpoint(path, num_classes=10)
    model, expected = start_from(path).state_dict(), by_transformers(tmp_path, num_labels=10)
    assert model.keys() == expected.keys()
    assert all(torch.equal(values, expected[name]) for name, values in model.items())
    assert sum(values.numel() for values in stored.values()) == sum(v.numel() for v in model.values())
    assert origin_of(ModelConfig.of(name="mit-b0", weights=str(path)), 10).endswith("…); head of the file")


@needs_transformers
@pytest.mark.parametrize("prefix", ["segformer.", ""])
def test_a_head_for_other_classes_stays_random(tmp_path, prefix):
    path = tmp_path / "model.safetensors"
    checkpoint(path, prefix=prefix)
    model, random = start_from(path).state_dict(), make("mit-b0", num_classes=10).state_dict()
    checkpoint(path)
    expected = by_transformers(tmp_path, num_labels=1000)
    for name, values in model.items():
        assert torch.equal(values, (random if name.startswith("classifier.") else expected)[name])
    told = origin_of(ModelConfig.of(name="mit-b0", weights=str(path)), 10)
    assert told.startswith(f"mit-b0: weights of {path} (sha256 ")
    assert told.endswith("…); head random")


@needs_transformers
def test_todays_names_are_read_as_well(tmp_path):
    path = tmp_path / "model.safetensors"
    trained = make("mit-b0", seed=7, num_classes=10).state_dict()
    save_file(trained, path)
    assert all(torch.equal(values, trained[name]) for name, values in start_from(path).state_dict().items())


@needs_transformers
@pytest.mark.parametrize(
    ("written", "read", "told"),
    [
        (
            {"widths": (64, 128, 320, 512)},
            {},
            "is of another architecture: encoder.patch_embeddings.0.proj.weight has shape (64, 3, 7, 7) "
            "instead of (32, 3, 7, 7)",
        ),
        (
            {},
            {"in_channels": 1},
            "is of another architecture: encoder.patch_embeddings.0.proj.weight has shape (32, 3, 7, 7) "
            "instead of (32, 1, 7, 7)",
        ),
        (
            {"blocks": 3},
            {},
            "is of another architecture: it holds encoder.block.0.2.attention.output.dense.bias, "
            "encoder.block.0.2.attention.output.dense.weight, encoder.block.0.2.attention.self.key.bias and 81 more",
        ),
    ],
)
def test_a_checkpoint_of_another_size_is_refused_in_one_line(tmp_path, written, read, told):
    path = tmp_path / "mit.safetensors"
    checkpoint(path, **written)
    with pytest.raises(ConfigError) as error:
        start_from(path, **read)
    assert str(error.value) == f'model.weights = "{path}": {told}'


def test_random_weights_are_said_to_be_random():
    assert origin_of(ModelConfig.of(name="mit-b0"), 100) == "mit-b0: random weights"


@pytest.mark.parametrize("size", [16, 100])
def test_a_size_that_would_not_halve_evenly_is_refused(size):
    with pytest.raises(ConfigError) as error:
        make("mit-b0", input_size=size)
    assert str(error.value) == f"model.input-size = {size}: must be a multiple of 32"


def test_without_transformers_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError) as error:
        make("mit-b0")
    assert str(error.value) == (
        'model.name = "mit-b0": needs transformers, which is in the extra "vit": in the clone, '
        "pip install -e '.[vit]' -c constraints.txt"
    )
