"""Every broken experiment file is refused with exactly one line: what, where, and what would be right."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedunlearn.config import load, loads, to_toml
from fedunlearn.errors import ConfigError
from fedunlearn.parts import Part

WORKING = """\
name = "broken"
seeds = [1, 2]
targets = [[0], [2, 3]]
[data]
source = "mnist5k"
partition = "dirichlet"
validation = 0.1
[federation]
num-clients = 5
[model]
name = "small-cnn"
[train]
rounds = 30
lr = 0.1
[[method]]
name = "puf"
scale = 2
[[method]]
name = "natural"
[recover]
until = "retrain-accuracy"
[engine]
workers = 1
"""

TIMELINE = """\
[[forget]]
clients = [0]
at-round = 10
[[forget]]
clients = [2, 3]
at-round = 12
"""

RAY_TAKES = "unknown key; engine.ray takes address, gpus-per-worker, cpus-per-worker"

# What is replaced in WORKING, by what, and the whole line that refuses it.
BROKEN = [
    # Keys
    ("lr = 0.1", "lrr = 0.1", "train.lrr = 0.1 (x.toml): unknown key; did you mean train.lr?"),
    (
        "num-clients = 5",
        "num_clients = 5",
        "federation.num_clients = 5 (x.toml): unknown key; did you mean federation.num-clients?",
    ),
    (
        "num-clients = 5",
        "temperature = 5",
        "federation.temperature = 5 (x.toml): unknown key; "
        "federation takes num-clients, participation, quorum, aggregation, hostile-share, round-timeout",
    ),
    ("[engine]", "[engin]", "engin (x.toml): unknown key; did you mean engine?"),
    (
        "seeds =",
        '"s\\ne" =',
        '"s\\ne" = [1, 2] (x.toml): unknown key; the keys at the top are name, seeds, targets, target, cache, '
        "numerics, data, federation, model, train, method, forget, requests, recover, floor, guard, retention, "
        "engine, measures, smoke, smoke-run",
    ),
    ("scale = 2", "scal = 2", "method[1].scal = 2 (x.toml): unknown key; did you mean method[1].scale?"),
    ("lr = 0.1", "", "train.lr (x.toml): is required and missing"),
    ('[model]\nname = "small-cnn"', "", "model (x.toml): is required and missing"),
    # Types
    ("rounds = 30", 'rounds = "30"', 'train.rounds = "30" (x.toml): must be a whole number'),
    ("rounds = 30", "rounds = 30.0", "train.rounds = 30.0 (x.toml): must be a whole number"),
    ("rounds = 30", "rounds = true", "train.rounds = true (x.toml): must be a whole number"),
    ("lr = 0.1", 'lr = "0.1"', 'train.lr = "0.1" (x.toml): must be a finite number'),
    ("lr = 0.1", "lr = nan", "train.lr = nan (x.toml): must be a finite number"),
    ("lr = 0.1", "lr = inf", "train.lr = inf (x.toml): must be a finite number"),
    ("lr = 0.1", "lr = 2024-01-31", "train.lr = 2024-01-31 (x.toml): must be a finite number"),
    ("seeds =", "cache = 1\nseeds =", "cache = 1 (x.toml): must be true or false"),
    ('name = "broken"', "name = 3", "name = 3 (x.toml): must be a string in quotes"),
    ("seeds = [1, 2]", "seeds = 1", "seeds = 1 (x.toml): must be a list, such as [1]"),
    ("seeds = [1, 2]", 'seeds = [1, "2"]', 'seeds[2] = "2" (x.toml): must be a whole number'),
    (
        "[engine]\nworkers = 1",
        "[[engine]]\nworkers = 1",
        "engine (x.toml): must be a table, written [engine]",
    ),
    ("seeds =", "smoke = 3\nseeds =", "smoke = 3 (x.toml): must be a table, written [smoke]"),
    (
        "[recover]",
        "[method.extra]\n[recover]",
        "method[2].extra (x.toml): unknown key; method[2] takes name, label",
    ),
    (
        '[[method]]\nname = "puf"\nscale = 2\n[[method]]\nname = "natural"',
        '[method]\nname = "puf"',
        "method (x.toml): must be a list of tables, each written [[method]]",
    ),
    # Values
    ("lr = 0.1", "lr = -0.1", "train.lr = -0.1 (x.toml): must be > 0"),
    ("lr = 0.1", "lr = 0.1\nlr-decay = 1.5", "train.lr-decay = 1.5 (x.toml): must be <= 1"),
    ("lr = 0.1", "lr = 0.1\nmomentum = 1", "train.momentum = 1 (x.toml): must be < 1"),
    ("rounds = 30", "rounds = 0", "train.rounds = 0 (x.toml): must be >= 1"),
    ("num-clients = 5", "num-clients = 0", "federation.num-clients = 0 (x.toml): must be >= 1"),
    ("num-clients = 5", "quorum = 0", "federation.quorum = 0 (x.toml): must be > 0"),
    ("validation = 0.1", "validation = 1", "data.validation = 1 (x.toml): must be < 1"),
    ("seeds = [1, 2]", "seeds = []", "seeds = [] (x.toml): must not be empty"),
    ("seeds = [1, 2]", "seeds = [1, 1]", "seeds = [1, 1] (x.toml): must not repeat an entry"),
    ("seeds = [1, 2]", "seeds = [-1]", "seeds[1] = -1 (x.toml): must be >= 0"),
    (
        'name = "broken"',
        'name = "a/../b"',
        'name = "a/../b" (x.toml): may contain only letters, digits and . _ + -, as it names files',
    ),
    (
        'name = "broken"',
        'name = ".hidden"',
        'name = ".hidden" (x.toml): must begin with a letter or a digit, as it names files',
    ),
    (
        'name = "broken"',
        'name = ""',
        'name = "" (x.toml): must begin with a letter or a digit, as it names files',
    ),
    (
        'name = "broken"',
        f'name = "{"long " * 40}"',
        f'name = "{"long " * 15}lon… (x.toml): may contain only letters, digits and . _ + -, as it names files',
    ),
    (
        'partition = "dirichlet"',
        'partition = "dirichelt"',
        'data.partition = "dirichelt" (x.toml): must be one of "iid", "dirichlet", "pathological", "shards", '
        '"file", "site", or "package.module:object"; did you mean "dirichlet"?',
    ),
    (
        'name = "small-cnn"',
        'name = "vgg"',
        'model.name = "vgg" (x.toml): must be one of "mlp", "small-cnn", "resnet18", "vit", "mit-b0", "unet", '
        'or "package.module:object"',
    ),
    (
        "validation = 0.1",
        'augmentation = "cutout"',
        'data.augmentation = "cutout" (x.toml): must be one of "none", "rotate-crop-flip", "enlarge-crop-flip", '
        '"rot90-flip", "crop", "crop-flip", "randaugment", "autoaugment", "random-erasing", "augmix", '
        '"trivialaugment", or "package.module:object"; or several, joined by +',
    ),
    (
        "validation = 0.1",
        'augmentation = "crop-flip+none"',
        'data.augmentation = "crop-flip+none" (x.toml): "none" cannot be combined; leave it out',
    ),
    (
        "validation = 0.1",
        'augmentation = "crop+augmix+crop"',
        'data.augmentation = "crop+augmix+crop" (x.toml): must not repeat a name',
    ),
    (
        "validation = 0.1",
        'augmentation = "enlarge-crop-flip"',
        'data.augmentation = "enlarge-crop-flip" (x.toml): belongs to a model that enlarges its '
        "images to input-size, such as mit-b0",
    ),
    # Not yet, and never
    (
        'until = "retrain-accuracy"',
        'until = "reference-accuracy"',
        'recover.until = "reference-accuracy" (x.toml): belongs to a live federation, that is, one with [requests]',
    ),
    (
        'name = "natural"',
        'name = "retrain"',
        'method[2].name = "retrain" (x.toml): is always computed; leave this [[method]] out',
    ),
    # The engine
    (
        "workers = 1",
        'name = "flower"',
        'engine.name = "flower" (x.toml): must be one of "local", "ray", "auto"',
    ),
    ("seeds =", 'numerics = "quick"\nseeds =', 'numerics = "quick" (x.toml): must be one of "exact", "fast"'),
    ("workers = 1", "workers = 0", "engine.workers = 0 (x.toml): must be >= 1"),
    ("workers = 1", "batch-clients = 0", "engine.batch-clients = 0 (x.toml): must be >= 1"),
    ("workers = 1", 'compile = "yes"', 'engine.compile = "yes" (x.toml): must be true or false'),
    (
        "workers = 1",
        'precision = "bf16"',
        'engine.precision = "bf16" (x.toml): must be one of "float32", "float64", "bfloat16"; '
        'did you mean "bfloat16"?',
    ),
    ("workers = 1", "ray = 8", "engine.ray = 8 (x.toml): must be a table, written [engine.ray]"),
    ("workers = 1", "ray.gpus = 1", "engine.ray.gpus = 1 (x.toml): " + RAY_TAKES),
    ("workers = 1", 'ray.address = ""', 'engine.ray.address = "" (x.toml): must not be empty'),
    ("workers = 1", "ray.address = 6379", "engine.ray.address = 6379 (x.toml): must be a string in quotes"),
    (
        "workers = 1",
        "ray.cpus-per-worker = 0",
        "engine.ray.cpus-per-worker = 0 (x.toml): must be >= 0.0001",
    ),
    ("workers = 1", "ray.gpus-per-worker = -1", "engine.ray.gpus-per-worker = -1 (x.toml): must be >= 0"),
    (
        "workers = 1",
        "ray.gpus-per-worker = 1.5",
        "engine.ray.gpus-per-worker = 1.5 (x.toml): "
        "must be 0, a share of one GPU (0.0001 to 1), or a whole number of GPUs",
    ),
    # Whom to forget
    (
        "targets = [[0], [2, 3]]",
        "",
        'targets (x.toml): is missing; say what to forget, such as targets = "each", or [[target]] or [[forget]] '
        "entries; or write [requests] for a live federation",
    ),
    (
        "[engine]",
        TIMELINE + "[engine]",
        "forget (x.toml): give either targets or [[forget]] entries, not both",
    ),
    (
        "targets = [[0], [2, 3]]",
        'targets = "all"',
        'targets = "all" (x.toml): must be a list of lists, "each" or a table of draw and size',
    ),
    ("targets = [[0], [2, 3]]", "targets = [0, 1]", "targets[1] = 0 (x.toml): must be a list, such as [0]"),
    ("targets = [[0], [2, 3]]", "targets = [[0], []]", "targets[2] = [] (x.toml): must not be empty"),
    ("[2, 3]]", "[2, 2]]", "targets[2] = [2, 2] (x.toml): must not repeat an entry"),
    (
        "[2, 3]]",
        "[2, 5]]",
        "targets[2] = [2, 5] (x.toml): there is no client 5; federation.num-clients = 5, counted from 0",
    ),
    (
        "[2, 3]]",
        "[4, 1, 0, 2, 3]]",
        "targets[2] = [4, 1, 0, 2, 3] (x.toml): "
        "nobody would be left to learn from; leave at least one client",
    ),
    (
        "[[0], [2, 3]]",
        "[[3, 2], [2, 3]]",
        "targets[2] = [2, 3] (x.toml): this set is already listed; list each set once",
    ),
    (
        "[[0], [2, 3]]",
        "{draw = 1, size = 5}",
        "targets.size = 5 (x.toml): must be < federation.num-clients = 5",
    ),
    (
        "[[0], [2, 3]]",
        "{draw = 11, size = 2}",
        "targets.draw = 11 (x.toml): must be <= 10, the number of distinct sets",
    ),
    # Contradictions
    (
        "lr = 0.1",
        'lr = 0.1\noptimizer = "adam"\nmomentum = 0.9',
        'train.momentum = 0.9 (x.toml): must be 0 with optimizer = "adam"; it belongs to "sgd"',
    ),
    (
        'name = "natural"',
        'name = "natural"\nscale = 2.0',
        'method[2].scale = 2.0 (x.toml): belongs to name = "puf"; leave it out',
    ),
    (
        'name = "natural"',
        'name = "natural"\nmode = "special"',
        'method[2].mode = "special" (x.toml): belongs to name = "puf"; leave it out',
    ),
    (
        'name = "natural"',
        'name = "puf"',
        'method[2].label = "puf-special-2" (x.toml): method[1] has the same label; labels must differ',
    ),
    (
        "scale = 2",
        'label = "retrain"',
        'method[1].label = "retrain" (x.toml): is the label of rows that every scorecard has; choose another',
    ),
    (
        'partition = "dirichlet"',
        'partition = "file"',
        'data.partition-file (x.toml): is required by partition = "file"',
    ),
    (
        'partition = "dirichlet"',
        'partition = "dirichlet"\npartition-file = "p.json"',
        'data.partition-file = "p.json" (x.toml): belongs to partition = "file"; leave it out',
    ),
    (
        'source = "mnist5k"',
        'source = "cifar10"',
        'data.directory (x.toml): is required by source = "cifar10"',
    ),
    (
        "validation = 0.1",
        "validation = 0",
        'data.validation = 0.0 (x.toml): must be > 0, as recover.until = "retrain-accuracy" '
        "is judged on validation data",
    ),
    (
        "workers = 1",
        'precision = "bfloat16"',
        'engine.precision = "bfloat16" (x.toml): must be "float32" or "float64" with numerics = "exact"; '
        'for bfloat16 write numerics = "fast"',
    ),
    (
        "workers = 1",
        "batch-clients = 8",
        'engine.batch-clients = 8 (x.toml): must be 1 with numerics = "exact"; '
        'for stacks of clients write numerics = "fast"',
    ),
    (
        "workers = 1",
        'name = "auto"\nbatch-clients = 8',
        'engine.batch-clients = 8 (x.toml): must be 1 with numerics = "exact"; '
        'for stacks of clients write numerics = "fast"',
    ),
    (
        "workers = 1",
        "compile = true",
        'engine.compile = true (x.toml): must be false with numerics = "exact"; '
        'to compile, write numerics = "fast"',
    ),
    (
        "workers = 1",
        'name = "ray"\ndevice = "cuda"\nray.gpus-per-worker = 0',
        'engine.ray.gpus-per-worker = 0.0 (x.toml): must be > 0 with engine.device = "cuda"; '
        "leave it out for one GPU each",
    ),
    (
        'source = "mnist5k"',
        'source = "mnist5k"\ndirectory = "data"',
        'data.directory = "data" (x.toml): belongs to source = "cifar10", "cifar100" or '
        '"prostate-mri"; leave it out',
    ),
    # Syntax
    (
        "rounds = 30",
        "rounds 30",
        "line 13 (x.toml): not valid TOML: Expected '=' after a key in a key/value pair",
    ),
    ("workers = 1\n", "workers =", "line 23 (x.toml): not valid TOML: Invalid value"),
    # The [smoke] table is checked although nobody asked for it
    (
        "[engine]",
        '[smoke]\n"train.round" = 3\n[engine]',
        "train.round = 3 ([smoke] of x.toml): unknown key; did you mean train.rounds?",
    ),
    (
        "[engine]",
        '[smoke]\n"train rounds" = 3\n[engine]',
        "train rounds ([smoke] of x.toml): must be a dotted key, such as train.lr or method[2].scale",
    ),
]

BROKEN_TIMELINES = [
    ("at-round = 10", "", "forget[1].at-round (x.toml): is required and missing"),
    ("at-round = 10", "at-round = 0", "forget[1].at-round = 0 (x.toml): must be >= 1"),
    ("at-round = 12", "at-round = 31", "forget[2].at-round = 31 (x.toml): must be <= train.rounds = 30"),
    (
        "clients = [2, 3]",
        "clients = [2, 7]",
        "forget[2].clients = [2, 7] (x.toml): "
        "there is no client 7; federation.num-clients = 5, counted from 0",
    ),
    (
        "clients = [2, 3]",
        "clients = [2, 0]",
        "forget[2].clients = [2, 0] (x.toml): client 0 is already in forget[1]; name it once",
    ),
    (
        "clients = [2, 3]",
        "clients = [1, 2, 3, 4]",
        "forget[2].clients = [1, 2, 3, 4] (x.toml): "
        "nobody would be left to learn from; leave at least one client",
    ),
]


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def refusal(text: str) -> str:
    Path("x.toml").write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError) as raised:
        load("x.toml")
    return str(raised.value)


def test_the_files_that_are_broken_below_work_unbroken() -> None:
    Path("x.toml").write_text(WORKING, encoding="utf-8")
    load("x.toml")
    Path("x.toml").write_text(timeline(), encoding="utf-8")
    load("x.toml")


def timeline() -> str:
    return WORKING.replace("targets = [[0], [2, 3]]\n", "") + TIMELINE


@pytest.mark.parametrize(("old", "new", "message"), BROKEN)
def test_broken_file(old: str, new: str, message: str) -> None:
    assert WORKING.count(old) >= 1
    assert refusal(WORKING.replace(old, new, 1)) == message
    assert "\n" not in message


def test_each_of_one_client() -> None:
    text = WORKING.replace("targets = [[0], [2, 3]]", 'targets = "each"').replace(
        "clients = 5", "clients = 1"
    )
    wanted = 'targets = "each" (x.toml): nobody would be left to learn from; leave at least one client'
    assert refusal(text) == wanted


@pytest.mark.parametrize(("old", "new", "message"), BROKEN_TIMELINES)
def test_broken_timeline(old: str, new: str, message: str) -> None:
    assert timeline().count(old) == 1
    assert refusal(timeline().replace(old, new)) == message


LIVE = """\
name = "live"
data.source = "digits"
federation.num-clients = 5
model.name = "mlp"
train = { rounds = 4, lr = 1 }
recover.until = "reference-accuracy"
[[method]]
name = "puf"
[requests]
window = 5
"""

# What is replaced in LIVE, by what, and the whole line that refuses it.
BROKEN_LIVE = [
    (
        "[requests]",
        "[[forget]]\nclients = [0]\nat-round = 1\n[requests]",
        "forget (x.toml): must be left out with [requests]: in a live federation requests arrive while it runs",
    ),
    (
        'name = "live"',
        'name = "live"\ntargets = "each"',
        "targets (x.toml): must be left out with [requests]: in a live federation requests arrive while it runs",
    ),
    (
        'name = "live"',
        'name = "live"\nseeds = [1, 2]',
        "seeds = [1, 2] (x.toml): must be a single seed with [requests]: a live federation runs once",
    ),
    (
        "[requests]",
        '[[method]]\nname = "natural"\n[requests]',
        "method (x.toml): must be a single entry with [requests]: a live federation has one method",
    ),
    (
        'recover.until = "reference-accuracy"',
        "",
        'recover.until = "retrain-accuracy" (x.toml): must be "reference-accuracy" or "max-rounds": '
        "a live federation retrains nothing",
    ),
    (
        "window = 5",
        'offline = "stored"',
        'requests.store-updates = false (x.toml): must be true with offline = "stored", which forgets with '
        "the last stored update",
    ),
    (
        'name = "puf"\n[requests]\nwindow = 5',
        'name = "local-routine"\nroutine = "salun"\n[requests]\noffline = "stored"\nstore-updates = true',
        'requests.offline = "stored" (x.toml): must be "wait" or "exclude" with a local routine, which only the '
        "client itself can run",
    ),
    (
        "window = 5",
        'offline = "exclude"\ndeadline = 60',
        'requests.deadline = 60.0 (x.toml): belongs to offline = "wait"',
    ),
    (
        "window = 5",
        'window = 5\n[retention]\nquarantine = "aside"',
        'retention.quarantine = "aside" (x.toml): has no effect with earlier = "purge"; leave it out, or write '
        'earlier = "quarantine"',
    ),
    ("window = 5", "window = -1", "requests.window = -1 (x.toml): must be >= 0"),
    *(
        ("window = 5", f"[guard]\n{key} = {value}", f"guard.{key} = {value} (x.toml): must be {bound}")
        for key, value, bound in (
            ("max-norm", 0, "> 0"),
            ("min-norm", -0.1, ">= 0"),
            ("min-norm", 1, "< 1"),
            ("max-examples", 0.5, ">= 1"),
            ("max-growth", 0.5, ">= 1"),
        )
    ),
    (
        "federation.num-clients = 5",
        'federation = {num-clients = 5, aggregation = "mode"}',
        'federation.aggregation = "mode" (x.toml): must be one of "mean", "trimmed-mean", "median", "krum", '
        '"multi-krum"',
    ),
    (
        "federation.num-clients = 5",
        'federation = {num-clients = 5, aggregation = "krum", hostile-share = 0.5}',
        "federation.hostile-share = 0.5 (x.toml): must be < 0.5",
    ),
    (
        "federation.num-clients = 5",
        'federation = {num-clients = 5, aggregation = "multi-krum", hostile-share = 0.3}',
        'federation.aggregation = "multi-krum" (x.toml): needs at least 7 clients in a round to withstand 2, there '
        'are 5; lower federation.hostile-share, or write "mean"',
    ),
    (
        "federation.num-clients = 5",
        'federation = {num-clients = 5, participation = 0.4, aggregation = "median"}',
        'federation.aggregation = "median" (x.toml): needs at least 3 clients in a round, there are 2; lower '
        'federation.hostile-share, or write "mean"',
    ),
    (
        "federation.num-clients = 5",
        'federation = {num-clients = 3, aggregation = "trimmed-mean", hostile-share = 0.4}',
        'federation.aggregation = "trimmed-mean" (x.toml): needs at least 5 clients in a round to withstand 2, '
        'there are 3; lower federation.hostile-share, or write "mean"',
    ),
    (
        "[requests]\nwindow = 5",
        "[guard]",
        "targets (x.toml): is missing; say what to forget, such as "
        'targets = "each", or [[target]] or [[forget]] entries; or write [requests] for a live federation',
    ),
]


@pytest.mark.parametrize(("old", "new", "message"), BROKEN_LIVE)
def test_broken_live(old: str, new: str, message: str) -> None:
    assert LIVE.count(old) == 1
    assert refusal(LIVE.replace(old, new)) == message


@pytest.mark.parametrize("section", ["guard", "retention"])
def test_live_sections_need_a_live_federation(section: str) -> None:
    expected = f"{section} (x.toml): belongs to a live federation; write [requests], or leave it out"
    assert refusal(WORKING + f"[{section}]\n") == expected


def test_live_defaults_are_written_out() -> None:
    experiment = loads(LIVE)
    assert experiment.live
    assert experiment.guard is not None and experiment.guard.max_norm == 10
    assert experiment.federation.quorum == 0.5, "one client cannot stop the others"
    assert loads(LIVE.replace("clients = 5", "clients = 5\nfederation.quorum = 0.9")).federation.quorum == 0.9
    assert loads(WORKING).federation.quorum == 1.0
    assert experiment.retention is not None and experiment.retention.earlier == "purge"
    assert loads(to_toml(experiment)) == experiment


PARTS = """
name = "parts"
data = {source = "digits"}
federation = {num-clients = 4}
model = {name = "mlp"}
train = {rounds = 3, lr = 0.1}
method = [{name = "natural"}]
[[target]]
clients = [1]
samples = 0.5
"""


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "clients = [1]\n",
            "",
            "target[1].clients (x.toml): is missing; name clients, or classes to forget every client's samples of "
            "them",
        ),
        (
            "clients = [1]",
            "clients = [4]",
            "target[1].clients = [4] (x.toml): there is no client 4; "
            "federation.num-clients = 4, counted from 0",
        ),
        ("samples = 0.5", "samples = 0", "target[1].samples = 0 (x.toml): must be > 0"),
        (
            "samples = 0.5",
            "samples = 1.0",
            "target[1].samples = 1.0 (x.toml): means all of them; leave it out to forget whole clients",
        ),
        (
            "samples = 0.5",
            "samples = true",
            "target[1].samples = true (x.toml): must be a number, a list or a string",
        ),
        (
            "clients = [1]\nsamples = 0.5",
            "clients = [1, 2]\nsamples = [3]",
            "target[1].samples = [3] (x.toml): single "
            "rows belong to one client; name it, or give a file of rows by client",
        ),
        ("samples = 0.5", "classes = []", "target[1].classes = [] (x.toml): must not be empty"),
        (
            "samples = 0.5",
            "samples = 0.5\n[[target]]\nclients = [1]\nsamples = 0.5",
            "target[2] (x.toml): is already listed; list each once",
        ),
        (
            "[[target]]",
            "[[forget]]\nat-round = 4",
            "forget[1].at-round = 4 (x.toml): must be <= train.rounds = 3",
        ),
        (
            'name = "natural"',
            'name = "natural", routine = "salun"',
            'method[1].routine = "salun" (x.toml): belongs to name = "local-routine"; leave it out',
        ),
        (
            'name = "natural"',
            'name = "local-routine"',
            'method[1].routine (x.toml): is required by name = "local-routine"',
        ),
    ],
)
def test_broken_parts(old: str, new: str, message: str) -> None:
    assert PARTS.count(old) == 1
    assert refusal(PARTS.replace(old, new)) == message


def test_parts_and_whole_clients_are_numbered_as_they_come() -> None:
    text = PARTS + "[[target]]\nclasses = [7, 2]\n[[target]]\nclients = [3, 0]\n"
    experiment = loads(text)
    assert experiment.target_sets(1) == ((4,), (5, 6, 7, 8), (0, 3))
    assert experiment.parts[4] == Part(4, 1, samples=0.5)
    assert experiment.parts[7] == Part(7, 2, classes=(2, 7))
    assert loads(to_toml(experiment)) == experiment


def test_rows_come_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "rows.json"
    text = PARTS.replace("clients = [1]\nsamples = 0.5", f'clients = [1, 2]\nsamples = "{file}"')
    file.write_text('{"1": [5, 0], "2": [7]}')
    experiment = loads(text)
    assert [experiment.parts[n].samples for n in (4, 5)] == [(0, 5), (7,)]
    for content, complaint in {
        "{": "is not JSON",
        "[1]": "with 2 clients",
        '{"1": [0]}': "client 2 must have a list of distinct rows",
        '{"1": [0, 0], "2": [1]}': "client 1 must have",
        '{"1": [-1], "2": [1]}': "client 1 must have",
    }.items():
        file.write_text(content)
        with pytest.raises(ConfigError, match=complaint):
            loads(text).parts  # noqa: B018
    file.unlink()
    with pytest.raises(ConfigError, match="cannot be read"):
        loads(text).parts  # noqa: B018
