"""A tree is found whatever its processes do to hide, nothing else is, and it ends when told to."""

import os
import subprocess
import sys
from contextlib import ExitStack

import pytest

from benchmarks.process_tree import ProcessTree

# Children say a word when they are where they should be, and end when their standard input does.
WAIT = "import sys; print('ready', flush=True); sys.stdin.read()"
DAEMON = f"""
import os, sys
if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
print(os.getpid(), flush=True)
{WAIT}
"""
FORGETFUL = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {WAIT!r}], env={{}})"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {WAIT}"


@pytest.fixture
def start():
    with ExitStack() as stack:

        def start(code, environment=()):
            process = subprocess.Popen(
                [sys.executable, "-c", code],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=os.environ | dict(environment),
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            process.first_word = process.stdout.readline().strip()
            return process

        yield start


def pids(tree):
    return {process.pid for process in tree.find()}


def test_who_carries_the_mark_belongs_and_who_does_not_does_not(start):
    before = start(WAIT)
    tree, other = ProcessTree(), ProcessTree()
    assert pids(tree) == set()
    ours, theirs, unmarked = start(WAIT, tree.environment), start(WAIT, other.environment), start(WAIT)
    assert pids(tree) == {ours.pid}
    assert pids(other) == {theirs.pid}
    assert {before.pid, unmarked.pid}.isdisjoint(pids(tree) | pids(other))
    ours.communicate()
    assert pids(tree) == set()


def test_a_daemon_is_found(start):
    tree = ProcessTree()
    launcher = start(DAEMON, tree.environment)
    launcher.wait()
    assert pids(tree) == {int(launcher.first_word)}


def test_a_child_with_an_environment_of_its_own_is_found_and_remembered_as_an_orphan(start):
    tree = ProcessTree()
    parent = start(FORGETFUL, tree.environment)
    found = pids(tree)
    assert parent.pid in found
    assert len(found) == 2
    parent.kill()
    parent.wait()
    assert pids(tree) == found - {parent.pid}
    tree.stop()
    assert pids(tree) == set()


def test_a_root_belongs_with_its_descendants_old_and_new(start):
    old, tree = start(FORGETFUL), None
    tree = ProcessTree(root=os.getpid())
    new = start(FORGETFUL)
    found = pids(tree)
    assert {os.getpid(), old.pid, new.pid} <= found
    assert len(found) >= 5
    assert os.getppid() not in found


def test_stop_ends_all_of_it_and_nobody_else(start):
    tree = ProcessTree()
    willing, stubborn = start(WAIT, tree.environment), start(STUBBORN, tree.environment)
    stranger = start(WAIT)
    tree.stop(patience=0.1)
    assert pids(tree) == set()
    assert willing.wait() == -15, "it was asked first"
    assert stubborn.wait() == -9
    assert stranger.poll() is None


def test_stop_spares_the_process_that_calls_it(start):
    child = start(FORGETFUL)
    tree = ProcessTree(root=child.pid)
    tree._members |= set(ProcessTree(root=os.getpid()).find())
    others = pids(tree) - {os.getpid()}
    assert child.pid in others
    tree.stop()
    assert pids(tree) == {os.getpid()}
