"""The loss of segmentation against its formula, written out number by number."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from fedunlearn.training import LOSSES, dice_cross_entropy
from tests.federation.contributions import bits
from tests.profiles import some

SMOOTHING = 1e-5


def formula(logits, masks):
    """Return the loss by loops over images, classes and pixels."""
    logits, masks = logits.double().numpy(), masks.numpy()
    n, classes, height, width = logits.shape
    cross_entropy, dice = [], []
    for image in range(n):
        p = np.empty((classes, height, width))
        for i in range(height):
            for j in range(width):
                exponentials = [math.exp(x) for x in logits[image, :, i, j]]
                p[:, i, j] = [x / sum(exponentials) for x in exponentials]
                cross_entropy.append(-math.log(p[masks[image, i, j], i, j]))
        for c in range(classes):
            t = masks[image] == c
            shared = sum(p[c][t])
            dice.append(1 - (2 * shared + SMOOTHING) / (p[c].sum() + t.sum() + SMOOTHING))
    return (sum(cross_entropy) / len(cross_entropy) + sum(dice) / len(dice)) / 2


def batch(n=3, classes=2, height=4, width=5, *, seed=0, dtype=torch.float64):
    draw = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(n, classes, height, width, generator=draw, dtype=torch.float64)
    masks = torch.randint(classes, (n, height, width), generator=draw, dtype=torch.uint8)
    return logits.to(dtype), masks


@given(
    n=st.integers(1, 4),
    height=st.integers(1, 5),
    width=st.integers(1, 5),
    seed=st.integers(0, 99),
    held=st.sampled_from(["both", "background", "prostate"]),
)
@some
def test_it_is_the_formula(n, height, width, seed, held):
    """Also where a class is in no pixel of the mask, and only the smoothing keeps Dice defined."""
    logits, masks = batch(n, 2, height, width, seed=seed)
    if held != "both":
        masks = torch.full_like(masks, held == "prostate")
    assert dice_cross_entropy(logits, masks).item() == pytest.approx(formula(logits, masks), rel=1e-12)


def test_it_knows_more_than_two_classes():
    logits, masks = batch(classes=4)
    assert dice_cross_entropy(logits, masks).item() == pytest.approx(formula(logits, masks), rel=1e-12)


def test_every_image_has_a_dice_of_its_own():
    """So the loss of a batch is the mean of its images', however large each one's prostate."""
    logits, masks = batch(5)
    masks[0] = 0
    alone = [dice_cross_entropy(logits[[k]], masks[[k]]).item() for k in range(5)]
    assert dice_cross_entropy(logits, masks).item() == pytest.approx(np.mean(alone), rel=1e-12)


def test_its_gradient_is_that_of_its_values():
    logits, masks = batch(2, height=3, width=3)
    assert torch.autograd.gradcheck(lambda x: dice_cross_entropy(x, masks), logits.requires_grad_())


def test_a_perfect_mask_costs_nothing_and_a_wrong_one_its_dice_and_its_logits():
    _, masks = batch()
    right = 40 * F.one_hot(masks.long(), 2).movedim(-1, 1).double()
    assert dice_cross_entropy(right, masks).item() == pytest.approx(0, abs=1e-9)
    assert dice_cross_entropy(-right, masks).item() == pytest.approx((40 + 1) / 2, rel=1e-5)


def test_the_masks_type_does_not_matter():
    logits, masks = batch(dtype=torch.float32)
    found = {
        bits(dice_cross_entropy(logits, masks.to(kind))) for kind in (torch.uint8, torch.int32, torch.int64)
    }
    assert len(found) == 1


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_short_logits_are_widened_before_anything_is_added_up(kind):
    """A sum over 10 000 pixels would stop growing at 256 in bfloat16."""
    logits, masks = batch(1, height=100, width=100, dtype=kind)
    wide = dice_cross_entropy(logits.float(), masks)
    found = dice_cross_entropy(logits.requires_grad_(), masks)
    assert found.dtype == torch.float32
    assert bits(found.detach()) == bits(wide)
    found.backward()
    assert logits.grad.dtype == kind
    assert torch.isfinite(logits.grad).all()


def test_under_autocast_it_is_what_it_is_without():
    logits, masks = batch(1, height=100, width=100, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        found = dice_cross_entropy(logits, masks)
    assert bits(found) == bits(dice_cross_entropy(logits, masks))


def test_double_precision_stays_double():
    logits, masks = batch()
    assert dice_cross_entropy(logits, masks).dtype == torch.float64


def test_every_task_has_its_loss():
    assert dict(LOSSES) == {"classification": F.cross_entropy, "segmentation": dice_cross_entropy}


def test_evaluation_measures_the_loss_that_training_minimises():
    from fedunlearn.evaluation.segmentation import segment

    logits, masks = batch(4, height=8, width=8)
    outputs = segment(torch.nn.Identity(), logits, masks)
    assert outputs.losses.mean() == pytest.approx(dice_cross_entropy(logits, masks).item(), rel=1e-12)
