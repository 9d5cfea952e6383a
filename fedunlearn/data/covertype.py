"""Covertype: 581 012 pieces of forest in 54 columns, seven kinds of trees; read from a folder that the user fills.

Nothing is downloaded. The formats are scikit-learn's: the archive that ``sklearn.datasets.fetch_covtype`` fetches,
and the files that it keeps.
"""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fedunlearn.errors import UserError
from fedunlearn.home import expanded
from fedunlearn.plurals import counted

ARCHIVES = ("covtype.data.gz", "covtype.data")
"""Text: a line per row, 54 numbers and the class, with commas between them and no heading."""
GZIP = b"\x1f\x8b"
FEATURES = 54
"""Ten measurements, and which of 4 areas and 40 soils: 0 or 1 each."""
MEASUREMENTS = 10
GROUPS = {"areas": slice(MEASUREMENTS, 14), "soils": slice(14, FEATURES)}
"""Columns of which one is 1 in every row."""
ROWS = 581_012
"""Of the whole data set; nobody has more."""
CLASS_NAMES = (
    "Spruce/Fir",
    "Lodgepole Pine",
    "Ponderosa Pine",
    "Cottonwood/Willow",
    "Aspen",
    "Douglas-fir",
    "Krummholz",
)


class Table(NamedTuple):
    """Rows of numbers and their classes.

    Attributes
    ----------
    inputs : ndarray of float64, shape (n, features)
    labels : ndarray of int64, shape (n,)
        From 0.
    """

    inputs: npt.NDArray[np.float64]
    labels: npt.NDArray[np.int64]

    @property
    def size(self) -> int:
        """Number of rows; ``len`` is that of the pair."""
        return len(self.labels)

    def select(self, rows: npt.NDArray[Any]) -> Table:
        """Return some of them: by number, or by a bool each."""
        return Table(self.inputs[rows], self.labels[rows])


def covertype(directory: str | Path) -> Table:
    """Read Covertype; class k of the file, 1 to 7, is label k − 1.

    Parameters
    ----------
    directory
        Holds ``covtype.data.gz`` or ``covtype.data``, itself or in its folder ``covertype``; or is a data folder of
        scikit-learn, with ``covertype/samples_py3`` and ``covertype/targets_py3``. Those two are pickles, which can
        run anything: only from a folder that you trust. The archive is preferred where both are there.

    Raises
    ------
    UserError
        No such file is there, or one is not what its name says.
    """
    root = expanded(directory)
    for folder in (root, root / "covertype"):
        for name in ARCHIVES:
            if (folder / name).is_file():
                return _checked(_rows(folder / name), folder / name)
    from sklearn.datasets import fetch_covtype  # lazily: the library imports without it

    try:
        rows = np.column_stack(fetch_covtype(data_home=str(root), download_if_missing=False, return_X_y=True))
        rows = rows.astype(np.float64)
    except Exception as error:  # a pickle can fail in any way
        raise UserError(
            f"{root}: holds neither {' nor '.join(ARCHIVES)} nor scikit-learn's covertype/samples_py3 and "
            f"targets_py3 that can be read ({error}); put the data set's archive there"
        ) from error
    return _checked(rows, root / "covertype")


def _rows(file: Path) -> npt.NDArray[Any]:
    """Return the numbers of an archive, (n, 55)."""
    try:
        packed = file.read_bytes()
        content = gzip.decompress(packed) if packed.startswith(GZIP) else packed
        if not content.strip():
            raise ValueError("it is empty")
        return np.loadtxt(content.decode("ascii").splitlines(), delimiter=",", ndmin=2, comments=None)
    except (OSError, EOFError, ValueError, zlib.error) as error:
        reason = " ".join(str(error).split())[:160]
        raise UserError(f"{file}: is not a Covertype archive ({reason}); put the original there") from error


def _checked(rows: npt.NDArray[Any], source: Path) -> Table:
    if rows.shape[1] != FEATURES + 1 or len(rows) == 0:
        raise UserError(
            f"{source}: holds {counted(rows.shape[0], 'row')} of {rows.shape[1]} columns, must be rows of 55"
        )
    if len(rows) > ROWS:
        raise UserError(f"{source}: holds {len(rows)} rows, but Covertype has {ROWS}; some are duplicated")
    if broken := int(np.count_nonzero(~np.isfinite(rows))):
        what = counted(broken, "value that is not a finite number", "values that are not finite numbers")
        raise UserError(f"{source}: holds {what}")
    if not np.isin(rows[:, FEATURES], range(1, len(CLASS_NAMES) + 1)).all():
        raise UserError(f"{source}: column 55 is the class, and must be 1 to {len(CLASS_NAMES)}")
    inputs, labels = rows[:, :FEATURES].astype(np.float64), rows[:, FEATURES].astype(np.int64)
    if not np.isin(inputs[:, MEASUREMENTS:], (0, 1)).all():
        raise UserError(f"{source}: columns 11 to 54 give area and soil, and must be 0 or 1")
    for name, columns in GROUPS.items():
        if wrong := int(np.count_nonzero(inputs[:, columns].sum(axis=1) != 1)):
            where, rows_are = (
                f"columns {columns.start + 1} to {columns.stop}",
                counted(wrong, "row is", "rows are"),
            )
            raise UserError(f"{source}: {rows_are} of none or several {name} ({where}); each must have one")
    return Table(inputs, labels - 1)
