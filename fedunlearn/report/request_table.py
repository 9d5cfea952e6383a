"""The forget requests of a run's ledger, for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.box import SIMPLE_HEAD
from rich.table import Table

from fedunlearn.report.words import NAMED, few
from fedunlearn.requests import RequestRecord


def request_table(requests: Mapping[str, Sequence[RequestRecord]]) -> Table:
    """Return one line per request.

    Parameters
    ----------
    requests
        By federation (branch), as the ledger orders them.
    """
    table = Table(title="Forget requests", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for heading in ("federation", "request", "clients", "asked after\nround", "unlearned\nin round"):
        table.add_column(heading, justify="right" if "round" in heading else "left", overflow="fold")
    table.add_column("state", no_wrap=True)
    table.add_column("ended\nin round", justify="right")
    for branch, records in requests.items():
        for record in records:
            table.add_row(
                branch,
                record.id,
                few(record.clients, NAMED),
                _round(record.at_round),
                _round(record.unlearned_round),
                record.state,
                _round(record.ended_round),
            )
    return table


def _round(number: int | None) -> str:
    return "–" if number is None else str(number)
