"""Whether a process has died: said only where it is certain."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fedunlearn.requests import processes
from fedunlearn.requests.processes import identity, is_dead

HERE, NUMBER, START = identity().rsplit(" ", 2)


def test_this_process_lives_and_says_who_it_is() -> None:
    assert identity() == identity() and int(NUMBER) == os.getpid() and int(START) > 0
    assert len(HERE.split(" ")) == 3
    assert not is_dead(identity())


def test_a_process_is_dead_once_it_was_killed_even_before_its_parent_knows() -> None:
    child = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from fedunlearn.requests.processes import identity; print(identity()); input()",
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None and child.stdin is not None
    told = child.stdout.readline().strip()
    assert told.startswith(HERE) and told != identity() and not is_dead(told)
    child.send_signal(signal.SIGSTOP)
    os.waitpid(child.pid, os.WUNTRACED)
    assert not is_dead(told), "stopped is not dead"
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)  # over, and not asked for
    assert Path(f"/proc/{child.pid}").exists() and is_dead(told)
    child.wait()
    assert is_dead(told)
    child.stdin.close()
    child.stdout.close()


def test_who_is_looked_for_notices_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[int] = []
    kill = os.kill

    def noted(number: int, signal_: int) -> None:
        sent.append(signal_)
        kill(number, 0)

    monkeypatch.setattr(os, "kill", noted)
    assert not is_dead(identity()) and sent == [0]


def test_a_number_that_was_given_out_again_is_another_process() -> None:
    assert is_dead(f"{HERE} {NUMBER} {int(START) - 1}")


@pytest.mark.parametrize(
    "process",
    [
        "",
        "x",
        f"{NUMBER} {START}",
        f"0000-another-boot {HERE.split(' ', 1)[1]} 999999999 1",
        f"{HERE.replace('pid:[', 'pid:[9')} {NUMBER} 1",
        f"{HERE.replace('time:[', 'time:[9')} {NUMBER} 1",
        f"{HERE} -1 1",
        f"{HERE} 0 1",
        f"{HERE} x 1",
        f"{HERE} {2**80} 1",
        f"{HERE} ²  1",
    ],
    ids=(
        *(
            "empty",
            "a word",
            "without a place",
            "another boot",
            "another pid namespace",
            "another time namespace",
        ),
        *("negative", "zero", "no number", "huge", "superscript"),
    ),
)
def test_of_another_machine_or_container_and_of_nonsense_nothing_is_known(process: str) -> None:
    assert not is_dead(process)


def test_where_the_system_does_not_say_nothing_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = f"{HERE} {NUMBER} 1"
    assert is_dead(told)
    monkeypatch.setattr(processes, "_PROC", tmp_path)
    assert identity() == "" and not is_dead(told)


def test_a_process_that_is_hidden_is_not_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other users' processes may be missing from /proc; that there is one of the number can be asked all the same."""
    monkeypatch.setattr(processes, "_status", lambda number: [])
    assert not is_dead(identity()) and not is_dead(f"{HERE} {NUMBER} 1")

    def refused(*_: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refused)
    assert not is_dead(f"{HERE} {NUMBER} 1")


def test_a_proc_of_another_namespace_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There the numbers are other processes'."""
    (tmp_path / "self/ns").mkdir(parents=True)
    (tmp_path / "sys/kernel/random").mkdir(parents=True)
    (tmp_path / "sys/kernel/random/boot_id").write_text(HERE.split(" ")[0])
    for kind, link in zip(("pid", "time"), HERE.split(" ")[1:], strict=True):
        (tmp_path / "self/ns" / kind).symlink_to(link)
    (tmp_path / NUMBER).mkdir()
    stat = Path(f"/proc/{NUMBER}/stat").read_text()
    (tmp_path / NUMBER / "stat").write_text(stat)
    (tmp_path / "self/stat").write_text(stat)
    monkeypatch.setattr(processes, "_PROC", tmp_path)
    assert identity() == f"{HERE} {NUMBER} {START}"
    (tmp_path / "self/stat").write_text("1 (init) S 0")
    assert identity() == "" and not is_dead(f"{HERE} {NUMBER} 1")
