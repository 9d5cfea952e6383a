"""The two still pictures: gaps to retrain as dots, and who holds which classes as a heat map."""

from collections.abc import Collection, Mapping

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from fedunlearn.report.markup import Markup
from fedunlearn.report.palette import HEAT, STAND_INS, Look
from fedunlearn.report.run_files import Partition
from fedunlearn.report.scores import Scores
from fedunlearn.report.svg import Drawing, drawing, inline
from fedunlearn.report.words import clients, is_percentage, metric_title, moment, number

SHOWN = ("request", "compare", "cap", "final", "recovered")
"""The moments a dot plot may show; ``recovered`` only where there is no common round to compare at."""


def gap_plot(scores: Scores, metric: str, looks: Mapping[str, Look], *, name: str) -> Markup | None:
    """Return the signed gaps to retrain in one metric, a dot per (seed, request); None when nothing has one.

    The bar is the 95 % bootstrap interval of the mean, the band around zero the seed-to-seed floor.
    """
    groups = _groups(scores, metric)
    if not groups:
        return None
    lines = sum(len(labels) + 1 for _, labels in groups)
    title = f"Gap to retrain in {metric_title(metric)}, a dot per forgotten set and seed"
    with drawing(name, title, width=3.7, height=0.66 + 0.225 * lines) as drawn:
        axes = drawn.axes
        axes.set_title(metric_title(metric)[0].upper() + metric_title(metric)[1:])
        _floor_band(drawn, scores, metric, groups)
        axes.axvline(0, color=STAND_INS["retrain"], linewidth=1.5, linestyle=(0, (4, 2.2)), zorder=2)
        ticks: list[float] = []
        names: list[str] = []
        inks: list[str] = []
        height = 0.0
        for at, labels in groups:
            for label in (None, *labels):  # a heading, then its lines
                height -= 1
                ticks.append(height)
                inks.append(looks[label].ink if label else STAND_INS["muted"])
                if label is None:
                    names.append(moment(at))
                else:
                    names.append(label if len(label) <= 18 else f"{label[:17]}…")
                    _dots(drawn, scores, label, at, metric, height, looks[label])
        axes.set_yticks(ticks, names)
        for text, ink in zip(axes.get_yticklabels(), inks, strict=True):
            text.set(color=ink, fontstyle="italic" if ink == STAND_INS["muted"] else "normal")
        axes.set_ylim(height - 0.6, -0.5)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="y", visible=False)
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.set_xlabel("gap to retraining" + (", points" if is_percentage(metric) else ""))
        return inline(drawn)


def _groups(scores: Scores, metric: str) -> list[tuple[str, list[str]]]:
    found: list[tuple[str, list[str]]] = []
    for at in SHOWN:
        labels = [label for label in scores.labels if label != "retrain" and _gaps(scores, label, at, metric)]
        if labels and not (at == "recovered" and any(other != "request" for other, _ in found)):
            found.append((at, labels))
    return found


def _gaps(scores: Scores, label: str, at: str, metric: str) -> list[tuple[float, str]]:
    """Return (gap, words) of every row that has one."""
    gaps = []
    for row in scores.rows_at(label, at):
        gap = (row.get("gap") or {}).get(metric)
        if gap is not None:
            who = clients((row.get("forget") or {}).get("clients") or ())
            gaps.append(
                (float(gap), f"{label}, {who}, seed {row.get('seed')}: {number(gap, sign=True)} points")
            )
    return gaps


def _dots(
    drawn: Drawing, scores: Scores, label: str, at: str, metric: str, height: float, look: Look
) -> None:
    for gap, words in _gaps(scores, label, at, metric):
        (dot,) = drawn.axes.plot(
            gap, height, marker="o", markersize=6, color=look.ink, alpha=0.45, markeredgewidth=0, zorder=3
        )
        drawn.note(dot, f"gap {label} {at}", words)
    stat = scores.stat(label, at, "gap", metric)
    if stat.low is not None and stat.high is not None:
        drawn.axes.plot([stat.low, stat.high], [height, height], color=look.ink, linewidth=1.3, zorder=4)
    if stat.mean is not None:
        (mean,) = drawn.axes.plot(
            stat.mean, height, marker="|", markersize=13, markeredgewidth=2.6, color=look.ink, zorder=5
        )
        drawn.note(
            mean, f"mean {label} {at}", f"{label}, mean of {stat.n}: {number(stat.mean, sign=True)} points"
        )


def _floor_band(drawn: Drawing, scores: Scores, metric: str, groups: list[tuple[str, list[str]]]) -> None:
    floors = [scores.stat(label, at, "floor", metric).mean for at, labels in groups for label in labels]
    known = [floor for floor in floors if floor is not None]
    if known:
        floor = sum(known) / len(known)
        band = drawn.axes.axvspan(
            -floor, floor, color=STAND_INS["retrain"], alpha=0.13, linewidth=0, zorder=1
        )
        drawn.note(band, "floor", f"seed-to-seed floor: ± {number(floor)} points")


def heat_map(partition: Partition, forgotten: Collection[int], *, name: str) -> Markup | None:
    """Return clients × classes, darker = more samples, sizes beside; forgotten clients are framed."""
    if not partition.counts or not partition.counts[0]:
        return None
    counts = np.array(partition.counts, dtype=np.int64)
    rows, columns = counts.shape
    share = counts / max(1, counts.max())
    title = f"Training samples of {rows} clients by class; forgotten: {clients(sorted(forgotten))}"
    small = rows <= 24 and columns <= 16
    with drawing(name, title, width=5.4, height=min(9.0, 0.75 + 0.27 * rows) if small else 5.0) as drawn:
        axes = drawn.axes
        colours = np.dstack([np.full((rows, columns), part) for part in to_rgb(HEAT)] + [share])
        axes.imshow(
            colours, interpolation="none", aspect="auto", extent=(-0.5, columns - 0.5, rows - 0.5, -0.5)
        )
        axes.grid(visible=False)
        for spine in axes.spines.values():
            spine.set_visible(False)
        _cell_numbers(drawn, counts, share) if small else None
        for client in sorted(set(forgotten) & set(range(rows))):
            frame = Rectangle((-0.5, client - 0.5), columns, 1, fill=False, edgecolor=STAND_INS["poor"],
                              linewidth=2, zorder=4, clip_on=False)  # fmt: skip
            axes.add_patch(frame)
            drawn.note(
                frame, f"forgotten {client}", f"client {client} is forgotten: {counts[client].sum()} samples"
            )
        axes.set_xlabel("class")
        axes.set_ylabel("client")
        if small:
            classes = partition.classes or tuple(str(column) for column in range(columns))
            slanted = max(map(len, classes)) > 3
            axes.set_xticks(
                range(columns), classes, rotation=40 if slanted else 0, ha="right" if slanted else "center"
            )
            axes.set_yticks(range(rows))
            for client, text in enumerate(axes.get_yticklabels()):
                if client in forgotten:
                    text.set(color=STAND_INS["poor"], fontweight="bold")
        _sizes(drawn, counts, forgotten)
        return inline(drawn)


def _cell_numbers(drawn: Drawing, counts: np.ndarray, share: np.ndarray) -> None:
    for (client, column), count in np.ndenumerate(counts):
        if count:
            colour = "#ffffff" if share[client, column] > 0.6 else STAND_INS["ink"]
            drawn.axes.text(column, client, str(count), ha="center", va="center", fontsize=7.5, color=colour)


def _sizes(drawn: Drawing, counts: np.ndarray, forgotten: Collection[int]) -> None:
    """Draw n_k as bars on the right, on the client axis of the heat map."""
    beside = drawn.axes.inset_axes((1.02, 0, 0.2, 1))
    sizes = counts.sum(axis=1)
    colours = [STAND_INS["poor" if client in forgotten else "original"] for client in range(len(sizes))]
    beside.barh(range(len(sizes)), sizes, height=0.62, color=colours)
    if len(sizes) <= 24:
        for client, size in enumerate(sizes):
            beside.text(size, client, f" {size}", va="center", fontsize=7.5, color=STAND_INS["muted"])
    beside.set_xlim(0, max(1, sizes.max()) * 1.45)
    beside.set_ylim(len(sizes) - 0.5, -0.5)
    beside.set_title("samples", fontsize=8.5, fontweight="normal", pad=3, color=STAND_INS["muted"])
    beside.axis("off")
