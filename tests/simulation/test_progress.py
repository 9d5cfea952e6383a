"""What a run shows while it runs: lines in a pipe, bars on a terminal, and an honest guess at what is left."""

import io
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from fedunlearn import resident
from fedunlearn.simulation import progress as module
from fedunlearn.simulation.branches import Branch
from fedunlearn.simulation.progress import LiveProgress, PlainProgress, Progress, progress_for
from fedunlearn.simulation.runner import read_scorecard, simulate
from tests.e2e.tiny import tiny

RUN = Path("runs/tiny-12345678")


def branch(name, last, first=0):
    return Branch(
        name=name, kind="method", label="x", seed=1, training_seed=1, first_round=first, last_round=last
    )


ORIGINAL, METHOD = branch("original-s1", 4), branch("puf-0-s1", 10, first=4)


def record(**request):
    outcome = {"clients": [3], "at_round": 4, "ended_round": 6, "outcome": "recovered", "state": "forgotten"}
    return {"last_round": 10, "requests": [outcome | request] if request else []}


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test moves by hand, from an hour after the machine was started."""
    time = SimpleNamespace(now=3600.0)
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: time.now))
    return time


def console(*, terminal=False):
    return Console(file=io.StringIO(), width=100, force_terminal=terminal)


def lines(progress_console):
    return progress_console.file.getvalue().splitlines()


# -- plain lines ----------------------------------------------------------------------------------------------


def test_plain_lines_from_the_first_to_the_last(clock):
    out = console()
    progress = PlainProgress(out)
    progress.begin(RUN, [ORIGINAL, METHOD])
    progress.branch_begins(ORIGINAL, 0)
    progress.round_done(ORIGINAL, 0, {"test-accuracy": 9.96})
    for round in range(1, 5):
        clock.now += 3
        progress.round_done(ORIGINAL, round, {"test-accuracy": 10.0 * round})
    progress.branch_done(ORIGINAL, record(), reused=False)
    progress.branch_done(METHOD, record(outcome="recovered"), reused=True)
    progress.measuring(3)
    for _ in range(3):
        clock.now += 4
        progress.measured()
    progress.end()
    progress.close()
    assert lines(out) == [
        "run runs/tiny-12345678: 2 branches, at most 10 rounds",
        "original-s1: rounds 1 to 4",
        "original-s1: round 0/4, test accuracy 10.0 %, - left",
        "original-s1: round 2/4, test accuracy 20.0 %, 24 s left",
        "original-s1: round 4/4, test accuracy 40.0 %, 18 s left",
        "original-s1: done",
        "puf-0-s1: cached, client 3 recovered after 2 rounds",
        "measuring: quality, membership attacks, distances to the retrained models",
        "measured 2/3, 4 s left",
    ]


def test_a_live_federation_goes_on_after_its_rounds_while_requests_are_open(clock):
    """It has validation data only, and nobody knows how long it takes."""
    out = console()
    progress = PlainProgress(out)
    progress.begin(RUN, [ORIGINAL])
    for round in (4, 5):
        clock.now += 6
        progress.round_done(ORIGINAL, round, {"validation-accuracy": 71.26})
    assert lines(out)[1:] == [
        "original-s1: round 4/4, validation accuracy 71.3 %, 18 s left",
        "original-s1: round 5, for open requests, validation accuracy 71.3 %",
    ]
    bars = LiveProgress(console(terminal=True))
    bars.begin(RUN, [ORIGINAL])
    bars.branch_begins(ORIGINAL, 0)
    bars.round_done(ORIGINAL, 5, {"validation-accuracy": 71.26})
    task = bars._bars.tasks[1]
    assert (task.completed, task.total, task.fields["note"]) == (5, 5, "validation 71.3 %")


def test_a_branch_that_goes_on_is_told_from_the_round_it_goes_on_from(clock):
    """Rounds that lie behind it are neither to come nor a measure of how long a round takes."""
    out, bars = console(), LiveProgress(console(terminal=True))
    for progress in (PlainProgress(out), bars):
        progress.begin(RUN, [METHOD])
        progress.branch_begins(METHOD, 8)
        clock.now += 6
        progress.round_done(METHOD, 9, {})
    assert lines(out) == [
        "run runs/tiny-12345678: 1 branch, at most 6 rounds",
        "puf-0-s1: rounds 9 to 10",
        "puf-0-s1: round 9/10, 6 s left",
    ]
    every, one = bars._bars.tasks
    assert (every.completed, every.total, every.fields["note"]) == (5, 6, "6 s left")
    PlainProgress(out).branch_begins(METHOD, 9)
    assert lines(out)[-1] == "puf-0-s1: round 10"
    assert (one.completed, one.total) == (5, 6)
    bars.branch_done(METHOD, record(), reused=False)
    assert every.completed == 6
    bars.close()


def test_a_live_federation_whose_rounds_are_done_goes_on_after_them(clock):
    out = console()
    PlainProgress(out).branch_begins(ORIGINAL, 7)
    assert lines(out) == ["original-s1: after round 7"]


def test_masks_have_their_dice_shown(clock):
    out = console()
    progress = PlainProgress(out)
    progress.begin(RUN, [ORIGINAL])
    progress.round_done(ORIGINAL, 1, {"test-dice": 71.26, "test-loss": 0.3})
    assert lines(out)[1] == "original-s1: round 1/4, test dice 71.3 %, 0 s left"
    bars = LiveProgress(console(terminal=True))
    bars.begin(RUN, [ORIGINAL])
    bars.branch_begins(ORIGINAL, 0)
    bars.round_done(ORIGINAL, 1, {"test-dice": 71.26})
    assert bars._bars.tasks[1].fields["note"] == "test 71.3 %"
    bars.close()


def test_a_line_every_so_many_seconds_however_quick_the_rounds(clock):
    out = console()
    progress = PlainProgress(out, every_seconds=10)
    progress.begin(RUN, [branch("long", 1000)])
    progress.branch_begins(branch("long", 1000), 0)
    for round in range(1, 101):
        clock.now += 0.5
        progress.round_done(branch("long", 1000), round, {})
    assert len(lines(out)) == 2 + 5
    assert lines(out)[2] == "long: round 1/1000, 8 min left", "also where no accuracy was measured"


def test_names_are_printed_as_they_are_even_where_they_look_like_markup(clock):
    out = console()
    PlainProgress(out).branch_begins(branch("[bold]x[/]", 2), 0)
    assert lines(out) == ["[bold]x[/]: rounds 1 to 2"]


@pytest.mark.parametrize(
    ("request_record", "words"),
    [
        ({"outcome": "recovered", "ended_round": 5}, "client 3 recovered after 1 round"),
        ({"outcome": "capped", "ended_round": 9}, "client 3 not recovered within 5 rounds"),
        ({"outcome": "unjudged", "ended_round": 6}, "client 3 forgotten, measured after 2 rounds"),
        ({"outcome": "superseded"}, "client 3: recovery taken over by a later request"),
        ({"outcome": "failed"}, "client 3: forgetting failed"),
        ({"outcome": None, "ended_round": None, "state": "waiting"}, "client 3: waiting"),
        ({"clients": [2, 5], "outcome": "recovered"}, "client 2+5 recovered after 2 rounds"),
    ],
)
def test_how_a_branch_ended(request_record, words, clock):
    out = console()
    progress = PlainProgress(out)
    progress.branch_done(METHOD, record(**request_record), reused=False)
    assert lines(out) == [f"puf-0-s1: done, {words}"]


# -- the time left --------------------------------------------------------------------------------------------


def test_the_time_left_is_that_of_the_rounds_left_at_the_pace_of_those_computed(clock):
    left = module._Clock(10)
    assert (left.total, left.left) == (10, "-")
    clock.now += 20
    left.tick()
    assert left.left == "3 min", "9 more at 20 s"
    left.tick()
    assert left.left == "80 s", "8 more at 10 s"


def test_rounds_that_need_not_be_computed_count_as_done_but_not_as_quick(clock):
    left = module._Clock(10)
    left.skip(4)
    assert left.left == "-"
    clock.now += 40
    left.tick()
    assert left.left == "3 min", "5 more at 40 s"
    left.skip(5)
    assert left.left == "0 s"
    left.skip(3)
    assert left.left == "0 s", "never less than none"


@pytest.mark.parametrize("kind", [PlainProgress, LiveProgress])
def test_a_branch_that_stops_early_or_was_there_is_done_whole(kind, clock):
    progress = kind(console(terminal=True))
    progress.begin(RUN, [ORIGINAL, METHOD, branch("third", 5)])
    progress.branch_done(ORIGINAL, record(), reused=True)
    assert progress._clock.done == 4
    progress.branch_begins(METHOD, 4)
    progress.round_done(METHOD, 5, {})
    progress.branch_done(METHOD, record(), reused=False)
    assert progress._clock.done == 10
    progress.branch_begins(branch("third", 5), 0)
    progress.round_done(branch("third", 5), 0, {})
    assert progress._clock.done == 10, "round 0 is no round"
    progress.close()


# -- bars -----------------------------------------------------------------------------------------------------


def test_bars_from_the_first_to_the_last():
    out = console(terminal=True)
    progress = LiveProgress(out)
    progress.begin(RUN, [ORIGINAL, METHOD])
    everything, one = progress._bars.tasks
    assert (everything.total, one.visible) == (10, False)
    progress.branch_begins(ORIGINAL, 0)
    assert (one.description, one.total, one.completed, one.visible) == ("original-s1", 4, 0, True)
    progress.round_done(ORIGINAL, 0, {"test-accuracy": 9.0})
    assert (one.completed, everything.completed) == (0, 0)
    progress.round_done(ORIGINAL, 1, {"test-accuracy": 11.26})
    progress._bars.refresh()
    assert (one.completed, one.fields["note"]) == (1, "test 11.3 %")
    assert everything.completed == 1
    assert everything.fields["note"].endswith(" left")
    progress.branch_done(ORIGINAL, record(), reused=False)
    assert (everything.completed, one.visible) == (4, False)
    progress.branch_begins(METHOD, 4)
    progress.round_done(METHOD, 5, {})
    assert (one.description, one.total, one.completed, one.fields["note"]) == ("puf-0-s1", 6, 1, "")
    progress.branch_done(METHOD, record(outcome="capped"), reused=True)
    progress.measuring(7)
    progress._bars.refresh()
    assert (one.description, one.total, one.completed, one.visible) == (
        "measuring attacks and distances",
        7,
        0,
        True,
    )
    progress.measured()
    assert one.completed == 1
    assert one.fields["note"].endswith(" left")
    progress.end()
    progress.close()
    text = out.file.getvalue()
    assert "tiny-12345678" in text
    assert "original-s1: done" in text
    assert "puf-0-s1: cached, client 3 not recovered within 2 rounds" in text
    assert "measuring attacks and distances" in text
    assert progress._bars.live.is_started is False
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l"), "the cursor is back"


def test_a_run_that_needs_no_branch_and_one_that_never_began():
    out = console(terminal=True)
    progress = LiveProgress(out)
    progress.begin(RUN, [])
    progress.measuring(0)
    progress._bars.refresh()
    progress.close()
    progress.close()
    LiveProgress(console(terminal=True)).close()


@pytest.mark.parametrize("display", [PlainProgress, LiveProgress])
def test_notes_are_shown_as_they_are(display):
    out = console(terminal=display is LiveProgress)
    progress = display(out)
    progress.begin(RUN, [])
    progress.note("left out HK/Case00.nii.gz: [bold] it is empty")
    progress.close()
    assert "left out HK/Case00.nii.gz: [bold] it is empty" in out.file.getvalue()


def test_bars_on_a_terminal_and_lines_elsewhere():
    assert isinstance(progress_for(console(terminal=True)), LiveProgress)
    assert isinstance(progress_for(console()), PlainProgress)


# -- told by a run --------------------------------------------------------------------------------------------


class Recorder(Progress):
    """Notes what a run tells."""

    def __init__(self):
        self.told = []

    def begin(self, run, branches):
        self.told.append(("begin", len(branches)))

    def branch_begins(self, branch, behind):
        self.told.append(("begins", branch.name, behind))

    def round_done(self, branch, round, metrics):
        assert 0 <= metrics["test-accuracy"] <= 100
        self.told.append(round)

    def branch_done(self, branch, record, *, reused):
        self.told.append(("reused" if reused else "done", branch.name, record["last_round"]))

    def measuring(self, rows):
        self.told.append(("measuring", rows))
        self.measured_rows = 0

    def measured(self):
        self.measured_rows += 1

    def end(self):
        self.told.append("end")


def test_what_a_run_tells_and_what_a_live_display_makes_of_it(tmp_path):
    recorder, display = Recorder(), LiveProgress(console(terminal=True))
    experiment = tiny("cache=true", "train.rounds=2", "recover.max-rounds=2")
    run = simulate(experiment, out=tmp_path, progress=recorder)
    assert recorder.told == [
        ("begin", 5),
        *(("begins", "original-s1", 0), 0, 1, 2, ("done", "original-s1", 2)),
        *(("begins", "retrain-0-s1", 0), 0, 1, 2, 3, 4, ("done", "retrain-0-s1", 4)),
        *(("begins", "floor-0-s1", 0), 0, 1, 2, 3, 4, ("done", "floor-0-s1", 4)),
        *(("begins", "puf-special-2-0-s1", 2), 3, 4, ("done", "puf-special-2-0-s1", 4)),
        *(("begins", "natural-0-s1", 2), 3, 4, ("done", "natural-0-s1", 4)),
        ("measuring", recorder.measured_rows),
        "end",
    ]
    assert recorder.measured_rows == len(read_scorecard(run)["rows"])
    recorder.told.clear()
    simulate(experiment, out=tmp_path, progress=recorder)
    assert [event[0] for event in recorder.told[1:-2]] == ["reused"] * 5
    simulate(experiment, out=tmp_path, progress=display)
    display.close()
    rounds, measuring = display._bars.tasks
    assert (rounds.completed, rounds.total) == (14, 14)
    assert measuring.completed == measuring.total == recorder.measured_rows


def test_a_run_tells_what_its_data_were_left_without_and_keeps_it(tmp_path, monkeypatch):
    class Notes(Progress):
        told: tuple[str, ...] = ()

        def note(self, text):
            self.told = (*self.told, text)

    load, notes = resident.load_federated, ("left out a.nii: is empty", "left out b.nii: is damaged")
    monkeypatch.setattr(resident, "load_federated", lambda *a, **how: replace(load(*a, **how), notes=notes))
    resident._load_data.cache_clear()
    try:
        progress = Notes()
        run = simulate(tiny("train.rounds=1", "recover.max-rounds=1"), out=tmp_path, progress=progress)
    finally:
        resident._load_data.cache_clear()
    assert progress.told == notes
    assert json.loads((run / "partition.json").read_text())["1"]["notes"] == list(notes)


def test_a_run_that_was_killed_tells_which_round_it_goes_on_from(tmp_path):
    class Killed(BaseException):
        pass

    class Killing(Recorder):
        def round_done(self, branch, round, metrics):
            if (branch.name, round) == ("retrain-0-s1", 2):
                raise Killed

    with pytest.raises(Killed):
        simulate(tiny(), out=tmp_path, progress=Killing())
    recorder = Recorder()
    simulate(tiny(), out=tmp_path, resume=True, progress=recorder)
    begun = recorder.told.index(("begins", "retrain-0-s1", 1))
    assert recorder.told[begun + 1] == 2, "the second round's checkpoint was not written yet"
