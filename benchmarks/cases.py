"""What is measured: federations of several sizes, and clients that do nothing with models of several sizes.

One local epoch in batches of 32, every client in every round, data dealt out evenly. A case says what is
computed; the row (``rows.py``) says who computes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

SEED = 1
MEGABYTE = 1_000_000


@dataclass(frozen=True, kw_only=True)
class Case:
    """A federation, or with ``noop_floats`` the exchange of a model that nobody trains.

    Attributes
    ----------
    rounds, warm_up : int
        Rounds of each row that count where rows take turns in one process, and that go before; 0 where
        they do not.
    block_rounds : int
        Steady rounds of a row that runs in a process of its own.
    batch_clients : int
        How many clients the row with stacks trains at once; 1 where the model cannot be stacked.
    tolerance, fast_tolerance : float
        Largest difference between two weights, after one round from the same weights, that still counts as
        the same work: under exact and under fast numerics.
    drift : float
        The same after all rounds of a process of its own, over which rounding errors grow.
    """

    name: str
    num_clients: int
    model: str = ""
    images_per_client: int = 0
    image_size: int = 8
    channels: int = 1
    noop_floats: int = 0
    rounds: int
    warm_up: int = 1
    block_rounds: int = 3
    batch_clients: int = 1
    tolerance: float = 1e-5
    fast_tolerance: float = 1e-4
    drift: float = 1e-3

    @property
    def title(self) -> str:
        """What the tables call it."""
        if self.noop_floats:
            return f"no-op, {4 * self.noop_floats / MEGABYTE:g} MB × {self.num_clients}"
        return f"{self.model} × {self.num_clients} × {self.images_per_client}"

    def toml(self, engine: Mapping[str, Any] | None = None, numerics: str = "exact") -> str:
        """Return the federation as an experiment file, to be run by an engine with these settings."""
        assert not self.noop_floats, "a no-op is no experiment"
        settings = {"device": "cpu", "name": "local", **(engine or {})}
        lines = [f"engine.{key} = {_value(value)}" for key, value in settings.items()]
        return f"""
name = "{self.name}"
numerics = "{numerics}"
cache = false
targets = [[0]]
data.source = "synthetic-images"
data.validation = 0.0
data.image-size = {self.image_size}
data.channels = {self.channels}
data.num-train = {self.num_clients * self.images_per_client}
federation.num-clients = {self.num_clients}
model.name = "{self.model}"
train = {{ rounds = 1, batch-size = 32, lr = 0.05, lr-decay = 0.998, weight-decay = 1e-3 }}
method = [{{ name = "natural" }}]
recover.until = "max-rounds"
{chr(10).join(lines)}
"""

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON types."""
        return asdict(self)

    def shortened(self, rounds: int | None) -> Case:
        """Return it with so many rounds of each row at most, here and in processes of their own."""
        if rounds is None:
            return self
        return replace(
            self,
            rounds=min(self.rounds, rounds),
            warm_up=min(self.warm_up, rounds),
            block_rounds=min(self.block_rounds, rounds),
        )


def _value(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


def _mlp(num_clients: int, **settings: Any) -> Case:
    return Case(
        name=f"mlp-{num_clients}",
        model="mlp",
        num_clients=num_clients,
        images_per_client=32,
        batch_clients=min(num_clients, 128),
        **settings,
    )


def _small_cnn(num_clients: int, **settings: Any) -> Case:
    return Case(
        name=f"small-cnn-{num_clients}",
        model="small-cnn",
        num_clients=num_clients,
        images_per_client=64,
        image_size=28,
        batch_clients=min(num_clients, 16),
        **settings,
    )


def _resnet18(num_clients: int, images: int, **settings: Any) -> Case:
    return Case(
        name=f"resnet18-{num_clients}x{images}",
        model="resnet18",
        num_clients=num_clients,
        images_per_client=images,
        image_size=32,
        channels=3,
        drift=0.1,  # a thousandfold in two rounds
        **settings,
    )


def _noop(megabytes: int, **settings: Any) -> Case:
    return Case(name=f"noop-{megabytes}MB", num_clients=10, noop_floats=megabytes * MEGABYTE // 4, **settings)


CASES: dict[str, Case] = {
    case.name: case
    for case in (
        _mlp(10, rounds=400, warm_up=20, block_rounds=6),
        _mlp(100, rounds=200, warm_up=10, block_rounds=5),
        _mlp(1000, rounds=30, warm_up=2, block_rounds=2),
        _small_cnn(10, rounds=30, warm_up=3, block_rounds=5),
        _small_cnn(100, rounds=10, warm_up=1, block_rounds=3),
        _resnet18(10, 8, rounds=12, warm_up=1, block_rounds=4),
        _resnet18(10, 256, rounds=5, warm_up=1, block_rounds=2),
        _resnet18(50, 8, rounds=0, warm_up=0, block_rounds=2),
        _noop(1, rounds=300, warm_up=20, block_rounds=5),
        _noop(45, rounds=40, warm_up=4, block_rounds=4),
        _noop(350, rounds=8, warm_up=1, block_rounds=2),
    )
}
"""mlp: 64-64-10, bound by overhead. resnet18 × 10 × 256: bound by arithmetic. resnet18 × 50: for its memory."""
