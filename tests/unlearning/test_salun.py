"""SalUn moves what the forget loss says matters, and nothing else by a single bit.

Its weights beside an oracle's: tests/unlearning/test_random_label.py.
"""

import pytest
import torch
from torch import nn

from fedunlearn.models.flat import FlatModel
from fedunlearn.unlearning import PLAIN, Conditions, Examples, method
from fedunlearn.unlearning.salun import SalUn, saliency_mask
from tests.oracles import unlearning as oracle
from tests.unlearning import tiny


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 1.0])
def test_the_mask_is_the_oracles(share):
    model, forget = tiny.flat(), tiny.examples(7, 1)
    mask = saliency_mask(model, forget, share, batch_size=3, conditions=PLAIN)
    assert mask.tolist() == oracle.salient(tiny.plain_copy(model), forget.images, forget.labels, share)


@pytest.mark.parametrize(
    ("share", "count"), [(0.3, 63), (0.5, 106), (0.7, 148), (0.999, 211), (1.0, 212), (1e-3, 0)]
)
def test_so_many_weights_may_move_as_in_the_authors_code(share, count):
    """int(share · n): 0.3 · 212 = 63.6, of which the nearest whole number would be 64."""
    model = FlatModel(nn.Sequential(nn.Flatten(), nn.Linear(52, 4)))
    images = torch.randn(5, 1, 4, 13, generator=tiny.generator())
    forget = Examples(images, torch.arange(5) % 4)
    assert model.num_parameters == 212
    assert int(saliency_mask(model, forget, share, batch_size=5, conditions=PLAIN).sum()) == count


def run(model, settings, **conditions):
    return method("salun")(
        model,
        tiny.examples(6, 1),
        tiny.examples(9, 2),
        settings=settings,
        generator=tiny.generator(3),
        conditions=Conditions(**conditions),
    )


def test_masked_weights_stay_bit_for_bit_under_momentum_and_weight_decay():
    model = tiny.flat()
    settings = SalUn(epochs=3, batch_size=4, lr=0.1, momentum=0.9, weight_decay=0.1)
    mask = saliency_mask(model, tiny.examples(6, 1), settings.saliency, 4, PLAIN)
    moved = run(model, settings).vector != model.vector
    assert torch.equal(moved & ~mask, torch.zeros_like(mask))
    assert moved[mask].all()


def test_in_legacy_mode_weight_decay_moves_them():
    model = tiny.flat()
    settings = SalUn(epochs=1, batch_size=4, lr=0.1, weight_decay=0.1, legacy_mask=True)
    mask = saliency_mask(model, tiny.examples(6, 1), settings.saliency, 4, PLAIN)
    assert (run(model, settings).vector != model.vector)[~mask].any()


def test_but_for_weight_decay_both_masks_do_the_same():
    model, settings = tiny.flat(), {"epochs": 2, "batch_size": 4, "lr": 0.1, "weight_decay": 0.0}
    held, legacy = (run(model, SalUn(**settings, legacy_mask=legacy)).vector for legacy in (False, True))
    assert torch.equal(held, legacy) and not torch.equal(held, model.vector)
