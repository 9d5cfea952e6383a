"""A partition given by hand: one list of row numbers per client, in a JSON file."""

import json
from typing import Any

import numpy as np

from fedunlearn import json_text
from fedunlearn.data.partition import Partition
from fedunlearn.data.partitioners import hand_out
from fedunlearn.data.source import Indices
from fedunlearn.errors import ConfigError, UserError
from fedunlearn.home import expanded
from fedunlearn.plurals import counted

SHOWN = 40
"""Characters of a value that is no row number."""


def from_file(
    num_clients: int, *, partition_file: str | None, source_rows: Indices, num_source_rows: int
) -> Partition:
    """One list of rows per client, from the JSON file data.partition-file: {"clients": [[0, 7, …], …]}.

    Rows are counted in the source's whole training split, so that one file serves every ``data.validation``
    and seed: rows held out for validation are then taken from the clients that list them. A row that no
    client lists is not trained on.

    Parameters
    ----------
    num_clients : int
        The lists there must be.
    partition_file : str or None
        Path, relative to the working directory.
    source_rows : ndarray
        int64, (n,): the place in the source's training split of each row that is dealt out. Sorted.
    num_source_rows : int
        Length of that split.

    Raises
    ------
    ConfigError
        A file that cannot be read, or says something twice; lists that are not row numbers, too few or too many
        lists, a row out of range, a row listed twice, or a client left without data.
    """
    setting = f"data.partition-file = {partition_file!r}"
    lists = _read(partition_file, setting)
    if len(lists) != num_clients:
        raise ConfigError(
            f"{setting}: lists {counted(len(lists), 'client')}, federation.num-clients is {num_clients}"
        )
    owners = [-1] * num_source_rows
    for client, rows in enumerate(lists):
        for row in _row_numbers(rows, client, num_source_rows, setting):
            if (other := owners[row]) >= 0:
                whose = "twice" if other == client else f"and so does client {other}"
                raise ConfigError(f"{setting}: client {client} lists row {row} {whose}; keep one of the two")
            owners[row] = client
    # Rows held out for validation have no owner from here on.
    dealt = np.array(owners, dtype=np.int64)[source_rows]
    return hand_out(
        dealt, num_clients, setting, "list rows outside the validation split, or lower data.validation"
    )


def _read(partition_file: str | None, setting: str) -> list[Any]:
    if partition_file is None:
        raise ConfigError(
            "data.partition-file is missing: data.partition = 'file' needs the path of a JSON file"
        )
    try:
        content = json_text.loads(expanded(partition_file).read_bytes(), partition_file)
    except OSError as error:
        raise ConfigError(f"{setting}: cannot be read ({error.strerror})") from error
    except UserError as error:
        raise ConfigError(f"{setting}: {str(error).removeprefix(f'{partition_file}: ')}") from error
    lists = content.get("clients") if isinstance(content, dict) else None
    if not isinstance(lists, list) or not all(isinstance(rows, list) for rows in lists):
        raise ConfigError(f'{setting}: must hold {{"clients": [[row, …], …]}}, one list per client')
    return lists


def _row_numbers(rows: list[Any], client: int, num_source_rows: int, setting: str) -> list[int]:
    for row in rows:
        # JSON's true and false are ints to Python.
        if not isinstance(row, int) or isinstance(row, bool):
            listed = json.dumps(row)
            listed = listed if len(listed) <= SHOWN else f"{listed[:SHOWN]}…"
            raise ConfigError(f"{setting}: client {client} lists {listed}; rows are whole numbers")
        if not 0 <= row < num_source_rows:
            raise ConfigError(
                f"{setting}: client {client} lists row {row}; rows are 0 to {num_source_rows - 1}"
            )
    return rows
