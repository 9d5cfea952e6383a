"""``[engine]``: what runs the clients, and what of it is left to choose."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Annotated, Literal

from fedunlearn.config.conditions import Count, Must, at_least, not_empty

Numerics = Literal["exact", "fast"]
Precision = Literal["float32", "float64", "bfloat16"]

# What Ray can hand out: parts of one GPU, or several whole ones, counted in ten-thousandths.
gpu_quantity = Must(
    lambda gpus: gpus == 0 or 0.0001 <= gpus <= 1 or gpus.is_integer(),
    "must be 0, a share of one GPU (0.0001 to 1), or a whole number of GPUs",
)


@dataclass(frozen=True, kw_only=True)
class RayConfig:
    """``[engine.ray]``: the cluster, and what a worker holds of it. Used by the engine "ray" alone."""

    address: Annotated[str, not_empty] | None = None  # of a running cluster; None: Ray is started here
    gpus_per_worker: Annotated[float, at_least(0), gpu_quantity] | None = None  # None: as the device needs
    cpus_per_worker: Annotated[float, at_least(0.0001)] | None = None  # None: threads_per_client


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    """``[engine]``: what runs the clients.

    ``given_*`` is what the file says, None where it leaves a choice that is still to be made. In an
    ``Experiment`` that is so only for ``workers`` with the engines "ray" (the cluster decides) and "auto" (a
    probe decides), and for ``batch_clients`` and ``precision`` with "auto" under fast numerics. The
    properties of those names are values to compute with in any case.
    """

    name: Literal["local", "ray", "auto"] = "local"
    given_workers: Count | None = field(default=None, metadata={"key": "workers"})
    device: Literal["auto", "cpu", "cuda"] = "auto"
    given_precision: Precision | None = field(default=None, metadata={"key": "precision"})
    threads_per_client: Count = 1  # torch adds in another order with 2, so it is part of the result
    given_batch_clients: Count | None = field(default=None, metadata={"key": "batch-clients"})
    compile: bool = False  # torch.compile the training step
    channels_last: bool = False  # images in memory pixel by pixel, which convolutions may prefer
    ray: RayConfig = RayConfig()

    @property
    def workers(self) -> int:
        """How many clients, or stacks of clients, train side by side; 1 while nothing is chosen."""
        return 1 if self.given_workers is None else self.given_workers

    @property
    def precision(self) -> Precision:
        """What clients compute in; "float32" while nothing is chosen."""
        return "float32" if self.given_precision is None else self.given_precision

    @property
    def batch_clients(self) -> int:
        """How many clients one worker trains in one stack; 1 is one by one, and while nothing is chosen."""
        return 1 if self.given_batch_clients is None else self.given_batch_clients

    @property
    def cpus_per_worker(self) -> float:
        """CPUs that a worker takes of a Ray cluster."""
        cpus = self.ray.cpus_per_worker
        return float(self.threads_per_client) if cpus is None else cpus

    def gpus_per_worker(self, device_type: str) -> float:
        """Return the GPUs that a worker takes of a Ray cluster, given where it trains: "cpu" or "cuda"."""
        gpus = self.ray.gpus_per_worker
        return gpus if gpus is not None else float(device_type == "cuda")

    def settled(self, numerics: Numerics) -> EngineConfig:
        """Return it with everything written out that is nobody's to choose any more."""
        chosen_by_probe = self.name == "auto" and numerics == "fast"
        return replace(
            self,
            given_workers=self.workers if self.name == "local" else self.given_workers,
            given_precision=self.given_precision if chosen_by_probe else self.precision,
            given_batch_clients=self.given_batch_clients if chosen_by_probe else self.batch_clients,
        )
