"""What cannot be meant is refused when it is asked for, in one line, before anything is sent."""

import math

import pytest

from fedunlearn.errors import ConfigError, UserError
from fedunlearn.parts import Part, Parts
from fedunlearn.requests import LIVE_BRANCH, Ledger, LedgerError
from fedunlearn.server.recovery import RecoveryRule
from fedunlearn.strategies.puf import PUF, PUFSettings
from fedunlearn.strategies.retrain import Retrain
from tests.live.living import Living
from tests.server.tiny import NUM_CLIENTS, Federation, settings


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (
            lambda: RecoveryRule(until="nonsense"),
            "recover.until = 'nonsense': must be one of 'retrain-accuracy', ",
        ),
        (lambda: RecoveryRule(until=""), "recover.until = '': must be one of"),
        (lambda: RecoveryRule(epsilon=-0.5), "recover.epsilon = -0.5: must be a number >= 0"),
        (lambda: RecoveryRule(epsilon=math.nan), "recover.epsilon = nan: must be a number >= 0"),
        (lambda: RecoveryRule(max_rounds=0), "recover.max-rounds = 0: must be at least 1"),
        (lambda: settings(num_clients=0), "num_clients = 0: must be at least 1"),
        (lambda: settings(participation=0.0), "participation = 0.0: must be above 0 and at most 1"),
        (lambda: settings(participation=60), "participation = 60: must be above 0 and at most 1"),
        (lambda: settings(participation=math.nan), "participation = nan: must be above 0"),
        (lambda: settings(quorum=1.5), "quorum = 1.5: must be between 0 and 1"),
        (lambda: settings(quorum=-0.1), "quorum = -0.1: must be between 0 and 1"),
        (lambda: settings(max_attempts=0), "max_attempts = 0: must be at least 1"),
        (
            lambda: PUFSettings(mode="Special"),
            'mode = "Special" (PUFSettings): must be one of "regular", "special"; did you mean "special"?',
        ),
        (lambda: PUFSettings(scale=-2.0), "scale = -2.0 (PUFSettings): must be >= 0"),
        (lambda: PUFSettings(scale=math.nan), "scale = nan (PUFSettings): must be a finite number"),
        (lambda: PUFSettings(retain_rate=-1.0), "retain_rate = -1.0 (PUFSettings): must be >= 0"),
        (
            lambda: Retrain(settings(), excluded=[NUM_CLIENTS + 1]),
            "excluded: there is no client 7; clients are numbered 0 to 5",
        ),
        (lambda: Retrain(settings(), excluded=[-1]), "excluded: there is no client -1;"),
    ],
)
def test_settings_that_mean_nothing(make, why):
    with pytest.raises(ConfigError) as said:
        make()
    assert str(said.value).startswith(why)
    assert "\n" not in str(said.value)


def test_the_borders_are_allowed():
    RecoveryRule(epsilon=0, max_rounds=1)
    settings(num_clients=1, participation=1, quorum=0, max_attempts=1)
    PUF(settings(), PUFSettings(scale=0, retain_rate=0))
    parts = Parts([Part(NUM_CLIENTS, 2, 0.5)])
    assert Retrain(settings(parts=parts), excluded=[0, NUM_CLIENTS]).excluded == {0, NUM_CLIENTS}


# -- requests --------------------------------------------------------------------------------------------


def test_a_request_for_a_client_that_does_not_exist():
    made = Federation().run(PUF, 1)
    with pytest.raises(LedgerError, match=r"^request 'r1': branch 'tiny' has no client 7$"):
        made.submit("r1", (2, 7), 1)
    assert made.ledger.requests("tiny") == []
    made.submit("r1", (NUM_CLIENTS - 1,), 1)


def test_one_that_was_there_before_is_refused_with_the_strategy():
    made = Federation()
    made.submit("r1", (7,), 1)
    with pytest.raises(
        UserError, match=r"^request 'r1' of branch 'tiny': there is no client 7: clients are num"
    ):
        made.run(PUF, 4)
    assert made.clients.asked == []


def test_one_in_a_branch_that_is_none():
    made = Federation().run(PUF, 1)
    with pytest.raises(
        LedgerError, match=r"^request 'r1': there is no federation 'federation'; there are 'tiny'$"
    ):
        made.ledger.submit("federation", request_id="r1", clients=(2,), at_round=1)


def test_a_ledger_of_several_federations_takes_requests_for_each():
    ledger = Ledger(":memory:")
    one, other = Federation(ledger=ledger, branch="one"), Federation(ledger=ledger, branch="other")
    one.run(PUF, 1)
    other.run(PUF, 1)
    one.submit("r1", (2,), 1)
    other.submit("r1", (3,), 1)
    assert one.run(PUF, 2).progress("r1").clients == (2,)


class _ElsewhereLedger(Ledger):
    """Another process's view of a ledger: it serves no federation, and takes any request."""


def test_one_from_another_process_stalls_no_round(tmp_path):
    path = tmp_path / "requests.sqlite"
    made = Federation(ledger=Ledger(path))

    def ask(round, state):
        if round == 1:
            with _ElsewhereLedger(path) as elsewhere:
                elsewhere.submit("tiny", request_id="r1", clients=(2, 7), at_round=1)
                elsewhere.submit("tiny", request_id="r2", clients=(3,), at_round=1)
        return {}

    made.measure = ask
    made.run(PUF, 3)
    assert made.life("r1") == [("received", 1), ("refused", 2)]
    (refusal,) = [e.detail for e in made.ledger.audit("tiny") if e.to_state == "refused"]
    assert refusal == "there is no client 7: clients are numbered 0 to 5"
    assert made.progress("r2").unlearned_round == 2, "the others' round is not held up"
    assert made.clients.of_round(3) == [0, 1, 2, 4, 5], "client 2 has asked for nothing that could be done"


def test_nor_one_of_a_live_federation(tmp_path, monkeypatch):
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    federation = Living(tmp_path, rounds=4)

    def quality(round, state):
        if round == 1:
            with _ElsewhereLedger(tmp_path / "requests.sqlite") as elsewhere:
                elsewhere.submit(LIVE_BRANCH, request_id="r1", clients=(7, 1))
        return 50.0

    federation.evaluation.quality = quality
    federation.serve()
    assert federation.life("r1")[-1] == ("refused", 2)
    assert federation.clients.of_round(4) == list(range(NUM_CLIENTS))
    with pytest.raises(LedgerError, match="has no client 7"):
        federation.ledger.submit(LIVE_BRANCH, request_id="r2", clients=(7,))
