"""The ServerApp: Flower's FedAvg over all clients, with a clock; weights and times end in files."""

import json
import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Context, Message, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg
from ray import cloudpickle

from fedunlearn import workspace
from stock_app import task

app = ServerApp()


class TimedFedAvg(FedAvg):
    """FedAvg that notes when each round begins to be sent and when it is aggregated, and refuses failures.

    The clock is ``time.monotonic``, which all processes of a machine share.
    """

    def __init__(self, num_clients: int, num_rounds: int) -> None:
        super().__init__(fraction_train=1.0, fraction_evaluate=0.0, min_available_nodes=num_clients)
        self.num_rounds = num_rounds
        self.began: list[float] = []
        self.ended: list[float] = []
        self.bytes_down = 0  # of the last round's messages as Ray's serialiser writes them
        self.bytes_up = 0

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Note the time, then do what FedAvg does."""
        self.began.append(time.monotonic())
        messages = super().configure_train(server_round, arrays, config, grid)
        if server_round == self.num_rounds:
            self._sent = messages = list(messages)
        return messages

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Do what FedAvg does, then note the time."""
        replies = list(replies)
        if failed := [reply.error.reason for reply in replies if reply.has_error()]:
            raise RuntimeError(
                f"round {server_round}: {len(failed)} clients failed, the first by {failed[0]}"
            )
        aggregated = super().aggregate_train(server_round, replies)
        self.ended.append(time.monotonic())
        if server_round == self.num_rounds:
            self.bytes_down = sum(len(cloudpickle.dumps(message)) for message in self._sent)
            self.bytes_up = sum(len(cloudpickle.dumps(message)) for message in replies)
        return aggregated


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run all rounds; leave ``weights.npy`` (flat, float32) and ``result.json`` in the output folder."""
    settings = context.run_config
    num_clients, num_rounds = int(settings["num-clients"]), int(settings["num-rounds"])
    if floats := int(settings["noop-floats"]):
        names = ["weights"]
        initial = ArrayRecord({"weights": Array(np.ones(floats, dtype=np.float32))})
    else:
        model = task.build(
            workspace.experiment_at(str(settings["experiment"])),
            int(settings["num-classes"]),
            int(settings["in-channels"]),
            int(settings["image-size"]),
            int(settings["seed"]),
        )
        names = [name for name, _ in model.named_parameters()]
        initial = ArrayRecord(model.state_dict())
    strategy = TimedFedAvg(num_clients, num_rounds)
    result = strategy.start(grid=grid, initial_arrays=initial, num_rounds=num_rounds)
    output = Path(str(settings["output"]))
    np.save(output / "weights.npy", np.concatenate([result.arrays[name].numpy().ravel() for name in names]))
    found = {
        "began": strategy.began,
        "ended": strategy.ended,
        "bytes_down": strategy.bytes_down,
        "bytes_up": strategy.bytes_up,
    }
    (output / "result.json").write_text(json.dumps(found), encoding="utf-8")
