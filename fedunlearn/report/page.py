"""A run directory → one self-contained ``report.html``: no script, no network, nothing beside it."""

from pathlib import Path

from fedunlearn import __version__
from fedunlearn.html.markup import Markup, join, tag
from fedunlearn.html.palette import looks
from fedunlearn.html.style import stylesheet
from fedunlearn.report import gallery, listings, sections
from fedunlearn.report.duplicates import duplicates
from fedunlearn.report.run_files import RunFiles, read_run
from fedunlearn.text_files import write_text

NAVIGATION = {
    "verdict": "Findings",
    "pictures": "Pictures",
    "rounds": "Rounds",
    "scorecard": "Scorecard",
    "partition": "Data",
    "duplicates": "Copies",
    "requests": "Requests",
    "costs": "Costs",
    "settings": "Settings",
}


def write_report(run_dir: Path) -> Path:
    """Write ``report.html`` into a finished run's directory and return its path.

    Reads ``scorecard.json`` and, where they exist, ``metrics.jsonl``, ``branches.json``, ``partition.json``,
    ``pictures/`` and ``experiment.toml``; a section whose file is absent is left out, but that of the rounds says so.
    The same files give the same bytes.

    Raises
    ------
    UserError
        When the directory or its scorecard does not exist.
    RunError
        When a file in it is damaged.
    """
    page = render(read_run(run_dir))
    path = run_dir / "report.html"
    write_text(path, page)
    return path


def render(run: RunFiles) -> str:
    """Return the whole page."""
    seen = looks([*run.scores.methods, *(branch.label for branch in run.branches if branch.kind == "method")])
    parts = {
        "verdict": sections.verdict(run, seen),
        "pictures": gallery.pictures(run),
        "rounds": sections.rounds(run, seen),
        "scorecard": listings.scorecard(run),
        "partition": sections.partition(run),
        "duplicates": duplicates(run),
        "requests": listings.requests(run),
        "costs": listings.costs(run),
        "settings": listings.settings(run),
    }
    links = [tag("a", NAVIGATION[name], href=f"#{name}") for name, part in parts.items() if part]
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        tag("title", f"{run.scores.experiment} · federated unlearning report"),
        tag("style", Markup(stylesheet(caveat=bool(run.scores.caveat), pictures=bool(run.pictures)))),
    )
    body = tag(
        "body",
        sections.header(run),
        tag("nav", *links, aria_label="sections"),
        tag("main", *(part for part in parts.values() if part)),
        _footer(run),
    )
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def _footer(run: RunFiles) -> Markup:
    words = [f"Run {run.scores.run}." if run.scores.run else "", f"Written by fedunlearn {__version__}."]
    if run.metrics.skipped:
        words.append(f"{run.metrics.skipped} unreadable line(s) of metrics.jsonl were skipped.")
    return tag("footer", join(" ".join(word for word in words if word)))
