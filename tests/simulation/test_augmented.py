"""The picture of augmentation: what it draws is what training would be shown."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from fedunlearn.cli.main import app
from fedunlearn.config import to_toml
from fedunlearn.data.augmentation.policies import TRANSFORMS
from fedunlearn.data.pixels import Pixels
from fedunlearn.errors import UserError
from fedunlearn.simulation import augmented as module
from fedunlearn.simulation.augmented import draw_augmentations, policies_of, write_sheet
from tests.e2e.tiny import tiny

PIXELS = Pixels((0.5, 0.4, 0.3), (0.2, 0.2, 0.25))


def test_the_study_is_none_the_default_and_each_policy_on_top_of_it():
    assert policies_of("crop") == ["none", "crop", *(f"crop+{name}" for name in TRANSFORMS)]


POLICY = next(iter(TRANSFORMS))


@pytest.mark.parametrize(
    ("asked", "base"),
    [("none", "crop-flip"), (POLICY, "crop-flip"), ("crop", "crop"), (f"crop+{POLICY}", "crop")],
)
def test_policies_come_on_top_of_what_the_experiment_does_besides(asked, base, monkeypatch, tmp_path):
    drawn = []
    monkeypatch.setattr(module, "write_sheet", lambda _images, _pixels, lines, *_, **__: drawn.extend(lines))
    draw_augmentations(tiny(f'data.augmentation="{asked}"'), tmp_path / "x.png")
    assert drawn == policies_of(base)


def test_masks_are_not_drawn(tmp_path):
    masks = SimpleNamespace(data=SimpleNamespace(task="segmentation"))
    with pytest.raises(UserError) as refusal:
        draw_augmentations(masks, tmp_path / "x.png")
    assert str(refusal.value) == (
        "data augmentations: policies are for classification, and these images have masks"
    )


class Red:
    """Makes every image red."""

    def draw(self, n, generator):
        return torch.rand(n, 1, generator=generator, dtype=torch.float64)

    def apply(self, images, targets, parameters):
        red = torch.tensor([255, 0, 0], dtype=torch.uint8).view(1, 3, 1, 1)
        return PIXELS.normalise(red, images).expand_as(images), targets


def test_lines_are_in_order_and_show_what_the_augmentation_makes(tmp_path):
    green = torch.tensor([0, 255, 0], dtype=torch.uint8).view(1, 3, 1, 1).expand(2, 3, 8, 8)
    images = PIXELS.normalise(green, torch.zeros(0))
    write_sheet(images, PIXELS, {"none": None, "red": Red()}, tmp_path / "sheet.png", seed=1)
    found = np.asarray(Image.open(tmp_path / "sheet.png").convert("RGB"))
    upper, lower = found[: len(found) // 2].reshape(-1, 3), found[len(found) // 2 :].reshape(-1, 3)
    assert (upper == (0, 255, 0)).all(1).mean() > 0.3 and not (upper == (255, 0, 0)).all(1).any()
    assert (lower == (255, 0, 0)).all(1).mean() > 0.3 and not (lower == (0, 255, 0)).all(1).any()


@pytest.mark.parametrize("overrides", [(), ("data.channels=3",), ("data.channels=2",)])
def test_the_command_draws_an_experiment_s_images_or_says_why_not(overrides, tmp_path):
    file, out = tmp_path / "x.toml", tmp_path / "new" / "x.png"
    file.write_text(to_toml(tiny(*overrides)))
    result = CliRunner().invoke(app, ["data", "augmentations", str(file), "--out", str(out)])
    if "data.channels=2" in overrides:
        assert "is for images of 1 or 3 channels, not of 2" in str(result.exception)
        assert not out.exists()
    else:
        assert result.exit_code == 0, result.output
        assert Image.open(out).size[0] > 300


def test_only_a_png_is_drawn(tmp_path):
    file = tmp_path / "x.toml"
    file.write_text(to_toml(tiny()))
    result = CliRunner().invoke(app, ["data", "augmentations", str(file), "--out", str(tmp_path / "x.txt")])
    assert str(result.exception).endswith("x.txt: must end in .png")
