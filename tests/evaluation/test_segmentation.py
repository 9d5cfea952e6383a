"""What is kept of masks: against pixel loops and MONAI, identities, and independence of the batches."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fedunlearn.evaluation.accuracy import mean_loss, per_class, per_client, quality
from fedunlearn.evaluation.outputs import collect
from fedunlearn.evaluation.scored import Unmeasurable
from fedunlearn.evaluation.segmentation import SegmentationOutputs, mean_pixel_kl, segment
from fedunlearn.training import dice_cross_entropy
from tests.evaluation.masks import SAYS_ITS_IMAGE, blobs, certain, outputs, scans, slices, small_net
from tests.oracles import segmentation as oracle
from tests.profiles import some

SQUARE = torch.zeros(6, 6, dtype=torch.uint8)
SQUARE[1:4, 2:5] = 1
NOTHING = torch.zeros_like(SQUARE)
EVERYTHING = torch.ones_like(SQUARE)


# -- against the oracle ---------------------------------------------------------------------------------------


@given(slices())
def test_dice_loss_and_confidence_are_those_of_the_loops(drawn):
    logits, masks = drawn
    found = outputs(logits, masks)
    for i, (planes, truth) in enumerate(zip(logits.tolist(), masks.tolist(), strict=True)):
        predicted = oracle.predict(planes)
        expected = [oracle.dice(predicted, truth, label) for label in (0, 1)]
        assert found.dice[i].tolist() == pytest.approx(expected, abs=1e-12)
        assert found.qualities[i] == pytest.approx(sum(expected) / 2, abs=1e-12)
        assert found.losses[i] == pytest.approx(oracle.loss(planes, truth), rel=1e-9)
        assert found.confidences[i] == pytest.approx(oracle.confidence(planes, truth), rel=1e-12)
        flat = [label for row in predicted for label in row]
        assert found.predicted[i].tolist() == [flat.count(0), flat.count(1)]


@given(slices(num_classes=3))
def test_more_than_two_classes(drawn):
    logits, masks = drawn
    found = outputs(logits, masks)
    for i, (planes, truth) in enumerate(zip(logits.tolist(), masks.tolist(), strict=True)):
        predicted = oracle.predict(planes)
        assert found.dice[i].tolist() == pytest.approx([oracle.dice(predicted, truth, c) for c in range(3)])
        assert found.confidences[i] == pytest.approx(oracle.confidence(planes, truth), rel=1e-12)


@given(slices())
@some
def test_dice_is_monai_s_where_a_class_nobody_has_counts_100(drawn):
    from monai.metrics.meandice import compute_dice

    logits, masks = drawn
    one_hot = [torch.stack([x == c for c in (0, 1)], 1).float() for x in (logits.argmax(1), masks)]
    library = compute_dice(*one_hot, include_background=True, ignore_empty=False)
    np.testing.assert_allclose(outputs(logits, masks).dice, 100 * library.numpy(), atol=1e-4)


@given(slices())
def test_the_mean_loss_is_the_one_that_clients_minimise(drawn):
    logits, masks = drawn
    expected = float(dice_cross_entropy(logits, masks))
    assert mean_loss(outputs(logits, masks)) == pytest.approx(expected, rel=1e-12)


@given(slices())
def test_margins_are_the_log_odds_of_the_confidences(drawn):
    found = outputs(*drawn)
    expected = np.log(found.confidences / (1 - found.confidences))
    np.testing.assert_allclose(found.margins, expected, rtol=1e-9, atol=1e-9)


def test_margins_tell_apart_what_confidence_rounds_to_one():
    masks = torch.stack([SQUARE] * 3)
    logits = torch.cat([certain(SQUARE[None], margin) for margin in (40.0, 50.0, 60.0)])
    found = outputs(logits, masks)
    assert set(found.confidences) == {1.0}
    np.testing.assert_allclose(found.margins, [40.0, 50.0, 60.0], rtol=1e-9)


# -- identities -----------------------------------------------------------------------------------------------


@given(slices())
def test_a_perfect_prediction_is_100_and_its_complement_0(drawn):
    _, masks = drawn
    assert quality(outputs(certain(masks), masks)) == 100
    assert outputs(certain(masks), masks).dice.min() == 100
    found = outputs(certain(1 - masks), masks)
    # Of a mask that is empty or full one class is missing in the truth and predicted all over: 0 as well.
    assert found.dice.max() == 0


def test_a_class_that_neither_has_counts_100_and_a_false_alarm_0():
    logits = certain(torch.stack([NOTHING, SQUARE, SQUARE]))
    found = outputs(logits, torch.stack([NOTHING, NOTHING, SQUARE]))
    assert found.dice[:, 1].tolist() == [100, 0, 100]
    assert found.dice[1, 0] == pytest.approx(200 * 27 / (36 + 27))


def test_dice_by_hand():
    shifted = torch.roll(SQUARE, 1, dims=1)
    found = outputs(certain(shifted[None]), SQUARE[None])
    assert found.dice.tolist() == [[200 * 24 / 54, 200 * 6 / 18]]
    assert quality(found) == pytest.approx((200 * 24 / 54 + 200 * 6 / 18) / 2)


def test_of_equal_logits_background_is_predicted():
    found = outputs(torch.zeros(1, 2, 6, 6), SQUARE[None])
    assert found.predicted.tolist() == [[36, 0]]


@given(slices())
def test_turning_images_and_masks_together_changes_nothing(drawn):
    logits, masks = drawn
    turned = outputs(logits.rot90(1, (2, 3)), masks.rot90(1, (1, 2)))
    for field in ("overlap", "predicted", "true"):
        np.testing.assert_array_equal(getattr(turned, field), getattr(outputs(*drawn), field))
    np.testing.assert_allclose(turned.losses, outputs(*drawn).losses, rtol=1e-12)


# -- one pass -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 2, 5, 18])
def test_the_size_of_batches_moves_no_count_and_hardly_a_number(batch_size):
    data, net = scans(), small_net()
    whole = segment(net, data.train_images, data.train_labels, spacing=data.slices["train"].spacing)
    parts = segment(
        net,
        data.train_images,
        data.train_labels,
        spacing=data.slices["train"].spacing,
        batch_size=batch_size,
    )
    for field in ("overlap", "predicted", "true", "distance"):
        np.testing.assert_array_equal(getattr(parts, field), getattr(whole, field))
    for field in ("loss", "confidence", "doubt"):
        np.testing.assert_allclose(getattr(parts, field), getattr(whole, field), rtol=1e-6)
    assert whole.predicted[:, 1].min() < whole.predicted[:, 1].max(), "the model says something"


def test_nothing_of_the_size_of_a_slice_is_kept():
    images, masks = blobs(3, 48, seed=1)
    found = segment(small_net(), images, masks)
    kept = [getattr(found, field.name) for field in dataclasses.fields(found)]
    assert sum(column.nbytes for column in kept if column is not None) == 3 * (6 + 3) * 8


def test_no_slice_sees_its_neighbours_and_the_model_is_left_as_it_was():
    images, masks = blobs(6, 12, seed=1)
    net = small_net().train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    whole = segment(net, images, masks)
    assert net.training
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    swapped = segment(net, images.flip(0), masks.flip(0))
    np.testing.assert_array_equal(swapped.predicted, whole.predicted[::-1])


def test_single_precision_is_reduced_in_double():
    images, masks = blobs(4, 48, seed=2)
    logits = small_net()(images).detach()
    single, double = outputs(logits, masks), outputs(logits.double(), masks)
    assert single.losses.dtype == single.confidences.dtype == np.float64
    np.testing.assert_array_equal(single.losses, double.losses)
    np.testing.assert_array_equal(single.margins, double.margins)


def test_take_keeps_the_order_given_and_every_column():
    data, net = scans(), small_net()
    whole = collect(net, data, distances=("train",)).train
    taken = whole.take(np.array([7, 2]))
    assert len(taken) == 2
    for field in dataclasses.fields(whole):
        np.testing.assert_array_equal(getattr(taken, field.name), getattr(whole, field.name)[[7, 2]])
    assert len(whole.take([])) == 0
    assert outputs(certain(SQUARE[None]), SQUARE[None]).take([0]).distance is None


def test_quality_per_site_and_per_class():
    data, net = scans(), small_net()
    whole = collect(net, data).train
    sites = [np.arange(6), np.arange(6, 10), np.arange(10, 18), np.arange(0)]
    assert per_client(whole, sites) == [
        *(pytest.approx(quality(whole.take(rows)), rel=1e-12) for rows in sites[:3]),
        None,
    ]
    assert per_class(whole) == pytest.approx(whole.dice.mean(axis=0).tolist())
    assert np.mean(per_class(whole)) == pytest.approx(quality(whole))


# -- what cannot be measured ----------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_diverged_model_has_no_quality_and_its_healthy_slices_do(bad):
    logits = certain(torch.stack([SQUARE, SQUARE]))
    logits[1, 0, 3, 3] = bad
    found = outputs(logits, torch.stack([SQUARE, SQUARE]), spacing=np.ones((2, 2), dtype=np.float32))
    for read in (
        "dice",
        "qualities",
        "losses",
        "confidences",
        "margins",
        "distances",
        "predicted_foreground",
    ):
        with pytest.raises(Unmeasurable, match="not finite"):
            getattr(found, read)
    with pytest.raises(Unmeasurable, match="not finite"):
        found.class_qualities()
    assert quality(found.take([0])) == 100


def test_masks_have_no_label_mix_and_nothing_has_no_mean():
    found = outputs(certain(SQUARE[None]), SQUARE[None])
    with pytest.raises(Unmeasurable, match="masks have no label mix"):
        _ = found.label_array
    with pytest.raises(Unmeasurable, match="there are no examples"):
        quality(found.take([]))
    assert per_class(found.take([])) == [None, None]


@pytest.mark.parametrize("shape", [(1, 2), (1, 2, 5, 6), (1, 2, 6, 6, 1)])
def test_logits_that_do_not_fit_the_masks_are_refused(shape):
    with pytest.raises(ValueError, match=r"and masks \(1, 6, 6\): must be"):
        segment(nn.Identity(), torch.zeros(shape), SQUARE[None], batch_size=1)


# -- KL -------------------------------------------------------------------------------------------------------


class Says(nn.Module):
    """Gives the logits that belong to the rows it is handed: images are their numbers."""

    def __init__(self, logits):
        super().__init__()
        self.logits = logits

    def forward(self, images):
        return self.logits[images[:, 0, 0, 0].long()]


@given(st.integers(0, 10**6), st.sampled_from([1, 2, 7]))
def test_kl_is_the_mean_over_all_pixels(seed, batch_size):
    draw = torch.Generator().manual_seed(seed)
    ours, theirs = (2 * torch.randn(4, 2, 3, 4, generator=draw, dtype=torch.float64) for _ in range(2))
    numbers = torch.arange(4.0).reshape(4, 1, 1, 1)
    found = mean_pixel_kl(Says(ours), Says(theirs), numbers, batch_size=batch_size)
    assert found == pytest.approx(oracle.pixel_kl(theirs.tolist(), ours.tolist()), rel=1e-9, abs=1e-12)
    assert mean_pixel_kl(Says(ours), Says(ours), numbers) == 0


def test_kl_runs_both_models_in_evaluation_mode_and_puts_them_back():
    images, _ = blobs(5, 12, seed=1)
    first, second = small_net(1).train(), small_net(2).train()
    found = mean_pixel_kl(first, second, images)
    assert first.training
    assert second.training
    assert found == mean_pixel_kl(first.eval(), second.eval(), images) > 0


def test_a_class_the_reference_rules_out_adds_nothing_and_one_the_model_rules_out_everything():
    images = torch.zeros(1, 1, 1, 1)
    sure = torch.tensor([2000.0, 0.0], dtype=torch.float64).reshape(1, 2, 1, 1)
    even = torch.zeros_like(sure)
    assert mean_pixel_kl(Says(even), Says(sure), images) == pytest.approx(np.log(2))
    assert mean_pixel_kl(Says(sure), Says(even), images) == pytest.approx(1000 - np.log(2))


@pytest.mark.parametrize("broken", [0, 1])
def test_kl_to_or_from_a_diverged_model_cannot_be_had(broken):
    models = [Says(torch.zeros(1, 2, 1, 1)), Says(torch.zeros(1, 2, 1, 1))]
    models[broken] = Says(torch.full((1, 2, 1, 1), float("nan")))
    with pytest.raises(Unmeasurable, match="not finite"):
        mean_pixel_kl(*models, torch.zeros(1, 1, 1, 1))
    with pytest.raises(Unmeasurable, match="no example"):
        mean_pixel_kl(SAYS_ITS_IMAGE, SAYS_ITS_IMAGE, torch.zeros(0, 2, 1, 1))


# -- collect --------------------------------------------------------------------------------------------------


def test_collect_goes_by_the_task_and_measures_distances_only_where_asked():
    data, net = scans(), small_net()
    found = collect(net, data, distances=("test",))
    assert found.task == "segmentation"
    assert [len(part) for part in (found.train, found.validation, found.test)] == [18, 5, 8]
    assert all(isinstance(part, SegmentationOutputs) for part in (found.train, found.validation, found.test))
    assert found.train.distance is None
    assert found.test.distance.shape == (8,)
    with pytest.raises(Unmeasurable, match="distances were not measured"):
        _ = found.train.distances
    some = collect(net, data, splits=("validation",))
    assert (some.train, some.test) == (None, None)
    np.testing.assert_array_equal(some.validation.overlap, found.validation.overlap)


def test_without_spacing_there_are_no_distances():
    data = scans()
    data.slices = None
    assert collect(small_net(), data, distances=("test",)).test.distance is None


def test_a_split_that_has_no_such_name_has_no_distances():
    with pytest.raises(ValueError, match=r"\['forget'\]: must be among"):
        collect(small_net(), scans(), distances=("forget",))
