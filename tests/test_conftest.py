"""Tests are the same whatever their user has set."""

import os
import subprocess
import sys
from pathlib import Path

from tests.conftest import USERS

LOOK = f"import os, tests.conftest; print(*(name for name in {USERS} if name in os.environ))"


def test_what_a_user_has_set_reaches_no_test():
    root = Path(__file__).resolve().parents[1]
    given = os.environ | dict.fromkeys(USERS, "1") | {"PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", LOOK], env=given, capture_output=True, text=True, cwd=root)
    assert (done.stdout, done.stderr) == ("\n", "")
    assert "FEDUNLEARN_CACHE" in USERS
