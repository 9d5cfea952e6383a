"""Each file, field, column and row of a live run is changed in turn: `verify` finds it, or says it does not look.

What is changed is generated from what lies there: a column, table, file or field that is added is tried as well.
"""

import json
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from fedunlearn.certificates import certificate
from fedunlearn.certificates.keys import new_key
from fedunlearn.certificates.signing import CERTIFICATE, sign
from fedunlearn.certificates.verification import Finding, verify
from fedunlearn.errors import RunError, UserError
from fedunlearn.requests.chain import Head
from fedunlearn.requests.ledger import Ledger
from tests.certificates.eventful_run import eventful_run
from tests.certificates.live_run import BRANCH, KEY, REMEMBERING, LiveRun
from tests.certificates.test_verification import paths_to_leaves

Verify = partial[list[Finding]]


@pytest.fixture(scope="module", params=["purge"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> LiveRun:
    folder = tmp_path_factory.mktemp(request.param) / "run"
    return eventful_run(folder, f"retention.earlier={request.param}", REMEMBERING)


under_both_policies = pytest.mark.parametrize(
    "run", ["purge", pytest.param("quarantine", marks=pytest.mark.slow)], indirect=True
)


@pytest.fixture(scope="module")
def head(run: LiveRun) -> Head:
    with Ledger(run.folder / "requests.sqlite", read_only=True) as ledger:
        head = ledger.head(BRANCH)
    assert head is not None
    return head


def by(run: LiveRun, head: Head, knows: str) -> Verify:
    """Return the check by somebody who knows so much."""
    public_keys = [KEY.public] if knows in ("key", "key and head") else []
    heads = [head] if knows in ("head", "key and head") else []
    return partial(verify, run.folder, public_keys=public_keys, heads=heads)


@pytest.fixture(params=["key", "head"])
def mode(request: pytest.FixtureRequest, run: LiveRun, head: Head) -> Verify:
    """Somebody who knows the key; or who has only a receipt."""
    return by(run, head, request.param)


@pytest.fixture(autouse=True)
def put_back(run: LiveRun) -> Iterator[None]:
    before = contents(run.folder)
    yield
    after = contents(run.folder)
    for path in after.keys() - before.keys():
        path.unlink()
    for path, content in before.items():
        if after.get(path) != content:
            path.write_bytes(content)
    assert after == before, "a test that failed leaves what it changed"


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def bad(findings: list[Finding]) -> list[str]:
    for finding in findings:
        assert "\n" not in finding.text and "Error(" not in finding.text, finding.text
    return [finding.text for finding in findings if finding.holds is False]


def listed(findings: list[Finding]) -> list[str]:
    return [finding.text for finding in findings if finding.text.startswith("not covered: ")]


def missed(check: Verify, path: Path) -> bool:
    """Whether a line says that this file is not there, which alone proves nothing.

    What was moved to quarantine, the readable copy of the newest checkpoint (after a crash there may be none), an
    old checkpoint that no certificate names, and without a key a certificate.
    """
    name = path.stem
    lines = [finding.text for finding in check() if finding.holds is None]
    return any(
        line.startswith(f"checkpoint {name}.safetensors: there is no readable copy")
        or (path.suffix == ".safetensors" and f"that of round {int(name[-4:])} is gone, although" in line)
        or (line.startswith("quarantine: ") and path.name in line)
        or (line.startswith("quarantine: ") and f"{path.parent.parent.name}/ (1 file) was moved" in line)
        or (line.startswith(f"request {name}: has ended") and line.endswith("without a certificate"))
        for line in lines
    )


def taken_out(check: Verify, path: Path) -> bool:
    """Whether it is said of a file of earlier rounds that nobody sees whether it is missing."""
    store = f"{path.parent.parent.relative_to(path.parents[4])}/ ("
    lines = [text for text in listed(check()) if text.startswith(f"not covered: {store}")]
    return any("whether one that was sealed is missing" in line for line in lines)


def refused(check: Verify) -> bool:
    """Whether the run is not even read as one, in one line."""
    try:
        check()
    except (RunError, UserError) as error:
        assert "\n" not in str(error)
        return True
    return False


@under_both_policies
def test_of_what_nobody_touched_everything_holds(run: LiveRun, mode: Verify) -> None:
    findings = mode()
    assert bad(findings) == [] and listed(findings)
    assert verify(run.folder, public_keys=[KEY.public], heads=[]) != verify(run.folder)


# -- files ------------------------------------------------------------------------------------------------------


def torn(content: bytes) -> bytes:
    return content[: len(content) // 2]


def flipped(content: bytes) -> bytes:
    middle = len(content) * 2 // 3
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :] if content else b"\0"


EDITS: dict[str, Callable[[bytes], bytes | None]] = {
    "removed": lambda _: None,
    "emptied": lambda _: b"",
    "torn": torn,
    "one bit": flipped,
    "one byte more": lambda content: content + b" ",
    "no text": lambda _: b"\xff\xfe" * 10,
    "nested": lambda _: b"[" * 100_000,
}


@under_both_policies
@pytest.mark.quick(edit=1)
@pytest.mark.parametrize("edit", EDITS)
def test_every_file(run: LiveRun, mode: Verify, edit: str) -> None:
    try_every_file(run, mode, edit)


@pytest.mark.slow
@pytest.mark.parametrize("knows", ["key and head", "neither"])
def test_every_file_for_who_knows_both_or_nothing(run: LiveRun, head: Head, knows: str) -> None:
    try_every_file(run, by(run, head, knows), "torn")


def try_every_file(run: LiveRun, mode: Verify, edit: str) -> None:
    """Change each file, and look whether that is found, or said not to be looked at."""
    (files,) = [text for text in listed(mode()) if text.startswith("not covered: files: ")] or [""]
    not_looked_at = set(files.removeprefix("not covered: files: ").split(", "))
    tried = 0
    for path, content in contents(run.folder).items():
        place = str(path.relative_to(run.folder))
        if place == "requests.sqlite" and edit in ("one bit", "one byte more"):
            continue  # by columns and rows, below
        changed = EDITS[edit](content)
        if changed == content:
            continue
        if changed is None:
            path.unlink()
        else:
            path.write_bytes(changed)
        try:
            gone = changed is None and place.startswith("history/") and taken_out(mode, path)
            assert gone or place in not_looked_at or refused(mode) or bad(mode()) or missed(mode, path), place
        finally:
            path.write_bytes(content)
        tried += 1
    assert tried > 25


@pytest.mark.slow
def test_every_file_in_the_place_of_another_of_its_kind(run: LiveRun, mode: Verify) -> None:
    for folder, ending in (("checkpoints", "safetensors"), ("checkpoints", "json"), ("certificates", "json")):
        files = sorted((run.folder / folder).glob(f"*.{ending}"))
        swapped(files, mode)
    earlier = sorted((run.folder / "history").rglob("*.safetensors"))
    assert len(earlier) > 10
    swapped([earlier[0], *earlier[-3:]], mode)


def swapped(files: list[Path], mode: Verify) -> None:
    for path in files[1:]:
        before = path.read_bytes()
        shutil.copy(files[0], path)
        assert bad(mode()), path.name
        path.write_bytes(before)


def test_what_a_client_came_to_in_a_round_that_no_server_wrote(run: LiveRun, mode: Verify) -> None:
    """A result of a later round is what the method would find first; one of who is forgotten was put away."""
    store = run.folder / "history" / BRANCH / "all-updates"
    made, *_ = sorted(store.rglob("*.safetensors"))
    for place in (f"{made.name.split('@')[0]}@000099.safetensors", "client-4@000001.safetensors"):
        shutil.copy(made, made.with_name(place))
        assert any(f"{made.parent.name}/{place}: is " in text for text in bad(mode())), place
        made.with_name(place).unlink()
    (store / "notes.txt").write_bytes(b"?")
    assert any("history/federation/all-updates/notes.txt" in text for text in listed(mode()))
    (store / "notes.txt").unlink()


def test_of_thousands_of_files_of_earlier_rounds_one_line_tells(run: LiveRun, mode: Verify) -> None:
    lines = [text for text in listed(mode()) if "history/" in text]
    number = len(list((run.folder / "history").rglob("*.safetensors")))
    assert [text.split(":")[1].strip() for text in lines if "seals.document" not in text] == [
        f"history/federation/all-updates/ ({number} files)"
    ]
    assert all("client-" not in text for text in lines)


def test_the_newest_checkpoint_with_all_that_is_beside_it(run: LiveRun, mode: Verify) -> None:
    """Replaced with its readable copy, or written as that of a later round, as by who knows the format."""
    newest = run.checkpoints.load(run.round)
    before = contents(run.folder / "checkpoints")
    weights = newest.vector + 1
    for round, gone in (
        (run.round, ()),
        (run.round + 1, ()),
        (run.round + 1, (run.round,)),
        (run.round + 7, ()),
    ):
        forged = type(newest)(round, weights, {}, newest.meta)
        run.checkpoints.save(forged)
        for earlier in gone:
            run.checkpoints.delete(earlier)
        assert any("sealed" in text or "is gone" in text for text in bad(mode())), (round, gone)
        for path in (run.folder / "checkpoints").iterdir():
            path.unlink()
        for path, content in before.items():
            path.write_bytes(content)


def test_a_new_file_is_listed(run: LiveRun, mode: Verify) -> None:
    for place in ("notes.txt", "checkpoints/other-r0001.safetensors", "certificates/letter.html", "stored/x"):
        (run.folder / place).write_bytes(b"?")
        assert any(place in text for text in [*listed(mode()), *bad(mode())]), place
        (run.folder / place).unlink()


# -- fields of JSON -----------------------------------------------------------------------------------------------


def other(value: Any) -> Any:
    if isinstance(value, bool) or value is None:
        return not value
    if isinstance(value, int | float):
        return value + 1
    return f"{value}?" if isinstance(value, str) else [*value, 1] if isinstance(value, list) else {"?": 1}


def edited(document: Any, leaf: tuple[Any, ...]) -> Any:
    document = json.loads(json.dumps(document))
    *way, last = leaf
    inner = document
    for key in way:
        inner = inner[key]
    inner[last] = other(inner[last])
    return document


def test_every_field_of_every_readable_copy(run: LiveRun, mode: Verify) -> None:
    for path in sorted((run.folder / "checkpoints").glob("*.json")):
        before = path.read_bytes()
        document = json.loads(before)
        for leaf in paths_to_leaves(document):
            path.write_text(json.dumps(edited(document, leaf), sort_keys=True, indent=1) + "\n")
            assert bad(mode()), (path.name, leaf)
        path.write_bytes(before)


@pytest.mark.slow
def test_every_field_of_every_certificate(run: LiveRun, mode: Verify) -> None:
    for path in sorted(certificate.issued(run.folder).values()):
        before, page = path.read_bytes(), path.with_suffix(".html").read_bytes()
        document = json.loads(before)
        for leaf in paths_to_leaves(document):
            path.write_text(certificate.dumps(edited(document, leaf)))
            assert bad(verify(path, **mode.keywords)), (path.name, leaf)
        path.write_bytes(before)
        path.with_suffix(".html").write_bytes(page)


@pytest.mark.slow
def test_every_field_of_a_certificate_that_somebody_signed_anew(
    run: LiveRun, head: Head, tmp_path: Path
) -> None:
    """Who knows the key sees that at once. Without it, the ledger tells, or it is said what it cannot tell."""
    key = new_key(tmp_path / "other.pem")
    unknown = 0
    for path in sorted(certificate.issued(run.folder).values()):
        before, page = path.read_bytes(), path.with_suffix(".html").read_bytes()
        document = json.loads(before)
        document["issuer"] |= {"key_id": key.key_id, "public_key": key.public.text}
        for leaf in paths_to_leaves(document):
            if leaf[0] in ("signature", "issuer", "kind", "schema"):
                continue
            forged = edited(document, leaf)
            forged["signature"]["value"] = sign(CERTIFICATE, certificate.unsigned_part(forged), key)
            path.write_text(certificate.dumps(forged))
            if certificate.shape.problem(forged) is None:
                certificate.write_page(path, forged)
            assert bad(verify(path, public_keys=[KEY.public])), leaf
            findings = verify(run.folder, heads=[head])
            if not bad(findings):
                (line,) = [text for text in listed(findings) if "certificates: " in text]
                field = ".".join(key for key in leaf if isinstance(key, str))
                assert any(
                    field == name or field.startswith(f"{name}.") for name in re.findall(r"[a-z_.]+", line)
                ), (document["outcome"]["state"], leaf)
                unknown += 1
        path.write_bytes(before)
        path.with_suffix(".html").write_bytes(page)
    assert unknown > 0, "or the line says too little of what is found"


# -- columns and rows of the ledger -------------------------------------------------------------------------------


class Tampered:
    """The ledger's file in somebody else's hands: each statement is made in the file as it was."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.before = place.read_bytes()

    def query(self, sql: str, *values: Any) -> list[sqlite3.Row]:
        with sqlite3.connect(f"file:{self.place}?immutable=1", uri=True) as connection:
            connection.row_factory = sqlite3.Row
            return connection.execute(sql, values).fetchall()

    def after(self, sql: str, *values: Any) -> bool:
        """Make a statement; False where the tables refuse it."""
        self.place.write_bytes(self.before)
        connection = sqlite3.connect(self.place, isolation_level=None)
        connection.execute("PRAGMA journal_mode = MEMORY")
        connection.execute("PRAGMA synchronous = OFF")
        try:
            connection.execute(sql, values)
        except sqlite3.IntegrityError:
            return False
        finally:
            connection.close()
            for ending in ("-wal", "-shm"):
                self.place.with_name(self.place.name + ending).unlink(missing_ok=True)
        return True

    def restore(self) -> None:
        self.place.write_bytes(self.before)


@pytest.fixture
def ledger(run: LiveRun) -> Iterator[Tampered]:
    tampered = Tampered(run.folder / "requests.sqlite")
    yield tampered
    tampered.restore()


def tables(ledger: Tampered) -> dict[str, list[sqlite3.Row]]:
    """Every table with its columns, as SQLite describes them."""
    names = ledger.query("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
    return {row["name"]: ledger.query(f"PRAGMA table_info({row['name']})") for row in names}


def key_of(columns: list[sqlite3.Row], row: sqlite3.Row) -> tuple[str, list[Any]]:
    names = [column["name"] for column in columns if column["pk"]]
    return " AND ".join(f"{name} IS ?" for name in names), [row[name] for name in names]


def others(value: Any) -> list[Any]:
    if value is None:
        return [1, "x", "{}"]
    if isinstance(value, int | float):
        return [value + 1, -value - 1, None, "soon"]
    found: list[Any] = [f"{value}?", None, "", 7]
    try:
        document = json.loads(value)
    except ValueError:
        return found
    if isinstance(document, dict | list):
        found += ["[" * 100_000, "null", '{"a": 1, "a": 1}']
        found += [
            json.dumps(edited(document, leaf), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
            for leaf in paths_to_leaves(document)
            if leaf
        ]
    return found


def said(findings: list[Finding], table: str, column: str | None) -> bool:
    """Whether a line says that this column, or the whole table, is not covered."""
    for text in listed(findings):
        names = re.findall(r"[a-z_]+\.[a-z_]+|[a-z]+", text) if "requests.sqlite: " in text else []
        if f"{table}.{column}" in names or (table in ("leases", "servers") and table in names):
            return True
    return False


@pytest.mark.parametrize("rows", [2, pytest.param(None, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])])
def test_every_column_of_every_row(run: LiveRun, mode: Verify, ledger: Tampered, rows: int | None) -> None:
    """Of the first and the last row of every table; and of all."""
    tried, unknown = 0, set()
    for table, columns in tables(ledger).items():
        found = ledger.query(f"SELECT * FROM {table}")
        assert found, f"{table}: has no row to try"
        for row in found if rows is None else [*found[:1], *found[1:][-1:]]:
            where, key = key_of(columns, row)
            for column in columns:
                name = column["name"]
                for value in others(row[name]):
                    if not ledger.after(f"UPDATE {table} SET {name} = ? WHERE {where}", value, *key):
                        continue
                    tried += 1
                    findings = mode()
                    if not bad(findings):
                        assert said(findings, table, name), (table, name, dict(row), value)
                        unknown.add(f"{table}.{name}")
    assert tried > (400 if rows else 1500)
    served = ("leases.", "servers.")
    assert {name for name in unknown if not name.startswith(served)} <= {
        *("audit.seq", "audit.detail", "keys.key_hash", "measures.document", "plans.plan", "plans.failed"),
        *("heads.at", "heads.key_id", "heads.signature", "seals.document", "seals.key_id", "seals.signature"),
    }


@pytest.mark.parametrize(
    ("knows", "unknown_too"), [("key and head", set()), ("neither", {"heads.key_id", "seals.key_id"})]
)
def test_a_sample_of_columns_for_who_knows_both_or_nothing(
    run: LiveRun, head: Head, ledger: Tampered, knows: str, unknown_too: set[str]
) -> None:
    """One value in each column of a row in the middle of each table. Without a key only its name may be another."""
    check, unknown = by(run, head, knows), set()
    for table, columns in tables(ledger).items():
        rows = ledger.query(f"SELECT * FROM {table}")
        row = rows[len(rows) // 2]
        where, key = key_of(columns, row)
        for name in (column["name"] for column in columns):
            value = others(row[name])[0]
            if ledger.after(f"UPDATE {table} SET {name} = ? WHERE {where}", value, *key):
                findings = check()
                if not bad(findings):
                    assert said(findings, table, name), (table, name, dict(row), value)
                    unknown.add(f"{table}.{name}")
    assert {name for name in unknown if not name.startswith(("leases.", "servers."))} == {
        "keys.key_hash",
        *unknown_too,
    }


def test_every_row_removed(run: LiveRun, mode: Verify, ledger: Tampered) -> None:
    for table, columns in tables(ledger).items():
        for row in ledger.query(f"SELECT * FROM {table}"):
            where, key = key_of(columns, row)
            assert ledger.after(f"DELETE FROM {table} WHERE {where}", *key)
            findings = mode()
            assert bad(findings) or said(findings, table, "rows"), (table, dict(row))


def test_every_row_twice(run: LiveRun, mode: Verify, ledger: Tampered) -> None:
    """As another number of its key: a request that nobody made, an entry, a seal of a round that never was."""
    for table, columns in tables(ledger).items():
        names = [column["name"] for column in columns]
        for row in ledger.query(f"SELECT * FROM {table}"):
            for column in columns:
                if not column["pk"]:
                    continue
                values = [other(row[n]) if n == column["name"] else row[n] for n in names]
                marks = ", ".join("?" * len(names))
                if ledger.after(f"INSERT INTO {table} VALUES ({marks})", *values):
                    findings = mode()
                    assert bad(findings) or said(findings, table, "rows"), (table, column["name"], dict(row))


def test_the_end_of_the_trail_cut_off_with_all_that_belongs_to_it(
    run: LiveRun, ledger: Tampered, head: Head
) -> None:
    """A consistent shorter trail tells nothing by itself; the receipt of what came last does, and so do seals."""
    last = head.entry
    assert ledger.after("DELETE FROM audit WHERE entry = ?", last)
    assert bad(verify(run.folder, heads=[head]))
    assert any("does not contain it" in text for text in bad(verify(run.folder, heads=[head])))
    assert bad(verify(run.folder, public_keys=[KEY.public]))


def test_a_head_of_another_run(run: LiveRun, head: Head) -> None:
    for wrong in (Head(head.entry + 1, head.hash), Head(1, head.hash), Head(head.entry, "0" * 64)):
        assert any("does not contain it" in text for text in bad(verify(run.folder, heads=[head, wrong])))
    certified = next(iter(certificate.issued(run.folder).values()))
    assert bad(verify(certified, heads=[head])) == []
    assert bad(verify(certified, heads=[Head(1, "0" * 64)]))
    assert BRANCH == "federation"
