"""What a method needs of the examples and of the model, and one line for whoever gives it something else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from fedunlearn.errors import NOT_FINITE, UserError
from fedunlearn.models.flat import FlatModel
from fedunlearn.unlearning.examples import Examples


@dataclass(frozen=True)
class Needs:
    """What a method needs, with its settings.

    Attributes
    ----------
    retained : bool
        At least one retained example. A client that leaves as a whole has none.
    retained_of_forgotten_classes : bool
        Retained examples of F's classes, unless ``conditions.held_out`` brings some: it judges itself by them.
    original_data : bool
        All of the original training data (F and R together), not only a part of R; of a client, all that it has.
    labels : bool
        Whether it looks at labels at all.
    statistics : bool
        Outputs or gradients in evaluation mode, for which BatchNorm must have running statistics.
    last_layer : str
        "any"; "linear": a linear layer whose outputs are the logits; "own": such a layer that is run once, and whose
        weight is no other layer's.
    """

    retained: bool = True
    retained_of_forgotten_classes: bool = False
    original_data: bool = False
    labels: bool = True
    statistics: bool = False
    last_layer: Literal["any", "linear", "own"] = "any"


def check_tools(method: str, model: object, generator: object) -> None:
    """Refuse a model that is not wrapped, and a generator that is none of the processor's."""
    if not isinstance(model, FlatModel):
        kind = type(model).__name__
        remedy = (
            "wrap it: FlatModel(module)" if isinstance(model, nn.Module) else "FlatModel(module) makes one"
        )
        raise UserError(
            f"{method}: the model is a {kind}, but must be a fedunlearn.models.flat.FlatModel; {remedy}"
        )
    if not isinstance(generator, torch.Generator):
        raise UserError(
            f"{method}: generator = {generator!r}: must be a torch.Generator, such as "
            "torch.Generator().manual_seed(1)"
        )
    if generator.device.type != "cpu":
        raise UserError(f"{method}: the generator is on {generator.device}; use one on the CPU")


def check_result(method: str, model: FlatModel, *, steps: bool) -> None:
    """Refuse weights or buffers, such as statistics, that a method has made no numbers of.

    Parameters
    ----------
    steps
        Whether the method takes gradient steps, which may be too long.

    Raises
    ------
    UserError
        A line that ends with :data:`~fedunlearn.errors.NOT_FINITE`, by which a federation tells that it has diverged.
    """
    values = [model.vector, *(b for b in model.module.buffers() if b.is_floating_point())]
    if not all(bool(torch.isfinite(each).all()) for each in values):
        remedy = "try a smaller lr or clip_norm first" if steps else "try other settings"
        raise UserError(f"{method}: diverged; {remedy}: the resulting model {NOT_FINITE}")


def check_model(method: str, needs: Needs, model: FlatModel, images: Tensor) -> Tensor:
    """Refuse a model that a method cannot work on; return the outputs of an image, in evaluation mode.

    Returns
    -------
    Tensor, shape (1, classes, ...)

    Raises
    ------
    UserError
        It names the method and what is wrong.
    """
    if not bool(torch.isfinite(model.vector).all()):
        raise UserError(
            f"{method}: the model has weights that are not finite (NaN or Inf); use an earlier one"
        )
    if images.dtype != model.vector.dtype or images.device != model.vector.device:
        raise UserError(
            f"{method}: the images are {images.dtype} on {images.device}, and the model is {model.vector.dtype} on "
            f"{model.vector.device}; convert one of them"
        )
    for name, layer in model.module.named_modules():
        if needs.statistics and isinstance(layer, _BatchNorm) and layer.running_mean is None:
            raise UserError(
                f"{method}: needs outputs in evaluation mode, and {name!r} ({type(layer).__name__}) keeps no running "
                "statistics; use track_running_stats = True, GroupNorm, or another routine"
            )
    probe = model.copy().module.eval()
    try:
        with torch.no_grad():
            # Two: a layer without running statistics takes those of the batch.
            outputs = probe(images[:1].expand(2, *images.shape[1:]))
    except RuntimeError as error:
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(
            f"{method}: the model cannot be run on images of shape {tuple(images.shape[1:])}: {why}"
        ) from error
    if not isinstance(outputs, Tensor) or outputs.dim() < 2:
        raise UserError(f"{method}: the model must return one tensor of shape (n, classes, …)")
    return outputs[:1]


def check_pair(method: str, what: str, examples: object) -> None:
    """Refuse what is no images with a label each: another object, arrays, one number, lengths that differ."""
    if not isinstance(examples, Examples):
        raise UserError(
            f"{method}: what is {what} is a {type(examples).__name__}; pass it as "
            "fedunlearn.unlearning.Examples(images, labels)"
        )
    given: dict[str, object] = examples._asdict()
    for name, values in given.items():
        if not isinstance(values, Tensor):
            remedy = "torch.as_tensor() makes one of an array or a list"
            raise UserError(
                f"{method}: {name} {what} are a {type(values).__name__}, but must be a torch.Tensor; {remedy}"
            )
        if values.dim() == 0:
            raise UserError(
                f"{method}: {name} {what} are a single number, without an axis of examples; even for one example, "
                "give images and labels of shape (1, …), such as images[:1]"
            )
    images, labels = examples
    if len(images) != len(labels):
        raise UserError(
            f"{method}: there are {len(images)} images {what} and {len(labels)} labels; give each image its own"
        )


def check_examples(method: str, what: str, examples: Examples, like: Examples, outputs: Tensor) -> None:
    """Refuse examples that are none.

    Parameters
    ----------
    what
        Whose they are, for the error: "to forget".
    like
        Others that they must look like.
    outputs : Tensor, shape (1, classes, ...)
        The model's, of one image.

    Raises
    ------
    UserError
        It names the method, the examples and what is wrong with which of them.
    """
    images, labels = examples
    if not len(labels):
        return
    if images.shape[1:] != like.images.shape[1:] or images.dtype != like.images.dtype:
        raise UserError(
            f"{method}: images {what} are {_form(images)}, but must be like those to forget, {_form(like.images)}"
        )
    if (row := _first_not_finite(images)) is not None:
        raise UserError(
            f"{method}: image {row} of the {len(images)} {what} is not finite (NaN or Inf); fix it or leave it out"
        )
    _check_labels(method, what, labels, outputs)


def _check_labels(method: str, what: str, labels: Tensor, outputs: Tensor) -> None:
    expected, classes = outputs.shape[2:], outputs.shape[1]
    whole = _WHOLE if len(expected) else _WHOLE[:1]  # cross-entropy takes no others
    if labels.shape[1:] != expected or labels.dtype not in whole:
        raise UserError(
            f"{method}: labels {what} are {_form(labels)}, but must be int64 of shape {_of(expected)}: the model's "
            "classes"
        )
    wrong = ((labels < 0) | (labels >= classes)).flatten(1 if labels.dim() > 1 else 0)
    rows = wrong.any(1).nonzero() if labels.dim() > 1 else wrong.nonzero()
    if len(rows):
        row = int(rows[0])
        value = int(labels[row].flatten()[wrong[row].nonzero()[0]] if labels.dim() > 1 else labels[row])
        raise UserError(
            f"{method}: label {row} of the {len(labels)} {what} is {value}, but the model has {classes} classes, "
            f"counted from 0"
        )


_WHOLE = (torch.int64, torch.int32, torch.int16, torch.uint8)


def _form(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} of shape {_of(tensor.shape[1:])}"


def _of(shape: Sequence[int]) -> str:
    return f"(n, {', '.join(map(str, shape))})" if len(shape) else "(n,)"


def _first_not_finite(images: Tensor) -> int | None:
    """Return the first row with a NaN or an Inf; a look at sums, and at the rows whose sum is none."""
    for row in (~torch.isfinite(images.flatten(1).sum(1))).nonzero().flatten().tolist():
        if not bool(torch.isfinite(images[row]).all()):  # a sum may overflow where no pixel is wrong
            return int(row)
    return None
