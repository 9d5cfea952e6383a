"""The memory that there is on a device for an experiment."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import torch

MEMINFO = Path("/proc/meminfo")
OWN_GROUP = Path("/proc/self/cgroup")
GROUPS = Path("/sys/fs/cgroup")


def free_bytes(device: torch.device) -> int:
    """Return the memory that there is for this process: free, or on an accelerator already its own."""
    if device.type != "cpu":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device)
    return min([_free_of_the_machine(), *_limits_of_the_group()])


def _free_of_the_machine() -> int:
    if MEMINFO.exists():
        for line in MEMINFO.read_text(encoding="utf-8").splitlines():
            name, _, value = line.partition(":")
            if name == "MemAvailable":
                return int(value.split()[0]) * 1024
    # All that the machine has, where it does not tell how much of it is free.
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _limits_of_the_group() -> Iterator[int]:
    """Yield the limits of the control groups that this process is in: of a container, or a batch system's job."""
    files = [GROUPS / "memory" / "memory.limit_in_bytes"]
    for line in OWN_GROUP.read_text(encoding="utf-8").splitlines() if OWN_GROUP.exists() else ():
        number, _, path = line.split(":", 2)
        if number == "0":
            inner = Path(path.lstrip("/"))
            files += [GROUPS / group / "memory.max" for group in (inner, *inner.parents)]
    for file in files:
        if file.exists() and (text := file.read_text(encoding="utf-8").strip()).isdigit():
            yield int(text)
