"""The run directory: where everything that a run produces lies, and who may write to it."""

from __future__ import annotations

import fcntl
import json
import shutil
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

from fedunlearn import config, json_text
from fedunlearn.config import Experiment
from fedunlearn.durable import write_durably
from fedunlearn.errors import UserError
from fedunlearn.home import is_text
from fedunlearn.plurals import counted
from fedunlearn.requests import LIVE_BRANCH, OPEN, Ledger
from fedunlearn.runs.checkpoints import Checkpoints
from fedunlearn.runs.history_files import HISTORY
from fedunlearn.runs.metrics_log import MetricsLog

EXPERIMENT = "experiment.toml"
SCORECARD = "scorecard.json"
LEDGER = "requests.sqlite"
METRICS = "metrics.jsonl"
BRANCHES = "branches.json"
BEGUN = "begun.json"
LOCK = ".lock"


def run_name(experiment: Experiment) -> str:
    """Return ``<name>-<hash8>``; the hash covers every setting that can change a result."""
    return f"{experiment.name}-{config.digest(experiment)[:8]}"


class RunDirectory:
    """One run's files, opened for writing by one process at a time.

    Use :meth:`open`. The directory holds ``experiment.toml`` (resolved, reruns as is), ``metrics.jsonl``,
    ``requests.sqlite`` (one ledger, every branch under its name), ``checkpoints/``, ``begun.json`` (the key of
    every branch computed here), ``branches.json`` (finished branches), ``partition.json``, and at the end
    ``pictures/`` (of masks), ``scorecard.json``, ``scorecard.md`` and ``report.html``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = (path / LOCK).open("wb")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            self._lock.close()
            raise UserError(f"{path}: another process is running it; wait for it or stop it first") from None

    @cached_property
    def metrics(self) -> MetricsLog:
        """The run's metrics.jsonl."""
        return MetricsLog(self.path / METRICS)

    @cached_property
    def ledger(self) -> Ledger:
        """The run's requests and plans."""
        return Ledger(self.path / LEDGER)

    @classmethod
    def open(
        cls, experiment: Experiment, out: Path, *, resume: bool = False, fresh: bool = False
    ) -> RunDirectory:
        """Make the experiment's run directory under ``out``, or continue in the one that is there.

        Parameters
        ----------
        resume
            Continue an unfinished run; a finished one only has its scorecard and report written again.
        fresh
            Delete what is there and start over; refused where a live federation has been asked to forget.

        Raises
        ------
        UserError
            If there can be no folder there, or there is a run already and none of the flags says what to do
            with it. A finished run of an experiment with ``cache = true`` may be started again without a flag:
            nothing is lost by that.
        """
        path = out / run_name(experiment)
        if not is_text(path.absolute()):  # checkpoints could be written, and not be read again
            raise UserError(f"{out}: cannot hold runs (its path is not valid UTF-8); choose another --out")
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UserError(f"{out}: cannot hold runs ({error.strerror}); choose another --out") from error
        run = cls(path)  # first of all the lock: what is said of a run at work would be wrong advice
        if run.experiment_path.exists() and not resume:
            try:
                why = run._why_not_replaced() if fresh else run._why_not_again(experiment)
            except BaseException:
                run.close()
                raise
            if why:
                run.close()
                raise UserError(why)
            run.clear()
            run = cls(path)
        if not run.experiment_path.exists():
            write_durably(run.experiment_path, config.to_toml(experiment).encode())
        return run

    def settle(self, experiment: Experiment) -> None:
        """Note durably what was chosen where the experiment left a choice: ``experiment.toml`` reruns as is.

        The directory keeps the name of the experiment as it was asked for.
        """
        text = config.to_toml(experiment).encode()
        if self.experiment_path.read_bytes() != text:
            write_durably(self.experiment_path, text)

    def _why_not_again(self, experiment: Experiment) -> str:
        """Say why this run must not simply be replaced by a new one, or return an empty string."""
        if experiment.live:
            return self._live_standing(experiment)
        if not (self.path / SCORECARD).exists():
            return (
                f"{self.path}: holds an unfinished run; add --resume to continue it or --fresh to start over"
            )
        if not experiment.cache:
            return (
                f"{self.path}: holds a finished run and cache = false; see it with `fedunlearn report "
                f"{self.path}`, or add --fresh to run it again"
            )
        return ""

    def _why_not_replaced(self) -> str:
        """Say why not even --fresh may delete this run, or return an empty string."""
        asked = self._live_requests()
        if not asked:
            return ""
        number = sum(asked.values())
        return (
            f"{self.path}: --fresh would delete {counted(number, 'forget request')} with trail and "
            "certificates; choose another --out, or move the folder away"
        )

    def _live_standing(self, experiment: Experiment) -> str:
        """Say how a live federation stands; it is continued, never begun again in the same folder."""
        opened = sum(number for state, number in self._live_requests().items() if state in OPEN)
        last = max(self.checkpoints(LIVE_BRANCH).rounds(), default=0)
        if opened or last < experiment.train.rounds:
            requests = counted(opened, "open request") if opened else "no open requests"
            return (
                f"{self.path}: holds a live federation after round {last}, with {requests}; add --resume to "
                "continue it, or choose another --out"
            )
        return (
            f"{self.path}: holds a live federation that has done its rounds and has no open request; after "
            f"`fedunlearn forget {self.path}` add --resume to serve it, or choose another --out"
        )

    def _live_requests(self) -> dict[str, int]:
        """Return how many requests a live federation has taken, by state; of none there is nothing."""
        return self.ledger.counts(LIVE_BRANCH) if (self.path / LEDGER).is_file() else {}

    def close(self) -> None:
        """Close the files and let others in."""
        if "ledger" in self.__dict__:
            self.ledger.close()
        self._lock.close()

    def clear(self) -> None:
        """Delete everything in the directory, the experiment last: until then it is a run that can be seen.

        The lock stays: a process that waits at the door must not get hold of another lock than the next one.
        """
        if "ledger" in self.__dict__:
            self.ledger.close()
        for item in sorted(self.path.iterdir(), key=lambda p: p.name == EXPERIMENT):
            if item.name == LOCK:
                continue
            if item.is_dir():
                shutil.rmtree(item)
            else:
                item.unlink()
        self._lock.close()

    def notes(self) -> list[str]:
        """Return what whoever goes on here should know of its files, a line each."""
        garbled = self.metrics.garbled
        lines = counted(garbled, "line holds", "lines hold")
        return [f"{self.path / METRICS}: {lines} no metric; skipped"] if garbled else []

    @property
    def name(self) -> str:
        """The directory's name."""
        return self.path.name

    @property
    def experiment_path(self) -> Path:
        """The resolved experiment file."""
        return self.path / EXPERIMENT

    def checkpoints(self, branch: str, keep: Callable[[int], bool] = lambda _: True) -> Checkpoints:
        """Return a branch's checkpoints."""
        return Checkpoints(self.path / "checkpoints", branch, keep)

    def history(self, branch: str) -> Path:
        """Return where the earlier rounds of a branch are kept, if some are."""
        return self.path / HISTORY / branch

    def branches(self) -> dict[str, dict[str, Any]]:
        """Return the records of finished branches by name."""
        records = self._read_json(BRANCHES, [])
        try:
            return {str(record["branch"]): dict(record, key=str(record["key"])) for record in records}
        except (KeyError, TypeError, ValueError):
            raise self._damaged(BRANCHES, "must be a list of finished branches") from None

    def begin_branch(self, name: str, key: str) -> None:
        """Note durably that a branch is computed here under this key (see ``runs.cache.branch_key``).

        Raises
        ------
        UserError
            It was begun under another key: its checkpoints are of other code, another torch or another
            processor, and to go on from them would pass off their weights as these ones'.
        """
        begun = self._read_json(BEGUN, {})
        if not isinstance(begun, dict):
            raise self._damaged(BEGUN, "must be an object")
        begun |= {record["branch"]: record["key"] for record in self.branches().values()}
        if begun.setdefault(name, key) != key:
            raise UserError(
                f"{self.path}: {name} was computed by different code, another torch or another processor; "
                "add --fresh to start over"
            )
        self.write_json(BEGUN, begun)

    def finish_branch(self, record: dict[str, Any]) -> None:
        """Add a finished branch's record, durably."""
        records = self.branches() | {record["branch"]: record}
        self.write_json(BRANCHES, list(records.values()))

    def _read_json(self, name: str, otherwise: Any) -> Any:
        path = self.path / name
        if not path.exists() and not path.is_symlink():
            return otherwise
        try:
            return json_text.loads(path.read_bytes(), path)
        except json_text.JsonError as error:
            raise self._damaged(name, str(error).removeprefix(f"{path}: ")) from None

    def _damaged(self, name: str, why: str) -> UserError:
        return UserError(f"{self.path / name}: is damaged ({why}); add --fresh to start over")

    def write_json(self, name: str, content: Any) -> None:
        """Write a JSON file durably."""
        write_durably(self.path / name, (json.dumps(content, indent=1) + "\n").encode())
