"""Covertype is read from what scikit-learn fetches and keeps."""

import gzip

import joblib
import numpy as np
import pytest
from sklearn.datasets import fetch_covtype
from sklearn.datasets._base import _pkl_filepath

from fedunlearn.data import covertype as module
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
    with pytest.raises(UserError, match=r"covtype\.data\.gz: is not a Covertype archive"):
        covertype(tmp_path / "cut")
    for name, text, message in (
        ("words", "elevation,aspect\n" + lines, "is not a Covertype archive"),
        ("columns", "1,2,3\n4,5,6\n", "holds 2 rows of 3 columns, must be rows of 55"),
        ("classes", lines_of(ROWS + np.eye(55)[54] * 7), "column 55 is the class, and must be 1 to 7"),
        ("soils", lines_of(ROWS + np.eye(55)[53] * 2), "columns 11 to 54 .* must be 0 or 1"),
    ):
        with pytest.raises(UserError, match=message):
            covertype(archive(tmp_path / name, text))
    home = kept(tmp_path / "pickle")
    (home / "covertype" / "targets_py3").write_bytes(b"no pickle")
    with pytest.raises(UserError, match="that can be read"):
        covertype(home)


def changed(row, column, value):
    rows = ROWS.astype(object)
    rows[row, column] = value
    return "".join(",".join(map(str, line)) + "\n" for line in rows)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (changed(3, 0, "nan"), "holds 1 value that is not a finite number"),
        (changed(3, 5, "inf"), "holds 1 value that is not a finite number"),
        (changed(3, 54, "nan"), "holds 1 value that is not a finite number"),
        (changed(3, 54, "1.5"), "column 55 is the class, and must be 1 to 7"),
        (
            changed(3, slice(10, 14), 0),
            "1 row is of none or several areas (columns 11 to 14); each must have one",
        ),
        (
            changed(3, slice(14, 54), 1),
            "1 row is of none or several soils (columns 15 to 54); each must have one",
        ),
        (changed(3, 0, "# a remark"), "is not a Covertype archive (could not convert string"),
        (lines_of(ROWS)[:-3], "is not a Covertype archive ("),  # the last line is cut off
        ("", "is not a Covertype archive (it is empty)"),
        (" \n\n", "is not a Covertype archive (it is empty)"),
        ("elevatión\n", "is not a Covertype archive ('ascii' codec"),
    ],
)
@pytest.mark.parametrize("name", ["covtype.data", "covtype.data.gz"])
def test_values_that_no_row_has_are_refused_in_one_line(tmp_path, name, text, message, recwarn):
    with pytest.raises(UserError) as caught:
        covertype(archive(tmp_path, text, name))
    assert f"{tmp_path / name}: {message}" in str(caught.value)
    assert "\n" not in str(caught.value) and not list(recwarn)


def test_any_damage_to_the_packed_archive_is_one_line(tmp_path):
    packed = archive(tmp_path) / "covtype.data.gz"
    whole = packed.read_bytes()
    for at in np.random.default_rng(0).integers(0, len(whole), 60).tolist():
        damaged = bytearray(whole)
        damaged[at] ^= 0x10
        packed.write_bytes(damaged)
        try:
            same(covertype(tmp_path))  # a time stamp or a name in gzip's header
            assert at < 20
        except UserError as error:
            assert str(error).startswith(f"{packed}: ") and "\n" not in str(error)


def test_rows_that_are_there_twice_are_more_than_there_are(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ROWS", len(ROWS))
    same(covertype(archive(tmp_path / "once")))
    with pytest.raises(UserError, match="holds 80 rows, but Covertype has 40; some are duplicated"):
        covertype(archive(tmp_path / "twice", 2 * lines_of(ROWS)))


def test_kept_halves_that_do_not_belong_together_are_refused(tmp_path):
    home = kept(tmp_path)
    joblib.dump(ROWS[:-3, -1].astype(np.int32), home / "covertype" / "targets_py3", compress=9)
    with pytest.raises(UserError, match="that can be read"):
        covertype(home)


def test_a_home_of_nobody_is_named():
    with pytest.raises(UserError, match="there is no home folder for ~nosuchuser;"):
        covertype("~nosuchuser/data")
