"""The phantom: solids with the volumes of geometry, patients with their organs in place, files like a site's."""

import gzip
from dataclasses import replace
from itertools import combinations, pairwise
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from fedunlearn.data.phantom import SITES, write_phantoms
from fedunlearn.data.phantom.anatomy import Tissue, draw_anatomy, tissue_map
from fedunlearn.data.phantom.scan import rician, scan, sensitivity, texture, voxel_centres
from fedunlearn.data.phantom.shapes import Ellipsoid, turned
from fedunlearn.data.phantom.sites import Coil
from fedunlearn.data.phantom.writer import VERSION, nifti
from fedunlearn.errors import UserError
from fedunlearn.randomness import numpy_generator
from tests.profiles import few

CASES, SIZE, SEED = 2, 48, 3
TWO_ZONES = {"ISBI", "ISBI_1.5"}
seeds = st.integers(0, 2**32)


def grid(half: float, step: float):
    """Return the points of a cube around 0, and the volume of a voxel in ml."""
    n = round(2 * half / step)
    return voxel_centres((n, n, n), (step, step, step)), step**3 / 1000


def patient(seed: int, **options):
    return draw_anatomy(numpy_generator(seed, "phantom"), **options)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("phantom") / "set"
    write_phantoms(folder, cases=CASES, seed=SEED, size=SIZE)
    return folder


@pytest.fixture(scope="module")
def volumes(folder: Path):
    """Return (image, mask) of every site's cases, as nibabel reads them."""
    return {
        site.name: [
            (
                nib.load(folder / site.name / f"Case{case:02d}.nii.gz"),
                nib.load(folder / site.name / f"Case{case:02d}{site.mask}.nii.gz"),
            )
            for case in range(CASES)
        ]
        for site in SITES
    }


# Solids


@few
@given(axes=st.tuples(*[st.floats(8, 28)] * 3), turn=st.floats(-90, 90), lean=st.floats(-0.4, 0.4))
def test_an_ellipsoid_has_its_volume_however_it_is_turned_and_sheared(axes, turn, lean):
    points, voxel = grid(44, 1.0)
    solid = Ellipsoid((0.3, -0.2, 0.1), axes, turn=turn, lean=lean)
    assert solid.holds(points).sum() * voxel == pytest.approx(4 / 3 * np.pi * np.prod(axes) / 1000, rel=0.02)


@few
@given(turn=st.floats(-90, 90), power=st.sampled_from([2.0, 2.4]), by=st.floats(0.1, 6))
def test_a_shrunk_solid_lies_inside_and_a_mirrored_one_on_the_other_side(turn, power, by):
    (x, y, z), _ = grid(30, 2.0)
    solid = Ellipsoid((6, -3, 1), (12, 7, 9), turn=turn, power=power)
    inner = solid.shrunk(by).holds((x, y, z))
    assert inner.any() and not (inner & ~solid.holds((x, y, z))).any()
    twin = solid.mirrored().level((-x, y, z))
    np.testing.assert_allclose(twin, solid.level((x, y, z)), rtol=1e-4, atol=1e-5)


def test_turning_is_a_rotation_of_the_axes():
    u, v = turned(np.float32(3), np.float32(4), 90)
    assert (u, v) == (pytest.approx(4), pytest.approx(-3))
    back = turned(*turned(np.float32(3), np.float32(4), 20), -20)
    assert back == (pytest.approx(3), pytest.approx(4))


# Patients


@few
@given(seed=seeds, balloon=st.booleans())
def test_zones_partition_the_gland_whatever_the_core(seed, balloon):
    points, voxel = grid(45, 1.5)
    gland = patient(seed, balloon=balloon).gland
    peripheral, central = gland.zones(points)
    assert peripheral.any() and central.any() and not (peripheral & central).any()
    all_but_nothing, nothing = replace(gland, core_centre=(9, 9, 9)).zones(points)
    assert not nothing.any()
    np.testing.assert_array_equal(peripheral | central, all_but_nothing)
    assert 12 < (peripheral | central).sum() * voxel < 80, "ml"


@few
@given(seed=seeds, balloon=st.booleans())
def test_organs_lie_where_they_belong(seed, balloon):
    anatomy = patient(seed, balloon=balloon)
    points, voxel = grid(45, 1.5)
    tissues = tissue_map(anatomy, points)
    gland = np.isin(tissues, [Tissue.PERIPHERAL_ZONE, Tissue.CENTRAL_GLAND])
    x, y, z = (np.broadcast_to(u, gland.shape) for u in points)
    assert 12 < gland.sum() * voxel < 80, "ml, what the rectum leaves of it"
    assert ndimage.label(gland)[1] == 1, "one piece"
    urine, lumen = tissues == Tissue.URINE, tissues == Tissue.RECTAL_LUMEN
    assert z[urine].mean() > z[gland].max() - 10
    assert y[lumen].max() < y[gland].mean()
    assert abs(x[gland].mean()) < 10
    # The peripheral zone is what lies behind and beside the central gland.
    assert y[tissues == Tissue.PERIPHERAL_ZONE].mean() < y[tissues == Tissue.CENTRAL_GLAND].mean()
    # The body goes on all around: no air within 2 cm of the gland.
    assert not (ndimage.binary_dilation(gland, iterations=14) & (tissues == Tissue.AIR)).any()
    coil = tuple(np.full((1, 1, 1), value, np.float32) for value in (*anatomy.coil, anatomy.gland.centre[2]))
    assert tissue_map(anatomy, coil).item() in (Tissue.RECTAL_WALL, Tissue.RECTAL_LUMEN)


def test_a_balloon_widens_the_rectum_and_flattens_the_gland_of_the_same_patient():
    points, _ = grid(45, 1.5)
    for seed in range(5):
        with_balloon, without = (tissue_map(patient(seed, balloon=b), points) for b in (True, False))
        lumen = [np.count_nonzero(found == Tissue.RECTAL_LUMEN) for found in (with_balloon, without)]
        zone = [np.count_nonzero(found == Tissue.PERIPHERAL_ZONE) for found in (with_balloon, without)]
        assert lumen[0] > 2 * lumen[1] and zone[0] < zone[1]


def test_a_patient_lies_rolled_and_tilted():
    anatomy = replace(patient(0), roll=5.0, tilt=-8.0)
    rng = np.random.default_rng(0)
    points = tuple(rng.uniform(-50, 50, 20).astype(np.float32) for _ in range(3))
    found = anatomy.lying(points)
    np.testing.assert_allclose(np.linalg.norm(found, axis=0), np.linalg.norm(points, axis=0), rtol=1e-5)
    zero, ten = np.float32(0), np.float32(10)
    sine, cosine = np.sin(np.deg2rad([5, 8])), np.cos(np.deg2rad([5, 8]))
    assert anatomy.lying((zero, zero, ten)) == pytest.approx((0, -10 * sine[1], 10 * cosine[1]), abs=1e-4)
    assert anatomy.lying((ten, zero, zero))[0] == pytest.approx(10 * cosine[0], abs=1e-4)


# Scans


@pytest.mark.parametrize("site", SITES, ids=lambda site: site.name)
def test_the_same_patient_is_scanned_at_every_size(site):
    small, large = (scan(site, size, numpy_generator(1, "phantom")) for size in (40, 160))
    ml = [
        np.count_nonzero(found.mask(zones=False)) * np.prod(found.spacing) / 1000 for found in (small, large)
    ]
    assert ml[0] == pytest.approx(ml[1], rel=0.12)
    assert large.image.dtype == site.dtype and large.image.shape == large.tissues.shape
    fields = [np.multiply(found.image.shape, found.spacing)[:2] for found in (small, large)]
    np.testing.assert_allclose(*fields)
    assert fields[0] == pytest.approx(site.field_of_view, rel=0.0801)
    assert large.spacing[2] == site.thickness
    assert large.image.shape[2] * site.thickness == pytest.approx(site.height, abs=site.thickness)
    two, one = large.mask(zones=True), large.mask(zones=False)
    assert np.unique(two).tolist() == [0, 1, 2] and np.unique(one).tolist() == [0, 1]
    np.testing.assert_array_equal(two > 0, one)
    np.testing.assert_array_equal(two == 2, large.tissues == Tissue.CENTRAL_GLAND)


VERSION_1 = {
    # Voxels of every tissue in the order of `Tissue`, mean and standard deviation of the image.
    "BIDMC": ([0, 39273, 26185, 5962, 2166, 1586, 837, 1010, 3823, 186, 760, 819, 337], 733.29181, 475.28906),
    "HK": ([0, 15687, 10763, 2600, 1068, 697, 256, 278, 1273, 52, 262, 167, 109], 306.62640, 113.99942),
    "I2CVB": ([0, 32516, 22795, 6561, 2056, 1326, 382, 633, 858, 75, 359, 442, 169], 184.29698, 98.914029),
    "ISBI": ([8, 20201, 12346, 3148, 1044, 588, 205, 337, 485, 38, 205, 146, 78], 631.47730, 254.24704),
    "ISBI_1.5": ([0, 21965, 13872, 3187, 1149, 900, 434, 621, 2519, 85, 343, 187, 125], 2189.6395, 1230.0702),
    "UCL": ([0, 14006, 9791, 2466, 915, 751, 334, 274, 278, 42, 245, 185, 89], 0.35292966, 0.15713726),
}


@pytest.mark.parametrize(("number", "site"), list(enumerate(SITES)), ids=[site.name for site in SITES])
def test_a_seed_gives_the_phantoms_of_this_version(number, site):
    """Every organ, every contrast and every draw: who changes one counts `VERSION` up and fills in new figures.

    Another processor may round a voxel at an edge to its neighbour's tissue, and a signal in its last digit.
    """
    assert VERSION == 1
    found = scan(site, 48, numpy_generator(3, "phantom", number, 0))
    voxels, mean, deviation = VERSION_1[site.name]
    np.testing.assert_allclose(np.bincount(found.tissues.ravel(), minlength=len(Tissue)), voxels, atol=2)
    assert found.image.mean(dtype=float) == pytest.approx(mean, rel=1e-4)
    assert found.image.std(dtype=float) == pytest.approx(deviation, rel=1e-4)


@pytest.mark.parametrize("signal", [0.0, 0.02, 0.5])
def test_noise_has_the_second_moment_of_rice(signal):
    drawn = rician(np.full(200_000, signal, np.float32), 0.05, np.random.default_rng(0)).astype(float)
    assert (drawn**2).mean() == pytest.approx(signal**2 + 2 * 0.05**2, rel=0.02)
    if not signal:
        assert drawn.mean() == pytest.approx(0.05 * np.sqrt(np.pi / 2), rel=0.02), "Rayleigh"


def test_a_coil_is_brightest_where_it_lies_and_half_its_gain_is_left_at_its_reach():
    anatomy = patient(1, balloon=True)
    x, y = anatomy.coil
    column = [np.float32(y + d) for d in (0, 12, 24, 48, 1e6)]
    points = (np.float32(x), np.array(column), np.float32(0))
    found = sensitivity(Coil("endorectal", gain=3, reach=24), anatomy, points)
    assert found[[0, 2, 4]] == pytest.approx([4, 2.5, 1], abs=1e-4)
    assert all(near > far for near, far in pairwise(found))


def test_texture_is_smooth_over_the_same_millimetres_in_every_direction():
    field = texture((90, 90, 40), (0.5, 0.5, 1.5), np.random.default_rng(0))
    assert field.mean() == pytest.approx(0, abs=0.01) and field.std() == pytest.approx(1, abs=0.02)
    along_x = np.corrcoef(field[6:].ravel(), field[:-6].ravel())[0, 1]  # 3 mm
    along_z = np.corrcoef(field[..., 2:].ravel(), field[..., :-2].ravel())[0, 1]
    assert along_x == pytest.approx(along_z, abs=0.1) and 0.4 < along_x < 0.9


# Files


def test_names_and_labels_are_those_of_the_public_release(folder: Path, volumes):
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["BIDMC", "HK", "I2CVB", "ISBI", "ISBI_1.5", "PHANTOM.json", "UCL"]
    )
    for site in SITES:
        ending = "Segmentation" if site.name in TWO_ZONES else "segmentation"
        assert sorted(path.name for path in (folder / site.name).iterdir()) == [
            "Case00.nii.gz",
            f"Case00_{ending}.nii.gz",
            "Case01.nii.gz",
            f"Case01_{ending}.nii.gz",
        ]
        for image, mask in volumes[site.name]:
            assert image.shape == mask.shape and len(image.shape) == 3
            np.testing.assert_array_equal(image.affine, mask.affine)
            expected = [0, 1, 2] if site.name in TWO_ZONES else [0, 1]
            assert np.unique(mask.dataobj).tolist() == expected


def test_the_note_says_what_this_is_and_how_to_make_it_again(folder: Path):
    assert (
        (folder / "PHANTOM.json").read_text()
        == """{
  "version": 1,
  "seed": 3,
  "cases": 2,
  "size": 48,
  "note": "Synthetic phantoms drawn at random by fedunlearn: no image here is of a patient."
}
"""
    )


def test_masks_are_of_plausible_size_with_empty_slices_above_and_below(volumes):
    for pairs in volumes.values():
        for image, mask in pairs:
            upright = nib.as_closest_canonical(mask)
            columns, rows, _ = upright.header.get_zooms()
            areas = np.count_nonzero(upright.get_fdata(), axis=(0, 1)) * columns * rows
            assert areas[0] == 0 and areas[-1] == 0
            filled = np.flatnonzero(areas)
            assert (np.diff(filled) == 1).all() and len(filled) < len(areas) - 2
            assert 700 < areas.max() < 2800, "mm²"
            assert np.isfinite(image.get_fdata()).all() and image.get_fdata().min() >= 0


@pytest.mark.parametrize("site", SITES, ids=lambda site: site.name)
def test_a_reader_who_turns_a_volume_upright_sees_what_was_scanned(volumes, site):
    number = [other.name for other in SITES].index(site.name)
    scanned = scan(site, SIZE, numpy_generator(SEED, "phantom", number, 1))
    image, mask = volumes[site.name][1]
    assert "".join(nib.aff2axcodes(image.affine)) == site.axes
    upright, mask_upright = nib.as_closest_canonical(image), nib.as_closest_canonical(mask)
    np.testing.assert_array_equal(np.asarray(upright.dataobj), scanned.image)
    np.testing.assert_array_equal(np.asarray(mask_upright.dataobj), scanned.mask(zones=site.zones))
    np.testing.assert_allclose(upright.header.get_zooms(), scanned.spacing, rtol=1e-5)
    assert image.get_data_dtype() == site.dtype and mask.get_data_dtype() == np.uint8
    np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-3)


def test_a_volume_lies_around_the_scanners_centre_however_it_is_stored():
    volume = np.zeros((5, 4, 3), np.int16)
    for axes in ("RAS", "PLS", "LPI"):
        image = nib.Nifti1Image.from_bytes(
            gzip.decompress(nifti(volume, (0.5, 0.6, 3), axes=axes, oblique=7))
        )
        middle = (np.array(image.shape) - 1) / 2
        np.testing.assert_allclose(nib.affines.apply_affine(image.affine, middle), 0, atol=1e-5)


def test_sites_differ_in_shape_spacing_orientation_scale_and_contrast(volumes):
    def of(site):
        image, mask = map(nib.as_closest_canonical, volumes[site.name][0])
        pixels, gland = image.get_fdata(), mask.get_fdata() > 0
        around = ndimage.binary_dilation(gland, iterations=3) & ~gland
        return {
            "shape": image.shape,
            "spacing": tuple(np.round(image.header.get_zooms(), 3)),
            "axes": site.axes,
            "scale": round(float(np.percentile(pixels, 99)), 2),
            "contrast": float(np.median(pixels[gland]) / np.median(pixels[around])),
        }

    found = [of(site) for site in SITES]
    for one, other in combinations(found, 2):
        for key in ("shape", "spacing", "axes", "scale"):
            assert one[key] != other[key], key
    contrasts = {site.name: row["contrast"] for site, row in zip(SITES, found, strict=True)}
    assert contrasts["HK"] < 0.8 < 1.3 < contrasts["UCL"], "the gland is darker here and brighter there"


def test_the_same_seed_gives_the_same_bytes_and_another_seed_and_case_other_ones(
    folder: Path, tmp_path: Path
):
    write_phantoms(tmp_path / "more", cases=CASES + 1, seed=SEED, size=SIZE)
    write_phantoms(tmp_path / "other", cases=1, seed=SEED + 1, size=SIZE)
    for path in folder.rglob("*.nii.gz"):
        name = path.relative_to(folder)
        content = path.read_bytes()
        assert content[4:8] == bytes(4), "gzip's time stamp"
        assert (tmp_path / "more" / name).read_bytes() == content, "more cases leave the first ones"
        if name.name.startswith("Case00"):
            assert (tmp_path / "other" / name).read_bytes() != content
            assert path.with_name(name.name.replace("Case00", "Case01")).read_bytes() != content


def test_every_written_case_is_told_and_the_note_is_there_before_the_first(tmp_path: Path):
    told = []

    def done(site: str, case: int) -> None:
        assert (tmp_path / "PHANTOM.json").is_file()
        assert len(list((tmp_path / site).glob(f"Case{case:02d}*.nii.gz"))) == 2
        told.append((site, case))

    write_phantoms(tmp_path, cases=2, size=32, done=done)  # a folder that exists and is empty will do
    assert told == [(site.name, case) for site in SITES for case in range(2)]


def test_what_cannot_be_written_is_refused_in_one_line_and_leaves_nothing(tmp_path: Path):
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").touch()
    (tmp_path / "file").touch()
    for folder, numbers, line in (
        (full, {}, f"{full}: is not empty; name a new or empty folder with --out"),
        (tmp_path / "file", {}, f"{tmp_path / 'file'}: cannot hold phantoms (File exists)"),
        (tmp_path / "new", {"cases": 0}, "--cases 0: must be at least 1"),
        (tmp_path / "new", {"size": 31}, "--size 31: must be from 32 to 1024 pixels"),
        (tmp_path / "new", {"size": 1025}, "--size 1025"),
    ):
        with pytest.raises(UserError) as refusal:
            write_phantoms(folder, **{"cases": 1, "size": 32, **numbers})
        assert str(refusal.value).startswith(line) and "\n" not in str(refusal.value)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "full", "mine.txt"]


@pytest.mark.parametrize("site", SITES, ids=lambda site: site.name)
def test_pixels_are_square_and_no_matrix_is_larger_than_the_largest(site):
    columns, rows = site.matrix
    width, depth = site.field_of_view
    assert max(columns, rows) <= max(max(other.matrix) for other in SITES) == 1
    assert width / columns == pytest.approx(depth / rows, rel=0.01)
