"""What every centralised unlearning method is: a function of a model and two sets of examples, and what it needs.

Nothing here knows that a federation exists. A method is one file with one frozen dataclass of hyper-parameters and
one pure function; :mod:`fedunlearn.unlearning` lists them by name, and finds those of other packages by the entry
point group ``fedunlearn.routines``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
from math import inf
from numbers import Real
from typing import Any, Literal, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedunlearn.config.toml_tree import checked
from fedunlearn.data.augmentation import Augmentation
from fedunlearn.errors import UserError
from fedunlearn.models.flat import FlatModel
from fedunlearn.models.global_generators import own_draws
from fedunlearn.training.batch_sizes import least_batch
from fedunlearn.training.recipe import Loss
from fedunlearn.unlearning.examples import Examples as Examples
from fedunlearn.unlearning.needs import (
    Needs,
    check_examples,
    check_model,
    check_pair,
    check_result,
    check_tools,
)


class Report(NamedTuple):
    """What is told after a step: ``step`` of ``steps``, with this loss (nan where the step has none)."""

    step: int
    steps: int
    loss: float


@dataclass(frozen=True)
class Conditions:
    """Under what a method is run: the caller's business, the same for every method.

    Device and precision come with the model.

    Attributes
    ----------
    progress : callable or None
        Called with a :class:`Report` after every optimiser step.
    clip_norm : float or None
        Gradients longer than this (L2, over all parameters together) are shortened to it.
    augmentation : Augmentation or None
        Applied to every batch that is trained on, of F and of R; never where outputs are only read as targets from a
        frozen model on the same batch: teacher and student see the same images.
    loss : callable
        The task's: (outputs, targets of a batch) → scalar. Methods that are about classes ignore it.
    held_out : Examples or None
        Examples that no model has trained on, for methods that choose by them; without, they take a part of R.
    pixel_std : tuple of float
        What pixels in [0, 1] were divided by to give the images, per channel: for methods that move pixels. One
        number serves all channels.
    least_batch : int
        Fewest examples that the model can be trained on at once; a last batch of fewer joins the one before it.
        :class:`Method` fills it in from the model, see :func:`fedunlearn.training.batch_sizes.least_batch`.
    tensors : Mapping[str, Tensor]
        What a server has sent along for the method, by name: one-dimensional, of float32, on the model's device; not
        to be changed.
    results : MutableMapping[str, Tensor]
        Takes what goes back to the server beside the model, by name: one-dimensional, of float32.

    Raises
    ------
    UserError
        ``clip_norm`` or ``pixel_std`` is not above 0, or not finite.
    """

    progress: Callable[[Report], None] | None = None
    clip_norm: float | None = None
    augmentation: Augmentation | None = None
    loss: Loss = F.cross_entropy
    held_out: Examples | None = None
    pixel_std: tuple[float, ...] = (1.0,)
    least_batch: int = 1
    tensors: Mapping[str, Tensor] = field(default_factory=dict, compare=False)
    results: MutableMapping[str, Tensor] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        if self.clip_norm is not None and not _positive(self.clip_norm):
            raise UserError(f"clip_norm = {self.clip_norm}: must be > 0 and finite, or None")
        stds = self.pixel_std
        if not isinstance(stds, tuple | list) or not stds or not all(_positive(std) for std in stds):
            raise UserError(
                f"pixel_std = {stds}: must be numbers > 0 in a tuple, one for all channels or one for each"
            )

    def tensor(self, name: str, length: int) -> Tensor:
        """Return one of the tensors that a server has sent along, not to be changed.

        Raises
        ------
        UserError
            It is not there, or of another length.
        """
        if name not in self.tensors:
            there = ", ".join(map(repr, sorted(self.tensors))) or "none"
            raise UserError(f"tensor {name!r} is missing; there are: {there}")
        found = self.tensors[name]
        if found.shape != (length,):
            raise UserError(f"tensor {name!r} of shape {tuple(found.shape)}: must be {(length,)}")
        return found


def _positive(value: object) -> bool:
    return isinstance(value, Real) and 0 < float(value) < inf


PLAIN = Conditions()
"""No progress, no clipping, no augmentation, cross-entropy."""


class Passes(NamedTuple):
    """What a method costs: how often it goes over F and over R, forward and backward (½: forward alone)."""

    forget: float
    retain: float


class Unlearn(Protocol):
    """The one function of a method."""

    def __call__(
        self,
        model: FlatModel,
        forget: Examples,
        retain: Examples,
        *,
        settings: Any,
        generator: torch.Generator,
        conditions: Conditions = PLAIN,
    ) -> FlatModel:
        """Return a new model, in any mode; the given one, its buffers and its mode stay as they are."""
        ...


Kind = Literal["samples", "class"]
Merge = Callable[[Sequence[Mapping[str, Tensor]], Sequence[int]], Mapping[str, Tensor]]


def _retained(settings: Any) -> Needs:
    return Needs()


@dataclass(frozen=True)
class Method:
    """A method as it is found by its name.

    Attributes
    ----------
    name : str
        As in ``routine = "salun"``.
    settings : type
        A frozen dataclass, best a :class:`~fedunlearn.config.settings.Settings`; its defaults are the paper's, or its
        code's, and its annotations say what else may be given.
    unlearn : callable
        See :class:`Unlearn`.
    source : str
        Paper, and where its code is read.
    passes : callable
        (settings) → :class:`Passes`.
    needs : callable
        (settings) → :class:`~fedunlearn.unlearning.needs.Needs`. Default: retained examples, and labels.
    forgets : tuple of str
        "samples": any part of the data; "class": one class or several, and F must be all there is of them.
    tasks : tuple of str
        The tasks it is defined for.
    returns : str
        "model"; or "filter": the same weights with something after them, which has buffers of its own and changes
        what they give out. The model itself has forgotten nothing.
    hosted : str
        How a server takes a client's result: "replace" (the mean of the forgetting clients' results is the new
        model), "weighted" (averaged with the retained clients' updates, by numbers of examples), "negated" (as PUF
        does).
    merge : callable or None
        (buffers of each client's result, numbers of examples) → those of the buffers that must not be averaged, as
        they are for all of these clients together: of filters, whose mean is none. None: a mean serves all.
    """

    name: str
    settings: type
    unlearn: Unlearn
    source: str
    passes: Callable[[Any], Passes]
    needs: Callable[[Any], Needs] = _retained
    forgets: tuple[Kind, ...] = ("samples", "class")
    tasks: tuple[str, ...] = ("classification",)
    returns: Literal["model", "filter"] = "model"
    hosted: Literal["replace", "weighted", "negated"] = "replace"
    merge: Merge | None = None

    def __post_init__(self) -> None:
        """Refuse settings that no experiment file could give, when the method is made and not when it is used."""
        if not (isinstance(self.settings, type) and is_dataclass(self.settings)):
            raise TypeError(f"{self.name}: settings must be a frozen dataclass")
        checked(self.settings())

    def __call__(
        self,
        model: FlatModel,
        forget: Examples,
        retain: Examples,
        *,
        generator: torch.Generator,
        settings: Any = None,
        conditions: Conditions = PLAIN,
    ) -> FlatModel:
        """Check what is asked, and run the method; nothing to forget changes nothing.

        Parameters
        ----------
        model
            Stays as it is.
        forget, retain
            F and R; no example is in both.
        generator
            A CPU generator; nothing else is random, and PyTorch's global one is afterwards as it was. What is drawn
            for another purpose than the order of batches, such as dropout, comes from a generator seeded with this
            one's seed and the purpose.
        settings
            Default: the method's defaults.

        Returns
        -------
        FlatModel
            A new one, each of its layers in the mode (training or evaluation) that it has in the given one; of an
            output filter with another module.

        Raises
        ------
        ConfigError
            A setting is outside of what its annotation allows.
        UserError
            The method cannot do what is asked, by name: its ``needs`` are not met; model, generator or examples are
            none (not wrapped, arrays, not finite, labels that are no classes of the model, lengths that differ); or
            it has diverged, and what it made is not finite.
        TypeError
            The settings are another method's, or what the method's function returned is no model.
        """
        settings = self.settings() if settings is None else settings
        if not isinstance(settings, self.settings):
            raise TypeError(f"{self.name} takes {self.settings.__name__}, not {type(settings).__name__}")
        checked(settings)
        check_tools(self.name, model, generator)
        check_pair(self.name, "to forget", forget)
        check_pair(self.name, "to retain", retain)
        if not isinstance(conditions, Conditions):
            raise UserError(f"{self.name}: conditions are a {type(conditions).__name__}; give Conditions(…)")
        if forget.size == 0:
            return model.copy()
        needs = self.needs(settings)
        self._check(needs, model, forget, retain, conditions)
        results = {} if conditions is PLAIN else conditions.results  # what all share by default keeps nothing
        conditions = replace(conditions, least_batch=least_batch(model, forget.images), results=results)
        with own_draws(model, generator):
            found = self.unlearn(
                model, forget, retain, settings=settings, generator=generator, conditions=conditions
            )
        if not isinstance(found, FlatModel):
            raise TypeError(
                f"{self.name}: returned a {type(found).__name__}, but must return a "
                "fedunlearn.models.flat.FlatModel: a changed model.copy()"
            )
        check_result(self.name, found, steps="lr" in self.defaults)
        _set_mode(found.module, model.module)
        return found

    def _check(
        self, needs: Needs, model: FlatModel, forget: Examples, retain: Examples, conditions: Conditions
    ) -> None:
        outputs = check_model(self.name, needs, model, forget.images)
        if outputs.dim() > 2 and "segmentation" not in self.tasks:
            raise UserError(f"{self.name}: is for {self.tasks[0]}, but the model classifies every pixel")
        check_examples(self.name, "to forget", forget, forget, outputs)
        check_examples(self.name, "to retain", retain, forget, outputs)
        if conditions.held_out is not None:
            check_pair(self.name, "held out", conditions.held_out)
            check_examples(self.name, "held out", conditions.held_out, forget, outputs)
        if needs.retained and retain.size == 0:
            raise UserError(
                f"{self.name}: needs retained examples, and there are none; use a routine that needs none"
            )
        if self.forgets == ("class",) and torch.isin(forget.labels, retain.labels).any():
            raise UserError(
                f"{self.name}: forgets classes, but some retained examples are of the same classes"
            )

    @property
    def summary(self) -> str:
        """The first line of its file's docstring, without the name it begins with."""
        first = (inspect.getmodule(self.unlearn).__doc__ or "").partition("\n")[0]
        return first.partition(": ")[2].rstrip(".") or first

    @property
    def defaults(self) -> dict[str, Any]:
        """The default hyper-parameters by name, as keywords of ``settings``."""
        chosen = self.settings()
        return {field.name: getattr(chosen, field.name) for field in fields(self.settings)}


def _set_mode(module: nn.Module, like: nn.Module) -> None:
    """Put every layer into the mode that the layer of its name has in another module."""
    modes = {name: layer.training for name, layer in like.named_modules()}
    for name, layer in module.named_modules():
        layer.training = modes.get(name, layer.training)
