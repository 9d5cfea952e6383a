"""Run a sweep: a run of the experiment per method, of which each trial is a method; resumable as runs are."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from fedunlearn import config
from fedunlearn.config import Experiment
from fedunlearn.config.toml_text import dumps
from fedunlearn.config.toml_tree import plain
from fedunlearn.durable import write_durably
from fedunlearn.errors import ConfigError
from fedunlearn.federation.hosted_routine import check_routines
from fedunlearn.simulation.progress import Progress
from fedunlearn.simulation.runner import read_scorecard, simulate
from fedunlearn.sweep.file import Sweep
from fedunlearn.sweep.outcome import References, Tried, best, read_references, read_trials
from fedunlearn.sweep.page import write_page

TRIALS = "trials.json"
TUNED = "tuned.toml"
FILE = "sweep.toml"

Found = dict[str, tuple[Tried, ...]]


def folder_of(sweep: Sweep, out: Path) -> Path:
    """Return the sweep's own folder; the runs of its methods lie beside it."""
    return out / f"{sweep.settings.name}-{sweep.digest[:8]}"


def checked(sweep: Sweep) -> dict[str, Experiment]:
    """Return label → the experiment of its trials.

    Raises
    ------
    ConfigError
        A method does not take what is to be tried.
    """
    experiments = {label: sweep.experiment_of(label) for label in sweep.labels}
    for label, experiment in experiments.items():
        try:
            check_routines(experiment)
        except ConfigError as error:
            _, _, what = str(error).partition(".")
            raise ConfigError(f"space.{label}.{what}") from None
    return experiments


def run_sweep(
    sweep: Sweep,
    *,
    out: Path,
    fresh: bool = False,
    progress: Callable[[], Progress] = Progress,
    begins: Callable[[int, str, int], None] = lambda place, label, trials: None,
) -> tuple[Path, Found]:
    """Run every trial that has not been run, and write what was found after each method.

    Parameters
    ----------
    out
        Folder of runs.
    fresh
        Delete the runs of these trials first, instead of going on with them.
    progress
        Makes what is told of a method's run.
    begins
        Called with a method's place from 1, its label and its number of trials.

    Returns
    -------
    folder : Path
        With ``sweep.toml``, ``trials.json``, ``tuned.toml`` and ``report.html``.
    found : dict
        Label → its trials.

    Raises
    ------
    UserError, RunError
        As :func:`fedunlearn.simulation.runner.simulate`; settings that a method does not take are refused before
        anything is run.
    """
    experiments = checked(sweep)
    folder = folder_of(sweep, out)
    folder.mkdir(parents=True, exist_ok=True)
    write_durably(folder / FILE, dumps(plain(sweep.settings)).encode())
    found: Found = {}
    for place, (label, experiment) in enumerate(experiments.items(), start=1):
        trials = sweep.trials(label)
        begins(place, label, len(trials))
        told = progress()
        try:
            run = simulate(experiment, out=out, resume=not fresh, fresh=fresh, progress=told)
        finally:
            told.close()
        sets = sum(len(experiment.target_sets(seed)) for seed in experiment.seeds)
        card, by, at = read_scorecard(run), sweep.settings.by, sweep.settings.at
        found[label] = read_trials(trials, card, by=by, at=at, expected=sets)
        _write(sweep, folder, found, read_references(card, by=sweep.goal, at=at))
    return folder, found


def chosen(sweep: Sweep, found: Found) -> dict[str, Tried]:
    """Return the best trial of every method; of one whose trials all failed the experiment's own settings."""
    return {label: best(tried, sweep.goal) or tried[0] for label, tried in found.items()}


def _write(sweep: Sweep, folder: Path, found: Found, references: References) -> None:
    best_of = chosen(sweep, found)
    content = {
        "schema": 1,
        "name": sweep.settings.name,
        "experiment": sweep.experiment.name,
        "by": sweep.settings.by,
        "at": sweep.settings.at,
        "seeds": list(sweep.settings.seeds),
        **references._asdict(),
        "methods": [
            {
                "label": label,
                "chosen": best_of[label].trial.number,
                "trials": [each.to_dict() for each in tried],
            }
            for label, tried in found.items()
        ],
    }
    write_durably(folder / TRIALS, (json.dumps(content, indent=1) + "\n").encode())
    tuned = sweep.tuned({label: each.trial for label, each in best_of.items()})
    write_durably(folder / TUNED, config.to_toml(tuned).encode())
    write_page(sweep, found, best_of, references, folder / "report.html")
