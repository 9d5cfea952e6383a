"""Local routines: what the server makes of their results, and the same bits as the routine by itself."""

import copy
from dataclasses import replace

import pytest
import torch

from fedunlearn import plugins, unlearning, workspace
from fedunlearn.data.synthetic import STD
from fedunlearn.errors import ConfigError
from fedunlearn.federation.hosted_routine import check_routines
from fedunlearn.federation.sums import BlockSum, Contribution
from fedunlearn.parts import Assignment
from fedunlearn.randomness import torch_generator
from fedunlearn.runs.checkpoints import Checkpoints
from fedunlearn.simulation.runner import simulate
from fedunlearn.strategies.local_routine import LocalRoutine, hosted_step
from fedunlearn.unlearning import Conditions, Examples
from tests.e2e.tiny import TINY, tiny
from tests.server import tiny as federations

W = torch.tensor([1.0, -2.0, 0.5])
ONE = Contribution(0, 10, torch.tensor([1.0, 0.0, 2.0]))
TWO = Contribution(3, 30, torch.tensor([-1.0, 4.0, 0.0]))
KEPT = Contribution(1, 60, torch.tensor([0.5, 0.5, 0.5]))
NOBODY = BlockSum()


def test_replace_is_the_mean_of_the_results():
    found = hosted_step(W, NOBODY, [ONE, TWO], "replace")
    torch.testing.assert_close(found, (10 * (W + ONE.delta) + 30 * (W + TWO.delta)) / 40)


def test_of_one_client_it_is_its_result():
    torch.testing.assert_close(hosted_step(W, NOBODY, [ONE], "replace"), W + ONE.delta)


def test_weighted_is_federated_averaging_with_those_who_forget():
    found = hosted_step(W, BlockSum.of([KEPT]), [ONE, TWO], "weighted")
    everybody = [ONE, TWO, KEPT]
    torch.testing.assert_close(found, W + sum(c.num_examples * c.delta for c in everybody) / 100)


def test_negated_is_puf():
    from fedunlearn.strategies.puf import puf_step

    found = hosted_step(W, NOBODY, [ONE, TWO], "negated")
    torch.testing.assert_close(found, puf_step(W, NOBODY, [ONE, TWO], mode="special", scale=1.0))


# -- a round of it --------------------------------------------------------------------------------------------


def after_a_round(monkeypatch, hosted, clients=(1, 4)):
    """Return a federation of six after round 2, in which two forgot by a routine that is hosted so."""
    theirs = replace(unlearning.method("gradient-ascent"), hosted=hosted)
    monkeypatch.setitem(plugins.LOADED, ("routines", "gradient-ascent"), theirs)
    start = federations.initial_state(dtype=torch.float64, buffers=True)
    made = federations.Federation(start=start, settings=federations.settings())
    made.submit("r1", clients, 1)
    return made.run(LocalRoutine, 2, routine="gradient-ascent")


@pytest.mark.parametrize(
    ("hosted", "trained", "averaged"),
    [
        ("replace", [], [1, 4]),
        ("weighted", [0, 2, 3, 5], [0, 1, 2, 3, 4, 5]),
        ("negated", [], []),
    ],
)
def test_who_trains_and_whose_buffers_are_averaged(monkeypatch, hosted, trained, averaged):
    made = after_a_round(monkeypatch, hosted)
    assert made.clients.of_round(2) == sorted([*trained, 1, 4])
    before, after = made.states[1], made.states[2]
    delta = {k: federations.update_of(before.vector, 2, k) for k in (*trained, 1, 4)}
    n = {k: federations.examples_of(k) for k in delta}
    step = sum(n[k] * delta[k] for k in delta) / sum(n.values())
    if hosted == "negated":
        step = -step
    torch.testing.assert_close(after.vector, before.vector + step)
    total = sum(n[k] for k in averaged)
    expected = before.buffers
    if averaged:
        each = {k: federations.buffers_after(before.buffers, k) for k in averaged}
        expected = {
            name: sum(n[k] * each[k][name] for k in averaged) / total for name in ("mean", "variance")
        } | {"batches": max(each[k]["batches"] for k in averaged)}
    assert after.buffers.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(after.buffers[name], value)
    assert made.report(2).coefficients == {k: pytest.approx(n[k] / sum(n.values())) for k in (1, 4)}


ROUTINE = """
[[method]]
name = "local-routine"
routine = "{routine}"
settings = {settings}
"""


def hosted(routine, settings, text=TINY):
    head, _, tail = text.partition("[[method]]")
    _, _, recover = tail.partition("[recover]")
    chosen = ROUTINE.format(routine=routine, settings=settings)
    return tiny(text=f"{head}{chosen}[recover]{recover}")


POOLED = (
    TINY.replace("targets = [[1]]\n", "").replace("num-clients = 4", "num-clients = 1")
    + """
[[target]]
clients = [0]
samples = 0.25
"""
)


MOVING_PIXELS = "{epsilon = 0.05, lr = 0.05, epochs = 2, batch-size = 8}"


@pytest.mark.parametrize(
    ("routine", "settings"),
    [
        ("fine-tune", "{epochs = 2, batch-size = 16}"),
        ("salun", "{epochs = 2, batch-size = 16}"),
        ("scrub", "{epochs = 2}"),
        ("scrub", "{epochs = 3, rewind = true, batch-size = 16}"),
        ("ssd", "{}"),
        ("fedquit", "{}"),
        ("boundary-shrink", MOVING_PIXELS),
    ],
)
def test_with_one_client_it_is_the_routine_on_pooled_data_bit_for_bit(tmp_path, routine, settings):
    experiment = hosted(routine, settings, POOLED)
    run = simulate(experiment, out=tmp_path)
    rounds = experiment.train.rounds
    before = Checkpoints(run / "checkpoints", "original-s1").load(rounds)
    after = Checkpoints(run / "checkpoints", f"{routine}-0-s1").load(rounds + 1)

    data = workspace.data_of(experiment, 1)
    model = workspace.new_model(experiment, data, 1)
    model.load(before.vector, before.buffers)
    (part,) = experiment.target_sets(1)[0]
    everything = Examples(*data.client(0))
    forget_rows = torch.from_numpy(data.parts[part].rows(everything.labels.numpy(), 1))
    keep = torch.ones(everything.size, dtype=torch.bool)
    keep[forget_rows] = False
    method = unlearning.method(routine)

    def alone(**known):
        return method(
            model,
            everything.select(forget_rows),
            everything.select(keep.nonzero().flatten()),
            settings=experiment.methods[0].settings.settings,
            generator=torch_generator(1, "routine", rounds + 1, part),
            conditions=Conditions(**known),
        )

    # No held-out examples: what a method needs of them it takes from R. The scale of pixels, which it cannot know.
    found = alone(pixel_std=(STD,))
    if settings == MOVING_PIXELS:
        assert not torch.equal(found.vector, alone().vector)
    # w + (w_u - w) rounds once more than w_u.
    torch.testing.assert_close(after.vector, found.vector, rtol=0, atol=1e-6)
    assert not torch.equal(after.vector, before.vector)
    for name, buffer in found.buffers().items():
        torch.testing.assert_close(after.buffers[name], buffer)


def test_hosted_by_a_client_it_sees_that_clients_data_only(tmp_path, monkeypatch):
    """F and R of the routine are the client's own: the part that is forgotten, and what it keeps."""
    text = TINY.replace("targets = [[1]]\n", "") + "\n[[target]]\nclients = [2]\nsamples = 0.5\n"
    experiment = hosted("fine-tune", "{epochs = 1}", text)
    seen = []
    method = unlearning.method("fine-tune")
    unlearn = method.unlearn

    def watched(model, forget, retain, **more):
        seen.append((forget, retain))
        return unlearn(model, forget, retain, **more)

    spied = copy.copy(method)
    object.__setattr__(spied, "unlearn", watched)
    monkeypatch.setitem(plugins.LOADED, ("routines", "fine-tune"), spied)
    simulate(experiment, out=tmp_path)
    ((forget, retain),) = seen
    data = workspace.data_of(experiment, 1)
    own = data.client(2)[0]
    part = data.parts[4]
    assert torch.equal(forget.images, data.assigned(Assignment(2, part))[0])
    assert torch.equal(retain.images, data.assigned(Assignment(2, None, (part,)))[0])
    assert len(forget.images) + len(retain.images) == len(own)


FILTERED = """
[[forget]]
clients = [0]
classes = [1]
at-round = 2
[[forget]]
clients = [2]
classes = [3]
at-round = 2
"""


def test_filters_of_several_clients_in_one_round_drop_what_any_of_them_drops(tmp_path):
    """Their mean would drop nothing, and both requests would end as forgotten."""
    text = TINY.replace("targets = [[1]]\n", "") + FILTERED
    experiment = hosted("mpru", '{redistribution = "constant"}', text)
    run = simulate(experiment, out=tmp_path)
    data = workspace.data_of(experiment, 1)
    model = workspace.new_model(experiment, data, 1)
    after = Checkpoints(run / "checkpoints", "mpru-timeline-s1").load(3)
    model.load(after.vector, after.buffers)
    outputs = model.module(data.client(0)[0]).exp().detach()
    assert float(outputs[:, [1, 3]].max()) < 1e-30
    torch.testing.assert_close(outputs.sum(1), torch.ones(len(outputs)))


@pytest.mark.parametrize(
    ("routine", "settings", "message"),
    [
        ("amnesia", "{}", 'must be one of "fine-tune", '),
        ("salum", "{}", 'did you mean "salun"'),
        ("salun", "{epoch = 1}", r"unknown key; did you mean method\[1\]\.settings\.epochs\?$"),
        (
            "salun",
            '{epochs = "many"}',
            r'settings\.epochs = "many" \(.*\): must be a whole number$',
        ),
        (
            "salun",
            "{saliency = -0.2}",
            r"settings\.saliency = -0\.2 \(.*\): must be > 0 and <= 1$",
        ),
        ("salun", '{order = "mix"}', r'settings\.order = "mix" \(.*"mixed"; did you mean "mixed"\?$'),
        ("trw", "{}", "forgets classes; give targets such as"),
    ],
)
def test_what_a_routine_cannot_do_is_refused_before_anything_runs(tmp_path, routine, settings, message):
    with pytest.raises(ConfigError, match=message) as refused:
        check_routines(hosted(routine, settings))
    assert str(refused.value).startswith("method[1].")
    with pytest.raises(ConfigError):
        simulate(hosted(routine, settings), out=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_client_that_refuses_its_routine_fails_and_the_request_with_it(tmp_path, monkeypatch):
    """Nothing is half done, though nobody had looked before."""
    from fedunlearn.requests import Ledger

    for check in ("check_routines", "check_needs"):
        monkeypatch.setattr(f"fedunlearn.simulation.runner.{check}", lambda *_: None)
    run = simulate(hosted("salun", "{}"), out=tmp_path)
    with Ledger(run / "requests.sqlite") as ledger:
        (request,) = ledger.requests("salun-0-s1")
    assert request.state == "failed"
