"""FedEraser: a replay by hand, what its sums must be, and what a federation that forgets by it leaves behind."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedunlearn.errors import ConfigError
from fedunlearn.federation.sums import BlockSum, Contribution
from fedunlearn.models.layout import Layout
from fedunlearn.runs.checkpoints import Checkpoints
from fedunlearn.server.architecture import Architecture
from fedunlearn.server.history import History
from fedunlearn.server.plan import RoundPlan
from fedunlearn.server.round import RoundStart
from fedunlearn.strategies.federaser import FedEraser, FedEraserSettings, calibrated
from tests.federation.contributions import bits
from tests.oracles import federaser as oracle
from tests.server.tiny import (
    NUM_CLIENTS,
    SIZE,
    Federation,
    examples_of,
    initial_state,
    only,
    raising,
    settings,
    training,
    update_of,
)

LAYOUT = Layout({"a.weight": (1, 2), "a.bias": (3,)})
LAYERS = [(0, 2), (2, 5)]
HOW = ("client", "client-layer", "average-layer")
SLOTS = 4
ROUNDS = 14
STORIES = {
    "one": [(4, (1,))],
    "two at once": [(5, (0, 3))],
    "one after another": [(3, (2,)), (8, (4,))],
    "the second in the middle of the first": [(4, (2,)), (5, (0, 4))],
    "before the first round": [(0, (1,))],
}
how = pytest.mark.parametrize("how", HOW)


def federation(story, folder=None, *, dtype=torch.float64, buffers=False, **options):
    checkpoints = None if folder is None else Checkpoints(folder / "checkpoints", "tiny")
    made = Federation(
        start=initial_state(dtype=dtype, buffers=buffers),
        settings=settings(
            participation=SLOTS / NUM_CLIENTS, quorum=0.5, train=training(rounds=ROUNDS, local_epochs=4)
        ),
        checkpoints=checkpoints,
        **options,
    )
    if "ledger" not in options:
        for number, (at_round, clients) in enumerate(story):
            made.submit(f"r{number}", clients, at_round)
    return made


def erased(made, rounds=ROUNDS, folder=None, **options):
    """Run a federation whose model has two parameters, with its history in a folder."""
    if folder is not None:
        options["history"] = lambda keeps: History(keeps, folder / "history")
    architecture = Architecture(lambda: LAYOUT, lambda seed: made.start)
    return made.run(FedEraser, rounds, architecture=architecture, **options)


def by_hand(story, rounds=ROUNDS, **options):
    def train(w, round, client):
        return update_of(torch.tensor(w, dtype=torch.float64), round, client).tolist()

    start = initial_state(dtype=torch.float64).vector.tolist()
    return oracle.run(
        start,
        rounds,
        story,
        train=train,
        examples=examples_of,
        num_clients=NUM_CLIENTS,
        slots=SLOTS,
        seed=settings().seed,
        layers=LAYERS,
        **options,
    )


@how
@pytest.mark.parametrize("story", STORIES.values(), ids=STORIES)
@pytest.mark.parametrize("interval", [1, 2])
def test_a_whole_run_is_as_computed_by_hand(how, story, interval):
    made = erased(federation(story), calibrate=how, interval=interval)
    expected, written = by_hand(story, how=how, interval=interval)
    for t in range(ROUNDS + 1):
        assert made.weights(t).tolist() == pytest.approx(expected[t], rel=0, abs=1e-9), t
    history = made.strategy.history
    assert history.rounds() == tuple(sorted(written))
    for t, updates in written.items():
        assert history.clients(t) == tuple(sorted(updates))
        for k, delta in updates.items():
            assert history.result(t, k).delta.tolist() == pytest.approx(delta, rel=0, abs=1e-9)


def test_who_is_asked_for_what():
    """Nobody in the first round of a replay; in the others who was there then and is still, at the rate of then."""
    made = erased(federation(STORIES["one"]))
    history = made.strategy.history
    assert made.clients.of_round(5) == []
    for t, kept in {6: 2, 7: 3, 8: 4}.items():
        assert made.clients.of_round(t, "train") == [k for k in history.clients(kept) if k != 1]
        assert {a.lr for a in made.clients.asked if a.round == t} == {0.8 * 0.5 ** (kept - 1)}
    assert made.progress("r0").unlearned_round == 8
    assert made.clients.of_round(9, "train.forget") == []


@pytest.mark.parametrize(("ratio", "epochs"), [(0.5, 2), (0.1, 1), (1.0, 4)])
def test_a_job_is_a_share_of_the_local_epochs_at_the_kept_round_s_rate(ratio, epochs):
    made = erased(federation(STORIES["one"]), 5, calibration_ratio=ratio)
    start = RoundStart(
        RoundPlan(7, (0, 2), (1,), asks=False, step=2), made.states[4], 7, Architecture(lambda: LAYOUT), None
    )
    job = made.strategy.job(start, "train")
    assert (job.epochs, job.lr) == (epochs, 0.8 * 0.5**2)
    assert made.strategy.job(RoundStart(RoundPlan(9, (0,)), *[None] * 4), "train") is None


# -- identities -------------------------------------------------------------------------------------------

VECTORS = st.lists(st.integers(-9000, 9000).map(lambda x: x / 1000), min_size=SIZE, max_size=SIZE)
SOME = st.lists(VECTORS, min_size=1, max_size=4)


def contributions(rows):
    made = (torch.tensor(row, dtype=torch.float64) for row in rows)
    return [Contribution(k, examples_of(k), delta) for k, delta in enumerate(made)]


def stepped(stored, fresh, how):
    return [c.delta for c in calibrated(contributions(stored), contributions(fresh), LAYOUT, how)]


@how
@given(rows=SOME)
def test_fresh_updates_that_are_the_kept_ones_stay(how, rows):
    """So with all clients, all epochs, the same draws and every round kept, a replay is the training again."""
    for found, row in zip(stepped(rows, rows, how), rows, strict=True):
        assert found.tolist() == pytest.approx(row, rel=1e-12, abs=1e-12)


@how
@given(rows=SOME, factor=st.sampled_from([1e-3, 0.5, 7.0, 1e6]))
def test_how_long_the_fresh_updates_are_does_not_matter(how, rows, factor):
    stored = [[x + 1 for x in row] for row in rows]
    scaled = [[factor * x for x in row] for row in rows]
    for one, other in zip(stepped(stored, rows, how), stepped(stored, scaled, how), strict=True):
        assert one.tolist() == pytest.approx(other.tolist(), rel=1e-9, abs=1e-9)


@given(rows=SOME)
def test_client_by_client_each_is_as_long_as_it_was(rows):
    stored = [[x + 1 for x in row] for row in rows]
    fresh = [[x + 10 for x in row] for row in rows]
    for found, row in zip(stepped(stored, fresh, "client"), stored, strict=True):
        assert float(found.norm()) == pytest.approx(oracle.length(row), rel=1e-12, abs=1e-12)


@how
def test_an_update_without_a_direction_moves_nothing(how):
    assert stepped([[1.0] * SIZE], [[0.0] * SIZE], how)[0].tolist() == [0.0] * SIZE
    assert calibrated([], [], LAYOUT, how) == []


def test_with_nobody_to_forget_a_replay_in_which_clients_train_as_then_is_the_training():
    """Round by round from the initial weights: what it ends in, and what it writes down."""
    made = erased(federation([]), 5)
    history, w = made.strategy.history, made.start.vector
    for t in history.rounds():
        stored = [history.result(t, k) for k in history.clients(t)]
        fresh = [Contribution(c.client, c.num_examples, update_of(w, t, c.client)) for c in stored]
        w = BlockSum.of(calibrated(stored, fresh, LAYOUT, "client")).step_from(w)
        torch.testing.assert_close(w, made.weights(t), rtol=0, atol=1e-12)


# -- clients that fail, are gone, or have forgotten a part ------------------------------------------------------


def test_a_client_that_fails_is_left_out_of_its_step_alone():
    made = federation(STORIES["one"])
    made.clients.fault = only(raising(OSError("lost")), client=2, rounds=[7])
    erased(made, 8)
    kept = [k for k in made.strategy.history.clients(3) if k not in (1, 2)]
    assert 2 in made.strategy.history.clients(3), "the story has it there"
    rows = []
    for k in kept:
        fresh = update_of(made.weights(6), 7, k)
        old = update_of(made.weights(2), 3, k)
        rows.append((examples_of(k), fresh * old.norm() / fresh.norm()))
    moved = sum(n * row for n, row in rows) / sum(n for n, _ in rows)
    torch.testing.assert_close(made.weights(7), made.weights(6) + moved, rtol=0, atol=1e-12)
    unchanged = made.strategy.history.result(3, 2).delta
    assert torch.equal(unchanged, update_of(made.weights(2), 3, 2))


def test_where_everybody_who_was_ever_there_is_forgotten_the_initial_weights_are_left():
    made = federation([(2, tuple(range(NUM_CLIENTS)))])
    erased(made, 4)
    assert torch.equal(made.weights(3), made.start.vector)
    assert made.progress("r0").unlearned_round == 3


def test_buffers_begin_anew_and_are_then_the_mean_of_those_that_train():
    made = erased(federation(STORIES["one"], buffers=True), 6)
    assert bits(made.states[5].buffers["mean"]) == bits(made.start.buffers["mean"])
    assert int(made.states[5].buffers["batches"]) == 0 < int(made.states[4].buffers["batches"])
    there = [k for k in made.strategy.history.clients(2) if k != 1]
    mean = sum(examples_of(k) * 0.1 * k for k in there) / sum(map(examples_of, there))
    assert made.states[6].buffers["mean"].tolist() == pytest.approx([mean] * 2)


def test_kept_in_half_the_space_it_is_nearly_the_same():
    whole, half = (erased(federation(STORIES["one"]), half=half) for half in (False, True))
    assert half.strategy.needed.keeps.half
    torch.testing.assert_close(half.weights(8), whole.weights(8), rtol=0, atol=2e-3)
    assert not torch.equal(half.weights(8), whole.weights(8))


# -- interrupted ------------------------------------------------------------------------------------------


@how
@pytest.mark.parametrize("at", range(1, ROUNDS))
def test_interrupted_after_any_round_it_ends_in_the_same_bits(tmp_path, monkeypatch, at, how):
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    story = STORIES["the second in the middle of the first"]
    one, other = tmp_path / "whole", tmp_path / "parts"
    whole = erased(federation(story, one), folder=one, calibrate=how)
    first = erased(federation(story, other), at, folder=other, calibrate=how)
    again = erased(federation(story, other, ledger=first.ledger), folder=other, calibrate=how)
    for t in range(max(1, at), ROUNDS + 1):
        assert bits(again.checkpoints.load(t).vector) == bits(whole.checkpoints.load(t).vector)
    files = [sorted(p.relative_to(f) for p in f.rglob("*.safetensors")) for f in (one, other)]
    assert files[0] == files[1]
    for path in files[0]:
        assert (one / path).read_bytes() == (other / path).read_bytes()


# -- words ----------------------------------------------------------------------------------------------------


def test_settings_have_bounds():
    with pytest.raises(ConfigError, match=r"calibration_ratio = 0.*must be > 0"):
        FedEraserSettings(calibration_ratio=0)
    with pytest.raises(ConfigError, match=r"calibrate"):
        FedEraserSettings(calibrate="layer")


def test_its_certificate_names_it_and_how_it_calibrates():
    assert FedEraser.describe(FedEraserSettings(interval=2, calibration_ratio=0.25)) == (
        "FedEraser, by which the updates of every 2 rounds are kept and the model is made anew from its initial "
        "weights without the clients to forget: the others train again for 0.25 of the usual epochs, each client's "
        "update as long as the one that is kept of it"
    )
    words = {FedEraser.describe(FedEraserSettings(calibrate=how)) for how in HOW}
    assert len(words) == 3 and all("the updates of every round are kept" in text for text in words)
