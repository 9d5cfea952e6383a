"""Stock Flower as a row of the benchmark: ``flwr run`` on its simulation runtime, with Flower's own FedAvg.

    python -m benchmarks.stock_flower experiment.toml --rounds 5 --workers 2
    python -m benchmarks.stock_flower --noop-floats 11_250_000 --clients 10

The app in ``flower_app/`` holds what a Flower user writes. Here it is bundled and run by the real command, under a
Flower home and loopback ports of its own, watched, and stopped with all that it started: the SuperLink that
``flwr run`` starts would stay behind. Nothing goes over a network: no telemetry, no update check, no
package index. Linux only.

A round lasts from the moment FedAvg begins to sample until it has aggregated. The first one waits for Ray and
for every actor's imports, so it belongs to the start; the steady ones are ``seconds[1:]``. Each actor computes
in one thread, so that ``workers`` is the number of threads in total; what Flower and Ray do beside is not bound.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from rich.console import Console
from torch import Tensor

from benchmarks.flower_command import FlowerCase, command, environment, run_config
from benchmarks.memory import PeakMemory
from benchmarks.process_tree import ProcessTree
from fedunlearn import workspace
from fedunlearn.config.toml_text import dumps
from fedunlearn.errors import RunError, UserError

TAIL = 15
"""Lines of Flower's log that a failure shows."""
LONGEST_FOLDER = 24
"""Ray puts sockets deep below its folder, and a socket's path may have no more than 107 characters."""


@dataclass(frozen=True)
class FlowerRun:
    """What was measured.

    Attributes
    ----------
    seconds : list of float
        Of every round, first to last.
    first_send, first_round : float
        Seconds from launching the command until round 1 begins to be sent, and until it is aggregated.
        FedAvg sends while Ray is still starting.
    total : float
        Seconds until the command ended.
    peak_memory : int or None
        Largest sum of proportional set sizes of everything the command started, bytes; None if not watched.
    at_peak : dict[str, int]
        Its parts by name of process.
    watching : float
        Share of the time of one core that went into looking.
    bytes_down, bytes_up : int
        Of a round's messages to all clients and of their replies, as Ray's serialiser writes them to hand them
        to another process. The client's context, which travels along both ways, is not counted.
    weights : Tensor
        Final parameters in the model's order, flat, float32.
    """

    seconds: list[float]
    first_send: float
    first_round: float
    total: float
    peak_memory: int | None
    at_peak: dict[str, int]
    watching: float
    bytes_down: int
    bytes_up: int
    weights: Tensor


def run(
    case: FlowerCase,
    *,
    timeout: float = 600.0,
    watch_memory: bool = True,
    report: Callable[[str], None] = lambda line: None,
) -> FlowerRun:
    """Run a case under ``flwr run`` and stop everything it started, whatever happens.

    Parameters
    ----------
    timeout
        Seconds after which the command is stopped.
    watch_memory
        Sample the memory meanwhile (see :mod:`benchmarks.memory`), which takes at most 5 % of a core.
    report
        Called with what is going on, in a few words.

    Raises
    ------
    ConfigError
        If the app does not do what the experiment asks for.
    RunError
        If there is no result, with the end of Flower's log.
    """
    settings = run_config(case)
    with ExitStack() as stack:
        base = tempfile.gettempdir()
        folder = Path(tempfile.mkdtemp(prefix="flower-", dir=base if len(base) <= LONGEST_FOLDER else "/tmp"))
        stack.callback(shutil.rmtree, folder)
        (folder / "run.toml").write_text(dumps(settings | {"output": str(folder)}), encoding="utf-8")
        tree = ProcessTree()
        stack.callback(tree.stop)
        memory = PeakMemory(tree)
        with memory if watch_memory else nullcontext():
            began = time.monotonic()
            ending, log = _execute(command(case, folder / "run.toml"), folder, tree, timeout, report)
            total = time.monotonic() - began
        if not (folder / "result.json").exists():
            raise RunError(_failure(ending, log, folder))
        report("stopping")
        found = json.loads((folder / "result.json").read_text(encoding="utf-8"))
        return FlowerRun(
            seconds=[end - start for start, end in zip(found["began"], found["ended"], strict=True)],
            first_send=found["began"][0] - began,
            first_round=found["ended"][0] - began,
            total=total,
            peak_memory=memory.peak,
            at_peak=memory.at_peak,
            watching=memory.seconds / total,
            bytes_down=found["bytes_down"],
            bytes_up=found["bytes_up"],
            weights=torch.from_numpy(np.load(folder / "weights.npy").astype(np.float32)),
        )


def _execute(
    arguments: list[str], folder: Path, tree: ProcessTree, timeout: float, report: Callable[[str], None]
) -> tuple[str, list[str]]:
    """Run the command to its end or until time is up; return how it ended and the end of its log."""
    report("starting")
    expired = threading.Event()

    def expire() -> None:
        expired.set()
        tree.stop()

    with subprocess.Popen(
        arguments,
        cwd=folder,
        env=environment(folder) | tree.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None
        alarm = threading.Timer(timeout, expire)
        alarm.start()
        try:
            log = _follow(process.stdout, report)
            code = process.wait()
        finally:
            alarm.cancel()
            if process.poll() is None:  # interrupted: Popen would wait for it to end by itself
                tree.stop()
    return f"took more than {timeout:g} s" if expired.is_set() else f"ended with exit code {code}", log


def _follow(lines: Iterable[str], report: Callable[[str], None]) -> list[str]:
    """Read the log to its end, report rounds as they begin, and return its last lines."""
    tail = deque[str](maxlen=TAIL)
    for line in lines:
        if text := re.sub(r"\x1b\[\d*m", "", line).rstrip():
            tail.append(text)
        if found := re.search(r"\[ROUND (\d+)/(\d+)\]", line):
            report(f"round {found[1]} of {found[2]}")
    return list(tail)


def _failure(ending: str, log: list[str], folder: Path) -> str:
    if not any("ERROR" in line or "Error" in line for line in log):  # then it is in the SuperLink's
        files = sorted((folder / "home").rglob("superlink.log"))
        log += [
            line
            for file in files
            for line in file.read_text(errors="replace", encoding="utf-8").splitlines()[-TAIL:]
        ]
    return "\n    ".join([f"stock Flower {ending} and gave no result; its log ends with:", *log])


def main(
    experiment: Annotated[Path | None, typer.Argument(help="Experiment file; leave out for a no-op.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="The first is no steady one.")] = 5,
    workers: Annotated[int, typer.Option(min=1, help="Ray actors of one thread each.")] = 1,
    seed: Annotated[int, typer.Option(min=0)] = 1,
    noop_floats: Annotated[int, typer.Option(min=0, help="Size of the no-op's model.")] = 0,
    clients: Annotated[int, typer.Option(min=2, help="Of the no-op.")] = 10,
    timeout: Annotated[float, typer.Option(help="Seconds.")] = 600.0,
) -> None:
    """Measure stock Flower: seconds per round, start, memory, bytes."""
    console = Console()
    try:
        if experiment is not None:
            clients = workspace.experiment_at(str(experiment.resolve())).federation.num_clients
        case = FlowerCase(
            num_clients=clients,
            rounds=rounds,
            experiment=experiment,
            noop_floats=noop_floats,
            workers=workers,
            seed=seed,
        )
        with console.status("stock Flower") as status:
            found = run(case, timeout=timeout, report=lambda line: status.update(f"stock Flower: {line}"))
    except (RunError, UserError) as error:
        console.print(str(error), highlight=False, markup=False, soft_wrap=True)
        raise typer.Exit(2 if isinstance(error, UserError) else 1) from None
    shown = {name: value for name, value in vars(found).items() if name != "weights"}
    console.print_json(data=shown | {"num_parameters": found.weights.numel()})


if __name__ == "__main__":
    typer.run(main)
