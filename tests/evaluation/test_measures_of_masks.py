"""Every measure of a segmentation model by name, on models whose memory can be controlled."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from fedunlearn.evaluation.accuracy import quality
from fedunlearn.evaluation.metrics import BUILT_IN
from fedunlearn.evaluation.outputs import ModelOutputs, collect
from fedunlearn.evaluation.scored import QUALITY
from fedunlearn.evaluation.segmentation import mean_pixel_kl
from fedunlearn.training import dice_cross_entropy
from tests.evaluation.builders import DISTANCES, measure, to_retrain
from tests.evaluation.masks import Scans, index, small_net

SITES = (12, 16, 12)
TEST = (20, 10, 10)
FORGET, RETAIN, FORGET_TEST = np.arange(12), np.arange(12, 40), np.arange(20)
SIZE = 8


def noise():
    """Images that tell nothing of their masks: a model can only know those that it has seen."""
    draw = torch.Generator().manual_seed(5)
    parts = []
    for n in (sum(SITES), 10, sum(TEST)):
        parts.append(torch.randn(n, 3, SIZE, SIZE, generator=draw))
        parts.append((torch.rand(n, SIZE, SIZE, generator=draw) < 0.4).to(torch.uint8))
    sizes = {"train": SITES, "validation": (10,), "test": TEST}
    return Scans(*parts, {name: index(n, seed) for seed, (name, n) in enumerate(sizes.items())})


def trained(data, rows):
    """A linear model that learns the masks of its training slices by heart."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE**2, 2 * SIZE**2), nn.Unflatten(1, (2, SIZE, SIZE)))
    nn.init.zeros_(model[1].weight)
    nn.init.zeros_(model[1].bias)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    images, masks = data.train_images[rows], data.train_labels[rows]
    for _ in range(60):
        optimizer.zero_grad()
        dice_cross_entropy(model(images), masks).backward()
        optimizer.step()
    return model, nn.utils.parameters_to_vector(model.parameters()).detach()


@pytest.fixture(scope="module")
def data():
    return noise()


@pytest.fixture(scope="module")
def models(data):
    return {"original": trained(data, np.arange(40)), "retrain": trained(data, RETAIN)}


@pytest.fixture(scope="module")
def kept(data, models):
    return {name: collect(net, data, distances=("train", "test")) for name, (net, _) in models.items()}


def measured(outputs, **changes):
    given = {"forget": FORGET, "retain": RETAIN, "forget_test": FORGET_TEST, "seed": 1}
    return measure(outputs, **{**given, **changes})


def test_the_names_are_those_of_the_built_in_metrics_and_between_them_the_tasks_have_them_all(kept, models):
    found = measured(kept["original"])
    vector = models["original"][1]
    names = [*found, *to_retrain(kept["original"], kept["original"], vector, vector)]
    assert names == [name for name in BUILT_IN if name in names]
    of_gaps = {"average_gap", "tug_of_war"}  # summaries of two models' measures
    assert set(BUILT_IN) - set(names) - of_gaps == {name for name in BUILT_IN if "accuracy" in name}
    assert QUALITY == {"classification": "accuracy", "segmentation": "dice"}


def test_every_number_is_in_its_range_but_there_is_no_label_mix(kept):
    for outputs in kept.values():
        found = measured(outputs)
        assert found.reason == "mia_svc_matched, mia_yeom_matched: masks have no label mix"
        for name, value in found.items():
            if name not in found.reasons:
                assert 0 <= value <= {"%": 100, "nats": 20, "mm": 1.2 * SIZE * 2**0.5}[BUILT_IN[name].unit], (
                    name
                )


def test_the_measures_see_what_the_model_remembers(kept):
    original, retrain = measured(kept["original"]), measured(kept["retrain"])
    assert original["forget_dice"] > 95
    assert retrain["forget_dice"] < 65
    assert abs(retrain["forget_dice"] - retrain["test_dice"]) < 10
    assert original["mia_svc"] > retrain["mia_svc"] + 20
    assert original["mia_yeom"] > retrain["mia_yeom"] + 20
    assert original["mia_auc"] == original["mia_tpr_at_1_fpr"] == 100
    assert abs(retrain["mia_auc"] - 50) < 20
    assert original["forget_loss"] < retrain["forget_loss"] - 0.2
    assert original["forget_hausdorff"] < retrain["forget_hausdorff"]


def test_each_number_is_of_its_own_slices(kept):
    outputs, found = kept["retrain"], measured(kept["retrain"])
    assert found["forget_dice"] == quality(outputs.train.take(FORGET))
    assert found["retain_dice"] == quality(outputs.train.take(RETAIN))
    assert found["test_dice"] == quality(outputs.test)
    assert found["validation_dice"] == quality(outputs.validation)
    assert found["forget_test_dice"] == quality(outputs.test.take(FORGET_TEST)) != found["test_dice"]
    assert found["forget_hausdorff"] == outputs.train.distances[FORGET].mean()
    assert found["test_hausdorff"] == outputs.test.distances.mean()


def test_attacks_on_a_ranking_compare_with_test_slices_of_the_same_sites(kept):
    members = kept["retrain"].train.margins[FORGET]
    others = kept["retrain"].test.margins
    pairs = [(a > b) + (a == b) / 2 for a in members for b in others[FORGET_TEST]]
    found = measured(kept["retrain"])
    assert found["mia_auc"] == pytest.approx(100 * np.mean(pairs))
    assert found["mia_auc"] != measured(kept["retrain"], forget_test=np.arange(20, 40))["mia_auc"]


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (None, "it is not known which test slices are from the forgotten sites"),
        (np.arange(0), "the test split has no data from the forgotten sites"),
    ],
)
def test_without_test_slices_of_those_sites_three_numbers_are_null_with_a_reason(kept, rows, reason):
    found = measured(kept["original"], forget_test=rows)
    whole = measured(kept["original"])
    null = {name for name, value in found.items() if value is None} - set(whole.reasons)
    assert null == {"forget_test_dice", "mia_auc", "mia_tpr_at_1_fpr"}
    assert found.reasons["mia_auc"] == found.reasons["mia_tpr_at_1_fpr"] == reason
    assert found["forget_dice"] == whole["forget_dice"]


def test_a_model_that_predicts_nothing_is_measured_as_far_as_that_goes(kept, data):
    empty = nn.Conv2d(3, 2, 1)
    with torch.no_grad():
        empty.weight.zero_()
        empty.bias.copy_(torch.tensor([5.0, -5.0]))
    found = measured(collect(empty, data, distances=("train", "test")))
    assert found["test_missed"] == 100
    assert found["forget_hausdorff"] is found["test_hausdorff"] is None
    assert "no slice with both" in found.reasons["test_hausdorff"]
    assert 0 < found["test_dice"] < 50, "the background alone"


def test_distances_that_nobody_asked_for_are_null(models, data):
    found = measured(collect(models["original"][0], data))
    assert found["test_hausdorff"] is None
    assert "not requested" in found.reasons["test_hausdorff"]
    assert found["test_missed"] == 0


def test_a_diverged_model_is_null_throughout_and_says_so(kept):
    broken = [
        replace(part, loss=np.full_like(part.loss, np.nan))
        for part in (kept["original"].train, kept["original"].test)
    ]
    found = measured(ModelOutputs(broken[0], broken[0], broken[1], "segmentation"))
    assert set(found.values()) == {None}
    assert set(found.reasons.values()) == {"the model's outputs are not finite", "masks have no label mix"}


def test_what_is_missing_is_null_with_a_reason(kept):
    found = measured(ModelOutputs(kept["original"].train, None, None, "segmentation"))
    assert found.reasons["validation_dice"] == "there is no validation data"
    for name in ("test_dice", "forget_test_dice", "test_loss", "test_hausdorff", "test_missed", "mia_auc"):
        assert found.reasons[name] == "there is no test data"
    assert found["forget_hausdorff"] is not None


def test_measuring_twice_gives_the_same_and_the_seed_matters_to_the_svc_alone(data):
    untrained = collect(small_net(), data, distances=("train", "test"))
    first = measured(untrained, mia_samples=5)
    assert first == measured(untrained, mia_samples=5)
    assert json.loads(json.dumps(first)) == first
    others = [measured(untrained, mia_samples=5, seed=seed) for seed in range(2, 8)]
    assert {name for other in others for name in first if other[name] != first[name]} == {"mia_svc"}


def test_the_distance_of_outputs_needs_both_models_again(kept, models, data):
    (net, vector), (retrained, reference) = models["original"], models["retrain"]
    pair = kept["original"], kept["retrain"], vector, reference
    found = to_retrain(*pair)
    assert found["kl_to_retrain"] is None
    assert found.reason == "kl_to_retrain: it compares the two models' pixels, which are not kept"
    again = to_retrain(*pair, pixel_kl=lambda: mean_pixel_kl(net, retrained, data.test_images))
    assert list(again) == list(DISTANCES)
    assert all(value > 1e-4 for value in again.values())
    same = to_retrain(
        kept["retrain"], kept["retrain"], reference, reference,
        pixel_kl=lambda: mean_pixel_kl(retrained, retrained, data.test_images),
    )  # fmt: skip
    assert set(same.values()) == {0.0}


def test_without_test_slices_nothing_is_run_for_their_distance(kept, models):
    bare = ModelOutputs(kept["original"].train, None, None, "segmentation")
    vector = models["original"][1]
    found = to_retrain(bare, bare, vector, vector, pixel_kl=lambda: pytest.fail("was run"))
    assert found.reasons == {"kl_to_retrain": "there is no test data"}
