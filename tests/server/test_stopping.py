"""When a federation is finished."""

import pytest

from fedunlearn.requests import Ledger
from fedunlearn.runs.checkpoints import Checkpoints
from fedunlearn.server.recovery import RecoveryRule
from fedunlearn.strategies.natural import Natural
from fedunlearn.strategies.puf import PUF
from tests.server.tiny import Federation, only, raising, settings, training


def last_round(*requests, rounds=3, cap=1, stop=True, last=40, kind=PUF):
    """Return the last round of a federation with these moments of request and recovery rounds."""
    made = Federation(
        settings=settings(
            train=training(rounds=rounds),
            stop_when_recovered=stop,
            recovery=RecoveryRule(until="max-rounds", max_rounds=cap),
        )
    )
    for number, at_round in enumerate(requests):
        made.submit(f"r{number}", (number,), at_round)
    return max(made.run(kind, last).states)


@pytest.mark.parametrize("kind", [PUF, Natural])
def test_it_stops_when_the_last_request_has_recovered(kind):
    assert last_round(2, cap=4, kind=kind) == 6, "rounds 3 to 6: the unlearning round counts"
    assert last_round(2, 3, cap=4, kind=kind) == 7


def test_it_does_not_stop_before_the_rounds_of_training():
    assert last_round(1, rounds=6) == 6


def test_a_request_that_arrives_with_the_last_round_of_training_is_served():
    assert last_round(3, cap=1) == 4


def test_it_does_not_stop_while_a_set_is_held():
    made = Federation(
        settings=settings(quorum=0.5, stop_when_recovered=True, recovery=RecoveryRule(max_rounds=1))
    )
    made.clients.fault = only(raising(OSError()), client=4, rounds=[4, 5])
    made.submit("r1", (2, 4), 3)
    assert max(made.run(PUF, 40).states) == 6
    assert made.progress("r1").outcome == "recovered"


def test_it_never_goes_past_the_last_round():
    assert last_round(3, cap=100, last=6) == 6


def test_a_branch_to_be_compared_at_the_cap_goes_on_after_recovery():
    assert last_round(2, cap=1, stop=False, last=9) == 9


def test_without_requests_it_trains_its_rounds():
    assert last_round() == 3


class Killed(BaseException):
    """The end of a process."""


def test_a_request_whose_plan_was_committed_is_not_forgotten_when_the_rounds_are_over(tmp_path):
    """Killed between the plan and the checkpoint, the next server has no open request, but a plan to execute."""

    def federation():
        return Federation(
            settings=settings(stop_when_recovered=True, recovery=RecoveryRule(max_rounds=1)),
            ledger=Ledger(tmp_path / "requests.sqlite"),
            checkpoints=Checkpoints(tmp_path / "checkpoints", "tiny"),
        )

    made = federation()
    made.submit("r1", (2,), 3)
    made.clients.fault = only(raising(Killed()), client=2, rounds=[4])
    with pytest.raises(Killed):
        made.run(PUF, 40)
    made.ledger.close()
    again = federation().run(PUF, 40)
    assert again.life("r1")[-1] == ("forgotten", 4)
