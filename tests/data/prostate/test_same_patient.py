"""A patient is one case at one site, whatever the files are called and however they are stored."""

import gzip
import re
import shutil

import nibabel as nib
import numpy as np
import pytest

from fedunlearn.data.prostate.grey_levels import STEPS, identity, padding, tally
from tests.data.prostate.loading import CASES, error, load
from tests.data.prostate.nifti_sites import volume, write

SCAN, MASK = "Case00.nii.gz", "Case00_segmentation.nii.gz"


def same_bytes(scan, mask, to):
    shutil.copy(scan, to / "Case07.nii.gz")
    shutil.copy(mask, to / "Case07_segmentation.nii.gz")


def recompressed(scan, mask, to):
    (to / "Case07.nii.gz").write_bytes(gzip.compress(gzip.decompress(scan.read_bytes()), 1, mtime=7))
    (to / "Case07_segmentation.nii").write_bytes(gzip.decompress(mask.read_bytes()))


def stored(change, **how):
    def copy(scan, mask, to):
        values = np.asarray(nib.load(scan).dataobj)
        write(to / "Case07.nii.gz", change(values), **how)
        write(to / "Case07_segmentation.nii.gz", np.asarray(nib.load(mask).dataobj), **how)

    return copy


def by_another_reader(scan, mask, to):
    shutil.copy(scan, to / "Case07.nii.gz")
    write(to / "Case07_segmentation.nii.gz", volume(10)[1] == 2)


COPIES = {
    "bytes": same_bytes,
    "recompressed": recompressed,
    "other type": stored(lambda values: values.astype(np.float64)),
    "other axes": stored(lambda values: values, axes="SAL"),
    "other place and spacing": stored(lambda values: values, origin=(0.0, 0.0, 9.0), spacing=(0.6, 0.6, 2.5)),
    "scaled": stored(lambda values: values * 0.25 + 7),
}


@pytest.mark.parametrize("site", ["HK", "UCL"])
@pytest.mark.parametrize("copy", COPIES)
def test_a_copy_is_refused_and_both_sites_are_named(own, copy, site):
    COPIES[copy](own / "HK" / SCAN, own / "HK" / MASK, own / site)
    assert error(own).startswith(
        f"{site}/Case07.nii.gz: site {site}'s Case07 repeats site HK's Case00, the same scan as HK/{SCAN}; keep one "
        "of the two, or set"
    )


def test_a_copy_with_another_mask_is_the_same_patient(own):
    shutil.copy(own / "HK" / SCAN, own / "UCL" / "Case07.nii.gz")
    labels = (volume(10)[1] == 2).astype(np.uint8)
    write(own / "UCL" / "Case07_segmentation.nii.gz", labels)
    assert "site UCL's Case07 repeats site HK's Case00" in error(own)


def test_copies_are_skipped_and_forgetting_a_site_leaves_its_patient_nowhere(own, sites):
    for number, site in enumerate(("HK", "UCL", "BIDMC")):
        target = own / site / f"Case1{number}.nii.gz"
        shutil.copy(own / "I2CVB" / SCAN, target)
        shutil.copy(own / "I2CVB" / MASK, own / site / f"Case1{number}_segmentation.nii.gz")
    data = load(own, bad_cases="skip")
    told = [note.replace(f"{own}/", "") for note in data.notes]
    first = "BIDMC/Case12.nii.gz"  # the first site of all keeps it
    assert told == [
        f"left out HK/Case10.nii.gz: site HK's Case10 repeats site BIDMC's Case12, the same scan as {first}",
        f"left out I2CVB/{SCAN}: site I2CVB's Case00 repeats site BIDMC's Case12, the same scan as {first}",
        f"left out UCL/Case11.nii.gz: site UCL's Case11 repeats site BIDMC's Case12, the same scan as {first}",
    ]
    owners = {
        pair for i in data.slices.values() for pair in zip(i.site.tolist(), i.case.tolist(), strict=True)
    }
    assert len(owners) == 6 * CASES
    assert (2, 0) not in owners and (0, CASES) in owners


def test_copies_are_noticed_when_everything_comes_from_the_cache(own, cache):
    load(own)
    same_bytes(own / "HK" / SCAN, own / "HK" / MASK, own / "UCL")
    before = len(list(cache.rglob("*.arrays")))
    assert "site UCL's Case07 repeats site HK's Case00" in error(own)
    assert len(list(cache.rglob("*.arrays"))) == before, "the copy was read from the entry of the first"


def test_one_voxel_more_or_less_is_another_scan():
    levels = np.random.default_rng(0).random(5000, dtype=np.float32)
    other = levels.copy()
    other[17] = (other[17] + 0.5) % 1
    assert identity(tally(levels)) == identity(tally(levels[::-1])) != identity(tally(other))


# -- padding -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("value", "left"), [(-32768, 7), (-5000, 39), (-2000, 79), (32767, 7), (5000, 46)])
def test_padding_with_an_extreme_value_is_noted(own, value, left):
    scan = volume(10)[0].astype(np.int32) % 900
    scan[:4] = value
    write(own / "HK" / SCAN, scan)
    (note,) = load(own).notes
    assert note == (
        f"{own}/HK/{SCAN}: 672 voxels of about {value} lie far from all others, which are left {left} of 256 grey "
        "levels; if that is padding, give it the value of the background"
    )
    assert load(own).notes == (note,), "from the cache as well"


@pytest.mark.parametrize("value", [-32768, 32767, 1e9])
def test_a_scan_of_which_an_extreme_value_leaves_next_to_nothing_is_refused(own, value):
    scan = volume(10)[0].astype(np.int32) % 200
    scan[:4] = value
    write(own / "HK" / SCAN, scan)
    text = error(own)
    assert re.match(
        rf"HK/{SCAN}: shows \d shades between .+: it is a mask, or has one extreme value; replace it by the scan",
        text,
    ), text


def test_an_ordinary_background_is_no_padding(own, sites):
    scan = volume(10)[0] % 900
    scan[:4] = 0
    write(own / "HK" / SCAN, scan)
    assert load(own).notes == () == load(sites).notes


def test_half_of_the_brightness_without_a_voxel_is_a_gap_and_less_is_none():
    levels = np.linspace(0, 1, 1000, dtype=np.float32)
    for empty, noted in ((0.45, False), (0.55, True)):
        kept = levels[(levels > empty) | (levels == 0)]
        assert (padding(tally(kept), 0, 1) is not None) == noted
    assert len(tally(levels)) == int(STEPS) + 1
