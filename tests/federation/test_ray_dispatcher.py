"""Who gets which job, and which job it was that a worker died of; without Ray, whose part a table plays."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.exceptions import ActorDiedError
from ray.exceptions import OutOfMemoryError as RayOutOfMemoryError

from fedunlearn.federation.ray_engine import dispatcher
from fedunlearn.federation.ray_engine.dispatcher import ATTEMPTS, Lost, Shift, Slot, in_one_line
from fedunlearn.out_of_memory import is_shortage


class Actors:
    """Workers that do what they are handed in order; a deadly job also swallows the reply sent just before it."""

    def __init__(self, number, deadly=()):
        self.slots = [Slot(actor, None) for actor in range(number)]
        self.deadly = set(deadly)
        self.done = {slot.actor: [] for slot in self.slots}

    def submit(self, actor, job):
        self.done[actor].append(job)
        return (actor, len(self.done[actor]) - 1)

    def get(self, reference):
        actor, place = reference
        if self.deadly & set(self.done[actor][place : place + 2]):
            raise ActorDiedError
        return f"result of {self.done[actor][place]}"

    def work(self, jobs, busiest=min):
        """Do the jobs; whoever ``busiest`` picks is done first. Return results, how many died, and who had what."""
        run = Shift(self.slots, jobs, self.submit)
        results, deaths, held = {}, 0, []
        while not run.over:
            run.hand_out()
            held.append(run.awaited())
            slot = busiest(run.awaited().values(), key=lambda s: s.actor)
            job, result, dead = run.read(slot)
            if dead:
                deaths += 1
                self.slots.remove(slot)
                self.slots.append(Slot(max(self.done) + 1, None))
                self.done[max(self.done) + 1] = []
            if result is not None:
                assert job not in results
                results[job] = result
        return results, deaths, held


@pytest.fixture(autouse=True)
def no_ray(monkeypatch):
    actors = []
    monkeypatch.setattr(dispatcher.ray, "get", lambda reference: actors[-1].get(reference))
    return actors


@given(
    st.integers(0, 25),
    st.integers(1, 4),
    st.sets(st.integers(0, 24), max_size=3),
    st.sampled_from([min, max]),
)
def test_every_job_is_done_once_and_only_those_that_kill_are_given_up(number, workers, deadly, pick):
    actors = Actors(workers, deadly)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dispatcher.ray, "get", actors.get)
        results, deaths, _ = actors.work(range(number), pick)
    assert set(results) == set(range(number))
    lost = {job for job, result in results.items() if isinstance(result, Lost)}
    assert lost == {job for job in deadly if job < number}
    assert deaths <= ATTEMPTS * len(lost)
    assert all(results[job].workers == ATTEMPTS for job in lost)


def test_jobs_are_begun_in_the_order_given_and_the_last_ones_by_whoever_is_free(no_ray):
    no_ray.append(Actors(2))
    no_ray[-1].work(range(9))
    assert no_ray[-1].done == {0: [0, 2, 4, 5, 6, 7, 8], 1: [1, 3]}


def test_a_worker_with_work_left_never_waits_for_the_next_job(no_ray):
    no_ray.append(Actors(1))
    run = Shift(no_ray[-1].slots, range(5), no_ray[-1].submit)
    run.hand_out()
    assert no_ray[-1].done[0] == [0, 1]


def test_a_worker_that_has_not_come_yet_gets_nothing(no_ray):
    no_ray.append(Actors(2))
    no_ray[-1].slots[0].coming = "a reference"
    Shift(no_ray[-1].slots, range(9), no_ray[-1].submit).hand_out()
    assert no_ray[-1].done == {0: [], 1: [0, 1]}


def test_the_first_suspect_is_tried_at_once_and_the_likely_killer_last(no_ray):
    no_ray.append(Actors(1, deadly=[0]))
    no_ray[-1].work(range(4))
    done = [job for jobs in no_ray[-1].done.values() for job in jobs]
    assert done == [0, 1, 0, 1, 2, 3, 0]


@pytest.mark.parametrize(
    ("many", "one"),
    [
        (
            "The actor died unexpectedly before finishing this task.\n\tclass_name: RayWorker\n\tpid: 7\n"
            "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit "
            "detail: Worker unexpectedly exits. Some common causes include: (1) this (2) that",
            "Worker unexpectedly exits. Out of memory, killed, or crashed.",
        ),
        ("\nThe node died.\nmore", "The node died."),
        ("", "RuntimeError"),
    ],
)
def test_what_ray_says_in_one_line(many, one):
    assert in_one_line(RuntimeError(many)) == one


def test_that_ray_ended_a_worker_to_save_the_machine_is_a_lack_of_memory():
    line = in_one_line(RayOutOfMemoryError("Task was killed due to the node running low on memory.\nmore"))
    assert is_shortage(Lost(3, line).while_they("trained client 4"))
