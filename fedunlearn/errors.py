"""Errors whose message is meant for the user: one line that names the value, the place and the remedy."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NOT_FINITE = "holds NaN or Inf"
"""How a reason ends where weights or an update are not finite: training has diverged."""


def one_line(text: str) -> str:
    """Return a message without what would break its line or command a terminal: a path or a key may hold anything."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]", lambda found: ascii(found[0])[1:-1], text)


class UserError(Exception):
    """The user's input is wrong. The command line prints the message, always one line, and exits with 2."""

    def __init__(self, message: str) -> None:
        super().__init__(one_line(message))


class ConfigError(UserError):
    """An experiment file (or a ``--set`` override of it) cannot be run as written."""


class RunError(Exception):
    """The input was fine but the run failed. The command line prints the message and exits with 1."""


class DivergedError(RunError):
    """Weights or outputs became NaN or infinite, so no round can follow.

    Attributes
    ----------
    round : int
        The round in which that happened.
    why : str
        What is not finite.
    """

    def __init__(self, round: int, why: str) -> None:
        super().__init__(f"round {round}: diverged, {why}; try a smaller learning rate first")
        self.round = round
        self.why = why


class OutOfMemoryError(RunError):
    """Memory ran out. Whoever knows the experiment adds what to try.

    Attributes
    ----------
    during : str
        "training" of a client, whose need grows with ``train.batch-size``; "evaluation", whose need does not;
        "" for anything else.
    """

    def __init__(self, message: str, *, during: str = "") -> None:
        super().__init__(message)
        self.during = during


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Have an OSError name the file: that a disk is full the system says without saying where."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise
