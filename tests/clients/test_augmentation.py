"""Augmented images are for training alone, and the same whoever works on them."""

import pytest
import torch

from fedunlearn import workspace
from fedunlearn.clients.tasks import routine_of
from fedunlearn.data.augmentation import RotateCropFlip
from fedunlearn.federation.answers import FORGET
from fedunlearn.federation.hosted_routine import Chosen
from fedunlearn.federation.jobs import ROUTINE
from tests.clients.experiment import write
from tests.e2e.tiny import PARTS, checkpoints, everything, run, tiny
from tests.federation.ray_sessions import own_ray

AUGMENTED = "data.augmentation=rotate-crop-flip"
BY_POLICIES = "data.augmentation=crop-flip+trivialaugment+random-erasing"
CONFIG = {"round": 1, "lr": 0.1, "seed": 1}


def routine(folder, *overrides):
    folder.mkdir()
    return routine_of(write(folder, *overrides)[1], 1)


def deltas(routine, start):
    """The pseudo-gradients of all clients."""
    found = []
    for client in range(5):
        routine.model.load(start)
        routine.train(client, "train", CONFIG)
        found.append(routine.model.vector - start)
    return torch.stack(found)


@pytest.mark.parametrize("augmented", [AUGMENTED, BY_POLICIES])
def test_clients_train_on_augmented_images_and_are_measured_on_images_as_they_are(augmented, tmp_path):
    plain = routine(tmp_path / "plain")
    start = plain.model.vector.clone()
    measured, update = plain.evaluate(2), deltas(plain, start)
    augmenting = routine(tmp_path / "augmented", augmented)
    augmenting.model.load(start)
    assert augmenting.evaluate(2) == measured
    assert (deltas(augmenting, start) - update).abs().max() > 1e-3


def test_a_local_routine_forgets_on_augmented_images(tmp_path):
    config = CONFIG | {ROUTINE: Chosen.of("random-label", {"epochs": 1, "batch-size": 8}).dumps()}
    found: list[torch.Tensor] = []
    start = routine(tmp_path / "start").model.vector.clone()
    for n, change in enumerate(((), (BY_POLICIES,), (BY_POLICIES,))):
        forgetting = routine(tmp_path / str(n), *change)
        forgetting.model.load(start)
        forgetting.train(1, FORGET, config)
        found.append(forgetting.model.vector.clone())
    assert (found[1] - found[0]).abs().max() > 1e-3
    assert torch.equal(found[1], found[2])


@pytest.mark.parametrize("augmented", [AUGMENTED, BY_POLICIES])
def test_a_stack_of_clients_draws_as_each_of_them_alone(augmented, tmp_path):
    augmenting = routine(tmp_path / "augmented", augmented)
    start = augmenting.model.vector.clone()
    alone = deltas(augmenting, start)
    result = augmenting.train_stack(range(5), start, CONFIG)
    assert (result.vectors - start - alone).abs().max() <= 1e-5


def test_the_recipe_of_an_experiment_names_its_augmentation():
    data = workspace.data_of(tiny(), 1)
    assert workspace.recipe_of(tiny(), data).augmentation is None
    assert workspace.recipe_of(tiny(AUGMENTED), data).augmentation == RotateCropFlip()


def test_stored_data_are_the_same_whatever_the_augmentation():
    plain, augmented = (workspace.data_of(tiny(*change), 1) for change in ((), (AUGMENTED,)))
    assert plain.content_hash == augmented.content_hash


@pytest.mark.parametrize("augmented", [AUGMENTED, BY_POLICIES])
def test_a_run_ends_in_the_same_bits_whatever_the_workers(augmented, tmp_path):
    runs = []
    for workers in (1, 2):
        experiment = tiny(augmented, "model.name=small-cnn", "train.rounds=2", f"engine.workers={workers}")
        runs.append(everything(run(experiment, tmp_path / str(workers))))
    assert runs[0] == runs[1]


@pytest.mark.slow
def test_a_run_on_ray_ends_in_the_same_bits(tmp_path):
    """The original, the retrained and the unlearned model, by PUF and by a routine, of parts of clients' data."""
    options = (BY_POLICIES, "train.rounds=2", "recover.max-rounds=1")
    here = run(tiny(*options, text=PARTS), tmp_path / "here")
    with own_ray(cpus=2):
        there = run(tiny(*options, "engine.name=ray", "engine.workers=2", text=PARTS), tmp_path / "there")
    assert len(checkpoints(here)) > 10
    assert everything(here) == everything(there)
