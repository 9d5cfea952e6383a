"""Volumes that are there and not read are told of, with how to have them read."""

import pytest

from fedunlearn.data.prostate.layout import read_layout
from tests.data.prostate.loading import load


def put(folder, *names):
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_bytes(b"x")


def notes(own):
    return [note.replace(f"{own}/", "") for note in load(own).notes]


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("Case07.mha", "SimpleITK.WriteImage(SimpleITK.ReadImage('Case07.mha'), 'CaseNN.nii.gz')"),
        ("Case07.NRRD", "SimpleITK.WriteImage(SimpleITK.ReadImage('Case07.NRRD'), 'CaseNN.nii.gz')"),
        ("Case07.img", "nibabel.save(nibabel.load('Case07.img'), 'CaseNN.nii.gz')"),
        ("Case07.img.gz", "nibabel.save(nibabel.load('Case07.img.gz'), 'CaseNN.nii.gz')"),
        ("Case07.mgz", "nibabel.save(nibabel.load('Case07.mgz'), 'CaseNN.nii.gz')"),
        ("IM0001.dcm", "dcm2niix -z y FOLDER"),
        ("cases.zip", "unpack cases.zip"),
        ("cases.tar.gz", "unpack cases.tar.gz"),
    ],
)
def test_a_case_in_another_format_is_told_of_with_how_to_convert_it(own, name, how):
    put(own / "HK", name)
    assert notes(own) == [f"HK/{name}: is no NIfTI and not used; to have it read: {how}"]


def test_many_files_of_one_format_are_one_line(own):
    put(own / "HK", "Case03.mha", "Case03_segmentation.mha", "Case04.hdr", "Case04.img")
    assert [note.split(" and not used")[0] for note in notes(own)] == [
        "HK/Case04.hdr: is no NIfTI",
        "HK/Case04.img: is no NIfTI",
        "HK/Case03.mha and 1 more .mha files are no NIfTI",
    ]


def test_volumes_outside_and_inside_a_sites_folder(own):
    put(own, "Case00.nii.gz", "set.zip")
    put(own / "HK" / "Case08", "scan.nii.gz", "mask.nii.gz")
    put(own / "HK" / "empty")
    assert notes(own) == [
        "set.zip: is no NIfTI and not used; to have it read: unpack set.zip",
        "Case00.nii.gz: lies in no site's folder; 1 volume is not used",
        "HK/Case08: is a folder inside a site's; its 2 files are not used, put them beside it",
    ]


def test_what_is_no_volume_is_not_told_of(own):
    put(own / "HK", "readme.txt", "preview.png", ".hidden.mha", "table.csv")
    assert read_layout(str(own)).notes == ()
