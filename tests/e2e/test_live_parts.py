"""A live federation that is asked to forget parts of clients' data, beside the same requests in a script."""

import json
import multiprocessing
import os
import shutil
import signal
from pathlib import Path

import pytest
import torch

from fedunlearn import config, workspace
from fedunlearn.certificates import certificate
from fedunlearn.certificates.verification import verify
from fedunlearn.evaluation.accuracy import quality
from fedunlearn.evaluation.outputs import predict
from fedunlearn.evaluation.scored import Scored
from fedunlearn.live.hooks import LiveConduct
from fedunlearn.live.local import run_live
from fedunlearn.requests import LIVE_BRANCH, Intake, Ledger
from fedunlearn.runs.checkpoints import Checkpoints, weights_hash
from fedunlearn.runs.directory import run_name
from tests.e2e.live_server import arm
from tests.e2e.tiny import PARTS_TIMELINE, TINY, run, tiny

PROCESSES = multiprocessing.get_context("spawn")
SCRIPT = {
    1: ({"clients": [1], "samples": 0.5}, {"clients": [1], "classes": [1, 2]}),
    2: ({"clients": [1]},),
    3: ({"clients": None, "classes": [0]},),
}
"""After which round who asks for what: the requests of PARTS_TIMELINE."""
METHODS = {
    "puf-special-2": '{name = "puf"}',
    "puf-regular-3": '{name = "puf", mode = "regular", scale = 3}',
    "natural": '{name = "natural"}',
    "random-label": (
        '{name = "local-routine", routine = "random-label", settings = {epochs = 1, batch-size = 8}}'
    ),
}
LIVE = (
    "method = [METHOD]\n"
    + TINY.replace("targets = [[1]]\n", "").partition("[[method]]")[0]
    + '[recover]\nuntil = "max-rounds"\nmax-rounds = 3\n[requests]\nduring-recovery = "join"\n'
)


@pytest.fixture(autouse=True)
def _no_disk(monkeypatch):
    monkeypatch.setattr("os.fsync", lambda descriptor: None)  # power cuts are for tests/requests
    monkeypatch.delenv("FEDUNLEARN_SIGNING_KEY", raising=False)


def live_experiment(label="puf-special-2", *overrides):
    return config.loads(LIVE.replace("METHOD", METHODS[label]), overrides=overrides)


class Asked:
    """Lets a run be asked for what a script says, each time that a round is complete; once, however often it is."""

    def __init__(self, folder, script):
        self.ledger, self.script, self.original = folder / "requests.sqlite", script, LiveConduct.next_round

    def __enter__(self):
        def next_round(conduct, round, *args):
            with Ledger(self.ledger) as ledger:
                intake = Intake(ledger, num_clients=4)
                for number, wanted in enumerate(self.script.get(round - 1, ())):
                    key = f"{round}-{number}"
                    intake.ask(**wanted, source="cli", actor="operator:test", idempotency_key=key)
            return self.original(conduct, round, *args)

        LiveConduct.next_round = next_round

    def __exit__(self, *_):
        LiveConduct.next_round = self.original


def live(experiment, out, script=SCRIPT):
    out.mkdir(exist_ok=True)
    folder = out / run_name(experiment)
    with Asked(folder, script):
        assert run_live(experiment, out=out, resume=True) == folder
    return folder


def weights(folder, branch=LIVE_BRANCH):
    kept = Checkpoints(folder / "checkpoints", branch)
    return {round: kept.load(round) for round in kept.rounds()}


def requests_of(folder):
    with Ledger(folder / "requests.sqlite") as ledger:
        assert ledger.check_trail(LIVE_BRANCH) == []
        return ledger.requests(LIVE_BRANCH)


@pytest.fixture(scope="module")
def scripted(tmp_path_factory):
    return run(tiny('recover.until="max-rounds"', text=PARTS_TIMELINE), tmp_path_factory.mktemp("scripted"))


@pytest.mark.capability("routine")
@pytest.mark.parametrize("label", list(METHODS))
def test_asked_live_it_ends_in_the_weights_of_the_same_requests_in_a_script(scripted, label, tmp_path):
    folder = live(live_experiment(label, 'retention.earlier="keep"'), tmp_path)
    asked_live, in_a_script = weights(folder), weights(scripted, f"{label}-timeline-s1")
    common = sorted(asked_live.keys() & in_a_script.keys())
    assert common[0] <= 2 and common[-1] >= 6
    for round in common:
        one, other = asked_live[round], in_a_script[round]
        assert weights_hash(one.vector, one.buffers) == weights_hash(other.vector, other.buffers), round
    ends = {r.state for r in requests_of(folder)}
    assert ends == ({"excluded"} if label == "natural" else {"forgotten", "superseded"})


@pytest.fixture(scope="module")
def lived(tmp_path_factory):
    experiment = live_experiment("puf-special-2", 'retention.earlier="keep"')
    return experiment, live(experiment, tmp_path_factory.mktemp("lived"))


def test_the_record_alone_ends_in_the_same_weights(lived, tmp_path):
    experiment, folder = lived
    again = tmp_path / folder.name
    again.mkdir()
    with Ledger(folder / "requests.sqlite") as ledger, Ledger(again / "requests.sqlite") as copy:
        copy.load(LIVE_BRANCH, ledger.export(LIVE_BRANCH))
        assert copy.parts(LIVE_BRANCH) == ledger.parts(LIVE_BRANCH) and len(copy.parts(LIVE_BRANCH)) == 6
    live(experiment, tmp_path, script={})
    one, other = weights(folder), weights(again)
    assert one.keys() == other.keys()
    for round in one:
        assert torch.equal(one[round].vector, other[round].vector) and one[round].meta == other[round].meta


def _killed(out, point, n):
    os.fsync = lambda descriptor: None
    torch.set_num_threads(1)
    arm(point, n)
    live(live_experiment("puf-special-2", 'retention.earlier="keep"'), Path(out))


@pytest.mark.slow
def test_killed_servers_leave_the_same_weights(lived, tmp_path):
    """SIGKILL before a plan that forgets parts is executed, in the middle of it, and once it is saved."""
    experiment, folder = lived
    lives = [
        (("after", "the plan of an unlearning round is committed"), 1),
        (("before", "what was measured of requests is noted"), 2),
        (("after", "the checkpoint is published"), 2),
    ]
    for point, n in lives:
        process = PROCESSES.Process(target=_killed, args=(str(tmp_path), point, n))
        process.start()
        process.join(120)
        assert process.exitcode == -signal.SIGKILL, point
    again = live(experiment, tmp_path)
    one, other = weights(folder), weights(again)
    assert one.keys() == other.keys()
    assert all(torch.equal(one[round].vector, other[round].vector) for round in one)
    told = [
        [(r.clients, r.parts, r.state, r.unlearned_round) for r in requests_of(f)] for f in (folder, again)
    ]
    assert told[0] == told[1]


def test_what_was_measured_is_of_the_part_alone(lived):
    """By hand: the part's rows, by the weights before and after the step."""
    experiment, folder = lived
    data = workspace.data_of(experiment, 1)
    request = requests_of(folder)[0]
    (part,) = request.parts
    images, labels = data.client(1)
    rows = torch.from_numpy(part.rows(labels.numpy(), 1))
    assert 0 < len(rows) < len(labels)
    model = workspace.new_model(experiment, data, 1)
    with Ledger(folder / "requests.sqlite") as ledger:
        measured = ledger.measures(LIVE_BRANCH, request.id)
    for stage, round in (("before", request.unlearned_round - 1), ("unlearned", request.unlearned_round)):
        snapshot = weights(folder)[round]
        model.load(snapshot.vector, snapshot.buffers)
        scored: Scored = predict_of(model, images[rows], labels[rows])
        values = measured[stage]["clients"][str(part.number)]["values"]
        assert values["forget_accuracy"] == pytest.approx(quality(scored)), stage
    assert measured["unlearned"]["told"] == [], "its client goes on with the rest"


def predict_of(model, images, labels):
    from fedunlearn.evaluation.outputs import SplitOutputs

    return SplitOutputs(predict(model.module, images), labels)


def test_measured_by_the_clients_it_recovers_to_what_they_keep(tmp_path):
    """The reference, too, is of what they keep: the model before the step, without what the step forgets."""
    experiment = live_experiment("puf-special-2", 'requests.validation="clients"', 'retention.earlier="keep"')
    folder = live(experiment, tmp_path, {1: ({"clients": [1], "samples": 0.5},)})
    (request,) = requests_of(folder)
    data, model = (
        workspace.data_of(experiment, 1),
        workspace.new_model(experiment, workspace.data_of(experiment, 1), 1),
    )
    kept = []
    for client in range(4):
        labels = data.client(client)[1].numpy()
        gone = request.parts[0].rows(labels, 1) if client == 1 else []
        kept += [data.clients[client][i] for i in range(len(labels)) if i not in set(gone)]
    rows = torch.tensor(kept)
    images, labels = data.train_images[rows], data.train_labels[rows]
    with Ledger(folder / "requests.sqlite") as ledger:
        measured = ledger.measures(LIVE_BRANCH, request.id)
    for stage, round in (("before", request.unlearned_round - 1), ("unlearned", request.unlearned_round)):
        snapshot = weights(folder)[round]
        model.load(snapshot.vector, snapshot.buffers)
        expected = quality(predict_of(model, images, labels))
        assert measured[stage]["validation"]["accuracy"] == pytest.approx(expected, abs=1e-4), stage


def test_every_request_has_a_certificate_that_says_what_was_asked(lived):
    _, folder = lived
    assert [finding.text for finding in verify(folder) if finding.holds is False] == []
    documents = [certificate.read(folder / "certificates" / f"{r.id}.json") for r in requests_of(folder)]
    said = [document["outcome"]["meaning"][0] for document in documents]
    assert "from 50 % of the samples of client 1, by" in said[0]
    assert "from classes 1, 2 of client 1, by" in said[1]
    assert "from client 1, by" in said[2]
    assert "from class 0 of clients 0, 2 and 3, by" in said[3]
    assert "Class 0 of client 1 had already been forgotten" in said[3]
    # Its recovery was taken over by the request that forgot its client as a whole.
    assert "Client 1 has been forgotten entirely because of" in documents[0]["outcome"]["meaning"][1]
    for request, document in zip(requests_of(folder), documents, strict=True):
        page = (folder / "certificates" / f"{request.id}.html").read_text()
        words = document["request"]
        assert words["clients"] == list(request.owners), "numbers of parts are for the ledger"
        for number in request.clients:
            if request.parts:
                assert f"client {number}<" not in page and f"client {number}:" not in page
    taken = documents[0]["participation"]["4"]
    assert (taken["rounds"], taken["first"], taken["last"], taken["planned_after_end"]) == (1, 1, 1, 0)


@pytest.mark.parametrize("edit", ["parts", "classes", "clients"])
def test_a_certificate_that_names_other_data_is_found(lived, tmp_path, edit):
    _, folder = lived
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    request = next(r for r in requests_of(folder) if r.parts and r.parts[0].classes)
    path = copy / "certificates" / f"{request.id}.json"
    document = json.loads(path.read_text())
    if edit == "parts":
        del document["request"]["parts"]
    else:
        document["request"]["parts"][0] |= {"client": 3} if edit == "clients" else {"classes": [3]}
    path.write_text(json.dumps(document))
    bad = [finding.text for finding in verify(copy) if finding.holds is False]
    assert any(
        f"{path.name}: its request" in text and "differs from ledger and settings" in text for text in bad
    )


NONE = 1e-6
"""A share that is no row of anybody's."""


@pytest.mark.slow
@pytest.mark.parametrize("label", list(METHODS))
@pytest.mark.parametrize(
    ("named", "there", "end"),
    [
        ({"samples": [999_999]}, {"samples": NONE}, "excluded"),
        ({"classes": [77]}, {"samples": NONE}, "excluded"),
        ({"samples": [3, 1, 999_999]}, {"samples": [1, 3]}, "forgotten"),
        ({"classes": [2, 77]}, {"classes": [2]}, "forgotten"),
    ],
    ids=["row", "class", "rows", "classes"],
)
def test_of_rows_and_classes_that_a_client_does_not_have_it_forgets_what_it_has(
    label, named, there, end, tmp_path
):
    """As if nothing else had been named; it trains on with the rest, and the run ends."""
    one, other = (
        live(live_experiment(label), tmp_path / what, {1: ({"clients": [0], **wanted},)})
        for what, wanted in (("named", named), ("there", there))
    )
    (asked,) = requests_of(one)
    assert asked.state == ("excluded" if label == "natural" else end)
    with Ledger(one / "requests.sqlite") as ledger:
        rounds = ledger.plans(LIVE_BRANCH)
        assert not any(record.failed for record in rounds) and 0 in rounds[-1].plan["train"]
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[round].vector, theirs[round].vector) for round in ours)
