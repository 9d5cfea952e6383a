"""What the server measures after every round of a simulated federation, in one pass over the data."""

from __future__ import annotations

from flwr.app import ArrayRecord, MetricRecord

from fedunlearn import workspace
from fedunlearn.config import Experiment
from fedunlearn.data import FederatedData, Indices
from fedunlearn.errors import DivergedError
from fedunlearn.evaluation.accuracy import mean_loss, quality
from fedunlearn.evaluation.outputs import collect
from fedunlearn.evaluation.scored import QUALITY, Scored, Unmeasurable
from fedunlearn.federation.payload import unpack
from fedunlearn.out_of_memory import naming_shortage
from fedunlearn.server.branch import Branch


class ServerEvaluation:
    """Accuracy, or Dice of masks, (percent) and loss (nats) of the global model: Flower's ``evaluate_fn``.

    Test and validation data are measured every round. Training data to forget and to retain are measured in
    every round whose weights are kept, and before that in about ten rounds: enough for a curve, and for a large
    model a pass over all training data is a sizeable part of a round. Names are ``<split>-<metric>``, of a
    single client's data ``<split>-<metric>@client-<number>``.
    """

    def __init__(self, experiment: Experiment, data: FederatedData, branch: Branch) -> None:
        self._data = data
        self._model = workspace.new_model(experiment, data, seed=0)
        self._branch = branch
        self._parts: dict[str, Indices] = {f"forget@client-{k}": data.indices_of([k]) for k in branch.watched}
        if branch.forget:
            self._parts["forget"] = data.indices_of(branch.forget)
            self._parts["retain"] = data.all_but(branch.forget)

    def __call__(self, server_round: int, arrays: ArrayRecord) -> MetricRecord:
        """Measure the model in ``arrays``; what cannot be measured is left out.

        Raises
        ------
        DivergedError
            What a method's model puts out on test data is no numbers. Of the models it is held against, and of what
            they all start from, that is left out like anything that cannot be measured.
        """
        state = unpack(arrays)
        self._model.load(state.vector, state.buffers)
        splits = (
            ("train", "validation", "test")
            if self._looks_at_training_data(server_round)
            else ("validation", "test")
        )
        with naming_shortage(f"evaluation, round {server_round}", "evaluation"):
            outputs = collect(self._model.module, self._data, splits=splits)
        parts: dict[str, Scored | None] = {"test": outputs.test, "validation": outputs.validation}
        if outputs.train is not None:
            parts |= {name: outputs.train.take(rows) for name, rows in self._parts.items()}
        record = MetricRecord()
        for name, part in parts.items():
            if part is not None:
                self._measure(record, name, part)
        if self._branch.kind == "method" and outputs.test is not None and "test-loss" not in record:
            raise DivergedError(server_round, "the model's outputs are not finite")
        return record

    def _looks_at_training_data(self, round: int) -> bool:
        every = max(1, self._branch.last_round // 10)
        return bool(self._parts) and (self._branch.keeps(round) or round % every == 0)

    def _measure(self, record: MetricRecord, name: str, part: Scored) -> None:
        split, at, entity = name.partition("@")
        try:
            values = {QUALITY[self._data.task]: quality(part), "loss": mean_loss(part)}
        except Unmeasurable:
            return
        for metric, value in values.items():
            record[f"{split}-{metric}{at}{entity}"] = value
