"""Segmentation of images, pixel by pixel, as a client does it."""

from torch import Tensor

from fedunlearn.clients.trainer import Routine
from fedunlearn.evaluation.segmentation import SegmentationOutputs, segment


class Segmentation(Routine):
    """A worker's resident segmentation model and data."""

    task = "segmentation"

    def _outputs(self, images: Tensor, targets: Tensor) -> SegmentationOutputs:
        return segment(self.model.module, images, targets)
