"""Who holds which classes as a heat map: clients × classes, darker = more samples, sizes beside."""

from collections.abc import Collection, Mapping, Sequence

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.patches import Rectangle

from fedunlearn.html.markup import Markup
from fedunlearn.html.palette import HEAT, STAND_INS
from fedunlearn.html.svg import Drawing, drawing, inline
from fedunlearn.report.run_files import Partition
from fedunlearn.report.words import clients, number

WHOLE = 200
"""A partition of up to so many clients is drawn whole."""
BARS = 9.0
"""Widths of the one column, where there is but one, that the bars beside it take."""
SOME = 24
"""So many clients are drawn of a larger one: as many as leave room for their numbers."""


def rows_to_draw(partition: Partition, forgotten: Collection[int]) -> list[int]:
    """Return the places in ``partition.clients`` of those to draw, ascending.

    All of a small partition. Of a large one ``SOME``: forgotten clients, at most half, and others at even distances.
    """
    listed = len(partition.clients)
    if listed <= WHOLE and listed == partition.num_clients:
        return list(range(listed))
    asked = [place for place, client in enumerate(partition.clients) if client in forgotten]
    chosen = set(asked[: SOME // 2])
    others = [place for place, client in enumerate(partition.clients) if client not in forgotten]
    room = min(SOME - len(chosen), len(others))
    chosen |= {others[place] for place in np.linspace(0, len(others) - 1, room).astype(int)}
    return sorted(chosen)


def shape_of(partition: Partition, samples: str = "samples") -> str:
    """Return how large clients are and how many classes they hold, in words."""
    sizes, classes = partition.sizes, len(partition.classes)
    words = f"{partition.num_clients:,} clients hold {sizes['total']:,} {samples}: {_from_to(sizes)} each"
    return words if classes == 1 else f"{words}, of {_from_to(partition.classes_held)} of {classes} classes"


def _from_to(spread: Mapping[str, float]) -> str:
    if spread["least"] == spread["most"]:
        return f"{spread['least']:,}"
    return f"{spread['least']:,} to {spread['most']:,} (median {number(spread['median'], 0)})"


def heat_map(
    partition: Partition, forgotten: Collection[int], *, name: str, samples: str = "samples"
) -> Markup | None:
    """Return the picture, forgotten clients framed; None where nothing is known.

    Where samples have no classes there is one column, and the bars beside it take the room.
    """
    if not partition.counts or not partition.counts[0]:
        return None
    drawn_rows = rows_to_draw(partition, forgotten)
    numbers = [partition.clients[place] for place in drawn_rows]
    counts = np.array([partition.counts[place] for place in drawn_rows], dtype=np.int64)
    rows, columns = counts.shape
    share = counts / max(1, counts.max())
    classless = columns == 1
    title = (
        f"Training {samples} of {rows} clients{'' if classless else ' by class'}; "
        f"forgotten: {clients(sorted(forgotten), partition.names)}"
    )
    small = rows <= SOME and columns <= 16
    with drawing(name, title, width=5.4, height=min(9.0, 0.75 + 0.27 * rows) if small else 5.0) as drawn:
        axes = drawn.axes
        colours = np.dstack([np.full((rows, columns), part) for part in to_rgb(HEAT)] + [share])
        axes.imshow(
            colours, interpolation="none", aspect="auto", extent=(-0.5, columns - 0.5, rows - 0.5, -0.5)
        )
        axes.grid(visible=False)
        for spine in axes.spines.values():
            spine.set_visible(False)
        if small and not classless:
            _cell_numbers(drawn, counts, share)
        for row, client in enumerate(numbers):
            if client not in forgotten:
                continue
            frame = Rectangle((-0.5, row - 0.5), columns, 1, fill=False, edgecolor=STAND_INS["poor"],
                              linewidth=2, zorder=4, clip_on=False)  # fmt: skip
            axes.add_patch(frame)
            words = f"{clients([client], partition.names)} is forgotten: {counts[row].sum()} {samples}"
            drawn.note(frame, f"forgotten {client}", words)
        axes.set_xlabel("" if classless else "class")
        axes.set_ylabel("client")
        if classless:
            axes.set_xticks([])
            axes.set_xlim(-0.5, columns - 0.5 + BARS)
        elif small:
            classes = partition.classes or tuple(str(column) for column in range(columns))
            slanted = max(map(len, classes)) > 3
            axes.set_xticks(
                range(columns), classes, rotation=40 if slanted else 0, ha="right" if slanted else "center"
            )
        if rows <= SOME:
            axes.set_yticks(range(rows), [str(partition.names.get(client, client)) for client in numbers])
            for client, text in zip(numbers, axes.get_yticklabels(), strict=True):
                if client in forgotten:
                    text.set(color=STAND_INS["poor"], fontweight="bold")
        gone = [client in forgotten for client in numbers]
        beside = (1 / (1 + BARS) + 0.02, 0, 0.9, 1) if classless else (1.02, 0, 0.2, 1)
        _sizes(drawn, counts, gone, samples, place=beside)
        return inline(drawn)


def _cell_numbers(drawn: Drawing, counts: np.ndarray, share: np.ndarray) -> None:
    for (row, column), count in np.ndenumerate(counts):
        if count:
            colour = "#ffffff" if share[row, column] > 0.6 else STAND_INS["ink"]
            drawn.axes.text(column, row, str(count), ha="center", va="center", fontsize=7.5, color=colour)


def _sizes(
    drawn: Drawing,
    counts: np.ndarray,
    forgotten: Sequence[bool],
    samples: str,
    *,
    place: tuple[float, float, float, float],
) -> None:
    """Draw n_k as bars on the client axis of the heat map; ``place`` is left, bottom, width, height of its axes."""
    beside = drawn.axes.inset_axes(place)
    sizes = counts.sum(axis=1)
    colours = [STAND_INS["poor" if gone else "original"] for gone in forgotten]
    beside.barh(range(len(sizes)), sizes, height=0.62, color=colours)
    if len(sizes) <= SOME:
        for row, size in enumerate(sizes):
            beside.text(size, row, f" {size}", va="center", fontsize=7.5, color=STAND_INS["muted"])
    beside.set_xlim(0, max(1, sizes.max()) * 1.45)
    beside.set_ylim(len(sizes) - 0.5, -0.5)
    beside.set_title(samples, fontsize=8.5, fontweight="normal", pad=3, color=STAND_INS["muted"])
    beside.axis("off")
