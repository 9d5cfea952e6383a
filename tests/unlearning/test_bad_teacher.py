"""Bad teacher: a random network teaches F, the original model a part of R."""

import pytest
import torch
from torch import nn

from fedunlearn.errors import UserError
from fedunlearn.models.flat import FlatModel
from fedunlearn.randomness import torch_generator
from fedunlearn.unlearning import method
from fedunlearn.unlearning.bad_teacher import BadTeacher, part, random_network
from tests.oracles import unlearning as oracle
from tests.oracles import unlearning_teachers as teachers
from tests.unlearning import tiny

FORGET, RETAIN = tiny.examples(6, 1), tiny.examples(11, 2)
EMPTY = RETAIN.select(torch.arange(0))


def drawn_network(seed):
    """Return the tiny network with the weights that are documented: uniform ± 1/√fan-in, layer by layer."""
    generator, module = torch_generator(seed, "random-teacher"), tiny.network()
    for layer in module:
        if isinstance(layer, nn.Linear):
            bound = layer.in_features**-0.5
            for values in (layer.weight, layer.bias):
                values.data = torch.empty_like(values).uniform_(-bound, bound, generator=generator)
    return module


@pytest.mark.parametrize("heat", [1.0, 3.0])
def test_two_epochs_are_those_of_the_oracle(heat):
    settings = BadTeacher(epochs=2, batch_size=4, lr=0.01, retain_share=0.5, temperature=heat)
    model = tiny.flat()
    module, good, bad = tiny.plain_copy(model), tiny.plain_copy(model), drawn_network(3)
    rows = torch.randperm(11, generator=torch_generator(3, "retain-share"))[:5]
    images = torch.cat([FORGET.images, RETAIN.images[rows]])
    with torch.no_grad():
        targets = torch.cat(
            [teachers.softmax(bad(images[:6]), heat), teachers.softmax(good(images[6:]), heat)]
        )
    passes = oracle.orders(11, 4, 2, seed=3)
    batches = [(images[r], targets[r]) for rows in passes for r in rows]
    teachers.distil(module, batches, settings.lr, heat)
    found = method("bad-teacher")(model, FORGET, RETAIN, settings=settings, generator=tiny.generator(3))
    torch.testing.assert_close(found.vector, tiny.weights(module), rtol=0, atol=1e-12)


def test_the_random_network_is_ours_and_the_global_generator_stays():
    model = tiny.flat(norm=True)
    model.module.train()
    model.module(FORGET.images)  # statistics that a fresh network has not
    before = torch.get_rng_state()
    one, same, other = (random_network(model, torch_generator(seed, "random-teacher")) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.vector, same.vector) and not torch.equal(one.vector, other.vector)
    assert not (one.vector == model.vector)[: tiny.FEATURES * 5].any()
    assert [p.shape for p in one.parameters] == [p.shape for p in model.parameters]
    assert not one.module.training and float(one.buffers()["2.num_batches_tracked"]) == 0


def test_a_share_of_r_rounded_down_without_repetition():
    rows = part(RETAIN, 0.3, tiny.generator()).images.flatten(1).tolist()
    assert len(rows) == 3 and all(rows.count(row) == 1 for row in rows)
    assert part(RETAIN, 1.0, tiny.generator()).size == RETAIN.size


def test_with_f_alone_it_runs_and_goes_towards_the_random_network():
    model = tiny.flat()
    settings = BadTeacher(epochs=200, lr=0.01)
    found = method("bad-teacher")(model, FORGET, EMPTY, settings=settings, generator=tiny.generator(3))
    bad = random_network(model, torch_generator(3, "random-teacher"))
    probabilities = [torch.softmax(m.module.eval()(FORGET.images), 1) for m in (bad, found, model)]
    assert (probabilities[1] - probabilities[0]).abs().sum() < 0.1 * (
        probabilities[2] - probabilities[0]
    ).abs().sum()


def test_labels_do_not_matter():
    one, other = (
        method("bad-teacher")(tiny.flat(), forget, RETAIN, generator=tiny.generator()).vector
        for forget in (FORGET, FORGET._replace(labels=(FORGET.labels + 1) % tiny.CLASSES))
    )
    assert torch.equal(one, other)


def test_layers_that_cannot_be_drawn_are_refused_by_name():
    module = nn.Sequential(nn.Flatten(), nn.Bilinear(1, 1, 1).double())
    with pytest.raises(UserError, match=r"bad-teacher: .* 'weight' of a Bilinear"):
        random_network(FlatModel(module, dtype=torch.float64), tiny.generator())
