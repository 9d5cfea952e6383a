"""What a header says is what counts, units included; one that no scan can have is refused by name."""

import gzip
import struct

import nibabel as nib
import numpy as np
import pytest

from tests.data.prostate.loading import error, load
from tests.data.prostate.nifti_sites import SPACING, volume, write

SCAN, MASK = "Case00.nii.gz", "Case00_segmentation.nii.gz"


def rewrite(path, change):
    """Have `change` edit the plain bytes of a file in place."""
    raw = bytearray(gzip.decompress(path.read_bytes()))
    raw = change(raw) or raw
    path.write_bytes(gzip.compress(bytes(raw)))


def patch(path, layout, offset, *values):
    rewrite(path, lambda raw: struct.pack_into(layout, raw, offset, *values))


def store(site, unit, factor, names=(SCAN, MASK)):
    """Write a case's files with lengths that are `factor` millimetres each."""
    for name in names:
        image = nib.load(site / name)
        affine = np.diag([factor, factor, factor, 1]) @ image.affine
        written = nib.Nifti1Image(np.asarray(image.dataobj), affine)
        written.header.set_xyzt_units(unit)
        nib.save(written, site / name)


@pytest.mark.parametrize(("unit", "factor"), [("unknown", 1), ("mm", 1), ("meter", 0.001), ("micron", 1000)])
def test_lengths_are_in_the_unit_of_the_header(own, sites, unit, factor):
    store(own / "HK", unit, factor)
    data, expected = load(own), load(sites)
    assert (data.train_images == expected.train_images).all()
    for split in ("train", "validation", "test"):
        np.testing.assert_allclose(data.slices[split].spacing, expected.slices[split].spacing, rtol=1e-5)


def test_a_mask_in_another_unit_than_its_scan_lies_where_it_says(own, sites):
    store(own / "HK", "micron", 1000, names=(MASK,))
    assert load(own).content_hash == load(sites).content_hash


@pytest.mark.parametrize(
    ("unit", "factor", "sides"),
    [
        ("micron", 1, "0.0005 × 0.0008 × 0.003 mm"),  # millimetres, called micrometres
        ("mm", 1000, "500 × 800 × 3000 mm"),  # micrometres, called millimetres
        ("unknown", 1000, "500 × 800 × 3000 mm"),
        ("meter", 1, "500 × 800 × 3000 mm"),
        ("mm", 7, "3.5 × 5.6 × 21 mm"),
        ("mm", 0.09, "0.045 × 0.072 × 0.27 mm"),
    ],
)
def test_a_size_that_no_voxel_has_is_refused(own, unit, factor, sides):
    store(own / "HK", unit, factor)
    assert error(own).startswith(
        f"HK/{SCAN}: gives a voxel size of {sides}; a scan's is 0.05 to 20 mm; correct the spacing or its unit in "
        "the header, or set"
    )


def test_a_header_that_does_not_know_its_own_length_is_refused(own):
    patch(own / "HK" / SCAN, "<i", 0, 360)
    assert error(own).startswith(
        f"HK/{SCAN}: is not a complete NIfTI volume (a header of 360 bytes); fetch it again"
    )


def test_an_unknown_unit_is_refused(own):
    patch(own / "HK" / SCAN, "B", 123, 5)
    assert error(own).startswith(f"HK/{SCAN}: gives its lengths in an unknown unit (5); correct its header")


@pytest.mark.parametrize("offset", [0.0, 351.0, 348.0, 353.0, 368.0, 1e30])
def test_voxels_begin_behind_the_header_and_end_with_the_file(own, offset):
    patch(own / "HK" / SCAN, "<f", 108, offset)
    text = error(own)
    assert text.startswith(f"HK/{SCAN}: is not a complete NIfTI volume ("), text


@pytest.mark.parametrize(
    "dim", [(3, 20, 24, 6), (3, 20, 24, 8), (3, 20, 12, 7), (3, -20, -24, 7), (3, 32767, 32767, 32767)]
)
def test_a_header_of_more_or_fewer_voxels_than_there_are_is_refused(own, dim):
    patch(own / "HK" / SCAN, "<4h", 40, *dim)
    text = error(own)
    assert text.startswith(f"HK/{SCAN}: is not a complete NIfTI volume (by its header "), text


def test_a_header_is_no_voxels_even_where_all_bytes_would_fit(own):
    path = own / "HK" / SCAN
    patch(path, "<4h", 40, 3, 16, 13, 17)  # 2 × 3 536 bytes: those of the file
    patch(path, "<f", 108, 0.0)
    assert error(own).startswith(
        f"HK/{SCAN}: is not a complete NIfTI volume (by its header 16 × 13 × 17 voxels from byte 0 to 7072, but the "
        "file has 352 to 7072); fetch it again"
    )


def test_bytes_behind_the_voxels_are_refused(own):
    rewrite(own / "HK" / SCAN, lambda raw: raw + bytes(16))
    assert (
        "HK/Case00.nii.gz: is not a complete NIfTI volume (by its header 20 × 24 × 7 voxels from byte 352"
        in error(own)
    )


def test_an_extension_of_the_header_is_no_voxel(own, sites):
    image = nib.load(own / "HK" / SCAN)
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"scanned on a Tuesday"))
    nib.save(image, own / "HK" / SCAN)
    assert load(own).content_hash == load(sites).content_hash


def test_big_endian_files_are_the_same_volumes(own, sites):
    for name in (SCAN, MASK):
        image = nib.load(own / "HK" / name)
        swapped = nib.Nifti1Image(np.asarray(image.dataobj), None, image.header.as_byteswapped(">"))
        assert swapped.to_bytes()[:4] == (348).to_bytes(4, "big")
        (own / "HK" / name).write_bytes(swapped.to_bytes())
    assert load(own).content_hash == load(sites).content_hash


def test_two_sizes_in_one_header_are_refused(own):
    image = nib.load(own / "HK" / SCAN)
    sform = image.get_sform()
    image.set_qform(np.diag([0.5, 0.8, 3.6, 1.0]), code=1)
    image.set_sform(sform, code=1, update_affine=False)
    nib.save(image, own / "HK" / SCAN)
    assert error(own).startswith(
        f"HK/{SCAN}: gives two voxel sizes, 0.5 × 0.8 × 3 (sform) and 0.5 × 0.8 × 3.6 (qform); correct its"
    )


def test_two_forms_of_one_size_are_no_matter(own, sites):
    image = nib.load(own / "HK" / SCAN)
    sform = image.get_sform()
    image.set_qform(np.diag([*SPACING, 1.0]), code=1)  # elsewhere, but as large
    image.set_sform(sform, code=1, update_affine=False)
    nib.save(image, own / "HK" / SCAN)
    assert load(own).content_hash == load(sites).content_hash


@pytest.mark.parametrize("side", [0.0, np.nan, np.inf, -0.0])
def test_a_scan_without_sform_needs_its_pixdim(own, side):
    patch(own / "HK" / SCAN, "<2h", 252, 1, 0)  # qform alone
    patch(own / "HK" / SCAN, "<f", 80, side)
    assert error(own).startswith(f"HK/{SCAN}: "), "0 is not taken for 1"
    assert "does not give its voxel size" in error(own) or "not a complete NIfTI" in error(own)


def test_a_scan_placed_by_its_qform_alone(own, sites):
    for name in (SCAN, MASK):
        image = nib.load(own / "HK" / name)
        image.set_qform(image.affine, code=1)
        image.set_sform(None, code=0)
        nib.save(image, own / "HK" / name)
    data, expected = load(own), load(sites)
    assert (data.train_images == expected.train_images).all()
    np.testing.assert_allclose(data.slices["train"].spacing, expected.slices["train"].spacing, rtol=1e-6)


def test_a_scan_whose_header_was_lost_has_no_size(own, sites):
    values = np.asarray(nib.load(own / "HK" / SCAN).dataobj)
    nib.save(nib.Nifti1Image(values, None), own / "HK" / SCAN)
    assert error(own).startswith(
        f"HK/{SCAN}: does not give its voxel size (neither an orientation nor a size other than 1); give it the "
        "header of the original"
    )
    bare = nib.Nifti1Image(values, None)
    bare.header.set_zooms(SPACING)
    (own / "HK" / SCAN).write_bytes(bare.to_bytes())
    labels = nib.Nifti1Image(np.asarray(nib.load(own / "HK" / MASK).dataobj), None)
    (own / "HK" / MASK).write_bytes(labels.to_bytes())
    spacing = load(own).slices["train"].spacing
    np.testing.assert_allclose(spacing, load(sites).slices["train"].spacing, rtol=1e-5)


@pytest.mark.parametrize(("offset", "name"), [(252, "qform_code"), (254, "sform_code")])
@pytest.mark.parametrize("which", [SCAN, MASK])
def test_an_unknown_code_is_not_taken_for_none(own, which, offset, name):
    """Without a code the first axis would run to the other side."""
    patch(own / "HK" / which, "<h", offset, 16)
    assert error(own).startswith(
        f"HK/{which}: gives its orientation under an unknown code ({name} 16); correct its header"
    )


def test_axes_that_lie_nearly_on_one_line_are_refused(own):
    image = nib.load(own / "HK" / SCAN)
    affine = image.affine.copy()
    affine[:3, 1] = affine[:3, 0] * 1.6 + [0, 0.1, 0]
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), affine), own / "HK" / SCAN)
    assert "does not give its voxel size (broken affine)" in error(own)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_mask_flipped_in_its_voxels_or_in_its_header_alone_is_elsewhere(own, axis):
    image = nib.load(own / "HK" / MASK)
    affine = image.affine.copy()
    affine[:3, axis] *= -1
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj), affine), own / "HK" / MASK)
    assert "away from its scan: the affines of the two files differ" in error(own)


def test_a_mask_with_two_axes_exchanged_is_no_mask_of_the_scan(own):
    image = nib.load(own / "HK" / MASK)
    values = np.asarray(image.dataobj).transpose(1, 0, 2)
    nib.save(nib.Nifti1Image(values, image.affine), own / "HK" / MASK)
    assert f"HK/{MASK}: has 24 × 20 × 7 voxels, its scan 20 × 24 × 7" in error(own)


def test_a_volume_of_one_slice_is_read(own):
    scan, labels = volume(10)
    for name, values in ((SCAN, scan), (MASK, labels)):
        write(own / "HK" / name, values[:, :, 3:4])
    data = load(own)
    found = sum(int(((i.site == 1) & (i.case == 0)).sum()) for i in data.slices.values())
    assert found == 1


@pytest.mark.parametrize("dtype", ["u1", "i2", "u2", "i4", "f4", "f8"])
def test_voxels_of_every_real_type_are_the_same_scan(own, sites, dtype):
    scan = (volume(10)[0] % 200).astype(dtype)
    write(own / "HK" / SCAN, scan)
    reference = load(own)
    write(own / "HK" / SCAN, scan.astype("f4"))
    assert load(own).content_hash == reference.content_hash


@pytest.mark.parametrize("dtype", ["c8", "c16"])
def test_complex_voxels_are_refused(own, dtype):
    write(own / "HK" / SCAN, volume(10)[0].astype(dtype))
    assert "not one real number each; convert it to grey levels" in error(own)


def test_brightness_far_from_0_keeps_its_grey_levels(own):
    """float32 knows no odd number behind 2**24: a scan of 250 levels would be left 32."""
    scan = volume(10)[0] % 250
    write(own / "HK" / SCAN, scan)
    near = load(own)
    write(own / "HK" / SCAN, scan + 1e9)
    assert load(own).content_hash == near.content_hash


def test_one_line_is_all_that_is_said_of_a_header_that_nibabel_repairs(own, capsys, recwarn):
    patch(own / "HK" / SCAN, "<f", 108, 353.0)
    patch(own / "HK" / MASK, "<f", 80, -2.0)
    error(own)
    said = capsys.readouterr()
    assert (said.out, said.err, list(recwarn)) == ("", "", [])
