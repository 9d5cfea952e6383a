"""A user may have no home, no name, and nowhere to keep things; and paths are written in many ways."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from fedunlearn import home
from fedunlearn.data.array_cache import arrays_folder, why_not_kept
from fedunlearn.errors import UserError
from fedunlearn.simulation.runner import cache_folder
from tests.e2e.tiny import TINY

ROOT = Path(__file__).resolve().parents[1]
NOBODY = 54321
# Python itself may lie where only root can read; reading it is all that this user is allowed beyond its own.
AS_NOBODY = (
    *("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"),
    *("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"),
)
needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("setpriv") is None, reason="another user: needs root and setpriv"
)
UNSET = ("HOME", "USER", "LOGNAME", "LNAME", "USERNAME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME")


@pytest.fixture(autouse=True)
def own_temporary_cache(folder, monkeypatch, tmp_path):
    monkeypatch.setattr(home.tempfile, "tempdir", str(tmp_path))
    home.temporary_cache.cache_clear()
    yield
    home.temporary_cache.cache_clear()


def as_nobody(*words, folder, **environment):
    """Run a command as a user whom the system does not know."""
    left = {name: value for name, value in os.environ.items() if name not in UNSET}
    left |= {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "TMPDIR": str(folder)}
    command = [*AS_NOBODY, *map(str, words)]
    return subprocess.run(command, env=left | environment, cwd=folder, capture_output=True, text=True)


@pytest.fixture
def folder():
    """A folder that everybody may write to, under folders that everybody may pass."""
    made = Path(tempfile.mkdtemp(prefix="fedunlearn-nobody-"))
    made.chmod(0o777)
    yield made
    shutil.rmtree(made)


@pytest.mark.slow
@needs_root
@pytest.mark.parametrize("where", [{}, {"HOME": "/"}], ids=str)
def test_a_user_without_name_or_home_runs_and_reports(where, folder):
    (folder / "x.toml").write_text(TINY, encoding="utf-8")
    code = (
        "import sys; from fedunlearn.cli.main import main; sys.argv = ['fedunlearn', 'run', 'x.toml']; "
        "import monai.losses, matplotlib.pyplot; main()"
    )
    done = as_nobody(sys.executable, "-c", code, folder=folder, **where)
    assert (done.returncode, done.stderr) == (0, "")
    assert "report: runs/tiny-" in done.stdout
    assert not [*folder.glob("fedunlearn-*")], "a temporary cache goes with the process"


@needs_root
def test_what_needs_a_home_says_so_in_one_line(folder):
    words = [sys.executable, "-m", "fedunlearn.cli", "supervise", "--folder", "runs/live"]
    done = as_nobody(*words, folder=folder)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert done.stderr.startswith("error: there is no home folder for Flower's settings; set HOME")


def test_without_a_home_things_are_kept_for_this_process_and_one_line_says_so(monkeypatch, tmp_path):
    for name in UNSET:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "expanduser", nobody)
    assert arrays_folder().is_relative_to(tmp_path) and arrays_folder() == arrays_folder()
    (line,) = why_not_kept()
    assert line.startswith("there is no home folder: ") and "FEDUNLEARN_CACHE" in line
    monkeypatch.setenv("FEDUNLEARN_CACHE", str(tmp_path / "mine"))
    assert arrays_folder() == tmp_path / "mine" / "arrays" and why_not_kept() == []


def nobody(path):
    if str(path).startswith("~"):
        raise RuntimeError("Could not determine home directory.")
    return path


@pytest.mark.parametrize("what", ["a file", "under a file", "not there", "there"])
def test_a_cache_home_that_cannot_be_written_is_replaced(what, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    given = {
        "a file": tmp_path / "file",
        "under a file": tmp_path / "file" / "caches",
        "not there": tmp_path / "a" / "b",
        "there": tmp_path,
    }[what]
    monkeypatch.setenv("XDG_CACHE_HOME", str(given))
    usable = what in ("not there", "there")
    assert (arrays_folder() == given / "fedunlearn" / "arrays") == usable
    assert (
        why_not_kept() == []
        if usable
        else [f"{given} cannot be written to"] == [line.partition(":")[0] for line in why_not_kept()]
    )


def test_a_relative_cache_home_is_ignored_as_the_specification_says(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", "caches")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert arrays_folder() == tmp_path / ".cache" / "fedunlearn" / "arrays"


def test_a_nameless_user_has_a_name_for_those_who_ask(monkeypatch):
    import getpass

    for name in ("USER", "LOGNAME", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", lambda uid: {}[uid])
    home.give_name()
    assert getpass.getuser() == f"uid-{os.getuid()}"
    monkeypatch.setenv("LOGNAME", "ada")
    home.give_name()
    assert getpass.getuser() == "ada"


def test_a_tilde_is_a_home_everywhere(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert home.expanded("~/x") == tmp_path / "x"
    assert home.expanded(Path("a/~")) == Path("a/~")
    monkeypatch.setenv("FEDUNLEARN_CACHE", "~/c")
    assert cache_folder(Path("runs")) == tmp_path / "c"
    assert arrays_folder() == tmp_path / "c" / "arrays"


@pytest.mark.parametrize("path", ["~nobody-of-that-name/x", "", "a\0b"])
def test_a_path_that_is_none_is_refused_in_one_line(path, monkeypatch):
    with pytest.raises(UserError) as refused:
        home.expanded(path)
    assert "\n" not in str(refused.value) and "\0" not in str(refused.value)
    if path and "\0" not in path:
        monkeypatch.setenv("FEDUNLEARN_CACHE", path)
        with pytest.raises(UserError, match=r"^\$FEDUNLEARN_CACHE: ~nobody.* write the full path$"):
            cache_folder(Path("runs"))
