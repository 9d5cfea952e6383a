"""Runs in a container of the server's image: executes the recorded plans anew, and nobody is killed. Prints JSON.

The record is all that is taken from the run directory; data come from the experiment, and the engine is the local
one, without Flower's SuperLink and nodes.
"""

import json
from pathlib import Path

from fedunlearn import config
from fedunlearn.live.local import run_live
from fedunlearn.requests import LIVE_BRANCH, Ledger
from fedunlearn.runs.checkpoints import Checkpoints, weights_hash
from fedunlearn.runs.directory import run_name
from fedunlearn.runs.metrics_log import read_metrics

LIVED, OUT = Path("/federation"), Path("/tmp/again")

experiment = config.load(LIVED / "experiment.toml")
again = OUT / run_name(experiment)
again.mkdir(parents=True)
with Ledger(LIVED / "requests.sqlite") as ledger, Ledger(again / "requests.sqlite") as copy:
    copy.load(LIVE_BRANCH, ledger.export(LIVE_BRANCH))
run_live(experiment, out=OUT, resume=True)
ends = []
for folder in (LIVED, again):
    last = Checkpoints(folder / "checkpoints", LIVE_BRANCH).latest()
    assert last is not None, f"{folder}: no checkpoint"
    lines = read_metrics(folder / "metrics.jsonl")
    ends.append(
        {
            "round": last.round,
            "weights": weights_hash(last.vector, last.buffers),
            "meta": dict(last.meta),
            # Of the global model after every round; of a repeated round the last line counts.
            "measures": {
                f"{m.round} {m.metric}": m.value
                for m in lines
                if m.entity == "server" and m.metric != "seconds"
            },
        }
    )
print(json.dumps(dict(zip(("lived", "again"), ends, strict=True))))
