"""Memory is seen when it is taken, a page that several share counts once, and looking has a bounded price."""

import subprocess
import sys
import threading
from contextlib import contextmanager

import pytest

from benchmarks import memory
from benchmarks.memory import REST, PeakMemory, parse_pss
from benchmarks.process_tree import ProcessTree

MiB = 2**20
SIZE = 64 * MiB

TAKE_AND_RELEASE = f"""
import mmap
input()
taken = mmap.mmap(-1, {SIZE}, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
taken.write(b"x" * {SIZE // 16} * 16)
print("taken", flush=True)
input()
taken.close()
print("released", flush=True)
input()
"""
SHARE = f"""
import mmap, os
shared = mmap.mmap(-1, {SIZE})  # anonymous, shared with children
pages = range(0, {SIZE}, mmap.PAGESIZE)
down, up = os.pipe(), os.pipe()
for _ in range(3):
    if not os.fork():
        os.read(down[0], 1)
        assert sum(shared[page] for page in pages) == len(pages)
        os.write(up[1], b".")
        os.read(down[0], 1)
        os._exit(0)
input()
for page in pages:
    shared[page] = 1
os.write(down[1], b"...")
answers = 0
while answers < 3:
    answers += len(os.read(up[0], 3))
print("shared", flush=True)
input()
os.write(down[1], b"...")
"""


@contextmanager
def running(code, tree):
    """Yield a function that lets the program go on to its next word and returns that."""
    with subprocess.Popen(
        [sys.executable, "-c", "print('here', flush=True)\n" + code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=tree.environment,
        text=True,
    ) as process:
        process.stdout.readline()

        def go_on():
            process.stdin.write("\n")
            process.stdin.flush()
            return process.stdout.readline().strip()

        try:
            yield go_on
        finally:
            tree.stop()


def test_memory_taken_is_seen_and_the_peak_outlives_it():
    tree = ProcessTree()
    watch = PeakMemory(tree)
    assert watch.look() == 0
    with running(TAKE_AND_RELEASE, tree) as go_on:
        before = watch.look()
        assert go_on() == "taken"
        full = watch.look()
        assert go_on() == "released"
        after = watch.look()
    assert full - before == pytest.approx(SIZE, abs=6 * MiB)
    assert after - before == pytest.approx(0, abs=6 * MiB)
    assert watch.peak == full == sum(watch.at_peak.values())
    assert any(name.startswith("python") for name in watch.at_peak)
    assert watch.looks == 4


def test_a_page_that_four_processes_share_counts_once():
    tree = ProcessTree()
    watch = PeakMemory(tree)
    with running(SHARE, tree) as go_on:
        before = watch.look()
        assert go_on() == "shared"
        after = watch.look()
        resident = sum(_resident(process.pid) for process in tree.find())
    assert after - before == pytest.approx(SIZE, abs=16 * MiB)
    assert resident > 4 * SIZE, "otherwise they do not share it"


def _resident(pid):
    pages = (memory.PROC / str(pid) / "statm").read_text().split()[1]
    return int(pages) * 4096


def test_the_thread_sees_a_peak_between_the_ends_of_the_context(monkeypatch):
    tree = ProcessTree()
    seen = threading.Event()
    look = PeakMemory.look

    def look_and_tell(self):
        total = look(self)
        if total > SIZE:
            seen.set()
        return total

    monkeypatch.setattr(PeakMemory, "look", look_and_tell)
    with running(TAKE_AND_RELEASE, tree) as go_on:
        with PeakMemory(tree, interval=0.01) as watch:
            go_on()
            assert seen.wait(60)
            go_on()
        assert watch.look() < SIZE < watch.peak


@pytest.mark.parametrize(("seconds", "rest"), [(0.001, 0.2), (0.1, 0.1 * REST)])
def test_a_look_that_takes_long_is_followed_by_a_long_rest(monkeypatch, seconds, rest):
    watch = PeakMemory(ProcessTree(), interval=0.2)
    rests = []

    class Done:
        def wait(self, timeout):
            rests.append(timeout)
            return len(rests) == 3

    def look(self):
        self.seconds += seconds

    monkeypatch.setattr(watch, "_done", Done())
    monkeypatch.setattr(PeakMemory, "look", look)
    watch._watch()
    assert rests == pytest.approx([0, rest, rest])


def test_nothing_is_measured_where_the_kernel_does_not_tell(monkeypatch, tmp_path):
    monkeypatch.setattr(memory, "PROC", tmp_path)
    with PeakMemory(ProcessTree()) as watch:
        pass
    assert watch.peak is None


def test_pss_is_read_in_bytes():
    rollup = "55d-7ff ---p 00000000 00:00 0  [rollup]\nRss: 9000 kB\nPss:    1234 kB\nPss_Anon: 1000 kB\n"
    assert parse_pss(rollup) == 1234 * 1024
    assert parse_pss("") == 0
    with pytest.raises(ValueError, match="MB"):
        parse_pss("Pss: 3 MB\n")
