"""A node's array as a tensor: its bytes are held against the tensor that they must be, before any is decoded."""

from __future__ import annotations

import numpy as np
import torch
from flwr.app import Array
from flwr.common.constant import SType
from torch import Tensor

from fedunlearn.federation.payload import TensorArray, tensor_of
from fedunlearn.federation.shown import shown

PREAMBLE = b"\x93NUMPY\x01\x00"
"""How ``np.save`` begins: what it is, and the version of its header."""


class UndecodableError(ValueError):
    """An array cannot be the tensor that it must be; the message says why, in one short line."""


def decoded(array: Array, like: Tensor, what: str, whose: str = "the model's") -> Tensor:
    """Return an array's tensor: the very one it refers to, whatever that is, or a copy of what came over a wire.

    Of the latter only what ``np.save`` makes of a tensor of this shape and dtype is decoded, so that it costs no more
    memory than the tensor, whatever the array claims to be. Its header is compared, never interpreted.

    Parameters
    ----------
    array
        From anywhere.
    like
        A tensor of the shape and dtype that are expected.
    what
        What it is, for errors: "update", "buffer mean".
    whose
        Whose shape and dtype those are, for errors.

    Raises
    ------
    UndecodableError
        It is of another shape, dtype, byte order or serialisation, or has too few bytes or too many.
    """
    if isinstance(array, TensorArray):
        return tensor_of(array)
    if array.stype != SType.NUMPY:
        raise UndecodableError(f"{what} serialised as {shown(array.stype)}, must be {str(SType.NUMPY)!r}")
    shape, dtype = tuple(like.shape), str(like.dtype)
    if (array.shape, f"torch.{array.dtype}") != (shape, dtype):
        found = f"{shown(array.shape)} and {shown(array.dtype)}"
        raise UndecodableError(f"{what} of shape {found}, {whose} is {shape} and {dtype}")
    return torch.from_numpy(_values(array.data, like, what, whose))


def _values(data: bytes, like: Tensor, what: str, whose: str) -> np.ndarray:
    """Return a copy of the values in what ``np.save`` made of an array like this."""
    shape, dtype = tuple(like.shape), torch.empty(0, dtype=like.dtype).numpy().dtype
    start = len(PREAMBLE) + 2 + int.from_bytes(data[len(PREAMBLE) : len(PREAMBLE) + 2], "little")
    size = start + dtype.itemsize * like.numel()
    if not data.startswith(PREAMBLE) or len(data) != size:
        raise UndecodableError(
            f"{what} of {len(data)} bytes, not what np.save writes for {whose} {shape} {dtype}"
        )
    for order in ("C", "F"):
        if data[len(PREAMBLE) + 2 : start].rstrip(b" \n") == _header(shape, dtype, order):
            break
    else:
        raise UndecodableError(f"{what} whose header does not match {whose} {shape} {dtype}")
    values = np.frombuffer(data, np.uint8, offset=start).copy() if like.numel() else np.empty(0, np.uint8)
    if dtype == np.bool_ and values.size and values.max() > 1:
        raise UndecodableError(f"{what} of booleans that are neither 0 nor 1")
    return values.view(dtype).reshape(shape, order=order)


def _header(shape: tuple[int, ...], dtype: np.dtype, order: str) -> bytes:
    """Return the header of ``np.save``, without the spaces that fill it up."""
    descr = np.lib.format.dtype_to_descr(dtype)
    return f"{{'descr': {descr!r}, 'fortran_order': {order == 'F'}, 'shape': {shape!r}, }}".encode("ascii")
