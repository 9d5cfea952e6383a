"""The page's pictures: one test slice of a forgotten site under the original, each method, and retraining."""

from base64 import b64encode
from collections.abc import Sequence
from struct import unpack

from fedunlearn.html.markup import Markup, join, tag
from fedunlearn.plurals import counted
from fedunlearn.report.overlay import OPACITY, PREDICTION, TRUTH
from fedunlearn.report.picture_index import Picture
from fedunlearn.report.run_files import RunFiles
from fedunlearn.report.scores import REFERENCES
from fedunlearn.report.sections import section
from fedunlearn.report.words import clients, moment, number

SHOWN_SETS = 3
"""So many sets are open at once; the others unfold."""
MOST_SETS = 12
"""So many are on the page at all, for every picture weighs some ten kilobytes."""


def pictures(run: RunFiles) -> Markup | None:
    """Return the pictures of a segmentation run, set by set; None where there are none."""
    sets: dict[tuple[int, int, str], list[Picture]] = {}
    for picture in run.pictures:
        sets.setdefault((picture.seed, picture.target, picture.request), []).append(picture)
    if not sets:
        return None
    several = len({seed for seed, _, _ in sets}) > 1
    blocks = [_set(run, shown, several) for shown in list(sets.values())[:MOST_SETS]]
    rest, left = blocks[SHOWN_SETS:], len(sets) - MOST_SETS
    words = (
        "One test slice of a forgotten site: the one with the largest true prostate, chosen without any model. After "
        "forgetting, the blue area should match the retrained model's. Dice is for this slice alone, the mean over "
        "prostate and background."
    )
    return section(
        "pictures",
        "One slice, before and after",
        tag("p", words, class_="lead"),
        _inks(),
        *blocks[:SHOWN_SETS],
        tag("details", tag("summary", f"{len(rest)} more"), *rest) if rest else None,
        tag("p", f"{counted(left, 'more set')} in pictures/.", class_="note") if left > 0 else None,
    )


def _set(run: RunFiles, shown: Sequence[Picture], several_seeds: bool) -> Markup:
    """Return the pictures of one set: truth and original once, then a line per method with its retraining."""
    first = shown[0]
    names = run.names(first.seed) or ({first.client: first.site} if first.site else {})
    title = f"Forget {clients(first.forget, names)}" + (f" · seed {first.seed}" if several_seeds else "")
    where = (
        f"Test slice {first.slice} of case {first.case} of {clients([first.client], names)}, counted from 0."
    )
    retrained = {picture.round: picture for picture in shown if picture.label == "retrain"}
    methods = list(dict.fromkeys(p.label for p in shown if p.label not in (*REFERENCES, "truth")))
    lines = []
    for label in methods:
        own = [picture for picture in shown if picture.label == label]
        beside = retrained.get(own[-1].round)
        lines.append(_line([*own, *([beside] if beside else [])], where, label))
    start = _line([picture for picture in shown if picture.label in ("truth", "original")], where)
    return tag(
        "div",
        tag("h3", title),
        tag("p", where, class_="note"),
        tag("div", start, tag("div", *lines), class_="strip"),
        class_="panel",
        data_target=first.target,
        data_seed=first.seed,
    )


def _line(shown: Sequence[Picture], where: str, label: str | None = None) -> Markup:
    figures = [_figure(picture, where) for picture in shown]
    return tag("div", *figures, class_="shots", data_label=label)


def _figure(picture: Picture, where: str) -> Markup:
    data = picture.path.read_bytes()
    width, height = unpack(">II", data[16:24])
    name, when = _named(picture)
    if picture.label == "truth":
        alt = f"{where} The true prostate, outlined."
        facts = [when]
    else:
        value = "could not be measured" if picture.dice is None else number(picture.dice)
        alt = f"{where} {name}, {when}: predicted prostate over the true outline. Dice {value}."
        facts = [when, tag("br"), f"Dice {value}"]
    source = f"data:image/png;base64,{b64encode(data).decode()}"
    image = tag("img", src=source, alt=alt, width=width, height=height)
    return tag(
        "figure",
        image,
        tag("figcaption", tag("b", name), *facts),
        data_label=picture.label,
        data_at=picture.at,
        data_round=picture.round,
    )


def _named(picture: Picture) -> tuple[str, str]:
    """Return what a picture shows: the model, and when."""
    if picture.label == "truth":
        return "truth", "the mask of the data"
    if picture.label == "retrain":
        return "retrained", f"round {picture.round}"
    return picture.label, f"{moment(picture.at)}, round {picture.round}"


def _inks() -> Markup:
    """Return what the two colours mean, as the pictures use them."""
    truth, prediction = (f"rgb({red},{green},{blue})" for red, green, blue in (TRUTH, PREDICTION))
    fill = f"rgba({PREDICTION[0]},{PREDICTION[1]},{PREDICTION[2]},{OPACITY})"
    blue = f"border:2px solid {prediction};background:linear-gradient({fill},{fill}),#4a4a4a"
    keys = ((f"border:2px solid {truth}", "true outline"), (blue, "predicted prostate"))
    return tag(
        "ul",
        *(tag("li", join(tag("i", style=style, aria_hidden="true"), words)) for style, words in keys),
        class_="inks",
    )
