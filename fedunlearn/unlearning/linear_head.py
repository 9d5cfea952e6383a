"""Finding the linear layer that a model ends in."""

from torch import Tensor, nn

from fedunlearn.errors import UserError
from fedunlearn.models.flat import FlatModel
from fedunlearn.unlearning.steps import frozen, logits_of


def head_of(model: FlatModel, images: Tensor, method: str) -> str:
    """Return the name of the linear layer whose outputs are the model's, as it is found by running it on images.

    Raises
    ------
    UserError
        There is none, and the method cannot do without.
    """
    probe = frozen(model)
    outputs: dict[str, Tensor] = {}

    def remember(name: str, output: Tensor) -> None:
        outputs[name] = output

    for name, layer in probe.module.named_modules():
        if isinstance(layer, nn.Linear):
            layer.register_forward_hook(lambda _, __, output, name=name: remember(name, output))
    logits = logits_of(probe, images)
    for name, output in outputs.items():
        if output is logits:
            return name
    raise UserError(
        f"{method}: {type(model.module).__name__} does not end in a linear layer; use another routine"
    )
