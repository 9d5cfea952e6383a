"""``fedunlearn sweep``: search the settings of methods where the experiment will not be measured."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from fedunlearn import terminal
from fedunlearn.cli import current_folder
from fedunlearn.home import expanded
from fedunlearn.plurals import counted

if TYPE_CHECKING:
    from fedunlearn.config import Experiment


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command()(sweep)


def sweep(
    file: Annotated[Path, typer.Argument(parser=expanded, metavar="FILE", help="A sweep, in TOML.")],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override one key, such as trials=32; repeatable."),
    ] = None,
    out: Annotated[Path, typer.Option(parser=expanded, metavar="DIR", help="Folder for runs.")] = Path(
        "runs"
    ),
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Delete earlier trials instead of continuing with them.")
    ] = False,
    smoke: Annotated[
        bool, typer.Option("--smoke", help="Apply the smoke tables of the sweep and of its experiment.")
    ] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Show how much there is to run, without running it.")
    ] = False,
) -> None:
    """Search the settings of an experiment's methods, on other seeds and on the validation split.

    Started again, it continues where it stopped. It writes tuned.toml, the experiment with the chosen settings beside
    its own: run that for the figures.
    """
    from fedunlearn.sweep.file import load
    from fedunlearn.sweep.search import TUNED, checked, chosen, run_sweep

    current_folder.make_importable()
    searched = load(file, overrides=tuple(overrides or ()), smoke=smoke)
    console = terminal.console()
    if check:
        _forecast(searched.settings.seeds, checked(searched), console)
        return

    from flwr.common.logger import update_console_handler

    from fedunlearn.simulation.progress import Progress, progress_for
    from fedunlearn.sweep.page import score_words, settings_words

    update_console_handler(colored=sys.stderr.isatty())

    def begins(place: int, label: str, trials: int) -> None:
        seeds = counted(len(searched.settings.seeds), "seed")
        line = f"\n{place}/{len(searched.labels)} {label}: {trials} settings, {seeds}"
        terminal.say(console, line)

    def progress() -> Progress:
        return progress_for(console)

    try:
        folder, found = run_sweep(searched, out=out, fresh=fresh, progress=progress, begins=begins)
    except KeyboardInterrupt:
        words = [shlex.quote(word) for word in sys.argv[1:] if word != "--fresh"]
        terminal.say(console, f"stopped; continue with: fedunlearn {' '.join(words)}")
        raise typer.Exit(1) from None
    console.print()
    for label, best in chosen(searched, found).items():
        before, after = (score_words(searched.goal, each.score) for each in (found[label][0], best))
        settings = settings_words(best.trial.settings)
        terminal.say(console, f"{label}: {searched.settings.by} {before} → {after}, {settings}")
    terminal.say(console, f"report: {terminal.shown(folder / 'report.html')}")
    terminal.say(console, f"next: fedunlearn run {shlex.quote(str(folder / TUNED))}")


def _forecast(seeds: tuple[int, ...], experiments: Mapping[str, Experiment], console: Console) -> None:
    total = 0
    for label, experiment in experiments.items():
        settings = len(experiment.methods)
        times = settings * sum(len(experiment.target_sets(seed)) for seed in experiment.seeds)
        total += times
        console.print(f"{label}: {settings} settings, forgets {times} times")
    console.print(f"forgets {total} times in all; seeds {', '.join(map(str, seeds))}")
