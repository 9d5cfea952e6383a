"""A faster forward pass for ``numerics = "fast"``: bfloat16, ``torch.compile``, images pixel by pixel."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from functools import partial
from importlib.util import find_spec

import torch
from torch import Tensor

from fedunlearn.errors import ConfigError
from fedunlearn.models.flat import FlatModel


def accelerate(
    model: FlatModel, *, precision: str = "float32", compile: bool = False, channels_last: bool = False
) -> None:
    """Let training compute the model's logits faster, and not to the last bit the same.

    Once per resident model: :func:`train_local` and :func:`train_stack` use what is set here from then on.
    Weights, gradients, optimiser and the loss stay in the model's own dtype. Evaluation is not affected.

    Parameters
    ----------
    model
        Changed in place: ``forward`` and ``autocast``.
    precision
        "bfloat16": layers compute in it where that is safe, as ``torch.autocast`` has it. Anything else: the
        model's own.
    compile
        Compile the architecture with ``torch.compile``, on first use and once more for batches of any size. For
        accelerators: on a processor the models that come with this library get slower. Stacks are not compiled.
    channels_last
        Hand images over with all channels of a pixel side by side in memory; layers that can keep to that
        order, and a convolution's product may be faster in it. Weights stay in the order of the flat vector.
        Input that is not (n, channels, height, width) stays as it is, and so do stacks.

    Raises
    ------
    ConfigError
        If it should be compiled and there is no compiler.
    """
    forward: Callable[[Tensor], Tensor] = model.module
    device = model.vector.device.type
    if compile:
        _need_compiler(device)
        forward = torch.compile(model.module)
    if channels_last:
        forward = _ChannelsLast(forward)
    model.autocast = torch.bfloat16 if precision == "bfloat16" else None
    model.forward = forward if model.autocast is None else _Autocast(forward, device, model.autocast)
    model.accelerate = partial(accelerate, precision=precision, compile=compile, channels_last=channels_last)


class _ChannelsLast:
    """A forward pass of images whose channels vary fastest in memory."""

    def __init__(self, forward: Callable[[Tensor], Tensor]) -> None:
        self._forward = forward

    def __call__(self, images: Tensor) -> Tensor:
        if images.dim() == 4:
            # A convolution whose input lies so computes so, whatever the order of its weights.
            images = images.contiguous(memory_format=torch.channels_last)
        return self._forward(images)


class _Autocast:
    """A forward pass in lower precision, with logits in the weights' own."""

    def __init__(self, forward: Callable[[Tensor], Tensor], device: str, dtype: torch.dtype) -> None:
        self._forward, self._device, self._dtype = forward, device, dtype

    def __call__(self, images: Tensor) -> Tensor:
        with torch.autocast(self._device, self._dtype):
            logits = self._forward(images)
        return logits.to(images.dtype)


def _need_compiler(device: str) -> None:
    if device == "cpu":
        compilers = [os.environ["CXX"]] if "CXX" in os.environ else ["g++", "clang++"]
        if not any(shutil.which(each) for each in compilers):
            raise ConfigError(
                f"engine.compile = true: no C++ compiler ({' or '.join(compilers)}) is on the path; install one, "
                "name it in the environment variable CXX, or use false"
            )
    elif find_spec("triton") is None:
        raise ConfigError(
            f"engine.compile = true: Triton, which compiles for {device}, is missing; use false"
        )
