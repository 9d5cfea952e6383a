"""Volumes that are there and not read are told of, with how to have them read."""

import json
import os
import shutil
from pathlib import Path

import pytest

from fedunlearn.data.holdings import holdings
from fedunlearn.data.prostate.layout import read_layout
from tests.data.prostate.loading import error, load


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
    assert notes(own) == [f"HK/{name}: is not NIfTI and not used; to convert: {how}"]


def test_many_files_of_one_format_are_one_line(own):
    put(own / "HK", "Case03.mha", "Case03_segmentation.mha", "Case04.hdr", "Case04.img")
    assert [note.split(" and not used")[0] for note in notes(own)] == [
        "HK/Case04.hdr: is not NIfTI",
        "HK/Case04.img: is not NIfTI",
        "HK/Case03.mha and 1 more .mha file are not NIfTI",
    ]


def test_volumes_outside_and_inside_a_sites_folder(own):
    put(own, "Case00.nii.gz", "set.zip")
    put(own / "HK" / "Case08", "scan.nii.gz", "mask.nii.gz")
    put(own / "HK" / "empty")
    assert notes(own) == [
        "set.zip: is not NIfTI and not used; to convert: unpack set.zip",
        "Case00.nii.gz: is not in a site's folder; 1 volume is not used",
        "HK/Case08: is a folder inside a site's; its 2 files are not used, move them next to it",
    ]


def test_what_is_no_volume_is_not_told_of(own):
    put(own / "HK", "readme.txt", "preview.png", ".hidden.mha", "table.csv")
    assert read_layout(str(own)).notes == ()


def unreadable(monkeypatch, folder):
    """Have a folder refuse to be listed; a superuser may list every one."""
    listed = Path.iterdir

    def denied(path):
        if path == folder:
            raise PermissionError(13, "Permission denied")
        return listed(path)

    monkeypatch.setattr(Path, "iterdir", denied)


def test_a_site_that_may_not_be_listed_is_named(own, monkeypatch):
    unreadable(monkeypatch, own / "HK")
    assert error(own) == "HK: cannot be read (Permission denied); let this user read it"


def test_other_folders_that_may_not_be_listed_are_no_matter(own, sites, monkeypatch):
    put(own / "lost+found")
    put(own / "HK" / "old")
    for folder in (own / "lost+found", own / "HK" / "old"):
        unreadable(monkeypatch, folder)
    assert load(own).content_hash == load(sites).content_hash
    assert load(own).notes == ()


def test_a_link_to_nothing_is_a_case_that_cannot_be_read(own):
    for name in ("Case07.nii.gz", "Case07_segmentation.nii.gz"):
        (own / "HK" / name).symlink_to("/nowhere/at/all")
    assert error(own).startswith(
        "HK/Case07.nii.gz: cannot be read (no such file or directory); make it a file that this user can read"
    )


def test_names_that_are_no_text_are_told_of_in_text(own):
    """A file of a run that held half a character could not be read again."""
    Path(os.fsdecode(os.fsencode(own) + b"/HK/Case\xff07.mha")).touch()
    shutil.copytree(own / "UCL", os.fsdecode(os.fsencode(own) + b"/old\xfe"))
    data = load(own)
    assert len(data.notes) == 2
    json.dumps(holdings(data), ensure_ascii=False).encode("utf-8")
    assert data.notes[1].startswith(f"{own}/old\ufffd: is not one of the six sites")
