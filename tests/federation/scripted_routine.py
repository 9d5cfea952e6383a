"""A client routine of a few awkward numbers, that can be told to go wrong; and the round it should give."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import nn

from fedunlearn.errors import UserError
from fedunlearn.federation.answers import RoundWork
from fedunlearn.models.flat import FlatModel
from fedunlearn.models.state import ModelState
from fedunlearn.randomness import torch_generator
from fedunlearn.training import LocalResult, StackResult

SIZE = 7
FULL = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.64 GiB."


def start_state(*, buffers=False, size=SIZE):
    """Return the model that rounds start from."""
    vector = torch.linspace(-1, 1, size)
    if not buffers:
        return ModelState(vector)
    return ModelState(vector, {"mean": torch.zeros(2), "batches": torch.tensor(0)})


def trained(vector, client, round):
    """Return w_k by formula: it depends on every bit of w."""
    noise = torch.randn(vector.shape, generator=torch_generator(0, "scripted", round, client))
    return vector * 0.9 + 0.1 * noise


def examples_of(client):
    """Return n_k."""
    return 3 + 7 * client % 11


class _Module(nn.Module):
    def __init__(self, size, buffers):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(size))
        if buffers:
            self.register_buffer("mean", torch.zeros(2))
            self.register_buffer("batches", torch.tensor(0))


@dataclass
class ScriptedRoutine:
    """``faults``: client → what goes wrong.

    "raise"; "refuse" (raises what is the user's to mend); "nan"; "none" (no examples); "memory" (an accelerator's is
    full), "allocate" (really asks for too much); "stack" and "stack memory" (raise only in a stack).
    """

    faults: Mapping[int, str] = field(default_factory=dict)
    buffers: bool = False
    size: int = SIZE
    asked: list = field(default_factory=list)

    def __post_init__(self):
        self.model = FlatModel(_Module(self.size, self.buffers))

    def train(self, client, kind, config, tensors):
        self.asked.append((client, kind))
        fault = self.faults.get(client)
        self.model.vector.copy_(trained(self.model.vector, client, config["round"]))
        for name, buffer in self.model.module.named_buffers():
            buffer += client if name == "batches" else 0.1 * client
        if fault == "raise":
            raise RuntimeError(f"client {client} is on fire")
        if fault == "refuse":
            raise UserError("scripted: fuel = none: must be some")
        if fault == "memory":
            raise torch.OutOfMemoryError(FULL)
        if fault == "allocate":
            torch.empty(1 << 50, dtype=torch.uint8)
        if fault == "nan":
            self.model.vector[client % self.size] = float("nan")
        return LocalResult(0 if fault == "none" else examples_of(client), 1 / (1 + client))

    def train_stack(self, clients, start, config):
        rows = []
        for client in clients:
            fault = self.faults.get(client)
            if fault in ("raise", "stack"):
                raise RuntimeError("somebody in this stack is on fire")
            if fault in ("memory", "stack memory"):
                raise torch.OutOfMemoryError(FULL)
            rows.append(trained(start, client, config["round"]))
            if fault == "nan":
                rows[-1][0] = float("inf")
        return StackResult(
            torch.stack(rows), [examples_of(k) for k in clients], [1 / (1 + k) for k in clients]
        )


def round_of(clients, *, forget=(), individually=False, buffers=False, number=1, size=SIZE):
    """Return a round's work."""
    state = start_state(buffers=buffers, size=size)
    return RoundWork(
        state, {"round": number, "lr": 0.1, "seed": 1}, tuple(clients), tuple(forget), individually
    )
