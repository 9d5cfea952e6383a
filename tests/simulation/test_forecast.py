"""What is forecast is what then happens: plans, client-epochs, checkpoints, bytes; and how it is told."""

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from fedunlearn import config, workspace
from fedunlearn.requests import Ledger
from fedunlearn.runs.checkpoints import Checkpoints
from fedunlearn.server.plans_ahead import plans
from fedunlearn.simulation import forecast as module
from fedunlearn.simulation.branches import branches
from fedunlearn.simulation.forecast import duration, forecast, show, size
from fedunlearn.simulation.memory import WORKSPACE
from tests.clients import sites
from tests.e2e.tiny import TINY, tiny
from tests.simulation.scripted import TARGETS, TIMELINE

PARAMETERS = 64 * 8 + 8 + 8 * 4 + 4


probe = module._probe


@pytest.fixture(autouse=True)
def _no_probe(monkeypatch):
    monkeypatch.setattr(module, "_probe", lambda experiment: 1e-3)
    monkeypatch.setattr(module, "probe_evaluation", lambda experiment: 1e-4)


@pytest.fixture(params=["targets", "timeline"])
def run(request):
    return {"targets": TARGETS, "timeline": TIMELINE}[request.param], request.getfixturevalue(
        f"{request.param}_run"
    )


def living(overrides):
    return config.load(Path("experiments/deployment.toml"), overrides=overrides)


def ended(folder):
    """Return branch name → last round."""
    return {b["branch"]: b["last_round"] for b in json.loads((folder / "branches.json").read_text())}


@pytest.mark.slow
def test_the_plans_forecast_are_the_plans_executed(run):
    experiment, folder = run
    last = ended(folder)
    with Ledger(folder / "requests.sqlite") as ledger:
        for branch in branches(experiment, 1):
            executed = [(p.round, p.plan["train"], p.plan["forget"]) for p in ledger.plans(branch.name)]
            expected = [(p.round, list(p.train), list(p.forget)) for p in plans(experiment, branch)]
            assert executed == expected[: last[branch.name] - branch.first_round]
            assert len(expected) == branch.rounds


def test_rounds_client_epochs_examples_and_checkpoints_are_those_of_the_run(run):
    experiment, folder = run
    last = ended(folder)
    sizes = [len(rows) for rows in workspace.data_of(experiment, 1).clients]
    stopped = 0
    with Ledger(folder / "requests.sqlite") as ledger:
        for found in forecast(experiment).branches:
            name = found.branch.name
            asked = [k for p in ledger.plans(name) for k in (*p.plan["train"], *p.plan["forget"])]
            kept = Checkpoints(folder / "checkpoints", name).rounds()
            counts = (
                last[name] - found.branch.first_round,
                experiment.train.local_epochs * len(asked),
                experiment.train.local_epochs * sum(sizes[k] for k in asked),
                len(kept),
            )
            expected = (found.rounds, found.client_epochs, found.examples, found.checkpoints)
            if last[name] < found.branch.last_round:  # a timeline's method that recovered early
                stopped += 1
                assert all(count < most for count, most in zip(counts, expected, strict=True)), name
            else:
                assert counts == expected, name
    assert stopped == {"tiny": 0, "scripted-timeline": 2}[experiment.name]


def test_a_special_round_is_of_the_forgotten_alone():
    """Five clients, one or two of them forgotten, three rounds to recover."""
    plan = forecast(tiny("federation.num-clients=5", "targets=[[0], [1, 2]]"))
    found = {b.branch.name: b.client_epochs for b in plan.branches}
    assert found["puf-special-2-0-s1"] == 1 + 4 + 4
    assert found["puf-special-2-1-s1"] == 2 + 3 + 3
    assert found["natural-0-s1"] == 4 + 4 + 4


def test_bytes_on_the_wire_and_on_the_disk(targets_run):
    plan = forecast(TARGETS)
    assert (plan.parameters, plan.model_bytes, plan.slots) == (PARAMETERS, 4 * PARAMETERS, 5)
    files = list((targets_run / "checkpoints").glob("*.safetensors"))
    assert plan.disk_bytes == 4 * PARAMETERS * len(files)
    headers = sum(8 + int.from_bytes(file.read_bytes()[:8], "little") for file in files)
    assert sum(file.stat().st_size for file in files) == plan.disk_bytes + headers
    assert forecast(tiny("engine.precision=float64")).model_bytes == 8 * PARAMETERS


@pytest.mark.parametrize(("share", "slots"), [(1.0, 4), (0.5, 2), (0.6, 2), (0.01, 1)])
def test_clients_per_round(share, slots):
    plan = forecast(tiny(f"federation.participation={share}"))
    original = plan.branches[0]
    assert (plan.slots, original.client_epochs) == (slots, 3 * slots)


def test_time_is_all_examples_at_the_probed_speed_over_the_workers():
    one, two = (forecast(tiny(f"engine.workers={n}")) for n in (1, 2))
    examples = sum(b.examples for b in one.branches)
    assert one.seconds == pytest.approx(1e-3 * examples)
    assert two.seconds == pytest.approx(one.seconds / 2)
    original = one.branches[0]
    assert original.examples == 3 * 128, "three rounds over all that is not held out"


def test_every_seed_is_a_whole_repetition():
    one, two = forecast(tiny()), forecast(tiny("seeds=[1, 2]"))
    assert len(two.branches) == 2 * len(one.branches)
    assert {b.branch.seed for b in two.branches} == {1, 2}


def test_the_probe_is_of_real_training_and_leaves_no_trace(monkeypatch):
    experiment = tiny("train.local-epochs=3")
    seen = []
    train = module.train_local

    def counted(model, images, labels, settings, **others):
        seen.append((len(labels) * settings.local_epochs, settings))
        return train(model, images, labels, settings, **others)

    monkeypatch.setattr(module, "train_local", counted)
    ticks = iter([10.0, 10.0, 10.3, 10.8, 11.0])  # begun, asked thrice, read
    monkeypatch.setattr(module.time, "perf_counter", lambda: next(ticks))
    seconds = probe(experiment)
    assert len(seen) == 1 + 2, "one to warm up, and as many as fit"
    assert {settings for _, settings in seen} == {experiment.train}
    assert seconds == pytest.approx(1.0 / (2 * seen[0][0]))


def test_the_probe_of_a_large_batch_stays_small(monkeypatch):
    """Whether a batch fits is estimated; trying it could end the command, or the machine."""
    monkeypatch.setattr(module, "PROBE_BATCH", 4)
    sizes = []
    train = module.train_local

    def counted(model, images, labels, settings, **others):
        sizes.append((settings.batch_size, len(labels)))
        return train(model, images, labels, settings, **others)

    monkeypatch.setattr(module, "train_local", counted)
    assert probe(tiny("train.batch-size=1000"), seconds=0.01) > 0
    assert {size for size, _ in sizes} == {4}
    assert max(rows for _, rows in sizes) <= 8 * 4


def test_the_probe_trains_with_the_loss_of_the_task(monkeypatch):
    """Cross-entropy of whole images would not even take masks."""
    place = sites.workplace()
    monkeypatch.setattr(workspace, "data_of", lambda experiment, seed: place.data)
    assert probe(place.experiment, seconds=0.01) > 0


def test_the_plan_as_it_is_shown():
    output = io.StringIO()
    show(forecast(TARGETS), Console(file=output, width=100))
    text = output.getvalue()
    rows = {
        tuple(cell.strip() for cell in line.strip("│").split("│"))
        for line in text.splitlines()
        if line.startswith("│")
    }
    assert rows == {
        ("1", "original, trained once per seed", "3", "15", "1"),
        ("2", "retrained without the forgotten clients", "12", "42", "8"),
        ("2", "retrained with other seeds, for the floor", "12", "42", "8"),
        ("2", "puf-special-2: forget and recover", "6", "17", "6"),
        ("2", "natural: forget and recover", "6", "21", "6"),
        ("2", "puf-regular-4: forget and recover", "6", "24", "6"),
        ("11", "all, at most", "45", "161", "35"),
    }
    assert "tiny: what would run" in text
    assert "model      mlp, 556 parameters, 2.2 kB on the wire" in text
    assert "round      5 clients, 11.1 kB down and 11.1 kB up" in text
    assert "disk       77.8 kB of checkpoints" in text
    assert "too little" not in text
    seconds = duration(forecast(TARGETS).seconds)
    assert (
        f"time       about {seconds} of training with 1 worker(s), at 1,000 examples/s each (probed)" in text
    )
    seconds = duration(forecast(TARGETS).evaluation_seconds)
    assert f"           about {seconds} of evaluation, at 10,000 examples/s (probed); attacks" in text


def test_a_live_federation_is_one_and_its_requests_come_on_top():
    experiment = living(["train.rounds=3"])
    plan = forecast(experiment)
    (only,) = plan.branches
    assert (only.rounds, only.client_epochs, only.checkpoints) == (
        3,
        3 * experiment.federation.num_clients,
        3,
    )
    data = workspace.data_of(experiment, experiment.seeds[0])
    assert plan.evaluated == 4 * len(data.validation_labels)
    asked = forecast(living(["train.rounds=3", 'requests.validation="clients"']))
    assert asked.evaluated == 4 * len(data.train_labels)
    output = io.StringIO()
    show(plan, Console(file=output, width=100))
    assert "live, excluding requests" in output.getvalue() and "each request" in output.getvalue()
    assert "at most 4 rounds of recovery" in output.getvalue() and "all, at most" not in output.getvalue()


def test_what_the_data_are_left_without_is_told():
    output = io.StringIO()
    note = (
        "left out sites/HK/Case00_segmentation.nii.gz: is empty: no voxel is labelled [0 of 3 538 944 voxels]"
    )
    show(replace(forecast(TARGETS), notes=(note,)), Console(file=output, width=60))
    assert f"data       {note}\n" in output.getvalue()


def with_copies(monkeypatch, seeds_with_copies):
    """Have the first row of client 1 be one of client 0's, and the first test image too, in some seeds."""
    load = workspace.data_of

    def copied(experiment, seed):
        data = load(experiment, seed)
        if seed not in seeds_with_copies:
            return data
        train, test = data.train_images.clone(), data.test_images.clone()
        train[data.clients[1][0]] = test[0] = train[data.clients[0][0]]
        return replace(data, train_images=train, test_images=test)

    monkeypatch.setattr(workspace, "data_of", copied)


def test_copies_across_what_is_forgotten_are_told(monkeypatch):
    with_copies(monkeypatch, {1})
    assert forecast(tiny("targets=[[0]]")).notes == (
        "of the training images 2 occur more than once, 2 of these with several clients, 2 under several labels",
        "of the test images 1 are also training images",
        "forgetting client 0 leaves copies of its images: 1 in the retained data, 1 in the test set",
    )


def test_of_many_seeds_and_targets_the_worst_are_told_in_few_lines(monkeypatch):
    assert forecast(tiny("seeds=[1, 2]")).notes == ()
    with_copies(monkeypatch, {2})
    experiment = tiny("seeds=[1, 2, 3]", "targets=[[0], [1], [0, 2], [1, 3], [2]]")
    assert [note for note in forecast(experiment).notes if "forgetting" in note] == [
        "forgetting client 0 leaves copies of its images: 1 in the retained data, 1 in the test set (seed 2)",
        "forgetting client 0 and client 2 leaves copies of its images: 1 in the retained data, 1 in the test set "
        "(seed 2)",
        "forgetting client 1 leaves copies of its images: 1 in the retained data, 1 in the test set (seed 2)",
        "forgetting leaves copies of 1 more target, fewer for each (seed 2)",
    ]


def shown(**memory):
    """Return the plan's words with other needs, in one line."""
    plan = forecast(tiny("train.batch-size=64"))
    output = io.StringIO()
    show(replace(plan, memory=replace(plan.memory, **memory)), Console(file=output, width=100))
    assert all(len(line) <= 100 for line in output.getvalue().splitlines())
    return " ".join(output.getvalue().split())


NEED = {
    "data": 2 * 10**9,
    "weights": 10**9,
    "constant": 0,
    "per_image": 1e8 / WORKSPACE,
    "evaluation": 10**9,
    "evaluated": 500,
    "most_rows": 1000,
}


def test_memory_as_it_is_shown():
    text = shown(**NEED, here=24 * 10**9)
    assert (
        "memory about 9.4 GB of the 24.0 GB here: data 2.0 GB, weights and sums 1.0 GB, activations of a batch of 64 "
        "6.4 GB (probed)" in text
    )
    assert "too little" not in text
    several = shown(**NEED, here=24 * 10**9, models=3)
    assert "about 22.2 GB of the 24.0 GB here" in several
    assert "activations of 3 batches of 64 19.2 GB" in several
    evaluation = shown(**{**NEED, "evaluation": 7 * 10**9}, here=24 * 10**9)
    assert "about 10.0 GB" in evaluation
    assert "activations of an evaluation of 500 7.0 GB" in evaluation
    apart = shown(**NEED, here=24 * 10**9, apart=True)
    assert "about 10.4 GB" in apart
    assert "activations of a batch of 64 6.4 GB, of an evaluation of 500 1.0 GB" in apart


def test_too_little_memory_is_said_with_the_batch_size_to_try():
    text = shown(**NEED, here=5 * 10**9)
    assert "about 9.4 GB of the 5.0 GB here" in text
    assert "memory too little: train.batch-size = 64: try 16" in text
    assert "memory too little: no train.batch-size fits" in shown(**NEED, here=10**9)


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (82_000, "82.0 kB"), (2.5e6, "2.5 MB"), (7e12, "7.0 TB")],
)
def test_sizes_for_people(value, text):
    assert size(value) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (45, "45 s"), (119, "119 s"), (120, "2 min"), (7199, "120 min"), (12_600, "3.5 h")],
)
def test_durations_for_people(seconds, text):
    assert duration(seconds) == text


# -- local routines ----------------------------------------------------------------------------------------


def of_routine(routine, settings, *overrides, text=TINY):
    """Return the forecast of the one branch in which a client runs a routine, and its data."""
    method = f'method=[{{name="local-routine", routine="{routine}", settings={settings}}}]'
    experiment = tiny(method, "recover.max-rounds=1", *overrides, text=text)
    (found,) = (b for b in forecast(experiment).branches if b.branch.kind == "method")
    return found, workspace.data_of(experiment, 1)


def test_a_client_that_forgets_by_a_routine_costs_the_passes_of_the_routine():
    found, data = of_routine("gradient-ascent", "{epochs=1_000_000_000}", "train.local-epochs=2")
    assert (found.rounds, found.client_epochs) == (1, 10**9)
    assert found.examples == 10**9 * int(data.clients.sizes[1])


def test_of_a_part_a_routine_costs_its_passes_over_that_part_and_over_the_rest():
    """Passes(forget=1.5, retain=3) for two epochs of SCRUB, one of them an ascent, without rewinding."""
    settings = "{epochs=2, msteps=1, rewind=false}"
    half = TINY.replace("targets = [[1]]", "target = [{clients = [1], samples = 0.5}]")
    found, data = of_routine("scrub", settings, text=half)
    size = int(data.clients.sizes[1])
    forget = round(0.5 * size)
    assert found.examples == 1.5 * forget + 3 * (size - forget)
    assert found.client_epochs == -(-found.examples // size), (
        "passes over all of the client's data, rounded up"
    )


def test_rounds_in_which_others_train_beside_a_routine_and_recover_count_as_usual():
    found, data = of_routine("gradient-ascent", "{epochs=7}", "recover.max-rounds=3", "train.local-epochs=2")
    others = int(data.clients.sizes.sum() - data.clients.sizes[1])
    assert found.client_epochs == 7 + 2 * 2 * 3
    assert found.examples == 7 * int(data.clients.sizes[1]) + 2 * 2 * others
