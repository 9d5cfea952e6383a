"""What a module draws at random while it trains, such as dropout: from the run's own generator, never the user's.

PyTorch's dropout takes no generator: it draws from the global one of the device. Whatever trains a model does it
inside :func:`own_draws`, which seeds that generator for as long as it takes and puts it back as it was.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch

from fedunlearn.errors import UserError
from fedunlearn.models.flat import FlatModel
from fedunlearn.randomness import derive_seed

PURPOSE = "dropout"

_seeded = threading.RLock()
"""Threads share the global generators: two models that draw are trained one after the other."""


def own_draws(model: FlatModel, generator: torch.Generator) -> AbstractContextManager[None]:
    """Have a model that draws at random draw what this generator's seed says, under the purpose ``dropout``.

    The global generators are afterwards as they were.

    Raises
    ------
    UserError
        On leaving: the model drew, and it is not known to.
    """
    return _NOTHING if model.draws is False else _OwnDraws(model, generator)


_NOTHING = nullcontext()


class _OwnDraws(AbstractContextManager[None]):
    def __init__(self, model: FlatModel, generator: torch.Generator) -> None:
        self._model, self._generator = model, generator

    def __enter__(self) -> None:
        if self._model.draws:
            _seeded.acquire()
        self._states = [(each, each.get_state()) for each in _generators(self._model.vector.device)]
        if self._model.draws:
            for each, _ in self._states:
                each.manual_seed(derive_seed(self._generator.initial_seed(), PURPOSE))

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        moved = _put_back(self._states)
        if self._model.draws:
            _seeded.release()
        # What is compiled is not the module: a compiler may draw for purposes of its own.
        elif moved and kind is None and self._model.forward is self._model.module:
            raise UserError(
                f"the model ({type(self._model.module).__name__}) draws from PyTorch's global generator while it "
                "trains, so that no run could be repeated; give that module the attribute "
                "draws_at_random = True to make it draw from the run's generator"
            )


@contextmanager
def kept_generators(device: torch.device) -> Iterator[None]:
    """Put the global generators back as they were."""
    states = [(each, each.get_state()) for each in _generators(device)]
    try:
        yield
    finally:
        _put_back(states)


def _put_back(states: list[tuple[torch.Generator, torch.Tensor]]) -> bool:
    """Whether any generator was moved from where it was."""
    moved = False
    for each, state in states:
        if not torch.equal(each.get_state(), state):
            each.set_state(state)
            moved = True
    return moved


def _generators(device: torch.device) -> list[torch.Generator]:
    if device.type != "cuda":
        return [torch.default_generator]
    index = torch.cuda.current_device() if device.index is None else device.index
    return [torch.default_generator, torch.cuda.default_generators[index]]
