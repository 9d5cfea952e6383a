"""PGA: a whole run by hand, on clients that really climb, and what w_ref and the balls must be."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedunlearn import config, models, plugins
from fedunlearn.errors import ConfigError
from fedunlearn.federation.answers import FORGET
from fedunlearn.federation.sums import Contribution
from fedunlearn.runs.checkpoints import Checkpoints
from fedunlearn.server.history import History
from fedunlearn.simulation.runner import simulate
from fedunlearn.strategies.pga import INITS, PGA, PGASettings, authors_radius, reference_weights
from tests.federation.contributions import bits
from tests.oracles import pga as oracle
from tests.oracles.puf_in_one_file import derive_seed, partition
from tests.server.tiny import NUM_CLIENTS, Federation, examples_of, initial_state, settings, update_of

CLIENTS, CLASSES, SEED = 6, 4, 1
TEXT = f"""
name = "climbing"
seeds = [{SEED}]
cache = false
[data]
source = "synthetic-images"
num-train = 160
num-test = 60
num-classes = {CLASSES}
partition = "dirichlet"
alpha = 2.0
validation = 0.2
[federation]
num-clients = {CLIENTS}
[model]
name = "mlp"
hidden = []
[train]
rounds = 10
batch-size = 8
lr = 0.1
[engine]
precision = "float64"
[[method]]
name = "pga"
epochs = 3
batch-size = 5
lr = 0.05
[recover]
until = "max-rounds"
max-rounds = 3
"""
STORIES = {
    "one": {5: (1,)},
    "two at once": {5: (0, 3)},
    "one after another": {3: (2,), 6: (4,)},
}


def experiment(story, *overrides):
    requests = "".join(f"[[forget]]\nclients = {list(k)}\nat-round = {t}\n" for t, k in story.items())
    return config.loads(TEXT + requests, overrides=overrides)


def by_hand(made, story, **options):
    """Run the oracle on the experiment's data, weights and settings."""
    source = plugins.call("data", made.data.source, settings=made.data.source_settings)
    images = source.normalise(source.train_images, torch.float64)
    _, rows = partition(
        source.train_labels, seed=SEED, num_clients=CLIENTS, alpha=2.0, validation=made.data.validation
    )
    x, y = images.flatten(1).numpy(), source.train_labels.numpy()

    def initial(seed):
        shape = {"in_channels": images.shape[1], "image_size": images.shape[-1]}
        module = models.build(made.model, num_classes=CLASSES, seed=seed, **shape)
        return torch.cat([p.detach().reshape(-1) for p in module.parameters()]).double().numpy()

    method, train = made.methods[0].settings, made.train
    return oracle.run(
        initial(SEED),
        [(x[mine], y[mine]) for mine in rows],
        classes=CLASSES,
        rounds=train.rounds,
        requests=story,
        slots=made.federation.slots,
        seed=SEED,
        initial=[initial(derive_seed(SEED, "fresh-weights", number) >> 1) for number in range(10)],
        train={"lr": train.lr, "size": train.batch_size, "epochs": train.local_epochs},
        ascent={
            "lr": method.lr,
            "momentum": method.momentum,
            "clip": method.clip,
            "size": method.batch_size,
            "epochs": method.epochs,
        },
        radius=method.radius,
        stop=method.stop,
        stop_at=method.stop_at,
        **options,
    )


@pytest.mark.parametrize("story", STORIES.values(), ids=STORIES)
@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("federation.participation=0.67",),
        ("method[1].radius=0.01",),
        ("method[1].stop=1.1",),
        ("method[1].stop-at=0.3", "method[1].clip=0.5"),
        ("method[1].epochs=0",),
    ],
    ids=["everyone", "four of six", "a small ball", "stopped early", "an absolute distance", "no ascent"],
)
def test_a_whole_run_is_as_computed_by_hand(tmp_path, story, overrides):
    made = experiment(story, *overrides)
    expected, told = by_hand(made, story)
    stored = Checkpoints(simulate(made, out=tmp_path) / "checkpoints", "pga-timeline-s1")
    rounds = range(min(story) + 1, made.train.rounds + 1)
    assert set(rounds) <= set(stored.rounds())
    worst = max(np.abs(stored.load(t).vector.numpy() - expected[t]).max() for t in rounds)
    assert worst <= 1e-9
    for ascents in told:
        for path in ascents["paths"].values():
            far = [oracle.distance(w, ascents["w_ref"]) for w in path]
            assert all(distance <= ascents["radius"] + 1e-12 for distance in far)


def test_the_cases_are_what_their_names_say():
    """The small ball holds, who is stopped early stops early, and otherwise nobody does; w_ref is not w."""
    story = STORIES["two at once"]
    whole = experiment(story)
    trajectory, (plain,) = by_hand(whole, story)
    steps = {u: len(path) for u, path in plain["paths"].items()}
    _, (early,) = by_hand(experiment(story, "method[1].stop=1.1"), story)
    assert any(len(path) < steps[u] for u, path in early["paths"].items())
    _, (small,) = by_hand(experiment(story, "method[1].radius=0.01"), story)
    for path in small["paths"].values():
        assert oracle.distance(path[-1], small["w_ref"]) == pytest.approx(0.01)
    assert oracle.distance(plain["w_ref"], trajectory[5]) > 1e-3


def test_what_they_climb_from_is_the_average_of_the_others_last_weights():
    """With all clients in every round; whatever their epochs, 0 of them end there."""
    story = {5: (0, 3)}
    made = experiment(story, "method[1].epochs=0")
    trajectory, (told,) = by_hand(made, story)
    last, w_ref = told["last"], trajectory[6]
    sizes = [len(rows) for rows in partition_of(made)]
    others = [k for k in range(CLIENTS) if k not in (0, 3)]
    mean = sum(sizes[k] * last[k] for k in others) / sum(sizes[k] for k in others)
    np.testing.assert_allclose(w_ref, mean, rtol=0, atol=1e-12)


def partition_of(made):
    source = plugins.call("data", made.data.source, settings=made.data.source_settings)
    return partition(
        source.train_labels, seed=SEED, num_clients=CLIENTS, alpha=2.0, validation=made.data.validation
    )[1]


# -- identities -------------------------------------------------------------------------------------------

VECTOR = st.lists(st.floats(-9, 9), min_size=3, max_size=3)


@given(st.lists(VECTOR, min_size=2, max_size=5), st.data())
def test_reference_weights_are_the_average_without_the_forgotten(rows, data):
    weights = [torch.tensor(row, dtype=torch.float64) for row in rows]
    n = [examples_of(k) for k in range(len(rows))]
    w = sum(a * b for a, b in zip(n, weights, strict=True)) / sum(n)
    gone = data.draw(st.sets(st.integers(0, len(rows) - 1), max_size=len(rows) - 1))
    left = [k for k in range(len(rows)) if k not in gone]
    mean = sum(n[k] * weights[k] for k in left) / sum(n[k] for k in left)
    found = reference_weights(w, sum(n), [Contribution(k, n[k], weights[k]) for k in gone])
    torch.testing.assert_close(found, mean, rtol=0, atol=1e-10)


def test_the_radius_is_the_root_of_a_third_of_the_mean_square():
    w = torch.zeros(2)
    assert authors_radius(w, [torch.tensor([3.0, 4.0]), torch.tensor([0.0, 1.0])]) == pytest.approx(
        (13 / 3) ** 0.5
    )
    assert INITS == 10


# -- who has never trained, and who is alone -------------------------------------------------------------------


def federation(story, folder=None, **options):
    checkpoints = None if folder is None else Checkpoints(folder / "checkpoints", "tiny")
    made = Federation(start=initial_state(dtype=torch.float64), checkpoints=checkpoints, **options)
    if "ledger" not in options:
        for number, (at_round, clients) in enumerate(story):
            made.submit(f"r{number}", clients, at_round)
    return made


def run(made, rounds, folder=None, **options):
    if folder is not None:
        options["history"] = lambda keeps: History(keeps, folder / "history")
    return made.run(PGA, rounds, **{"radius": 1.0, **options})


def test_who_never_trained_has_left_nothing_to_forget():
    """Asked before the first round, the model stays as it is; beside another, only that one's result counts."""
    made = run(federation([(0, (1,)), (3, (2,))]), 4)
    assert bits(made.weights(1)) == bits(made.start.vector)
    assert made.progress("r0").unlearned_round == 1

    few = settings(participation=1 / 3)
    one = run(federation([(1, tuple(range(NUM_CLIENTS)))], settings=few), 2)
    (there,) = {one.strategy.history.clients(1)}
    last = {k: one.strategy.history.result(1, k).delta for k in there}
    torch.testing.assert_close(last[there[0]], one.start.vector + update_of(one.start.vector, 1, there[0]))
    assert one.clients.of_round(2, FORGET) == list(range(NUM_CLIENTS))
    w = one.weights(1)
    moved = sum(examples_of(k) * update_of(w, 2, k) for k in there) / sum(map(examples_of, there))
    torch.testing.assert_close(
        one.weights(2), w + min(1.0, 1 / float(moved.norm())) * moved, rtol=0, atol=1e-12
    )


def test_who_is_forgotten_is_no_part_of_a_later_reference():
    made = run(federation([(2, (2,)), (4, (4,))]), 5)
    last = {k: update_of(made.weights(1 if k == 2 else 3), 2 if k == 2 else 4, k) for k in range(NUM_CLIENTS)}
    last = {k: made.weights(1 if k == 2 else 3) + update for k, update in last.items()}
    left = [k for k in range(NUM_CLIENTS) if k not in (2, 4)]
    w_ref = sum(examples_of(k) * last[k] for k in left) / sum(map(examples_of, left))
    moved = update_of(w_ref, 5, 4)
    far = float(moved.norm())
    torch.testing.assert_close(made.weights(5), w_ref + min(1, 1 / far) * moved, rtol=0, atol=1e-10)


def test_a_client_s_answer_that_lies_outside_of_the_ball_is_put_back():
    made = run(federation([(2, (2,))]), 3, radius=1e-3)
    left = [k for k in range(NUM_CLIENTS) if k != 2]
    last = {k: made.weights(1) + update_of(made.weights(1), 2, k) for k in left}
    w_ref = sum(examples_of(k) * last[k] for k in left) / sum(map(examples_of, left))
    assert float((made.weights(3) - w_ref).norm()) == pytest.approx(1e-3)


# -- interrupted ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", range(1, 7))
def test_interrupted_after_any_round_it_ends_in_the_same_bits(tmp_path, at):
    story, one, other = [(2, (2,)), (4, (4, 0))], tmp_path / "whole", tmp_path / "parts"
    whole = run(federation(story, one), 7, folder=one)
    first = run(federation(story, other), at, folder=other)
    again = run(federation(story, other, ledger=first.ledger), 7, folder=other)
    for t in range(at, 8):
        assert bits(again.checkpoints.load(t).vector) == bits(whole.checkpoints.load(t).vector)
    files = [sorted(p.relative_to(f) for p in f.rglob("*.safetensors")) for f in (one, other)]
    assert files[0] == files[1]


# -- words ----------------------------------------------------------------------------------------------------


def test_settings_have_bounds_and_a_stored_update_is_refused():
    with pytest.raises(ConfigError, match=r"radius = 0.*must be > 0"):
        PGASettings(radius=0)
    live = TEXT.replace(f"seeds = [{SEED}]\n", "").replace("cache = false\n", "")
    with pytest.raises(
        ConfigError, match=r'requests.offline = "stored".*must be "wait" or "exclude" with PGA'
    ):
        config.loads(live + '[requests]\noffline = "stored"\nstore-updates = true\n')


def test_its_certificate_names_it_and_its_settings():
    assert PGA.describe(PGASettings(radius=0.5, stop_at=1.48, epochs=2)) == (
        "PGA (projected gradient ascent), by which the last weights of the clients to forget are subtracted from the "
        "average, and these clients climb the loss of their own data from what is left, within a ball of radius 0.5 "
        "around it, for at most 2 epochs and until they are farther than 1.48 from their last weights; the mean of "
        "what they come to is the new model"
    )
    assert "the paper's radius" in PGA.describe(PGASettings())
    assert "2 times as far from their last weights as at first" in PGA.describe(PGASettings())
