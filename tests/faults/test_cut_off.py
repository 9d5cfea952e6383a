"""A node's link is cut, for ten seconds and for good: the others go on, and a deadline ends what cannot be served.

Two operators supervise this federation at once, without knowing of each other.
"""

from __future__ import annotations

import time

import pytest

from fedunlearn.requests import LIVE_BRANCH, Ledger
from tests.deployment import tiny
from tests.deployment.federation import APART
from tests.faults.record import check_metrics, check_replay, check_requests
from tests.faults.run import Run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800), pytest.mark.xdist_group("superlink")]
SECONDS = 10.0
EXPERIMENT = (
    tiny.LIVE.replace('name = "digits-live"', 'name = "cut-off"')
    .replace("rounds = 2", "rounds = 4")
    .replace("requests = {}", 'requests = { offline = "wait", deadline = 5 }')
)


@pytest.fixture(scope="module")
def cut_off(federation):
    """Cut a node off twice; return the run, the request for its client, and the rounds that were under way."""
    site = federation.site
    if site is None:
        pytest.skip("a network of a node's own needs root and iproute2's ip")
    run = Run(federation, "cut-off", EXPERIMENT, supervisors=2)

    # While it trains: what it has made of the round, it sends when it is back.
    run.wait_for_plan(1)
    site.cut()
    until = time.monotonic() + SECONDS
    run.wait("the end of a short cut", lambda ledger: time.monotonic() >= until or None)
    site.mend()
    run.wait_for_round(1)

    # For good, just before its client is to be forgotten.
    run.wait_for_plan(2)
    site.cut()
    try:
        request = run.ask(APART)
        run.end()
    finally:
        site.mend()
    return run, request


def rounds_of(run):
    with Ledger(run.folder / "requests.sqlite") as ledger:
        return ledger.plans(LIVE_BRANCH)


def test_a_short_cut_loses_no_answer_and_no_round(cut_off):
    run, _ = cut_off
    first = rounds_of(run)[0]
    assert APART in first.plan["train"] and first.failed == {}


def test_rounds_go_on_with_a_quorum_of_the_others(cut_off):
    run, _ = cut_off
    later = rounds_of(run)[1:]
    assert later[0].failed.keys() == {APART}, "it was asked, and could not answer any more"
    trained = [set(plan.plan["train"]) - plan.failed.keys() for plan in later if not plan.plan["requests"]]
    assert len(trained) >= 3 and all(clients == {0, 1} for clients in trained)


def test_a_client_that_cannot_be_reached_in_time_is_excluded_and_nothing_else(cut_off):
    run, request = cut_off
    check_requests(run.folder, {request: ("excluded",)})
    with Ledger(run.folder / "requests.sqlite") as ledger:
        record = ledger.request(LIVE_BRANCH, request)
        ended = next(e.at for e in ledger.audit(LIVE_BRANCH) if e.to_state == "excluded")
    assert record.unlearned_round is None
    assert ended - record.arrived_at >= 5.0, "not before its deadline"


def test_of_two_supervisors_one_has_its_run_serve_and_the_other_watches_it(cut_off):
    run, _ = cut_off
    with Ledger(run.folder / "requests.sqlite") as ledger:
        first, *later = (server.holder for server in ledger.servers(LIVE_BRANCH))
        plans = len(ledger.plans(LIVE_BRANCH))
    assert plans == 4
    serving = first.split("@")[0].removeprefix("flower-run-")
    said = run.said()
    assert sum(f"submitted as run {serving}" in one for one in said) == 1
    # The other's run waits for the lease: in vain, or until there is nothing left to do.
    (other,) = (one for one in said if f"submitted as run {serving}" not in one)
    assert len(later) == ("watching it" not in other), said


def test_the_record_is_whole_and_ends_in_the_same_weights(cut_off, tmp_path):
    run, _ = cut_off
    check_metrics(run.folder)
    check_replay(run.experiment, run.folder, tmp_path)
