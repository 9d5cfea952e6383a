"""The one-file oracle is itself held to identities that can be worked out by hand, on tiny data, in float64.

The lever of most tests: a run of one round in which everyone but k is excluded is k's local training, so
w_1 − w_0 = Δ_k, and every other first round must be a known combination of those.
"""

import random

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.oracles.puf_in_one_file import (
    accuracy,
    block_sum,
    derive_seed,
    first_recovered_round,
    flatten,
    partition,
    run,
    sample,
    unflatten,
)

SEED, CLIENTS, ALPHA, VALIDATION = 3, 5, 5.0, 0.1
SETTINGS = {
    "seed": SEED,
    "num_clients": CLIENTS,
    "alpha": ALPHA,
    "validation": VALIDATION,
    "rounds": 0,
    "recovery_rounds": 1,
    "forget": [],
    "mode": "special",
    "scale": 2.0,
    "lr": 0.2,
    "lr_decay": 0.9,
    "weight_decay": 1e-3,
    "momentum": 0.5,
    "batch_size": 8,
    "local_epochs": 2,
}


def tiny_data() -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(120) % 3
    images = torch.randn(120, 1, 2, 2, generator=draw, dtype=torch.float64) + labels[:, None, None, None]
    return images, labels


def tiny_model() -> nn.Module:
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double()
    unflatten(torch.linspace(-1, 1, 43, dtype=torch.float64), model)
    return model


IMAGES, LABELS = tiny_data()
MODEL = tiny_model()
EVERYONE = range(CLIENTS)
VALIDATION_ROWS, ROWS = partition(LABELS, seed=SEED, num_clients=CLIENTS, alpha=ALPHA, validation=VALIDATION)
N = {k: len(ROWS[k]) for k in EVERYONE}


def weights(*, images: Tensor = IMAGES, **changes: object) -> list[Tensor]:
    return run(images, LABELS, MODEL, **{**SETTINGS, **changes})


def delta(*clients: int, **changes: object) -> Tensor:
    """Return w_1 − w_0 of a first round that only ``clients`` take part in."""
    w = weights(exclude=set(EVERYONE) - set(clients), **changes)
    return w[1] - w[0]


def poisoned(rows: np.ndarray | int) -> Tensor:
    """Return the images with NaN in ``rows``: whoever looks at them carries the mark for ever."""
    images = IMAGES.clone()
    images[rows] = torch.nan
    return images


def close(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=0, atol=1e-13)


# --- randomness and partition -----------------------------------------------------------------------------


def test_seed_is_the_documented_hash():
    # printf 1/batches/2/3 | b2sum -l 64 prints 86bfcd7d3d5015d4; 1/partition/0/0 gives 31aa6afbe8004810.
    assert derive_seed(1, "batches", 2, 3) == int.from_bytes(bytes.fromhex("86bfcd7d3d5015d4"), "little")
    assert derive_seed(1, "partition") == 1173188703580498481


@pytest.mark.parametrize("alpha", [0.5, 5.0, 1e6])
@pytest.mark.parametrize("validation", [0.0, 0.25])
def test_partition_deals_every_row_exactly_once(alpha, validation):
    held_out, rows = partition(LABELS, seed=11, num_clients=3, alpha=alpha, validation=validation)
    assert len(held_out) == 120 * validation
    assert sorted(np.concatenate([held_out, *rows])) == list(range(120))
    assert all((np.diff(hand) > 0).all() for hand in rows)


def test_huge_alpha_deals_every_class_evenly_and_tiny_alpha_does_not():
    labels = LABELS.repeat(10)  # 400 a class

    def counts(alpha: float) -> np.ndarray:
        _, rows = partition(labels, seed=1, num_clients=2, alpha=alpha, validation=0)
        return np.array([np.bincount(labels[hand], minlength=3) for hand in rows])

    assert (abs(counts(1e9) - 200) <= 1).all()
    assert (counts(0.5).max(axis=0) > 220).any()


def test_client_without_data_is_refused():
    with pytest.raises(ValueError, match=r"client \d+ holds no data"):
        partition(LABELS, seed=1, num_clients=100, alpha=0.01, validation=0)


# --- local training and FedAvg ----------------------------------------------------------------------------


def test_local_training_is_sgd_written_out_by_hand():
    """One client, full batches: softmax regression, two epochs of momentum and weight decay, two rounds."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3, bias=False)).double()
    x, y = IMAGES.reshape(120, 4).numpy(), np.eye(3)[LABELS]
    w = flatten(model).reshape(3, 4).numpy()
    alone = {"num_clients": 1, "validation": 0.0, "batch_size": 120, "rounds": 2, "recovery_rounds": 0}
    for t, found in enumerate(run(IMAGES, LABELS, model, **{**SETTINGS, **alone})):
        if t > 0:
            velocity = 0
            for _ in range(2):
                p = np.exp(x @ w.T)
                p /= p.sum(axis=1, keepdims=True)
                velocity = 0.5 * velocity + (p - y).T @ x / 120 + 1e-3 * w
                w = w - 0.2 * 0.9 ** (t - 1) * velocity
        np.testing.assert_allclose(found.reshape(3, 4), w, rtol=0, atol=1e-12)


def test_batches_follow_the_address_of_seed_round_and_client():
    seen = []

    class Recorder(nn.Linear):
        def forward(self, x):
            seen.append(x[:, 0].int().tolist())
            return super().forward(x)

    rows = torch.arange(120.0)[:, None]
    changes = {"rounds": 2, "recovery_rounds": 0, "exclude": [1, 2, 4], "lr": 0.0, "batch_size": 1000}
    run(rows, LABELS, Recorder(1, 3), **{**SETTINGS, **changes})
    expected = []
    for t, client in [(1, 0), (1, 3), (2, 0), (2, 3)]:
        generator = torch.Generator().manual_seed(derive_seed(SEED, "batches", t, client))
        expected += [ROWS[client][torch.randperm(N[client], generator=generator)].tolist() for _ in range(2)]
    assert seen == expected


def test_every_row_counts_also_in_the_last_partial_batch():
    assert N[0] % 7 != 0
    for row in ROWS[0]:
        marked = weights(images=poisoned(row), exclude=[1, 2, 3, 4], batch_size=7, local_epochs=1)
        assert marked[1].isnan().any()


def test_fedavg_is_the_mean_weighted_by_examples():
    assert len(set(N.values())) > 1  # or an unweighted mean would pass
    expected = sum(N[k] * delta(k) for k in EVERYONE) / sum(N.values())
    assert close(delta(*EVERYONE), expected)


def test_sums_run_in_blocks_of_64_client_numbers():
    big, one = torch.tensor([1e16], dtype=torch.float64), torch.tensor([1.0], dtype=torch.float64)
    updates = {65: (1, one), 0: (1, big), 64: (1, -big)}
    total, examples = block_sum(one, updates)
    assert (total.item(), examples) == (0.0, 3)  # 1e16 + (−1e16 + 1) in doubles; one straight sum gives 1


def test_sample_takes_all_if_there_is_room_and_else_draws_by_round():
    assert sample(1, 1, [4, 2, 0], 3) == [0, 2, 4]
    draws = [sample(1, t, range(20), 5) for t in range(1, 30)]
    assert all(len(set(draw)) == 5 and draw == sorted(draw) for draw in draws)
    assert {client for draw in draws for client in draw} == set(range(20))
    assert sample(1, 7, list(reversed(range(20))), 5) == draws[6]


# --- PUF --------------------------------------------------------------------------------------------------


def test_special_0_is_the_identity_bit_for_bit():
    w = weights(rounds=2, recovery_rounds=2, forget=[1, 3], scale=0.0)
    assert len(w) == 5
    assert torch.equal(w[3], w[2])
    assert not torch.equal(w[2], w[1]) and not torch.equal(w[4], w[3])


@pytest.mark.parametrize("forget", [[1], [0, 3]])
def test_special_subtracts_the_forgotten_clients_weighted_mean(forget):
    w = weights(forget=forget, scale=2.0)
    mean = sum(N[u] * delta(u) for u in forget) / sum(N[u] for u in forget)
    assert close(w[1] - w[0], -2.0 * mean)


@pytest.mark.parametrize("forget", [[1], [0, 3]])
def test_regular_0_is_fedavg_of_the_retained_damped_by_their_share(forget):
    w = weights(forget=forget, mode="regular", scale=0.0)
    retained = [k for k in EVERYONE if k not in forget]
    share = sum(N[k] for k in retained) / sum(N.values())
    assert share < 0.9
    assert close(w[1] - w[0], share * delta(*retained))


def test_scale_minus_1_learns_instead_of_unlearning():
    """Regular(−1) is FedAvg of everyone and Special(−1) is FedAvg of U: nothing else may hide in the step."""
    regular = weights(forget=[0, 3], mode="regular", scale=-1.0)
    special = weights(forget=[0, 3], mode="special", scale=-1.0)
    assert close(regular[1] - regular[0], delta(*EVERYONE))
    assert close(special[1] - special[0], delta(0, 3))


def test_before_the_request_it_is_fedavg_with_everyone():
    plain, puf = weights(rounds=3), weights(rounds=2, recovery_rounds=1, forget=[1])
    assert all(torch.equal(a, b) for a, b in zip(plain[:3], puf[:3], strict=True))
    assert not torch.equal(plain[3], puf[3])


def test_recovery_is_fedavg_without_the_forgotten_and_the_decay_goes_on():
    """Scale 0 makes round 1 a pause; one full-batch step in round 2 is then 0.9 of what it was in round 1."""
    one_step = {"batch_size": 200, "local_epochs": 1}
    w = weights(recovery_rounds=2, forget=[1], scale=0.0, **one_step)
    assert close(w[2] - w[0], 0.9 * delta(0, 2, 3, 4, **one_step))
    w = weights(recovery_rounds=2, forget=[1], scale=0.0)  # small batches: another round, another order
    assert not close(w[2] - w[0], 0.9 * delta(0, 2, 3, 4))


@pytest.mark.parametrize("mode", ["special", "regular"])
def test_order_of_the_request_does_not_matter_bit_for_bit(mode):
    a = weights(rounds=1, recovery_rounds=2, forget=[0, 2, 4], mode=mode)
    b = weights(rounds=1, recovery_rounds=2, forget=[4, 0, 2, 0], mode=mode)
    assert all(torch.equal(u, v) for u, v in zip(a, b, strict=True))


# --- who looks at whose data ------------------------------------------------------------------------------


def test_excluded_clients_and_validation_rows_are_never_looked_at():
    settings = {"rounds": 2, "recovery_rounds": 2, "forget": [0], "exclude": [1, 3]}
    for mode in ("special", "regular"):
        clean = weights(mode=mode, **settings)
        unseen = np.concatenate([VALIDATION_ROWS, ROWS[1], ROWS[3]])
        marked = weights(mode=mode, images=poisoned(unseen), **settings)
        assert all(torch.equal(a, b) for a, b in zip(clean, marked, strict=True))
        assert weights(mode=mode, images=poisoned(ROWS[2]), **settings)[1].isnan().any()


@pytest.mark.parametrize(
    ("mode", "participation", "forget", "retained"),
    [
        ("special", 1.0, [1], 0),
        ("regular", 1.0, [1], 4),
        ("regular", 0.6, [1], 2),  # three slots, one for U
        ("regular", 0.4, [0, 1, 3], 0),  # U fills the slots
        ("regular", 0.1, [], 1),  # always one
    ],
)
def test_participants_of_the_unlearning_round(mode, participation, forget, retained):
    def looked_at(client: int) -> bool:
        w = weights(images=poisoned(ROWS[client]), mode=mode, participation=participation, forget=forget)
        return bool(w[1].isnan().any())

    assert all(looked_at(u) for u in forget)
    assert sum(looked_at(k) for k in EVERYONE if k not in forget) == retained


def test_forgotten_data_is_not_looked_at_in_recovery():
    settings = {
        "recovery_rounds": 3,
        "forget": [1],
        "scale": 0.0,
    }  # round 1 looks at it, and subtracts nothing
    changed = IMAGES.clone()
    changed[ROWS[1]] += 1
    a, b = weights(**settings), weights(images=changed, **settings)
    assert all(torch.equal(u, v) for u, v in zip(a, b, strict=True))


def test_no_global_generator_is_read_or_moved_and_the_model_is_left_alone():
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate(), flatten(MODEL)
    first = weights(rounds=1, participation=0.4)
    after = torch.get_rng_state(), np.random.get_state()[1], random.getstate(), flatten(MODEL)
    assert torch.equal(before[0], after[0]) and (before[1] == after[1]).all() and before[2] == after[2]
    assert torch.equal(before[3], after[3]) and torch.equal(first[0], after[3])
    with torch.random.fork_rng():
        torch.manual_seed(99)
        assert torch.equal(weights(rounds=1, participation=0.4)[-1], first[-1])


@pytest.mark.parametrize(
    "wrong",
    [{"mode": "Special"}, {"forget": [5]}, {"forget": [1], "exclude": [1]}, {"exclude": range(5)}],
)
def test_nonsense_is_refused(wrong):
    with pytest.raises(ValueError):
        weights(**wrong)


# --- recovery ---------------------------------------------------------------------------------------------


def test_first_recovered_round_counts_the_unlearning_round_and_can_be_censored():
    targets = [0.0, 50.0, 60.0, 70.0, 80.0]
    assert first_recovered_round([0, 90, 10, 70, 90], targets, rounds=1) == 3
    assert first_recovered_round([0, 90, 60, 70, 90], targets, rounds=1) == 2
    assert first_recovered_round([0, 90, 58, 10, 10], targets, rounds=1, epsilon=2.0) == 2
    assert first_recovered_round([0, 90, 10, 69, 79], targets, rounds=1) is None


def test_accuracy_is_in_points():
    model = nn.Linear(2, 2, bias=False)  # the identity: the larger pixel is the class
    images = torch.tensor([[3.0, 1.0], [0.0, 2.0], [5.0, 4.0], [1.0, 9.0]])
    assert accuracy(torch.eye(2).flatten(), model, images, torch.tensor([0, 1, 0, 0])) == 75.0
