"""The scorecard as the terminal and Markdown show it: complete, in 100 columns, with the file's numbers."""

import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

from fedunlearn.report.figure import write_figure
from fedunlearn.report.page import write_report
from fedunlearn.report.run_files import with_setting
from fedunlearn.report.tables import comparison_table, markdown, scorecard_table
from fedunlearn.report.words import SMOKE
from tests.report.example_rows import NATURAL, PUF
from tests.report.example_run import TOML, ExampleRun

Card = dict


@pytest.fixture(scope="module")
def cards(tmp_path_factory) -> dict[str, Card]:
    folder = tmp_path_factory.mktemp("runs")
    runs = {
        "quick": ExampleRun(),
        "timeline": ExampleRun(name="timeline", targets=((0,), (2, 3), (5,)), timeline=(20, 22, 30)),
        "many": ExampleRun(seeds=(1, 2, 3), targets=tuple((k,) for k in range(10))),
        "single": ExampleRun(targets=((4,),)),
    }
    return {
        name: json.loads((run.write(folder / name) / "scorecard.json").read_text())
        for name, run in runs.items()
    }


def rendered(table, width: int = 100) -> list[str]:
    console = Console(width=width, file=io.StringIO())
    console.print(table)
    return console.file.getvalue().splitlines()


def aggregate(card: Card, label: str, at: str) -> dict:
    return next(line for line in card["aggregates"] if (line["label"], line["at"]) == (label, at))


@pytest.mark.parametrize("name", ["quick", "timeline", "many", "single"])
def test_fits_a_terminal_and_breaks_no_number(cards, name):
    lines = rendered(scorecard_table(cards[name]))
    assert max(map(len, lines)) <= 100
    caption = next(place for place, line in enumerate(lines) if "means over" in line)
    moments = [
        line.split()[0]
        for line in lines[:caption]
        if re.match(r"  (request|unlearned|recovered|compare|cap|final) ", line)
    ]
    assert moments == [line["at"] for label in order(cards[name]) for line in cards[name]["aggregates"]
                       if line["label"] == label]  # fmt: skip
    continued = [line for line in lines if re.match(r"^ {3,}\S", line)]
    assert not [line for line in continued if "±" in line and "means" not in line and "std" not in line]


def order(card: Card) -> list[str]:
    present = list(dict.fromkeys(line["label"] for line in card["aggregates"]))
    return [label for label in ("original", "retrain") if label in present] + [
        label for label in present if label not in ("original", "retrain")
    ]


def test_the_terminal_shows_the_file_s_numbers(cards):
    card = cards["quick"]
    lines = rendered(scorecard_table(card))
    start = next(place for place, line in enumerate(lines) if line.strip() == PUF)
    (row,) = [line.split() for line in lines[start : start + 5] if line.strip().startswith("compare")]
    line = aggregate(card, PUF, "compare")
    expected = ["compare"]
    for metric in ("forget_accuracy", "retain_accuracy", "test_accuracy", "mia_svc"):
        gap = line["abs_gap"][metric]
        expected += [f"{line['metrics'][metric]['mean']:.1f}", f"{gap['mean']:.1f}±{gap['std']:.1f}"]
        if metric == "forget_accuracy":
            expected.append(f"{line['floor'][metric]['mean']:.1f}")
    assert row == [*expected, f"{line['recovery_rounds']['mean']:.1f}", "(3/3)", "3"]


def test_what_never_recovered_is_shown(cards):
    lines = rendered(scorecard_table(cards["quick"]))
    natural = lines[lines.index(next(line for line in lines if line.strip() == NATURAL)) :]
    assert "1.0 (2/3)" in natural[1]
    card = json.loads(json.dumps(cards["quick"]))
    for row in card["rows"]:
        if (row["label"], row["at"]) == (NATURAL, "cap"):
            row |= {"recovered": False, "recovery_rounds": None}
    assert any("never (0/3)" in text for text in rendered(scorecard_table(card)))


def test_one_repetition_has_no_spread(cards):
    text = "\n".join(rendered(scorecard_table(cards["single"])))
    assert "±" not in text.split("means over")[0]


def test_green_is_within_the_floor_where_the_original_is_not(cards):
    card = cards["quick"]
    console = Console(width=100, file=io.StringIO(), force_terminal=True, color_system="standard")
    console.print(scorecard_table(card))
    green = len(re.findall(r"\x1b\[32m", console.file.getvalue()))
    original = aggregate(card, "original", "request")
    within = told = 0
    for line in card["aggregates"]:
        for metric in ("forget_accuracy", "retain_accuracy", "test_accuracy", "mia_svc"):
            floor = line["floor"][metric]["mean"]
            if line["label"] not in ("original", "retrain") and line["abs_gap"][metric]["mean"] <= floor:
                within += 1
                told += original["abs_gap"][metric]["mean"] > max(floor, original["floor"][metric]["mean"])
    assert green == told > 0
    assert told <= within


def test_runs_side_by_side(cards):
    lines = rendered(comparison_table([cards["quick"], cards["timeline"]]))
    assert max(map(len, lines)) <= 100
    gap = aggregate(cards["quick"], PUF, "compare")["abs_gap"]["forget_accuracy"]
    rows = [line for line in lines if PUF in line]
    assert len(rows) == 2 and f"{gap['mean']:.1f}±{gap['std']:.1f}" in rows[0]
    assert "final" in rows[1], "a timeline without common recovery is compared at its end"


def test_many_wide_columns_of_runs_side_by_side_lose_none(cards):
    card = json.loads(json.dumps(cards["quick"]))
    card["run"] = "cifar100-resnet18-dirichlet-1a2b3c4d"
    for row in card["rows"]:
        row["gap"] = dict.fromkeys(row["gap"], 36.8 + 19.6 * (row["target"] - 1))  # ± 19.6
        row["floor"] = dict.fromkeys(row["floor"], 11.1)
        row["recovery_rounds"] = 14
        row["cost"]["client_epochs"] = 1_234_567
    lines = rendered(comparison_table([card]))
    assert max(map(len, lines)) <= 100
    (row,) = [line for line in lines if PUF in line]
    assert row.split() == [PUF, "compare", "36.8±19.6", "11.1", "36.8±19.6", "36.8±19.6", "14.0", "(3/3)",
                           "1234567", "3"]  # fmt: skip


def test_runs_of_one_name_are_told_apart(cards):
    def names(*runs: Card) -> str:
        return " ".join(
            " ".join(rendered(comparison_table([{**cards["quick"], **run} for run in runs]))).split()
        )

    local, ray = {"engine": "local, 1 worker"}, {"engine": "ray, 4 workers"}
    assert "worker" not in names(local), "one needs no more than its name"
    assert "worker" not in names(local, {**ray, "run": "other"})
    assert all(engine["engine"] in names(local, ray) for engine in (local, ray))
    two = names({**ray, "directory": "here/quick"}, {**ray, "directory": "there/quick"})
    assert "here/quick" in two and "there/quick" in two


def test_a_smoke_run_says_that_its_numbers_mean_nothing(tmp_path):
    toml = f"smoke-run = true\n{TOML}"
    run = ExampleRun(toml=toml, targets=((4,),)).write(tmp_path / "run")
    card = with_setting(json.loads((run / "scorecard.json").read_text()), run)
    assert SMOKE in " ".join(" ".join(rendered(scorecard_table(card))).split())
    assert markdown(card).splitlines()[2] == f"**{SMOKE}**"
    assert "smoke run" in "".join(rendered(comparison_table([card])))
    page = write_report(run).read_text()
    assert page.index(f'<p class="caveat">{SMOKE}</p>') < page.index("<main")
    figure = write_figure(run, tmp_path / "figure.svg").read_text()
    assert SMOKE in figure
    card["origin"] = "phantom"
    assert f"**{SMOKE} Phantom data" in markdown(card)


def test_a_whole_run_says_nothing_of_the_kind(cards, tmp_path):
    run = ExampleRun(targets=((4,),)).write(tmp_path / "run")
    card = with_setting(json.loads((run / "scorecard.json").read_text()), run)
    for text in (markdown(card), write_report(run).read_text(), "".join(rendered(scorecard_table(card)))):
        assert "smoke" not in text.lower()


def test_the_engine_is_the_one_that_branches_were_computed_on(tmp_path):
    example = ExampleRun(targets=((4,),), toml=f'{TOML}[engine]\nname = "ray"\n')
    run = example.write(tmp_path / "run")
    assert with_setting({}, run)["engine"] == "ray", "what was asked for, where nothing was computed"
    example.branches[0]["engine"] = example.branches[1]["engine"] = {"name": "ray", "workers": 4}
    assert with_setting({}, example.write(run))["engine"] == "ray, 4 workers"
    example.branches[2]["engine"] = {"name": "local", "workers": 1}
    assert with_setting({}, example.write(run))["engine"] == "ray, 4 workers and local, 1 worker"


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_markdown_is_regular_grids_with_the_file_s_numbers(cards):
    card = cards["quick"]
    blocks = re.findall(r"(?:^\|.*\n?)+", markdown(card), re.MULTILINE)
    assert len(blocks) == 3, "the aggregates, centralised unlearning's terms, the rows"
    grids = [[cells(line) for line in block.splitlines()] for block in blocks]
    for grid in grids:
        assert len({len(line) for line in grid}) == 1
    assert len(grids[0]) == 2 + len(card["aggregates"]) and len(grids[2]) == 2 + len(card["rows"])
    line = aggregate(card, PUF, "cap")
    value, gap, floor = (line[kind]["forget_accuracy"] for kind in ("metrics", "abs_gap", "floor"))
    (shown,) = [row for row in grids[0] if row[:2] == [PUF, "cap"]]
    assert shown[2:6] == ["3", f"{value['mean']:.1f} ± {value['std']:.1f}", f"{gap['mean']:.1f} ± {gap['std']:.1f}",
                          f"{floor['mean']:.1f}"]  # fmt: skip
    row = card["rows"][0]
    assert grids[2][2][5].startswith(
        f"{row['metrics']['forget_accuracy']:.1f} (+{row['gap']['forget_accuracy']:.1f})"
    )


def test_markdown_keeps_a_hostile_label_in_its_cell():
    row = {"label": "a|b\n<img>", "at": "cap", "metrics": {"forget_accuracy": 1.0}, "gap": {}, "floor": {}}
    text = markdown({"experiment": "x|y", "run": "", "rows": [row], "aggregates": []})
    assert "<img>" not in text
    shown = [cells(line) for line in text.splitlines() if line.startswith("| a")]
    assert [(line[0], len(line)) for line in shown] == [("a\\|b &lt;img>", 7)] * 2


def test_tables_need_neither_torch_nor_flower_nor_matplotlib():
    script = (
        "import sys\nfor name in ('torch', 'flwr', 'ray', 'matplotlib'): sys.modules[name] = None\n"
        "import fedunlearn.report.tables"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=Path.cwd(), check=False
    )
    assert done.returncode == 0, done.stderr
