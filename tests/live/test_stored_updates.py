"""Updates that the server keeps, to forget a client by that cannot be reached any more."""

import pytest
import torch
from safetensors.torch import save_file

from fedunlearn.errors import RunError
from fedunlearn.federation.sums import Contribution
from fedunlearn.live.stored_updates import StoredUpdates
from fedunlearn.runs.checkpoints import META
from tests.federation.contributions import bits

DELTA = torch.tensor([0.1, -3e-30, 7.5])


def test_the_last_update_of_each_client_is_kept(tmp_path):
    stored = StoredUpdates(tmp_path / "stored")
    assert stored.rounds() == {}
    stored.keep(1, [Contribution(3, 7, DELTA), Contribution(12, 2, 2 * DELTA)])
    stored.keep(4, [Contribution(3, 8, -DELTA)])
    assert stored.rounds() == {3: 4, 12: 1}
    update = stored.load(3, 4, torch.zeros(3))
    assert (update.client, update.num_examples, bits(update.delta)) == (3, 8, bits(-DELTA))
    assert sorted(p.name for p in (tmp_path / "stored").iterdir()) == [
        "client-12.safetensors",
        "client-3.safetensors",
    ]


def test_another_process_reads_the_same(tmp_path):
    StoredUpdates(tmp_path).keep(2, [Contribution(0, 1, DELTA)])
    assert bits(StoredUpdates(tmp_path).load(0, 2, torch.zeros(3)).delta) == bits(DELTA)


@pytest.mark.parametrize(
    ("client", "round", "size", "why"),
    [(1, 2, 3, "is missing"), (0, 3, 3, "is of round 2"), (0, 2, 4, "shape")],
)
def test_a_plan_that_names_another_one_is_not_executed(tmp_path, client, round, size, why):
    StoredUpdates(tmp_path).keep(2, [Contribution(0, 1, DELTA)])
    with pytest.raises(RunError, match=why):
        StoredUpdates(tmp_path).load(client, round, torch.zeros(size))


def test_a_damaged_file_is_named(tmp_path):
    stored = StoredUpdates(tmp_path)
    stored.keep(2, [Contribution(0, 1, DELTA)])
    stored.path(0).write_bytes(stored.path(0).read_bytes()[:40])
    with pytest.raises(RunError, match=r"client-0\.safetensors: is damaged"):
        stored.load(0, 2, torch.zeros(3))


@pytest.mark.parametrize(
    "metadata",
    [None, {}, {META: "{"}, {META: "[]"}, {META: "{}"}, {META: "[" * 100_000}, {META: '{"round": 2}'}],
)
def test_a_file_without_its_account_is_named(tmp_path, metadata):
    stored = StoredUpdates(tmp_path)
    save_file({"delta": DELTA}, stored.path(0), metadata=metadata)
    for read in (lambda: stored.load(0, 2, torch.zeros(3)), stored.rounds):
        with pytest.raises(RunError, match=r"client-0\.safetensors: is damaged \(its account:? ") as refused:
            read()
        assert "\n" not in str(refused.value)
