"""The page's findings and charts, section by section: each function returns one piece of HTML."""

from collections.abc import Mapping

from fedunlearn.html.markup import Markup, join, tag
from fedunlearn.html.palette import Look
from fedunlearn.plurals import counted
from fedunlearn.report.heat_map import heat_map, rows_to_draw, shape_of
from fedunlearn.report.legend import key, legend
from fedunlearn.report.panels import Panel, panels
from fedunlearn.report.plots import gap_plot
from fedunlearn.report.quality import Quality
from fedunlearn.report.run_files import RunFiles
from fedunlearn.report.trajectories import trajectory
from fedunlearn.report.verdict import Finding, best_finding, cautions, evidence, findings, headline
from fedunlearn.report.words import MOMENTS, magnitude, moment, number

Looks = Mapping[str, Look]

SHOWN_PANELS = 6
"""So many panels are open at once; the others unfold."""
MOST_PANELS = 24
"""So many are drawn at all; the numbers of the others are in ``metrics.jsonl``."""


def section(anchor: str, heading: str, *children: str | None) -> Markup:
    """Return one section of the page under its heading."""
    return tag("section", tag("h2", heading), *children, id=anchor)


def header(run: RunFiles) -> Markup:
    """Return the name of the experiment and the facts of its setting in one line."""
    settings = run.settings
    data, federation, train, model = (
        settings.get(part) or {} for part in ("data", "federation", "train", "model")
    )
    partition = str(data.get("partition", ""))
    if partition == "dirichlet" and "alpha" in data:
        partition += f" α = {data['alpha']}"
    seeds = settings.get("seeds") or []
    facts = [
        " ".join(part for part in (str(data.get("source", "")), partition and f"({partition})") if part),
        str(model.get("name", "")),
        f"{federation['num-clients']:,} clients" if "num-clients" in federation else "",
        f"{train['rounds']} rounds" if "rounds" in train else "",
        counted(len(seeds), "seed") if seeds else "",
    ]
    caveat = run.scores.caveat
    return tag(
        "header",
        tag("h1", tag("b", run.scores.experiment), " · federated unlearning report"),
        tag("p", caveat, class_="caveat") if caveat else None,
        tag("p", " · ".join(fact for fact in facts if fact), class_="facts"),
    )


def verdict(run: RunFiles, looks: Looks) -> Markup:
    """Return the findings: one sentence, its evidence, a card per method, the gaps as dots."""
    found = findings(run.scores)
    best = best_finding(run.scores)
    quality = run.scores.quality
    plots = [
        gap_plot(run.scores, metric, looks, name=f"gap-{metric.name}") for metric in run.scores.shown("plot")
    ]
    return tag(
        "section",
        tag("p", _ended(headline(run.scores)), class_=f"verdict {best.level if best else 'unknown'}"),
        *(tag("p", line, class_="lead") for line in evidence(run.scores)),
        *(tag("p", warning, class_="caution") for warning in cautions(run.scores)),
        tag("div", *(_card(finding, looks[finding.label], quality) for finding in found), class_="grid"),
        tag("h2", "Distance to retraining, set by set") if any(plots) else None,
        tag("div", *(tag("figure", plot) for plot in plots if plot), class_="grid"),
        _how_to_read(quality),
        id="verdict",
    )


def _ended(words: str) -> str:
    """Return sentences with a full stop behind the last one."""
    return words if words.endswith(".") else f"{words}."


def _card(finding: Finding, look: Look, quality: Quality) -> Markup:
    colour = f"--c:var(--{look.colour})"
    facts = [
        (
            "mean signed gap",
            f"{number(finding.evidence.signed, sign=True)} points" if finding.evidence else "",
        ),
        ("cases", finding.cases + ", of its own" * finding.own if finding.evidence else ""),
        (f"test {quality.word}", _beside("points away", finding.test_gap, "floor", finding.test_floor)),
        ("test Hausdorff", _beside("mm away", finding.hausdorff_gap, "floor", finding.hausdorff_floor)),
        ("missed test slices", _beside("%", finding.missed, "retrained", finding.retrain_missed)),
        ("recovery", finding.recovered),
        ("client-epochs until then", _epochs(finding)),
    ]
    return tag(
        "article",
        tag("h3", key(look), finding.label),
        tag(
            "p",
            number(finding.gap),
            tag("small", f"points from retraining on the forgotten data, {moment(finding.at or '')}"),
            class_="big",
        ),
        _meter(finding, colour),
        tag("p", _ended(finding.words[0].upper() + finding.words[1:]), class_="level"),
        tag("dl", *(join(tag("dt", name), tag("dd", value)) for name, value in facts if value)),
        class_=f"card finding {finding.level}",
        data_label=finding.label,
    )


def _beside(words: str, value: float | None, other_words: str, other: float | None) -> str:
    if value is None:
        return ""
    return f"{number(value)} {words}" + (f", {other_words} {number(other)}" if other is not None else "")


def _epochs(finding: Finding) -> str:
    if finding.client_epochs is None:
        return ""
    whole = finding.retraining_epochs
    return magnitude(finding.client_epochs, "") + (f", retraining {magnitude(whole, '')}" if whole else "")


def _meter(finding: Finding, colour: str) -> Markup | None:
    """Return the way from the retrained model (left) to the original (right) with the method on it."""
    found = finding.evidence
    if found is None or not found.before:
        return None
    whole = max(found.before, found.gap)
    floor = min(100.0, 100 * (found.floor or 0) / whole)
    beyond = found.gap > found.before
    return join(
        tag(
            "div",
            tag("i", style=f"width:{floor:.1f}%", title=f"floor {number(found.floor)} points"),
            tag("s", style=f"left:{100 * found.before / whole:.1f}%") if beyond else None,
            tag("b", style=f"left:{100 * found.gap / whole:.1f}%;{colour}"),
            class_="meter",
        ),
        tag(
            "div",
            tag("span", f"retrained · floor {number(found.floor)}"),
            tag("span", f"original {number(found.before)}{' (line)' if beyond else ''}"),
            class_="ends",
        ),
    )


def _how_to_read(quality: Quality) -> Markup:
    terms = {
        "Gap": "a model's value minus that of a model retrained from scratch without the forgotten data, in the "
        "same round (on pooled data, with one client: with as many epochs as the original). The aim is zero: above "
        "it, the model still remembers; below it, the model was damaged. |gap| is its absolute value.",
        "Floor": "the median |gap| between the retrained model and others that differ from it only by seed, in the "
        "same round. A smaller gap is noise. ✓ marks a gap within its floor where the original's, before anything "
        "was forgotten, is not; ≈ marks one where the original's is too, so that the measure shows nothing.",
        "Case": "a seed and what is forgotten with it. At each moment all methods are compared over the same cases: "
        "1/2 in column n means that one of two cases has numbers for every method there. A method that diverged or "
        "failed in a case does not remove that case from the others.",
        "Recovered": f"the first round whose validation {quality.word} is within ε of retraining's. Runs that never "
        "recover are counted, not dropped.",
        **quality.terms,
        **{short.capitalize(): f"{long}." for short, long in MOMENTS.values()},
    }
    entries = [join(tag("b", f"{term}: "), words) for term, words in terms.items()]
    return tag(
        "details", tag("summary", "How to read this"), *(tag("p", entry, class_="note") for entry in entries)
    )


def rounds(run: RunFiles, looks: Looks) -> Markup | None:
    """Return the quality over rounds, a pair of charts per target set (or timeline) and seed, or why not."""
    quality = run.scores.quality
    every = panels(run)
    first = {panel.seed: place for place, panel in reversed(list(enumerate(every)))}
    drawn = [
        (panel, _panel(run, panel, place, looks, whole=first[panel.seed] == place))
        for place, panel in enumerate(every[:MOST_PANELS])
    ]
    shown = [(panel, figures) for panel, figures in drawn if figures]
    if not shown:
        return _no_rounds(run)
    several = len({panel.seed for panel in every}) > 1
    blocks = [_titled(panel, figures, several) for panel, figures in shown]
    rest = blocks[SHOWN_PANELS:]
    undrawn = len(every) - MOST_PANELS
    words = (
        f"On the forgotten data, {quality.word} should fall to the dashed line; on test data, it should return "
        "to it."
    )
    if any(len(panel.requests) > 1 for panel in every):
        words += " −2,3 above a request means: forget clients 2 and 3."
    return section(
        "rounds",
        f"{quality.title} over rounds",
        tag("p", words, class_="lead"),
        legend(run.scores.methods, looks),
        *blocks[:SHOWN_PANELS],
        tag("details", tag("summary", f"{len(rest)} more"), *rest) if rest else None,
        tag("p", f"{counted(undrawn, 'more set is', 'more sets are')} in metrics.jsonl.", class_="note")
        if undrawn > 0
        else None,
    )


def _no_rounds(run: RunFiles) -> Markup | None:
    """Say in the charts' place that there is nothing to draw; of a run without methods there is nothing to say."""
    if not run.scores.methods:
        return None
    why = f"no {run.scores.quality.word} over rounds is in the run's metrics.jsonl."
    if run.absent:
        verb = "is" if len(run.absent) == 1 else "are"
        why = f"{' and '.join(run.absent)} {verb} not in the run's directory."
    words = f"Nothing to draw: {why}"
    return section("rounds", f"{run.scores.quality.title} over rounds", tag("p", words, class_="note"))


def _panel(run: RunFiles, panel: Panel, place: int, looks: Looks, *, whole: bool) -> Markup | None:
    """Return the charts of one panel; with ``whole`` the training before it as well, alike for all of a seed."""
    near = [
        trajectory(run, panel, split, looks, name=f"rounds-{place}-{split}") for split in ("forget", "test")
    ]
    if not any(near):
        return None
    grid = tag("div", *(tag("figure", figure) for figure in near if figure), class_="grid")
    before = trajectory(run, panel, "test", looks, name=f"whole-{place}", start=1) if whole else None
    return join(
        grid, tag("details", tag("summary", "From round 1"), tag("figure", before)) if before else None
    )


def _titled(panel: Panel, figures: Markup, several: bool) -> Markup:
    title = panel.title + (f" · seed {panel.seed}" if several else "")
    return tag(
        "div", tag("h3", title), figures, class_="panel", data_target=panel.target, data_seed=panel.seed
    )


def partition(run: RunFiles) -> Markup | None:
    """Return who holds which classes, one heat map per seed."""
    figures, samples = [], run.scores.quality.samples
    for seed, held in sorted(run.partitions.items()):
        forgotten = {client for branch in run.branches if branch.seed == seed for client in branch.forget}
        plot = heat_map(held, forgotten, name=f"partition-{seed}", samples=samples)
        if plot:
            words = f"seed {seed}; " * (len(run.partitions) > 1) + shape_of(held, samples)
            figures.append(tag("figure", plot, tag("figcaption", words)))
    if not figures:
        return None
    classless = all(len(held.classes) == 1 for held in run.partitions.values())
    words = f"Training {samples} by client{'' if classless else ' and class'}. "
    words += "Outlined clients are forgotten in some branch."
    if any(held.num_clients > len(rows_to_draw(held, ())) for held in run.partitions.values()):
        words += " Of very many clients only an evenly spaced selection is drawn."
    rest = figures[2:]
    notes = list(dict.fromkeys(note for held in run.partitions.values() for note in held.notes))
    return section(
        "partition",
        "Who holds what",
        tag("p", words, class_="lead"),
        tag("div", *figures[:2], class_="grid"),
        tag("details", tag("summary", f"{len(rest)} more seeds"), tag("div", *rest, class_="grid"))
        if rest
        else None,
        tag("p", "Of these data:", class_="note") if notes else None,
        tag("ul", *(tag("li", note, class_="note") for note in notes)) if notes else None,
    )
