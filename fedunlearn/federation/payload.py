"""What travels: a model on the wire, and within a process as a reference."""

from __future__ import annotations

from collections.abc import Mapping
from io import BytesIO
from typing import Any

import numpy as np
import torch
from flwr.app import Array, ArrayRecord
from flwr.common.constant import SType
from torch import Tensor

from fedunlearn.errors import UserError
from fedunlearn.models.state import ModelState as ModelState

PARAMETERS = "parameters"
BUFFER_PREFIX = "buffers/"


class TensorArray(Array):
    """A Flower ``Array`` that carries a reference to a tensor and serialises it only if bytes are asked for.

    Within one process nothing is copied: sender and receiver must treat the tensor as read-only. When Flower
    sends it to another process it becomes an ordinary ``Array`` holding one ``np.save`` of the whole tensor.
    """

    def __init__(self, tensor: Tensor) -> None:
        tensor = tensor.detach()
        # Past Flower's __setattr__, which would look for a hash to discard at each of them.
        self.__dict__.update(
            tensor=tensor,
            dtype=str(tensor.dtype).removeprefix("torch."),
            shape=tuple(tensor.shape),
            stype=SType.NUMPY,
        )

    @property
    def data(self) -> bytes:  # type: ignore[override]
        """The tensor as Flower's NumPy serialisation."""
        buffer = BytesIO()
        np.save(buffer, self.numpy(), allow_pickle=False)
        return buffer.getvalue()

    def numpy(self) -> Any:
        """Return the tensor as a NumPy array, without a copy where it is on the CPU."""
        return self.__dict__["tensor"].cpu().numpy()

    def deflate(self) -> bytes:
        """Return the wire form of the ordinary ``Array`` of the same content."""
        return Array(self.dtype, self.shape, self.stype, self.data).deflate()


def tensor_of(array: Array) -> Tensor:
    """Return an array's tensor: the very one it refers to, or a decoded copy if it came over a wire."""
    if isinstance(array, TensorArray):
        return array.__dict__["tensor"]  # type: ignore[no-any-return]
    return torch.from_numpy(array.numpy())


def pack(state: ModelState) -> ArrayRecord:
    """Return the one record a model travels in: ``parameters`` and ``buffers/<name>``."""
    buffers = {BUFFER_PREFIX + name: value for name, value in state.buffers.items()}
    return packed({PARAMETERS: state.vector, **buffers})


def packed(tensors: Mapping[str, Tensor]) -> ArrayRecord:
    """Return the record that tensors travel in by their names."""
    # Entry by entry: a record made from a dictionary copies every array into one that holds bytes.
    record = ArrayRecord()
    for name, tensor in tensors.items():
        record[name] = TensorArray(tensor)
    return record


def unpacked(record: object) -> dict[str, Tensor]:
    """Return the tensors in a record that :func:`packed` made; of anything else none."""
    return (
        {name: tensor_of(array) for name, array in record.items()} if isinstance(record, ArrayRecord) else {}
    )


def check_packed(record: ArrayRecord) -> None:
    """Refuse arrays that somebody starts a federation from, and that :func:`pack` has not made.

    Raises
    ------
    UserError
        They are a state dict, say, which no round could add an update to.
    """
    unknown = [key for key in record if key != PARAMETERS and not key.startswith(BUFFER_PREFIX)]
    if PARAMETERS not in record or unknown:
        named = ", ".join(map(repr, list(record)[:3])) or "nothing"
        raise UserError(
            f"initial_arrays hold {named}: a model travels as {PARAMETERS!r}, its weights as one vector, and "
            f"{BUFFER_PREFIX + '<name>'!r}; pack(ModelState(flat.vector, flat.buffers())) of a FlatModel makes them"
        )
    if len(shape := tuple(record[PARAMETERS].shape)) != 1:
        raise UserError(f"initial_arrays: {PARAMETERS!r} of shape {shape}: must be one vector")


def unpack(record: ArrayRecord) -> ModelState:
    """Return the model in a record that :func:`pack` made, on either side of a wire."""
    buffers = {
        key.removeprefix(BUFFER_PREFIX): tensor_of(array)
        for key, array in record.items()
        if key.startswith(BUFFER_PREFIX)
    }
    return ModelState(tensor_of(record[PARAMETERS]), buffers)
