"""What a task calls the quality of a model, in names and in words."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from fedunlearn.evaluation.scored import QUALITY


@dataclass(frozen=True)
class Quality:
    """The measure by which a task's models are judged, in names and in words.

    Attributes
    ----------
    measure
        As in the names of metrics: ``forget_<measure>`` in a scorecard, the metric of a split in ``metrics.jsonl``.
    word
        In a sentence.
    samples
        What the data are counted in.
    bare
        Headings of the terminal's columns that show a value without its gap, for the terminal is narrow.
    units
        What the numbers of a table are, as its legend begins.
    terms
        What else a reader must know of these measures: term → explanation.
    """

    measure: str
    word: str
    samples: str
    units: str
    bare: tuple[str, ...] = ()
    terms: Mapping[str, str] = field(default_factory=dict)

    def of(self, split: str) -> str:
        """Return the metric's name on a split, such as ``forget_accuracy``."""
        return f"{split}_{self.measure}"

    @property
    def title(self) -> str:
        """The word as a sentence begins with it."""
        return self.word[0].upper() + self.word[1:]


QUALITIES = {
    "classification": Quality(
        measure=QUALITY["classification"],
        word="accuracy",
        samples="samples",
        units="Percentages",
    ),
    "segmentation": Quality(
        measure=QUALITY["segmentation"],
        word="Dice",
        samples="slices",
        units="Percentages, Hausdorff distances in mm",
        bare=("retain", "HD95"),
        terms={
            "Dice": "overlap of a predicted mask and the true one, 0 to 100: twice their intersection, divided by "
            "the sum of their areas; per slice the mean over prostate and background, then over slices.",
            "Hausdorff": "the distance within which 95 % of the two outlines' points lie from the other outline, in "
            "mm, over slices with a predicted prostate. Missed slices have none.",
        },
    ),
}
"""By the ``task`` of a scorecard."""
