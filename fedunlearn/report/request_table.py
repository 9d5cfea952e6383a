"""The forget requests of a run's ledger, for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime

from rich.box import SIMPLE_HEAD
from rich.table import Table

from fedunlearn.report import words
from fedunlearn.report.words import NAMED, NOTHING, few
from fedunlearn.requests import LIVE_BRANCH, AuditEntry, RequestRecord

NOT_FORGOTTEN = ("refused", "excluded", "failed")
"""Ends that whoever asked did not ask for."""


def request_table(requests: Mapping[str, Sequence[RequestRecord]]) -> Table:
    """Return one line per request.

    Parameters
    ----------
    requests
        By federation (branch), as the ledger orders them. Requests of a live federation came at a time, those of a
        simulation after a round.
    """
    live = set(requests) == {LIVE_BRANCH}
    table = Table(title="Forget requests", title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    if not live:
        table.add_column("federation", overflow="fold")
    # Whoever wants to look one up has to be able to copy its id.
    table.add_column("request", overflow="fold", no_wrap=live)
    table.add_column("clients", overflow="fold")
    if live:
        table.add_column("asked (UTC)", overflow="fold")
    else:
        table.add_column("asked after\nround", justify="right", overflow="fold")
    table.add_column("unlearned\nin round", justify="right", overflow="fold")
    table.add_column("state", no_wrap=True)
    table.add_column("ended\nin round", justify="right")
    for branch, records in requests.items():
        for record in records:
            ended, unlearned = _round(record.ended_round), _round(record.unlearned_round)
            clients = few(record.clients, NAMED) if not record.parts else whose(record)
            if live:
                row = [record.id, clients, _time(record.arrived_at)]
            else:
                row = [branch, record.id, clients, _round(record.at_round)]
            table.add_row(*row, unlearned, record.state, ended)
    return table


def whose(record: RequestRecord) -> str:
    """Return what a request for parts of clients' data names: ``50 % of the samples of client 3``."""
    return words.clients(record.clients, words.names_of(record.parts))


def reasons(requests: Iterable[RequestRecord], trail: Iterable[AuditEntry]) -> list[str]:
    """Return a line for each request that ended otherwise than anybody asked: who had asked for it, and why."""
    roles = {record.id: record.actor.partition(":")[0] for record in requests}
    return [
        f"{end.request_id} (asked by {roles[end.request_id] or 'unknown'}) {end.to_state}: "
        f"{end.detail or 'no reason given'}"
        for end in trail
        if end.to_state in NOT_FORGOTTEN
    ]


def _round(number: int | None) -> str:
    return NOTHING if number is None else str(number)


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")
