"""Pictures of a run: a slice chosen by the truth alone, the right models and rounds, the same bytes again."""

import io
import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from fedunlearn import config, workspace
from fedunlearn.data.federated import FederatedData
from fedunlearn.data.partition import Partition
from fedunlearn.data.slice_index import SliceIndex
from fedunlearn.evaluation.rows import Cost, Forget, Row
from fedunlearn.evaluation.segmentation import segment
from fedunlearn.models.flat import FlatModel
from fedunlearn.report.overlay import TRUTH, overlay
from fedunlearn.report.picture_index import read_pictures
from fedunlearn.runs.checkpoints import Snapshot
from fedunlearn.runs.directory import RunDirectory
from fedunlearn.simulation import pictures as module
from fedunlearn.simulation.pictures import Scene, choose_slice, draw_pictures, scenes
from tests.profiles import some

SIZE = 24
SITES = ("north", "east", "south")
TEST_SITES = [0, 1, 1, 2, 1, 0, 2]
TEXT = """
name = "pictures"
targets = [[1], [2, 0]]
[data]
source = "prostate-mri"
directory = "nowhere"
partition = "site"
[federation]
num-clients = 3
[model]
name = "unet"
[train]
rounds = 5
lr = 1e-3
[[method]]
name = "puf"
[[method]]
name = "natural"
[recover]
max-rounds = 4
"""
PUF, NATURAL = "puf-special-2", "natural"


def slices(n, seed):
    """Return images (n, 3, SIZE, SIZE) and masks of a bright square of another size on every slice."""
    draw = np.random.default_rng(seed)
    masks = np.zeros((n, SIZE, SIZE), np.uint8)
    for mask in masks:
        size = draw.integers(3, 12)
        row, column = draw.integers(0, SIZE - size, 2)
        mask[row : row + size, column : column + size] = 1
    images = 0.5 * draw.random((n, 3, SIZE, SIZE)) + 0.5 * masks[:, None]
    return torch.tensor(images, dtype=torch.float32), torch.tensor(masks)


def federated(test_sites=TEST_SITES, spacing=None, masks=None):
    """Return the data of three sites with these test slices."""
    n = len(test_sites)
    images, drawn = slices(n, 1)
    index = SliceIndex(
        np.array(test_sites, np.int64),
        np.arange(n, dtype=np.int64) + 10,
        np.arange(n, dtype=np.int64) * 2,
        np.ones((n, 2), np.float32) if spacing is None else np.asarray(spacing, np.float32),
    )
    return FederatedData(
        *slices(6, 2),
        *slices(2, 3),
        images,
        drawn if masks is None else torch.as_tensor(masks),
        clients=Partition.of_owners(np.repeat([0, 1, 2], 2), 3),
        source_rows=np.arange(6),
        class_names=("background", "prostate"),
        task="segmentation",
        origin="phantom",
        client_names=SITES,
        slices={"test": index},
    )


def new_model():
    """Return the least segmentation model: one 1 × 1 convolution."""
    return FlatModel(nn.Conv2d(3, 2, 1))


def weights(threshold):
    """Return weights that call prostate what is brighter than this in the middle channel."""
    vector = torch.zeros(8)
    vector[4], vector[7] = 1.0, -threshold
    return vector


def row(label, at, round, target, clients, request=None):
    return Row(
        method=label.partition("-")[0], label=label, seed=1, request=request or f"target-{target}", target=target,
        forget=Forget(clients), at=at, round=round, metrics={}, gap={}, floor={}, cost=Cost(0, 0, 0, 0.0),
    )  # fmt: skip


def rows_of(target, clients, recovered):
    """Return the rows of a target as scoring yields them: PUF recovers in this round or never, natural at once."""
    found = [("original", "request", 5), ("retrain", "request", 5), ("retrain", "cap", 9)]
    for label, met in ((PUF, recovered), (NATURAL, 6)):
        moments = {"unlearned": 6, "recovered": met, "compare": recovered, "cap": 9}
        found += [(label, at, round) for at, round in moments.items() if round is not None]
    return [row(*place, target, clients) for place in found]


ROWS = rows_of(0, (1,), 8) + rows_of(1, (0, 2), None)
THRESHOLDS = {"original": 0.5, "retrain": 0.62, PUF: 0.7, NATURAL: 0.55}


@pytest.fixture
def stage(tmp_path, monkeypatch):
    """Return a function that makes a run of these thresholds by label, and draws its pictures."""
    data = federated()
    monkeypatch.setattr(workspace, "data_of", lambda experiment, seed: data)
    monkeypatch.setattr(workspace, "new_model", lambda experiment, data, seed: new_model())

    def play(thresholds=THRESHOLDS, rows=ROWS, folder="a", *overrides):
        experiment = config.loads(TEXT, overrides=overrides)
        run = RunDirectory.open(experiment, tmp_path / folder)
        for target in (0, 1):
            for label, threshold in thresholds.items():
                name = "original-s1" if label == "original" else f"{label}-{target}-s1"
                for round in range(5, 10):
                    moved = weights(threshold + 0.01 * (round - 5))  # every round another model
                    run.checkpoints(name).save(Snapshot(round, moved))
        draw_pictures(experiment, run, rows)
        run.close()
        return run.path

    return play


# -- which slice ----------------------------------------------------------------------------------------------


@given(st.data())
def test_the_slice_is_the_largest_true_prostate_of_the_first_site_that_has_one(drawn):
    n = drawn.draw(st.integers(1, 6))
    sites = drawn.draw(st.lists(st.integers(0, 2), min_size=n, max_size=n))
    sizes = drawn.draw(st.lists(st.integers(0, 5), min_size=n, max_size=n))
    spacing = drawn.draw(st.lists(st.tuples(*[st.sampled_from([0.5, 1.0])] * 2), min_size=n, max_size=n))
    clients = drawn.draw(st.permutations([0, 1, 2]))[: drawn.draw(st.integers(1, 3))]
    masks = np.zeros((n, SIZE, SIZE), np.uint8)
    for mask, size in zip(masks, sizes, strict=True):
        mask[0, :size] = 1
    expected = None
    for client in clients:
        best = 0.0
        for place in range(n):
            area = sizes[place] * spacing[place][0] * spacing[place][1]
            if sites[place] == client and area > best:
                best, expected = area, (place, client)
        if expected:
            break
    assert choose_slice(federated(sites, spacing, masks), clients) == expected


def test_data_without_an_index_of_slices_have_no_picture():
    data = federated()
    object.__setattr__(data, "slices", None)
    assert choose_slice(data, [0, 1, 2]) is None


def test_no_model_has_a_say_in_the_choice(stage):
    def chosen(folder):
        return {(p.target, p.client, p.case, p.slice) for p in read_pictures(folder)}

    one, other = stage(), stage(dict.fromkeys(THRESHOLDS, 0.9), ROWS, "b")
    assert chosen(one) == chosen(other)
    areas = {k: int(mask.sum()) for k, mask in enumerate(federated().test_labels)}
    best = [max((k for k in areas if TEST_SITES[k] == client), key=areas.get) for client in (1, 0)]
    assert chosen(one) == {(t, TEST_SITES[k], k + 10, 2 * k) for t, k in enumerate(best)}


# -- which models ---------------------------------------------------------------------------------------------


def test_the_scenes_of_a_request():
    puf = [Scene(PUF, "unlearned", 6), Scene(PUF, "recovered", 8), Scene("retrain", "recovered", 8)]
    natural = [
        Scene(NATURAL, "unlearned", 6),
        Scene(NATURAL, "recovered", 6),
        Scene("retrain", "recovered", 6),
    ]
    start = [Scene("original", "request", 5)]
    assert scenes(rows_of(0, (1,), 8)) == start + puf + natural
    capped = [Scene(PUF, "unlearned", 6), Scene(PUF, "cap", 9), Scene("retrain", "cap", 9)]
    assert scenes(rows_of(0, (1,), None)) == start + capped + natural


def test_a_request_that_was_superseded_before_its_cap_ends_with_the_unlearned_model():
    rows = [row("original", "request", 5, 0, (1,)), row(PUF, "unlearned", 6, 0, (1,))]
    assert scenes(rows)[1:] == [Scene(PUF, "unlearned", 6), Scene("retrain", "unlearned", 6)]


def test_every_picture_is_that_model_on_that_slice(stage):
    """Prediction and Dice of each are computed again from the threshold that the model stands for."""
    folder, data = stage(), federated()
    found = read_pictures(folder)
    assert [p.label for p in found if p.target == 1] == [
        "truth", "original", PUF, PUF, "retrain", NATURAL, NATURAL, "retrain",
    ]  # fmt: skip
    for picture in found:
        place = picture.case - 10
        image, mask = data.test_images[place, 1].numpy(), data.test_labels[place].numpy() > 0
        if picture.label == "truth":
            assert (picture.dice, picture.round) == (None, None)
            assert picture.path.read_bytes() == overlay(image, mask, None)
            continue
        predicted = image > np.float32(THRESHOLDS[picture.label] + 0.01 * (picture.round - 5))
        assert picture.path.read_bytes() == overlay(image, mask, predicted)
        both = [
            200 * (predicted == c)[mask == c].sum() / ((predicted == c).sum() + (mask == c).sum())
            for c in (0, 1)
        ]
        assert picture.dice == pytest.approx(np.mean(both), abs=1e-5)
    assert len({p.dice for p in found if p.dice is not None}) > 5, (
        "models that could not be told apart prove nothing"
    )


def test_the_index_names_site_set_and_request(stage):
    entries = json.loads((stage() / "pictures" / "index.json").read_text())
    assert {e["request"] for e in entries} == {"target-0", "target-1"}
    first, last = entries[0], entries[-1]
    assert (first["forget"], first["client"], first["client_name"]) == ([1], 1, "east")
    assert (last["forget"], last["client"], last["client_name"]) == ([0, 2], 0, "north"), (
        "the first of the set"
    )
    assert {e["seed"] for e in entries} == {1}


def test_again_gives_the_same_bytes(stage):
    def content(folder):
        return {p.name: p.read_bytes() for p in sorted((folder / "pictures").iterdir())}

    one = content(stage())
    assert content(stage(folder="b")) == one
    assert len(one) == 1 + 2 * 2 + 5 + 5, "one file for natural's unlearned model, which is its recovered one"


def test_pictures_are_small_and_show_the_true_outline(stage):
    for file in (stage() / "pictures").glob("*.png"):
        assert file.stat().st_size < 20_000
        colours = np.asarray(Image.open(io.BytesIO(file.read_bytes())).convert("RGB"))
        assert max(colours.shape) <= 200
        assert (colours == TRUTH).all(axis=2).any()


def test_a_set_whose_sites_have_no_test_slice_is_passed_over(stage, monkeypatch):
    bare = federated(test_sites=[0, 0, 2])
    monkeypatch.setattr(workspace, "data_of", lambda experiment, seed: bare)
    assert {p.target for p in read_pictures(stage())} == {1}


def test_a_model_that_has_diverged_is_drawn_without_a_dice(stage):
    found = read_pictures(stage(THRESHOLDS | {PUF: float("nan")}))
    assert {p.dice is None for p in found if p.label == PUF} == {True}
    assert all(p.dice is not None for p in found if p.label in ("original", "retrain", NATURAL))


def test_nothing_is_drawn_where_nobody_wants_it(stage):
    assert not (stage(THRESHOLDS, ROWS, "a", "measures.pictures=false") / "pictures").exists()


def test_nothing_is_drawn_of_classes(targets_run):
    assert not (targets_run / "pictures").exists()


# -- the Dice of a slice --------------------------------------------------------------------------------------


class Given(nn.Module):
    """A model whose logits are its input."""

    def forward(self, images):
        return images


@some
@given(st.integers(0, 2**16), st.sampled_from([0.0, 0.1, 0.5, 1.0]))
def test_dice_is_the_scorecard_s(seed, share):
    draw = np.random.default_rng(seed)
    truth = torch.tensor(draw.random((1, 6, 6)) < share, dtype=torch.uint8)
    logits = torch.tensor(draw.normal(size=(1, 2, 6, 6)))
    logits[:, 1] += 2 * draw.normal()  # now and then one class alone
    measured = segment(Given(), logits, truth).qualities[0]
    assert module._dice(logits[0], truth[0]) == pytest.approx(measured, abs=1e-6)
