"""Arrays on disk: whole or missing, whatever happens to the file or to whoever writes it."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from fedunlearn.data import array_cache
from fedunlearn.data.array_cache import ArrayCache, arrays_folder

KEY = "ab" * 32
ARRAYS = {
    "planes": np.arange(24, dtype=np.uint8).reshape(2, 3, 4),
    "rows": np.array([[5, -6, 2**40]]),
    "spacing": np.array([0.5, 0.25], np.float32),
    "none": np.empty((0, 3), np.int64),
}


@pytest.fixture
def cache(tmp_path):
    return ArrayCache(tmp_path / "arrays")


def test_what_is_stored_is_loaded(cache):
    assert cache.load(KEY) is None
    cache.store(KEY, ARRAYS)
    loaded = cache.load(KEY)
    assert set(loaded) == set(ARRAYS)
    for name, array in ARRAYS.items():
        assert loaded[name].dtype == array.dtype
        assert np.array_equal(loaded[name], array)
    assert cache.load("cd" * 32) is None


@pytest.mark.parametrize("at", range(0, 600, 23))
def test_any_damaged_byte_makes_an_entry_missing(cache, at):
    cache.store(KEY, ARRAYS)
    content = bytearray(cache.path(KEY).read_bytes())
    content[at % len(content)] ^= 1
    cache.path(KEY).write_bytes(content)
    assert cache.load(KEY) is None


@pytest.mark.parametrize("length", [0, 10, 32, 40, -1])
def test_a_shortened_entry_is_missing_and_can_be_stored_again(cache, length):
    cache.store(KEY, ARRAYS)
    path = cache.path(KEY)
    path.write_bytes(path.read_bytes()[:length])
    assert cache.load(KEY) is None
    cache.store(KEY, ARRAYS)
    assert cache.load(KEY) is not None


def test_a_writer_that_fails_leaves_nothing_behind(cache, monkeypatch):
    def full(content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(array_cache, "_checksum", full)
    with pytest.raises(OSError, match="No space"):
        cache.store(KEY, ARRAYS)
    assert [path for path in cache.folder.rglob("*") if path.is_file()] == []


def test_many_writers_of_one_entry(cache):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: cache.store(KEY, ARRAYS), range(20)))
    assert [path.name for path in cache.folder.rglob("*") if path.is_file()] == [f"{KEY}.arrays"]
    assert np.array_equal(cache.load(KEY)["planes"], ARRAYS["planes"])


@pytest.mark.parametrize(
    ("given", "users", "expected"),
    [
        ("/fast/disk", "/users/cache", "/fast/disk/arrays"),
        ("", "/users/cache", "/users/cache/fedunlearn/arrays"),
        ("", "", "HOME/.cache/fedunlearn/arrays"),
        ("", "relative", "HOME/.cache/fedunlearn/arrays"),
    ],
)
def test_where_arrays_are_kept(tmp_path, monkeypatch, given, users, expected):
    monkeypatch.setenv("FEDUNLEARN_CACHE", given)
    monkeypatch.setenv("XDG_CACHE_HOME", users)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert arrays_folder() == Path(expected.replace("HOME", str(tmp_path)))
