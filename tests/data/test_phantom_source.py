"""Phantoms without a directory: drawn once, read like files of the real layout."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from fedunlearn.data.phantom import write_phantoms
from fedunlearn.data.phantom.source import COARSEST, PhantomSettings, prostate_phantom
from fedunlearn.data.prostate import ProstateSettings, prostate_mri
from fedunlearn.errors import ConfigError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEDUNLEARN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_they_are_those_that_the_command_writes(tmp_path: Path) -> None:
    write_phantoms(tmp_path / "files", cases=3, size=COARSEST)
    written, asked_for = (
        prostate_mri(ProstateSettings(str(tmp_path / "files"), 32)),
        prostate_phantom(PhantomSettings(3, 32)),
    )
    assert torch.equal(asked_for.planes, written.planes)
    assert torch.equal(asked_for.masks, written.masks)
    assert asked_for.origin == written.origin == "phantom"
    assert len(asked_for.site_names) == 6


def test_they_are_written_once(cache: Path) -> None:
    prostate_phantom(PhantomSettings(3, 32))
    (folder,) = (cache / "phantoms").iterdir()
    changed = (folder / "PHANTOM.json").stat().st_mtime_ns
    prostate_phantom(PhantomSettings(3, 48))  # of the same matrix
    assert [folder] == list((cache / "phantoms").iterdir())
    assert (folder / "PHANTOM.json").stat().st_mtime_ns == changed


def test_what_was_interrupted_is_not_taken_for_a_set(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(folder: Path, **_: int) -> None:
        (folder / "BIDMC").mkdir()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("fedunlearn.data.phantom.writer.write_phantoms", interrupted)
        prostate_phantom(PhantomSettings(3, 32))
    assert list((cache / "phantoms").iterdir()) == []
    assert len(prostate_phantom(PhantomSettings(3, 32)).site_names) == 6


def cut_off(folder: Path) -> None:
    path = folder / "HK" / "Case00.nii.gz"
    path.write_bytes(path.read_bytes()[:200])


def without_a_mask(folder: Path) -> None:
    (folder / "HK" / "Case00_segmentation.nii.gz").unlink()


def without_a_case(folder: Path) -> None:
    for path in (folder / "UCL").glob("Case00*"):
        path.unlink()


def without_a_site(folder: Path) -> None:
    shutil.rmtree(folder / "I2CVB")


def without_its_notice(folder: Path) -> None:
    (folder / "PHANTOM.json").unlink()


def a_file(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.write_text("no folder")


@pytest.mark.slow
@pytest.mark.parametrize(
    "damage", [cut_off, without_a_mask, without_a_case, without_a_site, without_its_notice, a_file]
)
def test_a_kept_set_that_is_damaged_is_made_again(cache: Path, damage: Callable[[Path], None]) -> None:
    first = prostate_phantom(PhantomSettings(3, 32))
    (folder,) = (cache / "phantoms").iterdir()
    files = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    damage(folder)
    again = prostate_phantom(PhantomSettings(3, 32))
    assert torch.equal(again.planes, first.planes) and torch.equal(again.masks, first.masks)
    assert again.origin == "phantom" and again.notes == ()
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == files
    assert [folder] == list((cache / "phantoms").iterdir())


def test_without_a_place_for_them_there_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("FEDUNLEARN_CACHE", str(tmp_path / "file"))
    with pytest.raises(
        ConfigError, match=r"phantoms cannot be kept there \(Not a directory\); set FEDUNLEARN_CACHE"
    ):
        prostate_phantom(PhantomSettings(3, 32))
