"""Finding the linear layer that a model ends in."""

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from fedunlearn.errors import UserError
from fedunlearn.models.flat import FlatModel
from fedunlearn.unlearning.needs import Needs
from fedunlearn.unlearning.steps import frozen


def head_of(model: FlatModel, images: Tensor, method: str, *, own: bool = False) -> str:
    """Return the name of the linear layer whose outputs are the model's, as it is found by running it on images.

    Parameters
    ----------
    own
        Whether it must be run once, and its weight be no other layer's and computed from nothing else: whoever gives
        it another shape would change more than the outputs.

    Raises
    ------
    UserError
        There is none, and the method cannot do without.
    """
    probe = frozen(model)
    runs: dict[str, list[Tensor]] = {}
    for name, layer in probe.module.named_modules():
        if isinstance(layer, nn.Linear):
            layer.register_forward_hook(
                lambda _, __, output, name=name: runs.setdefault(name, []).append(output)
            )
    kind = type(model.module).__name__
    with torch.no_grad():
        # Two: BatchNorm without running statistics takes those of the batch.
        logits = probe.module(images[:1].expand(2, *images.shape[1:]))
    for name, outputs in runs.items():
        if not any(output is logits for output in outputs):
            continue
        layer = probe.module.get_submodule(name)
        assert isinstance(layer, nn.Linear)
        if own and (why := _shared(probe.module, layer, len(outputs))):
            raise UserError(f"{method}: the last layer of {kind}, {name!r}, {why}; use another routine")
        return name
    raise UserError(f"{method}: {kind} does not end in a linear layer; use another routine")


def _shared(module: nn.Module, layer: nn.Linear, runs: int) -> str:
    """Say what else a layer is part of, or nothing."""
    if runs > 1:
        return f"is run {runs} times"
    if is_parametrized(layer):
        return "has a weight that is computed from others"
    everything = [parameter for _, parameter in module.named_parameters(remove_duplicate=False)]
    if any(sum(each is own for each in everything) > 1 for own in layer.parameters()):
        return "shares its weights with another layer"
    return ""


def check_last_layer(method: str, needs: Needs, model: FlatModel, images: Tensor) -> None:
    """Refuse a model that does not end in what a method needs, see :func:`head_of`."""
    if needs.last_layer != "any":
        head_of(model, images, method, own=needs.last_layer == "own")
