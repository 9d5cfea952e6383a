"""engine = "auto": what is tried, what is chosen of it, and what is never changed."""

import re

import pytest
import torch

from fedunlearn import config, workspace
from fedunlearn.simulation import choice
from fedunlearn.simulation.choice import choose
from fedunlearn.simulation.runner import simulate
from tests.clients import sites
from tests.e2e.tiny import everything, tiny

CORES = 4
TWENTY = ("numerics=fast", "federation.num-clients=20", "data.num-train=800", "data.alpha=100")


@pytest.fixture
def tried(monkeypatch):
    """Seconds per example by (workers, stack) instead of a clock; what was asked for is noted."""
    seconds = {}
    asked = []

    def time(self, train, at_once, workers):
        asked.append((workers, at_once))
        return seconds.get((workers, at_once), 1.0)

    monkeypatch.setattr(choice._Trials, "_time", time)
    monkeypatch.setattr(choice.os, "sched_getaffinity", lambda _: set(range(CORES)), raising=False)
    return seconds, asked


def engine(*overrides, **options):
    return choose(tiny("engine.name=auto", *overrides), **options).experiment.engine


def test_what_names_its_engine_is_left_alone():
    experiment = tiny("engine.workers=2")
    assert choose(experiment).experiment is experiment
    assert choose(experiment).why == ""


def test_more_workers_are_taken_where_they_are_faster(tried):
    seconds, asked = tried
    seconds[4, 1] = 0.5
    assert engine().workers == 4
    assert asked == [(1, 1), (4, 1)]
    seconds[4, 1] = 0.97  # within the noise
    assert engine().workers == 1


def test_exact_numerics_try_nothing_that_changes_a_bit(tried):
    seconds, asked = tried
    seconds.update({(w, s): 1e-9 for w in (1, 4) for s in (2, 4, 8)})
    found = engine()
    assert (found.batch_clients, found.precision) == (1, "float32")
    assert {stack for _, stack in asked} == {1}


def test_fast_numerics_take_the_fastest_stack(tried):
    seconds, asked = tried
    seconds.update({(1, 1): 1e-3, (4, 1): 1e-3, (1, 8): 2e-4, (1, 20): 1e-4, (4, 8): 3e-4, (4, 20): 2e-4})
    found = engine(*TWENTY)
    assert (found.name, found.workers, found.batch_clients) == ("local", 1, 20)
    assert {stack for _, stack in asked} == {1, 8, 20}, "no stack larger than a round"


def test_a_long_step_is_not_tried_in_stacks_on_a_processor(tried):
    seconds, asked = tried
    seconds[1, 1] = choice.LONG_STEP / 8 * 1.01  # batches of 8
    assert engine("numerics=fast").batch_clients == 1
    assert {stack for _, stack in asked} == {1}


def test_segmentation_is_not_tried_in_stacks(tried, monkeypatch):
    """Not even with a network that could be stacked, as one without BatchNorm's buffers."""
    seconds, asked = tried
    seconds.update({(w, s): 1e-3 / s for w in (1, 4) for s in (1, sites.NUM_CLIENTS)})
    place = sites.workplace("model.norm=instance")
    monkeypatch.setattr(workspace, "data_of", lambda experiment, seed: place.data)
    auto = sites.experiment("model.norm=instance", "engine.name=auto", "numerics=fast")
    assert choose(auto).experiment.engine.batch_clients == 1
    assert asked == [(1, 1), (4, 1)]


def test_segmentation_is_tried_with_its_own_loss(monkeypatch):
    place = sites.workplace()
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    monkeypatch.setattr(workspace, "data_of", lambda experiment, seed: place.data)
    auto = sites.experiment("engine.name=auto", "engine.workers=1")
    assert choose(auto, seconds=0.01).experiment.engine.workers == 1


def test_what_the_file_says_is_kept(tried):
    seconds, _ = tried
    seconds[4, 1] = 1e-9
    assert engine("engine.workers=2").workers == 2
    assert engine("numerics=fast", "engine.batch-clients=3").batch_clients == 3


def test_threads_of_workers_do_not_outnumber_the_cores(tried):
    _, asked = tried
    engine("engine.threads-per-client=2")
    assert asked == [(1, 1), (2, 1)]


def test_worker_processes_must_earn_their_start(tried):
    seconds, _ = tried
    seconds.update({(1, 1): 1e-3, (4, 1): 0.6e-3})
    assert engine(examples=lambda: 10_000).name == "local"  # 6 s here, 2.5 s and the start there
    found = engine(examples=lambda: 1_000_000)  # 600 s here, 250 s and the start there
    assert (found.name, found.workers) == ("ray", 4)


def test_a_resumed_run_keeps_what_decides_its_bits(tried):
    seconds, _ = tried
    asked = tiny("engine.name=auto", *TWENTY)
    seconds.update({(w, s): 1e-3 for w in (1, 4) for s in (1, 8, 20)})
    seconds[1, 8] = 1e-4
    first = choose(asked).experiment
    assert first.engine.batch_clients == 8
    seconds[1, 20] = 1e-5
    assert choose(asked).experiment.engine.batch_clients == 20
    assert choose(asked, before=first).experiment.engine.batch_clients == 8
    assert choose(asked, before=asked).experiment.engine.batch_clients == 20, "nothing was chosen before"


def test_the_reason_is_one_line_with_the_choice_and_a_figure(tried):
    tried[0].update({(1, 1): 1e-3, (4, 1): 2.5e-4})
    why = choose(tiny("engine.name=auto")).why
    assert why == (
        "engine local, one by one, 4 workers: 4 000 examples/s, 4.00 times as many as with 1 worker(s)"
    )


def test_a_real_probe_is_short_and_changes_no_bit(tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    said = []
    progress = choice_noting(said)
    auto = simulate(tiny("engine.name=auto"), out=tmp_path / "auto", progress=progress)
    plain = simulate(tiny(), out=tmp_path / "plain")
    assert auto.name == plain.name, "under exact numerics it is the same experiment"
    assert everything(auto) == everything(plain)
    (line,) = said
    assert re.fullmatch(r"engine (local|ray), one by one(, \d workers)?: .*examples/s.*", line)
    assert config.load(auto / "experiment.toml").engine.name != "auto", "it reruns as it ran"


@pytest.mark.slow
def test_a_run_with_a_choice_resumes_in_its_own_directory(tmp_path):
    asked = tiny("engine.name=auto", "numerics=fast")
    first = simulate(asked, out=tmp_path)
    ran = config.load(first / "experiment.toml")
    assert ran.engine.given_batch_clients is not None
    assert simulate(asked, out=tmp_path, resume=True) == first
    assert config.load(first / "experiment.toml").engine.batch_clients == ran.engine.batch_clients


def choice_noting(lines):
    from fedunlearn.simulation.progress import Progress

    class Noting(Progress):
        def note(self, text):
            lines.append(text)

    return Noting()
