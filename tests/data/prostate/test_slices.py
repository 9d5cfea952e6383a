"""Volumes cut into slices, against loops over voxels; orientation, spacing, resizing."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedunlearn.data.prostate.slices import FeaturelessError, bilinear, cut, ends, nearest, scaled
from fedunlearn.data.prostate.volumes import Volume, read_volume
from tests.data.prostate.nifti_sites import SPACING, volume, write
from tests.oracles import slices_by_loops as oracle

HALF_A_LEVEL = 0.5 / 255 + 1e-5


def read(folder, scan, labels, **how):
    for name, values in (("scan.nii.gz", scan), ("mask.nii.gz", labels)):
        write(folder / name, values, **how)
    paths = folder / "scan.nii.gz", folder / "mask.nii.gz"
    return read_volume(*(path.read_bytes() for path in paths), *paths)


def images(case):
    return case.planes[case.neighbours] / 255


@pytest.mark.parametrize("size", [16, 20, 33])  # smaller, equal along one axis, larger
@pytest.mark.parametrize("axes", ["RAS", "LPS", "SLA", "ALI"])
def test_slices_are_those_of_the_loops(tmp_path, axes, size):
    scan, labels = volume(3)
    case = cut(read(tmp_path, scan, labels, axes=axes), size)
    heights, expected, masks = oracle.slices(scan, labels, size)
    assert case.slices.tolist() == heights.tolist()
    assert case.masks.tolist() == masks.tolist()
    np.testing.assert_allclose(images(case), expected, rtol=0, atol=HALF_A_LEVEL)
    assert case.spacing.tolist() == pytest.approx([SPACING[1] * 24 / size, SPACING[0] * 20 / size])


def test_prostate_in_the_outermost_slices_repeats_the_edge(tmp_path):
    scan, labels = volume(0)
    labels[5:9, 5:9, [0, -1]] = 1
    case = cut(read(tmp_path, scan, labels), 16)
    assert case.slices.tolist() == list(range(7))
    assert case.neighbours.tolist() == [[0, 0, 1], *([k - 1, k, k + 1] for k in range(1, 6)), [5, 6, 6]]
    np.testing.assert_allclose(images(case), oracle.slices(scan, labels, 16)[1], rtol=0, atol=HALF_A_LEVEL)


def test_an_oblique_scan_is_read_along_its_own_slices(tmp_path):
    scan, labels = volume(2)
    straight, tilted = (
        cut(read(tmp_path / str(o), scan, labels, axes="LPS", oblique=o), 20) for o in (0.0, 0.3)
    )
    assert np.array_equal(straight.planes, tilted.planes)
    assert straight.spacing.tolist() == pytest.approx(tilted.spacing.tolist())


def test_scan_and_mask_may_be_stored_in_different_directions(tmp_path):
    scan, labels = volume(4)
    write(tmp_path / "scan.nii", scan, axes="LPS")
    write(tmp_path / "mask.nii", labels, axes="RAS")
    paths = tmp_path / "scan.nii", tmp_path / "mask.nii"
    mixed = cut(read_volume(*(path.read_bytes() for path in paths), *paths), 24)
    plain = cut(read(tmp_path, scan, labels), 24)
    assert np.array_equal(mixed.planes, plain.planes)
    assert np.array_equal(mixed.masks, plain.masks)


def test_pixels_are_where_a_radiologist_expects_them(tmp_path):
    scan, labels = volume(5)
    scan[:] = 0
    scan[-3:, -3:, :] = 100  # far right, far front
    labels[:] = 0
    labels[-3:, -4:, 2] = 1
    case = cut(read(tmp_path, scan, labels, axes="PIL"), 24)
    assert case.planes[:, 0, 0].min() > 0
    assert case.planes[:, 12:, :].max() == case.planes[:, :, 12:].max() == 0
    assert case.masks[0, :4, :3].all()
    assert not case.masks[0, 5:].any()


@given(st.integers(1, 40), st.integers(1, 40), st.integers(16, 40), st.integers(0, 99))
def test_resizing_keeps_grey_and_extremes(rows, columns, size, seed):
    planes = np.random.default_rng(seed).random((2, rows, columns), dtype=np.float32)
    resized = bilinear(planes, size)
    assert resized.shape == (2, size, size)
    assert planes.min() - 1e-6 <= resized.min()
    assert resized.max() <= planes.max() + 1e-6
    assert np.allclose(bilinear(np.full_like(planes, 0.25), size), 0.25)
    weights = [oracle.triangle_weights(length, size) for length in (rows, columns)]
    np.testing.assert_allclose(resized, weights[0] @ planes @ weights[1].T, rtol=0, atol=1e-5)
    kept = nearest(planes > 0.5, size)
    assert kept.dtype == bool
    assert not (kept.any() and not (planes > 0.5).any())


def test_a_size_that_fits_changes_nothing():
    planes = np.random.default_rng(0).random((3, 24, 24), dtype=np.float32)
    assert np.array_equal(bilinear(planes, 24), planes)
    assert np.array_equal(nearest(planes > 0.5, 24), planes > 0.5)


@given(st.floats(0.1, 1e4), st.floats(-1e4, 1e4))
def test_scaling_forgets_gain_and_offset_of_the_scanner(gain, offset):
    values = np.random.default_rng(1).random((5, 10, 10), dtype=np.float32)
    moved = (values * gain + offset).astype(np.float32)
    one, other = scaled(values, *ends(values)), scaled(moved, *ends(moved))
    assert (one.min(), one.max()) == (0, 1)
    np.testing.assert_allclose(one, other, rtol=0, atol=0.02)  # float32 behind a large offset
    assert 0.005 < (one == 1).mean() < 0.03, "about a hundredth is clipped"


def test_a_volume_that_shows_nothing_is_refused():
    flat = Volume(np.full((3, 20, 20), 7, np.float32), np.ones((3, 20, 20), dtype=bool), (1.0, 1.0))
    with pytest.raises(FeaturelessError):
        cut(flat, 16)


def test_a_mask_too_small_for_the_size_leaves_no_slice():
    tiny = np.zeros((3, 100, 100), dtype=bool)
    tiny[1, 0, 0] = True  # pixel centres at a size of 16 lie at 3.125, 9.375, …
    levels = np.random.default_rng(0).random((3, 100, 100), dtype=np.float32)
    case = cut(Volume(levels, tiny, (1.0, 1.0)), 16)
    assert len(case.slices) == len(case.planes) == len(case.neighbours) == 0


def test_the_threads_of_torch_change_no_bit():
    planes = np.random.default_rng(0).random((9, 100, 90), dtype=np.float32)
    one = bilinear(planes, 64)
    torch.set_num_threads(2)
    try:
        assert np.array_equal(bilinear(planes, 64), one)
    finally:
        torch.set_num_threads(1)
