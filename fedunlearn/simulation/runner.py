"""Run a whole experiment on this machine: every branch once, forked where it forks, cached, resumable."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from flwr.serverapp import Grid

from fedunlearn import json_text, models, workspace
from fedunlearn.config import Experiment
from fedunlearn.data.holdings import holdings
from fedunlearn.durable import write_durably
from fedunlearn.errors import UserError
from fedunlearn.evaluation import scorecard
from fedunlearn.evaluation.metrics import computed
from fedunlearn.evaluation.rows import Row
from fedunlearn.evaluation.scored import QUALITY
from fedunlearn.federation.hosted_routine import check_routines
from fedunlearn.home import path_in
from fedunlearn.out_of_memory import naming_shortage
from fedunlearn.report.words import clients, names_of
from fedunlearn.runs.checkpoints import Snapshot, weights_hash
from fedunlearn.runs.directory import SCORECARD, RunDirectory
from fedunlearn.server.branch import Branch
from fedunlearn.server.recovery import RetrainReference
from fedunlearn.server.serve import serve
from fedunlearn.simulation import histories
from fedunlearn.simulation.at_work import recorder, settled
from fedunlearn.simulation.branches import branches, is_pooled
from fedunlearn.simulation.cache import Cache, branch_key
from fedunlearn.simulation.capped_rounds import check_cap
from fedunlearn.simulation.engines import open_grid
from fedunlearn.simulation.forecast import examples_of
from fedunlearn.simulation.pictures import draw_pictures
from fedunlearn.simulation.progress import Progress
from fedunlearn.simulation.retrainings import choose_retrainings
from fedunlearn.simulation.robust_rounds import check_rounds
from fedunlearn.simulation.routine_needs import check_models, check_needs
from fedunlearn.simulation.schedule import Schedule
from fedunlearn.simulation.scoring import SeedScoring
from fedunlearn.simulation.shortage import advising

CACHE_VARIABLE = "FEDUNLEARN_CACHE"


def cache_folder(out: Path) -> Path:
    """Return where branches are cached: ``$FEDUNLEARN_CACHE``, or ``.cache`` beside the runs."""
    return path_in(CACHE_VARIABLE) or out / ".cache"


def simulate(
    experiment: Experiment,
    *,
    out: Path,
    resume: bool = False,
    fresh: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Run an experiment to its scorecard and return the run directory.

    Parameters
    ----------
    out
        Folder of runs; the run's own directory in it is named after the experiment and its settings.
    resume, fresh
        What to do with a run that is there already, see :meth:`fedunlearn.runs.directory.RunDirectory.open`.
    progress
        Who is told how it goes. Default: nobody.

    Raises
    ------
    UserError
        The data cannot be had or dealt out, or the run directory cannot be used as asked.
    RunError
        A round missed its quorum, or memory ran out; then with what to try.
    """
    check_routines(experiment)
    check_rounds(experiment)
    check_cap(experiment)
    computed(experiment.data.task, experiment.measures.metrics)
    for seed in experiment.seeds:
        # What is wrong with the data, or with a model for them, is said before a run is begun.
        data = workspace.data_of(experiment, seed)
        check_needs(experiment, seed, data)
        check_models(experiment, data, workspace.new_model(experiment, data, seed))
    progress = progress or Progress()
    run = RunDirectory.open(experiment, out, resume=resume, fresh=fresh)
    simulation = _Simulation(experiment, run, out, progress)
    try:
        with advising("measuring the finished branches", lambda: simulation.experiment):
            simulation.play()
    finally:
        run.close()
    return run.path


class _Simulation:
    def __init__(self, experiment: Experiment, run: RunDirectory, out: Path, progress: Progress) -> None:
        self.experiment = experiment
        self.run = run
        self.cache = Cache(cache_folder(out), progress.note) if experiment.cache else None
        self.progress = progress
        self.keys: dict[str, str] = {}
        self._engine: Grid | None = None
        self._workers = 1
        self._settled = False

    def play(self) -> None:
        torch.set_num_threads(self.experiment.engine.threads_per_client)  # for what is measured here, too
        if self.experiment.numerics == "fast":
            self._settle()  # what is chosen is in the keys
        asked, chosen = self.experiment, choose_retrainings(self.experiment)
        self.experiment = chosen.experiment
        self.run.settle(chosen.experiment)
        plans = {seed: branches(self.experiment, seed) for seed in self.experiment.seeds}
        self.progress.begin(self.run.path, [b for plan in plans.values() for b in plan])
        if asked != chosen.experiment:
            self.progress.note(f"floor: {chosen.why}")
        first = workspace.data_of(self.experiment, self.experiment.seeds[0])
        for note in (*first.notes, *self.run.notes()):  # of the data, the same for every seed
            self.progress.note(note)
        num_classes = first.num_classes
        if origin := models.origin_of(self.experiment.model, num_classes):
            self.progress.note(origin)
        partition = {}
        for seed, plan in plans.items():
            data = workspace.data_of(self.experiment, seed)
            partition[str(seed)] = holdings(data, {branch.forget for branch in plan})
            self.run.write_json("partition.json", partition)
            with ExitStack() as stack:
                for branch in plan:
                    self._branch(branch, stack)
            self._engine = None
        rows = self._measure()
        draw_pictures(self.experiment, self.run, rows)
        task, named = self.experiment.data.task, self.experiment.measures.metrics
        foreign = [metric for metric in computed(task, named).values() if metric.foreign]
        card = scorecard.scorecard(self.experiment.name, self.run.name, rows, task=task, declared=foreign)
        write_durably(self.run.path / SCORECARD, scorecard.dumps(card).encode())
        self.progress.end()

    def _measure(self) -> list[Row]:
        """Return the rows of the scorecard."""
        seeds, records = self.experiment.seeds, self.run.branches()
        self.progress.measuring(sum(len([*Schedule(self.experiment, seed, records)]) for seed in seeds))
        rows = []
        for seed in seeds:
            for row in SeedScoring(self.experiment, self.run, seed, self.cache).rows():
                rows.append(row)
                self.progress.measured()
        return rows

    def _branch(self, branch: Branch, stack: ExitStack) -> None:
        """Bring one branch to its end: it is there already, or in the cache, or has to be computed."""
        key = self._key(branch)
        self.keys[branch.name] = key
        finished = self.run.branches().get(branch.name)
        if finished is not None and finished["key"] == key:
            if self.cache is not None and not self._is_whole(branch, finished):
                self.cache.load_branch(key, self.run, branch)  # somebody has deleted some
            self.progress.branch_done(branch, self._with_words(finished), reused=True)
            return
        outcome = None if self.cache is None else self.cache.load_branch(key, self.run, branch)
        cached = outcome is not None
        if outcome is None:
            self.run.begin_branch(branch.name, key)
            behind = max(self.run.checkpoints(branch.name).rounds(), default=branch.first_round)
            self.progress.branch_begins(branch, behind)
            with naming_shortage(branch.name):
                outcome = self._compute(branch, self._grid(branch.seed, stack))
        record = {**_description(branch), **outcome, "cached": cached, "key": key}
        if not cached:
            record["engine"] = {"name": self.experiment.engine.name, "workers": self._workers}
        self.run.finish_branch(record)
        if not histories.kept_for(self.experiment, branch):
            histories.discard(branch.name, self.run)  # what it kept for itself nobody reads any more
        if self.cache is not None and not cached:
            self.cache.store_branch(key, self.run, branch.name, outcome)
        self.progress.branch_done(branch, self._with_words(record), reused=cached)

    def _is_whole(self, branch: Branch, finished: Mapping[str, Any]) -> bool:
        """Whether all that is kept of a finished branch is still there."""
        last_round = finished["last_round"]
        if len(histories.files_of(branch.name, self.run)) != finished.get("history", 0):
            return False
        checkpoints = self.run.checkpoints(branch.name)
        kept = {*range(max(branch.keep_from, branch.first_round + 1), last_round + 1), *branch.keep}
        return all(checkpoints.path(round).is_file() for round in kept if round <= last_round)

    def _with_words(self, record: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a branch's record for people: what its requests are about, and no recovery that nobody judged."""
        parts, requests = self.experiment.parts, record.get("requests", [])
        if parts:
            names = names_of(parts[number] for number in parts)
            requests = [{**r, "words": clients(r["clients"], names)} for r in requests]
        if self.experiment.recover.until == "max-rounds":
            requests = [r | {"outcome": "unjudged"} if r["outcome"] == "recovered" else r for r in requests]
        return {**record, "requests": requests}

    def _grid(self, seed: int, stack: ExitStack) -> Grid:
        """Return the engine at work on a seed: started, and chosen, when there is something to compute."""
        if self._engine is None:
            self._settle()
            path = str(self.run.experiment_path)
            self._engine = stack.enter_context(open_grid(self.experiment, path, seed))
            engine = self.experiment.engine
            self._workers = getattr(self._engine, "workers", engine.workers)  # of Ray's only the grid knows
            if engine.given_workers is None:
                self.progress.note(
                    f"engine {engine.name}: the cluster has room for {self._workers} worker(s)"
                )
        return self._engine

    def _settle(self) -> None:
        """Choose what the experiment leaves to choose about its engine."""
        if self._settled:
            return
        self._settled = True
        asked = self.experiment
        self.experiment = settled(asked, self.run, self.progress, lambda: examples_of(asked))

    def _key(self, branch: Branch) -> str:
        data = workspace.data_of(self.experiment, branch.seed)
        model = workspace.new_model(self.experiment, data, branch.training_seed)
        return branch_key(
            self.experiment,
            branch,
            self.keys,
            data_hash=data.content_hash,
            weights_hash=weights_hash(model.vector, model.buffers()),
        )

    def _compute(self, branch: Branch, grid: Grid) -> dict[str, Any]:
        fork: Snapshot | None = None
        if branch.fork_from is not None:
            fork = self.run.checkpoints(branch.fork_from).load(branch.first_round)
        checkpoints = self.run.checkpoints(branch.name, branch.keeps)
        requests = serve(
            grid,
            self.experiment,
            branch,
            ledger=self.run.ledger,
            checkpoints=checkpoints,
            fork=fork,
            references=self._references(branch),
            observe=recorder(self.run, branch, self.progress),
            history=histories.opener(branch, self.run),
            archives=histories.archives(self.experiment, branch, self.run),
        )
        return {
            "requests": [
                {**r.to_dict(), "state": self.run.ledger.request(branch.name, r.id).state} for r in requests
            ],
            # A method that diverged in its first round has left no weights.
            "last_round": max([branch.first_round, *checkpoints.rounds()]),
            **histories.account(self.experiment, branch, self.run),
        }

    def _references(self, branch: Branch) -> Mapping[frozenset[int], RetrainReference]:
        """Return the retrained models' qualities, by which the branch's recovery is judged."""
        quality = QUALITY[self.experiment.data.task]
        references = {}
        by_name = {b.name: b for b in branches(self.experiment, branch.seed)}
        for name in branch.oracles:
            log = self.run.metrics.of(name).values()
            validation = {m.round: m.value for m in log if (m.split, m.metric) == ("validation", quality)}
            if (
                is_pooled(self.experiment) and validation
            ):  # held against one and the same model in every round
                end = validation[self.experiment.train.rounds]
                validation |= dict.fromkeys(range(branch.first_round + 1, branch.last_round + 1), end)
            test = {m.round: m.value for m in log if (m.split, m.metric) == ("test", quality)}
            references[frozenset(by_name[name].excluded)] = RetrainReference(
                validation=validation, test_at_end=test.get(self.experiment.train.rounds)
            )
        return references


def _description(branch: Branch) -> dict[str, Any]:
    """Return what a reader of branches.json needs to know of a branch before it ran."""
    return {
        "branch": branch.name,
        "kind": branch.kind,
        "label": branch.label,
        "seed": branch.seed,
        "target": branch.target,
        "forget": list(branch.forget),
        "first_round": branch.first_round,
    }


def read_scorecard(run: Path) -> dict[str, Any]:
    """Return a run's scorecard."""
    path = run / SCORECARD
    try:
        card = json_text.loads_object(path.read_bytes(), path, allow_nan=True)
    except UserError as error:
        raise UserError(f"{error}; rerun the experiment") from error
    rows = card.get("rows")
    if not isinstance(rows, list) or not all(isinstance(row, dict) and "label" in row for row in rows):
        raise UserError(f"{path}: has no scorecard rows; rerun the experiment")
    return card
