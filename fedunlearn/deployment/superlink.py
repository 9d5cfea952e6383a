"""What the supervisor asks of a SuperLink: submit a run, look at it, stop it.

Submitting is Flower's own command. Looking, every few seconds, goes over one connection: starting the command takes
more than a second of a processor. That part of Flower's interface is not public yet (written against Flower 1.41).
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from fedunlearn.errors import RunError, UserError
from fedunlearn.json_text import loads_object

T = TypeVar("T")


@dataclass(frozen=True)
class RunState:
    """A run as the SuperLink knows it.

    Attributes
    ----------
    status : str
        "pending", "starting", "running", or once it has ended "completed", "failed" or "stopped".
    details : str
        Why it failed, in Flower's words.
    """

    status: str
    details: str = ""

    @property
    def ended(self) -> bool:
        """Whether it has ended, one way or another."""
        return self.status in ("completed", "failed", "stopped")


class SuperLink(Protocol):
    """A SuperLink, as the supervisor sees it. Every method raises :class:`UnreachableError`."""

    def submit(self) -> str:
        """Submit the run and return its id."""
        ...

    def state(self, run: str) -> RunState | None:
        """Return a run's state; None: the SuperLink does not know it."""
        ...

    def stop(self, run: str) -> None:
        """Stop a run."""
        ...


class UnreachableError(RunError):
    """The SuperLink does not answer, or answers with an error."""


class FlowerSuperLink:
    """A SuperLink, by the name that it has in Flower's configuration file.

    Parameters
    ----------
    name
        Of a connection in ``$FLWR_HOME/config.toml``; None: its default.
    app
        Folder of the app.
    run_config
        What ``--run-config`` is given, one after the other.
    federation
        What ``--federation`` is given, if anything.
    """

    def __init__(
        self, name: str | None, *, app: Path, run_config: Sequence[str], federation: str | None = None
    ) -> None:
        self._name = name
        words = [str(app), *([name] if name else [])]
        for text in run_config:
            words += ["--run-config", text]
        if federation is not None:
            words += ["--federation", federation]
        self._submission = words
        self._client: Any = None

    def submit(self) -> str:
        """Submit the run with ``flwr run``, and return its id."""
        command = [_flwr(), "run", *self._submission, "--format", "json"]
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        answer = _answer(done.stdout)
        if done.returncode or answer.get("run-id") is None:
            said = (str(answer.get("error-message", "")), done.stderr, done.stdout)
            why = next(filter(None, map(_last_line, said)), "")
            raise UnreachableError(
                f"flwr run did not submit the run: {why or f'exit code {done.returncode}'}"
            )
        return str(answer["run-id"])

    def state(self, run: str) -> RunState | None:
        """Return a run's state; None: the SuperLink does not know it, such as after it has lost its own."""
        from flwr.proto.control_pb2 import ListRunsRequest

        try:
            found = self._ask(lambda client: client.ListRuns(ListRunsRequest(run_id=int(run)))).run_dict
        except _NoSuchRunError:
            return None
        if int(run) not in found:
            return None
        status = found[int(run)].status
        return RunState(status.sub_status if status.status == "finished" else status.status, status.details)

    def stop(self, run: str) -> None:
        """Stop a run; one that has ended stays as it is."""
        from flwr.proto.control_pb2 import StopRunRequest

        with suppress(_NoSuchRunError):
            self._ask(lambda client: client.StopRun(StopRunRequest(run_id=int(run))))

    def close(self) -> None:
        """Close the connection."""
        if self._client is not None:
            self._client.close()
            self._client = None

    def _ask(self, ask: Callable[[Any], T]) -> T:
        import click
        import httpx
        from flwr.cli.flower_config import read_superlink_connection
        from flwr.cli.utils import init_http_client_from_connection
        from flwr.supercore.error import ApiErrorCode, FlowerError

        try:
            if self._client is None:
                connection = read_superlink_connection(self._name)
                with redirect_stdout(None):  # it prints where it connects to, every time
                    self._client = init_http_client_from_connection(connection)
            return ask(self._client)
        except click.ClickException as error:  # the configuration file is wrong
            raise UserError(error.format_message()) from None
        except httpx.HTTPStatusError as error:
            said = FlowerError.from_json(error.response.text)
            if said is not None and said.code in (
                ApiErrorCode.RUN_ID_NOT_FOUND,
                ApiErrorCode.RUN_ALREADY_FINISHED,
            ):
                raise _NoSuchRunError from None
            raise UnreachableError(f"the SuperLink replied: {said or error}") from None
        except (httpx.HTTPError, OSError) as error:
            self.close()  # begin with a new connection next time
            raise UnreachableError(
                f"the SuperLink does not answer: {error or type(error).__name__}"
            ) from None


class _NoSuchRunError(Exception):
    """The SuperLink knows no such run, or none that is still to be stopped."""


def _flwr() -> str:
    beside = Path(sys.executable).with_name("flwr")
    found = str(beside) if beside.exists() else shutil.which("flwr")
    if found is None:
        raise UserError("flwr is not installed here; pip install flwr")
    return found


def _answer(text: str) -> dict[str, Any]:
    """Return the JSON object at the end of what a ``flwr`` command printed, or an empty one."""
    try:
        return loads_object(text[text.index("{") :], "flwr")
    except ValueError:
        return {}


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1].strip() if lines else ""
