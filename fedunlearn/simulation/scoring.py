"""From finished branches to the rows of the scorecard: every model measured, and against which retrain."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property, lru_cache, partial
from importlib.metadata import version
from typing import Any

import numpy as np
from torch import Tensor

from fedunlearn import workspace
from fedunlearn.config import Experiment
from fedunlearn.evaluation.accuracy import per_class, per_client
from fedunlearn.evaluation.evidence import Evidence, Retrained
from fedunlearn.evaluation.floors import floor_of, gaps, outliers
from fedunlearn.evaluation.measures import measure
from fedunlearn.evaluation.metrics import computed
from fedunlearn.evaluation.outputs import ModelOutputs, collect
from fedunlearn.evaluation.rows import Cost, Forget, Row, Scale
from fedunlearn.evaluation.scored import Integers
from fedunlearn.evaluation.segmentation import mean_pixel_kl
from fedunlearn.models.flat import FlatModel
from fedunlearn.parts import Parts
from fedunlearn.report import words
from fedunlearn.runs.checkpoints import weights_hash
from fedunlearn.runs.directory import RunDirectory
from fedunlearn.runs.metrics_log import Address, Metric
from fedunlearn.server.branch import Branch, ForgetRequest
from fedunlearn.server.plan import RoundPlan
from fedunlearn.simulation.branches import Moment, retrained_round
from fedunlearn.simulation.cache import Cache, digest_of, numerics
from fedunlearn.simulation.local_work import LocalWork, whole
from fedunlearn.simulation.schedule import Schedule, never_forgot
from fedunlearn.simulation.source_hash import source_of

Values = dict[str, float | None]

OUTPUT_BYTES = 512 * 2**20
"""Memory for the outputs of models that several rows are about."""


def last_line(text: str) -> str:
    """Return the last line of a traceback that is not empty: the error and what it says."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "no reason given")


class SeedScoring:
    """Measures the branches of one experiment seed.

    Parameters
    ----------
    experiment, run
        The run must hold every branch of the seed, finished.
    seed
    cache
        Where measures are kept by content; None measures everything anew.
    """

    def __init__(self, experiment: Experiment, run: RunDirectory, seed: int, cache: Cache | None) -> None:
        self._experiment = experiment
        self._metrics = computed(experiment.data.task, experiment.measures.metrics)
        self._run = run
        self._seed = seed
        self._cache = cache
        self._data = workspace.data_of(experiment, seed)
        self._model = workspace.new_model(experiment, self._data, seed=0)
        self._work = LocalWork(experiment, self._data)
        self._records = run.branches()
        self._schedule = Schedule(experiment, seed, self._records)
        self._outputs = lru_cache(maxsize=self._outputs_to_keep())(self._run_model)
        self._log = lru_cache(maxsize=None)(run.metrics.of)
        self._plans = lru_cache(maxsize=None)(run.ledger.plans)

    # -- rows ---------------------------------------------------------------------------------------------

    def rows(self) -> Iterator[Row]:
        """Yield every row of this seed, in the order of its schedule."""
        for appointment in self._schedule:
            yield self._row(*appointment)

    def _row(
        self,
        branch: Branch,
        moment: Moment,
        request: ForgetRequest | None,
        at: str,
        round: int,
        diverged: bool,
        failed: bool,
    ) -> Row:
        clients = moment.forgotten if request is None else request.clients
        retrain = self._schedule.retrain(moment)
        beside = retrained_round(self._experiment, round)
        oracle, _ = self._measured(retrain, retrain, beside, clients, moment.forgotten)
        others = {
            floor.name: self._measured(floor, retrain, beside, clients, moment.forgotten)[0]
            for floor in self._schedule.floors(moment)
        }
        if diverged:
            since = f"diverged in round {self._schedule.diverged_round(branch)}"
            mine: Values = dict.fromkeys(oracle)
            reasons: str | None = f"{since}: {self._why_diverged(branch)}"
        elif failed:
            mine, reasons = dict.fromkeys(oracle), self._why_failed(branch, request)
        else:
            mine, reasons = self._measured(branch, retrain, round, clients, moment.forgotten)
        noise = floor_of(oracle, list(others.values()), self._metrics)
        row = {
            "method": branch.method.name if branch.method else branch.kind,
            "label": branch.label,
            "seed": self._seed,
            "request": request.id if request is not None else None,
            "target": moment.index,
            "forget": _forget(clients, self._experiment.parts),
            "at": at,
            "round": round,
            "metrics": mine,
            "gap": gaps(mine, oracle, self._metrics),
            "floor": noise.median,
            "floors": noise.distances,
            "outliers": outliers({retrain.name: oracle, **others}, self._metrics),
            "cost": self._cost(branch, moment, at, round),
            "reason": reasons,
            "diverged": diverged,
            "failed": failed,
            **({} if diverged or failed else self._breakdown(branch, round)),
        }
        if branch.kind == "method" and request is not None:
            recovery = self._recovery(branch, request)
            row |= recovery | {"reason": "; ".join(filter(None, (reasons, recovery.get("reason")))) or None}
        return Row(**row)

    def _why_diverged(self, branch: Branch) -> str:
        requests = self._records[branch.name]["requests"]
        reasons = (str(r["reason"]) for r in requests if r["outcome"] == "diverged")
        return next(reasons, "the weights hold NaN or Inf, after its requests had ended")

    def _why_failed(self, branch: Branch, request: ForgetRequest | None) -> str:
        """Say why a request's forgetting failed the last time (None: any request's), and in which round."""
        ids = {
            r["id"]
            for r in self._records[branch.name]["requests"]
            if never_forgot(r) and (request is None or r["id"] == request.id)
        }
        why = {
            record.round: record.failed[client]
            for record in self._plans(branch.name)
            if ids.intersection(record.plan["requests"])
            for client in sorted(record.failed.keys() & set(record.plan["forget"]), reverse=True)
        }
        if not why:
            return "failed: the branch ended before it was complete"
        return f"failed: {last_line(why[max(why)])} (round {max(why)})"

    def _recovery(self, branch: Branch, request: ForgetRequest) -> dict[str, Any]:
        progress = self._schedule.progress(branch, request)
        # The rounds of the unlearning count; the first is later than the one after the request if a client failed.
        outcome, start = (
            progress["outcome"],
            (progress["unlearned_round"] or 0) - progress.get("steps", 0) - 1,
        )
        authors = progress["recovered_round_authors"]
        recovered = self._schedule.recovered_round(branch, request)
        judged = outcome != "superseded" and self._experiment.recover.until != "max-rounds"
        found: dict[str, Any] = {
            "recovered": recovered is not None if judged else None,
            "recovery_rounds": None if recovered is None else recovered - start,
            "recovery_rounds_authors": None if authors is None else authors - start,
            "scale": self._scale(branch, progress),
        }
        if outcome == "superseded":
            found["reason"] = "recovery: taken over by a later request"
        elif not judged:
            found["reason"] = 'recovery: not judged, recover.until = "max-rounds"'
        elif outcome == "diverged":
            found["reason"] = "recovery: censored, it diverged"
        elif never_forgot(progress):
            found["reason"] = "recovery: censored, forgetting failed"
        elif recovered is None:
            found["reason"] = f"recovery: censored, not within {self._experiment.recover.max_rounds} rounds"
        return found

    # -- measuring ----------------------------------------------------------------------------------------

    def _outputs_to_keep(self) -> int:
        """Return how many models' outputs stay in memory: a row's own and its retrainings', and what fits."""
        data = self._data
        rows = len(data.train_labels) + len(data.validation_labels) + len(data.test_labels)
        # Logits, their float64 softmax, and a handful of numbers per example; of masks even less is kept.
        size = rows * (data.num_classes * (self._model.vector.element_size() + 8) + 64)
        return max(3 + self._experiment.floor.retrainings, min(128, OUTPUT_BYTES // size))

    def _run_model(self, branch: str, round: int) -> tuple[Tensor, ModelOutputs]:
        vector = self._load(self._model, branch, round)
        return vector, collect(self._model.module, self._data, distances=("train", "test"))

    def _load(self, model: FlatModel, branch: str, round: int) -> Tensor:
        """Load a checkpoint into a model, and return its weights as they are on disk."""
        snapshot = self._run.checkpoints(branch).load(round)
        model.load(snapshot.vector.to(model.vector.device), snapshot.buffers)
        return snapshot.vector

    @cached_property
    def _second_model(self) -> FlatModel:
        return workspace.new_model(self._experiment, self._data, seed=0)

    def _pixel_kl(self, branch: str, round: int, retrain: str, beside: int) -> float:
        """Run two models side by side over the test slices: their pixels would fill the memory of many."""
        self._load(self._model, branch, round)
        self._load(self._second_model, retrain, beside)
        return mean_pixel_kl(self._model.module, self._second_model.module, self._data.test_images)

    def _test_rows_from(self, clients: tuple[int, ...]) -> Integers | None:
        """Return the test slices that are from these clients' sites; None where nobody knows."""
        slices = self._data.slices
        return None if slices is None else np.flatnonzero(np.isin(slices["test"].site, clients))

    @lru_cache(maxsize=4096)  # noqa: B019 - one instance per seed and run
    def _weights_hash(self, branch: str, round: int) -> str:
        snapshot = self._run.checkpoints(branch).load(round)
        return weights_hash(snapshot.vector, snapshot.buffers)

    @lru_cache(maxsize=4096)  # noqa: B019 - as above
    def _measured(
        self,
        branch: Branch,
        retrain: Branch,
        round: int,
        clients: tuple[int, ...],
        forgotten: tuple[int, ...],
    ) -> tuple[Values, str | None]:
        """Return all measures of a branch's model at a round, and why any of them is None."""
        beside = retrained_round(self._experiment, round)
        key = digest_of(
            {
                "model": self._weights_hash(branch.name, round),
                "retrain": self._weights_hash(retrain.name, beside),
                "data": self._data.content_hash,
                "forget": clients,
                "forgotten": forgotten,
                "seed": self._seed,
                "samples": self._experiment.measures.mia_samples,
                "numerics": numerics(self._experiment),
                "scikit-learn": version("scikit-learn"),
                "source": source_of(
                    "fedunlearn.evaluation.measures",
                    "fedunlearn.evaluation.metrics",
                    "fedunlearn.evaluation.outputs",
                ),
                "metrics": {m.name: m.foreign and source_of(m.module) for m in self._metrics.values()},
            }
        )
        if self._cache is not None and (stored := self._cache.measures(key)) is not None:
            return stored["values"], stored["reason"]
        vector, outputs = self._outputs(branch.name, round)
        retrain_vector, retrain_outputs = self._outputs(retrain.name, beside)
        itself = (branch.name, round) == (retrain.name, beside)
        reference = None if itself else self._measured(retrain, retrain, beside, clients, forgotten)[0]
        found = measure(
            Evidence(
                outputs=outputs,
                forget=self._data.indices_of(clients),
                retain=self._data.all_but(forgotten),
                seed=self._seed,
                mia_samples=self._experiment.measures.mia_samples,
                forget_test=self._test_rows_from(clients),
                weights=vector,
                retrained=Retrained(retrain_outputs, retrain_vector, reference),
                pixel_kl=partial(self._pixel_kl, branch.name, round, retrain.name, beside),
            ),
            self._metrics.values(),
        )
        values, reason = dict(found), found.reason
        if self._cache is not None:
            self._cache.store_measures(key, {"values": values, "reason": reason})
        return values, reason

    def _breakdown(self, branch: Branch, round: int) -> dict[str, Any]:
        """Return the quality per client and per class, where the experiment asks for it."""
        wanted = self._experiment.measures
        found: dict[str, Any] = {}
        if wanted.per_client or wanted.per_class:
            _, outputs = self._outputs(branch.name, round)
            if wanted.per_client and outputs.train is not None:
                found["per_client"] = per_client(outputs.train, self._data.clients)
            if wanted.per_class and outputs.test is not None:
                found["per_class"] = per_class(outputs.test)
        return found

    # -- what it took -------------------------------------------------------------------------------------

    def _cost(self, branch: Branch, moment: Moment, at: str, round: int) -> Cost:
        """Return what the rounds up to ``round`` took: a method's since the request, others' since the start.

        A timeline's end is about all of its requests and costs what it took since the first.
        """
        first = 0
        if branch.kind == "method":
            first = branch.first_round if at == "final" else moment.at_round
        sent = answered = 0
        epochs = 0.0
        for record in self._plans(branch.name):
            if first < record.round <= round:
                plan = RoundPlan.from_dict(record.plan)
                asked = {*plan.train, *plan.asked_to_forget}
                sent += len(asked)
                there = asked - record.failed.keys()
                answered += len(there)
                forgotten = there.intersection(plan.asked_to_forget)
                epochs += (len(there) - len(forgotten)) * self._experiment.train.local_epochs
                for number in forgotten:
                    epochs += self._work.forgetting(branch, number, plan.without.get(number, ())).epochs
        log: Mapping[Address, Metric] = self._log(branch.name)
        seconds = sum(
            log[address].seconds
            for r in range(first + 1, round + 1)
            if (address := (branch.name, r, "server", "round", "seconds")) in log
        )
        size = self._model_bytes()
        return Cost(
            client_epochs=whole(epochs),
            bytes_up=answered * size,
            bytes_down=sent * size,
            seconds=seconds,
            cached=bool(self._records[branch.name]["cached"]),
        )

    def _model_bytes(self) -> int:
        tensors = [self._model.vector, *self._model.buffers().values()]
        return sum(t.numel() * t.element_size() for t in tensors)

    def _scale(self, branch: Branch, progress: Mapping[str, Any]) -> Scale | None:
        raw = getattr(branch.method.settings, "scale", None) if branch.method else None
        if raw is None or progress["unlearned_round"] is None:
            return None
        log: Mapping[Address, Metric] = self._log(branch.name)
        round = progress["unlearned_round"]
        effective = {
            int(m.entity.removeprefix("client-")): m.value
            for m in log.values()
            if m.round == round and m.metric == "coefficient"
        }
        return Scale(raw=raw, effective=effective, group=sum(effective.values()))


def _forget(numbers: tuple[int, ...], parts: Parts) -> Forget:
    """Return what numbers of clients, and of parts of clients' data, stand for."""
    found = [parts[number] for number in numbers if number in parts]
    if not found:
        return Forget(numbers)
    samples, classes = {part.samples for part in found}, {part.classes for part in found}
    alike = len(found) == len(numbers)
    return Forget(
        clients=tuple(sorted({parts[n].client if n in parts else n for n in numbers})),
        samples=samples.pop() if alike and len(samples) == 1 else None,
        classes=classes.pop() if alike and len(classes) == 1 else None,
        parts=numbers,
        words=words.clients(numbers, words.names_of(found)),
    )
