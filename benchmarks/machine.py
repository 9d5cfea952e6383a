"""What the seconds depend on beside the code."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "numpy", "flwr", "ray")


def machine(packages: Sequence[str] = PACKAGES) -> dict[str, Any]:
    """Return processor, cores, memory, system and versions, as JSON types."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gb": round(memory / 1e9, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: _version(name) for name in packages},
    }


def in_words(found: dict[str, Any], packages: Sequence[str] = PACKAGES) -> str:
    """Return it as the line under a table."""
    versions = ", ".join(f"{name} {found[name]}" for name in ("python", *packages) if found[name])
    return f"{found['processor']}, {found['cores']} cores, {found['memory_gb']:g} GB; {versions}"


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8").splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
