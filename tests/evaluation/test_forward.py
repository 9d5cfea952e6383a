"""Running a model in batches: as many images as fit, and no trace on the model whatever happens."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fedunlearn.evaluation import outputs
from fedunlearn.evaluation.forward import batches, evaluation_batch


@pytest.mark.parametrize("shape", [(28, 28), (1, 8, 8), (3, 32, 32), (3, 64, 64), (3, 128, 32)])
def test_500_images_up_to_64_by_64(shape):
    assert evaluation_batch(shape) == 500


@given(st.integers(1, 5000), st.integers(1, 5000))
def test_never_more_pixels_than_500_such_images_unless_one_is_larger(height, width):
    size = evaluation_batch((3, height, width))
    assert 1 <= size <= 500
    assert size == 1 or size * height * width <= 500 * 64 * 64
    assert size == 500 or (size + 1) * height * width > 500 * 64 * 64, "nor fewer than fit"


def test_slices_of_the_prostate_come_in_batches_of_13():
    assert evaluation_batch((3, 384, 384)) == 13
    assert outputs.evaluation_batch is evaluation_batch


class Seen(nn.Module):
    """Notes how many images come at once."""

    def __init__(self, **attributes):
        super().__init__()
        self.sizes = []
        self.__dict__.update(attributes)

    def forward(self, images):
        assert not self.training
        self.sizes.append(len(images))
        return images.flatten(1)


def test_every_row_once_and_in_order():
    model, images = Seen(), torch.arange(7.0).reshape(7, 1, 1, 1)
    found = list(batches(model, images, 3))
    assert model.sizes == [3, 3, 1]
    assert torch.cat([logits for _, logits in found]).flatten().tolist() == list(range(7))
    for rows, logits in found:
        assert torch.equal(images[rows].flatten(1), logits)


def test_the_batch_is_that_of_the_images_or_of_what_the_model_makes_of_them():
    images = torch.zeros(30, 1, 300, 300)
    plain, enlarges = Seen(), Seen(input_size=600)
    list(batches(plain, images))
    list(batches(enlarges, images))
    assert plain.sizes == [22, 8]
    assert enlarges.sizes == [5] * 6


def test_no_gradients_inside_and_the_callers_own_outside():
    weight = torch.ones(1, requires_grad=True)
    model = nn.Conv2d(1, 2, 1)
    for _, logits in batches(model, torch.zeros(4, 1, 2, 2), 2):
        assert not logits.requires_grad
        assert (2 * weight).requires_grad


@pytest.mark.parametrize("leave", ["stop", "raise"])
def test_training_flags_come_back_however_the_loop_is_left(leave):
    model = nn.Sequential(nn.Dropout(), nn.BatchNorm2d(1)).train()
    model[1].eval()  # frozen
    run = batches(model, torch.zeros(4, 1, 2, 2), 2)
    next(run)
    assert not model.training
    if leave == "stop":
        run.close()
    else:
        with pytest.raises(KeyError):
            run.throw(KeyError)
    assert [model.training, model[0].training, model[1].training] == [True, True, False]
