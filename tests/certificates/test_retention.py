"""What retention puts away: read from the raw files, not from what is said about them."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedunlearn.certificates import certificate
from fedunlearn.certificates.retention import (
    checkpoint_round,
    earlier_files,
    inventory,
    purge,
    quarantine,
    stored_round,
)
from fedunlearn.certificates.verification import verify
from fedunlearn.federation.sums import Contribution
from fedunlearn.live.stored_updates import StoredUpdates
from fedunlearn.runs.history_files import HistoryFile
from tests.certificates.live_run import (
    BRANCH,
    KEY,
    REMEMBERING,
    RETURNING,
    LiveRun,
    ended_run,
    raw_result,
    raw_weights,
    result_of,
    stored_update,
    update_of,
    weights_after,
)
from tests.profiles import some

UNLEARNED = 4


def holds(run: LiveRun, request: str) -> dict[str, str]:
    record = run.ledger.request(BRANCH, request)
    found = inventory(run.folder, BRANCH, clients=record.clients, unlearned_round=record.unlearned_round)
    return {kept.place: kept.holds for kept in found}


def test_purged_files_leave_neither_update_nor_earlier_weights(tmp_path: Path) -> None:
    run, request = ended_run(tmp_path / "run", "forgotten")
    (run.folder / "checkpoints" / ".federation-r0002.safetensors.ab12.tmp").write_bytes(raw_weights(2))
    assert run.raw(update_of(3)) and all(run.raw(raw_weights(round)) for round in range(UNLEARNED))
    assert set(holds(run, request).values()) >= {"update", "earlier-weights"}
    run.clerk().attend(run.round)
    assert run.raw(update_of(3)) == []
    assert [run.raw(raw_weights(round)) for round in range(UNLEARNED)] == [[]] * UNLEARNED
    assert run.raw(update_of(2)) and run.raw(raw_weights(run.round))
    assert not set(holds(run, request).values()) & {"update", "earlier-weights", "unknown"}


def test_quarantined_files_are_in_quarantine_and_nowhere_else(tmp_path: Path) -> None:
    run, request = ended_run(tmp_path / "run", "forgotten", 'retention.earlier="quarantine"')
    run.clerk().attend(run.round)
    assert run.raw(update_of(3)) == ["quarantine/stored/client-3.safetensors"]
    assert run.raw(raw_weights(2)) == ["quarantine/checkpoints/federation-r0002.safetensors"]
    assert holds(run, request)["quarantine/"] == "earlier-weights"  # the last of two kinds there


def test_quarantine_may_lie_outside_and_a_relative_one_lies_inside(tmp_path: Path) -> None:
    outside = tmp_path / "vault"
    run, _ = ended_run(
        tmp_path / "run", "forgotten", f'retention={{earlier="quarantine",quarantine="{outside}"}}'
    )
    run.clerk().attend(run.round)
    assert run.raw(update_of(3)) == []
    assert (outside / "stored" / "client-3.safetensors").read_bytes() == stored_update(3, 3)
    other, _ = ended_run(
        tmp_path / "other", "forgotten", 'retention={earlier="quarantine",quarantine="vault"}'
    )
    other.clerk().attend(other.round)
    assert other.raw(update_of(3)) == ["vault/stored/client-3.safetensors"]


def test_keep_keeps_everything_and_the_inventory_says_so(tmp_path: Path) -> None:
    run, request = ended_run(tmp_path / "run", "forgotten", 'retention.earlier="keep"')
    before = sorted(run.folder.rglob("*.safetensors"))
    run.clerk().attend(run.round)
    assert sorted(run.folder.rglob("*.safetensors")) == before
    assert set(holds(run, request).values()) >= {"update", "earlier-weights"}


@pytest.mark.parametrize("state", ["withdrawn", "refused", "failed", "duplicate"])
def test_a_request_that_was_not_fulfilled_takes_nothing_away(tmp_path: Path, state: str) -> None:
    run, _ = ended_run(tmp_path / "run", state)
    before = sorted(run.folder.rglob("*.safetensors"))
    run.clerk().attend(run.round)
    assert sorted(run.folder.rglob("*.safetensors")) == before


def test_an_excluded_clients_update_goes_and_the_checkpoints_stay(tmp_path: Path) -> None:
    run, request = ended_run(tmp_path / "run", "excluded")
    run.clerk().attend(run.round)
    assert run.raw(update_of(3)) == []
    assert all(run.raw(raw_weights(round)) for round in range(run.round + 1))
    assert set(holds(run, request).values()) == {"weights", "record"}


@some
@given(
    rounds=st.sets(st.integers(0, 30), min_size=1, max_size=6),
    unlearned=st.none() | st.integers(0, 40),
    stored=st.sets(st.integers(0, 12), max_size=5),
    clients=st.sets(st.integers(0, 12), min_size=1, max_size=5),
)
def test_never_the_newest_checkpoint_never_anothers_update(
    tmp_path_factory: pytest.TempPathFactory,
    rounds: set[int],
    unlearned: int | None,
    stored: set[int],
    clients: set[int],
) -> None:
    run = tmp_path_factory.mktemp("run")
    for folder in ("checkpoints", "stored"):
        (run / folder).mkdir()
    for round in rounds:
        for ending in ("safetensors", "json"):
            (run / "checkpoints" / f"federation-r{round:04d}.{ending}").touch()
    for client in stored:
        (run / "stored" / f"client-{client}.safetensors").touch()
    purge(earlier_files(run, "federation", unlearned_round=unlearned, clients=clients))
    left = {checkpoint_round(path.name, "federation") for path in (run / "checkpoints").iterdir()}
    assert left == {r for r in rounds if unlearned is None or r >= unlearned or r == max(rounds)}
    assert {path.name for path in (run / "stored").iterdir()} == {
        f"client-{client}.safetensors" for client in stored - clients
    }


@pytest.mark.parametrize(
    "name",
    ["federation2-r0001.safetensors", "r0001.safetensors", "federation-r0001.safetensors.bak", "x.json"],
)
def test_what_is_no_checkpoint_of_the_federation_is_not_touched(tmp_path: Path, name: str) -> None:
    (tmp_path / "checkpoints").mkdir()
    for place in (name, "federation-r0009.safetensors"):
        (tmp_path / "checkpoints" / place).touch()
    assert earlier_files(tmp_path, "federation", unlearned_round=9, clients=[1]) == []
    assert "unknown" in {
        kept.holds for kept in inventory(tmp_path, "federation", clients=[1], unlearned_round=9)
    }


def test_whatever_lies_in_a_run_directory_is_listed(tmp_path: Path) -> None:
    run, request = ended_run(tmp_path / "run", "forgotten")
    (run.folder / "notes.txt").write_text("of client 3")
    (run.folder / "copies").mkdir()
    (run.folder / "copies" / "weights.pt").touch()
    line = '{{"branch": "federation", "round": 1, "entity": "client-{}", "value": 1.0}}\n'
    (run.folder / "metrics.jsonl").write_text(line.format(3) + line.format(33) + line.format(3))
    listed = holds(run, request)
    assert listed["notes.txt"] == listed["copies/"] == "unknown"
    assert listed["metrics.jsonl"] == "numbers" and listed["requests.sqlite"] == "record"
    record = run.ledger.request(BRANCH, request)
    texts = [k.about for k in inventory(run.folder, BRANCH, clients=record.clients, unlearned_round=4)]
    assert any(text.startswith("2 numbers") for text in texts)


def test_moving_again_after_a_crash_loses_nothing(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "stored").mkdir(parents=True)
    files = [run / "stored" / f"client-{client}.safetensors" for client in (1, 2)]
    for path in files:
        path.write_text(path.name)
    quarantine(files[:1], run, run / "quarantine")
    quarantine(files, run, run / "quarantine")
    for path in files:
        assert not path.exists()
        assert (run / "quarantine" / "stored" / path.name).read_text() == path.name


def test_of_a_part_only_updates_from_before_it_was_left_out_are_put_away(tmp_path: Path) -> None:
    """Stored updates say of which round they are; one that does not is put away."""
    kept = StoredUpdates(tmp_path / "stored")
    for client, round in ((0, 4), (1, 5), (3, 4)):
        kept.keep(round, [Contribution(client, 7, torch.ones(3))])
    kept.path(2).write_bytes(b"torn")
    assert [stored_round(kept.path(k)) for k in range(4)] == [4, 5, None, 4]
    told = {"clients": {0, 1, 2}, "unlearned_round": 5, "spared_from": 5}
    assert earlier_files(tmp_path, BRANCH, **told) == [kept.path(0), kept.path(2)]
    held = {(k.place, k.holds) for k in inventory(tmp_path, BRANCH, **told)}
    assert ("stored/client-0.safetensors … client-2.safetensors", "update") in held
    assert ("stored/client-1.safetensors … client-3.safetensors", "weights") in held


RECORDS = {
    "requests.sqlite": "the ledger: client numbers, requests, plans of rounds and the trail",
    "roster.toml": "the roster: client numbers, public keys and hashes of door tokens",
    "partition.json": "which examples of a simulated data set each client was given",
    "branches.json": "which branches were computed",
    "begun.json": "which branches were begun",
    "supervisor.json": "which Flower run the supervisor submitted last; nothing of a client",
}


def test_records_are_told_from_files_that_nobody_knows(tmp_path: Path) -> None:
    for name in (*RECORDS, "notes.txt"):
        (tmp_path / name).touch()
    found = {kept.place: kept for kept in inventory(tmp_path, BRANCH, clients=[3], unlearned_round=None)}
    assert {place: kept.holds for place, kept in found.items()} == {
        **dict.fromkeys(RECORDS, "record"),
        "notes.txt": "unknown",
    }
    assert {place: found[place].about for place in RECORDS} == RECORDS


# -- what is kept of earlier rounds -------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", ["purge", "quarantine", "keep"])
def test_results_of_whom_a_request_names_go_and_others_stay(tmp_path: Path, policy: str) -> None:
    run, _ = ended_run(tmp_path / "run", "forgotten", REMEMBERING, f'retention.earlier="{policy}"')
    mine = [f"history/federation/all-updates/round-00000{t}/client-3@00000{t}.safetensors" for t in (1, 2, 3)]
    before = sorted((run.folder / "history").rglob("*.safetensors"))
    assert [run.raw(raw_result(3, t)) for t in (1, 2, 3)] == [[place] for place in mine]
    (run.folder / mine[0]).with_name(".client-3@000001.safetensors.ab.tmp").write_bytes(raw_result(3, 1))
    run.clerk().attend(run.round)
    there = {
        "purge": [],
        "quarantine": [[f"quarantine/{place}"] for place in mine],
        "keep": [[m] for m in mine],
    }
    found = [[at for at in run.raw(raw_result(3, t)) if not at.endswith(".tmp")] for t in (1, 2, 3)]
    assert found == (there[policy] or [[]] * 3)
    gone = set() if policy == "keep" else {run.folder / place for place in mine}
    assert {p for p in before if p.exists()} == set(before) - gone
    assert bool(list(run.folder.rglob("*.tmp"))) == (policy == "keep")
    (path,) = certificate.issued(run.folder).values()
    data = certificate.read(path)["data"]
    shown = "history/federation/all-updates/ (3 files)"
    assert (shown in data["moved"]) == (policy == "quarantine")
    assert any(n.startswith("history/federation/all-updates/ (") for n in data["removed"]) == (
        policy != "keep"
    )
    assert (
        "the stored updates of its clients, their results of earlier rounds and temp"
        in data["policy_in_words"]
    )
    holds = [
        (k["holds"], k["files"], k["place"]) for k in data["remaining"] if "results of earlier" in k["about"]
    ]
    assert (
        holds
        == {
            "purge": [],
            "quarantine": [("update", 3, "quarantine/")],
            "keep": [("update", 3, "history/federation/all-updates/")],
        }[policy]
    )
    (others,) = [k for k in data["remaining"] if k["about"].startswith("updates of earlier rounds, of other")]
    assert (others["holds"], others["files"]) == ("weights", 3 * 5 + 2 * 5)
    assert "any from before round 4 was computed from the model of that time" in others["about"]
    assert [f for f in verify(run.folder, public_keys=[KEY.public]) if f.holds is False] == []
    assert run.history.rounds() == (1, 2, 3, 5, 6)
    assert (3 in run.history.clients(2)) == (policy == "keep"), "the method finds what is there"


@pytest.mark.parametrize(
    ("policy", "where"),
    [
        ("purge", "weights from before the step are still in the run directory (3 files"),
        ("quarantine", " are still in quarantine and in the run directory ("),
        ("keep", " are still in the run directory ("),
    ],
)
def test_weights_from_before_the_step_are_named_as_such(tmp_path: Path, policy: str, where: str) -> None:
    """Of last weights those of rounds before the request stay where a client has not trained since."""
    run = LiveRun(tmp_path / "run", RETURNING, f'retention.earlier="{policy}"')
    run.train(range(6), 3)
    request = run.ask(3)
    run.unlearn(request)
    of_client_3 = (weights_after(2) + result_of(3, 3)).numpy().tobytes()
    assert len(run.raw(of_client_3)) == 1
    run.train([0, 1, 2], 2)
    run.end(request, "forgotten")
    run.clerk().attend(run.round)
    document = certificate.read(certificate.issued(run.folder)[request])
    assert any(where in text for text in document["outcome"]["caveats"])
    assert [f for f in verify(run.folder, public_keys=[KEY.public]) if f.holds is False] == []
    mine = {p for p in run.raw(of_client_3) if not p.startswith("quarantine/")}
    assert bool(mine) == (policy == "keep")
    listed = {
        (k["holds"], k["files"], k["about"])
        for k in document["data"]["remaining"]
        if k["place"] == "history/federation/last-weights-models/" and k["holds"] != "update"
    }
    assert listed == {
        (
            "earlier-weights",
            2,  # of clients 4 and 5, of round 3
            "weights of earlier rounds, of other clients, from before the unlearning step; the method forgets by "
            "them",
        ),
        ("weights", 3, "weights of earlier rounds, of other clients, from the unlearning step on"),
        (
            "earlier-weights",
            1,
            "weights that earlier rounds started from, from before the unlearning step; the method forgets by them",
        ),
        ("weights", 1, "weights that earlier rounds started from, from the unlearning step on"),
    }


def test_of_an_excluded_client_nothing_of_earlier_rounds_stays_and_the_models_do(tmp_path: Path) -> None:
    run, request = ended_run(tmp_path / "run", "excluded", RETURNING)
    run.clerk().attend(run.round)
    left = sorted(path.name for path in (run.folder / "history").rglob("*.safetensors"))
    assert left == [*(f"client-{k}@000003.safetensors" for k in (0, 1, 2, 4, 5)), "model@000003.safetensors"]
    data = certificate.read(certificate.issued(run.folder)[request])["data"]
    assert (
        "updates of its clients and their results of earlier rounds (checkpoints stay"
        in data["policy_in_words"]
    )
    assert {k["holds"] for k in data["remaining"] if "history" in k["place"]} == {"weights"}


@some
@given(
    files=st.sets(
        st.tuples(st.integers(1, 6), st.none() | st.integers(0, 3), st.integers(1, 9)).filter(
            lambda f: f[2] >= f[0]
        ),
        max_size=12,
    ),
    clients=st.sets(st.integers(0, 3), min_size=1),
    spared=st.none() | st.integers(1, 9),
)
def test_of_a_part_what_was_written_without_it_stays(
    tmp_path_factory: pytest.TempPathFactory,
    files: set[tuple[int, int | None, int]],
    clients: set[int],
    spared: int | None,
) -> None:
    run = tmp_path_factory.mktemp("run")
    for store in ("all-updates", "last-weights"):
        for of in files:
            path = run / "history" / "federation" / store / HistoryFile(*of).place
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    purge(earlier_files(run, "federation", unlearned_round=5, clients=clients, spared_from=spared))
    stay = {of for of in files if of[1] not in clients or (spared is not None and of[2] >= spared)}
    for store in ("all-updates", "last-weights"):
        left = {
            HistoryFile.of(path) for path in (run / "history" / "federation" / store).rglob("*.safetensors")
        }
        assert left == {HistoryFile(*of) for of in stay}
    assert not [folder for folder in run.rglob("round-*") if not any(folder.iterdir())]


def test_names_and_places_are_the_same_thing() -> None:
    for file in (HistoryFile(3, 12, 40), HistoryFile(1234567, None, 1234567)):
        assert HistoryFile.of(Path("store") / file.place) == file
    for place in (
        "round-000001/client-3.safetensors",
        "round-1/client-3@000001.safetensors",
        "client-3@000001.safetensors",
    ):
        assert HistoryFile.of(Path("store") / place) is None
