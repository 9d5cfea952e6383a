"""The augmentation study on data at hand: Average Gap of every method under every policy, and a picture of them.

::

    python -m benchmarks.augmentation                                  # a quarter of an hour
    python -m benchmarks.augmentation --write-docs                     # and put the tables into docs/augmentation.md
    python -m benchmarks.augmentation --picture docs/augmentation.png  # the policies on photographs, seconds

Each policy is a run of its own, as ``fedunlearn run FILE --set data.augmentation=POLICY`` makes it; what is in the
cache is not computed again. The photographs come with scikit-learn.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from benchmarks import docs
from benchmarks.machine import in_words, machine
from benchmarks.tables import markdown
from fedunlearn.config import load
from fedunlearn.config.augmentation import steps_of
from fedunlearn.data.augmentation.policies import TRANSFORMS
from fedunlearn.data.pixels import Pixels
from fedunlearn.errors import UserError
from fedunlearn.report import centralised
from fedunlearn.report.run_files import with_setting
from fedunlearn.report.scores import Scores
from fedunlearn.simulation.augmented import made_of, policies_of, write_sheet
from fedunlearn.simulation.runner import read_scorecard, simulate

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "experiments" / "augmentation" / "mnist5k.toml"
PAGE = docs.PAGE.with_name("augmentation.md")
BEGIN = "<!-- figures: begin (written by benchmarks/augmentation.py) -->"
PACKAGES = ("torch", "torchvision", "scikit-learn")
CIFAR = Pixels((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
TILE = 96
"""Side of what is cut out of a photograph, in pixels."""
CORNERS = (
    *((0, 40, 300), (0, 150, 200), (0, 230, 440), (0, 300, 60)),
    *((1, 80, 260), (1, 160, 330), (1, 220, 180), (1, 60, 330)),
)
"""Of the tiles: number of the photograph, top, left."""
TIMED = 500
"""Images that the time of a policy is taken on."""


def studied(out: Path, overrides: Sequence[str], *, smoke: bool) -> dict[str, Scores]:
    """Run the study, or take it from the cache, and return the scorecards by policy."""
    found = {}
    base = steps_of(load(FILE).data.augmentation)[0]
    for policy in policies_of(base):
        experiment = load(FILE, overrides=[*overrides, f"data.augmentation={policy}"], smoke=smoke)
        folder = simulate(experiment, out=out)
        found[policy] = Scores(with_setting(read_scorecard(folder), folder))
    return found


def tables(found: dict[str, Scores]) -> str:
    """Return the Average Gap by policy and method, and everything else policy by policy, as Markdown."""
    head, gaps = centralised.average_gaps(list(found.values()))
    rows = [[policy, *cells] for policy, cells in zip(found, gaps, strict=True)]
    every = [
        [policy, line.label, *line.cells, str(line.n)]
        for policy, scores in found.items()
        for line in centralised.lines(scores)
    ]
    return "\n\n".join(
        [
            markdown(["Average Gap", *head], rows),
            markdown(["augmentation", "method", *centralised.HEADINGS, "n"], every),
        ]
    )


def timed() -> list[list[str]]:
    """Return, per augmentation, the microseconds that one image of 32 × 32 × 3 takes, the least of three."""
    images = torch.randn(TIMED, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    labels, rows = torch.zeros(TIMED, dtype=torch.int64), []
    for name, augmentation in made_of(load(FILE), ("crop-flip", *TRANSFORMS), CIFAR).items():
        assert augmentation is not None
        seconds = []
        for seed in range(3):
            begun = time.perf_counter()
            augmentation.apply(images, labels, augmentation.draw(TIMED, torch.Generator().manual_seed(seed)))
            seconds.append(time.perf_counter() - begun)
        rows.append([name, f"{1e6 * min(seconds) / TIMED:.0f}"])
    return rows


def picture(path: Path) -> None:
    """Draw the policies on tiles of two photographs."""
    from sklearn.datasets import load_sample_images

    photographs = load_sample_images().images
    tiles = [
        torch.from_numpy(photographs[number][top : top + TILE, left : left + TILE].copy()).permute(2, 0, 1)
        for number, top, left in CORNERS
    ]
    images = CIFAR.normalise(torch.stack(tiles), torch.zeros(0))
    write_sheet(images, CIFAR, made_of(load(FILE), policies_of("crop-flip"), CIFAR), path, seed=1)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point."""
    headline = str(__doc__).partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.augmentation", description=headline)
    parser.add_argument("--picture", type=Path, metavar="FILE", help="only draw the policies, as a PNG")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder of runs")
    parser.add_argument("--smoke", action="store_true", help="a scaled-down version")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="overrides")
    parser.add_argument("--write-docs", action="store_true", help=f"put the tables into docs/{PAGE.name}")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    if chosen.picture is not None:
        picture(chosen.picture)
        print(f"picture: {chosen.picture}")
        return
    try:
        found = studied(chosen.out, chosen.overrides, smoke=chosen.smoke)
    except UserError as error:
        parser.exit(2, f"{error}\n")
    cost = markdown(["augmentation", "µs per image of 32 × 32 × 3"], timed())
    where = f"{in_words(machine(PACKAGES), PACKAGES)}; one thread"
    text = "\n\n".join([tables(found), cost, f"{where}. By `python -m benchmarks.augmentation`."])
    print(text)
    if chosen.write_docs:
        PAGE.write_text(
            docs.with_figures(
                PAGE.read_text(encoding="utf-8"), text, begin=BEGIN, page_name=f"docs/{PAGE.name}"
            ),
            encoding="utf-8",
        )


if __name__ == "__main__":
    main()
