"""The page's word on images that are there more than once: what a measurement of forgetting must be read with."""

from fedunlearn.html.markup import Markup, tag
from fedunlearn.report.run_files import RunFiles
from fedunlearn.report.sections import section

WHY = (
    "A retained copy is still trained on after the forgetting, and a copy in the test set is what the forgotten one "
    "is measured against. Copies are identical in every pixel; similar images are not counted."
)


def duplicates(run: RunFiles) -> Markup | None:
    """Return what was counted of them, seed by seed; nothing where no image occurs twice."""
    told = []
    for seed, held in sorted(run.partitions.items()):
        of_seed = f"seed {seed}: " if len(run.partitions) > 1 else ""
        told += [tag("li", of_seed + line, class_="note") for line in held.copies]
    if not told:
        return None
    return section("duplicates", "More than once", tag("p", WHY, class_="lead"), tag("ul", *told))
