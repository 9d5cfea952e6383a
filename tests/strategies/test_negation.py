"""NoT: what a negated layer must be, by hand, and what a federation that forgets by it leaves behind."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fedunlearn import workspace
from fedunlearn.errors import ConfigError
from fedunlearn.models.flat import FlatModel
from fedunlearn.models.layout import Layout
from fedunlearn.requests import LIVE_BRANCH
from fedunlearn.runs.checkpoints import Checkpoints
from fedunlearn.server.architecture import Architecture
from fedunlearn.simulation.runner import read_scorecard, simulate
from fedunlearn.strategies.negation import NoT, first_layer, negated
from tests.e2e.tiny import TINY, tiny
from tests.live.living import Living
from tests.server.tiny import NUM_CLIENTS, SIZE, Federation, averaged, examples_of, initial_state, update_of

LAYOUT = Layout({"norm.weight": (1,), "a.weight": (2, 1), "a.bias": (2,)})
ARCHITECTURE = Architecture(lambda: LAYOUT)


def by_hand(rounds, request, gone):
    """Return the weights after so many rounds, in float64: averaging, one negation, averaging without the gone."""
    w, left = initial_state(dtype=torch.float64).vector, list(range(NUM_CLIENTS))
    for t in range(1, rounds + 1):
        if t == request + 1:
            left = [k for k in left if k not in gone]
            w = torch.cat([w[:1], -w[1:3], w[3:]])
            continue
        total = sum(examples_of(k) for k in left)
        w = w + sum(examples_of(k) / total * update_of(w, t, k) for k in left)
    return w


@pytest.mark.parametrize("gone", [(1,), (0, 2, 5)])
def test_a_whole_run_is_as_computed_by_hand(gone):
    made = Federation(start=initial_state(dtype=torch.float64))
    made.submit("r", gone, 2)
    made.run(NoT, 7, architecture=ARCHITECTURE)
    torch.testing.assert_close(made.weights(7), by_hand(7, 2, gone), rtol=0, atol=1e-12)
    assert made.clients.of_round(3) == []
    assert made.progress("r").unlearned_round == 3


@given(st.lists(st.floats(-9, 9, width=32), min_size=SIZE, max_size=SIZE))
def test_twice_at_once_is_the_identity_and_all_else_stays(values):
    w = torch.tensor(values)
    once = negated(w, LAYOUT)
    assert torch.equal(negated(once, LAYOUT), w)
    assert torch.equal(once[[0, 3, 4]], w[[0, 3, 4]])
    assert torch.equal(once[1:3], -w[1:3])


def test_of_a_first_layer_without_bias_the_outputs_are_those_of_the_negated_input():
    model = FlatModel(nn.Sequential(nn.Linear(5, 7, bias=False), nn.Tanh(), nn.Linear(7, 3)))
    x = torch.randn(11, 5, generator=torch.Generator().manual_seed(1))
    wanted = model.module(-x)
    model.load(negated(model.vector, Layout.of(model.module)))
    assert torch.equal(model.module(x), wanted)


def test_chosen_layers_are_negated_and_no_others():
    w = torch.arange(1.0, 6.0)
    assert negated(w, LAYOUT, ("a.bias", "norm.weight")).tolist() == [-1, 2, 3, -4, -5]
    with pytest.raises(ConfigError, match=r"no parameter 'b.bias'; it has norm.weight, a.weight, a.bias"):
        negated(w, LAYOUT, ("b.bias",))


def test_the_first_layer_is_a_matrix_or_a_kernel():
    assert first_layer(LAYOUT) == "a.weight"
    assert first_layer(Layout({"token": (1, 1, 4), "patch.weight": (4, 3, 2, 2)})) == "patch.weight"
    assert first_layer(Layout({"scale": (3,)})) == "scale"


def test_an_experiment_forgets_by_it_at_no_cost_of_the_forgotten(tmp_path):
    experiment = tiny(text=TINY.replace('name = "natural"', 'name = "not"'))
    run = simulate(experiment, out=tmp_path)
    original = Checkpoints(run / "checkpoints", "original-s1").load(3).vector
    after = Checkpoints(run / "checkpoints", "not-0-s1").load(4).vector
    data = workspace.data_of(experiment, 1)
    layout = Layout.of(workspace.model_of(experiment, data).module)
    assert torch.equal(after, negated(original, layout))
    assert not torch.equal(after, original)
    (row,) = (r for r in read_scorecard(run)["rows"] if (r["method"], r["at"]) == ("not", "unlearned"))
    cost = row["cost"]
    assert (cost["client_epochs"], cost["bytes_up"], cost["bytes_down"]) == (0, 0, 0)


def test_a_wrong_setting_is_refused_in_one_line():
    with pytest.raises(ConfigError, match=r'method\[1\]\.layers = "a".*must be a list'):
        tiny(text=TINY.replace('name = "puf"', 'name = "not"\nlayers = "a"'))


def test_a_live_federation_waits_for_nobody_who_is_to_be_forgotten(tmp_path):
    living = Living(tmp_path, roaming=True, quorum=0.3, rounds=4)
    living.at_round(1, lambda: living.grid.present.discard(4))
    living.at_round(2, lambda: living.intake.ask([4], source="http", actor="operator:a"))
    living.serve(NoT, architecture=ARCHITECTURE)
    (record,) = living.ledger.requests(LIVE_BRANCH)
    assert (record.state, record.unlearned_round) == ("forgotten", 3)
    before, after = living.weights(2), living.weights(3)
    assert torch.equal(after, negated(before, LAYOUT))
    assert 4 not in living.clients.of_round(3)
    plan = next(p.plan for p in living.ledger.plans(LIVE_BRANCH) if p.round == 3)
    assert json.loads(json.dumps(plan))["asks"] is False


def test_recovery_is_averaging_without_the_forgotten():
    made = Federation()
    made.submit("r", (1,), 1)
    made.run(NoT, 3, architecture=ARCHITECTURE)
    left = [k for k in range(NUM_CLIENTS) if k != 1]
    torch.testing.assert_close(
        made.weights(3).double(), averaged(made.weights(2), 3, left), rtol=0, atol=1e-6
    )


def test_its_certificate_names_it_and_what_it_negates():
    method = NoT.settings_type(layers=("0.weight",))
    assert NoT.describe(method) == (
        "NoT (weight negation), by which the parameters 0.weight of the model change sign; "
        "no client takes part"
    )
