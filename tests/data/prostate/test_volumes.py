"""Every way a case can be unusable: one line that names file, fault and remedy."""

import gzip
import re

import nibabel as nib
import numpy as np
import pytest

from fedunlearn.data.prostate.bad_case import BadCaseError
from fedunlearn.data.prostate.volumes import read_volume
from tests.data.prostate.nifti_sites import SHAPE, SPACING, volume, write


@pytest.fixture
def paths(tmp_path):
    scan, labels = volume(0)
    found = tmp_path / "Case00.nii.gz", tmp_path / "Case00_segmentation.nii.gz"
    for path, values in zip(found, (scan, labels), strict=True):
        write(path, values, axes="LPS")
    return found


def read(paths):
    return read_volume(*(path.read_bytes() for path in paths), *paths)


def fault(paths):
    with pytest.raises(BadCaseError) as caught:
        read(paths)
    text = str(caught.value)
    assert "\n" not in text
    assert text == f"{caught.value.path}: {caught.value.what}; {caught.value.remedy}"
    return text.replace(f"{paths[0].parent}/", "")


def test_a_sound_case(paths):
    case = read(paths)
    assert case.intensities.shape == case.mask.shape == SHAPE[::-1]
    assert case.intensities.dtype == np.float32
    assert case.spacing == pytest.approx((SPACING[1], SPACING[0]))


@pytest.mark.parametrize("which", [0, 1])
@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: b"not an image at all, but a text" * 20,
        lambda content: content[: len(content) // 2],
        lambda content: content[:-300] + bytes(300),
        lambda content: gzip.compress(gzip.decompress(content)[:400]),
        lambda content: gzip.compress(gzip.decompress(content)[:-1]),
        lambda content: gzip.decompress(content)[:300],
    ],
    ids=["empty", "text", "half", "tail-zeroed", "header-only", "a-byte-short", "half-a-header"],
)
def test_a_damaged_file(paths, which, damage):
    paths[which].write_bytes(damage(paths[which].read_bytes()))
    pattern = rf"{re.escape(paths[which].name)}: is not a complete NIfTI volume \(.+\); fetch it again"
    assert re.fullmatch(pattern, fault(paths))


def test_any_flipped_bit_of_compressed_data_is_noticed(paths):
    whole = paths[0].read_bytes()
    for at in np.random.default_rng(0).integers(len(whole) // 2, len(whole) - 8, 20).tolist():
        damaged = bytearray(whole)
        damaged[at] ^= 0x10
        paths[0].write_bytes(damaged)
        assert "is not a complete NIfTI volume" in fault(paths)


def test_a_mask_of_another_shape(paths):
    write(paths[1], volume(0)[1][:, :-1], axes="LPS")
    assert fault(paths) == (
        "Case00_segmentation.nii.gz: has 20 × 23 × 7 voxels, its scan 20 × 24 × 7; resample it onto Case00.nii.gz"
    )


@pytest.mark.parametrize(
    ("placed", "apart"),
    [
        ({"origin": (-10.0, 5.0, 76.0)}, 6.0),
        ({"origin": (-10.0, 5.3, 70.0)}, 0.3),  # more than half of the smallest side
        ({"spacing": (0.5, 0.8, 3.6)}, 0.6 * 6),
        ({"spacing": (0.5, 0.9, 3.0)}, 0.1 * 23),
    ],
)
def test_a_mask_that_lies_elsewhere(paths, placed, apart):
    write(paths[1], volume(0)[1], **placed)
    assert fault(paths) == (
        f"Case00_segmentation.nii.gz: is up to {apart:.1f} mm away from its scan: the affines of the two files "
        "differ; resample it onto Case00.nii.gz"
    )


def test_a_mask_that_lies_within_half_a_voxel_is_on_its_scan(paths):
    write(paths[1], volume(0)[1], origin=(-10.0, 5.2, 70.0))
    assert read(paths).mask.any()


@pytest.mark.parametrize("lost", ["identity", "no codes"])
def test_a_mask_that_does_not_say_where_it_lies_is_on_its_scan_voxel_by_voxel(paths, lost):
    whole = read(paths)
    stored = nib.load(paths[1])
    bare = nib.Nifti1Image(np.asarray(stored.dataobj), np.eye(4))
    if lost == "no codes":
        bare.set_sform(None, code=0)
        bare.set_qform(None, code=0)
    paths[1].write_bytes(bare.to_bytes())
    again = read(paths)
    assert np.array_equal(again.mask, whole.mask)
    assert again.spacing == whole.spacing


def test_a_mask_stored_upside_down_without_saying_so_is_elsewhere(paths):
    write(paths[1], volume(0)[1], axes="RAS", spacing=(0.5, 0.8, -3.0))
    assert "away from its scan" in fault(paths)


def test_an_empty_mask(paths):
    write(paths[1], np.zeros(SHAPE, np.uint8), axes="LPS")
    assert fault(paths) == (
        "Case00_segmentation.nii.gz: is empty: no voxel is labelled; segment the prostate, or remove the case"
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("which", [0, 1])
def test_numbers_that_are_not_finite(paths, value, which):
    values = volume(0)[which].astype(np.float64)
    values[3, 4, 5] = values[4, 5, 6] = value
    write(paths[which], values, axes="LPS")
    assert fault(paths) == (
        f"{paths[which].name}: holds 2 voxels that are not finite numbers; repair or fetch it again"
    )


def test_numbers_too_large_for_single_precision_are_not_finite(paths):
    values = volume(0)[0].astype(np.float64)
    values[3, 4, 5] = 1e300
    write(paths[0], values, axes="LPS")
    assert "holds 1 voxel that is not a finite number;" in fault(paths)


@pytest.mark.parametrize("shape", [(20, 24, 7, 3), (20, 24, 7, 1), (20, 24)])
def test_a_file_of_more_or_fewer_axes(paths, shape):
    nib.save(nib.Nifti1Image(np.zeros(shape, np.int16), np.eye(4)), paths[0])
    written = " × ".join(map(str, nib.load(paths[0]).shape))
    assert fault(paths) == (
        f"Case00.nii.gz: has {len(nib.load(paths[0]).shape)} axes ({written} voxels), but a volume has 3; keep one "
        "volume of it"
    )


def test_colours(paths):
    colours = np.zeros(SHAPE, dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(nib.Nifti1Image(colours, np.eye(4)), paths[0])
    assert "not one real number each; convert it to grey levels" in fault(paths)


def test_a_broken_affine(paths):
    header = bytearray(gzip.decompress(paths[0].read_bytes()))
    header[296:312] = bytes(16)  # the second row of the affine
    paths[0].write_bytes(header)
    assert fault(paths) == ("Case00.nii.gz: does not give its voxel size (broken affine); repair its header")


def test_content_not_names_say_what_is_compressed_and_which_version(paths):
    expected = read(paths)
    for path in paths:
        path.write_bytes(gzip.decompress(path.read_bytes()))
    assert np.array_equal(read(paths).intensities, expected.intensities)
    image = nib.Nifti1Image.from_bytes(paths[0].read_bytes())
    paths[0].write_bytes(nib.Nifti2Image(np.asarray(image.dataobj), image.affine).to_bytes())
    assert np.array_equal(read(paths).intensities, expected.intensities)


def test_scale_factors_of_the_header_are_applied(paths):
    expected = read(paths).intensities / 7
    stored = nib.load(paths[0])
    image = nib.Nifti1Image(stored.get_fdata() / 7, stored.affine)
    image.set_data_dtype(np.int16)
    nib.save(image, paths[0])
    assert nib.load(paths[0]).dataobj.slope not in (None, 1)
    np.testing.assert_allclose(read(paths).intensities, expected, rtol=0, atol=0.1)
