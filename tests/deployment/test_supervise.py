"""Whatever dies, a federation with something to do is served again, and by one run at a time."""

import errno
import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedunlearn.deployment import supervise
from fedunlearn.deployment.superlink import RunState, UnreachableError
from fedunlearn.deployment.supervise import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    MEMORY,
    Standing,
    Supervisor,
    holder_name,
    standing,
)
from fedunlearn.requests import LIVE_BRANCH, Ledger
from tests.profiles import some

POLL = 5.0


class World:
    """A SuperLink and the servers of its runs, in a time of its own."""

    def __init__(self, folder):
        self.folder = folder
        self.now = 1_000_000.0
        self.states = {}
        self.reachable = True
        self.submitted = []
        self.lines = []
        self.ledger = Ledger(folder / "requests.sqlite", clock=lambda: self.now)
        self.lease = None
        self.asked = 0

    # -- what the supervisor sees --

    def submit(self):
        self._answers()
        run = str(100 + len(self.submitted))
        self.submitted.append(run)
        self.states[run] = RunState("running")
        return run

    def state(self, run):
        self._answers()
        return self.states.get(run)

    def stop(self, run):
        self._answers()
        self.states[run] = RunState("stopped")

    def _answers(self):
        if not self.reachable:
            raise UnreachableError("the SuperLink does not answer: refused")

    # -- what happens --

    def serve(self, run):
        """The run's server begins, and takes the lease as soon as it can."""
        self.lease = self.ledger.take_lease(LIVE_BRANCH, holder_name(run, "here:1"))

    def request(self, client):
        self.asked += 1
        self.ledger.submit(LIVE_BRANCH, request_id=f"r{self.asked}", clients=(client,), at_round=0)

    def a_round(self):
        self.ledger.commit_plan(LIVE_BRANCH, self.ledger.last_round(LIVE_BRANCH) + 1, {"requests": []})

    def withdraw_all(self):
        for record in self.ledger.requests(LIVE_BRANCH):
            if record.state == "received":
                self.ledger.transition(LIVE_BRANCH, record.id, "withdrawn", round=0)

    def ends(self, run, how, details=""):
        self.states[run] = RunState(how, details)
        if self.lease is not None and how == "completed":
            self.lease.release()

    def supervisor(self):
        return Supervisor(self, self.folder, say=self.lines.append, clock=lambda: self.now, sleep=self.passes)

    def passes(self, seconds):
        self.now += seconds

    @property
    def at_work(self):
        return [run for run, state in self.states.items() if not state.ended]


@pytest.fixture
def world(tmp_path):
    return World(tmp_path)


@pytest.fixture
def supervisor(world):
    return world.supervisor()


def steps(world, supervisor, seconds):
    for _ in range(int(seconds / POLL)):
        supervisor.step()
        world.passes(POLL)


def test_a_run_is_submitted_once_and_then_watched(world, supervisor):
    assert not supervisor.step()
    assert world.submitted == ["100"]
    assert json.loads((world.folder / MEMORY).read_text()) == {"run": "100"}
    steps(world, supervisor, 1000)
    assert world.submitted == ["100"]
    assert len(world.lines) == len(set(world.lines)) == 2, "and what is so is said once"


def test_a_supervisor_that_is_started_again_goes_on_watching(world, supervisor):
    supervisor.step()
    world.supervisor().step()
    assert world.submitted == ["100"]


def test_a_failed_run_is_submitted_again_with_flowers_reason_in_the_log(world, supervisor):
    supervisor.step()
    world.ends("100", "failed", "ServerApp failed with exception: out of luck")
    steps(world, supervisor, FIRST_PAUSE + 2 * POLL)
    assert world.submitted == ["100", "101"]
    assert any(
        "run 100 failed (ServerApp failed with exception: out of luck)" in line for line in world.lines
    )


def test_a_run_that_got_on_is_submitted_again_at_once(world, supervisor):
    supervisor.step()
    world.a_round()
    world.ends("100", "failed")
    supervisor.step()
    assert world.submitted == ["100", "101"]


def test_runs_that_come_to_nothing_are_submitted_ever_more_rarely(world, supervisor):
    times = []
    for _ in range(12):
        before = len(world.submitted)
        while len(world.submitted) == before:
            supervisor.step()
            world.passes(1.0)
        times.append(world.now)
        world.ends(world.submitted[-1], "failed")
    pauses = [later - earlier for earlier, later in pairwise(times)]
    wanted = [min(FIRST_PAUSE * 2**i, LONGEST_PAUSE) for i in range(11)]
    assert pauses == pytest.approx(wanted, abs=2.0)
    world.a_round()
    supervisor.step()
    assert len(world.submitted) == 13, "one that got on starts afresh"


def test_a_complete_federation_waits_until_somebody_asks(world, supervisor):
    supervisor.step()
    world.serve("100")
    world.a_round()
    world.ends("100", "completed")
    for _ in range(100):
        assert supervisor.step(), "nothing is left to do"
        world.passes(POLL)
    world.request(3)
    assert not supervisor.step()
    assert world.submitted == ["100", "101"]


def test_a_run_that_died_without_flower_noticing_is_stopped_and_replaced(world, supervisor):
    supervisor.step()
    world.serve("100")
    for _ in range(20):
        world.passes(POLL)
        world.lease.renew()
        supervisor.step()
    assert world.submitted == ["100"], "one that is heard of is left alone"
    steps(world, supervisor, 60)
    assert world.states["100"].status == "stopped" and len(world.submitted) == 2
    assert len(world.at_work) == 1


def test_one_that_has_given_the_lease_back_is_about_to_end_and_left_to_it(world, supervisor):
    supervisor.step()
    world.serve("100")
    world.lease.release()
    steps(world, supervisor, 600)
    assert world.submitted == ["100"]


def test_one_that_still_waits_for_the_lease_is_not_taken_for_dead(world, supervisor):
    supervisor.step()
    world.serve("7")  # an earlier server, of a SuperLink that has been lost
    steps(world, supervisor, 600)
    assert world.submitted == ["100"]


def test_what_somebody_stopped_stays_stopped_until_a_supervisor_is_started(world, supervisor):
    supervisor.step()
    world.stop("100")
    world.request(1)
    steps(world, supervisor, 1000)
    assert world.submitted == ["100"]
    assert sum("was stopped; leaving it stopped with 1 request open" in line for line in world.lines) == 1
    steps(world, world.supervisor(), 10)
    assert world.submitted == ["100", "101"]


def test_a_superlink_that_forgot_the_run_gets_it_again(world, supervisor):
    supervisor.step()
    world.states.clear()
    steps(world, supervisor, FIRST_PAUSE + 2 * POLL)
    assert world.submitted == ["100", "101"]


def test_an_unreachable_superlink_is_waited_for(world, supervisor):
    world.reachable = False
    steps(world, supervisor, 100)
    assert len(world.lines) == 1 and "does not answer" in world.lines[0]
    world.reachable = True
    supervisor.step()
    assert world.submitted == ["100"]


def test_a_superlink_that_dies_between_stop_and_submission_is_no_ones_decision(world, supervisor):
    supervisor.step()
    world.serve("100")
    world.passes(60)
    stop = world.stop

    def stop_and_die(run):
        stop(run)
        world.reachable = False

    world.stop = stop_and_die
    supervisor.step()
    world.reachable = True
    steps(world, supervisor, FIRST_PAUSE + 2 * POLL)
    assert len(world.submitted) == 2


def test_a_run_that_somebody_else_submitted_is_watched_instead(world, supervisor):
    world.states["77"] = RunState("running")
    world.serve("77")
    supervisor.step()
    assert world.submitted == [] and supervisor.run == "77"
    world.a_round()
    world.ends("77", "failed")
    supervisor.step()
    assert world.submitted == ["100"]


@pytest.mark.parametrize(
    "damaged",
    [b"{", b"", b"[]", b'{"other": 1}', b"\xff\xfe", b'{"run":' * 100_000, b'{"run": "1", "run": "2"}'],
)
def test_a_damaged_memory_costs_a_submission_at_most(world, damaged):
    (world.folder / MEMORY).write_bytes(damaged)
    world.supervisor().step()
    assert world.submitted == ["100"] and "is damaged" in world.lines[0]


def test_on_a_full_disk_it_goes_on_from_memory(world, supervisor, monkeypatch):
    def full(path, content):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(supervise, "write_durably", full)
    steps(world, supervisor, 100)
    assert world.submitted == ["100"], "and submits no run after run that it cannot note"
    assert sum(f"{world.folder / MEMORY}: No space left on device" in line for line in world.lines) == 1


def test_watching_ends_where_it_is_asked_to(world, supervisor):
    done = iter(["100"])
    sleep = world.passes

    def passes(seconds):
        sleep(seconds)
        for run in done:
            world.ends(run, "completed")

    supervisor._sleep = passes
    supervisor.watch(POLL, until_done=True)
    assert world.submitted == ["100"]


# -- how a federation stands -------------------------------------------------------------------------------


def test_nothing_is_known_of_one_that_has_not_begun(tmp_path):
    assert standing(tmp_path, 5.0) == Standing()
    assert not (tmp_path / "requests.sqlite").exists(), "and looking makes nothing"


def test_how_it_stands_is_read_from_ledger_and_lease(world):
    world.request(1)
    world.request(2)
    world.withdraw_all()
    world.request(3)
    world.serve("5")
    world.passes(3)
    seen = standing(world.folder, world.now)
    assert (seen.open_requests, seen.server, seen.silent, seen.serving) == (1, "5", 3.0, True)
    world.passes(60)
    assert not standing(world.folder, world.now).serving
    before = seen.progress
    world.a_round()
    assert standing(world.folder, world.now).progress > before


# -- everything at once ------------------------------------------------------------------------------------

EVENTS = (
    "crash",
    "silent death",
    "complete",
    "request",
    "lost",
    "unreachable",
    "reachable",
    "restart",
    "wait",
)


@pytest.mark.slow
@some
@given(st.lists(st.sampled_from(EVENTS), max_size=12))
def test_whatever_happens_requests_are_served_in_the_end_and_by_one_run_at_a_time(tmp_path_factory, events):
    world = World(tmp_path_factory.mktemp("world"))
    supervisor = world.supervisor()
    known = set()

    def live(serving=True):
        """Let ten polls pass; servers of runs at work do their work unless they are silent."""
        for _ in range(10):
            if (
                world.reachable
                and serving
                and len(world.at_work) == 1
                and (run := world.at_work[0]) not in silent
            ):
                if run not in known:
                    world.passes(20)  # its predecessor's lease runs out
                    world.serve(run)
                    known.add(run)
                elif world.lease.holder == holder_name(run, "here:1"):
                    world.lease.renew()
            supervisor.step()
            assert len(world.at_work) <= 1
            world.passes(POLL)

    silent = set()
    for event in events:
        live()
        current = world.at_work[0] if world.at_work else None
        if event == "crash" and current:
            world.ends(current, "failed")
        elif event == "silent death" and current:
            silent.add(current)
        elif event == "complete" and current and current in known:
            world.ends(current, "completed")
        elif event == "request":
            world.request(1)
        elif event == "lost":
            world.states.clear()
        elif event in ("unreachable", "reachable"):
            world.reachable = event == "reachable"
        elif event == "restart":
            supervisor = world.supervisor()
    world.reachable = True
    world.request(2)
    for _ in range(20):
        live()
    assert world.at_work and world.at_work[0] not in silent, "a run is at work on the request"
    world.withdraw_all()
    world.ends(world.at_work[0], "completed")
    assert supervisor.step(), "and then there is nothing left to do"
