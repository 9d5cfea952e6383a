"""Answers of clients that cannot be read, or are to something else than was asked: refused by name."""

import json
import math
from dataclasses import replace

import pytest
import torch
from flwr.app import Array, ConfigRecord, MetricRecord

from fedunlearn.federation.answers import FORGET, RAN, WORK
from fedunlearn.federation.hosted_routine import Chosen
from fedunlearn.requests import LIVE_BRANCH
from fedunlearn.runs.metrics_log import MetricsLog
from fedunlearn.runs.round_metrics import round_metrics
from fedunlearn.strategies.local_routine import LocalRoutine
from fedunlearn.strategies.puf import PUF
from fedunlearn.strategies.retrain import Retrain
from tests.federation.contributions import bits
from tests.live.living import Living
from tests.server.tiny import Clients, Federation, initial_state, only, raising, settings

TOLERANT = settings(quorum=0.5)


def absent():
    """Return the federation in which client 4 does not take part."""
    made = Federation(start=initial_state(dtype=torch.float64), settings=TOLERANT)
    return made.run(Retrain, 2, excluded=[4])


def rewriting(change, *, client=4, kind=None):
    """Return clients of which one rewrites what it sends."""

    def rewritten(round, k, asked, content):
        if k == client and kind in (None, asked):
            change(content)

    return Clients(rewritten=rewritten)


def without(name):
    return lambda content: content.__delitem__(name)


def as_list(name):
    return lambda content: content["metrics"].__setitem__(name, [0.5, 0.5])


def as_bytes(change):
    """Return a change of the update's bytes on a wire."""

    def rewrite(content):
        array = content["arrays"]["parameters"]
        content["arrays"]["parameters"] = Array(array.dtype, array.shape, array.stype, change(array.data))

    return rewrite


def as_array(**fields):
    """Return a change of what the update says that it is."""

    def rewrite(content):
        array = content["arrays"]["parameters"]
        told = {
            "dtype": array.dtype,
            "shape": array.shape,
            "stype": array.stype,
            "data": array.data,
            **fields,
        }
        content["arrays"]["parameters"] = Array(**told)

    return rewrite


UNREADABLE = {
    "no arrays": (without("arrays"), "the answer holds no arrays/parameters"),
    "no metrics": (without("metrics"), "num-examples = None, must be a whole number"),
    "cut off": (
        as_bytes(lambda data: data[:-3]),
        "update of 165 bytes, not what np.save writes for the model's (5,)",
    ),
    "garbage": (as_bytes(lambda data: b"garbage"), "update of 7 bytes, not what np.save writes"),
    "no bytes": (as_bytes(lambda data: b""), "update of 0 bytes"),
    "too long": (as_bytes(lambda data: data + b"x"), "update of 169 bytes"),
    "a dtype that is a string": (
        as_array(dtype="<U5"),
        "update of shape (5,) and '<U5', the model's is (5,)",
    ),
    "a serialisation of its own": (
        as_array(stype="pickle"),
        "update serialised as 'pickle', must be 'numpy.ndarray'",
    ),
    "a huge shape": (as_array(shape=(10**18,)), "update of shape (1000000000000000000,) and 'float64'"),
    "a loss that is a list": (as_list("train-loss"), "train-loss = [0.5, 0.5], must be a number"),
    "examples in a list": (as_list("num-examples"), "num-examples = [0.5, 0.5], must be a whole number"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_cannot_be_read_is_refused_and_the_round_goes_on(name):
    change, why = UNREADABLE[name]
    made = Federation(clients=rewriting(change), start=initial_state(dtype=torch.float64), settings=TOLERANT)
    made.run(Retrain, 2)
    others = absent()
    for t in (1, 2):
        ((client, reason),) = made.report(t).failed.items()
        assert client == 4
        assert reason.startswith(f"refused: {why}")
        assert bits(made.weights(t)) == bits(others.weights(t))


# -- an answer to something else than was asked --------------------------------------------------------------


def saying(**work):
    """Return a change of what a reply says that it is."""

    def rewrite(content):
        content[WORK] = ConfigRecord({**content[WORK], **work})

    return rewrite


OTHER = {
    "weights": (saying(carries="weights"), "the reply carries 'weights' instead of 'update'"),
    "what is unheard of": (saying(carries=7), "the reply carries 7 instead of 'update'"),
    "a routine": (
        saying(ran='{"name": "fine-tune"}'),
        "the client ran '{\"name\": \"fine-tune\"}' instead of 'train'",
    ),
    "nothing of it": (
        without(WORK),
        "the reply does not say what it carries and what was run (record 'work')",
    ),
}


@pytest.mark.parametrize("name", OTHER)
def test_a_reply_of_other_work_is_refused_by_name(name):
    change, why = OTHER[name]
    made = Federation(clients=rewriting(change), start=initial_state(dtype=torch.float64), settings=TOLERANT)
    made.run(Retrain, 1)
    others = absent()
    assert made.report(1).failed == {4: f"refused: not what was asked: {why}"}
    assert bits(made.weights(1)) == bits(others.weights(1))


@pytest.mark.parametrize("name", OTHER)
def test_so_is_one_to_a_forgetting_and_the_request_fails_with_the_reason(name):
    change, why = OTHER[name]
    made = Federation(clients=rewriting(change, kind=FORGET), settings=TOLERANT)
    made.submit("r1", (4,), 1)
    made.run(PUF, 5)
    assert [state for state, _ in made.life("r1")] == [
        "received",
        *(["scheduled", "unlearning", "waiting"] * 2),
        *("scheduled", "unlearning", "failed"),
    ]
    detail = [e.detail for e in made.ledger.audit("tiny") if e.to_state == "failed"]
    assert detail == [f"client 4: refused: not what was asked: {why}"]
    assert made.progress("r1").unlearned_round is None


def ignoring(content):
    """Answer as a client does that trains whatever it is asked to."""
    saying(ran="train")(content)


def test_a_client_that_trains_instead_of_running_the_routine_is_not_forgotten():
    made = Federation(clients=rewriting(ignoring, kind=FORGET), settings=TOLERANT)
    made.submit("r1", (4,), 1)
    made.run(LocalRoutine, 5, routine="fine-tune")
    assert [made.clients.of_round(t, FORGET) for t in (2, 3, 4, 5)] == [[4], [4], [4], []]
    assert made.life("r1")[-1] == ("failed", 4)
    (detail,) = [e.detail for e in made.ledger.audit("tiny") if e.to_state == "failed"]
    assert detail.startswith(
        "client 4: refused: not what was asked: the client ran 'train' instead of '{\"name\": "
    )
    assert bits(made.weights(4)) == bits(made.weights(1)), "nothing of what it sent has been applied"


def test_nor_one_that_runs_it_with_other_settings():
    def milder(content):
        chosen = Chosen.loads(content[WORK][RAN])
        other = Chosen(chosen.name, replace(chosen.settings, epochs=chosen.settings.epochs + 1))
        saying(ran=other.dumps())(content)

    made = Federation(clients=rewriting(milder, kind=FORGET), settings=TOLERANT)
    made.submit("r1", (4,), 1)
    made.run(LocalRoutine, 5, routine="fine-tune")
    assert made.life("r1")[-1] == ("failed", 4)
    assert made.progress("r1").unlearned_round is None


def test_one_that_runs_it_is():
    made = Federation(settings=TOLERANT)
    made.submit("r1", (4,), 1)
    made.run(LocalRoutine, 3, routine="fine-tune")
    assert made.progress("r1").unlearned_round == 2


def test_a_request_whose_client_never_answers_says_so():
    made = Federation(
        clients=Clients(only(raising(OSError("/data/patient-17.nii")), client=4)), settings=TOLERANT
    )
    made.submit("r1", (4,), 1)
    made.run(PUF, 6)
    (detail,) = [e.detail for e in made.ledger.audit("tiny") if e.to_state == "failed"]
    assert detail == "client 4: its node answered with an error", (
        "what it says of its files stays out of the trail"
    )


@pytest.mark.parametrize("offline", ["wait", "stored"])
def test_in_a_live_federation_it_fails_too_unless_a_stored_update_can_stand_in(
    tmp_path, monkeypatch, offline
):
    """It would go on doing so; nobody must wait for ever, and never is it called forgotten."""
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    clients = rewriting(saying(ran="fine-tune"), kind=FORGET)
    rules = {"offline": offline, "store-updates": offline == "stored"}
    federation = Living(tmp_path, clients=clients, rules=rules, rounds=6)
    federation.at_round(1, lambda: federation.ask(4))
    federation.serve()
    (request,) = federation.ledger.requests(LIVE_BRANCH)
    if offline == "stored":
        assert request.state == "forgotten"
        assert [r.unanswered for r in federation.strategy.requests] == [3]
    else:
        assert request.state == "failed"
        (detail,) = [e.detail for e in federation.ledger.audit(LIVE_BRANCH) if e.to_state == "failed"]
        assert (
            detail == "client 4: refused: not what was asked: the client ran 'fine-tune' instead of 'train'"
        )
        assert len([a for a in clients.asked if a.kind == FORGET]) == 3
    assert 4 not in federation.clients.of_round(6)


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf, None])
def test_a_loss_that_is_no_number_counts_for_nothing_and_its_update_counts(loss, tmp_path):
    """It is only reported; one number that is none would make metrics.jsonl unreadable to others."""

    def change(content):
        metrics = {k: v for k, v in content["metrics"].items() if k != "train-loss"}
        content["metrics"] = MetricRecord(metrics if loss is None else {**metrics, "train-loss": loss})

    made = Federation(clients=rewriting(change), start=initial_state(dtype=torch.float64)).run(Retrain, 1)
    honest = Federation(start=initial_state(dtype=torch.float64)).run(Retrain, 1)
    assert bits(made.weights(1)) == bits(honest.weights(1))
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.append(round_metrics("tiny", made.report(1)))
    told = [json.loads(line, parse_constant=pytest.fail) for line in (tmp_path / "metrics.jsonl").open()]
    assert [line["entity"] for line in told if line["metric"] == "loss"] == [
        f"client-{k}" for k in (0, 1, 2, 3, 5)
    ]
    losses = [1 / (1 + k) for k in (0, 1, 2, 3, 5)]
    assert made.result.train_metrics_clientapp[1]["train-loss"] == pytest.approx(sum(losses) / 5)
