"""A page about very many clients or sets: what it leaves out it says, and what it shows is still right."""

from pathlib import Path

import numpy as np
import pytest

from fedunlearn.evaluation.metrics import BUILT_IN
from fedunlearn.report import listings, plots, sections
from fedunlearn.report.heat_map import SOME, WHOLE, rows_to_draw
from fedunlearn.report.page import write_report
from fedunlearn.report.run_files import Partition, read_run
from fedunlearn.report.series import Metrics
from fedunlearn.report.words import clients
from tests.report.example_rows import PUF
from tests.report.example_run import ExampleRun
from tests.report.parsed_page import Element, parse


def page_of(run: ExampleRun, directory: Path) -> Element:
    return parse(write_report(run.write(directory)).read_text(encoding="utf-8"))


def hundred_thousand() -> dict:
    """Return partition.json's entry of 100 000 clients of 1 to 3 samples, every hundredth listed, and client 7."""
    listed = sorted({7, *range(0, 100_000, 100)})
    return {
        "classes": list("0123456789"),
        "num_clients": 100_000,
        "clients": listed,
        "counts": [[1 + client % 3] + 9 * [0] for client in listed],
        "sizes": {"least": 1, "median": 2.0, "most": 3, "total": 199_999},
        "classes_held": {"least": 1, "median": 1.0, "most": 1, "total": 100_000},
    }


def test_some_of_many_clients_are_drawn_and_the_forgotten_among_them(tmp_path):
    run = ExampleRun(targets=((7,),))
    run.counts["1"] = hundred_thousand()
    page = page_of(run, tmp_path / "run")
    (svg,) = page.all("svg", data_plot="partition-1")
    written = [text.text.strip() for text in svg.all("text")]
    numbers = [int(text) for text in written if text.isdigit() and int(text) > 9]
    assert {"7", "0", "99900"} <= set(written), "under their own numbers"
    assert len(numbers) == len(set(numbers)) == SOME - 2
    assert [mark.attributes["data-mark"] for mark in svg.starting("data-mark", "forgotten")] == [
        "forgotten 7"
    ]
    section = page.all("section", id="partition")[0].text
    assert "100,000 clients hold 199,999 samples: 1 to 3 (median 2) each, of 1 of 10 classes" in section
    assert "only an evenly spaced selection is drawn" in section
    assert len((tmp_path / "run" / "report.html").read_bytes()) < 3e5


def test_few_clients_are_all_drawn_and_nothing_is_said_of_leaving_out(tmp_path):
    page = page_of(ExampleRun(targets=((7,),)), tmp_path / "run")
    assert "evenly spaced" not in page.all("section", id="partition")[0].text


def partition(num_clients: int, listed: list[int]) -> Partition:
    return Partition(tuple(listed), tuple((k + 1,) for k in listed), ("0",), num_clients, {}, {})


@pytest.mark.parametrize("forgotten", [set(), {5}, set(range(0, 1000, 2)), set(range(1000))])
def test_which_clients_are_drawn(forgotten):
    large = partition(1000, list(range(1000)))
    rows = rows_to_draw(large, forgotten)
    assert rows == sorted(set(rows))
    drawn = {large.clients[row] for row in rows}
    half = SOME // 2
    assert len(drawn) == (SOME if len(forgotten) < 1000 else half)
    assert len(drawn & forgotten) == min(len(forgotten), half)
    assert rows_to_draw(partition(WHOLE, list(range(WHOLE))), forgotten) == list(range(WHOLE))


def test_a_client_s_size_is_found_by_its_number():
    some = partition(100_000, [3, 50, 99_999])
    assert [some.size(client) for client in (3, 50, 99_999)] == [4, 51, 100_000]
    assert [some.size(client) for client in (0, 4, 100_000)] == [None] * 3


@pytest.mark.slow
def test_without_all_sizes_the_original_s_accuracy_is_the_scorecard_s(tmp_path):
    run = ExampleRun(targets=((2, 7),))
    run.lines += [
        {"branch": "original-s1", "round": 30, "entity": f"client-{k}", "split": "forget", "metric": "accuracy",
         "value": 90.0 - k, "seconds": 1} for k in (2, 7)
    ]  # fmt: skip
    whole = parse(write_report(run.write(tmp_path / "whole")).read_text())
    entry = hundred_thousand()
    run.counts["1"] = entry  # lists client 7 alone
    partly = parse(write_report(run.write(tmp_path / "partly")).read_text())

    def start(page: Element) -> str:
        (svg,) = page.all("svg", data_plot="rounds-0-forget")
        (curve,) = svg.starting("data-mark", f"curve {PUF}")
        return next(e.attributes["d"] for e in curve.inside if e.tag == "path").split("L")[0]

    assert start(whole) != start(partly)
    bare = ExampleRun(targets=((2, 7),))
    assert start(partly) == start(parse(write_report(bare.write(tmp_path / "bare")).read_text()))


def test_of_many_sets_some_are_drawn_and_some_rows_listed(tmp_path, monkeypatch):
    monkeypatch.setattr(sections, "MOST_PANELS", 3)
    monkeypatch.setattr(sections, "SHOWN_PANELS", 2)
    monkeypatch.setattr(listings, "MOST_ROWS", 4)
    monkeypatch.setattr(plots, "MOST_DOTS", 3)
    run = ExampleRun(targets=tuple((k,) for k in range(8)))
    page = page_of(run, tmp_path / "run")
    panels = [panel.attributes["data-target"] for panel in page.all("div", class_="panel")]
    assert panels == ["0", "1", "2"]
    assert "5 more sets are in metrics.jsonl." in page.all("section", id="rounds")[0].text
    assert f"{len(run.rows) - 4} more are in scorecard.json." in page.all("section", id="scorecard")[0].text
    assert "12 more are in requests.sqlite." in page.all("section", id="requests")[0].text
    (svg,) = page.all("svg", data_plot="gap-forget_accuracy")
    gaps = [
        gap
        for gap, *_ in plots._gaps(read_run(tmp_path / "run").scores, PUF, "cap", BUILT_IN["forget_accuracy"])
    ]
    dots = svg.starting("data-mark", f"gap {PUF} cap")
    places = [float(dot.all("use")[0].attributes["x"]) for dot in dots]
    assert len(gaps) == 8 and len(places) == 3
    ranked = sorted(gaps)
    assert np.corrcoef(places, [ranked[0], ranked[3], ranked[7]])[0, 1] == pytest.approx(1)


def test_many_clients_in_words():
    assert clients(range(12)) == "clients 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 11"
    assert clients([3, 17, *range(29, 1027)]) == "1,000 clients (3, 17, 29, …)"


def test_a_client_s_own_training_loss_is_read_over():
    line = '{{"branch": "b", "round": 1, "entity": "{}", "split": "{}", "metric": "loss", "value": 1, "seconds": 0}}'
    addresses = [("server", "train"), ("client-3", "train"), ("client-3", "forget")]
    metrics = Metrics([line.format(*address).encode() for address in addresses] + [b"torn"])
    kept = [len(metrics.series("b", split, "loss", entity)) for entity, split in addresses]
    assert (kept, metrics.skipped) == ([1, 0, 1], 1)
