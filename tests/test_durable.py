"""Files are there whole or not at all, and belong to whom they should from the first instant on."""

import os
import stat
from pathlib import Path

import pytest

from fedunlearn import durable
from fedunlearn.durable import write_durably


@pytest.mark.parametrize("fails", ["write", "fsync", "replace"])
def test_a_write_that_fails_leaves_the_old_content(fails, tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_durably(path, b"old")

    def full(*_):
        raise OSError(28, "No space left on device")

    class Full:
        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def write(self, content):
            self.file.write(content[:1])
            full()

    if fails == "fsync":
        monkeypatch.setattr(os, "fsync", full)
    elif fails == "replace":
        monkeypatch.setattr(Path, "replace", full)
    else:
        opened = os.fdopen
        monkeypatch.setattr(os, "fdopen", lambda descriptor, mode: Full(opened(descriptor, mode)))
    with pytest.raises(OSError, match="No space"):
        write_durably(path, b"new content")
    monkeypatch.undo()
    assert path.read_bytes() == b"old"
    write_durably(path, b"new content")
    assert path.read_bytes() == b"new content"
    assert list(tmp_path.iterdir()) == [path]


def test_content_is_on_the_disk_before_the_name_points_to_it_and_the_name_before_it_returns(
    tmp_path, monkeypatch
):
    happened = []
    fsync, replace = os.fsync, Path.replace

    def recorded(descriptor):
        kind = "folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "content"  # noqa: PTH112
        happened.append(kind)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", recorded)
    monkeypatch.setattr(Path, "replace", lambda *paths: (happened.append("name"), replace(*paths)))
    write_durably(tmp_path / "file", b"content")
    assert happened == ["content", "name", "folder"]


def test_the_mode_is_there_from_the_beginning_and_new_is_new(tmp_path, monkeypatch):
    path = tmp_path / "secret"
    seen = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda d: (seen.append(stat.S_IMODE(os.fstat(d).st_mode)), fsync(d)))
    durable.write_synced(path, b"s", mode=0o600, new=True)
    assert seen == [0o600] and path.read_bytes() == b"s"
    with pytest.raises(FileExistsError):
        durable.write_synced(path, b"t", mode=0o600, new=True)
    assert path.read_bytes() == b"s"
