"""Augmented images are for training alone, and the same whoever works on them."""

import torch

from clients.tasks import routine_of
from fedunlearn import resident
from fedunlearn.data.augmentation import RotateCropFlip
from tests.clients.experiment import write
from tests.e2e.tiny import everything, run, tiny

AUGMENTED = "data.augmentation=rotate-crop-flip"
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


def test_clients_train_on_augmented_images_and_are_measured_on_images_as_they_are(tmp_path):
    plain = routine(tmp_path / "plain")
    start = plain.model.vector.clone()
    measured, update = plain.evaluate(2), deltas(plain, start)
    augmenting = routine(tmp_path / "augmented", AUGMENTED)
    augmenting.model.load(start)
    assert augmenting.evaluate(2) == measured
    assert (deltas(augmenting, start) - update).abs().max() > 1e-3


def test_a_stack_of_clients_draws_as_each_of_them_alone(tmp_path):
    augmenting = routine(tmp_path / "augmented", AUGMENTED)
    start = augmenting.model.vector.clone()
    alone = deltas(augmenting, start)
    result = augmenting.train_stack(range(5), start, CONFIG)
    assert (result.vectors - start - alone).abs().max() <= 1e-5


def test_the_recipe_of_an_experiment_names_its_augmentation():
    assert resident.recipe_of(tiny()).augmentation is None
    assert resident.recipe_of(tiny(AUGMENTED)).augmentation == RotateCropFlip()


def test_stored_data_are_the_same_whatever_the_augmentation():
    plain, augmented = (resident.data_of(tiny(*change), 1) for change in ((), (AUGMENTED,)))
    assert plain.content_hash == augmented.content_hash


def test_a_run_ends_in_the_same_bits_whatever_the_workers(tmp_path):
    runs = []
    for workers in (1, 2):
        experiment = tiny(AUGMENTED, "model.name=small-cnn", "train.rounds=2", f"engine.workers={workers}")
        runs.append(everything(run(experiment, tmp_path / str(workers))))
    assert runs[0] == runs[1]
