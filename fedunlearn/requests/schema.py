"""The ledger's tables. `create` runs inside the caller's transaction: a file has all of them or none."""

import json

from fedunlearn.requests.trail import Run
from fedunlearn.requests.transitions import ENDS

SCHEMA_VERSION = 4

STILL_OPEN, APPLIED, OVER = range(3)
"""How a request stands for a client it names: nothing decided, forgotten with it, ended with nothing unlearned."""

# `named` leads from a client to the requests that name it, the open ones, the applied ones and the rest apart: asking
# costs the same with a thousand requests as with one. Of `audit`, AUTOINCREMENT: the number of a deleted entry is
# never given out again. A row of `leases` is rewritten all the time, who ever held one stays in `servers`.
_TABLES = """
CREATE TABLE requests (
    branch TEXT NOT NULL,
    id TEXT NOT NULL,
    clients TEXT NOT NULL,
    at_round INTEGER,
    source TEXT NOT NULL,
    arrival INTEGER NOT NULL,
    state TEXT NOT NULL,
    state_round INTEGER,
    unlearned_round INTEGER,
    ended_round INTEGER,
    arrived_at REAL NOT NULL,
    actor TEXT NOT NULL,
    same_as TEXT,
    PRIMARY KEY (branch, id)
) WITHOUT ROWID;
CREATE INDEX requests_by_arrival ON requests (branch, arrival);
CREATE INDEX requests_by_state ON requests (branch, state, arrival);
CREATE INDEX requests_by_actor ON requests (branch, actor, state, arrived_at);
CREATE TABLE named (
    branch TEXT NOT NULL,
    client INTEGER NOT NULL,
    standing INTEGER NOT NULL,
    arrival INTEGER NOT NULL,
    id TEXT NOT NULL,
    PRIMARY KEY (branch, client, standing, arrival)
) WITHOUT ROWID;
CREATE TABLE parts (
    branch TEXT NOT NULL,
    number INTEGER NOT NULL,
    client INTEGER NOT NULL,
    what TEXT NOT NULL,
    PRIMARY KEY (branch, number)
) WITHOUT ROWID;
CREATE INDEX parts_of_client ON parts (branch, client, what);
CREATE TABLE keys (
    branch TEXT NOT NULL,
    actor TEXT NOT NULL,
    key_hash TEXT NOT NULL,
    id TEXT NOT NULL,
    PRIMARY KEY (branch, actor, key_hash)
) WITHOUT ROWID;
CREATE TABLE plans (
    branch TEXT NOT NULL,
    round INTEGER NOT NULL,
    plan TEXT NOT NULL,
    failed TEXT,
    PRIMARY KEY (branch, round)
) WITHOUT ROWID;
CREATE TABLE audit (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    branch TEXT NOT NULL,
    entry INTEGER NOT NULL,
    request_id TEXT NOT NULL,
    from_state TEXT,
    to_state TEXT NOT NULL,
    round INTEGER,
    at REAL NOT NULL,
    clients TEXT,
    detail TEXT NOT NULL,
    hash TEXT NOT NULL,
    asked TEXT
);
CREATE UNIQUE INDEX audit_of_branch ON audit (branch, entry);
CREATE INDEX audit_of_request ON audit (branch, request_id, to_state, round);
CREATE TABLE heads (
    branch TEXT NOT NULL,
    entry INTEGER NOT NULL,
    key_id TEXT NOT NULL,
    hash TEXT NOT NULL,
    at REAL NOT NULL,
    signature TEXT NOT NULL,
    PRIMARY KEY (branch, entry, key_id)
) WITHOUT ROWID;
CREATE TABLE seals (
    branch TEXT NOT NULL,
    round INTEGER NOT NULL,
    document TEXT NOT NULL,
    key_id TEXT,
    signature TEXT,
    PRIMARY KEY (branch, round)
) WITHOUT ROWID;
CREATE TABLE leases (
    branch TEXT NOT NULL PRIMARY KEY,
    token INTEGER NOT NULL,
    holder TEXT NOT NULL,
    taken_at REAL NOT NULL,
    renewed_at REAL NOT NULL,
    seconds REAL NOT NULL,
    process TEXT NOT NULL
) WITHOUT ROWID;
CREATE TABLE servers (
    branch TEXT NOT NULL,
    token INTEGER NOT NULL,
    holder TEXT NOT NULL,
    taken_at REAL NOT NULL,
    PRIMARY KEY (branch, token)
) WITHOUT ROWID;
CREATE TABLE measures (
    branch TEXT NOT NULL,
    request_id TEXT NOT NULL,
    stage TEXT NOT NULL,
    document TEXT NOT NULL,
    PRIMARY KEY (branch, request_id, stage)
) WITHOUT ROWID;
"""


def create(run: Run) -> None:
    """Make all tables in an empty file."""
    _run_all(run, _TABLES)
    run(f"PRAGMA user_version = {SCHEMA_VERSION}")


def index_clients(run: Run, branch: str) -> None:
    """Fill `named` for a branch from the requests that were put there as they are."""
    run(
        "INSERT INTO named (branch, client, standing, arrival, id) "
        "SELECT r.branch, value, CASE WHEN unlearned_round IS NOT NULL THEN ? "
        "WHEN state IN (SELECT value FROM json_each(?)) THEN ? ELSE ? END, arrival, r.id "
        "FROM requests AS r, json_each(r.clients) WHERE r.branch = ?",
        *(APPLIED, json.dumps(sorted(ENDS)), OVER, STILL_OPEN, branch),
    )


def _run_all(run: Run, script: str) -> None:
    for statement in script.split(";"):
        if statement.strip():
            run(statement)
