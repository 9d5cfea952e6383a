"""Checkpoints: what is saved comes back bit for bit, in the same bytes every time, and no crash tears it."""

import hashlib
import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedunlearn.errors import RunError
from fedunlearn.requests import LIVE_BRANCH
from fedunlearn.runs.checkpoints import Checkpoints, Snapshot, weights_hash
from tests.profiles import few

AWKWARD = [0.1, -0.0, 1e-45, 3.4e38, float("inf"), float("-inf"), float("nan"), 1 / 3]


def snapshot(round=3, dtype=torch.float32, **changes):
    buffers = {
        "norm.mean": torch.tensor(AWKWARD[:4], dtype=dtype),
        "norm.count": torch.tensor(2**40 + 1),
        "a.variance": torch.ones(2, 3, dtype=dtype) / 3,
    }
    meta = {"requests": [{"id": "ä", "clients": [1, 2], "ended_round": None}], "aside": {"b": 1, "a": 0.1}}
    content = {"vector": torch.tensor(AWKWARD, dtype=dtype), "buffers": buffers, "meta": meta}
    return Snapshot(round, **(content | changes))


def bits(tensor):
    return tensor.dtype, tuple(tensor.shape), tensor.contiguous().view(-1).view(torch.uint8).tolist()


def everything(found):
    return found.round, bits(found.vector), {n: bits(b) for n, b in found.buffers.items()}, found.meta


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_saved_comes_back_bit_for_bit(dtype, tmp_path):
    saved = snapshot(dtype=dtype)
    Checkpoints(tmp_path / "new" / "folder", "puf").save(saved)
    assert everything(Checkpoints(tmp_path / "new" / "folder", "puf").load(3)) == everything(saved)


def test_views_gradients_and_models_without_buffers_are_saved_too(tmp_path):
    table = torch.arange(12.0).reshape(3, 4).requires_grad_()
    checkpoints = Checkpoints(tmp_path, "b")
    checkpoints.save(Snapshot(1, table[:, 1]))
    found = checkpoints.load(1)
    assert found.vector.tolist() == [1, 5, 9]
    assert (found.buffers, found.meta) == ({}, {})


@few
@given(st.permutations(["x", "yy", "z.a", "counter"]), st.permutations(["q", "requests", "a"]))
def test_equal_content_is_equal_bytes_in_whatever_order_it_was_put_together(tmp_path_factory, names, keys):
    def written(names, keys):
        folder = tmp_path_factory.mktemp("bytes")
        buffers = {n: torch.tensor(len(n)) if n == "counter" else torch.ones(len(n)) for n in names}
        checkpoints = Checkpoints(folder, "b")
        checkpoints.save(snapshot(buffers=buffers, meta={key: [key, 1] for key in keys}))
        return checkpoints.path(3).read_bytes(), checkpoints.path(3).with_suffix(".json").read_bytes()

    assert written(names, keys) == written(sorted(names), sorted(keys))


def test_the_readable_copy_tells_the_truth(tmp_path):
    checkpoints = Checkpoints(tmp_path, "b")
    checkpoints.save(snapshot())
    content = checkpoints.path(3).read_bytes()
    assert json.loads((tmp_path / "b-r0003.json").read_text()) == {
        "round": 3,
        "sha256": hashlib.sha256(content).hexdigest(),
        **snapshot().meta,
    }


# -- which are kept -------------------------------------------------------------------------------------------


def test_all_rounds_are_kept_by_default_and_the_latest_is_the_highest(tmp_path):
    checkpoints = Checkpoints(tmp_path, "b")
    assert checkpoints.latest() is None
    for round in (0, 2, 10, 9, 12345):
        checkpoints.save(snapshot(round))
    assert checkpoints.rounds() == [0, 2, 9, 10, 12345]
    assert checkpoints.latest().round == 12345


def test_of_rounds_not_to_be_kept_only_the_latest_is(tmp_path):
    checkpoints = Checkpoints(tmp_path, "b", lambda round: round in (2, 5))
    there = []
    for round in range(1, 8):
        checkpoints.save(snapshot(round))
        there.append(checkpoints.rounds())
    assert there == [[1], [2], [2, 3], [2, 4], [2, 5], [2, 5, 6], [2, 5, 7]]
    names = {p.name for p in tmp_path.iterdir()}
    assert names == {f"b-r{r:04d}.{kind}" for r in (2, 5, 7) for kind in ("safetensors", "json")}


def test_the_folder_of_all_branches_is_looked_through_once_and_what_an_earlier_process_left_is_dropped(
    tmp_path, monkeypatch
):
    for round in (1, 2, 3):  # of a run that was interrupted three times
        (tmp_path / f"b-r{round:04d}.safetensors").write_bytes(b"")
    looked = []
    rounds = Checkpoints.rounds
    monkeypatch.setattr(Checkpoints, "rounds", lambda self: looked.append(1) or rounds(self))
    checkpoints = Checkpoints(tmp_path, "b", lambda round: round == 2)
    for round in range(4, 9):
        checkpoints.save(snapshot(round))
        checkpoints.delete(7)
    assert len(looked) == 1
    assert rounds(checkpoints) == [2, 8]


def test_a_round_saved_again_replaces_it_and_touches_no_later_one(tmp_path):
    checkpoints = Checkpoints(tmp_path, "b", lambda round: False)
    checkpoints.save(snapshot(4))
    checkpoints.save(snapshot(3))
    assert checkpoints.rounds() == [3, 4]
    checkpoints.save(snapshot(4, meta={"other": 1}))
    assert (checkpoints.rounds(), checkpoints.load(4).meta) == ([4], {"other": 1})


def test_deleting_takes_the_readable_copy_along_and_a_missing_one_is_fine(tmp_path):
    checkpoints = Checkpoints(tmp_path, "b")
    checkpoints.save(snapshot())
    checkpoints.delete(3)
    checkpoints.delete(3)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(
        RunError, match=r"b-r0003.safetensors: is missing; delete the run directory, or add --fresh"
    ):
        checkpoints.load(3)
    with pytest.raises(RunError, match=r"is missing; restore it from a backup"):
        Checkpoints(tmp_path, LIVE_BRANCH).load(3)


NAMES = ("puf", "puf-1", "puf-1-s1", "puf-1-s11", "puf-r0001", "pu.", "puf+", "puf-r0001.safetensors")


def test_branches_in_one_folder_do_not_mix_whatever_their_names(tmp_path):
    branches = {name: Checkpoints(tmp_path, name, lambda _: False) for name in NAMES}
    for number, checkpoints in enumerate(branches.values(), start=1):
        checkpoints.save(snapshot(number, meta={"of": number}))
    for number, checkpoints in enumerate(branches.values(), start=1):
        assert checkpoints.rounds() == [number]
        assert checkpoints.load(number).meta == {"of": number}
    branches["puf"].delete(1)
    assert [c.rounds() for c in branches.values()] == [[], *([n] for n in range(2, len(NAMES) + 1))]


# -- crashes --------------------------------------------------------------------------------------------------


def test_torn_temporaries_and_foreign_files_are_no_checkpoints(tmp_path):
    checkpoints = Checkpoints(tmp_path, "b")
    checkpoints.save(snapshot(2))
    whole = checkpoints.path(2).read_bytes()
    for name in (
        ".b-r0003.safetensors.tmp",
        ".b-r0003.json.tmp",
        "b-r0004.safetensors.tmp",
        "b-r005.safetensors",
        "b-r0006.json",
        "xb-r0007.safetensors",
        "b-rabcd.safetensors",
    ):
        (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    assert checkpoints.rounds() == [2]
    assert checkpoints.latest().round == 2
    checkpoints.save(snapshot(3))
    assert everything(checkpoints.load(3)) == everything(snapshot(3)), "the torn temporary is written over"


# -- hashes ---------------------------------------------------------------------------------------------------


def test_the_hash_of_weights_is_what_it_says():
    vector, buffer = torch.tensor([1.0, 2.0]), torch.tensor(5)
    digest = hashlib.sha256()
    digest.update(b"torch.float32(2,)" + vector.numpy().tobytes())
    digest.update(b"torch.int64()" + buffer.numpy().tobytes())
    assert weights_hash(vector, {"count": buffer}) == digest.hexdigest()
    assert weights_hash(vector, {}) == weights_hash(vector) != digest.hexdigest()


def test_the_hash_sees_every_bit_type_and_shape_and_not_the_memory_behind_them():
    vector = torch.tensor([0.0, 2.0, 3.0, 4.0])
    models = [
        (vector, {}),
        (torch.tensor([-0.0, 2.0, 3.0, 4.0]), {}),
        (vector.double(), {}),
        (vector.reshape(2, 2), {}),
        (vector, {"a": torch.ones(1), "b": torch.zeros(1)}),
        (vector, {"a": torch.zeros(1), "b": torch.ones(1)}),
    ]
    assert len({weights_hash(*model) for model in models}) == len(models)
    strided = torch.stack([vector, vector + 1], dim=1)[:, 0]
    assert not strided.is_contiguous()
    assert weights_hash(strided) == weights_hash(vector)
    reordered = dict(reversed(models[4][1].items()))
    assert weights_hash(vector, reordered) == weights_hash(*models[4])


# -- in two steps, for servers that may be replaced in between ---------------------------------------------


def test_prepared_and_published_is_saved(tmp_path):
    one, other = Checkpoints(tmp_path / "one", "b"), Checkpoints(tmp_path / "other", "b")
    one.save(snapshot())
    other.publish(other.prepare(snapshot()))
    for file in ("b-r0003.safetensors", "b-r0003.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "other" / file).read_bytes()
    assert sorted(p.name for p in (tmp_path / "other").iterdir()) == ["b-r0003.json", "b-r0003.safetensors"]


def test_prepared_is_no_checkpoint(tmp_path):
    checkpoints = Checkpoints(tmp_path, "b")
    checkpoints.prepare(snapshot())
    assert checkpoints.rounds() == []
    assert checkpoints.latest() is None


def test_two_servers_never_write_to_one_file(tmp_path):
    """The one that was cut off in the middle of writing must not spoil what the other one publishes."""
    first, second = Checkpoints(tmp_path, "b"), Checkpoints(tmp_path, "b")
    late, good = first.prepare(snapshot()), second.prepare(snapshot())
    late.temporary.write_bytes(b"half")
    second.publish(good)
    assert everything(second.load(3)) == everything(snapshot())


def test_what_was_prepared_by_the_dead_is_swept_away_and_nothing_else(tmp_path):
    checkpoints, others = Checkpoints(tmp_path, "b"), Checkpoints(tmp_path, "b2")
    checkpoints.save(snapshot())
    checkpoints.prepare(snapshot(round=4))
    others.prepare(snapshot(round=4))
    checkpoints.sweep()
    left = sorted(p.name for p in tmp_path.iterdir())
    assert left[1:] == ["b-r0003.json", "b-r0003.safetensors"]
    assert left[0].startswith(".b2-r0004.safetensors.")


def test_publishing_drops_what_need_not_be_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path, "b", keep=lambda round: round == 2)
    for round in (1, 2, 3, 4):
        checkpoints.publish(checkpoints.prepare(snapshot(round=round)))
    assert checkpoints.rounds() == [2, 4]
