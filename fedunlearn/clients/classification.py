"""Image classification as a client does it."""

from torch import Tensor

from fedunlearn.clients.trainer import Routine
from fedunlearn.evaluation.outputs import SplitOutputs, predict


class Classification(Routine):
    """A worker's resident classifier and data."""

    task = "classification"

    def _outputs(self, images: Tensor, targets: Tensor) -> SplitOutputs:
        return SplitOutputs(predict(self.model.module, images), targets)
