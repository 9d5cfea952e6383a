"""Tests are the same whatever their user has set."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.conftest import USERS, pytest_collection_modifyitems, starts_programs

LOOK = f"import os, tests.conftest; print(*(name for name in {USERS} if name in os.environ))"


@pytest.mark.slow
def test_what_a_user_has_set_reaches_no_test():
    root = Path(__file__).resolve().parents[1]
    given = os.environ | dict.fromkeys(USERS, "1") | {"PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", LOOK], env=given, capture_output=True, text=True, cwd=root)
    assert (done.stdout, done.stderr) == ("\n", "")
    assert "FEDUNLEARN_CACHE" in USERS


def test_a_module_that_starts_programs_is_known_by_what_it_imports():
    from tests import test_errors
    from tests.cli import test_commands
    from tests.config import test_targets
    from tests.e2e import test_live_killed

    assert [starts_programs(module) for module in (test_commands, test_live_killed)] == [True, True]
    assert [starts_programs(module) for module in (test_errors, test_targets)] == [False, False]


def test_of_an_arguments_values_the_first_few_are_quick():
    numbers = [7], [8], [8]  # equal values are two all the same

    class Case:
        module, parent, originalname = os, SimpleNamespace(nodeid="test_it.py"), "test_it"

        def __init__(self, **params):
            self.callspec, self.marked = SimpleNamespace(params=params), set()
            self.add_marker = self.marked.add

        def iter_markers(self, name):
            return [pytest.mark.quick(number=2).mark] if name == "quick" else []

    cases = [Case(letter=letter, number=number) for letter in "ab" for number in numbers]
    pytest_collection_modifyitems(cases)
    assert ["slow" in case.marked for case in cases] == [False, False, True] * 2
