"""Objects on their way through Ray's object store, tensors and arrays lying in them as they lie in memory."""

from __future__ import annotations

import io
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from ray import cloudpickle
from torch import Tensor

SMALL = 1 << 12
"""Bytes up to which a tensor or array is cheaper to copy than to keep track of."""


@dataclass(frozen=True)
class Parcel:
    """An object cut into a small pickle and the large blocks of memory it refers to.

    Ray stores each block as it is, and whoever gets the parcel on the same machine sees the blocks where they are:
    nothing is copied but once, into the store.
    """

    pickled: bytes
    blocks: list[Any]  # uint8 arrays of out-of-band pickle buffers
    tensors: list[Any]  # uint8 arrays

    @property
    def num_bytes(self) -> int:
        """Size in the object store."""
        sizes = [len(self.pickled), *(block.nbytes for block in (*self.blocks, *self.tensors))]
        return sum(sizes)


def pack(content: Any, *, apart: Mapping[int, int] | None = None) -> Parcel:
    """Cut an object up; its tensors are only looked at when the parcel is put into the store.

    Parameters
    ----------
    content
        Anything that cloudpickle takes. Tensors on a GPU are copied to the host.
    apart
        ``id`` of objects inside ``content`` that travel in parcels of their own → place in the list of them
        that :func:`unpack` will be given.
    """
    blocks: list[Any] = []

    def keep(buffer: pickle.PickleBuffer) -> bool:
        """Whether to write the buffer into the pickle itself."""
        raw = buffer.raw()
        if raw.nbytes <= SMALL:
            return True
        blocks.append(np.asarray(raw))
        return False

    file = io.BytesIO()
    packer = _Packer(file, apart or {}, keep)
    packer.dump(content)  # type: ignore[no-untyped-call]
    if packer.from_gpu:
        torch.cuda.synchronize()
    return Parcel(file.getvalue(), blocks, packer.tensors)


def unpack(
    parcel: Parcel,
    *,
    others: Sequence[Any] = (),
    device: torch.device | str = "cpu",
    own: bool = False,
) -> Any:
    """Put the object together again.

    Parameters
    ----------
    others
        What was packed ``apart``.
    device
        Where its tensors go.
    own
        Whether the tensors are to be copies. Otherwise those on the CPU are windows into the object store, and
        must not be changed: every process on the machine sees the same memory.
    """
    opener = _Opener(io.BytesIO(parcel.pickled), parcel, others, torch.device(device), own)
    return opener.load()


class _Packer(cloudpickle.Pickler):  # type: ignore[misc,name-defined,unused-ignore]
    def __init__(self, file: io.BytesIO, apart: Mapping[int, int], buffer_callback: Any) -> None:
        super().__init__(file, protocol=5, buffer_callback=buffer_callback)  # type: ignore[no-untyped-call]
        self.tensors: list[Any] = []
        self.from_gpu = False
        self._apart = apart
        self._seen: dict[int, int] = {}

    def persistent_id(self, obj: Any) -> Any:
        if id(obj) in self._apart:
            return "apart", self._apart[id(obj)]
        if type(obj) is not Tensor or obj.layout is not torch.strided:
            return None
        if id(obj) not in self._seen:
            data = self._bytes(obj)
            if data.nbytes <= SMALL:
                return "small", data.tobytes(), obj.dtype, tuple(obj.shape)
            self._seen[id(obj)] = len(self.tensors)
            self.tensors.append(data)
        return "tensor", self._seen[id(obj)], obj.dtype, tuple(obj.shape)

    def _bytes(self, tensor: Tensor) -> Any:
        tensor = tensor.detach()
        if tensor.device.type == "cuda":
            # Pinned, so that all copies are under way at once; they are waited for together.
            host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
            tensor = host.copy_(tensor, non_blocking=True)
            self.from_gpu = True
            if tensor.nbytes <= SMALL:
                torch.cuda.synchronize()
        return tensor.contiguous().view(-1).view(torch.uint8).numpy()


class _Opener(pickle.Unpickler):
    def __init__(
        self, file: io.BytesIO, parcel: Parcel, others: Sequence[Any], device: torch.device, own: bool
    ) -> None:
        super().__init__(file, buffers=parcel.blocks)
        self._tensors = parcel.tensors
        self._others = others
        self._device = device
        self._own = own

    def persistent_load(self, pid: Any) -> Any:
        kind, content, *what = pid
        if kind == "apart":
            return self._others[content]
        dtype, shape = what
        if kind == "small":
            return self._placed(
                torch.from_numpy(np.array(bytearray(content), dtype=np.uint8)), dtype, shape, own=True
            )
        return self._placed(torch.from_numpy(_writable(self._tensors[content])), dtype, shape, own=False)

    def _placed(self, data: Tensor, dtype: torch.dtype, shape: Sequence[int], *, own: bool) -> Tensor:
        if not data.numel():
            return torch.empty(
                shape, dtype=dtype, device=self._device
            )  # PyTorch cannot view nothing as something else
        tensor = data.view(dtype).view(shape)
        if self._device.type == "cuda":
            return tensor.pin_memory().to(self._device, non_blocking=True)
        return tensor.clone() if self._own and not own else tensor


class _Window:
    """An array's memory under NumPy's array interface, with the mark "read-only" taken off."""

    def __init__(self, array: Any) -> None:
        self.array = array  # keeps the memory alive
        address, _ = array.__array_interface__["data"]
        self.__array_interface__ = {**array.__array_interface__, "data": (address, False)}


def _writable(array: Any) -> Any:
    """Return an array as PyTorch wants it, which knows no read-only tensors and warns of every one."""
    return array if array.flags.writeable else np.asarray(_Window(array))
