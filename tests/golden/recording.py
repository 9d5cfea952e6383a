"""What was recorded of runs, on which kind of machine, and in what a run differs from it."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest
import torch

from benchmarks.machine import machine
from tests.golden.reading import Facts, read

RECORDED = Path(__file__).with_name("recorded")
COMMAND = "python -m tests.golden record"

Fingerprint = Mapping[str, str]
"""What decides the bits of a run beside its inputs and its code."""


@dataclass(frozen=True)
class Recording:
    """The facts of a run, and the fingerprint of the machine that they hold for."""

    fingerprint: Fingerprint
    facts: Facts

    @classmethod
    def load(cls, name: str, folder: Path = RECORDED) -> Recording:
        """Read the recording of a name such as ``"smoke/quickstart"``."""
        path = folder / f"{name}.json"
        assert path.is_file(), f"{name}: nothing is recorded of it; run `{COMMAND} {name}`"
        return cls(**json.loads(path.read_text(encoding="utf-8")))

    def save(self, name: str, folder: Path = RECORDED) -> None:
        """Write it, in an order that depends on nothing."""
        path = folder / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(asdict(self), indent=1, sort_keys=True, ensure_ascii=False)
        path.write_text(text + "\n", encoding="utf-8")


def fingerprint() -> Fingerprint:
    """Return this machine's."""
    return {
        "torch": str(torch.__version__),
        "instructions": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "processor": str(machine()["processor"]),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
    }


def elsewhere(recorded: Fingerprint, here: Fingerprint) -> str:
    """Say why nothing can be compared on this machine and how it can; an empty string where it can."""
    if recorded == here:
        return ""
    there, now = ("; ".join(f"{key} {of.get(key)}" for key in recorded) for of in (recorded, here))
    return (
        f"weights and scores were not compared: recorded with {there}; this is {now}, and bits are promised for one "
        "torch build and type of processor alone. To compare on this machine, check out the commit that last changed "
        f"tests/golden/recorded, run `{COMMAND}` there, and bring these files back"
    )


def differences(recorded: Facts, found: Facts) -> list[str]:
    """Return a line for each fact that is another one now, is gone, or was not there."""
    lines = []
    for section in {**recorded, **found}:
        before, now = recorded.get(section, {}), found.get(section, {})
        for name in {**before, **now}:
            if name not in now:
                lines.append(f"{section}, {name}: gone; recorded was {before[name]}")
            elif name not in before:
                lines.append(f"{section}, {name}: not recorded; here it is {now[name]}")
            elif before[name] != now[name]:
                lines.append(f"{section}, {name}: recorded {before[name]}; here {now[name]}")
    return lines


def expected(name: str, folder: Path = RECORDED) -> Recording:
    """Return what a run on this machine must agree with; skip the test where another kind of machine recorded it."""
    recording = Recording.load(name, folder)
    if why := elsewhere(recording.fingerprint, fingerprint()):
        pytest.skip(why)
    return recording


def check(run: Path, name: str, folder: Path = RECORDED) -> None:
    """Fail if a finished run is not as recorded under this name; skip where that cannot be told."""
    found = differences(expected(name, folder).facts, read(run))
    assert not found, "\n".join([f"{name} is not as recorded:", *found])
