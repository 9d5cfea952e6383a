"""What there is: the machine's, the job's, the accelerator's, whichever is told and least."""

import os

import pytest
import torch

from fedunlearn.simulation import free_memory as module
from fedunlearn.simulation.free_memory import free_bytes


@pytest.fixture
def system(tmp_path, monkeypatch):
    """A machine of files, with 5 GiB free."""
    (tmp_path / "meminfo").write_text("MemTotal:  9999999 kB\nMemAvailable:  5242880 kB\n")
    (tmp_path / "cgroup").write_text("0::/jobs/7\n")
    (tmp_path / "groups" / "jobs" / "7").mkdir(parents=True)
    for name, file in {"MEMINFO": "meminfo", "OWN_GROUP": "cgroup", "GROUPS": "groups"}.items():
        monkeypatch.setattr(module, name, tmp_path / file)
    return tmp_path


CPU = torch.device("cpu")


def test_free_memory_of_the_machine(system):
    assert free_bytes(CPU) == 5 << 30
    (system / "groups/jobs/7/memory.max").write_text("max\n")
    assert free_bytes(CPU) == 5 << 30


@pytest.mark.parametrize("group", ["jobs/7/memory.max", "jobs/memory.max", "memory.max"])
def test_a_limit_of_any_group_around_it_counts_if_it_is_lower(system, group):
    (system / "groups" / group).write_text(f"{2 << 30}\n")
    assert free_bytes(CPU) == 2 << 30
    (system / "groups" / group).write_text(f"{9 << 30}\n")
    assert free_bytes(CPU) == 5 << 30


def test_groups_of_the_first_version(system):
    (system / "cgroup").write_text("7:memory:/jobs/7\n")
    (system / "groups/memory").mkdir()
    (system / "groups/memory/memory.limit_in_bytes").write_text(f"{1 << 30}\n")
    assert free_bytes(CPU) == 1 << 30


def test_where_nothing_is_told_the_whole_machine_counts(system, monkeypatch):
    (system / "meminfo").unlink()
    (system / "cgroup").unlink()
    monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": 1000, "SC_PAGE_SIZE": 4096}.__getitem__)
    assert free_bytes(CPU) == 4_096_000


def test_of_an_accelerator_what_is_free_and_what_is_our_own_already(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (700, 1000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 200)
    assert free_bytes(torch.device("cuda")) == 900
