"""A slice drawn: the outline against a loop, every pixel's colour read back, and colours that everybody can tell."""

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from fedunlearn.report.overlay import LINE, OPACITY, PREDICTION, SIDE, TRUTH, outline, overlay
from tests.html.test_palette import VISIONS, lab, linear
from tests.report.example_segmentation import gland

masks = arrays(np.bool_, array_shapes(min_dims=2, max_dims=2, max_side=7))


def pixels(png: bytes) -> np.ndarray:
    """Return a PNG's colours, (height, width, 3)."""
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), dtype=np.int64)


@given(masks)
def test_an_outline_is_where_a_neighbour_is_outside(mask):
    height, width = mask.shape
    for (row, column), edge in np.ndenumerate(outline(mask)):
        around = [(row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)]
        outside = [not (0 <= r < height and 0 <= c < width and mask[r, c]) for r, c in around]
        assert edge == (mask[row, column] and any(outside))


@given(masks, st.integers(1, 4))
def test_a_thick_outline_is_one_inside_the_other(mask, thickness):
    expected, rest = np.zeros_like(mask), mask
    for _ in range(thickness):
        edge = outline(rest)
        expected, rest = expected | edge, rest & ~edge
    assert (outline(mask, thickness) == expected).all()
    assert mask.any() == expected.any()


def test_every_pixel_has_the_colour_of_what_it_is():
    """At full size a pixel is a pixel: grey, tinted grey, blue line, and the yellow line above all."""
    image, truth = gland(0, SIDE)
    _, predicted = gland(9, SIDE)
    drawn = pixels(overlay(image, truth, predicted))
    grey = np.round((image - image.min()) / np.ptp(image) * 63) / 63 * 255
    expected = grey[:, :, None].repeat(3, axis=2)
    expected[predicted] = (1 - OPACITY) * expected[predicted] + OPACITY * np.array(PREDICTION)
    expected[outline(predicted, LINE)] = PREDICTION
    expected[outline(truth, LINE)] = TRUTH
    assert np.abs(drawn - expected).max() <= 1
    assert (drawn[outline(truth, LINE)] == TRUTH).all()


def test_the_truth_alone_is_grey_but_for_its_outline():
    image, truth = gland(0, SIDE)
    drawn = pixels(overlay(image, truth, None))
    coloured = np.ptp(drawn, axis=2) > 0
    assert (coloured == outline(truth, LINE)).all()


@pytest.mark.parametrize(
    ("shape", "size"),
    [((64, 64), 192), ((384, 384), 192), ((48, 96), 192), ((300, 200), 192), ((100, 100), 100)],
)
def test_no_picture_is_larger_than_it_should_be_and_none_is_squeezed(shape, size):
    mask = np.zeros(shape, bool)
    mask[shape[0] // 4 : shape[0] // 2, shape[1] // 4 : shape[1] // 2] = True
    drawn = pixels(overlay(np.random.default_rng(0).random(shape), mask, mask))
    assert max(drawn.shape) == size <= SIDE
    assert drawn.shape[0] / drawn.shape[1] == pytest.approx(shape[0] / shape[1], rel=0.01)
    (rows, columns) = np.nonzero((drawn == TRUTH).all(axis=2))
    assert rows.min() / drawn.shape[0] == pytest.approx(0.25, abs=0.02)
    assert (columns.max() + 1) / drawn.shape[1] == pytest.approx(0.5, abs=0.02)


def test_of_a_shrunk_mask_a_pixel_belongs_to_it_where_half_of_it_does():
    mask = np.random.default_rng(3).random((2 * SIDE, 2 * SIDE)) < 0.4
    half = mask.reshape(SIDE, 2, SIDE, 2).mean(axis=(1, 3)) >= 0.5
    drawn = pixels(overlay(np.zeros(mask.shape), mask, None))
    assert ((drawn == TRUTH).all(axis=2) == outline(half, LINE)).all()
    assert 0.3 < half.mean() < 0.7


def test_the_same_arrays_give_the_same_bytes_and_others_others():
    image, truth = gland(0)
    drawn = overlay(image, truth, gland(5)[1])
    assert overlay(image.copy(), truth.copy(), gland(5)[1]) == drawn
    assert overlay(image, truth, gland(6)[1]) != drawn
    assert len(drawn) < 30_000


@given(st.sampled_from([0.0, 1.0, -3.5]), st.booleans())
def test_a_flat_image_and_an_empty_prediction_can_be_drawn(level, empty):
    image, mask = np.full((32, 32), level), np.zeros((32, 32), bool)
    drawn = pixels(overlay(image, mask, mask if empty else ~mask))
    assert ((drawn == 0).all() if empty else (drawn == PREDICTION).all(axis=2).any()) and drawn.shape == (
        192,
        192,
        3,
    )


@pytest.mark.parametrize("vision", VISIONS)
def test_the_outlines_are_told_from_each_other_and_from_every_grey(vision):
    def seen(colour) -> np.ndarray:
        code = "#" + "".join(f"{round(part):02x}" for part in colour)
        return lab(np.clip(VISIONS[vision] @ linear(code), 0, 1))

    greys = [np.full(3, level) for level in range(0, 256, 5)]
    tinted = [(1 - OPACITY) * grey + OPACITY * np.array(PREDICTION) for grey in greys]
    for ground in [*greys, *tinted, np.array(PREDICTION)]:
        assert np.linalg.norm(seen(TRUTH) - seen(ground)) > 35, ground
    for ground in greys:
        assert np.linalg.norm(seen(PREDICTION) - seen(ground)) > 35, ground
    for grey, tint in zip(greys, tinted, strict=True):
        assert np.linalg.norm(seen(grey) - seen(tint)) > 12, "where a mask is filled can be seen on any grey"
