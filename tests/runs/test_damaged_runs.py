"""One damaged file of a run's directory, under every command that may come upon it: an answer or one line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest

from fedunlearn import config
from fedunlearn.live.local import run_live
from tests.e2e.tiny import TINY, run, tiny
from tests.live.test_local import LIVE, ask
from tests.profiles import THOROUGH
from tests.runs.damage import DAMAGES, contents, damaged, files_of, say, wrong_with

Words = tuple[str, ...]


class Example(NamedTuple):
    """A run, the words of commands about it (``RUN`` and ``OUT`` stand for places), and what they may rewrite."""

    run: Path
    commands: dict[Words, tuple[str, ...]]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Example:
    """A simulation that has ended."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "tiny.toml").write_text(TINY, encoding="utf-8")
    made = run(tiny(), folder / "runs")
    assert say(["report", made]).code == 0
    shown = ("scorecard.md", "report.html")
    again = (
        "metrics.jsonl",
        "requests.sqlite",
        "begun.json",
        "branches.json",
        "partition.json",
        "scorecard.json",
    )
    return Example(
        made,
        {
            ("report", "RUN"): shown,
            ("run", str(folder / "tiny.toml"), "--out", "OUT", "--resume"): (*shown, *again),
            ("compare", "RUN"): (),
            ("requests", "RUN", "--verify"): (),
            ("compare", "--centralised", "RUN"): (),
            ("verify", "RUN"): (),
            ("check", "RUN/experiment.toml"): (),
        },
    )


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Example:
    """A live federation that has forgotten one client and is asked to forget another."""
    folder = tmp_path_factory.mktemp("live")
    (folder / "live.toml").write_text(LIVE, encoding="utf-8")
    experiment = config.loads(LIVE)
    made = run_live(experiment, out=folder / "runs")
    ask(made, 2)
    run_live(experiment, out=folder / "runs", resume=True)
    open_request = ask(made, 3)
    ledger = ("requests.sqlite",)
    return Example(
        made,
        {
            ("run", str(folder / "live.toml"), "--out", "OUT", "--resume"): (*ledger, "metrics.jsonl"),
            ("verify", "RUN"): (),
            ("forget", "RUN", "--client", "1"): ledger,
            ("requests", "RUN", "--verify"): (),
            ("withdraw", "RUN", open_request): ledger,
            ("report", "RUN"): (),
            ("forget", "RUN", "--class", "1"): ledger,
        },
    )


def faults(
    example: Example, file: str, damage: str, commands: Sequence[Words], folder: Path
) -> Iterator[str]:
    """Damage a file and say what goes wrong with each command, and what else is lost by it."""
    for number, words in enumerate(commands):
        into = folder / f"{number}"
        into.mkdir()
        copy = damaged(example.run, file, damage, into)
        before = contents(copy)
        said = say([word.replace("RUN", str(copy)).replace("OUT", str(into)) for word in words])
        case = f"{' '.join(words[:1])} with {file} {damage}"
        yield from (f"{case}: {wrong}" for wrong in wrong_with(said))
        after = contents(copy)
        # With a certificate's document its page is written anew.
        may_change = (*example.commands[words], str(Path(file).with_suffix("")))
        resumed = words[0] == "run" and said.code == 0
        for name, held in before.items():
            # Whoever goes on makes new checkpoints and drops old ones, but leaves no certificate out.
            passing = name.startswith("checkpoints/") and (resumed or file.startswith("checkpoints"))
            if name.startswith(may_change) or passing or name == ".lock":
                continue
            if after.get(name) != held:
                yield f"{case}: {name} is {'gone' if name not in after else 'another'}"


def cases(example: Example) -> list[tuple[str, str]]:
    """Return every file with every damage that does something to it."""
    folders = {name for name in files_of(example.run) if (example.run / name).is_dir()}
    only = ("a folder", "a loop", "gone")
    return [(f, d) for f in files_of(example.run) for d in DAMAGES if f not in folders or d in only]


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("which", ["finished", "live"])
def test_every_file_and_every_damage_is_an_answer_or_one_line(which, request, tmp_path):
    example: Example = request.getfixturevalue(which)
    commands = [*example.commands]
    found = []
    for number, (file, damage) in enumerate(cases(example)):
        into = tmp_path / str(number)
        into.mkdir()
        # Another command for each damage of a file, and others for the next file; or all of them.
        tried = commands if THOROUGH else [commands[number % len(commands)]]
        found += faults(example, file, damage, tried, into)
    assert found == []
