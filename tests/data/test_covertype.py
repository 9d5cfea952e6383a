"""Covertype is read from what scikit-learn fetches and keeps."""

import gzip

import joblib
import numpy as np
import pytest
from sklearn.datasets import fetch_covtype
from sklearn.datasets._base import _pkl_filepath

from fedunlearn.data.covertype import CLASS_NAMES, covertype
from fedunlearn.errors import UserError
from tests.data.covertype_file import lines_of, rows_of

ROWS = rows_of(40, seed=1)


def archive(folder, text=None, name="covtype.data.gz"):
    folder.mkdir(parents=True, exist_ok=True)
    text = lines_of(ROWS) if text is None else text
    if name.endswith(".gz"):
        (folder / name).write_bytes(gzip.compress(text.encode()))
    else:
        (folder / name).write_text(text)
    return folder


def kept(home, rows=ROWS):
    """Keep rows as ``fetch_covtype`` does, in float64 and int32."""
    folder = home / "covertype"
    folder.mkdir(parents=True)
    joblib.dump(rows[:, :-1].astype(np.float64), _pkl_filepath(str(folder), "samples"), compress=9)
    joblib.dump(rows[:, -1].astype(np.int32), _pkl_filepath(str(folder), "targets"), compress=9)
    return home


def same(table):
    assert table.inputs.dtype == np.float64 and table.labels.dtype == np.int64
    np.testing.assert_array_equal(table.inputs, ROWS[:, :-1])
    np.testing.assert_array_equal(table.labels, ROWS[:, -1] - 1)
    assert table.size == len(ROWS)


@pytest.mark.parametrize("inside", [".", "covertype"])
@pytest.mark.parametrize("name", ["covtype.data.gz", "covtype.data"])
def test_the_archive_is_read(tmp_path, inside, name):
    archive(tmp_path / inside, name=name)
    same(covertype(tmp_path))
    same(covertype(str(tmp_path)))


def test_what_scikit_learn_keeps_is_read_as_scikit_learn_reads_it(tmp_path):
    home = kept(tmp_path)
    same(covertype(home))
    inputs, labels = fetch_covtype(data_home=str(home), download_if_missing=False, return_X_y=True)
    found = covertype(home)
    np.testing.assert_array_equal(found.inputs, inputs)
    np.testing.assert_array_equal(found.labels, labels - 1)


def test_archive_and_what_is_kept_of_it_are_the_same(tmp_path):
    """The archive goes through the line of ``fetch_covtype`` that reads it."""
    packed = archive(tmp_path / "a") / "covtype.data.gz"
    table = np.genfromtxt(gzip.GzipFile(filename=packed), delimiter=",")
    home = kept(tmp_path / "b", table)
    one, other = covertype(tmp_path / "a"), covertype(home)
    np.testing.assert_array_equal(one.inputs, other.inputs)
    np.testing.assert_array_equal(one.labels, other.labels)


def test_the_archive_goes_first(tmp_path):
    kept(tmp_path, ROWS[:5])
    archive(tmp_path)
    same(covertype(tmp_path))


def test_some_rows(tmp_path):
    table = covertype(archive(tmp_path))
    chosen = table.select(table.labels == 2)
    assert chosen.size == (ROWS[:, -1] == 3).sum() and set(chosen.labels) <= {2}
    assert len(CLASS_NAMES) == 7


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(
        UserError, match=r"holds neither covtype\.data\.gz nor covtype\.data nor scikit-learn's"
    ):
        covertype(tmp_path)


def test_damaged_files_are_refused_by_name(tmp_path):
    lines = lines_of(ROWS)
    packed = archive(tmp_path / "cut") / "covtype.data.gz"
    packed.write_bytes(packed.read_bytes()[:-40])
    with pytest.raises(UserError, match=r"covtype\.data\.gz: is no Covertype archive"):
        covertype(tmp_path / "cut")
    for name, text, message in (
        ("words", "elevation,aspect\n" + lines, "is no Covertype archive"),
        ("columns", "1,2,3\n4,5,6\n", "holds 2 rows of 3 columns, must be some of 55"),
        ("classes", lines_of(ROWS + np.eye(55)[54] * 7), "column 55 is the class, and must be 1 to 7"),
        ("soils", lines_of(ROWS + np.eye(55)[53] * 2), "columns 11 to 54 .* must be 0 or 1"),
    ):
        with pytest.raises(UserError, match=message):
            covertype(archive(tmp_path / name, text))
    home = kept(tmp_path / "pickle")
    (home / "covertype" / "targets_py3").write_bytes(b"no pickle")
    with pytest.raises(UserError, match="that can be read"):
        covertype(home)
