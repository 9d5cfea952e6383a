"""Choosing a function by its name in the experiment file, and handing it the settings it asks for.

Sources, partitioners and architectures are plain functions in plain dictionaries. The parameters of such a
function are named as the fields of its part of the experiment (``alpha``, ``hidden``, …), so a new one needs
its own file and one line in the dictionary, and its signature says which settings it reads.
"""

import importlib
import inspect
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from fedunlearn.errors import ConfigError

Result = TypeVar("Result")

BUILT_IN: dict[str, dict[str, str]] = {
    "strategies": {
        "puf": "fedunlearn.strategies.puf:PUF",
        "natural": "fedunlearn.strategies.natural:Natural",
        "retrain": "fedunlearn.strategies.retrain:Retrain",
        "local-routine": "fedunlearn.strategies.local_routine:LocalRoutine",
    }
}
"""Kind → name in an experiment file → where it is."""


def names(kind: str) -> tuple[str, ...]:
    """Return the names of everything of a kind."""
    return tuple(BUILT_IN[kind])


def find(kind: str, name: str) -> Any:
    """Return the component of a kind by its name."""
    return load_object(BUILT_IN[kind][name])


def call(
    registry: Mapping[str, Callable[..., Result]], name: str, *, key: str, config: object, **given: object
) -> Result:
    """Call the entry `name` of a registry with the settings its signature names.

    Parameters
    ----------
    registry : mapping of str to callable
        The functions to choose from.
    name : str
        The chosen one, as the experiment file has it under `key` (say ``data.source``).
    key : str
        Where the name stands in the experiment file, for the error message.
    config : object
        The part of the experiment whose fields serve as parameters.
    **given
        Parameters that are no settings (``labels``, ``rng``, …). They take precedence over fields.

    Raises
    ------
    ConfigError
        There is no entry of that name.
    """
    if name not in registry:
        raise ConfigError(f"{key} = {name!r}: must be one of {', '.join(registry)}")
    function = registry[name]
    arguments: dict[str, Any] = {}
    for parameter in inspect.signature(function).parameters:
        arguments[parameter] = given[parameter] if parameter in given else getattr(config, parameter)
    return function(**arguments)


def load_object(reference: str) -> Any:
    """Return the object at ``module:attribute``, as Flower finds its apps."""
    module, _, attribute = reference.partition(":")
    return getattr(importlib.import_module(module), attribute)


def describe(registry: Mapping[str, Callable[..., object]]) -> dict[str, str]:
    """Return the first docstring line of every entry, by name, for ``fedunlearn list``."""
    return {name: (inspect.getdoc(function) or "").partition("\n")[0] for name, function in registry.items()}
