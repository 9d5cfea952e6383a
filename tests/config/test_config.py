"""What a well-formed experiment file means, and that writing it out loses nothing."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedunlearn import config
from fedunlearn.config import Experiment, digest, load, loads, to_toml
from fedunlearn.config.components import settings_fields
from fedunlearn.config.targets import DrawnTargets, Targets
from fedunlearn.config.toml_tree import plain

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
SMALLEST = """\
name = "smallest"
targets = "each"
data.source = "digits"
model.name = "mlp"
train = { rounds = 4, lr = 1 }
method = [{ name = "puf" }, { name = "natural" }]
"""

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,8}", fullmatch=True)
counts = st.integers(1, 10**9)
shares = st.floats(0, 1, exclude_min=True)
positive = st.floats(0, exclude_min=True, allow_infinity=False)
text = st.text(st.characters(exclude_categories=["Cs"]))
paths = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)


@st.composite
def methods(draw: st.DrawFn) -> tuple[config.MethodConfig, ...]:
    puf = st.builds(
        config.MethodConfig.of,
        name=st.just("puf"),
        mode=st.sampled_from([None, "special", "regular"]),
        scale=st.none() | st.floats(0, 1e6),
        retain_rate=st.none() | st.just(1.0),
        label=st.none() | names,
    )
    natural = st.builds(config.MethodConfig.of, name=st.just("natural"), label=st.none() | names)
    chosen = draw(st.lists(puf | natural, min_size=1, max_size=4, unique_by=lambda method: method.label))
    return tuple(chosen)


@st.composite
def engines(draw: st.DrawFn, numerics: Literal["exact", "fast"]) -> config.EngineConfig:
    fast = numerics == "fast"
    some_gpus = st.floats(0.0001, 1) | st.integers(1, 8).map(float)
    return config.EngineConfig(
        name=draw(st.sampled_from(["local", "ray", "auto"])),
        given_workers=draw(st.none() | counts),
        device=draw(st.sampled_from(["auto", "cpu", "cuda"])),
        given_precision=draw(st.sampled_from([None, "float32", "float64", *["bfloat16"] * fast])),
        given_batch_clients=draw(st.none() | (counts if fast else st.just(1))),
        compile=fast and draw(st.booleans()),
        ray=draw(
            st.builds(
                config.RayConfig,
                address=st.none() | text.filter(bool),
                gpus_per_worker=st.none() | some_gpus,
                cpus_per_worker=st.none() | st.floats(0.0001, 64),
            )
        ),
    )


@st.composite
def experiments(draw: st.DrawFn) -> Experiment:
    """Every setting drawn from its whole range, without contradictions."""
    num_clients = draw(st.integers(4, 60))
    rounds = draw(st.integers(1, 500))
    clients = st.integers(0, num_clients - 1)
    targets: Targets | None = None
    forget: tuple[config.ForgetConfig, ...] = ()
    if draw(st.booleans()):
        sets = st.lists(clients, min_size=1, max_size=3, unique=True).map(tuple)
        listed = st.lists(sets, min_size=1, max_size=4, unique_by=frozenset).map(tuple)
        drawn = st.builds(DrawnTargets, draw=st.integers(1, 4), size=st.integers(1, 3))
        targets = draw(listed | drawn | st.just("each"))
    else:
        order = draw(st.lists(clients, min_size=1, max_size=3, unique=True))
        at_rounds = st.integers(1, rounds)
        forget = tuple(config.ForgetConfig(clients=(client,), at_round=draw(at_rounds)) for client in order)
    numerics: Literal["exact", "fast"] = draw(st.sampled_from(["exact", "fast"]))
    optimizer: Literal["sgd", "adam"] = draw(st.sampled_from(["sgd", "adam"]))
    source = draw(st.sampled_from(["mnist5k", "digits", "cifar10", "cifar100", "synthetic-images"]))
    made_up = source == "synthetic-images"
    partition = draw(st.sampled_from(["iid", "dirichlet", "pathological", "shards", "file"]))
    return Experiment(
        name=draw(names),
        seeds=tuple(draw(st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=3, unique=True))),
        targets=targets,
        cache=draw(st.booleans()),
        numerics=numerics,
        data=draw(
            st.builds(
                config.DataConfig.of,
                source=st.just(source),
                directory=paths if source.startswith("cifar") else st.none(),
                partition=st.just(partition),
                partition_file=paths if partition == "file" else st.none(),
                alpha=positive if partition == "dirichlet" else st.none(),
                validation=st.floats(0, 1, exclude_min=True, exclude_max=True),
                difficulty=st.floats(0, 1) if made_up else st.none(),
                num_train=st.integers(1, 10**6) if made_up else st.none(),
            )
        ),
        federation=config.FederationConfig(
            num_clients=num_clients, participation=draw(shares), given_quorum=draw(shares)
        ),
        model=config.ModelConfig.of(name="mlp", hidden=tuple(draw(st.lists(counts, max_size=3)))),
        train=config.TrainConfig(
            rounds=rounds,
            optimizer=optimizer,
            lr=draw(positive),
            lr_decay=draw(shares),
            momentum=draw(st.floats(0, 1, exclude_max=True)) if optimizer == "sgd" else 0.0,
        ),
        methods=draw(methods()),
        forget=forget,
        recover=draw(st.builds(config.RecoverConfig, epsilon=st.floats(0, 100), max_rounds=counts)),
        engine=draw(engines(numerics)),
        measures=draw(st.builds(config.MeasuresConfig, per_client=st.booleans(), mia_samples=counts)),
        smoke=draw(
            st.sampled_from(
                [{}, {"train.lr-decay": 0.5, "method[1].label": "label-of-a-smoke-run"}, {"seeds": [1, 2]}]
            )
        ),
        smoke_run=draw(st.booleans()),
    )


@given(experiments())
def test_writing_and_reading_gives_the_same_experiment(experiment: Experiment) -> None:
    written = to_toml(experiment)
    assert loads(written) == experiment
    assert to_toml(loads(written)) == written
    assert digest(loads(written)) == digest(experiment)


@pytest.mark.parametrize("path", sorted(EXPERIMENTS.rglob("*.toml")), ids=lambda path: path.stem)
def test_every_shipped_experiment_reads_and_its_smoke_run_is_smaller(path: Path) -> None:
    whole, smoke = load(path), load(path, smoke=True)
    assert smoke.train.rounds < whole.train.rounds
    assert loads(to_toml(whole)) == whole
    assert loads(to_toml(smoke)) == smoke


def test_quickstart_and_timeline_are_what_they_promise() -> None:
    quickstart = load(EXPERIMENTS / "quickstart.toml")
    assert isinstance(quickstart.targets, DrawnTargets) and quickstart.targets.draw >= 3
    assert quickstart.data.partition_settings.alpha >= 0.1
    assert quickstart.recover.max_rounds <= 15
    assert {method.name for method in quickstart.methods} == {"puf", "natural"}
    requests = load(EXPERIMENTS / "timeline.toml").forget
    assert sorted(len(request.clients) for request in requests) == [1, 1, 2]
    arrivals = [request.at_round for request in requests]
    assert arrivals == sorted(arrivals)
    assert arrivals[1] - arrivals[0] <= 2  # the first request is still recovering


def test_defaults_and_whole_numbers_for_fractions() -> None:
    experiment = loads(SMALLEST)
    assert experiment.train.lr == 1.0 and type(experiment.train.lr) is float
    assert experiment.seeds == (1,)
    assert experiment.federation == config.FederationConfig(
        num_clients=10, participation=1.0, given_quorum=1.0
    )
    assert digest(experiment) == digest(loads(SMALLEST.replace("lr = 1", "lr = 1.0")))


def test_puf_settings_default_to_the_authors_for_its_mode() -> None:
    def puf(more: str) -> config.MethodConfig:
        return loads(SMALLEST.replace('name = "puf"', f'name = "puf", {more}')).methods[0]

    special, regular = puf('mode = "special"'), puf('mode = "regular"')
    assert (special.settings.scale, special.label) == (2.0, "puf-special-2")
    assert (regular.settings.scale, regular.label) == (20.0, "puf-regular-20")
    assert "scale = 20.0" in to_toml(loads(SMALLEST.replace('"puf"', '"puf", mode = "regular"', 1)))
    assert puf('mode = "regular", retain-rate = 0.5').label == "puf-regular-20-0.5"
    assert puf("scale = 2.5").label == "puf-special-2.5"
    assert puf('label = "mine"').label == "mine"
    natural = loads(SMALLEST).methods[1]
    assert (plain(natural), natural.label) == ({"name": "natural"}, "natural")


def test_overrides_are_toml_values_or_words_and_the_last_one_wins() -> None:
    overrides = [
        "train.lr=0.5",
        "train.lr = 0.05",
        "train.optimizer=adam",
        "targets=[[1], [2, 3]]",
        "method[1].scale=3",
        "method[2].label='left-out'",
        "seeds[1]=7",
        "data.source=cifar10",
        "data.directory=/a/b c",
        "engine.workers=2",
    ]
    experiment = loads(SMALLEST.replace("targets", "seeds = [1, 2]\ntargets"), overrides=overrides)
    assert (experiment.train.lr, experiment.train.optimizer) == (0.05, "adam")
    assert experiment.targets == ((1,), (2, 3))
    assert [method.label for method in experiment.methods] == ["puf-special-3", "left-out"]
    assert experiment.seeds == (7, 2)
    assert experiment.data.source_settings.directory == "/a/b c"
    assert experiment.engine.workers == 2
    assert loads(to_toml(experiment)) == experiment


def test_smoke_applies_only_when_asked_and_overrides_come_after_it() -> None:
    quoted = f'{SMALLEST}[smoke]\n"train.rounds" = 1\n"targets.draw" = 2\n'
    dotted = f"{SMALLEST}[smoke]\ntrain.rounds = 1\ntargets.draw = 2\n"
    assert loads(quoted) == loads(dotted)
    assert (loads(quoted).train.rounds, loads(quoted).targets) == (4, "each")
    smoke = loads(quoted, smoke=True)
    assert (smoke.train.rounds, smoke.targets) == (1, DrawnTargets(draw=2, size=1))
    assert loads(quoted, smoke=True, overrides=["train.rounds=3"]).train.rounds == 3


def test_a_smoke_run_is_known_as_one_from_its_own_file() -> None:
    text = f"{SMALLEST}[smoke]\ntrain.rounds = 1\n"
    smoke = loads(text, smoke=True, overrides=["train.lr=0.5"])
    assert smoke.smoke_run and loads(to_toml(smoke)).smoke_run
    assert not loads(text).smoke_run
    assert digest(smoke) == digest(loads(text, overrides=["train.rounds=1", "train.lr=0.5"]))


def test_what_belongs_to_a_component_that_is_replaced_goes_with_it() -> None:
    cifar = SMALLEST.replace('"digits"', '"cifar10"').replace("model", 'data.directory = "data"\nmodel')
    smoke = loads(f'{cifar}[smoke]\ndata.source = "synthetic-images"\n', smoke=True)
    assert loads(to_toml(smoke)) == smoke
    assert "directory" not in plain(smoke.data)


def test_an_overridden_experiment_reruns_although_its_smoke_table_no_longer_fits() -> None:
    timeline = (EXPERIMENTS / "timeline.toml").read_text(encoding="utf-8")
    shorter = loads(timeline, overrides=["forget=[{clients = [1], at-round = 2}]"])
    assert loads(to_toml(shorter)) == shorter


CHANGES_NOTHING = {
    "engine.name",
    "engine.given_workers",
    "engine.ray.address",
    "engine.ray.gpus_per_worker",
    "engine.ray.cpus_per_worker",
    "cache",
    "smoke",
    "smoke_run",
    "measures.pictures",
}


def other(value: Any) -> Any:
    """A value of the same kind that differs."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return value + 1
    if isinstance(value, tuple):
        return (*value, value[-1] if value and type(value[-1]) is int else "more")
    if isinstance(value, dict):
        return {**value, "more": 1}
    return f"{value}-other"


OTHERS = {"digits": "mnist5k", "iid": "dirichlet", "mlp": "resnet18"}
"""Another component for each that is named."""


def changed_once(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the path of every setting with a copy of the tree in which only that setting differs."""
    for field in fields(tree):
        value = getattr(tree, field.name)
        settings = {of.named_by: name for name, of in settings_fields(type(tree)).items()}
        if field.name in settings:
            yield path + field.name, replace(tree, **{field.name: OTHERS[value], settings[field.name]: None})
        elif is_dataclass(value):
            for inner, changed in changed_once(value, f"{path}{field.name}."):
                yield inner, replace(tree, **{field.name: changed})
        else:
            yield path + field.name, replace(tree, **{field.name: other(value)})


def test_the_digest_changes_with_every_setting_that_can_change_a_result_and_no_other() -> None:
    experiment = loads(SMALLEST)
    seen = {digest(experiment): "the original"}
    paths = set()
    for path, changed in changed_once(experiment):
        paths.add(path)
        if path in CHANGES_NOTHING:
            assert digest(changed) == digest(experiment), path
        else:
            assert digest(changed) not in seen, (path, seen.get(digest(changed)))
            seen[digest(changed)] = path
    assert paths > CHANGES_NOTHING | {"train.lr", "name", "numerics", "methods"}
    assert paths > {f"engine.{key}" for key in ("threads_per_client", "given_batch_clients", "compile")}


def test_the_digest_sees_inside_methods_and_requests() -> None:
    timeline = load(EXPERIMENTS / "timeline.toml")
    scaled = load(EXPERIMENTS / "timeline.toml", overrides=["method[1].scale=2.5"])
    moved = load(EXPERIMENTS / "timeline.toml", overrides=["forget[1].at-round=19"])
    assert len({digest(timeline), digest(scaled), digest(moved)}) == 3


def test_what_an_experiment_is_needs_neither_torch_nor_flower() -> None:
    program = (
        "import sys; from fedunlearn import config, plugins; "
        "assert all(plugins.names(kind) for kind in plugins.KINDS if kind != 'metrics'); "
        "assert not {'torch', 'flwr', 'ray'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
