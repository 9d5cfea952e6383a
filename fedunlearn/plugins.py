"""What can be named in an experiment file: strategies, routines, models, tasks, data, partitions and so on.

A component is found by its name. Ours stand in the tables below, those of other packages in their entry points
(``[project.entry-points."fedunlearn.models"]``), and ``"package.module:object"`` names any object directly. Nothing
is imported before somebody asks for it: a broken one is named by ``fedunlearn list`` and stops only who asks for it.

What an author writes is one object, and its settings: a frozen dataclass whose fields are the component's keys in
the file, with bounds by annotation (:mod:`fedunlearn.config.settings`). A class has it as ``settings_type``, a
function as the annotation of its parameter ``settings``; who has no settings leaves it out. A function names, among
its parameters, what it needs of what is offered::

    @dataclass(frozen=True)
    class DampingSettings(Settings):
        rate: Share = 0.5                                # rate = 0.5 under [[method]]

    class Damping(UnlearningStrategy):                   # strategies: self.method.rate
        settings_type = DampingSettings

    METHOD = Method(name="forget-me", settings=…, …)     # routines: see fedunlearn.unlearning.contract

    def small_net(num_classes: int, in_channels: int, image_size: int, settings: NetSettings) -> nn.Module: …

    def blobs(settings: BlobSettings) -> ImageSource: …  # data: an ImageSource or a SliceSource

    def halves(labels: Indices, num_clients: int, rng: Generator) -> Partition: …
                                                         # also: source_rows, num_source_rows, sites, site_names
    def noise(pixels: Pixels | None) -> Augmentation: …  # also: model, the settings of the model

    class Regression(Routine): …                         # tasks: see fedunlearn.clients.trainer

What two settings can only get wrong together, the settings say themselves: ``contradictions``. A component's source,
with all of its package that it imports, is in the key of what was computed with it.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, is_dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from fedunlearn.errors import ConfigError


@dataclass(frozen=True)
class Kind:
    """Components of one kind.

    Attributes
    ----------
    one : str
        What a single one is called.
    built_in : mapping of str to str
        Name in an experiment file → "module:object".
    base : str
        "module:class" that a component is a subclass or an instance of; "": it is called.
    subclass : bool
        Whether it is a subclass.
    settings : str
        "module:class" that its settings derive from; of who has none, they are this itself.
    """

    one: str
    built_in: Mapping[str, str]
    base: str = ""
    subclass: bool = False
    settings: str = "fedunlearn.config.settings:NoSettings"


def _files(package: str, attribute: str, *names: str) -> dict[str, str]:
    """Return components that are a file of a package each, named as it is."""
    return {name: f"{package}.{name.replace('-', '_')}:{attribute}" for name in names}


KINDS: dict[str, Kind] = {
    "strategies": Kind(
        "strategy",
        {
            "puf": "fedunlearn.strategies.puf:PUF",
            "natural": "fedunlearn.strategies.natural:Natural",
            "not": "fedunlearn.strategies.negation:NoT",
            "pga": "fedunlearn.strategies.pga:PGA",
            "federaser": "fedunlearn.strategies.federaser:FedEraser",
            "retrain": "fedunlearn.strategies.retrain:Retrain",
            "local-routine": "fedunlearn.strategies.local_routine:LocalRoutine",
        },
        base="fedunlearn.strategies.base:UnlearningStrategy",
        subclass=True,
        settings="fedunlearn.config.settings:Settings",
    ),
    "routines": Kind(
        "routine",
        _files(
            "fedunlearn.unlearning",
            "METHOD",
            "fine-tune",
            "gradient-ascent",
            "neggrad-plus",
            "gda",
            "random-label",
            "l1-sparse",
            "salun",
            "scrub",
            "bad-teacher",
            "boundary-shrink",
            "boundary-expand",
            "ssd",
            "fisher-noise",
            "fedquit",
            "fedunran",
            "trw",
            "mpru",
            "prune-then-unlearn",
            "projected-ascent",
        ),
        base="fedunlearn.unlearning.contract:Method",
    ),
    "models": Kind(
        "model",
        {
            "mlp": "fedunlearn.models.mlp:mlp",
            "small-cnn": "fedunlearn.models.small_cnn:small_cnn",
            "resnet18": "fedunlearn.models.resnet:resnet18",
            "vit": "fedunlearn.models.vit:vit",
            "mit-b0": "fedunlearn.models.mit:mit_b0",
            "unet": "fedunlearn.models.unet:unet",
        },
        settings="fedunlearn.config.settings:ModelSettings",
    ),
    "tasks": Kind(
        "task",
        {
            "classification": "fedunlearn.clients.classification:Classification",
            "segmentation": "fedunlearn.clients.segmentation:Segmentation",
        },
        base="fedunlearn.clients.trainer:Routine",
        subclass=True,
    ),
    "data": Kind(
        "data source",
        {
            "mnist5k": "fedunlearn.data.mnist5k:mnist5k",
            "digits": "fedunlearn.data.digits:digits",
            "cifar10": "fedunlearn.data.cifar:cifar10",
            "cifar100": "fedunlearn.data.cifar:cifar100",
            "synthetic-images": "fedunlearn.data.synthetic:synthetic_images",
            "prostate-mri": "fedunlearn.data.prostate:prostate_mri",
            "prostate-phantom": "fedunlearn.data.phantom.source:prostate_phantom",
        },
        settings="fedunlearn.config.settings:SourceSettings",
    ),
    "partitions": Kind(
        "partition",
        {
            "iid": "fedunlearn.data.partitioners:iid",
            "dirichlet": "fedunlearn.data.partitioners:dirichlet",
            "pathological": "fedunlearn.data.partitioners:pathological",
            "shards": "fedunlearn.data.partitioners:shards",
            "file": "fedunlearn.data.partition_file:from_file",
            "site": "fedunlearn.data.partitioners:by_site",
        },
        settings="fedunlearn.config.settings:PartitionSettings",
    ),
    "augmentations": Kind(
        "augmentation",
        {
            name: f"fedunlearn.data.augmentation:{name.replace('-', '_')}"
            for name in (
                "none",
                "rotate-crop-flip",
                "enlarge-crop-flip",
                "rot90-flip",
                "crop",
                "crop-flip",
                "randaugment",
                "autoaugment",
                "random-erasing",
                "augmix",
                "trivialaugment",
            )
        },
        settings="fedunlearn.config.settings:AugmentationSettings",
    ),
    "metrics": Kind("metric", {}, base="fedunlearn.evaluation.metric:Metric"),
}
"""By the name of the kind, which is also its entry-point group's: ``fedunlearn.strategies`` and so on."""

LOADED: dict[tuple[str, str], Any] = {}
"""Components that were asked for, by kind and name."""


def names(kind: str) -> tuple[str, ...]:
    """Return the names of everything of a kind: ours in the order of the docs, then those of other packages."""
    return (*KINDS[kind].built_in, *(name for name in _points(kind) if name not in KINDS[kind].built_in))


def find(kind: str, name: str) -> Any:
    """Return the component of a kind by its name, or by "package.module:object".

    Raises
    ------
    ConfigError
        There is none of that name, it cannot be imported, or it is something else.
    """
    if not isinstance(name, str):
        raise ConfigError(f"must be a name, such as {names(kind)[0]!r}")
    if (kind, name) not in LOADED:
        LOADED[kind, name] = _load(kind, reference(kind, name))
    return LOADED[kind, name]


def reference(kind: str, name: str) -> str:
    """Return where a component is, as "module:object".

    Raises
    ------
    ConfigError
        There is none of that name, or two packages have one.
    """
    if name in KINDS[kind].built_in:
        return KINDS[kind].built_in[name]
    if name in _points(kind):
        first, *others = _points(kind)[name]
        if others:
            raise ConfigError(f"is broken: {first.value} and {others[0].value} both have this name")
        return f"{first.module}:{first.attr}"
    if ":" in name:
        return name
    raise ConfigError(_unknown(kind, name))


def module_of(kind: str, name: str) -> str:
    """Return the name of the module that a component is named in; ConfigError as :func:`reference`."""
    return reference(kind, name).partition(":")[0].strip()


def settings_type(kind: str, name: str) -> type:
    """Return the dataclass of a component's settings; ConfigError as :func:`find`."""
    return settings_of(kind, find(kind, name))


def settings_of(kind: str, component: Any) -> type:
    """Return the dataclass of the settings of a component that was found."""
    found = getattr(component, "settings_type", None) or getattr(component, "settings", None)
    if found is None and callable(component):
        found = typing.get_type_hints(component).get("settings")
    if found is None:
        found = load_object(KINDS[kind].settings)
    return typing.cast(type, found)


def broken(kind: str) -> dict[str, str]:
    """Return what other packages provide in vain: name → why, one line each."""
    found = {}
    for name, points in _points(kind).items():
        if name in KINDS[kind].built_in:
            found[name] = f"{points[0].value}: there is already a {name!r}"
            continue
        try:
            find(kind, name)
        except ConfigError as error:
            found[name] = str(error).removeprefix("is broken: ")
    return found


def call(kind: str, name: str, **offered: Any) -> Any:
    """Call a component with those of the arguments offered that its signature names.

    Raises
    ------
    ConfigError
        As of :func:`find`, or it needs something that is not offered.
    """
    function = find(kind, name)
    arguments = {}
    for parameter in inspect.signature(function).parameters.values():
        if parameter.name in offered:
            arguments[parameter.name] = offered[parameter.name]
        elif parameter.default is parameter.empty:
            known = ", ".join(offered)
            raise ConfigError(
                f"{KINDS[kind].one} {name!r}: has a parameter {parameter.name!r}; it can have {known}"
            )
    return function(**arguments)


def load_object(reference: str) -> Any:
    """Return the object at ``module:attribute``, as Flower finds its apps."""
    module, _, attribute = reference.partition(":")
    found: Any = importlib.import_module(module.strip())
    for name in attribute.strip().split("."):
        found = getattr(found, name)
    return found


def summary(component: Callable[..., object]) -> str:
    """Return the first docstring line of a class or function, for ``fedunlearn list``."""
    return (inspect.getdoc(component) or "").partition("\n")[0]


def _load(kind: str, reference: str) -> Any:
    try:
        found = load_object(reference)
        settings = settings_of(kind, found)
    except (Exception, SystemExit) as error:  # whatever somebody's module does when it is imported
        words = " ".join(str(error).split()) or "no reason given"
        why = f"is broken: {reference} cannot be loaded: {type(error).__name__}: {words}"
        raise ConfigError(why) from error
    if wrong := _wrong_with(KINDS[kind], found, settings):
        raise ConfigError(f"is broken: {reference} {wrong}")
    return found


def _wrong_with(kind: Kind, found: Any, settings: Any) -> str:
    """Say why an object is no component of a kind; "": it is one."""
    if kind.base:
        base = load_object(kind.base)
        fits = (
            isinstance(found, type) and issubclass(found, base) if kind.subclass else isinstance(found, base)
        )
        if not fits:
            what = "must be a subclass of" if kind.subclass else "is no"
            return f"{what} {kind.base.replace(':', '.')}"
    elif not callable(found):
        return f"is no {kind.one}: it cannot be called"
    if not (isinstance(settings, type) and is_dataclass(settings)):
        return "has settings that are not a dataclass"
    if kind.settings != Kind.settings and not issubclass(settings, load_object(kind.settings)):
        return f"has settings that must derive from {kind.settings.replace(':', '.')}"
    return ""


def _unknown(kind: str, name: str) -> str:
    known = [other for other in names(kind) if (kind, other) not in HIDDEN]
    close = difflib.get_close_matches(name, known, n=1)
    hint = f'; did you mean "{close[0]}"?' if close else ""
    return f'must be one of {", ".join(map(_quoted, known))}, or "package.module:object"{hint}'


def _quoted(name: str) -> str:
    return f'"{name}"'


HIDDEN = {("strategies", "retrain")}
"""What runs without being named in a file."""


@cache
def _points(kind: str) -> Mapping[str, tuple[EntryPoint, ...]]:
    """Return the entry points of a kind by name, each once however often its package is on the path."""
    found: dict[str, tuple[EntryPoint, ...]] = {}
    for point in entry_points(group=f"fedunlearn.{kind}"):
        others = found.get(point.name, ())
        if all(other.value != point.value for other in others):
            found[point.name] = (*others, point)
    return found
