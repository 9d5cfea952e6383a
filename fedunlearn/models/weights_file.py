"""Starting from weights in a safetensors file instead of random ones."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from fedunlearn.errors import ConfigError
from fedunlearn.home import expanded
from fedunlearn.plurals import some

NAMED = 3
"""So many names of a file that does not fit are told."""


class Naming(NamedTuple):
    """How an architecture's weights are called in files."""

    body: str
    """What the names of all but the head begin with; a file may leave it out."""
    head: str
    """What the names of the last layer begin with. It stays random where the file has none for as many classes."""
    renamed: Mapping[str, str] = {}
    """What is called otherwise in the architecture (a regular expression), and how it is called in files."""


class WeightsFile:
    """A file of weights, read and checked to be one.

    Parameters
    ----------
    path
        A safetensors file, relative to the working directory.

    Raises
    ------
    ConfigError
        There is no such file, or it holds something else.
    """

    def __init__(self, path: str, naming: Naming) -> None:
        self.path = path
        self._naming = naming
        try:
            content = expanded(path).read_bytes()
            stored = load(content)
        except OSError as error:
            raise self._error(
                f"cannot be read ({error.strerror}); name a safetensors file, or leave it out"
            ) from None
        except SafetensorError as error:
            raise self._error(f"is not a safetensors file ({error})") from None
        self.sha256 = hashlib.sha256(content).hexdigest()
        self._stored = {self._short(name): values for name, values in stored.items()}

    def origin(self, num_classes: int) -> str:
        """Say in a few words what a model for so many classes starts from."""
        head = "head of the file" if self._has_head(num_classes) else "head random"
        return f"weights of {self.path} (sha256 {self.sha256[:16]}…); {head}"

    @torch.no_grad()
    def load_into(self, model: nn.Module, num_classes: int) -> None:
        """Overwrite a model's weights, all but a head that does not fit.

        Raises
        ------
        ConfigError
            The file is of another architecture.
        """
        wanted = {self._short(name): values for name, values in model.state_dict(keep_vars=True).items()}
        stored: Mapping[str, Tensor] = self._stored
        if not self._has_head(num_classes):
            wanted, stored = self._body(wanted), self._body(stored)
        self._compare(stored, wanted)
        for name, values in wanted.items():
            values.copy_(stored[name])

    def _short(self, name: str) -> str:
        name = name.removeprefix(self._naming.body)
        for ours, theirs in self._naming.renamed.items():
            name = re.sub(ours, theirs, name)
        return name

    def _body(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: values for name, values in weights.items() if not name.startswith(self._naming.head)}

    def _has_head(self, num_classes: int) -> bool:
        head = [values for name, values in self._stored.items() if name.startswith(self._naming.head)]
        return bool(head) and all(values.shape[:1] == (num_classes,) for values in head)

    def _compare(self, stored: Mapping[str, Tensor], wanted: Mapping[str, Tensor]) -> None:
        """Refuse a file whose names or shapes are not those wanted, or whose numbers are not finite."""
        if foreign := some([name for name in sorted(stored) if name not in wanted], NAMED):
            raise self._error(f"is of another architecture: it holds {foreign}")
        if missing := some([name for name in wanted if name not in stored], NAMED):
            raise self._error(f"is of another architecture or incomplete: it lacks {missing}")
        for name, values in wanted.items():
            if stored[name].shape != values.shape:
                found, needed = tuple(stored[name].shape), tuple(values.shape)
                raise self._error(f"is of another architecture: {name} has shape {found} instead of {needed}")
            if not stored[name].isfinite().all():
                raise self._error(f"is damaged: {name} contains NaN or infinite numbers")

    def _error(self, what: str) -> ConfigError:
        return ConfigError(f'model.weights = "{self.path}": {what}')
