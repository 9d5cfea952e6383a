"""What is kept of earlier rounds: against a dictionary, with a kill at any place, and for a federation that forks."""

import random
from dataclasses import replace

import pytest
import torch

from fedunlearn.errors import RunError
from fedunlearn.federation.sums import Contribution
from fedunlearn.models.state import ModelState
from fedunlearn.runs.checkpoints import Checkpoints
from fedunlearn.server.history import History, Keeps
from fedunlearn.server.round import Needs
from fedunlearn.strategies.base import UnlearningStrategy
from tests.federation.contributions import bits
from tests.server.tiny import (
    NUM_CLIENTS,
    SIZE,
    Federation,
    averaged,
    examples_of,
    initial_state,
    settings,
    update_of,
)

KEEPS = [
    Keeps(),
    Keeps(every=3),
    Keeps("last"),
    Keeps("last", "weights", models=True),
    Keeps("all", "weights", models=True, every=2, half=True),
]
names = pytest.mark.parametrize("keeps", KEEPS, ids=lambda keeps: keeps.name)


def vector(seed, dtype=torch.float32):
    return torch.randn(4, generator=torch.Generator().manual_seed(seed), dtype=dtype)


class Plain:
    """The same by the plainest means: a dictionary of what each checkpoint would find."""

    def __init__(self, keeps):
        self.keeps = keeps
        self.results, self.models = {}, {}

    def round(self, number, w, updates):
        if (number - 1) % self.keeps.every:
            return
        for client, (n, delta) in updates.items():
            value = delta if self.keeps.what == "updates" else w + delta
            if self.keeps.which == "last":
                self.results = {at: kept for at, kept in self.results.items() if at[1] != client}
            self.results[number, client] = (n, value.half().float() if self.keeps.half else value)
        if self.keeps.models:
            self.models[number] = w.half().float() if self.keeps.half else w
        rounds = {round for round, _ in self.results}
        if self.keeps.which == "last":
            self.models = {round: w for round, w in self.models.items() if round in rounds}


def assert_same(history, plain):
    assert history.rounds() == tuple(sorted({round for round, _ in plain.results}))
    for round in history.rounds():
        assert history.clients(round) == tuple(sorted(k for at, k in plain.results if at == round))
    for (round, client), (n, value) in plain.results.items():
        kept = history.result(round, client)
        assert (kept.client, kept.num_examples) == (client, n)
        assert history.num_examples(round, client) == n
        assert torch.equal(kept.delta, value)
        assert kept.delta.dtype == value.dtype
        assert history.last(client) == max(at for at, k in plain.results if k == client)
    for round, w in plain.models.items():
        assert torch.equal(history.model(round), w)


@names
@pytest.mark.parametrize("seed", range(6))
def test_whatever_happens_it_holds_what_a_dictionary_would(tmp_path, keeps, seed):
    """Rounds, forgotten clients, and a kill at any place; what a checkpoint has not seen is gone."""
    rng = random.Random(seed)
    plain, stores = Plain(keeps), [History(keeps), History(keeps, tmp_path / "h")]
    for number in range(1, 13):
        w = vector(100 * number)
        updates = {k: (k + 1, vector(100 * number + k + 1)) for k in rng.sample(range(5), rng.randint(1, 4))}
        contributions = [Contribution(k, n, delta) for k, (n, delta) in updates.items()]
        killed = rng.random() < 0.5
        for place, store in enumerate(stores):
            store.begin(number)
            store.record(ModelState(w), contributions)
            if (
                killed
            ):  # before or after it was published, and a new process goes on from the checkpoint before
                if rng.random() < 0.5 or place == 0:
                    store.publish()
                again = store if place == 0 else History(keeps, tmp_path / "h")
                again.restore(number - 1)
                assert_same(again, plain)
                again.begin(number)
                again.record(ModelState(w), contributions)
                store = stores[place] = again
            store.publish()
            store.settle()
        plain.round(number, w, updates)
        if rng.random() < 0.2 and plain.results:
            gone = rng.choice(sorted({k for _, k in plain.results}))
            plain.results = {at: kept for at, kept in plain.results.items() if at[1] != gone}
            for store in stores:
                store.forget(gone)
            if keeps.which == "last":
                left = {at for at, _ in plain.results}
                plain.models = {at: w for at, w in plain.models.items() if at in left}
        for store in stores:
            assert_same(store, plain)
    assert not list(tmp_path.rglob("*.tmp"))


def test_what_is_replaced_is_back_where_the_round_does_not_stand(tmp_path):
    store = History(Keeps(), tmp_path)
    first, second = Contribution(2, 7, vector(1)), Contribution(2, 7, vector(2))
    store.begin(1)
    store.record(ModelState(vector(0)), [first])
    store.publish()
    store.settle()
    store.begin(5)
    store.replace(1, second)
    assert torch.equal(store.result(1, 2).delta, first.delta), "not before the round is saved"
    assert list(tmp_path.rglob("*.tmp"))
    store.take_back(4)
    assert not list(tmp_path.rglob("*.tmp")), "where the round does not stand nothing of it is left"
    store.replace(1, second)
    store.publish()
    assert torch.equal(store.result(1, 2).delta, second.delta)
    store.settle(under_way=True)
    store.begin(6)
    store.take_back(4)
    assert torch.equal(store.result(1, 2).delta, first.delta)
    killed = History(Keeps(), tmp_path)
    killed.restore(5)
    assert torch.equal(killed.result(1, 2).delta, second.delta), "that it is taken back was not saved"
    saved = History(Keeps(), tmp_path)
    saved.restore(6, taken_back=4)
    assert torch.equal(saved.result(1, 2).delta, first.delta)
    store = saved
    store.begin(7)
    store.replace(1, second)
    store.publish()
    store.settle()
    assert torch.equal(History(Keeps(), tmp_path).result(1, 2).delta, second.delta)
    assert [path.name for path in tmp_path.rglob("*.safetensors")] == ["client-2@000007.safetensors"]


@pytest.mark.parametrize("place", ["memory", "disk"])
def test_what_was_taken_back_does_not_come_back_once_that_is_saved(tmp_path, place):
    store = History(Keeps(), tmp_path if place == "disk" else None)
    first = Contribution(2, 7, vector(1))
    store.begin(1)
    store.record(ModelState(vector(0)), [first])
    store.publish()
    store.begin(5)
    store.replace(1, Contribution(2, 7, vector(2)))
    store.publish()
    store.settle(under_way=True)
    store.begin(6)
    store.take_back(4)
    store.publish()
    store.settle()
    assert torch.equal(store.result(1, 2).delta, first.delta)


def test_a_value_beyond_half_precision_is_kept_whole(tmp_path):
    store = History(Keeps(half=True), tmp_path)
    store.begin(1)
    huge = torch.tensor([1.0, 7e4, 1 / 3])
    store.record(ModelState(torch.zeros(3)), [Contribution(0, 1, huge), Contribution(1, 1, huge / 7e4)])
    store.publish()
    assert torch.equal(store.result(1, 0).delta, huge)
    assert torch.equal(store.result(1, 1).delta, (huge / 7e4).half().float())


@pytest.mark.parametrize("damage", ["missing", "torn", "foreign"])
def test_a_damaged_file_is_named_in_one_line(tmp_path, damage):
    store = History(Keeps(), tmp_path)
    store.begin(1)
    store.record(ModelState(torch.zeros(4)), [Contribution(0, 1, vector(1))])
    store.publish()
    (path,) = tmp_path.rglob("client-0@000001.safetensors")
    store.result(1, 0)
    if damage == "missing":
        path.unlink()
    elif damage == "torn":
        path.write_bytes(path.read_bytes()[:50])
    else:
        path.write_bytes(path.read_bytes().replace(b"num_examples", b"num_exampels"))
    with pytest.raises(
        RunError, match=r"client-0@000001\.safetensors: is (missing|damaged).*restore it"
    ) as caught:
        store.result(1, 0)
    assert "\n" not in str(caught.value)
    with pytest.raises(RunError, match="nothing is kept of client 3 in round 1"):
        store.result(1, 3)


# -- one federation forks from another --------------------------------------------------------------------------


@names
def test_a_fork_reads_what_there_was_then_and_writes_its_own(tmp_path, keeps):
    """Two forks, of different rounds, beside each other: neither finds anything of the other, or of later rounds."""
    original = History(keeps, tmp_path / "original", forks=(4, 6))
    plain = {4: Plain(keeps), 6: Plain(keeps)}
    for number in range(1, 9):
        w, updates = vector(10 * number), {k: (k + 1, vector(10 * number + k)) for k in (number % 3, 3)}
        original.begin(number)
        original.record(ModelState(w), [Contribution(k, n, delta) for k, (n, delta) in updates.items()])
        original.publish()
        original.settle()
        for fork, store in plain.items():
            if number <= fork:
                store.round(number, w, updates)
    before = {path: path.read_bytes() for path in (tmp_path / "original").rglob("*") if path.is_file()}
    forks = {}
    for at in plain:
        base = History(keeps, tmp_path / "original")
        forks[at] = History(keeps, tmp_path / f"fork-{at}", base=base, base_round=at)
        assert_same(forks[at], plain[at])
    for at, fork in forks.items():
        fork.restore(at)
        fork.begin(at + 1)
        round, client = next((round, k) for round in fork.rounds() for k in fork.clients(round))
        fork.replace(round, Contribution(client, 50 + at, vector(at)))
        w = vector(77 + at)
        fork.record(ModelState(w), [Contribution(4, 5, vector(9))])
        fork.publish()
        fork.settle()
        kept = vector(at).half().float() if keeps.half else vector(at)
        plain[at].results[round, client] = (50 + at, kept)
        plain[at].round(at + 1, w, {4: (5, vector(9))})
    for at, fork in forks.items():
        assert_same(fork, plain[at])
    assert before == {
        path: path.read_bytes() for path in (tmp_path / "original").rglob("*") if path.is_file()
    }


def test_what_it_takes():
    """The published example: 11.17 million parameters, 100 rounds, 50 of 100 clients each."""
    assert Keeps().num_bytes(100, 50, 100, 11_173_962) / 1e9 == pytest.approx(223.5, abs=0.05)
    assert Keeps(half=True, every=5).num_bytes(100, 50, 100, 11_173_962) / 1e9 == pytest.approx(
        22.35, abs=0.01
    )
    assert Keeps("last", "weights").num_bytes(100, 50, 100, 1000) == 4 * 1000 * 100
    assert Keeps("last", models=True).num_bytes(1, 50, 100, 1000) == 4 * 1000 * 51


# -- in the round loop ------------------------------------------------------------------------------------------


class Looking(UnlearningStrategy):
    """Federated averaging, minus a thousandth of what all clients came to in the rounds before."""

    kept = Keeps("all", "updates", models=True, every=2)

    @classmethod
    def needs(cls, method):
        return Needs(keeps=cls.kept)

    def combine(self, round):
        step = torch.zeros_like(round.w)
        for earlier in round.history.rounds():
            for client in round.history.clients(earlier):
                kept = round.history.result(earlier, client)
                step += kept.num_examples * kept.delta
            step += round.history.model(earlier)
        return round.fedavg() - step / 1000


def by_hand(rounds, every=2):
    w, kept = initial_state(dtype=torch.float64).vector, torch.zeros(SIZE, dtype=torch.float64)
    for t in range(1, rounds + 1):
        after = averaged(w, t, range(NUM_CLIENTS)) - kept / 1000
        if t % every == 1:
            kept = kept + sum(examples_of(k) * update_of(w, t, k) for k in range(NUM_CLIENTS)) + w
        w = after
    return w


def test_a_method_finds_the_rounds_before_and_not_its_own(tmp_path):
    start = initial_state(dtype=torch.float64)
    for where in (History, lambda keeps: History(keeps, tmp_path / "h")):
        made = Federation(start=start).run(Looking, 7, history=where)
        torch.testing.assert_close(made.weights(7), by_hand(7), rtol=0, atol=1e-12)


def test_at_once_and_interrupted_after_each_round_it_is_the_same_bit_for_bit(tmp_path):
    def run(name, rounds):
        checkpoints = Checkpoints(tmp_path / name, "tiny")
        store = tmp_path / name / "history"
        return Federation(checkpoints=checkpoints).run(
            Looking, rounds, history=lambda keeps: History(keeps, store)
        )

    whole = run("whole", 6)
    for rounds in range(1, 7):
        resumed = run("parts", rounds)
    assert bits(resumed.weights(6)) == bits(whole.weights(6))
    files = [
        sorted(p.relative_to(tmp_path / n) for p in (tmp_path / n).rglob("*.safetensors"))
        for n in ("whole", "parts")
    ]
    assert files[0] == files[1]
    for name in files[0]:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parts" / name).read_bytes()


def test_rounds_that_are_not_kept_are_summed_as_ever(monkeypatch):
    """Single updates cost memory: they are asked for where a round is kept, and nowhere else."""
    asked = []
    trained = UnlearningStrategy._round_of

    def watched(self, current, model):
        asked.append(isinstance(current.answers.retained, list))
        return trained(self, current, model)

    monkeypatch.setattr(UnlearningStrategy, "_round_of", watched)
    Federation().run(Looking, 5)
    assert asked == [True, False, True, False, True]


def test_others_may_be_kept_for_those_that_fork(tmp_path):
    stores = [History(Keeps(), tmp_path / "a"), History(Keeps("last", "weights"), tmp_path / "b")]
    made = Federation(settings=settings()).run(UnlearningStrategy, 3, archives=stores)
    plain = Federation(settings=settings()).run(UnlearningStrategy, 3)
    assert bits(made.weights(3)) == bits(plain.weights(3))
    assert [store.rounds() for store in stores] == [(1, 2, 3), (3,)]
    for k in range(NUM_CLIENTS):
        expected = made.weights(2) + update_of(made.weights(2), 3, k)
        assert torch.equal(stores[1].result(3, k).delta, expected)
    assert replace(Keeps(), half=True).name not in {keeps.name for keeps in KEEPS}
    assert len({keeps.name for keeps in KEEPS}) == len(KEEPS)
