"""One experiment: a tree of frozen dataclasses, a table of the file each; a field's annotation is its check."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Annotated, Any, Literal

from fedunlearn.config.components import SettingsOf
from fedunlearn.config.conditions import (
    Count,
    Refused,
    above,
    at_least,
    at_most,
    below,
    distinct,
    not_empty,
)
from fedunlearn.config.conditions import Name as Name
from fedunlearn.config.conditions import Share as Share
from fedunlearn.config.engine import EngineConfig as EngineConfig
from fedunlearn.config.engine import Numerics
from fedunlearn.config.engine import RayConfig as RayConfig
from fedunlearn.config.federation import LIVE_QUORUM
from fedunlearn.config.federation import FederationConfig as FederationConfig
from fedunlearn.config.federation import slots_of as slots_of
from fedunlearn.config.floor import FloorConfig as FloorConfig
from fedunlearn.config.live import GuardConfig as GuardConfig
from fedunlearn.config.live import RequestsConfig as RequestsConfig
from fedunlearn.config.live import RetentionConfig as RetentionConfig
from fedunlearn.config.targets import Clients, Numbers, Samples, Targets, parts_of, target_sets
from fedunlearn.config.targets import TargetConfig as TargetConfig
from fedunlearn.config.toml_tree import OfKeys, fill_settings
from fedunlearn.parts import Part, Parts

ALWAYS = "is always computed; leave this [[method]] out"


@dataclass(frozen=True, kw_only=True)
class DataConfig(OfKeys):
    """``[data]``: where images come from and who holds which. Paths are relative to the working directory.

    The keys of the source and of the partition stand beside their names.
    """

    source: str
    source_settings: Annotated[Any, SettingsOf("data", "source")] = None
    partition: str = "iid"
    partition_settings: Annotated[Any, SettingsOf("partitions", "partition")] = None
    validation: Annotated[float, at_least(0), below(1)] = 0.1  # share of the training data held out
    augmentation: str = "none"  # one name or several, joined by +: see ``config.augmentation``

    def __post_init__(self) -> None:
        fill_settings(self)

    @property
    def task(self) -> str:
        """What a model is to say of these images, such as "classification"."""
        task: str = self.source_settings.task
        return task

    @property
    def classes(self) -> int | None:
        """How many classes there are, where it is known before the data are; masks have none to forget."""
        classes: int | None = self.source_settings.known_classes()
        return classes


@dataclass(frozen=True, kw_only=True)
class ModelConfig(OfKeys):
    """``[model]``: an architecture by name, with its keys beside it."""

    name: str
    settings: Annotated[Any, SettingsOf("models", "name")] = None

    def __post_init__(self) -> None:
        fill_settings(self)


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """``[train]``: rounds before any unlearning, and the local training of a client in each round."""

    rounds: Count
    local_epochs: Count = 1
    batch_size: Count = 32
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    lr: Annotated[float, above(0)]  # of round 1; round t trains with lr * lr_decay ** (t - 1)
    lr_decay: Share = 1.0
    momentum: Annotated[float, at_least(0), below(1)] = 0.0  # of "sgd"
    weight_decay: Annotated[float, at_least(0)] = 0.0


@dataclass(frozen=True, kw_only=True)
class MethodConfig(OfKeys):
    """``[[method]]``: one way to forget, a strategy by name, with that strategy's keys beside it."""

    name: Annotated[str, Refused({"retrain": ALWAYS, "original": ALWAYS})]
    settings: Annotated[Any, SettingsOf("strategies", "name")] = None
    given_label: Name | None = field(default=None, metadata={"key": "label"})

    def __post_init__(self) -> None:
        fill_settings(self)

    @property
    def label(self) -> str:
        """What its rows are called: the given label, or one of name and settings, such as "puf-special-2"."""
        if self.given_label is not None:
            return self.given_label
        label: str = self.settings.label(self.name.rpartition(":")[2])
        return label

    @property
    def routine(self) -> str | None:
        """The routine that clients run, of a strategy among whose settings there is one."""
        return getattr(self.settings, "routine", None)


@dataclass(frozen=True, kw_only=True)
class ForgetConfig:
    """``[[forget]]``: a request of a timeline; it arrives once ``at_round`` is done, for the round after."""

    clients: Clients | None = None  # default, with classes: everyone
    samples: Samples | None = None  # default: all of them
    classes: Numbers | None = None  # default: all of them
    at_round: Count


@dataclass(frozen=True, kw_only=True)
class RecoverConfig:
    """``[recover]``: when a federation that has forgotten counts as recovered."""

    # On validation data: the retrained model's, or (live) the global model's before the request.
    until: Literal["retrain-accuracy", "reference-accuracy", "max-rounds"] = "retrain-accuracy"
    epsilon: Annotated[float, at_least(0), at_most(100)] = 0.0  # points of accuracy that may be missing
    max_rounds: Count = 15  # the cap; the rounds of the unlearning count


@dataclass(frozen=True, kw_only=True)
class MeasuresConfig:
    """``[measures]``: what is measured beside the scorecard's columns."""

    per_client: bool = False
    per_class: bool = False
    mia_samples: Count = 10_000  # most members, and most non-members, that an attack is fitted on
    # What stands for data nobody has trained on: with "validation" the test split is never read, as in a sweep.
    unseen: Literal["test", "validation"] = "test"
    metrics: tuple[str, ...] = ()  # of other packages, beside those of installed ones: "package.module:name"
    pictures: bool = True  # of masks: draw a test slice of every set before and after forgetting


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """The whole file. Exactly one of ``targets``, ``target``, ``forget`` and ``requests`` is given."""

    name: Name
    seeds: Annotated[tuple[Annotated[int, at_least(0), at_most(2**63 - 1)], ...], not_empty, distinct] = (1,)
    targets: Targets | None = None
    target: tuple[TargetConfig, ...] = ()
    cache: bool = True
    numerics: Numerics = "exact"  # "fast": the same within a tolerance, and what may change a bit is allowed
    data: DataConfig
    federation: FederationConfig = field(default_factory=FederationConfig)
    model: ModelConfig
    train: TrainConfig
    methods: Annotated[tuple[MethodConfig, ...], not_empty] = field(metadata={"key": "method"})
    forget: tuple[ForgetConfig, ...] = ()
    requests: RequestsConfig | None = None
    recover: RecoverConfig = RecoverConfig()
    floor: FloorConfig = field(default_factory=FloorConfig)
    guard: GuardConfig | None = None  # in a live federation always there
    retention: RetentionConfig | None = None  # in a live federation always there
    engine: EngineConfig = field(default_factory=EngineConfig)
    measures: MeasuresConfig = MeasuresConfig()
    smoke: dict[str, Any] = field(default_factory=dict, hash=False)  # dotted key → value; see ``load``
    smoke_run: bool = False  # what is left of ``smoke`` once it was applied: the numbers mean nothing

    def __post_init__(self) -> None:
        object.__setattr__(self, "engine", self.engine.settled(self.numerics))
        if self.federation.given_quorum is None:
            quorum = LIVE_QUORUM if self.live else self.federation.quorum
            object.__setattr__(self, "federation", replace(self.federation, given_quorum=quorum))
        if self.live:
            object.__setattr__(self, "guard", self.guard or GuardConfig())
            object.__setattr__(self, "retention", self.retention or RetentionConfig())

    @property
    def live(self) -> bool:
        """Whether requests arrive while the federation runs, instead of being scripted."""
        return self.requests is not None

    @property
    def branching(self) -> bool:
        """Whether everything to forget has a branch of its own after ``train.rounds``; else there is a timeline."""
        return self.targets is not None or bool(self.target)

    @cached_property
    def _numbered(self) -> tuple[tuple[Part, ...], tuple[tuple[int, ...], ...]]:
        return parts_of(self.target or self.forget, self.federation.num_clients)

    @cached_property
    def parts(self) -> Parts:
        """The parts of clients' data that are forgotten by themselves, by number."""
        return Parts(self._numbered[0])

    def target_sets(self, seed: int) -> tuple[tuple[int, ...], ...]:
        """Return the sets of clients, and parts, to forget in a branch each, each ascending; () for a timeline."""
        if self.targets is not None:
            return target_sets(self.targets, self.federation.num_clients, seed)
        return self._numbered[1] if self.target else ()

    @property
    def forget_sets(self) -> tuple[tuple[int, ...], ...]:
        """The clients, and parts, that each ``[[forget]]`` entry names."""
        return self._numbered[1] if self.forget else ()
