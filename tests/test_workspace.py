"""What a process keeps between messages: the same thing, as long as it is asked for the same thing."""

import threading
from contextlib import suppress

import pytest
import torch

from fedunlearn import config, workspace
from fedunlearn.data.augmentation import Rot90Flip
from fedunlearn.errors import ConfigError
from fedunlearn.parts import Part, Parts
from fedunlearn.training import CLASSIFY, Recipe, dice_cross_entropy
from tests.clients import sites
from tests.e2e.tiny import TINY, tiny

EXPERIMENT = tiny()


@pytest.fixture
def path(tmp_path):
    """An experiment's resolved file."""
    file = tmp_path / "experiment.toml"
    file.write_text(config.to_toml(EXPERIMENT))
    return str(file)


def elsewhere(call):
    """Return what a call gives in another thread."""
    found = []
    thread = threading.Thread(target=lambda: found.append(call()))
    thread.start()
    thread.join()
    return found[0]


def test_an_experiment_is_read_once_per_file(path, monkeypatch):
    first = workspace.experiment_at(path)
    assert first == EXPERIMENT
    monkeypatch.setattr(config, "load", lambda _: pytest.fail("read again"))
    assert workspace.experiment_at(path) is first


@pytest.mark.parametrize(
    ("named", "there_is_cuda", "device"),
    [("auto", False, "cpu"), ("auto", True, "cuda"), ("cpu", True, "cpu"), ("cuda", True, "cuda")],
)
def test_devices(named, there_is_cuda, device, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there_is_cuda)
    assert workspace.device_of(tiny(f"engine.device={named}")) == torch.device(device)


def test_a_device_that_is_not_there_is_refused_in_one_line(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError) as refused:
        workspace.device_of(tiny("engine.device=cuda"))
    assert str(refused.value) == 'engine.device = "cuda": there is no CUDA device here; use "auto" or "cpu"'


def test_precision_is_that_of_data_and_model():
    for name, dtype in (("float32", torch.float32), ("float64", torch.float64)):
        experiment = tiny(f"engine.precision={name}")
        data = workspace.data_of(experiment, 1)
        assert workspace.dtype_of(experiment) == data.train_images.dtype == dtype
        assert workspace.new_model(experiment, data, 1).vector.dtype == dtype


def test_a_recipe_is_the_task_s_loss_and_the_file_s_augmentation():
    data, slices = workspace.data_of(EXPERIMENT, 1), sites.data()
    assert workspace.recipe_of(EXPERIMENT, data) == CLASSIFY
    assert workspace.recipe_of(sites.experiment(), slices) == Recipe(dice_cross_entropy, None)
    turned = workspace.recipe_of(sites.experiment("data.augmentation=rot90-flip"), slices)
    assert turned == Recipe(dice_cross_entropy, Rot90Flip())


def test_data_are_loaded_once_per_partition_and_for_all_threads():
    data = workspace.data_of(EXPERIMENT, 1)
    assert workspace.data_of(tiny("train.lr=0.5", "engine.workers=2"), 1) is data
    assert elsewhere(lambda: workspace.data_of(EXPERIMENT, 1)) is data
    others = [
        workspace.data_of(EXPERIMENT, 2),
        workspace.data_of(tiny("federation.num-clients=5"), 1),
        workspace.data_of(tiny("data.alpha=0.5"), 1),
        workspace.data_of(tiny("engine.precision=float64"), 1),
    ]
    assert len({d.content_hash for d in (data, *others)}) == 5
    assert [len(d.clients) for d in others] == [4, 5, 4, 4]


def test_threads_that_ask_at_once_load_the_data_once(monkeypatch):
    loads, load, together = [], workspace.load_federated, threading.Barrier(2)

    def waiting(*arguments, **options):
        loads.append(arguments)
        with suppress(threading.BrokenBarrierError):
            together.wait(0.2)  # for a second loader, should one get in
        return load(*arguments, **options)

    workspace._load_data.cache_clear()
    monkeypatch.setattr(workspace, "load_federated", waiting)
    start = threading.Barrier(4)
    found = []

    def ask():
        start.wait()
        found.append(workspace.data_of(EXPERIMENT, 1))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loads) == 1
    assert all(data is found[0] for data in found)


def test_initial_weights_are_the_seeds_and_every_new_model_is_its_own():
    data = workspace.data_of(EXPERIMENT, 1)
    one, same, other = (workspace.new_model(EXPERIMENT, data, seed) for seed in (1, 1, 2))
    assert torch.equal(one.vector, same.vector)
    assert not torch.equal(one.vector, other.vector)
    one.vector.zero_()
    assert same.vector.any()


def test_a_thread_keeps_one_model_and_no_two_threads_share_it():
    data = workspace.data_of(EXPERIMENT, 1)
    mine = workspace.model_of(EXPERIMENT, data)
    assert workspace.model_of(tiny("train.lr=0.5"), data) is mine, "the same architecture"
    theirs, again = elsewhere(
        lambda: (workspace.model_of(EXPERIMENT, data), workspace.model_of(EXPERIMENT, data))
    )
    assert theirs is again is not mine
    wider = workspace.model_of(tiny("model.hidden=[9]"), data)
    assert wider.num_parameters > mine.num_parameters
    assert workspace.model_of(EXPERIMENT, data) is not mine, "one at a time: the other took its place"


@pytest.mark.parametrize("setting", ["engine.precision=bfloat16", "engine.channels-last=true"])
def test_a_faster_model_is_another_model(setting):
    data = workspace.data_of(EXPERIMENT, 1)
    usual = workspace.model_of(EXPERIMENT, data)
    assert usual.forward is usual.module
    faster = workspace.model_of(tiny("numerics=fast", setting), data)
    assert faster.forward is not faster.module
    again = workspace.model_of(EXPERIMENT, data)
    assert again.forward is again.module


def test_a_workplace_is_whole_and_stays_until_another_is_asked_for(path, tmp_path):
    first = workspace.workplace(path, 1)
    assert first.experiment == EXPERIMENT
    assert first.data is workspace.data_of(EXPERIMENT, 1)
    assert first.model is workspace.model_of(EXPERIMENT, first.data)
    assert workspace.workplace(path, 1) is first
    assert elsewhere(lambda: workspace.workplace(path, 1)).model is not first.model
    second = workspace.workplace(path, 2)
    assert second.data is workspace.data_of(EXPERIMENT, 2)
    wider = tmp_path / "wider.toml"
    wider.write_text(config.to_toml(tiny("model.hidden=[9]")))
    third = workspace.workplace(str(wider), 2)
    assert third.experiment.model.settings.hidden == (9,)
    assert third.model.num_parameters > first.model.num_parameters
    assert workspace.workplace(path, 1).experiment == EXPERIMENT


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ("samples = [0, 99999]", "samples: client 1 has .* there is no row 99999"),
        ("classes = [1]\nsamples = [99999]", "samples: client 1 has .* there is no row 99999"),
    ],
)
def test_a_scripted_request_for_rows_that_there_are_not_is_refused_when_the_data_are_loaded(wanted, says):
    text = TINY.replace("targets = [[1]]\n", "") + f"[[target]]\nclients = [1]\n{wanted}\n"
    with pytest.raises(ConfigError, match=says):
        workspace.data_of(config.loads(text), 1)


def test_and_so_is_one_for_classes_that_the_data_turn_out_not_to_have():
    """Of a source, say, whose number of classes its settings do not tell."""
    data = workspace.data_of(EXPERIMENT, 1)
    with pytest.raises(ConfigError, match="the data have 4 classes, counted from 0; there is no class 4"):
        data.with_parts(Parts([Part(4, 0, classes=(4,))]), 1)
