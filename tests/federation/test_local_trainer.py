"""Rounds without messages: the same sums, bit for bit, however the work is cut and whoever does it."""

import threading
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedunlearn.errors import OutOfMemoryError
from fedunlearn.federation.local_trainer import LocalTrainer
from fedunlearn.federation.sums import BlockSum, Contribution, norm_of
from tests.federation.contributions import bits
from tests.federation.scripted_routine import ScriptedRoutine, examples_of, round_of, trained
from tests.profiles import some

CLIENT_SETS = st.sets(st.integers(0, 700), min_size=1, max_size=30).map(sorted)


def expected(work, without=()):
    """Return the round's contributions, from the formula alone."""
    w = work.state.vector
    return {
        k: Contribution(k, examples_of(k), trained(w, k, work.config["round"]) - w)
        for k in (*work.train, *work.forget)
        if k not in without
    }


def answers_of(work, *, workers=1, batch_clients=1, faults=(), buffers=False, size=7):
    trainer = LocalTrainer(
        lambda: ScriptedRoutine(dict(faults), buffers, size), workers=workers, batch_clients=batch_clients
    )
    try:
        return trainer.train_round(work)
    finally:
        trainer.close()


@given(CLIENT_SETS, st.integers(1, 3))
@some
def test_the_sum_has_the_bits_of_adding_contributions_in_order(clients, workers):
    work = round_of(clients)
    answers = answers_of(work, workers=workers)
    summed = BlockSum.of(expected(work).values())
    like = work.state.vector
    assert bits(answers.retained.weighted_sum(like)) == bits(summed.weighted_sum(like))
    assert bits(answers.retained.mean()) == bits(summed.weighted_sum(like).div_(summed.num_examples))
    assert answers.retained.num_examples == summed.num_examples
    assert answers.losses == {k: 1 / (1 + k) for k in clients}
    assert list(answers.losses) == clients
    assert not answers.failed


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("kind", ["raise", "refuse", "nan", "none"])
def test_a_client_that_fails_is_named_and_left_out_of_the_sum(kind, workers):
    clients = [0, 1, 5, 63, 64, 70, 500]
    work = round_of(clients)
    answers = answers_of(work, workers=workers, faults={5: kind, 500: kind})
    summed = BlockSum.of(expected(work, without=(5, 500)).values())
    like = work.state.vector
    assert bits(answers.retained.weighted_sum(like)) == bits(summed.weighted_sum(like))
    assert answers.retained.num_examples == summed.num_examples
    assert list(answers.failed) == [5, 500]
    assert list(answers.losses) == [0, 1, 63, 64, 70]
    reason = {
        "raise": "client 5 is on fire",
        "refuse": "refused: scripted: fuel = none: must be some",
        "nan": "refused: update holds NaN or Inf",
        "none": "refused: num-examples = 0, must be at least 1",
    }[kind]
    assert reason in answers.failed[5]
    assert ("Traceback" in answers.failed[5]) == (kind == "raise")


@pytest.mark.parametrize("workers", [1, 2])
def test_clients_to_forget_travel_singly_and_are_in_no_sum(workers):
    work = round_of(range(5), forget=(2, 9))
    answers = answers_of(work, workers=workers)
    alone = expected(work)
    assert [c.client for c in answers.forgetting] == [2, 9]
    for c in answers.forgetting:
        assert bits(c.delta) == bits(alone[c.client].delta)
        assert c.num_examples == examples_of(c.client)
    summed = BlockSum.of(alone[k] for k in range(5))
    assert bits(answers.retained.weighted_sum(work.state.vector)) == bits(
        summed.weighted_sum(work.state.vector)
    )


def test_each_client_is_asked_for_what_it_is_there_for():
    routine = ScriptedRoutine()
    LocalTrainer(lambda: routine).train_round(round_of((0, 1), forget=(7,)))
    assert routine.asked == [(0, "train"), (1, "train"), (7, "train.forget")]


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("batch_clients", [1, 3])
def test_updates_one_by_one_come_in_client_order(workers, batch_clients):
    work = round_of([3, 1, 70, 65], individually=True)
    answers = answers_of(work, workers=workers, batch_clients=batch_clients)
    assert [c.client for c in answers.retained] == [1, 3, 65, 70]
    for c in answers.retained:
        assert bits(c.delta) == bits(expected(work)[c.client].delta)


@pytest.mark.parametrize("workers", [1, 2])
def test_buffers_are_averaged_and_every_client_starts_from_the_global_ones(workers):
    clients = [1, 2, 66]
    answers = answers_of(round_of(clients, buffers=True), workers=workers, buffers=True)
    n = [examples_of(k) for k in clients]
    mean = sum(0.1 * k * m for k, m in zip(clients, n, strict=True)) / sum(n)
    found = answers.retained.mean_buffers()
    torch.testing.assert_close(found["mean"], torch.full((2,), mean))
    assert found["batches"].item() == 66


def test_the_global_model_is_not_changed():
    work = round_of(range(70), forget=(80,), buffers=True)
    before = bits(work.state.vector)
    answers_of(work, buffers=True, faults={3: "raise"})
    assert bits(work.state.vector) == before
    assert work.state.buffers["batches"].item() == 0


def test_a_model_larger_than_a_chunk_has_the_same_bits():
    size = (1 << 17) + 5
    work = round_of([0, 1, 2, 64], size=size)
    answers = answers_of(work, size=size)
    summed = BlockSum.of(expected(work).values())
    assert bits(answers.retained.mean()) == bits(
        summed.weighted_sum(work.state.vector).div_(summed.num_examples)
    )


def test_rounds_follow_each_other_on_the_same_workers():
    trainer = LocalTrainer(ScriptedRoutine)
    for number in (1, 2):
        work = round_of([0, 4], number=number)
        found = trainer.train_round(work).retained.mean()
        summed = BlockSum.of(expected(work).values())
        assert bits(found) == bits(summed.weighted_sum(found).div_(summed.num_examples))


def test_workers_train_in_threads_of_their_own():
    threads = set()
    at_once = threading.Barrier(2, timeout=60)

    class Meeting(ScriptedRoutine):
        def train(self, client, kind, config, tensors):
            threads.add(threading.get_ident())
            at_once.wait()  # passes only if two clients train at the same time
            return super().train(client, kind, config, tensors)

    trainer = LocalTrainer(Meeting, workers=2)
    trainer.train_round(round_of(range(2)))
    trainer.close()
    assert len(threads) == 2
    assert threading.get_ident() not in threads


# -- stacks ----------------------------------------------------------------------------------------------


@given(CLIENT_SETS, st.integers(1, 3), st.integers(2, 40))
@some
def test_stacks_give_the_same_sum_up_to_rounding(clients, workers, batch_clients):
    work = round_of(clients)
    answers = answers_of(work, workers=workers, batch_clients=batch_clients)
    exact = BlockSum.of(expected(work).values())
    torch.testing.assert_close(answers.retained.mean(), exact.mean(), rtol=0, atol=1e-6)
    assert answers.retained.num_examples == exact.num_examples
    assert list(answers.losses) == clients


@pytest.mark.parametrize("kind", ["raise", "nan"])
@pytest.mark.parametrize("individually", [False, True])
def test_one_bad_client_does_not_spoil_its_stack(kind, individually):
    work = round_of(range(6), individually=individually)
    answers = answers_of(work, batch_clients=4, faults={2: kind})
    assert list(answers.failed) == [2]
    kept = answers.retained
    total = kept if isinstance(kept, BlockSum) else BlockSum.of(kept)
    exact = BlockSum.of(expected(work, without=(2,)).values())
    torch.testing.assert_close(total.mean(), exact.mean(), rtol=0, atol=1e-6)


def test_a_stack_that_cannot_be_trained_as_one_is_trained_one_by_one():
    work = round_of(range(6))
    answers = answers_of(work, batch_clients=4, faults={2: "stack"})
    assert not answers.failed
    exact = BlockSum.of(expected(work).values())
    torch.testing.assert_close(answers.retained.mean(), exact.mean(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("fault", ["memory", "allocate"])
@pytest.mark.parametrize("asked", [{"clients": range(9)}, {"clients": [0, 1], "forget": [4]}])
def test_a_client_without_memory_ends_the_run_and_is_no_failed_client(fault, asked, workers):
    work = round_of(**asked, number=5)
    with pytest.raises(OutOfMemoryError, match=r"^client 4, round 5: out of memory \(asked for"):
        answers_of(work, workers=workers, faults={4: fault})


@pytest.mark.parametrize("workers", [1, 2])
def test_a_stack_without_memory_is_trained_one_by_one_with_a_warning(workers, caplog):
    work = round_of(range(9))
    answers = answers_of(work, workers=workers, batch_clients=8, faults={4: "stack memory"})
    assert not answers.failed
    assert list(answers.losses) == list(range(9))
    assert sum("no memory for" in record.message for record in caplog.records) == 1
    with pytest.raises(OutOfMemoryError, match=r"^client 4, round 1"):
        answers_of(work, workers=workers, batch_clients=8, faults={4: "memory"})


# -- what a live federation asks for besides ---------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("individually", [False, True])
def test_norms_are_those_of_the_updates_however_they_are_added_up(workers, individually):
    """To the last bit: a bound that follows from them must not depend on the engine."""
    work = replace(round_of([0, 5, 63, 64, 200], forget=(7,)), norms=True, individually=individually)
    answers = answers_of(work, workers=workers, faults={5: "nan", 64: "raise"})
    alone = expected(work, without=(5, 7, 64))
    assert answers.norms == {k: norm_of(c.delta) for k, c in alone.items()}
    assert list(answers.norms) == sorted(alone)


def test_norms_of_a_stack_are_the_same_up_to_rounding():
    work = replace(round_of(range(0, 100, 9)), norms=True)
    exact, stacked = answers_of(work), answers_of(work, batch_clients=8)
    assert stacked.norms == pytest.approx(exact.norms, rel=1e-6)


def test_norms_are_not_computed_where_nobody_asks():
    assert answers_of(round_of([1, 2])).norms == {}


@pytest.mark.parametrize("workers", [1, 2])
def test_where_it_is_to_be_tolerated_a_client_without_memory_has_failed(workers):
    work = replace(round_of([1, 2, 3]), tolerant=True)
    answers = answers_of(work, workers=workers, faults={2: "memory"})
    assert list(answers.failed) == [2]
    assert list(answers.losses) == [1, 3]
