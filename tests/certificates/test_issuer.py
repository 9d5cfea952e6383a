"""The clerk may be cut off anywhere: what it leaves in the end is the same, and a certificate never runs ahead."""

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedunlearn.certificates import certificate, retention
from fedunlearn.certificates.issuer import Clerk, signed_head_document
from fedunlearn.certificates.keys import SigningKey
from fedunlearn.certificates.signing import HEAD, digest, verifies
from fedunlearn.certificates.verification import verify
from fedunlearn.deployment.supervise import holder_name
from fedunlearn.requests import Ledger
from fedunlearn.requests.lease import FencedError
from fedunlearn.requests.transitions import ENDS
from fedunlearn.runs.checkpoints import weights_hash
from tests.certificates.live_run import BRANCH, KEY, LiveRun, ended_run, raw_weights, update_of, weights_after


class KilledError(BaseException):
    """The process ends here."""


def documents(run: LiveRun) -> dict[str, dict[str, Any]]:
    return {id_: certificate.read(path) for id_, path in certificate.issued(run.folder).items()}


def contents(run: LiveRun) -> dict[str, bytes]:
    files = (path for path in run.folder.rglob("*") if path.is_file() and "sqlite" not in path.name)
    return {str(path.relative_to(run.folder)): path.read_bytes() for path in files}


def no_findings(run: LiveRun, key: SigningKey = KEY) -> None:
    assert [f.text for f in verify(run.folder, public_keys=[key.public]) if f.holds is False] == []


@pytest.mark.parametrize("state", sorted(ENDS))
def test_every_end_gets_a_certificate_that_verifies(tmp_path: Path, state: str) -> None:
    run, request = ended_run(tmp_path / "run", state)
    run.clerk().attend(run.round)
    document = documents(run)[request]
    assert document["outcome"]["state"] == state
    assert document["request"]["clients"] == [3]
    assert document["trail"]["entry"] == document["history"][-1]["entry"] == len(run.ledger.audit(BRANCH))
    assert (run.folder / "certificates" / f"{request}.html").is_file()
    no_findings(run)


def test_open_requests_have_no_certificate(tmp_path: Path) -> None:
    run = LiveRun(tmp_path / "run")
    run.train(range(6), 2)
    run.ask(1)
    waiting, recovering = run.ask(2), run.ask(3)
    run.ledger.transition(BRANCH, waiting, "waiting", round=2)
    run.unlearn(recovering)
    run.clerk().attend(run.round)
    assert documents(run) == {}
    assert run.raw(update_of(3)), "nothing is put away before the end"


def test_hashes_are_of_the_weights_before_and_after_though_the_files_are_gone(tmp_path: Path) -> None:
    run, request = ended_run(tmp_path / "run", "forgotten")
    run.clerk().attend(run.round)
    weights = documents(run)[request]["weights"]
    assert {name: stated["round"] for name, stated in weights.items()} == {"before": 3, "after": 4, "end": 6}
    for stated in weights.values():
        assert stated["sha256"] == weights_hash(weights_after(stated["round"]))
    assert run.checkpoints.rounds() == [4, 5, 6]


def test_weights_that_nobody_could_hash_are_null_with_a_reason(tmp_path: Path) -> None:
    run, request = ended_run(tmp_path / "run", "forgotten")
    run.checkpoints.delete(3)
    run.checkpoints.path(4).write_bytes(b"torn")
    run.clerk().attend(run.round)
    weights = documents(run)[request]["weights"]
    assert weights["before"]["sha256"] is weights["after"]["sha256"] is None
    assert "was gone before" in weights["before"]["reason"]
    assert "damaged" in weights["after"]["reason"]
    assert weights["end"]["sha256"]


def test_of_a_step_that_was_taken_back_the_hashes_before_and_after_are_equal(tmp_path: Path) -> None:
    run, request = ended_run(tmp_path / "run", "refused")
    weights = run.checkpoints.load(3)
    run.checkpoints.save(replace(weights, round=4))
    run.clerk().attend(run.round)
    stated = documents(run)[request]["weights"]
    assert (stated["before"]["round"], stated["after"]["round"]) == (3, 4)
    assert stated["before"]["sha256"] == stated["after"]["sha256"] == stated["end"]["sha256"] is not None
    refused_at_once = run.ask(0)
    run.end(refused_at_once, "refused")
    run.clerk().attend(run.round)
    assert documents(run)[refused_at_once]["weights"]["before"]["sha256"] is None


def test_with_nothing_new_it_does_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, _ = ended_run(tmp_path / "run", "forgotten")
    clerk = run.clerk()
    clerk.attend(run.round)
    before, heads = contents(run), run.ledger.signed_heads(BRANCH)
    monkeypatch.setattr(run.ledger, "check_trail", lambda *_, **__: pytest.fail("it looked at everything"))
    for _ in range(3):
        run.train([0, 1])
        clerk.attend(run.round)
    assert {name: content for name, content in contents(run).items() if name in before} == before | {
        name: content for name, content in contents(run).items() if name.startswith("stored")
    }
    assert run.ledger.signed_heads(BRANCH) == heads


def test_a_new_clerk_does_not_issue_again(tmp_path: Path) -> None:
    run, _ = ended_run(tmp_path / "run", "forgotten")
    run.clerk().attend(run.round)
    before = contents(run)
    run.clerk().attend(run.round)
    assert contents(run) == before


def test_heads_are_signed_as_the_trail_grows(tmp_path: Path) -> None:
    run = LiveRun(tmp_path / "run")
    clerk = run.clerk()
    clerk.attend(0)
    assert run.ledger.signed_heads(BRANCH) == []
    for clients in ([1], [2], [3]):
        run.ask(*clients)
        clerk.attend(0)
        clerk.attend(0)
        head, signed = run.ledger.head(BRANCH), run.ledger.signed_heads(BRANCH)[-1]
        assert signed.head == head
        document = signed_head_document(BRANCH, signed.head, signed.at)
        assert verifies(HEAD, document, signed.signature, KEY.public)
    assert [signed.entry for signed in run.ledger.signed_heads(BRANCH)] == [1, 2, 3]


# -- cut off ----------------------------------------------------------------------------------------------------


def _dying_at(
    call: int, function: Callable[..., Any], calls: list[int], *, after: bool
) -> Callable[..., Any]:
    def killed(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        here = calls[0] == call
        if here and not after:
            raise KilledError
        done = function(*args, **kwargs)
        if here:
            raise KilledError
        return done

    return killed


STEPS: list[tuple[object, str]] = [
    (Ledger, "note_measures"),
    (Ledger, "add_signed_head"),
    (retention, "purge"),
    (retention, "sync_folder"),
    (Path, "unlink"),
    (Path, "replace"),
    (certificate, "write_synced"),
    (certificate, "sync_folder"),
]


def undated(run: LiveRun) -> dict[str, dict[str, Any]]:
    """The certificates, without when they were written and how many others lay there by then."""
    found = documents(run)
    for document in found.values():
        for name in ("issued_at", "signature"):
            del document[name]
        document["related"]["earlier_certificates"] = None
        remaining = document["data"]["remaining"]
        document["data"]["remaining"] = [kept for kept in remaining if kept["place"] != "certificates/"]
    return found


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_at_any_step_and_begun_again_it_ends_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    scene = LiveRun(tmp_path / "scene")
    scene.train([0, 3, 4])
    requests = [scene.ask(3), scene.ask(4)]
    scene.unlearn(*requests)
    for id_ in requests:
        scene.end(id_, "forgotten")
    scene.ledger.close()
    undisturbed = scene.copy(tmp_path / "undisturbed" / "run")
    undisturbed.clerk().attend(undisturbed.round)
    expected = undated(undisturbed)
    assert set(expected) == set(requests)
    kills = 0
    for call in range(1, 200):
        run = scene.copy(tmp_path / f"{call}" / "run")
        calls = [0]
        with monkeypatch.context() as patched:
            for owner, name in STEPS:
                patched.setattr(owner, name, _dying_at(call, getattr(owner, name), calls, after=after))
            try:
                run.clerk().attend(run.round)
                break
            except KilledError:
                kills += 1
        for id_, document in undated(run).items():
            assert not run.raw(update_of(3)), "certified before the files had gone"
            assert document == expected[id_]
        run.clerk().attend(run.round)
        assert undated(run) == expected
        assert run.checkpoints.rounds() == undisturbed.checkpoints.rounds()
        no_findings(run)
        run.ledger.close()
    assert kills > 15


def test_another_server_has_taken_over(tmp_path: Path) -> None:
    run, _ = ended_run(tmp_path / "run", "forgotten")
    clerk, before = run.clerk(), contents(run)
    with Ledger(run.folder / "requests.sqlite", clock=lambda: run.time + 1e10) as other:
        other.take_lease(BRANCH, "another")
        with pytest.raises(FencedError):
            clerk.attend(run.round)
    assert contents(run) == before


def test_a_request_that_ends_while_it_works_is_covered_by_its_certificates_head(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = LiveRun(tmp_path / "run")
    request = run.ask(3)
    ask_requests = run.ledger.requests

    def withdrawn_meanwhile(*args: Any, **kwargs: Any) -> Any:
        if not run.ledger.request(BRANCH, request).ended:
            run.end(request, "withdrawn")
        return ask_requests(*args, **kwargs)

    monkeypatch.setattr(run.ledger, "requests", withdrawn_meanwhile)
    run.clerk().attend(0)
    document = documents(run)[request]
    assert document["trail"]["entry"] >= document["history"][-1]["entry"]
    no_findings(run)


# -- hindered ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_disk_that_refuses_does_not_stop_the_federation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, at: int
) -> None:
    run = LiveRun(tmp_path / "run")
    requests = [run.ask(client) for client in range(3)]
    for request in requests:
        run.end(request, "withdrawn")
    clerk, calls, write = run.clerk(), [0], certificate.write_synced

    def full(*args: Any) -> None:
        calls[0] += 1
        if calls[0] == at:
            raise OSError(28, "No space left on device")
        write(*args)

    with monkeypatch.context() as patched, caplog.at_level(logging.ERROR):
        patched.setattr(certificate, "write_synced", full)
        clerk.attend(run.round)
    assert len(documents(run)) == at - 1 and "No space left" in caplog.text
    clerk.attend(run.round)
    assert {id_: document["edition"] for id_, document in documents(run).items()} == dict.fromkeys(
        requests, 1
    )
    no_findings(run)


def test_an_unsigned_certificate_says_so_and_is_replaced_once_there_is_a_key(tmp_path: Path) -> None:
    run, request = ended_run(tmp_path / "run", "forgotten")
    run.clerk(key=None).attend(run.round)
    first = documents(run)[request]
    assert first["signature"]["value"] is None and first["signature"]["reason"]
    assert "Not signed" in (run.folder / "certificates" / f"{request}.html").read_text()
    run.clerk(key=None).attend(run.round)
    assert documents(run)[request] == first
    run.clerk().attend(run.round)
    second = documents(run)[request]
    assert (second["edition"], second["replaces"]["edition"]) == (2, 1)
    assert second["replaces"]["sha256"] == digest(first)
    aside = run.folder / "certificates" / f"{request}.edition-1.json"
    assert json.loads(aside.read_text()) == first
    assert (
        second["weights"] == first["weights"] and second["data"]["removed"] == first["data"]["removed"] != []
    )
    assert second["signature"]["value"]


def test_a_superlink_that_cannot_be_cleaned_leaves_the_certificate_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fedunlearn.certificates.superlink_messages import MessagePurge

    run = LiveRun(tmp_path / "run", holder=holder_name(77, "server:1"))
    run.train(range(6), 3)
    request = run.ask(3)
    run.unlearn(request)
    run.end(request, "forgotten")
    asked: list[tuple[Path, set[int]]] = []
    answers = [MessagePurge(problem="it is locked"), MessagePurge(problem="it is locked"), MessagePurge(2, 5)]

    def purge(database: Path, runs: Any) -> MessagePurge:
        asked.append((database, set(runs)))
        return answers[len(asked) - 1]

    monkeypatch.setattr("fedunlearn.certificates.issuer.purge_messages", purge)
    clerk = run.clerk(database=tmp_path / "state.db")
    clerk.attend(run.round)
    assert "it is locked" in documents(run)[request]["data"]["open"][0]
    clerk.attend(run.round)
    assert documents(run)[request]["edition"] == 1
    clerk.attend(run.round)
    clerk.attend(run.round)
    assert asked == [(tmp_path / "state.db", {77})] * 3
    document = documents(run)[request]
    assert document["edition"] == 2 and document["data"]["open"] == []
    assert (document["data"]["superlink"]["messages"], document["data"]["superlink"]["objects"]) == (2, 5)


def test_under_flower_without_a_database_the_certificate_says_that_nobody_looked(tmp_path: Path) -> None:
    run = LiveRun(tmp_path / "run", holder=holder_name(77, "server:1"))
    request = run.ask(3)
    run.end(request, "excluded")
    run.clerk().attend(0)
    assert documents(run)[request]["data"]["superlink"]["state"] == "not examined"


def test_a_damaged_trail_is_not_signed_and_the_certificate_says_what_is_wrong(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run, request = ended_run(tmp_path / "run", "forgotten")
    run.ledger.store.rows("UPDATE audit SET at = at + 1 WHERE entry = 2")
    with caplog.at_level(logging.ERROR):
        run.clerk().attend(run.round)
    assert run.ledger.signed_heads(BRANCH) == []
    assert documents(run)[request]["trail"]["problems"] and "damaged" in caplog.text


def test_a_damaged_certificate_is_set_aside_and_issued_anew(tmp_path: Path) -> None:
    run, request = ended_run(tmp_path / "run", "forgotten")
    run.clerk().attend(run.round)
    path = run.folder / "certificates" / f"{request}.json"
    path.write_text("{torn")
    run.clerk().attend(run.round)
    assert documents(run)[request]["outcome"]["state"] == "forgotten"
    assert path.with_suffix(".damaged").read_text() == "{torn"


def test_a_page_that_was_lost_is_written_again(tmp_path: Path) -> None:
    run, request = ended_run(tmp_path / "run", "forgotten")
    run.clerk().attend(run.round)
    shown = run.folder / "certificates" / f"{request}.html"
    before = shown.read_bytes()
    shown.unlink()
    run.clerk().attend(run.round)
    assert shown.read_bytes() == before


def test_a_later_request_names_the_earlier_certificate_of_its_client(tmp_path: Path) -> None:
    run, first = ended_run(tmp_path / "run", "excluded")
    clerk = run.clerk()
    clerk.attend(run.round)
    second = run.ask(3, 4)
    run.unlearn(second)
    run.end(second, "forgotten-unrecovered")
    clerk.attend(run.round)
    found = documents(run)
    title = "Not forgotten: only excluded from training"
    expected = [{"request": first, "state": "excluded", "title": title, "sha256": digest(found[first])}]
    assert found[second]["related"]["earlier_certificates"] == expected
    assert found[first]["related"]["earlier_certificates"] == []


def test_many_requests_that_end_at_once_are_certified_in_one_visit(tmp_path: Path) -> None:
    run = LiveRun(tmp_path / "run")
    run.train(range(6), 2)
    requests = [run.ask(client) for client in range(5)]
    run.unlearn(*requests)
    for request in requests:
        run.end(request, "forgotten")
    Clerk(run.folder, run.ledger, BRANCH, run.experiment, KEY, clock=run.clock).attend(run.round)
    found = documents(run)
    assert set(found) == set(requests)
    for request in requests:
        assert found[request]["related"]["same_step"] == sorted(set(requests) - {request})
        assert found[request]["method"]["step"]["others"] == 4


# -- what somebody put back, or broke ---------------------------------------------------------------------------


def saved_away(run: LiveRun, folder: Path) -> None:
    """Copy checkpoints and stored updates, as a backup has them."""
    for name in ("checkpoints", "stored"):
        shutil.copytree(run.folder / name, folder / name)


def test_what_was_put_away_and_is_there_again_goes_when_a_server_starts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run, request = ended_run(tmp_path / "run", "forgotten")
    saved_away(run, tmp_path / "backup")
    run.clerk().attend(run.round)
    kept = run.checkpoints.rounds()
    shutil.copytree(tmp_path / "backup", run.folder, dirs_exist_ok=True)
    found = [f.text for f in verify(run.folder, public_keys=[KEY.public]) if f.holds is False]
    there_again = [f"checkpoints/federation-r{round:04d}.safetensors" for round in range(4)]
    for name in [*there_again, "stored/client-3.safetensors"]:
        assert f"{name}: is back, although request {request} had it removed" in found
    with caplog.at_level(logging.WARNING):
        run.clerk().attend(run.round)
    assert run.checkpoints.rounds() == kept and not run.raw(update_of(3)) and not run.raw(raw_weights(2))
    assert "federation-r0002.safetensors: is back" in caplog.text
    no_findings(run)


def test_begun_from_a_copy_of_before_the_forgetting_it_goes_once_there_is_a_later_one(tmp_path: Path) -> None:
    run, _ = ended_run(tmp_path / "run", "forgotten")
    saved_away(run, tmp_path / "backup")
    clerk = run.clerk()
    clerk.attend(run.round)
    for name in ("checkpoints", "stored"):
        shutil.rmtree(run.folder / name)
        shutil.copytree(tmp_path / "backup" / name, run.folder / name)
    for round in (4, 5, 6):
        run.checkpoints.delete(round)
    clerk = run.clerk()  # the server begins with round 3, and executes the later ones again as planned
    clerk.attend(3)
    assert run.checkpoints.rounds() == [3] and not run.raw(update_of(3))
    for round in (4, 5):
        run.round = round - 1
        run.save()
        clerk.attend(round)
    assert run.checkpoints.rounds() == [4, 5]


@pytest.mark.parametrize(
    "text",
    [
        '{"kind":' * 100_000,
        "[" * 100_000,
        '{"kind": "certificate of a forget request", "schema": 2}',
        '{"kind": "certificate of a forget request", "schema": 2, "schema": 2}',
        '{"kind": "certificate of a forget request", "schema": ' + "9" * 5000 + "}",
        "null",
        "\ufeff",
        "",
    ],
    ids=lambda text: text[:20] + text[-8:],
)
@pytest.mark.parametrize("running", [False, True])
def test_whatever_stands_in_a_certificates_place_is_set_aside_and_it_is_issued_anew(
    tmp_path: Path, text: str, running: bool
) -> None:
    run, request = ended_run(tmp_path / "run", "forgotten")
    clerk = run.clerk()
    clerk.attend(run.round)
    path = run.folder / "certificates" / f"{request}.json"
    before = path.read_text()
    path.write_text(text)
    found = [f.text for f in verify(run.folder, public_keys=[KEY.public]) if f.holds is False]
    assert any(f"{path.name}: " in line and "\n" not in line for line in found)
    if running:  # another request names the same client, and its certificate that one
        second = run.ask(3, 4)
        run.unlearn(second)
        run.end(second, "forgotten")
        clerk.attend(run.round)
        clerk.attend(run.round)
    else:
        run.clerk().attend(run.round)
    assert path.with_suffix(".damaged").read_text() == text
    assert json.loads(path.read_text())["request"] == json.loads(before)["request"]
    no_findings(run)


def test_a_seal_that_cannot_be_read_is_told_of_once_and_not_in_every_round(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run, _ = ended_run(tmp_path / "run", "forgotten")
    run.clerk().attend(run.round)
    run.ledger.store.rows("UPDATE seals SET document = '?' WHERE round = 1")
    clerk = run.clerk()
    for round in (2, 3):  # as restored from a copy: the weights are from before the forgetting
        clerk.attend(round)
    assert len([line for line in caplog.messages if "seal of round 1" in line]) == 1
