"""Cases that cannot be used: refused or left out as the user chooses, never silently."""

import shutil

import numpy as np

from fedunlearn.data.holdings import holdings
from tests.data.prostate.loading import CASES, error, load
from tests.data.prostate.nifti_sites import SHAPE, volume, write


def spoil(root):
    """Make six cases unusable; return their faults as they are told."""
    (root / "BIDMC" / "Case01_segmentation.nii.gz").unlink()
    half = root / "HK" / "Case02.nii.gz"
    half.write_bytes(half.read_bytes()[:500])
    write(root / "I2CVB" / "Case00_segmentation.nii.gz", volume(20)[1][:, :, 1:])
    write(root / "ISBI" / "Case03_segmentation.nii.gz", np.zeros(SHAPE, np.uint8))
    write(root / "ISBI_1.5" / "Case04.nii.gz", np.full(SHAPE, 9, np.int16))
    tiny = np.zeros(SHAPE, np.uint8)
    tiny[1, 1, 3] = 1  # no pixel's centre at 16 × 16
    write(root / "UCL" / "Case04_segmentation.nii.gz", tiny)
    return [
        "BIDMC/Case01.nii.gz: has no segmentation: there is no Case01_segmentation.nii.gz or .nii",
        "HK/Case02.nii.gz: is not a complete NIfTI volume (",
        "I2CVB/Case00_segmentation.nii.gz: has 20 × 24 × 6 voxels, its scan 20 × 24 × 7",
        "ISBI/Case03_segmentation.nii.gz: is empty: no voxel is labelled",
        "ISBI_1.5/Case04.nii.gz: shows nothing: at least 99 % of the voxels have the same intensity",
        "UCL/Case04_segmentation.nii.gz: has no mask pixel left at data.resize = 16",
    ]


def test_bad_cases_are_refused_the_first_in_full_and_the_others_by_name(own):
    faults = spoil(own)
    text = error(own)
    assert text.startswith(faults[0] + '; put it there, or set data.bad-cases = "skip" to leave it out')
    assert text.endswith(
        "(also unusable: HK/Case02.nii.gz, I2CVB/Case00_segmentation.nii.gz, ISBI/Case03_segmentation.nii.gz, "
        "ISBI_1.5/Case04.nii.gz, UCL/Case04_segmentation.nii.gz)"
    )


def test_one_bad_case_is_one_plain_sentence(own):
    write(own / "ISBI" / "Case03_segmentation.nii.gz", np.zeros(SHAPE, np.uint8))
    assert error(own) == (
        "ISBI/Case03_segmentation.nii.gz: is empty: no voxel is labelled; segment the prostate, or remove the case, "
        'or set data.bad-cases = "skip" to leave it out'
    )


def test_bad_cases_are_skipped_and_told_of(own, sites):
    faults = spoil(own)
    shutil.copytree(own / "HK", own / "Elsewhere")
    data = load(own, bad_cases="skip")
    foreign, *told = [note.replace(f"{own}/", "") for note in data.notes]
    assert foreign == "Elsewhere: is not one of the six sites; its 10 volumes are not used"
    assert len(told) == len(faults)
    for note, fault in zip(told, faults, strict=True):
        assert note.startswith(f"left out {fault}")
    indices = data.slices.values()
    there = {pair for index in indices for pair in zip(index.site.tolist(), index.case.tolist(), strict=True)}
    everybody = {(site, case) for site in range(6) for case in range(CASES)}
    assert everybody - there == {(0, 1), (1, 2), (2, 0), (3, 3), (4, 4), (5, 4)}
    assert holdings(data)["notes"] == list(data.notes)
    assert load(sites, bad_cases="skip").content_hash == load(sites).content_hash


def test_skipping_may_leave_a_site_too_few(own):
    for number in range(3):
        (own / "HK" / f"Case0{number}_segmentation.nii.gz").unlink()
    assert error(own, bad_cases="skip") == (
        "site HK: has 2 cases that can be used, but 3 are needed (one each to train, to validate and to test); add "
        "cases, or remove the site's folder and lower federation.num-clients"
    )


def test_nothing_to_use_at_all(tmp_path, own):
    for path in own.glob("*/*_segmentation.nii.gz"):
        path.unlink()
    text = error(own, bad_cases="skip")
    assert text.startswith("BIDMC/Case00.nii.gz: has no segmentation")
    assert text.endswith("and 24 more)")
    assert "data.bad-cases" not in text, "skipping them is no remedy"
    (tmp_path / "empty" / "HK").mkdir(parents=True)
    assert error(tmp_path / "empty") == (
        f"data.directory = '{tmp_path / 'empty'}': no site's folder holds a NIfTI file; unpack them there"
    )


def test_a_folder_with_the_name_of_a_file_is_a_bad_case(own):
    path = own / "HK" / "Case00.nii.gz"
    path.unlink()
    path.mkdir()
    assert error(own).startswith(
        "HK/Case00.nii.gz: is a folder; put the file of that name in its place, or set"
    )


def test_bad_cases_are_not_kept(own, cache):
    spoil(own)
    load(own, bad_cases="skip")
    assert len(list(cache.rglob("*.arrays"))) == 6 * CASES - 6
