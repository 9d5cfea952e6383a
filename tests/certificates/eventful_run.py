"""A live run in which much has happened, and every kind of file and row is there."""

import json
from pathlib import Path

from fedunlearn.requests.intake import Intake
from tests.certificates.live_run import BRANCH, NUM_CLIENTS, LiveRun


def eventful_run(folder: Path, *overrides: str) -> LiveRun:
    """Return a closed run: requests of every actor, many ends, parts, failures, measures, and some still open."""
    run = LiveRun(folder, "requests.store-updates=true", *overrides)
    run.ledger.store.rows("DELETE FROM seals WHERE round = 0")  # the product has no checkpoint before round 1
    intake = Intake(run.ledger, BRANCH, num_clients=NUM_CLIENTS)
    (folder / "partition.json").write_text('{"clients": [[0, 1], [2]]}\n')
    (folder / "metrics.jsonl").write_text(
        json.dumps({"branch": BRANCH, "round": 1, "entity": "client-3", "split": "train", "metric": "loss"})
        + "\n"
    )
    clerk = run.clerk()
    run.train(range(6), 2, failed=[5])

    withdrawn = run.ask(1, actor="client:1")
    intake.withdraw(withdrawn, actor="client:1")
    clerk.attend(run.round)

    own = intake.ask([3], source="http", actor="client:3", idempotency_key="k1").request_id
    part = intake.ask([2], samples=0.5, classes=[1, 2], source="cli", actor="operator:anna").request_id
    run.measure(own, "before", {3: 91.5})
    run.unlearn(own, part)
    run.measure(own, "unlearned", {3: 12.25}, told=[3])
    run.measure(part, "unlearned", {}, told=[])
    run.train([0, 1, 2, 4, 5], 1)
    again = intake.ask([3], source="cli", actor="operator:bert", idempotency_key="k2").request_id
    run.measure(own, "ended", {3: 30.0})
    run.end(own, "forgotten")
    run.end(part, "forgotten-unrecovered", detail="not within 15 rounds; operator:anna knows")
    clerk.attend(run.round)
    assert run.ledger.request(BRANCH, again).state == "duplicate"

    excluded = run.ask(4, actor="client:4")
    run.train([0, 1, 2, 5], 1)
    run.end(excluded, "excluded", detail="could not be reached")
    refused = run.ask(0, 1, 2, 5)
    run.end(refused, "refused", detail="the last clients")
    clerk.attend(run.round)

    recovering = run.ask(5)
    run.unlearn(recovering)
    run.measure(recovering, "before", {5: 80.0})
    run.train([0, 1, 2], 1)
    run.ask(0)
    run.ask(0, 1)  # the same as none
    run.ask(0)  # the same as the one before
    clerk.attend(run.round)
    run.ledger.commit_plan(
        BRANCH, run.round + 1, {"round": run.round + 1, "train": [0], "forget": [], "requests": []}
    )
    run.ledger.close()
    return run
