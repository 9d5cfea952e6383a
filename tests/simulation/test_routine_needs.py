"""What `check` says of a routine beside what happens at the clients: every routine, everything that can be asked."""

from dataclasses import dataclass

import pytest
from torch import nn

from fedunlearn import plugins, unlearning, workspace
from fedunlearn.clients.tasks import routine_on
from fedunlearn.errors import ConfigError, UserError
from fedunlearn.federation.answers import ASSIGNMENT, FORGET
from fedunlearn.federation.hosted_routine import Chosen, alternatives, check_routines
from fedunlearn.federation.jobs import ROUTINE
from fedunlearn.models.mlp import MLPSettings
from fedunlearn.requests import Ledger
from fedunlearn.simulation.branches import moments
from fedunlearn.simulation.forecast import forecast
from fedunlearn.simulation.routine_needs import check_models, check_needs
from fedunlearn.simulation.runner import simulate
from tests.e2e.tiny import TINY, tiny

METHODS = unlearning.methods()
VARIANTS = [
    *((name, {}) for name in METHODS),
    ("scrub", {"rewind": True}),
    ("mpru", {"redistribution": "learnt"}),
]
QUICK = {"epochs": 1, "batch-size": 8, "forget-batch-size": 8, "calibration": 20}
HEAD = TINY.replace("targets = [[1]]\n", "").partition("[[method]]")[0]
TAIL = '[recover]\nuntil = "max-rounds"\nmax-rounds = 2\n'
MASKS = (
    HEAD.partition("[data]")[0]
    + '[data]\nsource = "prostate-phantom"\npartition = "site"\ncases = 3\nresize = 16\n'
    + '[federation]\nnum-clients = 6\n[model]\nname = "unet"\nbase-features = 2\nlevels = 2\nnorm = "instance"\n'
    + "[train]\nrounds = 2\nbatch-size = 8\nlr = 0.01\n"
)
IID = HEAD.replace('"dirichlet"\nalpha = 1.0', '"iid"')
ONE_CLASS_EACH = IID.replace('"iid"', '"pathological"\nclasses-per-client = 1')


@dataclass(frozen=True)
class Case:
    """What is asked, and of what federation."""

    asked: str
    head: str = HEAD
    live: bool = False


CASES = {
    "a whole client": Case("[[target]]\nclients = [1]\n"),
    "whole clients by number": Case("", "targets = [[1, 2]]\n" + HEAD),
    "half of a client": Case("[[target]]\nclients = [1]\nsamples = 0.5\n"),
    "all rows of a client one by one": Case(f"[[target]]\nclients = [1]\nsamples = {list(range(32))}\n", IID),
    "a class of everyone": Case("[[target]]\nclasses = [2]\n"),
    "a class of one": Case("[[target]]\nclients = [3]\nclasses = [1]\n"),
    "a class of those who have no other": Case("[[target]]\nclasses = [2]\n", ONE_CLASS_EACH),
    "half of a class": Case("[[target]]\nclasses = [2]\nsamples = 0.5\n"),
    "all classes": Case("[[target]]\nclasses = [0, 1, 2, 3]\n"),
    "pooled, half": Case(
        "[[target]]\nclients = [0]\nsamples = 0.5\n", HEAD.replace("num-clients = 4", "num-clients = 1")
    ),
    "pooled, a class": Case(
        "[[target]]\nclasses = [3]\n", HEAD.replace("num-clients = 4", "num-clients = 1")
    ),
    "part after part": Case(
        "[[forget]]\nclients = [1]\nclasses = [0, 1]\nat-round = 1\n"
        "[[forget]]\nclients = [1]\nclasses = [2, 3]\nat-round = 2\n"
    ),
    "class after class of everyone": Case(
        "[[forget]]\nclasses = [0, 1]\nat-round = 1\n[[forget]]\nclasses = [2, 3]\nat-round = 2\n"
    ),
    "a part, then the client": Case(
        "[[forget]]\nclients = [1]\nsamples = 0.5\nat-round = 1\n[[forget]]\nclients = [1]\nat-round = 2\n"
    ),
    "masks, half of a site": Case("[[target]]\nclients = [1]\nsamples = 0.5\n", MASKS),
    "masks, a site": Case("[[target]]\nclients = [1]\n", MASKS),
    "live": Case("[requests]\n", HEAD, live=True),
}


def entry(name, settings):
    taken = {key.replace("_", "-") for key in METHODS[name].defaults}
    chosen = {key: value for key, value in (QUICK | settings).items() if key in taken}
    words = ", ".join(
        f"{key} = {str(value).lower() if type(value) is bool else repr(value)}"
        for key, value in chosen.items()
    )
    return f'[[method]]\nname = "local-routine"\nroutine = "{name}"\nsettings = {{{words}}}\n'


def experiment_of(case, name, settings):
    return tiny(text=case.head + entry(name, settings) + TAIL + case.asked)


def verdict(experiment):
    """Return what is said before anything runs, or nothing."""
    try:
        check_routines(experiment)
        seed = experiment.seeds[0]
        data = workspace.data_of(experiment, seed)
        if not experiment.live:
            check_needs(experiment, seed, data)
        check_models(experiment, data, workspace.new_model(experiment, data, seed))
    except ConfigError as error:
        return str(error)
    return ""


def outcome(experiment):
    """Return what the clients concerned answer when they are asked in turn, or nothing if all of them can."""
    seed, (method,) = experiment.seeds[0], experiment.methods
    data = workspace.data_of(experiment, seed)
    client = routine_on(experiment, data)
    start = workspace.new_model(experiment, data, seed)
    vector, buffers = start.vector.clone(), start.buffers()
    chosen, earlier = Chosen.by(method), set()
    for moment in moments(experiment, seed):
        numbers = tuple(sorted({k for request in moment.requests for k in request.clients}))
        without = data.parts.without((), numbers, (), () if experiment.branching else earlier)
        assignments = data.parts.assignments(numbers, without)
        merged = []
        for number in numbers:
            client.model.load(vector, buffers)
            config = {"round": moment.at_round + 1, "lr": 0.1, "seed": seed, ROUTINE: chosen.dumps()}
            if number in assignments:
                config[ASSIGNMENT] = assignments[number].dumps()
            try:
                result = client.train(number, FORGET, config)
            except UserError as error:
                return str(error)
            if result.num_examples:
                merged.append((client.model.buffers(), result.num_examples))
        if chosen.method.merge is not None and merged:
            try:
                buffers = chosen.method.merge(*zip(*merged, strict=True)) if len(merged) > 1 else merged[0][0]
            except UserError as error:
                return str(error)
        earlier.update(numbers)
    return ""


@pytest.mark.quick(asked=4)
@pytest.mark.parametrize("asked", CASES)
@pytest.mark.parametrize(
    ("name", "settings"), VARIANTS, ids=lambda value: value if type(value) is str else ""
)
def test_check_says_what_happens(asked, name, settings):
    case = CASES[asked]
    experiment = experiment_of(case, name, settings)
    said = verdict(experiment)
    if case.live:
        # It may be asked anything that a scripted one is: it is refused where any of that is.
        others = ("a whole client", "half of a client", "half of a class")
        assert bool(said) == any(verdict(experiment_of(CASES[other], name, settings)) for other in others)
        return
    happened = outcome(experiment)
    assert bool(said) == bool(happened), (said, happened)
    if said:
        assert said.startswith(f'method[1].routine = "{name}" (experiment tiny): ')
        assert "\n" not in said + happened and happened.startswith(f"{name}: ")


@pytest.mark.slow
def test_every_case_is_refused_for_some_and_every_routine_can_do_something():
    refused = {
        asked: {name for name, settings in VARIANTS if verdict(experiment_of(case, name, settings))}
        for asked, case in CASES.items()
    }
    assert all(0 < len(names) < len(METHODS) for names in refused.values())
    assert set.intersection(*refused.values()) == set()


def test_salun_on_whole_clients_is_refused_with_the_remedy(tmp_path):
    experiment = tiny(text=TINY.partition("[[method]]")[0] + entry("salun", {}) + TAIL)
    message = (
        'method[1].routine = "salun" (experiment tiny): needs retained examples, and a client that is forgotten as a '
        "whole keeps none; forget a part of its data, such as [[target]] clients = [1] samples = 0.5, or use a "
        "routine that needs none, such as gradient-ascent, random-label, bad-teacher"
    )
    for refuse in (forecast, lambda experiment: simulate(experiment, out=tmp_path)):
        with pytest.raises(ConfigError) as refused:
            refuse(experiment)
        assert str(refused.value) == message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("asked", ["all rows of a client one by one", "a class of those who have no other"])
def test_what_only_the_data_tell_is_said_by_check_and_before_a_run(asked, tmp_path):
    experiment = experiment_of(CASES[asked], "salun", {})
    check_routines(experiment)
    for refuse in (forecast, lambda experiment: simulate(experiment, out=tmp_path)):
        with pytest.raises(
            ConfigError,
            match=r"forgetting client \d, .* \(seed 1\) leaves none; forget less",
        ):
            refuse(experiment)
    assert list(tmp_path.iterdir()) == []


def test_what_is_named_as_an_alternative_is_none_that_is_refused():
    for asked in ("a whole client", "masks, a site"):
        names = alternatives(experiment_of(CASES[asked], "salun", {})).removeprefix("such as ").split(", ")
        assert names
        for name in names:
            assert not verdict(experiment_of(CASES[asked], name, {}))


@pytest.mark.parametrize("name", METHODS)
def test_a_model_that_a_routine_cannot_work_on_is_refused_by_check(name, monkeypatch):
    """No architecture of ours is such a one; they are found like it."""

    class Ending(nn.Sequential):
        pass

    def ending(num_classes, in_channels, image_size, settings: MLPSettings):
        return Ending(nn.Flatten(), nn.Linear(in_channels * image_size**2, num_classes), nn.ReLU())

    monkeypatch.setitem(plugins.LOADED, ("models", "mlp"), ending)
    asked = "pooled, a class" if METHODS[name].forgets == ("class",) else "half of a client"
    said = verdict(experiment_of(CASES[asked], name, {}))
    needed = METHODS[name].needs(METHODS[name].settings()).last_layer != "any"
    assert said == (
        f'method[1].routine = "{name}" (experiment tiny): Ending does not end in a linear layer; use another routine'
        if needed and METHODS[name].returns == "model"
        else ""
    )


@pytest.mark.slow
def test_in_a_run_every_routine_that_check_lets_pass_ends_its_request(tmp_path):
    names = [name for name in METHODS if not verdict(experiment_of(CASES["half of a client"], name, {}))]
    case = CASES["half of a client"]
    experiment = tiny(text=case.head + "".join(entry(name, {}) for name in names) + TAIL + case.asked)
    run = simulate(experiment, out=tmp_path)
    with Ledger(run / "requests.sqlite") as ledger:
        for name in names:
            (request,) = ledger.requests(f"{name}-0-s1")
            assert request.state in ("forgotten", "forgotten-unrecovered"), (name, request.reason)
    assert len(names) == sum("samples" in method.forgets for method in METHODS.values())
