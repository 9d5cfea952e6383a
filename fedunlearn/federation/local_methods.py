"""A client's local routine on its way from the experiment file to the client: name, settings, and its run there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args, get_origin, get_type_hints

from fedunlearn import unlearning
from fedunlearn.config import Experiment
from fedunlearn.config.targets import Wanted
from fedunlearn.errors import ConfigError
from fedunlearn.unlearning import Method


def known_settings(name: str) -> dict[str, str]:
    """Return the settings of a routine as an experiment file writes them, each with the field that it is."""
    return {each.name.replace("_", "-"): each.name for each in fields(unlearning.method(name).settings)}


@dataclass(frozen=True)
class Chosen:
    """A method and its hyper-parameters, all of them.

    Attributes
    ----------
    method : Method
    settings
        Of ``method.settings``.
    """

    method: Method
    settings: Any

    @classmethod
    def of(cls, name: str, settings: Mapping[str, Any]) -> Chosen:
        """Return a method with settings as an experiment file has them: keys with ``-`` for ``_``.

        Raises
        ------
        ConfigError
            There is no such method, or it does not take a setting or its value.
        """
        method = unlearning.method(name)
        names = known_settings(name)
        kinds = get_type_hints(method.settings)
        given = {}
        for key, value in settings.items():
            if key not in names:
                takes = ", ".join(names) or "none"
                raise ConfigError(f"settings.{key} = {value!r}: {name} has no such setting; it takes {takes}")
            given[names[key]] = _checked(f"settings.{key}", value, kinds[names[key]])
        return cls(method, method.settings(**given))

    def dumps(self) -> str:
        """Return one line of JSON, as a message carries it."""
        return json.dumps({"name": self.method.name, "settings": asdict(self.settings)}, sort_keys=True)

    @classmethod
    def loads(cls, text: str) -> Chosen:
        """Inverse of :meth:`dumps`."""
        told = json.loads(text)
        method = unlearning.method(told["name"])
        return cls(method, method.settings(**told["settings"]))


def check_routines(experiment: Experiment) -> None:
    """Refuse an experiment whose routines cannot do what it asks of them.

    Raises
    ------
    ConfigError
        With one line that names the routine and what is wrong.
    """
    for index, method in enumerate(experiment.methods, start=1):
        if method.routine is None:
            continue
        try:
            chosen = Chosen.of(method.routine, method.settings)
        except ConfigError as error:
            raise ConfigError(f"method[{index}].{error}") from None
        routine = chosen.method
        if experiment.data.task not in routine.tasks:
            raise ConfigError(
                f"method[{index}].routine = {routine.name!r}: is for {' and '.join(routine.tasks)}, and "
                f"{experiment.data.source!r} is {experiment.data.task}"
            )
        if routine.forgets == ("class",) and not _only_classes(experiment):
            raise ConfigError(
                f"method[{index}].routine = {routine.name!r}: forgets classes; "
                + (
                    "a live federation may be asked to forget anything"
                    if experiment.live
                    else "give targets such as [[target]] classes = [3]"
                )
            )


def _only_classes(experiment: Experiment) -> bool:
    """Whether everything that is to be forgotten are whole classes, of some or of all clients."""
    entries: tuple[Wanted, ...] = (*experiment.target, *experiment.forget)
    return bool(entries) and all(e.classes is not None and e.samples is None for e in entries)


def _checked(path: str, value: Any, kind: Any) -> Any:
    """Return a value in the type of a field; refuse another's."""
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            raise ConfigError(f"{path} = {value!r}: must be one of {', '.join(map(repr, get_args(kind)))}")
        return value
    options = [each for each in get_args(kind) or (kind,) if each is not type(None)]
    if float in options and type(value) is int:
        return float(value)
    if not any(type(value) is option for option in options):
        named = " or ".join(getattr(option, "__name__", str(option)) for option in options)
        raise ConfigError(f"{path} = {value!r}: must be {'an' if named[0] in 'aeio' else 'a'} {named}")
    return value
