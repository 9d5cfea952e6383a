"""A ledger's file is of this version, or is left alone."""

import sqlite3
from pathlib import Path

import pytest

from fedunlearn.requests import Ledger, LedgerError
from fedunlearn.requests.schema import SCHEMA_VERSION


@pytest.mark.parametrize("version", [1, SCHEMA_VERSION - 1, SCHEMA_VERSION + 1])
def test_a_file_of_another_version_is_refused_and_stays_as_it_was(tmp_path: Path, version: int) -> None:
    place = tmp_path / "requests.sqlite"
    connection = sqlite3.connect(place)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE requests (id TEXT)")
    connection.execute(f"PRAGMA user_version = {version}")
    connection.commit()
    before = list(connection.iterdump())
    says = f"ledger version {version}; this fedunlearn reads version {SCHEMA_VERSION}"
    with pytest.raises(LedgerError, match=says):
        Ledger(place)
    assert list(connection.iterdump()) == before
    assert connection.execute("PRAGMA user_version").fetchone() == (version,)
    connection.close()
