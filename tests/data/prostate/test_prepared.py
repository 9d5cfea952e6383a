"""Prepared slices on disk: found by content alone, the same bits, made again when damaged."""

import shutil

import nibabel as nib

from fedunlearn.data.prostate import prepared
from tests.data.prostate.loading import CASES, load
from tests.data.prostate.nifti_sites import volume, write


def entries(cache):
    return sorted(cache.rglob("*.arrays"))


def test_a_second_load_reads_no_volume_and_gives_the_same_bits(sites, cache, monkeypatch):
    first = load(sites)
    assert len(entries(cache)) == 6 * CASES
    monkeypatch.setattr(nib.Nifti1Image, "from_bytes", None)  # whoever calls it fails
    second = load(sites)
    assert second.content_hash == first.content_hash
    assert second.notes == ()


def test_times_and_places_of_files_do_not_matter_but_content_does(own, cache):
    first = load(own)
    moved = shutil.copytree(own, own.parent / "moved")
    shutil.rmtree(own)
    assert load(moved).content_hash == first.content_hash
    assert len(entries(cache)) == 6 * CASES
    # One voxel of a scan, its file as large and as old as before.
    path = moved / "HK" / "Case00.nii.gz"
    scan = volume(10)[0]
    scan[10, 10, 3] += 500
    write(path, scan)
    assert load(moved).content_hash != first.content_hash
    assert len(entries(cache)) == 6 * CASES + 1


def test_another_mask_of_the_same_scan_is_noticed(own):
    first = load(own)
    labels = volume(10)[1]
    labels[:, :, 3] = 1
    write(own / "HK" / "Case00_segmentation.nii.gz", labels)
    assert load(own).content_hash != first.content_hash


def test_another_size_or_way_of_cutting_is_another_entry(sites, cache, monkeypatch):
    load(sites)
    load(sites, resize=20)
    assert len(entries(cache)) == 2 * 6 * CASES
    monkeypatch.setattr(prepared, "FORMAT", prepared.FORMAT + 1)
    load(sites)
    assert len(entries(cache)) == 3 * 6 * CASES


def test_damaged_entries_are_made_again(sites, cache):
    first = load(sites)
    whole = {path: path.read_bytes() for path in entries(cache)}
    for number, path in enumerate(whole):
        path.write_bytes([b"", whole[path][: len(whole[path]) // 2], whole[path][:-1] + b"?"][number % 3])
    assert load(sites).content_hash == first.content_hash
    assert {path: path.read_bytes() for path in entries(cache)} == whole


def test_without_a_place_for_the_cache_there_is_a_note_and_the_same_data(sites, tmp_path, monkeypatch):
    first = load(sites)
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("FEDUNLEARN_CACHE", str(tmp_path / "file"))
    data = load(sites)
    assert data.content_hash == first.content_hash
    assert len(data.notes) == 1
    assert data.notes[0].startswith(f"{tmp_path}/file/arrays: prepared slices cannot be kept (")
