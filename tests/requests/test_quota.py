"""Who asks without end is told so, at the same cost each time; asking as one would is never refused."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from fedunlearn.errors import UserError
from fedunlearn.requests import Intake, Ledger, Move, TooManyRequestsError
from fedunlearn.requests.quota import DAY, OF_CLIENT, OF_OPERATOR

BRANCH = "federation"


class Clock:
    now = 1e6

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def intake(tmp_path: Path, clock: Clock) -> Iterator[Intake]:
    with Ledger(tmp_path / "requests.sqlite", clock=clock) as ledger:
        ledger.store.rows("PRAGMA synchronous = OFF")
        yield Intake(ledger, num_clients=2000)


def ask(intake: Intake, client: int, actor: str = "", key: str | None = None, samples: object = None) -> str:
    actor = actor or f"client:{client}"
    made = intake.ask([client], samples=samples, source="http", actor=actor, idempotency_key=key)  # type: ignore[arg-type]
    return made.request_id


def end(intake: Intake, request: str, state: str) -> None:
    moves = [Move(request, step, 1) for step in ("scheduled", "unlearning", "recovering")]
    intake.ledger.transition_many(BRANCH, [*(moves if state == "forgotten" else ()), Move(request, state, 1)])


def test_a_client_has_so_many_open_requests_and_not_one_more(intake: Intake) -> None:
    made = [ask(intake, 3) for _ in range(OF_CLIENT.open)]
    trail = intake.ledger.head(BRANCH)
    with pytest.raises(TooManyRequestsError) as caught:
        ask(intake, 3)
    assert isinstance(caught.value, UserError) and caught.value.retry_after >= 1
    assert str(caught.value) == (
        f"client:3 has 32 open requests, the maximum: {made[0]} already names all of this; ask again "
        "once one of them has ended, or withdraw one"
    )
    assert intake.ledger.head(BRANCH) == trail, "nothing was recorded"
    ask(intake, 4)
    ask(intake, 3, actor="operator:ada")
    end(intake, made[5], "forgotten")
    end(intake, made[6], "forgotten")
    ask(intake, 3, samples=[1])


def test_a_repeated_call_is_no_new_request(intake: Intake) -> None:
    first = ask(intake, 3, key="mine")
    for _ in range(OF_CLIENT.open - 1):
        ask(intake, 3)
    assert {ask(intake, 3, key="mine") for _ in range(50)} == {first}
    with pytest.raises(TooManyRequestsError):
        ask(intake, 3, key="another")


def test_different_parts_count_as_requests_and_leave_nothing_behind_when_refused(intake: Intake) -> None:
    for row in range(OF_CLIENT.open):
        ask(intake, 3, samples=[row])
    for row in range(100, 110):
        with pytest.raises(TooManyRequestsError, match="open requests, the maximum: ask again"):
            ask(intake, 3, samples=[row])
    assert len(intake.ledger.parts(BRANCH)) == OF_CLIENT.open


@pytest.mark.parametrize("how", ["withdrawn", "duplicate", "refused", "excluded", "failed"])
def test_requests_that_come_to_nothing_are_bounded_within_a_day(
    how: str, intake: Intake, clock: Clock
) -> None:
    if how == "duplicate":
        end(intake, ask(intake, 3), "forgotten")
    for number in range(OF_CLIENT.nothing):
        made = ask(intake, 3)
        if how == "withdrawn":
            intake.withdraw(made, actor="client:3")
        elif how != "duplicate":
            end(intake, made, how)
        assert intake.record(made).state == how
        clock.now += 60.0 * (number == 0)
    with pytest.raises(
        TooManyRequestsError, match=r"32 requests within a day .* ask again in 1439 min"
    ) as caught:
        ask(intake, 3)
    assert caught.value.retry_after == DAY - 60
    clock.now += DAY - 60 + 1
    ask(intake, 3)


def test_whoever_is_forgotten_again_and_again_in_parts_is_not_held_up(intake: Intake) -> None:
    for row in range(3 * OF_CLIENT.nothing):
        end(intake, ask(intake, 3, samples=[row]), "forgotten")


def test_an_operator_may_ask_for_a_thousand_and_is_bounded_too(intake: Intake) -> None:
    with intake.ledger.batch():
        for client in range(OF_OPERATOR.open):
            ask(intake, client, actor="operator:ada")
    with pytest.raises(TooManyRequestsError, match="operator:ada has 1024 open requests"):
        ask(intake, 1999, actor="operator:ada")
    ask(intake, 1999, actor="operator:bob")
    ask(intake, 1999)


def steps(intake: Intake, number: int) -> int:
    """Return how many instructions SQLite executes for one more request of a client, granted or not."""
    for _ in range(number):
        with suppress(TooManyRequestsError):
            ask(intake, 3)
    counted = 0

    def count() -> None:
        nonlocal counted
        counted += 1

    intake.ledger.store._connection.set_progress_handler(count, 1)  # type: ignore[arg-type]
    with pytest.raises(TooManyRequestsError):
        ask(intake, 3)
    intake.ledger.store._connection.set_progress_handler(None, 1)
    return counted


def test_the_six_thousandth_refusal_costs_what_the_first_does(intake: Intake) -> None:
    with intake.ledger.batch():
        first, last = steps(intake, OF_CLIENT.open), steps(intake, 1000)
    assert 100 < last <= first < 5000
