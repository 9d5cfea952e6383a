"""A client's local routine on its way from the experiment file to the client: name, settings, and its run there."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from fedunlearn import plugins, unlearning
from fedunlearn.config import Experiment, MethodConfig
from fedunlearn.config.targets import Wanted
from fedunlearn.config.toml_tree import Origin, plain, read
from fedunlearn.json_text import JsonError, loads_object
from fedunlearn.unlearning import Method

BY_ITSELF = Origin("a local routine")


@dataclass(frozen=True)
class Chosen:
    """A method and its hyper-parameters, all of them.

    Attributes
    ----------
    name : str
        By which the method is found, here and at the client.
    settings
        Of ``method.settings``.
    """

    name: str
    settings: Any

    @property
    def method(self) -> Method:
        """The method itself."""
        return unlearning.method(self.name)

    @classmethod
    def of(cls, name: str, settings: Mapping[str, Any], origin: Origin = BY_ITSELF) -> Chosen:
        """Return a method with settings as an experiment file has them: keys with ``-`` for ``_``.

        Parameters
        ----------
        origin
            Where the settings were written, for errors.

        Raises
        ------
        ConfigError
            There is no such method, or it does not take a setting or its value.
        """
        return cls(name, read(unlearning.method(name).settings, settings, origin, "settings"))

    @classmethod
    def by(cls, method: MethodConfig) -> Chosen | None:
        """Return what a ``[[method]]`` has clients run; None: nothing but ordinary training."""
        return None if method.routine is None else cls(method.routine, method.settings.settings)

    def dumps(self) -> str:
        """Return one line of JSON, as a message carries it."""
        return json.dumps({"name": self.name, "settings": plain(self.settings)}, sort_keys=True)

    @classmethod
    def loads(cls, text: str, modules: Collection[str] = ()) -> Chosen:
        """Inverse of :meth:`dumps`.

        Parameters
        ----------
        modules
            Whose routines may be meant beside those that have a name, see :func:`modules_of`.

        Raises
        ------
        ConfigError
            The text is none of :meth:`dumps`, what it says is refused by :meth:`of`, or it names another module.
        """
        origin = Origin("the message of the server")
        try:
            told = loads_object(str(text), "routine", allow_nan=True)
            name, settings = told["name"], told["settings"]
        except (JsonError, KeyError):
            raise origin.error("routine", text, "must be JSON with a name and settings") from None
        module, colon, _ = str(name).partition(":")
        if colon and module.strip() not in modules:
            # A server could have any module imported that lies on a client's machine.
            what = "must be in a module that the experiment names, or a routine that has a name"
            raise origin.error("routine", name, what)
        return cls.of(name, settings, origin)


def modules_of(experiment: Experiment) -> frozenset[str]:
    """Return the modules of an experiment's strategies and routines: a client imports them, whoever asks it to."""
    named = [("strategies", method.name) for method in experiment.methods]
    named += [("routines", method.routine) for method in experiment.methods if method.routine is not None]
    return frozenset(plugins.module_of(kind, name) for kind, name in named)


def check_routines(experiment: Experiment, origin: Origin | None = None) -> None:
    """Refuse an experiment whose routines cannot do what it asks of them.

    Parameters
    ----------
    origin
        Where its values are from. Default: an experiment of its name.

    Raises
    ------
    ConfigError
        With one line that names the routine and what is wrong.
    """
    origin = origin or Origin(f"experiment {experiment.name}")
    for index, method in enumerate(experiment.methods, start=1):
        chosen, path = Chosen.by(method), f"method[{index}]"
        if chosen is None:
            continue
        routine = chosen.method
        if experiment.data.task not in routine.tasks:
            what = f"is for {' and '.join(routine.tasks)}, and {experiment.data.source!r} is {experiment.data.task}"
            raise origin.error(f"{path}.routine", chosen.name, what)
        if routine.forgets == ("class",) and not _only_classes(experiment):
            remedy = "give targets such as [[target]] classes = [3]"
            if experiment.live:
                remedy = "a live federation may be asked to forget anything"
            raise origin.error(f"{path}.routine", chosen.name, f"forgets classes; {remedy}")
        if routine.needs(chosen.settings).retained and (why := _whole_clients(experiment)):
            what = f"needs retained examples, and {why} use a routine that needs none, {alternatives(experiment)}"
            raise origin.error(f"{path}.routine", chosen.name, what)


def alternatives(experiment: Experiment) -> str:
    """Name routines that an experiment's clients could run without retained examples: "such as …"."""
    task = experiment.data.task
    names = [
        name
        for name, method in unlearning.methods().items()
        if not method.needs(method.settings()).retained
        and task in method.tasks
        and "samples" in method.forgets
    ]
    return f"such as {', '.join(names[:3])}"


def _whole_clients(experiment: Experiment) -> str:
    """Say that whole clients are to be forgotten, or may be, up to the remedy; or nothing."""
    if experiment.live:
        return "a live federation may be asked to forget whole clients, which keep none;"
    entries: tuple[Wanted, ...] = (*experiment.target, *experiment.forget)
    if experiment.targets is None and all(e.samples is not None or e.classes is not None for e in entries):
        return ""
    table = "[[forget]]" if experiment.forget else "[[target]]"
    return (
        "a client that is forgotten as a whole keeps none; forget a part of its data, such as "
        f"{table} clients = [1] samples = 0.5, or"
    )


def _only_classes(experiment: Experiment) -> bool:
    """Whether everything that is to be forgotten are whole classes, of some or of all clients."""
    entries: tuple[Wanted, ...] = (*experiment.target, *experiment.forget)
    return bool(entries) and all(e.classes is not None and e.samples is None for e in entries)
