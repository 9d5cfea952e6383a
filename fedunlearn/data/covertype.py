"""Covertype: 581 012 pieces of forest in 54 columns, seven kinds of trees; read from a folder that the user fills.

Nothing is downloaded. The formats are scikit-learn's: the archive that ``sklearn.datasets.fetch_covtype`` fetches,
and the files that it keeps.
"""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fedunlearn.errors import UserError
from fedunlearn.home import expanded

ARCHIVES = ("covtype.data.gz", "covtype.data")
"""Text: a line per row, 54 numbers and the class, with commas between them and no heading."""
FEATURES = 54
"""Ten measurements, and which of 4 areas and 40 soils: 0 or 1 each."""
MEASUREMENTS = 10
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
        inputs, labels = fetch_covtype(data_home=str(root), download_if_missing=False, return_X_y=True)
    except Exception as error:  # a pickle can fail in any way
        raise UserError(
            f"{root}: holds neither {' nor '.join(ARCHIVES)} nor scikit-learn's covertype/samples_py3 and "
            f"targets_py3 that can be read ({error}); put the archive of the data set there"
        ) from error
    return _checked(np.column_stack([inputs, labels]), root / "covertype")


def _rows(file: Path) -> npt.NDArray[Any]:
    """Return the numbers of an archive, (n, 55)."""
    try:
        with (
            gzip.open(file, "rt", encoding="utf-8")
            if file.suffix == ".gz"
            else file.open(encoding="utf-8") as lines
        ):
            return np.loadtxt(lines, delimiter=",", ndmin=2)
    except (OSError, EOFError, ValueError) as error:
        raise UserError(f"{file}: is no Covertype archive ({error})") from error


def _checked(rows: npt.NDArray[Any], source: Path) -> Table:
    if rows.shape[1] != FEATURES + 1 or len(rows) == 0:
        raise UserError(
            f"{source}: holds {rows.shape[0]} rows of {rows.shape[1]} columns, must be some of 55"
        )
    inputs, labels = rows[:, :FEATURES].astype(np.float64), rows[:, FEATURES].astype(np.int64)
    if not np.isin(rows[:, FEATURES], range(1, len(CLASS_NAMES) + 1)).all():
        raise UserError(f"{source}: column 55 is the class, and must be 1 to {len(CLASS_NAMES)}")
    if not np.isin(inputs[:, MEASUREMENTS:], (0, 1)).all():
        raise UserError(f"{source}: columns 11 to 54 say which area and soil, and must be 0 or 1")
    return Table(inputs, labels - 1)
