"""ServerApp, SuperLink and a SuperNode are killed while a federation runs: nothing is lost, nothing done twice."""

from __future__ import annotations

import json
import os
import random
import re

import pytest

from fedunlearn.federation.tallies import FORGOTTEN as FORGOTTEN_MESSAGE
from fedunlearn.requests import LIVE_BRANCH, Ledger
from tests.deployment import tiny
from tests.faults.record import check_metrics, check_replay, check_requests
from tests.faults.run import Run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800), pytest.mark.xdist_group("superlink")]
FORGOTTEN, AWAY = 1, 2
"""Who asks to be forgotten; whose node is killed."""
DONE = ("forgotten", "forgotten-unrecovered")
# More rounds than it takes: on a busy machine the forgetting may succeed only at the second attempt.
EXPERIMENT = tiny.LIVE.replace('name = "digits-live"', 'name = "killed"').replace("rounds = 2", "rounds = 5")


def told(ledger, request):
    """Return the clients whose nodes are on record as knowing that they are forgotten."""
    return ledger.measures(LIVE_BRANCH, request).get("unlearned", {"told": []})["told"]


@pytest.fixture(scope="module")
def killed(federation):
    """Let one thing after the other die, and return the run and the request that was made of it."""
    seed = int(os.environ.get("FEDUNLEARN_SEED") or random.randrange(10**6))
    print(f"instants of FEDUNLEARN_SEED={seed}")
    run = Run(federation, "killed", EXPERIMENT, seed=seed)
    link = federation.link

    # While the first round is under way, one of its nodes dies, and its server. Somebody asks while nobody serves.
    run.wait_for_plan(1)
    link.kill_node(AWAY)
    run.random_instant(8.0)
    token = run.kill_server()
    request = run.ask(FORGOTTEN)
    # Another server ends the round with those who are there, and the node comes back.
    run.wait_for_server(token)
    run.wait_for_round(1)
    link.start_again(AWAY)

    # While the client is being forgotten, the server dies again.
    def planned(ledger):
        return ledger.request(LIVE_BRANCH, request).state == "unlearning" or None

    run.wait("the unlearning round", planned)
    run.random_instant(8.0)
    token = run.kill_server()

    # Once its node has been told, the SuperLink dies, and with it every process of its.
    run.wait_for_server(token)
    run.wait("the node's confirmation", lambda ledger: FORGOTTEN in told(ledger, request) or None)
    run.random_instant(5.0)
    run.kill_superlink()
    run.end()
    return run, request


def test_the_request_is_served_once_and_its_client_never_trains_again(killed):
    run, request = killed
    check_requests(run.folder, {request: DONE})
    assert (run.folder / "certificates" / f"{request}.json").is_file()


def test_rounds_go_on_with_those_who_are_there_and_a_node_that_is_back_takes_part(killed):
    run, _ = killed
    with Ledger(run.folder / "requests.sqlite") as ledger:
        plans = ledger.plans(LIVE_BRANCH)
    first, *later = plans
    assert first.plan["train"] == [0, 1, 2] and set(first.failed) == {AWAY}
    assert any(AWAY in plan.plan["train"] and AWAY not in plan.failed for plan in later)
    assert len(plans) >= 5


def test_the_node_is_told_again_in_every_run(killed):
    """What it remembers, Flower keeps for one run."""
    run, _ = killed
    with Ledger(run.folder / "requests.sqlite") as ledger:
        *_, last = ledger.servers(LIVE_BRANCH)
    asked = {}  # run → the kinds of messages that the node has got in it
    for line in run.federation.flower.log(f"node-{FORGOTTEN}").splitlines():
        if found := re.search(r"\[RUN (\d+)", line):
            current = asked.setdefault(found[1], [])
        elif found := re.search(r"Receiving: (\S+) message", line):
            current.append(found[1])
    assert asked[re.search(r"flower-run-(\d+)@", last.holder)[1]] == ["query", FORGOTTEN_MESSAGE]


def test_every_round_is_reported_and_none_twice(killed):
    run, _ = killed
    check_metrics(run.folder, executed_again=run.killed_in)


def test_the_ledger_knows_every_server_and_the_supervisor_why_there_was_another(killed):
    run, _ = killed
    with Ledger(run.folder / "requests.sqlite") as ledger:
        holders = [server.holder.split("@")[0] for server in ledger.servers(LIVE_BRANCH)]
    assert len(holders) == len(set(holders)) == 4
    (said,) = run.said()
    # That the last ServerApp has died with the SuperLink, Flower may notice by itself.
    assert said.count("submitted") == 4 and said.count("; stopping it") >= 2, said


def test_the_record_alone_ends_in_the_same_weights_and_the_superlink_keeps_nothing_of_the_client(
    killed, tmp_path
):
    run, request = killed
    updates = check_replay(run.experiment, run.folder, tmp_path)
    document = json.loads((run.folder / "certificates" / f"{request}.json").read_text())
    assert document["data"]["superlink"]["state"] == "purged", document["data"]["superlink"]
    database = run.federation.link.database
    raw = b"".join(path.read_bytes() for path in database.parent.glob(f"{database.name}*"))
    there = {(u.round, u.client) for u in updates if u.content[:64] in raw or u.content[-64:] in raw}
    assert FORGOTTEN in {u.client for u in updates}
    assert FORGOTTEN not in {client for _, client in there}
    assert there, "what was sent after the purge is still there: this is how an update would be found"
