"""Every setting of every routine has bounds, and one reader holds them: in a file, a message and in Python."""

import copy
import dataclasses
import json
import math
import pickle
import typing

import numpy as np
import pytest

from fedunlearn import config, unlearning
from fedunlearn.cli.main import app
from fedunlearn.config.conditions import Must
from fedunlearn.config.settings import Settings
from fedunlearn.config.toml_tree import checked, key_of, plain
from fedunlearn.errors import ConfigError
from fedunlearn.federation.hosted_routine import Chosen, modules_of
from fedunlearn.unlearning import Method, Passes
from tests.e2e.tiny import TINY
from tests.server import prober
from tests.unlearning import tiny

METHODS = unlearning.methods()
ALL = [
    (name, field.name) for name, method in METHODS.items() for field in dataclasses.fields(method.settings)
]
NUMBERS = [(name, key) for name, key in ALL if type(METHODS[name].defaults[key]) in (int, float)]


def kind_of(name, key):
    kind = typing.get_type_hints(METHODS[name].settings, include_extras=True)[key]
    return (kind, ()) if not hasattr(kind, "__metadata__") else (kind.__origin__, kind.__metadata__)


def refusal(name, key, value):
    """Return the line that refuses a value, the same from Python, a file and a message."""
    method = METHODS[name]
    with pytest.raises(ConfigError) as built:
        method.settings(**{key: value})
    with pytest.raises(ConfigError) as replaced:
        dataclasses.replace(method.settings(), **{key: value})
    assert str(built.value) == str(replaced.value)
    prefix, _, why = str(built.value).partition("): ")
    assert prefix.startswith(key) and prefix.endswith(f"({method.settings.__name__}")
    written = key.replace("_", "-")
    with pytest.raises(ConfigError) as read:
        Chosen.of(name, {written: value})
    assert str(read.value).startswith(f"settings.{written}") and str(read.value).endswith(
        f" (a local routine): {why}"
    )
    message = json.dumps({"name": name, "settings": {written: value}}, default=repr)
    with pytest.raises(ConfigError, match=r"\(the message of the server\): "):
        Chosen.loads(message)
    assert "\n" not in str(built.value) + str(read.value)
    return why


@pytest.mark.parametrize(("name", "key"), ALL)
def test_no_setting_takes_what_is_no_value_of_it(name, key):
    default = METHODS[name].defaults[key]
    for value in ([], {}, "many", b"1", 1j, None):
        refusal(name, key, value)
    if type(default) is bool:
        refusal(name, key, 1)
    else:
        refusal(name, key, True)


@pytest.mark.parametrize(("name", "key"), NUMBERS)
def test_no_number_is_without_bounds(name, key):
    kind, conditions = kind_of(name, key)
    for value in (-1, 10**30 if kind is int else 10**39, 10**400):
        why = refusal(name, key, value)
        assert why.startswith("must be "), why
    if kind is float:
        for value in (math.nan, math.inf, -math.inf, 1e300, -1e-9):
            assert refusal(name, key, value)
    else:
        assert refusal(name, key, 1.5) == "must be a whole number"
    assert conditions, "one below, and one above"


@pytest.mark.parametrize(("name", "key"), NUMBERS)
def test_what_lies_between_two_numbers_that_are_taken_is_taken(name, key):
    """Sweeps look at the ends of a range alone."""
    kind, conditions = kind_of(name, key)
    tried = [*np.linspace(-1, 2, 31), 1e-30, 1e30] if kind is float else [*range(-2, 5), 2**31 - 1, 2**31]
    held = [all(each.holds(value) for each in conditions) for value in sorted(tried)]
    first, last = held.index(True), len(held) - held[::-1].index(True)
    assert all(held[first:last]) and not held[0]


@pytest.mark.parametrize(("name", "key"), ALL)
def test_a_key_that_is_misspelt_is_named_with_the_right_one(name, key):
    kind = METHODS[name].settings
    wrong = key[:-2] + key[:-3:-1] if len(key) > 2 and key[-1] != key[-2] else f"{key}x"
    for make in (kind, lambda **given: dataclasses.replace(kind(), **given)):
        with pytest.raises(ConfigError) as error:
            make(**{wrong: 3})
        assert str(error.value).startswith(f"{wrong} = 3 ({kind.__name__}): unknown key; ")
        assert key in str(error.value)
        with pytest.raises(ConfigError) as error:
            make(zzz=3)
        known = ", ".join(field.name for field in dataclasses.fields(kind))
        assert str(error.value) == f"zzz = 3 ({kind.__name__}): unknown key; {kind.__name__} takes {known}"


def test_the_typo_of_an_afternoon():
    with pytest.raises(ConfigError, match=r"^epocs = 3 \(SalUn\): unknown key; did you mean epochs\?$"):
        METHODS["salun"].settings(epocs=3)


@pytest.mark.parametrize("name", METHODS)
def test_settings_are_a_dataclass_as_any_other(name):
    settings = METHODS[name].settings()
    for again in (copy.copy(settings), copy.deepcopy(settings), pickle.loads(pickle.dumps(settings))):
        assert again == settings and dataclasses.asdict(again) == dataclasses.asdict(settings)
    assert METHODS[name].settings(*dataclasses.astuple(settings)) == settings


@pytest.mark.parametrize("name", METHODS)
def test_defaults_come_back_from_a_message_and_a_file(name):
    method = METHODS[name]
    chosen = Chosen(name, method.settings())
    assert Chosen.loads(chosen.dumps()) == chosen == Chosen.of(name, {})
    assert issubclass(method.settings, Settings) and method.settings.__dataclass_params__.frozen
    assert plain(method.settings()).keys() == {key_of(f) for f in dataclasses.fields(method.settings)}


def test_a_message_names_no_module_that_the_experiment_did_not():
    text = '{"name": "tests.unlearning.tiny:no_routine", "settings": {}}'
    for modules in ((), modules_of(config.loads(TINY))):
        with pytest.raises(
            ConfigError, match=r"\(the message of the server\): must be in a module that the experiment names"
        ):
            Chosen.loads(text, modules)
    with pytest.raises(ConfigError, match=r"^routine = 'tests\.unlearning\.tiny:no_routine'"):
        Chosen.loads(text, ("tests.unlearning.tiny",))  # that one is looked into, and has none


def test_a_message_may_name_a_routine_beside_the_experiment_s_own_strategy_or_routine():
    text = '[[method]]\nname = "tests.server.prober:Prober"\n'
    modules = modules_of(config.loads(TINY + text))
    chosen = Chosen("tests.server.prober:PULL", prober.PullSettings(rate=0.3))
    assert Chosen.loads(chosen.dumps(), modules) == chosen


def test_a_number_too_long_to_print_is_refused_in_one_line():
    with pytest.raises(ConfigError, match=r"^epochs = -0x[0-9a-f]+… \(FineTune\): must be >= 1$"):
        METHODS["fine-tune"].settings(epochs=-(10**5000))


def test_numbers_of_numpy_are_numbers():
    settings = METHODS["fine-tune"].settings(lr=np.float64(0.5), epochs=np.int64(3), weight_decay=0)
    assert settings == METHODS["fine-tune"].settings(lr=0.5, epochs=3, weight_decay=0.0)
    assert (type(settings.lr), type(settings.epochs), type(settings.weight_decay)) == (float, int, float)
    with pytest.raises(ConfigError, match="must be true or false"):
        METHODS["scrub"].settings(rewind=np.bool_(True))


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "7", '{"name": "salun"}', "[" * 100_000, '{"name": "salun", "settings": 3}']
)
def test_a_message_that_is_none_is_refused_in_one_line(text):
    with pytest.raises(ConfigError, match="the message of the server"):
        Chosen.loads(text)


# -- settings of other packages -------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Theirs:
    lr: typing.Annotated[float, Must(lambda v: v > 0, "must be > 0")] = 0.1
    parts: tuple[int, ...] = (1, 2)
    most: int | None = None


def theirs(settings=Theirs):
    return Method(
        "theirs", settings, lambda model, *_, **__: model.copy(), "us", lambda settings: Passes(0, 0)
    )


def test_a_plain_dataclass_is_held_to_its_annotations_when_the_method_is_called():
    method, (forget, retain) = theirs(), (tiny.examples(3, 1), tiny.examples(3, 2))
    method(tiny.flat(), forget, retain, generator=tiny.generator(), settings=Theirs(most=3))
    with pytest.raises(ConfigError, match=r"^lr = -1 \(Theirs\): must be > 0$"):
        method(tiny.flat(), forget, retain, generator=tiny.generator(), settings=Theirs(lr=-1))
    assert checked(Theirs(parts=[3])).parts == (3,)


@dataclasses.dataclass(frozen=True)
class Unreadable:
    where: complex = 1j


@dataclasses.dataclass(frozen=True)
class Wrong:
    lr: typing.Annotated[float, Must(lambda v: v > 0, "must be > 0")] = 0.0


@pytest.mark.parametrize("settings", [Unreadable, Wrong, dict, Theirs()])
def test_settings_that_no_file_could_give_are_refused_when_the_method_is_made(settings):
    with pytest.raises((TypeError, ConfigError)):
        theirs(settings)


# -- the command line -----------------------------------------------------------------------------------------

SALUN = '[[method]]\nname = "local-routine"\nroutine = "salun"\n'
PART = "[[target]]\nclients = [1]\nsamples = 0.5\n"


@pytest.mark.parametrize(
    ("more", "arguments", "message"),
    [
        ("settings = {saliency = -0.2}", [], "method[3].settings.saliency = -0.2 ({}): must be > 0 and <= 1"),
        ("settings = {batch-size = 0}", [], "method[3].settings.batch-size = 0 ({}): must be >= 1"),
        (
            "",
            ["--set", "method[3].settings.epochs=-1"],
            "method[3].settings.epochs = -1 (--set method[3].settings.epochs=-1): must be >= 1",
        ),
        (
            '[smoke]\n"method[3].settings.lr" = 0',
            [],
            "method[3].settings.lr = 0 ([smoke] of {}): must be > 0",
        ),
        (
            "settings = {epochs = true}",
            ["--smoke"],
            "method[3].settings.epochs = true ({} with [smoke]): must be a whole number",
        ),
    ],
)
@pytest.mark.parametrize("command", ["check", "run"])
def test_check_and_run_refuse_it_with_its_place_before_anything_is_loaded(
    tmp_path, command, more, arguments, message
):
    from typer.testing import CliRunner

    file = tmp_path / "x.toml"
    text = TINY.replace("targets = [[1]]\n", "") + PART + SALUN + more
    if "--smoke" in arguments:
        text += "\n[smoke]\ntrain.rounds = 1\n"
    file.write_text(text)
    out = ["--out", str(tmp_path / "runs")] if command == "run" else []
    with pytest.raises(ConfigError) as refused:
        CliRunner().invoke(
            app, [command, str(file), *arguments, *out], catch_exceptions=False, standalone_mode=False
        )
    assert str(refused.value) == message.format(file)
    assert not (tmp_path / "runs").exists()
