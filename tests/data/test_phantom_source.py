"""Phantoms without a directory: drawn once, read like files of the real layout."""

from pathlib import Path

import pytest
import torch

from fedunlearn.data.phantom import write_phantoms
from fedunlearn.data.phantom.source import COARSEST, prostate_phantom
from fedunlearn.data.prostate import prostate_mri


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FEDUNLEARN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_they_are_those_that_the_command_writes(tmp_path: Path) -> None:
    write_phantoms(tmp_path / "files", cases=3, size=COARSEST)
    written, asked_for = prostate_mri(str(tmp_path / "files"), 32, "refuse"), prostate_phantom(3, 32)
    assert torch.equal(asked_for.planes, written.planes)
    assert torch.equal(asked_for.masks, written.masks)
    assert asked_for.origin == written.origin == "phantom"
    assert len(asked_for.site_names) == 6


def test_they_are_written_once(cache: Path) -> None:
    prostate_phantom(3, 32)
    (folder,) = (cache / "phantoms").iterdir()
    changed = (folder / "PHANTOM.json").stat().st_mtime_ns
    prostate_phantom(3, 48)  # of the same matrix
    assert [folder] == list((cache / "phantoms").iterdir())
    assert (folder / "PHANTOM.json").stat().st_mtime_ns == changed


def test_what_was_interrupted_is_not_taken_for_a_set(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(folder: Path, **_: int) -> None:
        (folder / "BIDMC").mkdir()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("fedunlearn.data.phantom.writer.write_phantoms", interrupted)
        prostate_phantom(3, 32)
    assert list((cache / "phantoms").iterdir()) == []
    assert len(prostate_phantom(3, 32).site_names) == 6
