"""What the server measures after every round of a simulated federation, in one pass of logits."""

from __future__ import annotations

from flwr.app import ArrayRecord, MetricRecord

from fedunlearn import resident
from fedunlearn.config import Experiment
from fedunlearn.data import FederatedData
from fedunlearn.evaluation.accuracy import accuracy, mean_loss
from fedunlearn.evaluation.catalogue import Unmeasurable
from fedunlearn.evaluation.outputs import SplitOutputs, collect
from fedunlearn.federation.payload import unpack
from fedunlearn.simulation.branches import Branch


class ServerEvaluation:
    """Accuracy (percent) and loss (nats) of the global model: Flower's ``evaluate_fn``.

    Test and validation data are measured every round; the branch's forgotten and retained training data only
    where somebody looks at them, which is from ``branch.keep_from`` on and never in the original (which has
    nothing to forget yet).
    """

    def __init__(self, experiment: Experiment, data: FederatedData, branch: Branch) -> None:
        self._data = data
        self._model = resident.new_model(experiment, data, seed=0)
        self._from = branch.keep_from if branch.forget else None
        self._forget = data.indices_of(branch.forget)
        self._retain = data.all_but(branch.forget)

    def __call__(self, server_round: int, arrays: ArrayRecord) -> MetricRecord:
        """Measure the model in ``arrays``; what cannot be measured (a diverged model's) is left out."""
        state = unpack(arrays)
        self._model.load(state.vector, state.buffers)
        with_train = self._from is not None and server_round >= self._from
        splits = ("train", "validation", "test") if with_train else ("validation", "test")
        outputs = collect(self._model.module, self._data, splits=splits)
        parts = {"test": outputs.test, "validation": outputs.validation}
        if outputs.train is not None:
            parts["forget"] = outputs.train.take(self._forget)
            parts["retain"] = outputs.train.take(self._retain)
        record = MetricRecord()
        for name, part in parts.items():
            if part is not None:
                _measure(record, name, part)
        return record


def _measure(record: MetricRecord, name: str, part: SplitOutputs) -> None:
    try:
        record[f"{name}-accuracy"] = accuracy(part)
        record[f"{name}-loss"] = mean_loss(part)
    except Unmeasurable:
        record.pop(f"{name}-accuracy", None)
