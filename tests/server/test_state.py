"""What a strategy keeps is in the checkpoint: interrupted, it goes on in the same bits, and a lost one would show."""

import math

import pytest
import torch

from fedunlearn.models.flat import FlatModel
from fedunlearn.models.layout import Layout
from fedunlearn.runs.checkpoints import Checkpoints
from fedunlearn.server.architecture import Architecture
from fedunlearn.server.plan import RoundPlan
from fedunlearn.server.round import Needs
from fedunlearn.strategies.base import UnlearningStrategy
from tests.federation.contributions import bits
from tests.server.momentum import ServerMomentum
from tests.server.tiny import NUM_CLIENTS, SIZE, Federation, examples_of, initial_state, settings, update_of


def momentum_by_hand(rounds, beta=0.6):
    """Return the weights after so many rounds, in float64, without any of the program."""
    w, v = initial_state(dtype=torch.float64).vector, torch.zeros(SIZE, dtype=torch.float64)
    total = sum(map(examples_of, range(NUM_CLIENTS)))
    for t in range(1, rounds + 1):
        deltas = [examples_of(k) * update_of(w, t, k) for k in range(NUM_CLIENTS)]
        v = beta * v + sum(deltas) / total
        w = w + v
    return w


def federation(folder, **options):
    return Federation(checkpoints=Checkpoints(folder, "tiny"), **options)


def test_six_rounds_at_once_are_three_and_three_more(tmp_path):
    whole = federation(tmp_path / "whole").run(ServerMomentum, 6)
    federation(tmp_path / "parts").run(ServerMomentum, 3)
    resumed = federation(tmp_path / "parts").run(ServerMomentum, 6)
    assert bits(resumed.weights(6)) == bits(whole.weights(6))
    assert resumed.strategy.steps == 6
    for t in range(1, 7):
        name = f"tiny-r{t:04d}.safetensors"
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_strategy_that_forgets_its_state_would_end_elsewhere(tmp_path):
    class Forgetful(ServerMomentum):
        def load_state(self, state):
            pass

    whole = federation(tmp_path / "whole").run(Forgetful, 6)
    federation(tmp_path / "parts").run(Forgetful, 3)
    assert bits(federation(tmp_path / "parts").run(Forgetful, 6).weights(6)) != bits(whole.weights(6))


def test_the_steps_are_those_of_momentum(tmp_path):
    start = initial_state(dtype=torch.float64)
    made = federation(tmp_path, start=start).run(ServerMomentum, 5)
    torch.testing.assert_close(made.weights(5), momentum_by_hand(5), rtol=0, atol=1e-12)


def test_of_a_round_that_does_not_stand_the_state_does_not_either(tmp_path, monkeypatch):
    """The weights of round 2 are no numbers and are not kept; nor is the velocity that led there."""

    class Leaping(ServerMomentum):
        def combine(self, round):
            made = super().combine(round)
            return made * math.inf if round.plan.round == 2 else made

    monkeypatch.setattr("fedunlearn.server.hooks.Conduct.diverged", lambda *_: None)
    made = federation(tmp_path).run(Leaping, 3)
    assert bits(made.weights(2)) == bits(made.weights(1))
    assert made.strategy.steps == 2
    assert torch.isfinite(made.strategy.velocity).all()


# -- what a method is given -----------------------------------------------------------------------------------


class Halving(UnlearningStrategy):
    """Forgets by itself: nobody is asked, and one parameter is halved."""

    @classmethod
    def needs(cls, method):
        return Needs(online=False)

    def plan(self, situation):
        if not situation.to_forget:
            return situation.fedavg()
        return RoundPlan(situation.round, (), situation.to_forget, asks=False)

    def combine(self, round):
        if not round.forgets:
            return round.fedavg()
        made = round.w.clone()
        round.layout.view(made, "bias").mul_(0.5)
        return made


def test_who_is_not_asked_is_forgotten_all_the_same():
    made = Federation()
    made.submit("r1", (2, 4), 1)
    made.run(Halving, 3, architecture=Architecture(lambda: Layout({"weight": (SIZE - 2,), "bias": (2,)})))
    assert made.clients.of_round(2) == []
    assert made.clients.of_round(3) == [0, 1, 3, 5]
    assert made.progress("r1").unlearned_round == 2
    before, after = made.weights(1), made.weights(2)
    assert torch.equal(after, torch.cat([before[:-2], before[-2:] / 2]))


def test_a_plan_that_asks_nobody_is_read_back_as_it_was_written():
    plan = RoundPlan(3, (), (1, 2), ("r",), asks=False)
    assert RoundPlan.from_dict(plan.to_dict()) == plan
    assert plan.asked_to_forget == ()
    assert RoundPlan.from_dict({**plan.to_dict(), "asks": True}).asked_to_forget == (1, 2)


def test_what_is_drawn_in_a_round_depends_on_seed_and_round_alone():
    drawn = []

    class Drawing(UnlearningStrategy):
        def combine(self, round):
            drawn.append(float(torch.rand((), generator=round.generator())))
            return round.fedavg()

    for seed in (7, 7, 8):
        Federation(settings=settings(seed=seed)).run(Drawing, 2)
    assert drawn[:2] == drawn[2:4]
    assert len({*drawn[:2], *drawn[4:]}) == 4


@pytest.mark.parametrize("name", ["0.weight", "2.bias"])
def test_a_layout_is_that_of_the_flat_vector(name):

    model = FlatModel(torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU(), torch.nn.Linear(4, 2)))
    layout = Layout.of(model.module)
    part = layout.view(model.vector, name)
    assert torch.equal(part, dict(model.module.named_parameters())[name])
    part.zero_()
    assert not dict(model.module.named_parameters())[name].any(), "a view, not a copy"
    assert list(layout) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    assert layout.num_parameters == len(model.vector)
    with pytest.raises(ValueError, match="26 parameters"):
        layout.view(torch.zeros(3), name)
