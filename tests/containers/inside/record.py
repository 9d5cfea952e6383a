"""Runs inside a container of the server: what the run directory says of a federation. Prints JSON."""

import json
from pathlib import Path

from fedunlearn.certificates.certificate import issued
from fedunlearn.requests import LIVE_BRANCH, Ledger
from fedunlearn.runs.metrics_log import read_metrics

FOLDER = Path("/federation")

with Ledger(FOLDER / "requests.sqlite") as ledger:
    requests = ledger.requests(LIVE_BRANCH)
    plans = ledger.plans(LIVE_BRANCH)
    entries = [(entry.request_id, entry.to_state) for entry in ledger.audit(LIVE_BRANCH)]
    servers = [server.holder for server in ledger.servers(LIVE_BRANCH)]
    trail = ledger.check_trail(LIVE_BRANCH, head=ledger.head(LIVE_BRANCH))
    signed = len(ledger.signed_heads(LIVE_BRANCH))
trained = {
    (m.round, int(m.entity[7:])) for m in read_metrics(FOLDER / "metrics.jsonl") if "client-" in m.entity
}
print(
    json.dumps(
        {
            "states": {request.id: request.state for request in requests},
            "unlearned": {r.id: r.unlearned_round for r in requests if r.unlearned_round is not None},
            "plans": [{**plan.plan, "round": plan.round, "failed": list(plan.failed)} for plan in plans],
            "trained": sorted(trained),
            "entries": entries,
            "servers": servers,
            "trail": trail,
            "signed": signed,
            "certificates": sorted(issued(FOLDER)),  # of an earlier edition there is a file beside it
        }
    )
)
