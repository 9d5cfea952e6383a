"""Whatever is changed in a certificate, the trail, a checkpoint or a page, `verify` finds it."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from fedunlearn.certificates import certificate
from fedunlearn.certificates.keys import new_key
from fedunlearn.certificates.signing import CERTIFICATE, digest, sign
from fedunlearn.certificates.verification import verify
from fedunlearn.cli import certificates
from fedunlearn.errors import UserError
from tests.certificates.live_run import KEY, LiveRun, ended_run


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> tuple[LiveRun, str]:
    run, request = ended_run(tmp_path_factory.mktemp("pristine") / "run", "forgotten")
    run.clerk().attend(run.round)
    run.ledger.close()
    return run, request


@pytest.fixture
def run(pristine: tuple[LiveRun, str], tmp_path: Path) -> Iterator[LiveRun]:
    twin = pristine[0].copy(tmp_path / "run")
    yield twin
    twin.ledger.close()


@pytest.fixture
def path(pristine: tuple[LiveRun, str], run: LiveRun) -> Path:
    return run.folder / "certificates" / f"{pristine[1]}.json"


def bad(place: Path, *, trusted: bool = True) -> list[str]:
    keys = [KEY.public] if trusted else []
    return [finding.text for finding in verify(place, public_keys=keys) if finding.holds is False]


def paths_to_leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if isinstance(value, dict | list) and value:
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from paths_to_leaves(item, (*path, key))
    else:
        yield path


def change(document: Any, path: tuple[Any, ...]) -> None:
    *way, last = path
    for key in way:
        document = document[key]
    value = document[last]
    document[last] = value + 1 if type(value) in (int, float) else f"{value}?"


def test_what_nobody_touched_holds(run: LiveRun, path: Path) -> None:
    for place in (run.folder, path):
        assert bad(place) == bad(place, trusted=False) == []
        assert any(finding.holds for finding in verify(place, public_keys=[KEY.public]))


def test_any_change_of_any_value_is_found(path: Path) -> None:
    written = path.read_text()
    for leaf in paths_to_leaves(json.loads(written)):
        document = json.loads(written)
        change(document, leaf)
        path.write_text(json.dumps(document))
        try:
            assert bad(path, trusted=False), leaf
        except UserError:
            assert leaf in (("kind",), ("schema",))  # no certificate at all
    for name in json.loads(written):
        document = json.loads(written)
        del document[name]
        path.write_text(json.dumps(document))
        try:
            assert bad(path, trusted=False), name
        except UserError:
            assert name in ("kind", "schema")


def resigned(path: Path, document: dict[str, Any], folder: Path) -> None:
    """Write a certificate as somebody would who has another key."""
    other = new_key(folder / "other.pem")
    document["issuer"] |= {"key_id": other.key_id, "public_key": other.public.text}
    document["signature"]["value"] = sign(CERTIFICATE, certificate.unsigned_part(document), other)
    path.write_text(certificate.dumps(document))
    certificate.write_page(path, document)


def test_signed_anew_with_another_key_it_is_found_by_who_knows_the_key(path: Path, tmp_path: Path) -> None:
    resigned(path, certificate.read(path), tmp_path)
    assert any("none of key" in text for text in bad(path))
    assert bad(path, trusted=False) == []  # that is why it says: only --public-key shows whose key that is


def test_signed_anew_with_another_end_the_trail_does_not_bear_it_out(path: Path, tmp_path: Path) -> None:
    document = certificate.read(path)
    document["outcome"]["state"] = "excluded"
    resigned(path, document, tmp_path)
    assert any("contradicts the trail" in text for text in bad(path, trusted=False))


@pytest.mark.parametrize(
    ("changed", "more"), [(3, None), (4, "1 more of its facts differs"), (5, "2 more of its facts differ")]
)
def test_of_many_facts_that_differ_three_are_named_and_the_others_counted(
    path: Path, tmp_path: Path, changed: int, more: str | None
) -> None:
    document = certificate.read(path)
    for entry in document["history"][:changed]:
        entry["round"] = 77
    resigned(path, document, tmp_path)
    texts = [text for text in bad(path, trusted=False) if "from ledger and settings" in text]
    assert [text.partition(": ")[2].partition(" ")[0] for text in texts[:3]] == ["its"] * 3
    assert [text.partition(": ")[2] for text in texts[3:]] == (
        [f"{more} from ledger and settings"] if more else []
    )


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE audit SET at = at + 1 WHERE entry = 2",
        "UPDATE audit SET to_state = 'forgotten-unrecovered' WHERE to_state = 'forgotten'",
        "DELETE FROM audit WHERE entry = 3",
        "DELETE FROM audit WHERE entry = (SELECT max(entry) FROM audit)",
        "DELETE FROM audit",
        "UPDATE requests SET clients = '[4]'",
    ],
)
def test_a_trail_that_was_changed_is_found(run: LiveRun, path: Path, sql: str) -> None:
    run.ledger.store.rows(sql)
    assert bad(run.folder) and bad(path)


def test_a_trail_cut_off_with_its_signed_heads_is_found_by_the_certificate(run: LiveRun, path: Path) -> None:
    for table in ("audit", "heads", "requests", "named"):
        run.ledger.store.rows(f"DELETE FROM {table}")
    assert bad(path)


def test_a_head_signed_by_another_is_found(run: LiveRun) -> None:
    run.ledger.store.rows("UPDATE heads SET at = at + 1")
    assert any("signed heads" in text for text in bad(run.folder))


@pytest.mark.parametrize("round", [4, 6])
def test_other_weights_than_the_certificate_states_are_found(run: LiveRun, path: Path, round: int) -> None:
    shutil.copy(run.checkpoints.path(5), run.checkpoints.path(round))
    assert any(f"round {round}" in text for text in bad(path))
    assert any(f"federation-r{round:04d}.safetensors: is not the file" in text for text in bad(run.folder))
    run.checkpoints.path(round).write_bytes(b"torn")
    assert any("cannot be read" in text for text in bad(path))


def test_a_page_that_shows_something_else_is_found(path: Path) -> None:
    shown = path.with_suffix(".html")
    shown.write_text(shown.read_text().replace("Forgotten", "Never known", 1))
    assert any("does not show this certificate" in text for text in bad(path))


def test_an_unsigned_certificate_does_not_pass_for_a_signed_one(tmp_path: Path) -> None:
    run, request = ended_run(tmp_path / "run", "withdrawn")
    run.clerk(key=None).attend(run.round)
    place = run.folder / "certificates" / f"{request}.json"
    assert bad(place, trusted=False) == []
    assert any("is not signed" in text for text in bad(place))


# -- what was removed -------------------------------------------------------------------------------------------


def found(run: LiveRun, *, trusted: bool) -> dict[bool | None, str]:
    """What `verify` says of a run, by whether it holds, one text each."""
    keys = [KEY.public] if trusted else []
    findings = verify(run.folder, public_keys=keys)
    return {
        holds: "\n".join(finding.text for finding in findings if finding.holds is holds)
        for holds in (True, False, None)
    }


def gut(run: LiveRun, *tables: str) -> None:
    for table in tables:
        run.ledger.store.rows(f"DELETE FROM {table}")


def test_a_ledger_that_was_emptied_does_not_pass(run: LiveRun, pristine: tuple[LiveRun, str]) -> None:
    gut(run, "heads", "audit", "requests", "named", "measures")
    shutil.rmtree(run.folder / "certificates")
    for trusted in (True, False):
        said = found(run, trusted=trusted)
        assert f"request {pristine[1]}: is in the plan of round 4, but not among the requests" in said[False]
        assert ("signed heads of federation: there are none" in said[False]) == trusted
        assert "has no entries; no request was ever made, or all were removed" in said[None]
        assert "0 entries" not in said[True]
    gut(run, "plans")
    said = found(run, trusted=True)
    assert "ledger: has no federation" in said[False]
    assert "ledger: has no federation" in found(run, trusted=False)[None]


def test_signed_heads_that_were_removed_are_missed_by_who_knows_the_key(run: LiveRun) -> None:
    gut(run, "heads")
    assert "signed heads of federation: there are none" in found(run, trusted=True)[False]
    said = found(run, trusted=False)
    assert said[False] == "" and "signed heads of federation: there are none" in said[None]


@pytest.mark.parametrize("folder", [True, False], ids=["with the folder", "the files"])
def test_certificates_that_were_removed_are_missed_by_who_knows_the_key(
    run: LiveRun, pristine: tuple[LiveRun, str], folder: bool
) -> None:
    shutil.rmtree(run.folder / "certificates")
    if not folder:
        (run.folder / "certificates").mkdir()
    words = f"request {pristine[1]}: has ended (forgotten) without a certificate"
    assert words in found(run, trusted=True)[False]
    said = found(run, trusted=False)
    assert said[False] == "" and words in said[None]


def test_a_certificate_that_could_not_be_written_yet_is_not_missed(run: LiveRun) -> None:
    withdrawn = run.ask(1)
    run.end(withdrawn, "withdrawn")
    failed = run.ask(2)
    run.end(failed, "failed")
    said = found(run, trusted=True)
    assert said[False] == ""
    for id_ in (withdrawn, failed):
        assert f"request {id_}: has ended, with no certificate yet" in said[None]
    run.ledger.store.rows("UPDATE leases SET renewed_at = 0")  # no server serves it now
    said = found(run, trusted=True)
    assert f"request {failed}: has ended (failed) without a certificate" == said[False]
    assert f"request {withdrawn}: has ended, with no certificate yet" in said[None]


def test_where_nothing_was_ever_certified_that_is_said(tmp_path: Path) -> None:
    run, _ = ended_run(tmp_path / "run", "withdrawn")
    words = "certificates of federation: there are none, and 1 request has ended"
    for trusted in (True, False):
        assert words in found(run, trusted=trusted)[None]
    assert "certificates" not in found(run, trusted=True)[False]


@pytest.mark.parametrize("which", ["all", "the folder", "newest", "all but the first"])
def test_checkpoints_that_were_removed_are_missed(run: LiveRun, which: str) -> None:
    rounds = run.checkpoints.rounds()
    assert rounds == [4, 5, 6]
    if which == "the folder":
        shutil.rmtree(run.folder / "checkpoints")
    else:
        gone = {"all": rounds, "newest": rounds[-1:], "all but the first": rounds[1:]}[which]
        for round in gone:
            run.checkpoints.delete(round)
    for trusted in (True, False):
        assert "according to the ledger that of round 6 was written" in found(run, trusted=trusted)[False]
    assert (run.folder / "checkpoints").exists() == (which != "the folder")


def test_of_a_round_that_is_not_complete_no_checkpoint_is_missed(run: LiveRun) -> None:
    run.ledger.commit_plan("federation", 7, {"round": 7, "train": [0], "forget": [], "requests": []})
    said = found(run, trusted=True)
    assert said[False] == "" and "round 7 was planned: either it is not complete" in said[None]
    run.checkpoints.delete(6)
    assert "according to the ledger that of round 6 was written" in found(run, trusted=True)[False]


def test_a_certificate_without_a_readable_key_hides_none_of_the_others(run: LiveRun, path: Path) -> None:
    before = found(run, trusted=False)[True]
    for name in ("aaa", "zzz"):  # before and behind it
        document = certificate.read(path)
        document["issuer"]["public_key"] = "no key"
        path.with_name(f"{name}.json").write_text(json.dumps(document))
    after = found(run, trusted=False)[True]
    signed = [line for line in before.splitlines() if line.startswith(("signed heads", "seals"))]
    assert signed and set(signed) <= set(after.splitlines())


def test_signatures_that_no_known_key_made_ask_for_one(tmp_path: Path) -> None:
    run, _ = ended_run(tmp_path / "run", "forgotten")
    run.clerk(key=None).attend(run.round)
    said = found(run, trusted=False)
    assert re.search(r"^seals of .*; name a public key to check their signatures$", said[None], re.MULTILINE)


# -- editions ---------------------------------------------------------------------------------------------------


def test_an_unsigned_edition_that_a_signed_one_replaced_is_no_failure(tmp_path: Path) -> None:
    run, request = ended_run(tmp_path / "run", "forgotten")
    run.clerk(key=None).attend(run.round)
    run.clerk().attend(run.round)
    first = run.folder / "certificates" / f"{request}.edition-1.json"
    words = f"certificate {request}.edition-1.json: is not signed; the signed edition 2 replaces it"
    for trusted in (True, False):
        said = found(run, trusted=trusted)
        assert said[False] == "" and words in said[None]
    assert bad(first) == []
    other = new_key(tmp_path / "other.pem").public
    texts = [f.text for f in verify(first, public_keys=[other]) if f.holds is False]
    assert any("edition-1.json: is not signed" in text for text in texts)
    written = first.read_text()
    first.write_text(written.replace("hospitals", "hostels"))
    assert any("edition-1.json: is not signed" in text for text in bad(first))
    first.write_text(written)
    (run.folder / "certificates" / f"{request}.json").unlink()
    assert any("edition-1.json: is not signed" in text for text in bad(first))


def test_unsigned_editions_are_followed_up_to_the_signed_one(tmp_path: Path) -> None:
    run, request = ended_run(tmp_path / "run", "forgotten")
    place = run.folder / "certificates" / f"{request}.json"
    run.clerk(key=None).attend(run.round)
    first = certificate.read(place)
    second = {
        **first,
        "edition": 2,
        "replaces": {"edition": 1, "issued_at": first["issued_at"], "sha256": digest(first)},
    }
    certificate.publish([certificate.prepare(run.folder, second)])
    run.clerk().attend(run.round)
    said = found(run, trusted=True)
    assert said[False] == ""
    assert said[None].count("the signed edition 3 replaces it") == 2
    place.with_name(f"{request}.edition-2.json").unlink()
    assert any("edition-1.json: is not signed" in text for text in bad(run.folder))


def test_alone_it_is_checked_as_far_as_that_goes(path: Path, tmp_path: Path) -> None:
    alone = tmp_path / "certificate.json"
    shutil.copy(path, alone)
    findings = verify(alone, public_keys=[KEY.public])
    assert [finding.holds for finding in findings] == [True, None]


def test_what_is_neither_run_nor_certificate_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other.json").write_text('{"kind": "a shopping list"}')
    (tmp_path / "text.json").write_text("no JSON")
    for place in ("other.json", "text.json", "missing.json", "."):
        with pytest.raises(UserError):
            verify(tmp_path / place)


def test_the_command_line_says_what_it_found(run: LiveRun, path: Path, tmp_path: Path) -> None:
    app = typer.Typer()
    certificates.register(app)
    runner = CliRunner()
    made = runner.invoke(app, ["keys", "new", str(tmp_path / "key.pem")])
    assert made.exit_code == 0 and (tmp_path / "key.pem.pub").is_file()
    good = runner.invoke(app, ["verify", str(run.folder)])
    assert good.exit_code == 0 and "BAD" not in good.output and "forgotten, as in the trail" in good.output
    wrong_key = runner.invoke(app, ["verify", str(path), "--public-key", str(tmp_path / "key.pem.pub")])
    assert wrong_key.exit_code == 1 and "BAD" in wrong_key.output
