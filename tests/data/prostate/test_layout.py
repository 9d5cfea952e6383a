"""Sites and cases under every name they go by; what is missing, double or foreign is named."""

import pytest

from fedunlearn.data.prostate.bad_case import BadCaseError
from fedunlearn.data.prostate.layout import SITES, read_layout, site_of
from fedunlearn.errors import ConfigError
from tests.data.prostate.nifti_sites import HOSPITALS, RELEASE
from tests.data.prostate.nifti_sites import SITES as FOLDERS


def touch(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def error(root):
    with pytest.raises(ConfigError) as caught:
        read_layout(str(root))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("folders", [FOLDERS, RELEASE, HOSPITALS])
@pytest.mark.parametrize("mask", ["_segmentation", "_Segmentation", "_seg"])
@pytest.mark.parametrize("end", [".nii", ".nii.gz"])
def test_all_sites_in_their_order_under_any_name(tmp_path, folders, mask, end):
    for folder in folders:
        touch(tmp_path, f"{folder}/Case01{mask}{end}", f"{folder}/Case00{mask}{end}")
        touch(tmp_path, f"{folder}/Case01{end}", f"{folder}/Case00{end}")
    layout = read_layout(str(tmp_path))
    assert tuple(layout.cases) == SITES
    assert layout.notes == ()
    for site, folder in zip(SITES, folders, strict=True):
        for number, case in enumerate(layout.cases[site]):
            assert (case.site, case.name) == (site, f"Case0{number}")
            assert case.scan == tmp_path / folder / f"Case0{number}{end}"
            assert case.mask == tmp_path / folder / f"Case0{number}{mask}{end}"


@pytest.mark.parametrize(
    ("folder", "site"),
    [("isbi_1.5", "ISBI_1.5"), ("ISBI-15", "ISBI_1.5"), ("Runmc", "ISBI"), ("hk", "HK"), ("HCRUDB", "I2CVB")],
)
def test_case_and_punctuation_do_not_matter(folder, site):
    assert site_of(folder) == site


@pytest.mark.parametrize("folder", ["", "ISBI_3T", "UCLH", "data", "__MACOSX"])
def test_other_folders_are_no_site(folder):
    assert site_of(folder) is None


@pytest.mark.parametrize(
    ("one", "other", "site"), [("ISBI", "RUNMC", "ISBI"), ("BMC", "isbi_1.5", "ISBI_1.5")]
)
def test_a_site_under_two_names_is_refused(tmp_path, one, other, site):
    touch(tmp_path, f"{one}/Case00.nii.gz", f"{other}/Case00.nii.gz", "HK/Case00.nii.gz")
    assert error(tmp_path) == (
        f"data.directory = '{tmp_path}': {one} and {other} are both site {site}; keep one of the folders"
    )


def test_some_sites_are_enough(tmp_path):
    touch(
        tmp_path,
        "UCL/Case00.nii",
        "UCL/Case00_segmentation.nii",
        "HK/Case07.nii",
        "HK/Case07_segmentation.nii",
    )
    assert tuple(read_layout(str(tmp_path)).cases) == ("HK", "UCL")


def test_no_site(tmp_path):
    touch(tmp_path, "pelvis/a.nii.gz")
    assert error(tmp_path) == (
        f"data.directory = '{tmp_path}': holds no site's folder (BIDMC, HK, I2CVB, ISBI, ISBI_1.5, UCL); name the "
        "folder that holds them"
    )


def test_sites_one_level_deeper_are_pointed_to(tmp_path):
    touch(tmp_path, "Processed_data_nii/RUNMC/Case00.nii.gz")
    assert error(tmp_path).endswith(f"; did you mean '{tmp_path / 'Processed_data_nii'}'?")


def test_no_folder(tmp_path):
    missing = tmp_path / "none"
    assert error(missing) == (
        f"data.directory = '{missing}': cannot be read (No such file or directory); name the sites' folder, "
        "or write phantoms there with `fedunlearn data phantom`"
    )
    with pytest.raises(ConfigError, match=r"data\.directory is missing"):
        read_layout(None)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            ["Case00.nii.gz"],
            "Case00.nii.gz: has no segmentation: there is no Case00_segmentation.nii.gz or .nii; put it there",
        ),
        (
            ["Case00_Segmentation.nii"],
            "Case00_Segmentation.nii: has no scan: there is no Case00.nii.gz or .nii; put it there",
        ),
        (
            ["Case00.nii", "Case00.nii.gz", "Case00_segmentation.nii"],
            "Case00.nii: Case00.nii.gz is also the same case's scan; keep one of them",
        ),
        (
            ["Case00.nii", "Case00_Segmentation.nii", "Case00_segmentation.nii"],
            "Case00_Segmentation.nii: Case00_segmentation.nii is also the same case's segmentation; keep one of them",
        ),
    ],
)
def test_cases_that_are_not_two_files(tmp_path, files, message):
    touch(tmp_path, "HK/Case01.nii", "HK/Case01_segmentation.nii", *(f"HK/{name}" for name in files))
    bad, good = read_layout(str(tmp_path)).cases["HK"]
    assert isinstance(bad, BadCaseError)
    assert str(bad) == str(tmp_path / "HK") + "/" + message
    assert good.name == "Case01"


def test_what_is_no_volume_is_passed_over_and_volumes_elsewhere_are_told_of(tmp_path):
    touch(tmp_path, "HK/Case00.nii", "HK/Case00_segmentation.nii", "HK/._Case00.nii", "HK/notes.txt")
    touch(
        tmp_path, "__MACOSX/HK/._Case00.nii", ".hidden/Case00.nii", "Radboud/Case00.nii", "Radboud/Case01.nii"
    )
    layout = read_layout(str(tmp_path))
    assert [case.name for case in layout.cases["HK"]] == ["Case00"]
    assert layout.notes == (f"{tmp_path}/Radboud: is not one of the six sites; its 2 volumes are not used",)


def test_phantoms_say_that_they_are(tmp_path):
    touch(tmp_path, "HK/Case00.nii", "HK/Case00_segmentation.nii")
    assert read_layout(str(tmp_path)).origin == ""
    touch(tmp_path, "PHANTOM.json")
    assert read_layout(str(tmp_path)).origin == "phantom"
