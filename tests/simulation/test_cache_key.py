"""The key of a branch: what is in it and what is not."""

import shutil
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from fedunlearn.config import MethodConfig
from fedunlearn.simulation import cache as module
from fedunlearn.simulation import source_hash
from fedunlearn.simulation.branches import branches
from fedunlearn.simulation.cache import CONDUCTOR, ENGINE, branch_key, digest_of
from fedunlearn.simulation.source_hash import closure
from tests.clients import sites
from tests.e2e.tiny import TIMELINE, TINY, tiny

REGULAR = '[[method]]\nname = "puf"\nmode = "regular"\n'


def keys(experiment, *, data="data", weights=str):
    """Return every branch's key as a run computes them, by branch name."""
    found: dict[str, str] = {}
    for branch in branches(experiment, experiment.seeds[0]):
        found[branch.name] = branch_key(
            experiment, branch, found, data_hash=data, weights_hash=f"weights {weights(branch.training_seed)}"
        )
    return found


ROUTINE = """
[[method]]
name = "local-routine"
routine = "random-label"
settings = {epochs = 1}
"""


def test_settings_of_a_routine_are_in_its_key_and_in_no_other():
    once = keys(tiny(text=TINY + ROUTINE))
    twice = keys(tiny(text=TINY + ROUTINE.replace("epochs = 1", "epochs = 2")))
    assert {name for name in once if once[name] != twice[name]} == {"random-label-0-s1"}


def test_what_the_parts_are_that_are_forgotten_is_in_the_key():
    text = TINY.replace("targets = [[1]]\n", "") + "[[target]]\nclients = [1]\nsamples = 0.5\n"
    half, third = keys(tiny(text=text)), keys(tiny(text=text.replace("0.5", "0.3")))
    assert set(half.values()).isdisjoint(third.values()), "the original as well: it is measured on them"


def test_a_place_for_an_output_filter_is_in_every_key():
    text = TINY.replace("targets = [[1]]\n", "") + "[[target]]\nclasses = [1]\n"
    without, with_it = keys(tiny(text=text)), keys(tiny(text=text + ROUTINE.replace("random-label", "mpru").replace(
        "settings = {epochs = 1}\n", "")))  # fmt: skip
    assert set(without.values()).isdisjoint(with_it.values())


# -- what is in a key -----------------------------------------------------------------------------------------

ORACLES = {"retrain-0-s1", "floor-0-s1"}
METHODS = {"puf-special-2-0-s1", "natural-0-s1"}
ALL = {"original-s1"} | ORACLES | METHODS


@pytest.mark.parametrize(
    ("change", "changed"),
    [
        # What decides bits: everywhere, or only where it is used.
        ("train.lr=0.2", ALL),
        ("train.local-epochs=2", ALL),
        ("train.momentum=0.9", ALL),
        ("data.augmentation=rotate-crop-flip", ALL),  # the stored data are the same
        ("train.rounds=4", ALL),
        ("federation.participation=0.5", ALL),
        ("federation.quorum=0.5", ALL),
        ("engine.threads-per-client=2", ALL),
        ("engine.precision=float64", ALL),
        ("targets=[[2]]", ALL),  # the original as well: it is measured on those who will be forgotten
        ("recover.max-rounds=4", ORACLES | METHODS),  # the oracles' horizon
        ("recover.epsilon=1", METHODS),
        ("recover.until=max-rounds", METHODS),
        ("method[1].scale=3", {"puf-special-2-0-s1"}),
        # What does not.
        ("engine.workers=2", set()),
        ("cache=true", set()),
        ("name=other", set()),
        ("measures.per-client=true", set()),
        ("measures.mia-samples=10", set()),
        ("method[1].label=mine", set()),
    ],
)
def test_what_changes_bits_is_in_the_key_and_nothing_else_is(change, changed):
    before, after = keys(tiny()), keys(tiny(change))
    # By place: a label or a scale gives a branch another name.
    moved = {name for name, new in zip(before, after.values(), strict=True) if before[name] != new}
    assert moved == changed


def test_numerics_in_the_key_are_what_computes_and_how():
    """Under these names: another name is another key, and everything that was kept would be computed again."""
    asked = tiny(
        "numerics=fast",
        "engine.precision=bfloat16",
        "engine.batch-clients=5",
        "engine.threads-per-client=2",
        "engine.device=cpu",
    )
    found = module.numerics(asked)
    assert found.pop("device").endswith(torch.backends.cpu.get_cpu_capability())
    assert found == {
        "numerics": "fast",
        "precision": "bfloat16",
        "batch_clients": 5,
        "compile": False,
        "threads": 2,
        "torch": torch.__version__,
        "numpy": np.__version__,
    }


def test_the_order_of_images_in_memory_is_in_the_key_where_it_is_not_the_usual():
    usual, pixel_by_pixel = (
        tiny("numerics=fast", f"engine.channels-last={given}") for given in ("false", "true")
    )
    assert module.numerics(pixel_by_pixel) == {**module.numerics(usual), "channels_last": True}
    assert set(keys(usual).values()).isdisjoint(keys(pixel_by_pixel).values())


def test_the_version_of_what_augments_is_in_the_key_where_anything_does(monkeypatch):
    plain, augmented = tiny(), tiny("data.augmentation=trivialaugment")
    before = keys(plain), keys(augmented)
    monkeypatch.setattr(module, "version", lambda package: f"another {package}")
    assert keys(plain) == before[0]
    assert set(keys(augmented).values()).isdisjoint(before[1].values())


def test_data_and_initial_weights_are_in_every_key():
    before = keys(tiny())
    assert set(before.values()).isdisjoint(keys(tiny(), data="other").values())
    assert set(before.values()).isdisjoint(keys(tiny(), weights=lambda seed: seed + 1).values())
    assert len(set(before.values())) == len(before)


def test_two_labels_of_the_same_settings_are_one_computation():
    text = '[[method]]\nname = "puf"\nlabel = "again"\nscale = 2.0\n'
    found = keys(tiny(text=TINY + text))
    assert found["again-0-s1"] == found["puf-special-2-0-s1"] != found["natural-0-s1"]


def test_an_oracle_is_the_same_computation_wherever_its_target_set_stands_in_the_list():
    one, two = keys(tiny("targets=[[1], [2]]")), keys(tiny("targets=[[2], [1]]"))
    assert one["original-s1"] == two["original-s1"]
    for kind in ("retrain-{}-s1", "floor-{}-s1"):
        assert [one[kind.format(i)] for i in (0, 1)] == [two[kind.format(i)] for i in (1, 0)]
    # Not so a method: its checkpoints and its ledger name the request, by its place in the list.
    assert one["natural-0-s1"] != two["natural-1-s1"]


def test_a_method_depends_on_its_fork_and_on_every_oracle_it_is_judged_by():
    experiment = tiny(text=TIMELINE)
    plan = {b.name: b for b in branches(experiment, 1)}
    before = keys(experiment)
    method = plan["puf-special-2-timeline-s1"]
    assert method.oracles == ("retrain-0-s1", "retrain-1-s1")

    def key(**others):
        return branch_key(experiment, method, before | others, data_hash="data", weights_hash="weights 1")

    assert key() == before[method.name]
    moved = {key(**{name: "x"}) for name in ("original-s1", "retrain-0-s1", "retrain-1-s1")}
    assert len(moved | {key()}) == 4
    assert key(**{"floor-0-s1": "x", "natural-timeline-s1": "x"}) == key()


def test_a_second_retrain_is_another_computation_only_by_its_seed():
    experiment = tiny()
    _, retrain, floor, *_ = branches(experiment, 1)

    def key(branch):
        return branch_key(experiment, branch, {}, data_hash="data", weights_hash="weights")

    assert key(retrain) != key(floor)
    assert key(retrain) == key(replace(floor, training_seed=retrain.training_seed))


def test_where_it_forks_when_it_is_asked_and_what_is_kept_are_in_the_key():
    experiment = tiny()
    branch = next(b for b in branches(experiment, 1) if b.kind == "method")
    (request,) = branch.requests
    changes = [
        {"first_round": 2},
        {"last_round": 9},
        {"keep_from": 4},
        {"keep": frozenset({1})},
        {"requests": (replace(request, at_round=2),)},
        {"requests": (replace(request, clients=(2,)),)},
        {"forget": (2,)},
        {"watched": (2,)},
        {"excluded": (2,)},
        {"method": MethodConfig.of(name="puf", mode="regular", scale=2.0)},
        {"training_seed": 9},
    ]

    def key(branch):
        fork = {"original-s1": "o", "retrain-0-s1": "r"}
        return branch_key(experiment, branch, fork, data_hash="data", weights_hash="weights")

    found = [key(branch), *(key(replace(branch, **change)) for change in changes)]
    assert len(set(found)) == len(found)
    same = replace(branch, name="x", label="x", target=7, seed=1, stop_when_recovered=False)
    assert key(same) == key(branch)


def test_torch_device_and_processor_are_in_the_key(monkeypatch):
    found = [keys(tiny())]
    monkeypatch.setattr(torch, "__version__", "9.9")
    found.append(keys(tiny()))
    monkeypatch.setattr(module, "_processor", lambda: "another")
    found.append(keys(tiny()))
    monkeypatch.setattr(module.np, "__version__", "9.9")
    found.append(keys(tiny()))
    assert len({key for by_name in found for key in by_name.values()}) == 4 * len(found[0])


def test_monai_is_in_the_keys_of_segmentation_alone(monkeypatch):
    monkeypatch.setattr(module, "version", {"monai": "1.0"}.__getitem__)
    classes, masks = keys(tiny()), keys(sites.experiment())
    monkeypatch.setattr(module, "version", {"monai": "2.0"}.__getitem__)
    assert keys(tiny()) == classes
    assert set(keys(sites.experiment()).values()).isdisjoint(masks.values())


# -- the source in a key --------------------------------------------------------------------------------------


@pytest.fixture
def sources(tmp_path, monkeypatch):
    """A copy of the distribution's source that a test may edit; returns its root."""
    shutil.copytree(
        source_hash.ROOT / "fedunlearn", tmp_path / "fedunlearn", ignore=shutil.ignore_patterns("__pycache__")
    )
    monkeypatch.setattr(source_hash, "ROOT", tmp_path)
    source_hash._hash.cache_clear()
    yield tmp_path
    source_hash._hash.cache_clear()


def edited(path):
    path.write_text(path.read_text() + "\n# edited\n")
    source_hash._hash.cache_clear()


PUF = {"puf-special-2-0-s1", "puf-regular-20-0-s1"}
EVERY = ALL | PUF | {"random-label-0-s1"}


@pytest.mark.quick(file=5)
@pytest.mark.parametrize(
    ("file", "changed"),
    [
        ("strategies/puf.py", PUF),
        ("strategies/natural.py", {"natural-0-s1"}),
        ("strategies/retrain.py", {"original-s1"} | ORACLES),
        ("strategies/local_routine.py", {"random-label-0-s1"}),
        ("unlearning/random_label.py", {"random-label-0-s1"}),
        ("models/mlp.py", EVERY),
        ("data/synthetic.py", EVERY),
        ("data/partitioners.py", EVERY),
        ("unlearning/ssd.py", set()),
        ("models/vit.py", set()),
        ("clients/segmentation.py", set()),
        ("data/digits.py", set()),
        ("data/prostate/__init__.py", set()),
        ("data/partition_file.py", set()),
    ],
)
def test_the_source_of_a_component_is_in_the_keys_of_what_uses_it(file, changed, sources):
    experiment = tiny(text=TINY + REGULAR + ROUTINE)
    before = keys(experiment)
    edited(sources / "fedunlearn" / file)
    after = keys(experiment)
    moved = {name for name in before if before[name] != after[name]}
    # A method forks from the original, and is judged by an oracle.
    assert moved == (EVERY if "original-s1" in changed else changed)


@pytest.mark.quick(file=5)
@pytest.mark.parametrize(
    "file",
    [
        "strategies/base.py",
        "server/loop.py",
        "server/serve.py",
        "simulation/runner.py",
        "clients/classification.py",
        "clients/trainer.py",
        "data/augmentation/geometry.py",
        "data/federated.py",
        "evaluation/segmentation.py",
        "federation/sums.py",
        "federation/worker.py",
        "requests/ledger.py",
        "training/local.py",
        "training/losses.py",
        "models/flat.py",
        "models/initialise.py",
        "randomness.py",
        "workspace.py",
    ],
)
def test_the_source_of_all_computation_is_in_every_key(file, sources):
    before = keys(tiny())
    edited(sources / "fedunlearn" / file)
    assert set(before.values()).isdisjoint(keys(tiny()).values())


@pytest.mark.quick(room=2)
@pytest.mark.parametrize(
    "room",
    ["report", "html", "cli", "door", "live", "deployment", "certificates", "sweep", "federation/ray_engine"],
)
def test_the_source_of_what_only_shows_or_carries_is_in_no_key(room, sources):
    before = keys(tiny())
    for path in (sources / "fedunlearn" / room).rglob("*.py"):
        edited(path)
    for file in ("__init__.py", "plugins.py", "terminal.py", "simulation/progress.py", "federation/local.py"):
        edited(sources / "fedunlearn" / file)
    assert keys(tiny()) == before


def test_a_renamed_file_is_other_source(sources):
    before = keys(tiny())
    folder = sources / "fedunlearn" / "server"
    (folder / "messages.py").rename(folder / "other.py")
    text = (folder / "loop.py").read_text()
    (folder / "loop.py").write_text(text.replace("server.messages", "server.other"))
    source_hash._hash.cache_clear()
    assert keys(tiny()) != before


def test_what_an_engine_does_while_it_computes_is_in_the_key():
    """Whatever a client or the server has imported by then, but for what can change no bit."""
    known = closure(*ENGINE, CONDUCTOR)
    assert {f"fedunlearn.{name}" for name in ("clients.app", "training.local", "server.loop")} <= known.keys()
    assert not any(name.startswith(("fedunlearn.strategies.", "fedunlearn.models.mlp")) for name in known)
    measuring = closure("fedunlearn.server.evaluation", "fedunlearn.clients.tasks")
    assert measuring.keys() <= closure(*ENGINE).keys(), "by what is measured in a round a federation stops"


def test_it_is_quick():
    began = time.perf_counter()
    source_hash._hash.cache_clear()
    source_hash._imports.cache_clear()
    source_hash.source_of(*ENGINE, alone=(CONDUCTOR,))
    assert time.perf_counter() - began < 2.0, "0.2 s on a machine that does nothing else"


def test_digests_depend_on_content_not_on_its_order():
    assert digest_of({"a": [1, 2], "b": None}) == digest_of({"b": None, "a": (1, 2)})
    assert digest_of({"a": [1, 2]}) != digest_of({"a": [2, 1]})
