"""One pass over the data: complete, in order, and without a trace on the model."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given
from torch import nn

from fedunlearn.evaluation.outputs import SplitOutputs, collect, predict
from fedunlearn.evaluation.scored import Unmeasurable
from tests.evaluation.builders import lists, splits
from tests.oracles import membership as oracle


@dataclass
class Data:
    train_images: torch.Tensor
    train_labels: torch.Tensor
    validation_images: torch.Tensor
    validation_labels: torch.Tensor
    test_images: torch.Tensor
    test_labels: torch.Tensor
    task: str = "classification"
    slices: None = None


def data(train=13, validation=5, test=7):
    generator = torch.Generator().manual_seed(1)
    parts = []
    for size in (train, validation, test):
        parts.append(torch.randn(size, 1, 4, 4, generator=generator))
        parts.append(torch.randint(3, (size,), generator=generator))
    return Data(*parts)


def model():
    layers = [nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3)]
    return nn.Sequential(*layers)


@pytest.mark.parametrize("batch_size", [1, 4, 13, 500])
def test_outputs_are_the_models_on_every_example_in_order(batch_size):
    net, given_data = model(), data()
    outputs = collect(net, given_data, batch_size=batch_size)
    net.eval()
    for name in ("train", "validation", "test"):
        part = getattr(outputs, name)
        images, labels = getattr(given_data, f"{name}_images"), getattr(given_data, f"{name}_labels")
        torch.testing.assert_close(part.logits, net(images).detach())
        assert torch.equal(part.labels, labels)
        assert not part.logits.requires_grad


def test_only_the_splits_asked_for_are_run():
    seen = []
    net = model()
    net.register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    outputs = collect(net, data(), splits=("test",))
    assert (outputs.train, outputs.validation, seen) == (None, None, [7])


def test_an_empty_split_is_none():
    assert collect(model(), data(validation=0)).validation is None


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match=r"\['tests'\]: must be among"):
        collect(model(), data(), splits=("tests",))


def test_statistics_and_training_flags_are_left_as_they_were():
    net = model().train()
    net[2].eval()  # a frozen normalisation layer in a model that trains
    before = {name: value.clone() for name, value in net.state_dict().items()}
    collect(net, data())
    assert [layer.training for layer in net] == [True, True, False, True, True]
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_training_flags_come_back_when_the_model_raises():
    net = model().train()
    net.register_forward_hook(lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        collect(net, data())
    assert net.training
    assert all(layer.training for layer in net)


def test_no_global_randomness_is_used():
    state = torch.get_rng_state()
    collect(model_without_draws := model(), data())
    after_building = torch.get_rng_state()
    collect(model_without_draws, data())
    assert torch.equal(torch.get_rng_state(), after_building)
    assert not torch.equal(state, after_building)  # building drew, so the comparison can fail


def test_predict_is_what_collect_keeps():
    net, given_data = model(), data()
    logits = predict(net, given_data.test_images)
    assert torch.equal(logits, collect(net, given_data).test.logits)
    assert not logits.requires_grad


def test_predictions_leave_the_device_batch_by_batch(monkeypatch):
    """So that an accelerator holds the outputs of one batch, however many images there are."""
    left = []
    monkeypatch.setattr(torch.Tensor, "cpu", lambda tensor: left.append(len(tensor)) or tensor)
    images = data().test_images
    predict(model(), images, batch_size=3)
    assert left == [3] * (len(images) // 3) + [len(images) % 3] * bool(len(images) % 3)


def test_outputs_hold_no_graph():
    outputs = SplitOutputs(torch.zeros(2, 2, requires_grad=True) * 1, torch.tensor([0, 1]))
    assert not outputs.logits.requires_grad
    assert outputs.losses.shape == (2,)


@given(splits())
def test_losses_and_confidences_agree_with_the_oracle(outputs):
    expected = oracle.losses(*lists(outputs))
    np.testing.assert_allclose(outputs.losses, expected, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(outputs.confidences, np.exp(-np.array(expected)), rtol=1e-12)


@given(splits())
def test_margins_are_the_log_odds_of_the_confidences(outputs):
    expected = np.log(outputs.confidences / (1 - outputs.confidences))
    np.testing.assert_allclose(outputs.margins, expected, rtol=1e-9, atol=1e-9)


@given(splits())
def test_float32_logits_are_evaluated_in_float64(outputs):
    single = SplitOutputs(outputs.logits.float(), outputs.labels)
    assert single.losses.dtype == np.float64
    np.testing.assert_array_equal(single.losses, outputs.losses)  # these logits are exact in float32


def test_take_keeps_the_order_given():
    outputs = SplitOutputs(torch.arange(8.0).reshape(4, 2), torch.tensor([0, 1, 0, 1]))
    taken = outputs.take(np.array([3, 0]))
    assert taken.logits.tolist() == [[6.0, 7.0], [0.0, 1.0]]
    assert taken.labels.tolist() == [1, 0]
    assert len(outputs.take([])) == 0


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_diverged_model_has_no_accuracy(bad):
    outputs = SplitOutputs(torch.tensor([[0.0, 1.0], [bad, 0.0]]), torch.tensor([1, 0]))
    with pytest.raises(Unmeasurable, match="not finite"):
        _ = outputs.correct


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"logits \(4, 2\) and labels \(3,\)"):
        SplitOutputs(torch.zeros(4, 2), torch.zeros(3, dtype=torch.int64))
