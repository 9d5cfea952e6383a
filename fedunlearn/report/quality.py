"""What a task calls the quality of a model: the one place that decides which measures the report is about."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from fedunlearn.evaluation.catalogue import QUALITY


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
    columns
        Heading → metric of the terminal's table; with its gap, but for those in ``bare``.
    bare
        Headings of columns that show a value alone, for the terminal is narrow.
    told
        Metrics of the Markdown table, beside those of ``columns``.
    main
        Metrics of the page's first table; the others unfold.
    plotted
        Metrics whose gaps are drawn as dots.
    units
        What the numbers of a table are, as its legend begins.
    terms
        What else a reader must know of these measures: term → explanation.
    """

    measure: str
    word: str
    samples: str
    columns: tuple[tuple[str, str], ...]
    main: tuple[str, ...]
    plotted: tuple[str, ...]
    units: str
    bare: tuple[str, ...] = ()
    told: tuple[str, ...] = ()
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
        columns=(
            ("forget", "forget_accuracy"),
            ("retain", "retain_accuracy"),
            ("test", "test_accuracy"),
            ("MIA", "mia_svc"),
        ),
        told=("retain_test_accuracy", "forget_test_accuracy"),
        main=(
            "forget_accuracy",
            "retain_accuracy",
            "test_accuracy",
            "retain_test_accuracy",
            "forget_test_accuracy",
            "mia_svc",
            "mia_yeom_matched",
            "mia_auc",
        ),
        plotted=("forget_accuracy", "test_accuracy", "mia_svc"),
        units="Percentages",
    ),
    "segmentation": Quality(
        measure=QUALITY["segmentation"],
        word="Dice",
        samples="slices",
        columns=(
            ("forget", "forget_dice"),
            ("retain", "retain_dice"),
            ("test", "test_dice"),
            ("HD95", "forget_hausdorff"),
            ("MIA", "mia_svc"),
        ),
        main=(
            "forget_dice",
            "retain_dice",
            "test_dice",
            "forget_hausdorff",
            "test_hausdorff",
            "test_missed",
            "mia_svc",
        ),
        plotted=("forget_dice", "test_dice", "mia_svc", "forget_hausdorff"),
        units="Percentages, Hausdorff distances in mm",
        bare=("retain", "HD95"),
        told=("forget_test_dice", "test_hausdorff", "test_missed"),
        terms={
            "Dice": "how far a predicted mask and the true one overlap, 0 to 100: twice what they share, divided by "
            "what they hold together; per slice the mean over prostate and background, then over slices.",
            "Hausdorff": "the distance that 95 % of the two outlines' points keep to the other outline, in mm, over "
            "slices with a predicted prostate. Missed slices have none.",
        },
    ),
}
"""By the ``task`` of a scorecard."""
