"""The charts, read back from the SVG: what is drawn where, in which colours, with which marks."""

import base64
import re
import struct
import zlib
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from fedunlearn.html.palette import SCHEMES, STAND_INS, looks
from fedunlearn.report.page import write_report
from fedunlearn.report.plots import gap_plot
from fedunlearn.report.run_files import read_run
from fedunlearn.report.scores import Scores
from tests.report.example_rows import CAP, NATURAL, PUF
from tests.report.example_run import ROUNDS, ExampleRun, held
from tests.report.parsed_page import Element, parse


@pytest.fixture(scope="module")
def directory(tmp_path_factory) -> Path:
    return ExampleRun().write(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def page(directory) -> Element:
    return parse(write_report(directory).read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def timeline(tmp_path_factory) -> Element:
    run = ExampleRun(targets=((0,), (2, 3), (5,)), timeline=(20, 22, 30))
    return parse(write_report(run.write(tmp_path_factory.mktemp("timeline"))).read_text(encoding="utf-8"))


def chart(page: Element, name: str) -> Element:
    (found,) = page.all("svg", data_plot=name)
    return found


def points(element: Element) -> np.ndarray:
    """Return the corners of a mark's own path, (m, 2), in SVG units."""
    path = next(e for e in element.inside if e.tag == "path" and "id" not in e.attributes)
    return np.array(re.findall(r"[ML] (\S+) (\S+)", path.attributes["d"]), float)


def marks(svg: Element, start: str) -> list[Element]:
    return svg.starting("data-mark", start)


def test_a_curve_is_the_logged_values_up_to_an_affine_map(directory, page):
    """Nothing between the file and the drawing bends, shifts or drops a round."""
    metrics = read_run(directory).metrics
    for place in range(3):
        for label in (PUF, NATURAL):
            (curve,) = marks(chart(page, f"rounds-{place}-test"), f"curve {label}")
            start = metrics.series("original-s1", "test").between(ROUNDS, ROUNDS)
            series = start.followed_by(metrics.series(f"{label}-{place}-s1", "test"))
            drawn = points(curve)
            assert len(drawn) == len(series) == CAP + 1
            for axis, values in ((0, series.rounds), (1, series.values)):
                fit = np.polyfit(values, drawn[:, axis], 1)
                assert np.abs(np.polyval(fit, values) - drawn[:, axis]).max() < 1e-3
                assert (fit[0] > 0) == (axis == 0), "rounds run right, accuracy up (SVG's y runs down)"


def test_request_and_recoveries_are_marked_in_their_rounds(page):
    svg = chart(page, "rounds-0-forget")
    (curve,) = marks(svg, f"curve {PUF}")
    drawn = points(curve)
    unit = drawn[1, 0] - drawn[0, 0]
    (request,) = marks(svg, "request target-0")
    assert points(request)[0, 0] == pytest.approx(drawn[0, 0] + unit / 2, abs=1e-3)
    (recovery,) = marks(svg, f"recovery {PUF}")
    assert points(recovery)[0, 0] == pytest.approx(drawn[4, 0], abs=1e-3)
    assert recovery.all("title")[0].text == f"{PUF} has recovered in round 34"
    assert not marks(chart(page, "rounds-1-forget"), f"recovery {NATURAL}"), "it never recovered there"


def test_every_target_has_its_reference_and_floor(page):
    for place in range(3):
        for split in ("forget", "test"):
            svg = chart(page, f"rounds-{place}-{split}")
            assert (
                len(marks(svg, "retrain"))
                == len(marks(svg, "floor"))
                == len(marks(svg, "curve original"))
                == 1
            )


def test_a_timeline_is_held_against_the_oracle_of_the_moment(timeline):
    svg = chart(timeline, "rounds-0-test")
    words = [mark.all("title")[0].text for mark in marks(svg, "retrain")]
    assert [text.split(":")[0] for text in words] == [
        "retrained without client 0",
        "retrained without clients 0, 2 and 3",
        "retrained without clients 0, 2, 3 and 5",
    ]
    ends = [points(mark)[[0, -1], 0] for mark in marks(svg, "retrain")]
    assert all(before[1] == pytest.approx(after[0]) for before, after in pairwise(ends))
    assert len(marks(svg, "request")) == 3
    forgotten = marks(chart(timeline, "rounds-0-forget"), "retrain")
    assert len(forgotten) == 1, "only the last oracle's forget accuracy is over the same clients"


def test_charts_follow_the_reader_s_colour_scheme(page):
    """No stand-in colour is left, and every variable used is defined for light and dark."""
    svgs = page.all("svg")
    styles = " ".join(e.attributes.get("style", "") for svg in svgs for e in svg.inside)
    assert not [name for name, stand_in in STAND_INS.items() if stand_in in styles]
    used = set(re.findall(r"var\(--(\w+)\)", styles))
    assert {"ink", "retrain", "original", "method0", "natural", "grid", "muted"} <= used <= set(SCHEMES)
    sheet = page.all("style")[0].text
    for name in used:
        assert sheet.count(f"--{name}:") == 3, "light, dark, print"


def test_gaps_are_drawn_one_dot_per_row_at_their_value(directory, page):
    scores = read_run(directory).scores
    svg = chart(page, "gap-forget_accuracy")
    for label, at in (("original", "request"), (PUF, "compare"), (NATURAL, "cap")):
        gaps = [row["gap"]["forget_accuracy"] for row in scores.rows_at(label, at)]
        uses = [mark.all("use")[0] for mark in marks(svg, f"gap {label} {at}")]
        places = [float(use.attributes["x"]) for use in uses]
        assert len(places) == 3
        assert np.corrcoef(gaps, places)[0, 1] == pytest.approx(1)
    assert [mark.attributes["data-mark"] for mark in marks(svg, "floor")] == [
        "floor request", "floor compare", "floor cap",
    ], "each moment has its own"  # fmt: skip
    assert (
        f"mean of 3: {'+' if scores.stat(PUF, 'cap', 'gap', 'forget_accuracy').mean > 0 else '−'}" in svg.text
    )


def test_means_and_floors_lie_where_the_gaps_of_that_size_do(directory, page):
    scores = read_run(directory).scores
    svg = chart(page, "gap-forget_accuracy")
    label, at = PUF, "compare"
    gaps = [row["gap"]["forget_accuracy"] for row in scores.rows_at(label, at)]
    places = [float(mark.all("use")[0].attributes["x"]) for mark in marks(svg, f"gap {label} {at}")]
    slope, zero = np.polyfit(gaps, places, 1)
    (mean,) = marks(svg, f"mean {label} {at}")
    expected = scores.stat(label, at, "gap", "forget_accuracy").mean
    assert float(mean.all("use")[0].attributes["x"]) == pytest.approx(zero + slope * expected, abs=0.01)
    (band,) = marks(svg, f"floor {at}")
    path = next(element for element in band.inside if element.tag == "path")
    corners = [float(x) for x in re.findall(r"[ML] (\S+) \S+", path.attributes["d"])]
    floor = scores.stat(label, at, "floor", "forget_accuracy").mean
    assert floor > 0
    assert [min(corners), max(corners)] == pytest.approx(
        [zero - slope * floor, zero + slope * floor], abs=0.01
    )


def test_the_band_around_retraining_says_what_it_is(page):
    (band,) = marks(chart(page, "rounds-0-test"), "floor")
    words = "seed-to-seed floor: retraining ± its median distance to further retrainings"
    assert words in band.text


def test_no_gaps_no_plot():
    assert gap_plot(Scores({"rows": []}), "forget_accuracy", looks([]), name="x") is None


def test_the_heat_map_frames_the_forgotten_and_shades_by_count(directory, page):
    held = read_run(directory).partitions[1]
    svg = chart(page, "partition-1")
    assert {mark.attributes["data-mark"] for mark in marks(svg, "forgotten")} == {
        f"forgotten {k}" for k in (0, 2, 7)
    }
    (image,) = svg.all("image")
    opacity = png(base64.b64decode(image.attributes["href"].split(",")[1]))[:, :, 3]
    counts = np.array(held.counts)
    assert np.abs(opacity - 255 * counts / counts.max()).max() <= 1
    written = [text.text for text in svg.all("text")]
    assert str(counts.max()) in written and str(counts[0].sum()) in [text.strip() for text in written]


def png(data: bytes) -> np.ndarray:
    """Decode an 8-bit RGBA PNG, (height, width, 4)."""
    width, height, depth, kind = struct.unpack(">IIBB", data[16:26])
    assert (depth, kind) == (8, 6)
    packed, at = b"", 8
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        packed += data[at + 8 : at + 8 + length] if data[at + 4 : at + 8] == b"IDAT" else b""
        at += 12 + length
    raw = zlib.decompress(packed)
    rows = np.zeros((height, width, 4), np.int64)
    for y in range(height):
        line = raw[y * (width * 4 + 1) :]
        for x in range(width * 4):
            left = rows[y, x // 4 - 1, x % 4] if x >= 4 else 0
            up = rows[y - 1, x // 4, x % 4] if y else 0
            corner = rows[y - 1, x // 4 - 1, x % 4] if y and x >= 4 else 0
            guess = left + up - corner
            paeth = min((left, up, corner), key=lambda value: abs(guess - value))
            added = (0, left, up, (left + up) // 2, paeth)[line[0]]
            rows[y, x // 4, x % 4] = (line[1 + x] + added) % 256
    return rows


def test_a_partition_too_large_for_numbers_is_still_drawn(tmp_path):
    run = ExampleRun(targets=((0,),))
    counts = np.repeat(np.arange(120)[:, None] % 7, 100, axis=1)
    run.counts["1"] = held(counts, [f"class {c}" for c in range(100)])
    page = parse(write_report(run.write(tmp_path / "run")).read_text(encoding="utf-8"))
    assert len(chart(page, "partition-1").all("text")) < 40
