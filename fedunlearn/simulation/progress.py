"""How a run shows what it is doing: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.text import Text

from fedunlearn import terminal
from fedunlearn.evaluation.scored import QUALITY
from fedunlearn.plurals import counted
from fedunlearn.server.branch import Branch

NAMED = 12
"""So many of a request's clients are named."""


class Progress:
    """What a run tells; this one says nothing."""

    def begin(self, run: Path, branches: Sequence[Branch]) -> None:
        """All branches are known, nothing has run."""

    def note(self, text: str) -> None:
        """Something worth a line, such as which engine was chosen."""

    def branch_begins(self, branch: Branch, behind: int) -> None:
        """A branch is about to be computed, or to go on; ``behind``: the last round that is complete."""

    def round_done(self, branch: Branch, round: int, metrics: Mapping[str, float]) -> None:
        """A round is complete; metrics are percentages and nats by ``split-metric``."""

    def branch_done(self, branch: Branch, record: Mapping[str, Any], *, reused: bool) -> None:
        """A branch is complete; ``reused``: it was there or came from the cache."""

    def measuring(self, rows: int) -> None:
        """All branches are complete; so many rows of attacks and distances are about to be measured."""

    def measured(self) -> None:
        """One more of these rows is complete."""

    def end(self) -> None:
        """The scorecard is written."""

    def close(self) -> None:
        """Leave the terminal in order, also after an error."""


class _Clock:
    """Estimates the time left from the rounds (or rows) computed so far: those to come take as long on average."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.done = 0
        self._computed = 0
        self._began = time.monotonic()

    def tick(self) -> None:
        """Account for one that was computed."""
        self.done += 1
        self._computed += 1

    def skip(self, rounds: int) -> None:
        """Account for rounds that need not be computed."""
        self.done += rounds

    @property
    def left(self) -> str:
        if not self._computed:
            return "-"
        seconds = (time.monotonic() - self._began) / self._computed * max(self.total - self.done, 0)
        return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"


def _summary(record: Mapping[str, Any], *, reused: bool) -> str:
    """Say in a few words how a branch ended."""
    words = ["cached" if reused else "done"]
    for request in record.get("requests", []):
        rounds = (request["ended_round"] or record["last_round"]) - request["at_round"]
        after = counted(rounds, "round")
        who = request.get("words") or f"client {_listed(request['clients'])}"
        words.append(
            {
                "recovered": f"{who} recovered after {after}",
                "capped": f"{who} not recovered within {after}",
                "unjudged": f"{who} forgotten, measured after {after}",
                "superseded": f"{who}: recovery taken over by a later request",
                "failed": f"{who}: forgetting failed",
                "diverged": f"{who}: diverged in round {request['ended_round']}",
            }.get(request["outcome"], f"{who}: {request['state']}")
        )
    return ", ".join(words)


def _listed(clients: Sequence[int]) -> str:
    listed = "+".join(map(str, clients[:NAMED]))
    return f"{listed} and {len(clients) - NAMED} more" if len(clients) > NAMED else listed


def _quality(metrics: Mapping[str, float], *, short: bool = False) -> str:
    """Say how good the model is on test data, or on validation data where a live federation has only those."""
    for split in ("test", "validation"):
        for name in QUALITY.values():
            if f"{split}-{name}" in metrics:
                return f"{split} {'' if short else name + ' '}{metrics[f'{split}-{name}']:.1f} %"
    return ""


def _number(branches: Sequence[Branch]) -> str:
    return counted(len(branches), "branch", "branches")


def _how_far(branch: Branch, round: int) -> str:
    """Say how far a branch is: a live federation goes on after its rounds while requests are open."""
    if round > branch.last_round:
        return f"round {round}, for open requests"
    return f"round {round}/{branch.last_round}"


class PlainProgress(Progress):
    """One line per branch, and one every few seconds while a branch is computed; for logs and pipes."""

    def __init__(self, console: Console, *, every_seconds: float = 5.0) -> None:
        self._console = console
        self._every = every_seconds
        self._last = 0.0
        self._clock = _Clock(0)
        self._done_here = 0

    def _say(self, text: str) -> None:
        terminal.say(self._console, text)

    def _due(self) -> bool:
        """Whether it is time for another line."""
        now = time.monotonic()
        if now - self._last < self._every:
            return False
        self._last = now
        return True

    def begin(self, run: Path, branches: Sequence[Branch]) -> None:
        self._clock = _Clock(sum(b.rounds for b in branches))
        self._say(f"run {terminal.shown(run)}: {_number(branches)}, at most {self._clock.total} rounds")

    def note(self, text: str) -> None:
        self._say(text)

    def branch_begins(self, branch: Branch, behind: int) -> None:
        self._done_here = behind - branch.first_round
        self._clock.skip(self._done_here)
        if behind < branch.last_round:
            one = behind + 1 == branch.last_round
            rounds = f"round {branch.last_round}" if one else f"rounds {behind + 1} to {branch.last_round}"
            self._say(f"{branch.name}: {rounds}")
        else:
            self._say(f"{branch.name}: after round {behind}")

    def round_done(self, branch: Branch, round: int, metrics: Mapping[str, float]) -> None:
        if round:
            self._clock.tick()
            self._done_here += 1
        if self._due():
            words = [_how_far(branch, round), _quality(metrics)]
            if round <= branch.last_round:
                words.append(f"{self._clock.left} left")
            self._say(f"{branch.name}: {', '.join(word for word in words if word)}")

    def branch_done(self, branch: Branch, record: Mapping[str, Any], *, reused: bool) -> None:
        self._clock.skip(branch.rounds if reused else branch.rounds - self._done_here)
        self._done_here = 0
        self._say(f"{branch.name}: {_summary(record, reused=reused)}")

    def measuring(self, rows: int) -> None:
        self._clock = _Clock(rows)
        self._last = time.monotonic()
        self._say("measuring: quality, membership attacks, distances to the retrained models")

    def measured(self) -> None:
        self._clock.tick()
        if self._due():
            self._say(f"measured {self._clock.done}/{self._clock.total}, {self._clock.left} left")


class LiveProgress(Progress):
    """A bar over all rounds of the run and one over what is at hand; finished branches scroll away above."""

    def __init__(self, console: Console) -> None:
        self._bars = Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}", style="dim", markup=False),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        )
        self._console = console
        self._clock = _Clock(0)
        self._all = self._bars.add_task("rounds", total=0, note="")
        self._one = self._bars.add_task("", total=0, visible=False, note="")
        self._done_here = 0

    def begin(self, run: Path, branches: Sequence[Branch]) -> None:
        self._clock = _Clock(sum(b.rounds for b in branches))
        self._console.print(
            Text.assemble((terminal.one_line(run.name), "bold"), f"  {_number(branches)}"),
            soft_wrap=True,
        )
        self._bars.update(self._all, total=self._clock.total)
        self._bars.start()

    def note(self, text: str) -> None:
        self._bars.console.print(Text(f"  {text}"), soft_wrap=True)

    def branch_begins(self, branch: Branch, behind: int) -> None:
        self._done_here = behind - branch.first_round
        self._clock.skip(self._done_here)
        total = max(branch.rounds, self._done_here)
        self._bars.reset(self._one, total=total, description=branch.name, visible=True, note="")
        self._bars.update(self._one, completed=self._done_here)
        self._bars.update(self._all, completed=self._clock.done)

    def round_done(self, branch: Branch, round: int, metrics: Mapping[str, float]) -> None:
        if not round:
            return
        self._clock.tick()
        self._done_here += 1
        done, note = round - branch.first_round, _quality(metrics, short=True)
        self._bars.update(self._one, completed=done, total=max(branch.rounds, done), note=note)
        total, done = max(self._clock.total, self._clock.done), self._clock.done
        self._bars.update(self._all, completed=done, total=total, note=f"{self._clock.left} left")

    def branch_done(self, branch: Branch, record: Mapping[str, Any], *, reused: bool) -> None:
        self._clock.skip(branch.rounds if reused else branch.rounds - self._done_here)
        self._done_here = 0
        self._bars.update(self._one, visible=False)
        self._bars.update(self._all, completed=self._clock.done)
        summary = f" {branch.name}: {_summary(record, reused=reused)}"
        self._bars.console.print(Text.assemble("  ", ("✓", "green"), summary), soft_wrap=True)

    def measuring(self, rows: int) -> None:
        self._clock = _Clock(rows)
        self._bars.reset(
            self._one, total=rows, description="measuring attacks and distances", visible=True, note=""
        )

    def measured(self) -> None:
        self._clock.tick()
        self._bars.update(self._one, completed=self._clock.done, note=f"{self._clock.left} left")

    def close(self) -> None:
        self._bars.stop()


def progress_for(console: Console) -> Progress:
    """Return the display that suits where the output goes."""
    moves = console.is_terminal and not console.is_dumb_terminal
    return LiveProgress(console) if moves else PlainProgress(console)
