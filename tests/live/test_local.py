"""A live federation on this machine: it takes requests while it runs, and goes on where it stopped."""

from dataclasses import replace

import pytest

from fedunlearn import config
from fedunlearn.certificates.keys import new_key
from fedunlearn.errors import RunError, UserError
from fedunlearn.live.local import run_live
from fedunlearn.requests import LIVE_BRANCH, Intake, LeaseHeldError, Ledger
from fedunlearn.runs.checkpoints import Checkpoints, weights_hash
from fedunlearn.runs.metrics_log import read_metrics
from fedunlearn.server.branch import live_branch
from fedunlearn.simulation.branches import branches
from fedunlearn.simulation.progress import Progress
from fedunlearn.simulation.runner import simulate

LIVE = """
name = "live"
[data]
source = "synthetic-images"
num-train = 90
num-test = 20
num-classes = 3
image-size = 4
validation = 0.2
[federation]
num-clients = 4
[model]
name = "mlp"
hidden = [4]
[train]
rounds = 3
batch-size = 8
lr = 0.1
[[method]]
name = "puf"
[recover]
until = "reference-accuracy"
epsilon = 100
max-rounds = 2
[requests]
"""


class Told(Progress):
    """What a user is told."""

    def __init__(self):
        self.notes, self.rounds, self.behind = [], [], None

    def note(self, text):
        self.notes.append(text)

    def branch_begins(self, branch, behind):
        self.behind = behind

    def round_done(self, branch, round, metrics):
        self.rounds.append((branch.name, round, sorted(metrics)))


@pytest.fixture(autouse=True)
def _no_key(monkeypatch):
    monkeypatch.delenv("FEDUNLEARN_SIGNING_KEY", raising=False)


def experiment(*overrides):
    return config.loads(LIVE, overrides=overrides)


def ask(folder, *clients):
    with Ledger(folder / "requests.sqlite") as ledger:
        return Intake(ledger, num_clients=4).ask(clients, source="cli", actor="operator:test").request_id


def latest(folder):
    snapshot = Checkpoints(folder / "checkpoints", LIVE_BRANCH).latest()
    return snapshot.round, weights_hash(snapshot.vector, snapshot.buffers)


@pytest.mark.capability("live")
def test_it_runs_to_its_end_and_serves_what_comes_later(tmp_path):
    told = Told()
    folder = run_live(experiment(), out=tmp_path, progress=told)
    assert [(name, round) for name, round, _ in told.rounds] == [("federation", t) for t in range(4)]
    assert told.rounds[-1][2] == ["validation-accuracy", "validation-loss"]
    assert told.notes[-1] == "requests: none"
    request = ask(folder, 2)
    again = Told()
    assert run_live(experiment(), out=tmp_path, resume=True, progress=again) == folder
    assert again.notes[-1] == "requests: 1 forgotten"
    assert [round for _, round, _ in again.rounds] == [4]
    assert (told.behind, again.behind) == (0, 3)
    assert (folder / "certificates" / f"{request}.json").is_file()
    with Ledger(folder / "requests.sqlite") as ledger:
        assert len(ledger.servers(LIVE_BRANCH)) == 2
        stages = ledger.measures(LIVE_BRANCH, request)
    assert stages["unlearned"]["told"] == [2]
    assert stages["before"]["clients"]["2"]["values"]["forget_accuracy"] is not None


def test_it_trains_as_any_federation_of_the_same_settings_does(tmp_path):
    """Until somebody asks, a live federation is the original federation, to the last bit."""
    live = run_live(experiment(), out=tmp_path / "live")
    scripted = replace(experiment(), requests=None, guard=None, retention=None, targets=((0,),))
    scripted = config.loads(config.to_toml(scripted), overrides=['recover.until="max-rounds"', "cache=false"])
    original, *_ = branches(scripted, 1)
    folder = simulate(scripted, out=tmp_path / "simulated")
    snapshot = Checkpoints(folder / "checkpoints", original.name).load(3)
    assert latest(live) == (3, weights_hash(snapshot.vector, snapshot.buffers))


def refusal(folder, **how):
    """Return why a run in the folder's place is refused, and see that nothing in it was touched."""
    before = {
        p.name: p.stat().st_mtime_ns for p in folder.iterdir() if not p.name.startswith((".", "requests"))
    }
    with pytest.raises(UserError) as caught:
        run_live(experiment(), out=folder.parent, **how)
    after = {
        p.name: p.stat().st_mtime_ns for p in folder.iterdir() if not p.name.startswith((".", "requests"))
    }
    assert after == before
    return str(caught.value)


def test_what_people_asked_for_is_not_deleted_and_no_message_says_how(tmp_path):
    folder = run_live(experiment(), out=tmp_path)
    done = refusal(folder)
    assert done == (
        f"{folder}: holds a live federation that has done its rounds and has no open request; after "
        f"`fedunlearn forget {folder}` add --resume to serve it, or choose another --out"
    )
    request = ask(folder, 1)
    assert refusal(folder) == (
        f"{folder}: holds a live federation after round 3, with 1 open request; add --resume to continue it, or "
        "choose another --out"
    )
    assert refusal(folder, fresh=True) == (
        f"{folder}: --fresh would delete 1 forget request with trail and certificates; choose another --out, or "
        "move the folder away"
    )
    ask(folder, 2)
    assert "delete 2 forget requests" in refusal(folder, fresh=True)
    with Ledger(folder / "requests.sqlite") as ledger:
        assert request in {record.id for record in ledger.requests(LIVE_BRANCH)}


def test_a_live_run_that_nobody_asked_may_be_begun_anew(tmp_path):
    folder = run_live(experiment(), out=tmp_path)
    (folder / "left-behind").touch()
    run_live(experiment(), out=tmp_path, fresh=True)
    assert not (folder / "left-behind").exists()


def test_a_damaged_checkpoint_of_a_live_run_is_restored_and_not_deleted(tmp_path):
    folder = run_live(experiment(), out=tmp_path)
    Checkpoints(folder / "checkpoints", LIVE_BRANCH).path(3).write_bytes(b"torn")
    with pytest.raises(RunError, match=r"is damaged .*; restore it from a backup$"):
        run_live(experiment(), out=tmp_path, resume=True)


def test_without_a_key_it_says_that_nothing_is_signed(tmp_path):
    told = Told()
    run_live(experiment(), out=tmp_path, progress=told)
    assert any("no signing key" in note for note in told.notes)


def test_with_a_key_the_trail_is_signed(tmp_path):
    key = new_key(tmp_path / "key.pem")
    folder = run_live(experiment(), out=tmp_path / "runs", key=tmp_path / "key.pem")
    ask(folder, 2)
    run_live(experiment(), out=tmp_path / "runs", key=tmp_path / "key.pem", resume=True)
    with Ledger(folder / "requests.sqlite") as ledger:
        assert {head.key_id for head in ledger.signed_heads(LIVE_BRANCH)} == {key.key_id}


def test_a_server_elsewhere_that_has_the_lease_is_not_disturbed(tmp_path):
    folder = run_live(experiment(), out=tmp_path)
    with Ledger(folder / "requests.sqlite") as other:
        other.take_lease(LIVE_BRANCH, "elsewhere", seconds=1000)
        with pytest.raises(LeaseHeldError, match="elsewhere"):
            run_live(experiment(), out=tmp_path, resume=True, takeover_seconds=0.0)


def test_it_is_one_federation_of_one_method():
    branch = live_branch(experiment("method[1].mode=regular", "seeds=[7]"))
    assert (branch.name, branch.label, branch.training_seed) == ("federation", "puf-regular-20", 7)
    assert branch.stop_when_recovered
    assert branch.fork_from is None


def test_each_round_is_measured_on_the_validation_split(tmp_path):
    folder = run_live(experiment(), out=tmp_path)
    seen = {
        (m.round, m.split, m.metric) for m in read_metrics(folder / "metrics.jsonl") if m.entity == "server"
    }
    for t in range(4):
        assert (t, "validation", "accuracy") in seen


@pytest.mark.parametrize("validation", ["server", "clients"])
def test_who_measures_changes_no_weights(tmp_path, validation):
    folder = run_live(experiment(f"requests.validation={validation}"), out=tmp_path / "a")
    assert latest(folder) == latest(run_live(experiment(), out=tmp_path / "b"))
