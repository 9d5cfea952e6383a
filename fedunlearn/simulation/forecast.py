"""What an experiment will do and cost, worked out without running it."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import torch
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedunlearn import models, terminal, workspace
from fedunlearn.config import Experiment
from fedunlearn.evaluation.metrics import computed
from fedunlearn.federation.hosted_routine import check_routines
from fedunlearn.randomness import torch_generator
from fedunlearn.simulation import histories
from fedunlearn.simulation.branch_forecast import BranchForecast, forecast_branches
from fedunlearn.simulation.capped_rounds import check_cap
from fedunlearn.simulation.copies import Copies
from fedunlearn.simulation.evaluation_forecast import evaluated_with, probe_evaluation
from fedunlearn.simulation.memory import Memory, memory_of
from fedunlearn.simulation.retrainings import choose_retrainings
from fedunlearn.simulation.robust_rounds import check_rounds
from fedunlearn.simulation.routine_needs import check_models, check_needs
from fedunlearn.simulation.shortage import what_would_fit
from fedunlearn.training import train_local

PROBE_BATCH = 64
"""Most examples that the probe trains on at once."""
KIND_NAMES = {
    "original": "original, trained once per seed",
    "retrain": "retrained without the forgotten clients",
    "floor": "retrained with other seeds, for the floor",
    "method": "forget and recover",
}


@dataclass(frozen=True)
class Forecast:
    """The whole plan.

    Attributes
    ----------
    experiment : Experiment
    branches : tuple[BranchForecast, ...]
    parameters : int
        Scalar parameters of the model.
    model_bytes : int
        One model on the wire, buffers included.
    slots : int
        Clients per round.
    seconds_per_example : float
        Of local training on one worker, from a probe of about a second.
    evaluated : int
        Examples that models are run over at most, without training on them.
    seconds_per_evaluated : float
        Of one of these, from a probe.
    memory : Memory
        What is needed of the device at once.
    origin : str
        Where the initial weights are from, if there is a choice.
    notes : tuple of str
        What is there of the data and is not used, and what is there more than once.
    retrainings : str
        How many further retrainings there are beside each retrained model, and why; empty where nothing is retrained.
    history_bytes : int
        What is kept of earlier rounds for methods that forget by it.
    """

    experiment: Experiment
    branches: tuple[BranchForecast, ...]
    parameters: int
    model_bytes: int
    slots: int
    seconds_per_example: float
    evaluated: int
    seconds_per_evaluated: float
    memory: Memory
    origin: str = ""
    notes: tuple[str, ...] = ()
    retrainings: str = ""
    history_bytes: int = 0

    @property
    def seconds(self) -> float:
        """Estimated training time on this machine."""
        workers = self.experiment.engine.workers
        return sum(b.examples for b in self.branches) * self.seconds_per_example / workers

    @property
    def evaluation_seconds(self) -> float:
        """Estimated time of evaluation, which one process does; attacks and distances come on top."""
        return self.evaluated * self.seconds_per_evaluated

    @property
    def disk_bytes(self) -> int:
        """What the kept checkpoints take."""
        return sum(b.checkpoints for b in self.branches) * self.model_bytes


def forecast(experiment: Experiment) -> Forecast:
    """Work out an experiment's branches and costs; loads the data and times a few training steps."""
    check_routines(experiment)
    check_rounds(experiment)
    check_cap(experiment)
    experiment, retrainings = choose_retrainings(experiment)
    found, copies, evaluated = [], Copies(experiment), 0
    computed(experiment.data.task, experiment.measures.metrics)
    for seed in experiment.seeds:
        data = workspace.data_of(experiment, seed)
        of_seed = forecast_branches(experiment, seed, data)
        found += of_seed
        copies.add(seed, data, {each.branch.forget for each in of_seed})
        evaluated += evaluated_with(experiment, seed, data)
        check_needs(experiment, seed, data)
    data = workspace.data_of(experiment, experiment.seeds[0])
    model = workspace.new_model(experiment, data, seed=0)
    check_models(experiment, data, model)
    tensors = [model.vector, *model.buffers().values()]
    return Forecast(
        experiment=experiment,
        branches=tuple(found),
        parameters=model.num_parameters,
        model_bytes=sum(t.numel() * t.element_size() for t in tensors),
        slots=experiment.federation.slots,
        seconds_per_example=_probe(experiment),
        evaluated=evaluated,
        seconds_per_evaluated=probe_evaluation(experiment),
        memory=memory_of(experiment),
        origin=models.origin_of(experiment.model, data.num_classes),
        notes=(*data.notes, *copies.lines()),
        retrainings=retrainings,
        history_bytes=histories.num_bytes(experiment, model.num_parameters),
    )


def examples_of(experiment: Experiment) -> int:
    """Return how many training examples the experiment's clients will see at most, over all its branches."""
    return sum(
        found.examples
        for seed in experiment.seeds
        for found in forecast_branches(experiment, seed, workspace.data_of(experiment, seed))
    )


def _probe(experiment: Experiment, seconds: float = 0.7) -> float:
    """Return the seconds that local training takes per example: the first client's, for about a second."""
    torch.set_num_threads(experiment.engine.threads_per_client)
    data = workspace.data_of(experiment, experiment.seeds[0])
    model, recipe = workspace.new_model(experiment, data, seed=0), workspace.recipe_of(experiment, data)
    images, labels = data.client(0)
    # Large batches take as long per example, and memory that there may not be: that is estimated, not tried.
    train = replace(experiment.train, batch_size=min(experiment.train.batch_size, PROBE_BATCH))
    few = slice(0, 8 * train.batch_size)
    images, labels = images[few], labels[few]

    def step() -> None:
        generator = torch_generator(0, "batches")
        train_local(
            model,
            images,
            labels,
            train,
            lr=experiment.train.lr,
            generator=generator,
            recipe=recipe,
        )

    step()  # first calls allocate and choose kernels
    began, steps = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        step()
        steps += 1
    seen = steps * len(labels) * experiment.train.local_epochs
    return (time.perf_counter() - began) / seen


def size(num_bytes: float) -> str:
    """Return a number of bytes for people: ``82.0 kB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.0f} {unit}" if unit == "B" else f"{num_bytes:.1f} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.1f} TB"


def show(plan: Forecast, console: Console) -> None:
    """Print the plan as a table and a few lines."""
    table = Table(title=f"{plan.experiment.name}: what would run", title_justify="left")
    for heading in ("branches", "", "rounds", "client-epochs", "checkpoints"):
        table.add_column(heading, justify="left" if not heading else "right")
    groups: dict[tuple[str, str], list[BranchForecast]] = {}
    for b in plan.branches:
        groups.setdefault((b.branch.kind, b.branch.label), []).append(b)
    for (kind, label), group in groups.items():
        if plan.experiment.live:
            name = f"{label}: live, excluding requests"
        else:
            name = f"{label}: {KIND_NAMES[kind]}" if kind == "method" else KIND_NAMES[kind]
        table.add_row(
            str(len(group)),
            name,
            f"{sum(b.rounds for b in group):,}",
            f"{sum(b.client_epochs for b in group):,}",
            f"{sum(b.checkpoints for b in group):,}",
        )
    table.add_section()
    table.add_row(
        str(len(plan.branches)),
        "all" if plan.experiment.live else "all, at most",
        f"{sum(b.rounds for b in plan.branches):,}",
        f"{sum(b.client_epochs for b in plan.branches):,}",
        f"{sum(b.checkpoints for b in plan.branches):,}",
    )
    terminal.show(console, table)
    model = plan.experiment.model.name
    one_way = plan.slots * plan.model_bytes
    start = f"start      {plan.origin}\n" if plan.origin else ""
    floor = f"floor      {plan.retrainings}\n" if plan.retrainings else ""
    history = f", {size(plan.history_bytes)} of earlier rounds" if plan.history_bytes else ""
    console.print(
        f"model      {model}, {plan.parameters:,} parameters, {size(plan.model_bytes)} on the wire\n"
        f"{start}{floor}"
        f"round      {plan.slots} clients, {size(one_way)} down and {size(one_way)} up\n"
        f"disk       {size(plan.disk_bytes)} of checkpoints{history}\n"
        f"memory     {_memory(plan.memory)}\n"
        f"time       about {duration(plan.seconds)} of training with {_workers(plan.experiment)}, "
        f"at {1 / plan.seconds_per_example:,.0f} examples/s each (probed);\n"
        f"           about {duration(plan.evaluation_seconds)} of evaluation, at "
        f"{1 / plan.seconds_per_evaluated:,.0f} examples/s (probed); {_on_top(plan.experiment)}"
    )
    if not plan.memory.fits:
        advice = what_would_fit(plan.experiment, plan.memory)
        console.print(Text(f"memory     too little: {advice}", "bold red"))
    for note in plan.notes:
        terminal.say(console, f"data       {note}")


def _on_top(experiment: Experiment) -> str:
    """Say what the estimate of time leaves out."""
    if experiment.live:
        cap = experiment.recover.max_rounds
        return f"each request\n           comes on top, with at most {cap} rounds of recovery"
    return "attacks and\n           distances come on top; cached branches take none"


def _memory(need: Memory) -> str:
    """Return how much memory is needed, and what for."""
    rows = need.rows()
    batches = f"a batch of {rows}" if need.models == 1 else f"{need.models} batches of {rows}"
    parts = [f"activations of {batches} {size(need.training())}"]
    evaluation = f"of an evaluation of {need.evaluated} {size(need.evaluation)}"
    if need.apart:
        parts.append(evaluation)
    elif need.evaluation > need.training():  # they take turns, so that the larger counts
        parts = [f"activations {evaluation}"]
    return (
        f"about {size(need.total())} of the {size(need.here)} here: data {size(need.data)}, weights and sums "
        f"{size(need.weights)},\n           {', '.join(parts)} (probed)"
    )


def _workers(experiment: Experiment) -> str:
    """Say how many workers the time is for."""
    if experiment.engine.given_workers is None:
        return "one worker (their number is chosen when it runs)"
    return f"{experiment.engine.workers} worker(s)"


def duration(seconds: float) -> str:
    """Return a duration for people: ``45 s``, ``12 min``, ``3.5 h``."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
