"""Freed memory is used again: no page is asked for twice."""

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource
import torch
from fedunlearn.training import keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def use():
    before = faults()
    for _ in range(10):
        torch.ones(1 << 24)  # 64 MiB
    return faults() - before

before = use()
assert keep_freed_memory() and keep_freed_memory()
use()
print(before, use())
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_memory_is_not_given_back_in_between():
    done = subprocess.run(
        [sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True, timeout=120
    )
    before, after = map(int, done.stdout.split())
    assert before > 10_000
    assert after < before / 100
