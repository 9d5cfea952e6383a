"""The command line as a user meets it: in a process of its own, with its exit codes and one-line errors."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from fedunlearn.config import load
from tests.e2e.tiny import TINY
from tests.interrupts import heed_interrupts
from tests.read_only_mount import read_only

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100"}


def fedunlearn(*arguments: str, cwd: Path, inside: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*inside, sys.executable, "-m", "fedunlearn.cli", *arguments],
        cwd=cwd,
        env={**ENVIRONMENT, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        timeout=540,  # a test has 600; the longest smoke takes one minute of a quiet machine
        check=False,
    )


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, str]:
    """Return a folder in which the tiny experiment has run, its run directory's name, and what was printed."""
    folder = tmp_path_factory.mktemp("cli")
    (folder / "tiny.toml").write_text(TINY)
    result = fedunlearn("run", "tiny.toml", cwd=folder)
    assert result.returncode == 0, result.stderr
    (run,) = (p for p in (folder / "runs").iterdir() if p.is_dir())
    return folder, run.name, result.stdout


@pytest.mark.capability("simulation")
def test_run_writes_all_files_and_shows_the_scorecard(finished: tuple[Path, str, str]) -> None:
    folder, name, printed = finished
    run = folder / "runs" / name
    expected = {
        "experiment.toml",
        "metrics.jsonl",
        "requests.sqlite",
        "scorecard.json",
        "scorecard.md",
        "report.html",
    }
    assert expected <= {p.name for p in run.iterdir()}
    card = json.loads((run / "scorecard.json").read_text())
    assert card["schema"] == 2
    assert {row["label"] for row in card["rows"]} == {"original", "retrain", "puf-special-2", "natural"}
    for words in ("puf-special-2", "natural", "retrain", "original", "report.html"):
        assert words in printed
    assert all(
        len(line) <= 100 for line in printed.splitlines() if "report" not in line and "run " not in line
    )


def test_plain_lines_where_there_is_no_terminal(finished: tuple[Path, str, str]) -> None:
    printed = finished[2]
    assert "\x1b" not in printed
    assert "original-s1: done" in printed


@pytest.mark.slow
def test_the_resolved_file_runs_as_is(finished: tuple[Path, str, str], tmp_path: Path) -> None:
    folder, name, _ = finished
    result = fedunlearn("run", str(folder / "runs" / name / "experiment.toml"), cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "runs" / name / "scorecard.json").is_file()


@pytest.mark.slow
def test_report_again(finished: tuple[Path, str, str]) -> None:
    folder, name, _ = finished
    page = folder / "runs" / name / "report.html"
    before = page.read_text()
    page.unlink()
    result = fedunlearn("report", f"runs/{name}", cwd=folder)
    assert result.returncode == 0, result.stderr
    assert page.read_text() == before


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["report"], "report: not written, runs/"),
        (["compare"], "puf-special-2"),
        (["requests", "--verify"], "trail intact"),
        (["verify"], "not covered: "),
    ],
)
def test_a_run_on_a_read_only_mount_is_read_and_nothing_is_written(
    finished: tuple[Path, str, str], command: list[str], says: str
) -> None:
    folder, name, _ = finished
    before = {path: path.read_bytes() for path in (folder / "runs").rglob("*") if path.is_file()}
    with read_only(folder / "runs" / name) as inside:
        result = fedunlearn(*command, f"runs/{name}", cwd=folder, inside=inside)
    assert result.returncode == 0, result.stderr
    assert says in result.stdout
    assert {path: path.read_bytes() for path in (folder / "runs").rglob("*") if path.is_file()} == before


@pytest.mark.slow
def test_a_figure_where_none_can_be_written(finished: tuple[Path, str, str]) -> None:
    folder, name, _ = finished
    result = fedunlearn("report", f"runs/{name}", "--figure", "nowhere/figure.svg", cwd=folder)
    assert result.returncode == 2
    assert result.stderr == (
        "error: nowhere/figure.svg: cannot be written (No such file or directory); choose another file\n"
    )


@pytest.mark.slow
def test_compare_requests_and_check(finished: tuple[Path, str, str]) -> None:
    folder, name, _ = finished
    result = fedunlearn("compare", f"runs/{name}", f"runs/{name}", cwd=folder)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("puf-special-2") >= 1
    result = fedunlearn("requests", f"runs/{name}", cwd=folder)
    assert result.returncode == 0, result.stderr
    assert "target-0" in result.stdout
    assert "excluded" in result.stdout, "natural forgetting is never called forgotten"
    result = fedunlearn("check", "tiny.toml", cwd=folder)
    assert result.returncode == 0, result.stderr
    # 3 + 2 oracles x 6 + 2 methods x 3 rounds
    assert "21" in result.stdout
    assert not (folder / "runs" / "check").exists()
    result = fedunlearn("check", "tiny.toml", "--engine", "flower", cwd=folder)
    assert result.returncode == 2
    assert 'engine.name = "flower"' in result.stderr
    result = fedunlearn("check", "tiny.toml", "--engine", "auto", cwd=folder)
    assert "their number is chosen when it runs" in result.stdout, result.stderr


@pytest.mark.quick(what=1)
@pytest.mark.parametrize(
    ("what", "names"),
    [
        ("models", ["mlp", "small-cnn", "resnet18"]),
        ("data", ["mnist5k", "cifar100", "dirichlet", "shards"]),
        ("strategies", ["puf", "natural", "retrain"]),
        ("metrics", ["forget_accuracy", "mia_svc_matched", "kl_to_retrain"]),
    ],
)
def test_list(what: str, names: list[str], tmp_path: Path) -> None:
    result = fedunlearn("list", what, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert all(name in result.stdout for name in names)


@pytest.mark.quick(arguments=2)
@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["run", "none.toml"], "none.toml"),
        (
            ["run", "tiny.toml", "--set", "train.lrr=1"],
            "train.lrr = 1 (--set train.lrr=1): unknown key; did you mean train.lr?",
        ),
        (
            ["run", "tiny.toml", "--engine", "flower"],
            'engine.name = "flower" (--set engine.name=flower): must be one of "local", "ray", "auto"',
        ),
        (["run", "tiny.toml", "--set", "engine.batch-clients=4"], 'write numerics = "fast"'),
        (["run", "tiny.toml", "--resume", "--fresh"], "choose one"),
        (["run", "tiny.toml"], "cache = false"),
        (["report", "runs"], "holds no scorecard.json"),
        (["compare", "nowhere"], "holds no scorecard.json"),
        (["requests", "."], "holds no requests.sqlite"),
        (["run", "tiny.toml", "--set", "data.alpha=0.0001"], "alpha"),
    ],
)
def test_wrong_input_is_one_line_and_exit_2(
    arguments: list[str], line: str, finished: tuple[Path, str, str]
) -> None:
    result = fedunlearn(*arguments, cwd=finished[0])
    assert result.returncode == 2, result.stdout + result.stderr
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    assert line in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.slow
def test_data_that_cannot_be_dealt_out_leaves_no_run_behind(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(TINY)
    result = fedunlearn("run", "tiny.toml", "--set", "data.alpha=0.0001", cwd=tmp_path)
    assert result.returncode == 2
    assert not (tmp_path / "runs").exists()


EXPERIMENTS = sorted((Path(__file__).parents[2] / "experiments").rglob("*.toml"))


# A live federation has no scorecard; tests/containers runs that one.
@pytest.mark.slow
@pytest.mark.parametrize("file", [path for path in EXPERIMENTS if not load(path).live], ids=lambda p: p.stem)
def test_every_shipped_experiment_runs_in_little(file: Path, tmp_path: Path) -> None:
    result = fedunlearn("run", str(file), "--smoke", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    (card,) = (tmp_path / "runs").glob("*/scorecard.json")
    methods = {method.label for method in load(file, smoke=True).methods}
    rows = json.loads(card.read_text())["rows"]
    assert {row["label"] for row in rows} == {"original", "retrain", *methods}
    assert methods <= {row["label"] for row in rows if row["at"] in ("unlearned", "final")}


@pytest.mark.slow
def test_an_unfinished_run_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(TINY)
    assert fedunlearn("run", "tiny.toml", cwd=tmp_path).returncode == 0
    (run,) = (p for p in (tmp_path / "runs").iterdir() if p.is_dir())
    (run / "scorecard.json").unlink()
    result = fedunlearn("run", "tiny.toml", cwd=tmp_path)
    assert result.returncode == 2
    assert "--resume" in result.stderr and "--fresh" in result.stderr
    assert fedunlearn("run", "tiny.toml", "--resume", cwd=tmp_path).returncode == 0
    assert (run / "scorecard.json").is_file()


@pytest.mark.slow
def test_after_ctrl_c_the_command_to_go_on_with_is_shown(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(TINY)
    arguments = ["run", "tiny.toml", "--set", "train.rounds=5000", "--out", f"my {'long ' * 20}runs"]
    process = subprocess.Popen(
        [sys.executable, "-m", "fedunlearn.cli", *arguments],
        cwd=tmp_path,
        env={**ENVIRONMENT, "PYTHONPATH": str(Path(__file__).parents[2]), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=heed_interrupts,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("original-s1: round "):
            break
    process.send_signal(signal.SIGINT)
    said = process.stdout.read()
    assert process.wait(60) == 1
    assert (
        f"fedunlearn run tiny.toml --set train.rounds=5000 --out 'my {'long ' * 20}runs' --resume" in said
    ), "not folded"


@pytest.mark.slow
def test_damaged_files_and_impossible_folders_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(TINY)
    (tmp_path / "scorecard.json").write_text('{"schema": 1')
    (tmp_path / "file").touch()
    for arguments, words in (
        (["report", "."], "scorecard.json: is not JSON"),
        (["compare", "."], "scorecard.json: is not JSON"),
        (["run", "tiny.toml", "--out", "file"], "file: cannot hold runs"),
        (["check", "tiny.toml", "--set", "engine.device=cuda"], "there is no CUDA device here"),
    ):
        result = fedunlearn(*arguments, cwd=tmp_path)
        assert result.returncode == 2, result.stdout + result.stderr
        assert words in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1, result.stderr


@pytest.mark.slow
def test_phantoms_are_written_once_and_wrong_numbers_refused(tmp_path: Path) -> None:
    result = fedunlearn("data", "phantom", "--out", "a set", "--cases", "1", "--size", "32", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-2:] == ["UCL: 1 case", "phantoms: a set"]
    assert len(list((tmp_path / "a set").glob("*/Case00*.nii.gz"))) == 12
    for arguments, line in (
        (["--out", "a set", "--cases", "1"], "error: a set: is not empty; name a new or empty folder"),
        (["--out", "new", "--cases", "0"], "error: --cases 0: must be at least 1"),
        (["--out", "new", "--cases", "1", "--size", "4"], "error: --size 4: must be from 32"),
    ):
        result = fedunlearn("data", "phantom", *arguments, cwd=tmp_path)
        assert result.returncode == 2, result.stdout + result.stderr
        assert result.stderr.startswith(line)
        assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    assert not (tmp_path / "new").exists()


def test_the_help_of_run_names_the_engines(tmp_path: Path) -> None:
    assert "local|ray|auto" in fedunlearn("run", "--help", cwd=tmp_path).stdout


def test_help_is_quick_and_loads_no_torch() -> None:
    command = [sys.executable, "-X", "importtime", "-m", "fedunlearn.cli", "--help"]
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        result = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=True)
        seconds.append(time.perf_counter() - began)
    assert "forget" in result.stdout
    assert " torch" not in result.stderr
    assert " flwr" not in result.stderr
    assert " ray" not in result.stderr
    assert " nibabel" not in result.stderr
    assert min(seconds) <= 1.0
