"""A model between trainings: what a round starts from and ends in."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor


@dataclass(frozen=True)
class ModelState:
    """A model's parameters as one flat vector, and its buffers (BatchNorm statistics, counters) by name."""

    vector: Tensor
    buffers: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def num_bytes(self) -> int:
        """Payload size on the wire, the same in every engine."""
        tensors = [self.vector, *self.buffers.values()]
        return sum(t.numel() * t.element_size() for t in tensors)
