"""Two hostile clients in a live federation of ten, idea by idea, and honest ones that ask to be forgotten.

::

    python -m benchmarks.hostile                        # about a quarter of an hour; goes on where it was stopped
    python -m benchmarks.hostile --rounds 20 --seeds 1 --json runs/short.jsonl
    python -m benchmarks.hostile --write-docs           # puts the tables into docs/trust.md

Every federation is the real one, with ledger, checkpoints and guard, on scikit-learn's digits; what clients send is
spoilt on its way to the server. Beside them stand the eight honest clients alone, with the mean.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from benchmarks import docs
from benchmarks.hostile_clients import IDEAS
from benchmarks.hostile_runs import Outcome, experiment_of, federate
from benchmarks.machine import in_words, machine
from benchmarks.tables import markdown
from fedunlearn.errors import ConfigError

PAGE = docs.PAGE.with_name("trust.md")
BEGIN = "<!-- figures: begin (written by benchmarks/hostile.py) -->"
HOSTILE = (0, 1)
RULES = ("mean", "median", "multi-krum")
RECOMMENDED = "multi-krum"
"""The rule that must hold under IID, idea by idea."""
ALONE = "absent"
"""The idea by which the hostile clients never answer: the eight honest ones alone."""
IN_ROUNDS = tuple(
    name for name, idea in IDEAS.items() if not idea.forgotten and name not in (ALONE, "honest")
)
IN_FORGETTING = tuple(name for name, idea in IDEAS.items() if idea.forgotten)
PARTITIONS = {"IID": 'data.partition="iid"', "Dirichlet(0.3)": 'data.partition="dirichlet"'}
UNEVEN = {**PARTITIONS, "Dirichlet(0.1)": 'data.partition="dirichlet" data.alpha=0.1'}
SERVED = ("forgotten", "forgotten-unrecovered")


@dataclass(frozen=True)
class Job:
    """One federation: of hostile clients with an idea, or (``clients`` given) of honest ones, one of whom asks."""

    partition: str
    rule: str
    idea: str
    seed: int
    rounds: int
    clients: int = 10
    scale: float = 1.0

    @property
    def key(self) -> str:
        """What it is called in the file of results."""
        return json.dumps(asdict(self), sort_keys=True)

    def run(self) -> Outcome:
        """Run it."""
        settings = [
            *UNEVEN[self.partition].split(),
            f'federation.aggregation="{self.rule}"',
            f"federation.num-clients={self.clients}",
            f"method[1].scale={self.scale}",
            f"train.rounds={self.rounds}",
            f"seeds=[{self.seed}]",
        ]
        if self.idea == "honest":
            return federate(experiment_of(*settings), ask_at={self.rounds // 2: [self.seed % self.clients]})
        asking = {self.rounds // 2: HOSTILE} if IDEAS[self.idea].forgotten else {}
        return federate(experiment_of(*settings), idea=self.idea, hostile=HOSTILE, ask_at=asking)


def jobs(rounds: int, seeds: int) -> Iterator[Job]:
    """Yield all federations, a row's seeds together."""
    numbers = range(1, seeds + 1)
    for partition in PARTITIONS:
        yield from (Job(partition, "mean", ALONE, seed, rounds) for seed in numbers)
        for rule in RULES if partition == "IID" else ("mean", RECOMMENDED):
            yield from (Job(partition, rule, idea, seed, rounds) for idea in IN_ROUNDS for seed in numbers)
    for rule in ("mean", RECOMMENDED):
        yield from (Job("IID", rule, idea, seed, rounds) for idea in IN_FORGETTING for seed in numbers)
    for partition in UNEVEN:
        for scale in (1.0, 2.0):
            yield from (
                Job(partition, "mean", "honest", seed=clients, rounds=20, clients=clients, scale=scale)
                for clients in range(2, 11)
            )


def measured(wanted: Sequence[Job], file: Path) -> dict[Job, Mapping[str, Any]]:
    """Return what came of every job, from the file or by running it now; each is in the file once it is done."""
    known: dict[str, Mapping[str, Any]] = {}
    if file.is_file():
        for line in file.read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            known[entry["job"]] = entry["outcome"]
    file.parent.mkdir(parents=True, exist_ok=True)
    found: dict[Job, Mapping[str, Any]] = {}
    began, missing = time.perf_counter(), [job for job in wanted if job.key not in known]
    for job in wanted:
        if job.key not in known:
            known[job.key] = _outcome(job)
            with file.open("a", encoding="utf-8") as lines:
                lines.write(json.dumps({"job": job.key, "outcome": known[job.key]}) + "\n")
            done = missing.index(job) + 1
            left = (time.perf_counter() - began) / done * (len(missing) - done) / 60
            said = f"{job.partition}, {job.rule}, {job.idea}, seed {job.seed}: {_said(known[job.key])}"
            print(f"{done}/{len(missing)}, {left:.0f} min left: {said}", file=sys.stderr, flush=True)
        found[job] = known[job.key]
    return found


def _outcome(job: Job) -> Mapping[str, Any]:
    try:
        outcome = job.run()
    except ConfigError as error:  # the partition leaves a client without data
        return {"skipped": str(error)}
    as_read: dict[str, Any] = json.loads(json.dumps(asdict(outcome)))
    return as_read


def _said(outcome: Mapping[str, Any]) -> str:
    return "skipped" if "skipped" in outcome else f"{outcome['accuracy']:.1f} % in {outcome['seconds']:.1f} s"


@dataclass(frozen=True)
class Row:
    """An idea under a rule, over the seeds.

    Attributes
    ----------
    accuracies, alone : tuple of float
        Of the last models, and of the eight honest clients alone, seed by seed; percent.
    refused : int or None
        The latest first round in which a hostile client was refused by name; None: not all were.
    requests : tuple of str
        How their requests ended.
    diverged : int
        Federations that stopped because the model could not be trained any more.
    """

    partition: str
    rule: str
    idea: str
    accuracies: tuple[float, ...]
    alone: tuple[float, ...]
    refused: int | None
    requests: tuple[str, ...]
    diverged: int = 0

    @property
    def harmless(self) -> bool:
        """Whether the mean is within the spread of the eight honest, or all were refused within three rounds."""
        if self.diverged:
            return False
        in_time = self.refused is not None and self.refused <= 3
        return in_time or mean(self.accuracies) >= min(self.alone)

    @property
    def cells(self) -> tuple[str, ...]:
        """Rule, idea, accuracy, drop, what else happened."""
        drop = mean(self.alone) - mean(self.accuracies)
        said = [f"refused from round {self.refused} on"] if self.refused is not None else []
        said += [f"{self.requests.count(state)} {state}" for state in dict.fromkeys(self.requests)]
        if self.diverged:
            said.append(f"{self.diverged} of {len(self.accuracies)} diverged")
        return self.rule, self.idea, _spread(self.accuracies), f"{drop:+.1f}", ", ".join(said) or "–"


def rows(found: Mapping[Job, Mapping[str, Any]]) -> list[Row]:
    """Return a row per partition, rule and idea of hostile clients."""
    groups: dict[tuple[str, str, str], list[Mapping[str, Any]]] = {}
    for job, outcome in found.items():
        if job.idea != "honest" and "skipped" not in outcome:
            groups.setdefault((job.partition, job.rule, job.idea), []).append(outcome)
    made = []
    for (partition, rule, idea), some in groups.items():
        firsts = [outcome["refused"].get(str(client)) for outcome in some for client in HOSTILE]
        made.append(
            Row(
                partition,
                rule,
                idea,
                tuple(outcome["accuracy"] for outcome in some),
                tuple(outcome["accuracy"] for outcome in groups[partition, "mean", ALONE]),
                None if None in firsts else max(firsts),
                tuple(state for outcome in some for state in outcome["requests"]),
                sum(outcome["diverged"] for outcome in some),
            )
        )
    return made


def document(found: Mapping[Job, Mapping[str, Any]], command: str) -> str:
    """Return the tables as the page shows them."""
    headings = ("rule", "idea", "accuracy, %", "drop", "what else")
    made = rows(found)
    parts = []
    for partition in PARTITIONS:
        own = [row for row in made if row.partition == partition and row.idea in (ALONE, *IN_ROUNDS)]
        parts.append(f"### {partition}, in ordinary rounds\n\n{_table(headings, own)}")
    forgetting = [row for row in made if row.idea in IN_FORGETTING]
    parts.append(f"### IID, asked to be forgotten half-way\n\n{_table(headings, forgetting)}")
    parts.append(_honest(found))
    some = next(job for job in found if job.idea == ALONE)
    seeds = len({job.seed for job in found if job.idea == ALONE})
    seconds = sum(outcome.get("seconds", 0.0) for outcome in found.values())
    where = in_words(machine())
    return "\n\n".join(
        [
            *parts,
            f"Mean (least to most) of test accuracy after {some.rounds} rounds, n = {seeds} seeds; drop: what the "
            f"eight honest alone have more. {where}; one thread, {seconds / 60:.0f} minutes. By `{command}`.",
        ]
    )


def _honest(found: Mapping[Job, Mapping[str, Any]]) -> str:
    tried = [o for job, o in found.items() if job.idea == "honest" and "skipped" not in o]
    states = [state for outcome in tried for state in outcome["requests"]]
    served = sum(state in SERVED for state in states)
    refusals = sum(outcome["refusals"] for outcome in tried)
    return (
        f"Of {len(states)} honest requests, one in each federation of 2 to 10 clients with scale 1 or 2 under "
        f"{', '.join(UNEVEN)}, {served} were served and {len(states) - served} were not; of the answers in these "
        f"federations {refusals} were refused."
    )


def _table(headings: Sequence[str], some: Sequence[Row]) -> str:
    return markdown(headings, [row.cells for row in some])


def _spread(values: Sequence[float]) -> str:
    return f"{mean(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; returns 1 where the recommended rule was bent under IID, or an honest request was not served."""
    headline = str(__doc__).partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hostile", description=headline)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seeds", type=int, default=5, help="1 to SEEDS")
    parser.add_argument(
        "--json", type=Path, default=Path("runs/hostile.jsonl"), help="every outcome, by line"
    )
    parser.add_argument("--write-docs", action="store_true", help=f"put the tables into docs/{PAGE.name}")
    chosen = parser.parse_args(arguments)
    logging.getLogger("flwr").setLevel(logging.ERROR)
    found = measured(list(jobs(chosen.rounds, chosen.seeds)), chosen.json)
    words = sys.argv[1:] if arguments is None else arguments
    text = document(found, " ".join(["python -m benchmarks.hostile", *words]))
    print(text)
    if chosen.write_docs:
        PAGE.write_text(
            docs.with_figures(
                PAGE.read_text(encoding="utf-8"), text, begin=BEGIN, page_name=f"docs/{PAGE.name}"
            ),
            encoding="utf-8",
        )
    bent = [r for r in rows(found) if (r.partition, r.rule) == ("IID", RECOMMENDED) and not r.harmless]
    for row in bent:
        print(f"not within the spread: {row.rule}, {row.idea}, {_spread(row.accuracies)}", file=sys.stderr)
    unserved = any(
        state not in SERVED
        for job, outcome in found.items()
        for state in outcome.get("requests", ())
        if job.idea == "honest"
    )
    return int(bool(bent) or unserved)


if __name__ == "__main__":
    raise SystemExit(main())
