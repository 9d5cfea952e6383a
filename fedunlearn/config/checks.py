"""Contradictions: settings that are fine one by one and cannot be run together."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, get_args

from fedunlearn import plugins
from fedunlearn.config.augmentation import contradictions_of
from fedunlearn.config.components import type_of
from fedunlearn.config.conditions import Must, Name
from fedunlearn.config.settings import Contradiction
from fedunlearn.config.targets import MOST_IN_TURN, MOST_PARTS, DrawnTargets, Wanted

if TYPE_CHECKING:
    from fedunlearn.config.experiment import Experiment

_NOBODY_LEFT = "nobody would be left to learn from; leave at least one client"


def contradictions(experiment: Experiment) -> Iterator[Contradiction]:
    """Yield what in an experiment contradicts something else in it, from the top of the file to its end."""
    yield from _what_to_forget(experiment)
    yield from _targets(experiment)
    yield from _timeline(experiment)
    yield from _live(experiment)
    yield from _aggregation(experiment)
    yield from _data(experiment)
    yield from _training(experiment)
    yield from _methods(experiment)
    yield from _recovery(experiment)
    yield from _engine(experiment)
    yield from _measures(experiment)


def _what_to_forget(experiment: Experiment) -> Iterator[Contradiction]:
    if not experiment.branching and not experiment.forget and not experiment.live:
        yield (
            "targets",
            None,
            'is missing; say what to forget, such as targets = "each", or [[target]] or [[forget]] entries; or write '
            "[requests] for a live federation",
        )
    if experiment.targets is not None and experiment.target:
        yield "target", None, "give either targets or [[target]] entries, not both"
    if experiment.branching and experiment.forget:
        given = "targets" if experiment.targets is not None else "[[target]]"
        yield "forget", None, f"give either {given} or [[forget]] entries, not both"
    if experiment.live and (experiment.branching or experiment.forget):
        scripted = (
            "forget" if experiment.forget else "targets" if experiment.targets is not None else "target"
        )
        yield (
            scripted,
            None,
            "must be left out with [requests]: in a live federation requests arrive while it runs",
        )


def _live(experiment: Experiment) -> Iterator[Contradiction]:
    requests = experiment.requests
    if requests is None:
        for name in ("guard", "retention"):
            if getattr(experiment, name) is not None:
                yield name, None, "belongs to a live federation; write [requests], or leave it out"
        return
    if experiment.floor.given_retrainings is not None:
        yield (
            "floor",
            None,
            "must be left out with [requests]: a live federation is not compared with retrainings",
        )
    if len(experiment.methods) != 1:
        yield "method", None, "must be a single entry with [requests]: a live federation has one method"
    if len(experiment.seeds) != 1:
        yield (
            "seeds",
            experiment.seeds,
            "must be a single seed with [requests]: a live federation runs once",
        )
    if requests.offline == "stored" and not requests.store_updates:
        right = 'must be true with offline = "stored", which forgets with the last stored update'
        yield "requests.store-updates", requests.store_updates, right
    if requests.deadline is not None and requests.offline != "wait":
        yield "requests.deadline", requests.deadline, 'belongs to offline = "wait"'
    retention = experiment.retention
    if retention is not None and retention.quarantine is not None and retention.earlier != "quarantine":
        right = f'has no effect with earlier = "{retention.earlier}"; leave it out, or write earlier = "quarantine"'
        yield "retention.quarantine", retention.quarantine, right


def _targets(experiment: Experiment) -> Iterator[Contradiction]:
    targets, num_clients = experiment.targets, experiment.federation.num_clients
    if targets == "each" and num_clients > MOST_IN_TURN:
        yield (
            "targets",
            targets,
            f"would forget {num_clients:,} clients in turn and retrain {2 * num_clients:,} federations; draw some "
            "of them, such as targets = {draw = 10}, or list them",
        )
    elif targets == "each" and num_clients == 1:
        yield "targets", targets, _NOBODY_LEFT
    elif isinstance(targets, DrawnTargets):
        if targets.size >= num_clients:
            yield "targets.size", targets.size, f"must be < federation.num-clients = {num_clients}"
        elif targets.draw > (different := _different(num_clients, targets.size, targets.draw)):
            yield "targets.draw", targets.draw, f"must be <= {different}, the number of distinct sets"
    elif isinstance(targets, tuple):
        listed: set[frozenset[int]] = set()
        for index, clients in enumerate(targets, start=1):
            yield from _clients(f"targets[{index}]", clients, num_clients)
            if frozenset(clients) in listed:
                yield f"targets[{index}]", clients, "this set is already listed; list each set once"
            listed.add(frozenset(clients))


def _different(num_clients: int, size: int, enough: int) -> int:
    """Return how many sets of clients there are, or any number >= `enough`: all of them have too many digits."""
    if size > enough and num_clients - size > enough:
        return enough  # each client in turn left out of, or added to, some set
    return math.comb(num_clients, size)


def _wanted(experiment: Experiment, path: str, wanted: Wanted) -> Iterator[Contradiction]:
    """Check what one ``[[target]]`` or ``[[forget]]`` entry names."""
    num_clients = experiment.federation.num_clients
    whole = wanted.samples is None and wanted.classes is None
    if wanted.clients is None and wanted.classes is None:
        yield (
            f"{path}.clients",
            None,
            "is missing; name clients, or classes to forget every client's samples of them",
        )
    elif wanted.clients is not None and whole:
        yield from _clients(f"{path}.clients", wanted.clients, num_clients)
    elif wanted.clients is not None and max(wanted.clients) >= num_clients:
        message = f"there is no client {max(wanted.clients)}; federation.num-clients = {num_clients}, counted from 0"
        yield f"{path}.clients", wanted.clients, message
    if not whole and experiment.data.task == "segmentation" and wanted.classes is not None:
        yield (
            f"{path}.classes",
            wanted.classes,
            "is meaningless for masks, as every mask contains every class",
        )
    known = experiment.data.classes
    if wanted.classes is not None and known is not None and max(wanted.classes) >= known:
        message = (
            f'there is no class {max(wanted.classes)}; data.source = "{experiment.data.source}" has {known} classes, '
            "counted from 0"
        )
        yield f"{path}.classes", wanted.classes, message
    if isinstance(wanted.samples, tuple) and (wanted.clients is None or len(wanted.clients) != 1):
        right = "single rows belong to one client; name it, or give a file of rows by client"
        yield f"{path}.samples", wanted.samples, right
    if wanted.samples == 1 and wanted.classes is None:
        yield f"{path}.samples", wanted.samples, "means all of them; leave it out to forget whole clients"


def _number_of_parts(experiment: Experiment) -> Iterator[Contradiction]:
    """Check that what is forgotten can be numbered, before anybody does."""
    wanted: list[tuple[str, Wanted]] = [
        *((f"target[{index}]", entry) for index, entry in enumerate(experiment.target, start=1)),
        *((f"forget[{index}]", entry) for index, entry in enumerate(experiment.forget, start=1)),
    ]
    total = 0
    for path, entry in wanted:
        if entry.samples is not None or entry.classes is not None:
            total += experiment.federation.num_clients if entry.clients is None else len(entry.clients)
        if total > MOST_PARTS:
            message = f"makes {total:,} parts of clients' data to forget; the maximum is {MOST_PARTS:,}"
            yield path, None, message
            return


def _timeline(experiment: Experiment) -> Iterator[Contradiction]:
    num_clients, rounds = experiment.federation.num_clients, experiment.train.rounds
    yield from _number_of_parts(experiment)
    for index, target in enumerate(experiment.target, start=1):
        yield from _wanted(experiment, f"target[{index}]", target)
        if target in experiment.target[: index - 1]:
            yield f"target[{index}]", None, "is already listed; list each once"
    requested: dict[int, int] = {}
    for index, request in enumerate(experiment.forget, start=1):
        path = f"forget[{index}].clients"
        yield from _wanted(experiment, f"forget[{index}]", request)
        if request.at_round > rounds:
            yield f"forget[{index}].at-round", request.at_round, f"must be <= train.rounds = {rounds}"
        if request.clients is None or request.samples is not None or request.classes is not None:
            continue
        for client in request.clients:
            if client in requested:
                message = f"client {client} is already in forget[{requested[client]}]; name it once"
                yield path, request.clients, message
            requested[client] = index
        if len(requested) >= num_clients:
            yield path, request.clients, _NOBODY_LEFT


def _clients(path: str, clients: tuple[int, ...], num_clients: int) -> Iterator[Contradiction]:
    if max(clients) >= num_clients:
        message = f"there is no client {max(clients)}; federation.num-clients = {num_clients}, counted from 0"
        yield path, clients, message
    if len(clients) >= num_clients:
        yield path, clients, _NOBODY_LEFT


def _aggregation(experiment: Experiment) -> Iterator[Contradiction]:
    """Check that a round has as many clients as a robust rule needs to tell f hostile ones from the others."""
    federation = experiment.federation
    if few := federation.too_few(federation.slots):
        right = f'{few}, there are {federation.slots}; lower federation.hostile-share, or write "mean"'
        yield "federation.aggregation", federation.aggregation, right


def _data(experiment: Experiment) -> Iterator[Contradiction]:
    data, model = experiment.data, experiment.model
    for settings in (data.source_settings, data.partition_settings):
        yield from settings.contradictions(experiment, "data")
    if data.partition_settings.of_sites and not data.source_settings.sites:
        right = f'distributes data by site; source = "{data.source}" has no sites'
        yield "data.partition", data.partition, right
    elif data.source_settings.sites and not data.partition_settings.of_sites:
        of_sites = _fitting("partitions", lambda settings: settings.of_sites)
        yield "data.partition", data.partition, f"must be {of_sites}: a site is a client"
    yield from contradictions_of(experiment)
    if data.task not in plugins.KINDS["tasks"].built_in:
        tasks = " or ".join(f'"{task}"' for task in plugins.KINDS["tasks"].built_in)
        yield "data.source", data.source, f'is for the task "{data.task}"; must be for {tasks}'
    elif data.task not in model.settings.tasks:
        fitting = _fitting("models", lambda settings: data.task in settings.tasks)
        right = f'is not for {data.task}, which data.source = "{data.source}" is; must be {fitting}'
        yield "model.name", model.name, right
    else:
        yield from model.settings.contradictions(experiment, "model")


def _fitting(kind: str, fits: Callable[[Any], bool]) -> str:
    """Name the components of fedunlearn's own that would do."""
    return " or ".join(f'"{name}"' for name in plugins.KINDS[kind].built_in if fits(type_of(kind, name)))


def _training(experiment: Experiment) -> Iterator[Contradiction]:
    train = experiment.train
    if train.optimizer != "sgd" and train.momentum:
        message = f'must be 0 with optimizer = "{train.optimizer}"; it belongs to "sgd"'
        yield "train.momentum", train.momentum, message


def _methods(experiment: Experiment) -> Iterator[Contradiction]:
    labels: dict[str, int] = {}
    for index, method in enumerate(experiment.methods, start=1):
        path = f"method[{index}]"
        yield from method.settings.contradictions(experiment, path)
        for condition in (each for each in get_args(Name) if isinstance(each, Must)):
            if not condition.holds(method.label):
                yield f"{path}.label", method.label, f"{condition.text}; give it another"
                break
        if method.label in ("original", "retrain", "floor"):
            yield (
                f"{path}.label",
                method.label,
                "is the label of rows that every scorecard has; choose another",
            )
        if method.label in labels:
            earlier = f"method[{labels[method.label]}]"
            yield f"{path}.label", method.label, f"{earlier} has the same label; labels must differ"
        labels[method.label] = index


def _measures(experiment: Experiment) -> Iterator[Contradiction]:
    unseen = experiment.measures.unseen
    if unseen == "validation" and experiment.data.validation == 0:
        yield "measures.unseen", unseen, "there is no validation split; raise data.validation"


def _recovery(experiment: Experiment) -> Iterator[Contradiction]:
    until = experiment.recover.until
    if until == "retrain-accuracy" and experiment.live:
        yield (
            "recover.until",
            until,
            'must be "reference-accuracy" or "max-rounds": a live federation retrains nothing',
        )
    elif until == "reference-accuracy" and not experiment.live:
        yield "recover.until", until, "belongs to a live federation, that is, one with [requests]"
    elif until == "retrain-accuracy" and experiment.data.validation == 0:
        message = 'must be > 0, as recover.until = "retrain-accuracy" is judged on validation data'
        yield "data.validation", experiment.data.validation, message


def _engine(experiment: Experiment) -> Iterator[Contradiction]:
    engine = experiment.engine
    if experiment.numerics == "exact":
        if engine.precision == "bfloat16":
            message = (
                'must be "float32" or "float64" with numerics = "exact"; for bfloat16 write numerics = "fast"'
            )
            yield "engine.precision", engine.precision, message
        if engine.batch_clients > 1:
            message = 'must be 1 with numerics = "exact"; for stacks of clients write numerics = "fast"'
            yield "engine.batch-clients", engine.batch_clients, message
        if engine.compile:
            message = 'must be false with numerics = "exact"; to compile, write numerics = "fast"'
            yield "engine.compile", engine.compile, message
        if engine.channels_last:
            message = (
                'must be false with numerics = "exact"; for images pixel by pixel write numerics = "fast"'
            )
            yield "engine.channels-last", engine.channels_last, message
    if experiment.data.task != "classification" and engine.batch_clients > 1:
        source = experiment.data.source
        message = f'must be 1 with data.source = "{source}"; only classifiers are trained in stacks'
        yield "engine.batch-clients", engine.batch_clients, message
    if engine.name != "local" and engine.device == "cuda" and engine.ray.gpus_per_worker == 0:
        message = 'must be > 0 with engine.device = "cuda"; leave it out for one GPU each'
        yield "engine.ray.gpus-per-worker", engine.ray.gpus_per_worker, message
