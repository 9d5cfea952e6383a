"""A mask is whole labels on a background of 0 or less; whatever only looks like one is refused with its values."""

import gzip
import struct

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from fedunlearn.data.prostate.labels import MOST_LABELS, NoLabelsError, prostate_in
from tests.data.prostate.loading import error, load
from tests.data.prostate.nifti_sites import SHAPE, volume, write

SCAN, MASK = "Case00.nii.gz", "Case00_segmentation.nii.gz"


def truth():
    return volume(0)[1] > 0


@pytest.mark.parametrize(
    "values",
    [
        volume(0)[1],
        volume(0)[1].astype(np.int64),
        volume(0)[1].astype(np.float64),
        np.where(truth(), 255, 0).astype(np.uint8),
        np.where(truth(), 1.0000004, -3e-8),  # what is left of a scale factor's rounding
        np.where(truth(), 2, -1).astype(np.int8),  # background below 0
        np.where(truth(), 1e9, 0),
    ],
    ids=["uint8", "int64", "float64", "255", "rounded", "negative", "large"],
)
def test_labels_of_any_type_are_where_they_are_above_0(values):
    found = prostate_in(values)
    assert found.dtype == bool
    assert np.array_equal(found, truth())


def test_a_few_zones_are_labels_and_many_are_none():
    values = truth().astype(np.uint8)
    inside = np.flatnonzero(values)
    values.flat[inside] = 1 + np.arange(len(inside)) % MOST_LABELS
    assert np.array_equal(prostate_in(values), truth())
    values.flat[inside] = 1 + np.arange(len(inside)) % (MOST_LABELS + 1)
    with pytest.raises(NoLabelsError, match=r"is not a label mask: it has 9 of them \(values 0 to 9\); save"):
        prostate_in(values)


SCAN_VALUES = volume(0)[0]
SOFT = gaussian_filter(truth().astype(np.float32), 1.0)
HALVES = np.where(truth(), 0.5, 0).astype(np.float32)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (SOFT, "is not a label mask: 28.6 % of its voxels lie between whole numbers (values 0 to 0.981689)"),
        (HALVES, "is not a label mask: 5.95 % of its voxels lie between whole numbers (values 0 to 0.5)"),
        ((255 * SOFT).astype(np.uint8), "is not a label mask: it has 54 of them (values 0 to 250)"),
        (SCAN_VALUES, "is not a label mask: it has 879 of them (values 0 to 30000)"),
        (
            (1 + truth()).astype(np.uint8),
            "labels 100 % of the volume as prostate (label 1, 2; values 1 to 2)",
        ),
        (~truth(), "labels 94 % of the volume as prostate (label 1; values 0 to 1)"),
        (np.ones(SHAPE, np.uint8), "labels 100 % of the volume as prostate (label 1; values 1 to 1)"),
        (np.zeros(SHAPE, np.uint8), "is empty: no voxel is labelled"),
        (
            (-1 * truth()).astype(np.int8),
            "is empty: no voxel is labelled (values -1 to 0)",
        ),  # label 255 in eight signed bits
    ],
    ids=["soft", "half", "soft-bytes", "scan", "no-background", "inverted", "all", "empty", "int8-overflow"],
)
def test_what_is_no_mask_is_refused_with_its_values(own, values, message):
    values = values.astype(np.uint8) if values.dtype == bool else values
    write(own / "HK" / MASK, values)
    text = error(own)
    assert text.startswith(f"HK/{MASK}: "), text
    assert message in text, text
    assert any(note.endswith(message) for note in load(own, bad_cases="skip").notes)


def scale(path, slope, inter):
    raw = bytearray(gzip.decompress(path.read_bytes()))
    struct.pack_into("<ff", raw, 112, slope, inter)
    path.write_bytes(gzip.compress(bytes(raw)))


@pytest.mark.parametrize(
    ("slope", "inter", "message"),
    [
        (0.4, 0.0, "lie between whole numbers (values 0 to 0.8)"),
        (1.0, 1.0, "labels 100 % of the volume as prostate (label 1, 2, 3; values 1 to 3)"),
        (-1.0, 0.0, "is empty: no voxel is labelled (values -2 to 0)"),
        (-1.0, 2.0, "labels 98.6 % of the volume as prostate"),
    ],
)
def test_labels_are_what_the_header_scales_them_to(own, slope, inter, message):
    scale(own / "HK" / MASK, slope, inter)
    assert message in error(own)


def test_a_scale_factor_that_keeps_labels_whole_changes_nothing(own, sites):
    scale(own / "HK" / MASK, 3.0, 0.0)
    assert load(own).content_hash == load(sites).content_hash


def test_scan_and_mask_that_are_exchanged_are_refused(own):
    scan, mask = own / "HK" / SCAN, own / "HK" / MASK
    content = scan.read_bytes(), mask.read_bytes()
    mask.write_bytes(content[0])
    scan.write_bytes(content[1])
    assert error(own).startswith(f"HK/{MASK}: is not a label mask: it has ")


def test_a_scan_that_is_its_mask_is_refused(own):
    """It would show the network what it is to find."""
    (own / "HK" / SCAN).write_bytes((own / "HK" / MASK).read_bytes())
    assert error(own).startswith(
        f"HK/{SCAN}: shows 3 shades between 0 and 2: it is a mask, or has one extreme value; replace it by the scan"
    )
