"""One damaged file in a copy of a run's directory, and every command that may come upon it."""

from __future__ import annotations

import hashlib
import io
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import NamedTuple

from fedunlearn.cli.main import main

NESTED = b"[" * 5000 + b"]" * 5000


def as_folder(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
        path.touch()
    else:
        path.unlink()
        path.mkdir()


def as_loop(path: Path) -> None:
    """Nobody can read it, not even root: a link to itself."""
    gone(path)
    path.symlink_to(path.name)


def gone(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()


def written(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        if path.is_file():
            path.write_bytes(change(path.read_bytes()))

    return damage


DAMAGES: Mapping[str, Callable[[Path], None]] = {
    "truncated": written(lambda content: content[: len(content) * 2 // 3]),
    "emptied": written(lambda content: b""),
    "garbage": written(lambda content: bytes(range(256)) * 8),
    "marked": written(lambda content: b"\xef\xbb\xbf" + content),
    "nested": written(lambda content: NESTED),
    "another kind": written(lambda content: b"[1, null]\n"),
    "an empty object": written(lambda content: b"{}\n"),
    "a line too many": written(lambda content: content + b"\0garbage\n"),
    "a folder": as_folder,
    "a loop": as_loop,
    "gone": gone,
}


class Said(NamedTuple):
    """What a command did: its exit code, what it printed, and an exception that nobody took for an answer."""

    code: int
    out: str
    err: str
    escaped: BaseException | None


def say(words: Sequence[object]) -> Said:
    """Run a command as the entry point does, in this process."""
    out, err, argv, escaped, code = io.StringIO(), io.StringIO(), sys.argv, None, -1
    sys.argv = ["fedunlearn", *map(str, words)]
    try:
        with redirect_stdout(out), redirect_stderr(err):
            main()
    except SystemExit as ended:
        code = int(ended.code or 0)
    except BaseException as error:
        escaped = error
    finally:
        sys.argv = argv
    return Said(code, out.getvalue(), err.getvalue(), escaped)


def files_of(run: Path, *, skip: Sequence[str] = ()) -> list[str]:
    """Return what may be damaged: every file, of checkpoints of a branch the first and the last; and the folders."""
    named = [str(path.relative_to(run)) for path in sorted(run.rglob("*"))]
    kept: dict[str, str] = {}
    for name in named:
        branch, _, rest = name.rpartition("-r")
        kept.setdefault(
            f"{branch}.{rest.rpartition('.')[2]}" if name.startswith("checkpoints/") else name, name
        )
    return [name for name in kept.values() if not name.endswith(tuple(skip))]


def contents(run: Path) -> dict[str, str]:
    """Return the hash of every file, by path."""
    return {
        str(path.relative_to(run)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(run.rglob("*"))
        if path.is_file() and not path.is_symlink()
    }


def damaged(run: Path, file: str, damage: str, into: Path) -> Path:
    """Return a copy of a run with one damage."""
    copy = into / run.name
    shutil.copytree(run, copy, symlinks=True)
    DAMAGES[damage](copy / file)
    return copy


def wrong_with(said: Said) -> Iterator[str]:
    """Yield what is wrong with an answer, whatever the question was."""
    if said.escaped is not None:
        yield f"{type(said.escaped).__name__} escaped: {said.escaped}"
    elif said.code not in (0, 1, 2):
        yield f"exit code {said.code}"
    lines = [line for line in said.err.splitlines() if line.strip()]
    if "Traceback" in said.out + said.err:
        yield "a traceback"
    if said.code and said.escaped is None and len(lines) != 1:
        yield f"{len(lines)} lines of error: {said.err[:300]!r}"
    if lines and len(lines[-1]) > 600:
        yield f"a line of {len(lines[-1])} characters"
