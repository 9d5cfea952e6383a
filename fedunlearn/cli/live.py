"""``fedunlearn forget``, ``withdraw`` and ``requests``: ask a live federation to forget, and see what became of it.

They speak to a run directory on this machine or to the door of one elsewhere.
"""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from fedunlearn import terminal
from fedunlearn.errors import RunError, UserError
from fedunlearn.home import expanded
from fedunlearn.text_files import read_text

if TYPE_CHECKING:
    from fedunlearn.door.client import Remote
    from fedunlearn.requests import Intake, Ledger, RequestRecord

Place = Annotated[str, typer.Argument(metavar="RUN|URL", help="A run directory, or a door's address.")]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        parser=expanded, metavar="FILE", help="Your token for the door; default: $FEDUNLEARN_TOKEN."
    ),
]
Authority = Annotated[
    Path | None,
    typer.Option(
        "--tls-ca", parser=expanded, metavar="FILE", help="CA that issued the door's certificate, PEM."
    ),
]
LOCAL = "operator:local"
"""Who asks in the run directory itself."""
LOOK_SECONDS = 1.0


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(forget)
    app.command()(withdraw)
    app.command()(requests)


def forget(
    place: Place,
    clients: Annotated[
        list[int] | None,
        typer.Option("--client", metavar="N", help="A client to forget; repeat to forget several together."),
    ] = None,
    samples: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE|ROWS|FILE",
            help="Only these of its samples: a share such as 0.5; rows counted from 0, such as 4,17,33; or a JSON "
            "file of rows.",
        ),
    ] = None,
    classes: Annotated[
        list[int] | None,
        typer.Option(
            "--class",
            metavar="C",
            help="Only samples of this class; repeatable. Without --client, every client's.",
        ),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Wait until the request ends; exit code 0 if it was forgotten.")
    ] = False,
    token_file: TokenFile = None,
    tls_ca: Authority = None,
) -> None:
    """Ask a live federation to forget clients, or parts of their data. An acknowledged request is on disk."""
    from fedunlearn.requests.forget_target import samples_in

    console = terminal.console()
    if not clients and not classes:
        raise UserError(
            "--client: is missing; name a client, or a --class to forget every client's samples of it"
        )
    of: dict[str, Any] = {"samples": samples_in(samples, clients), "classes": classes or None}
    if _is_url(place):
        door = _door(place, token_file, tls_ca)
        receipt = door.ask(clients or None, **of, idempotency_key=secrets.token_hex(16))
        request_id = receipt["request_id"]
        _acknowledge(console, request_id, receipt["state"], receipt["same_as"], receipt["head"])
        if receipt["state"] == "received" and not receipt.get("served", True):
            _say_unserved(console, "its supervisor or operator must start one", wait=wait)
        if wait:
            _follow(console, lambda: _patiently(console, lambda: door.request(request_id)))
        return

    with _intake(expanded(place)) as intake:
        made = intake.ask(clients or None, **of, source="cli", actor=LOCAL)
        _acknowledge(console, made.request_id, made.state, made.same_as, str(made.head))
        if made.state == "received" and not intake.ledger.served(intake.branch):
            _say_unserved(console, "`fedunlearn run FILE --resume` or its supervisor starts one", wait=wait)
        if wait:
            _follow(console, lambda: intake.record(made.request_id))


def withdraw(
    place: Place,
    request: Annotated[str, typer.Argument(metavar="REQUEST", help="Its id, as shown by forget.")],
    token_file: TokenFile = None,
    tls_ca: Authority = None,
) -> None:
    """Withdraw a request that is still received or waiting."""
    if _is_url(place):
        record = _door(place, token_file, tls_ca).withdraw(request)
    else:
        with _intake(expanded(place)) as intake:
            record = intake.withdraw(request, actor=LOCAL)
    terminal.say(terminal.console(), f"request {record.id}: {record.state}")


def requests(
    place: Place,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check the trail of every federation in the run.")
    ] = False,
    head: Annotated[
        str | None,
        typer.Option(
            metavar="ENTRY:HASH",
            help="A head that the trail must still contain, such as a receipt's; implies --verify.",
        ),
    ] = None,
    token_file: TokenFile = None,
    tls_ca: Authority = None,
) -> None:
    """Show the forget requests of a run and what became of each; check their audit trail."""
    from fedunlearn.report.request_table import reasons, request_table
    from fedunlearn.requests import LIVE_BRANCH

    console = terminal.console()
    if _is_url(place):
        if verify or head is not None:
            raise UserError(
                f"{place}: a trail can only be checked on its own machine; name the run directory"
            )
        terminal.show(console, request_table({LIVE_BRANCH: _door(place, token_file, tls_ca).requests()}))
        return
    with _ledger(expanded(place), read_only=True) as ledger:
        terminal.show(console, request_table({name: ledger.requests(name) for name in ledger.branches()}))
        for line in reasons(ledger.requests(LIVE_BRANCH), ledger.audit(LIVE_BRANCH)):
            terminal.say(console, line)
        if verify or head is not None:
            _verify(console, ledger, head)


def _verify(console: Console, ledger: Ledger, text: str | None) -> None:
    """Say of each trail whether it is intact; RunError if one is not."""
    from fedunlearn.requests import LIVE_BRANCH, Head

    head = None if text is None else Head.parse(text)
    names = ledger.branches()
    if head is not None and LIVE_BRANCH not in names:
        if len(names) > 1:
            raise UserError(
                f"--head {text}: belongs to one trail, but this run has {len(names)}; leave it out"
            )
        names = names or [LIVE_BRANCH]
    bad = 0
    for name in names:
        of_this = head if name == LIVE_BRANCH or len(names) == 1 else None
        problems = ledger.check_trail(name, head=of_this)
        for problem in problems:
            terminal.say(console, f"{name}: {problem}")
        bad += bool(problems)
        if not problems and (last := ledger.head(name)) is not None:
            terminal.say(console, f"{name}: trail intact; head {last}")
    if bad:
        raise RunError(f"{bad} of {len(names)} trails {'is' if bad == 1 else 'are'} not intact")


def _acknowledge(console: Console, request_id: str, state: str, same_as: str | None, head: str) -> None:
    lines = [f"request {request_id}: {state}"]
    if same_as is not None:
        lines.append(
            f"covers the same as {same_as}, which is still open: it is served together with that one, or on its own "
            "if that one ends without forgetting"
        )
    lines.append(f"head {head} (keep it: it proves that you made the request)")
    terminal.say(console, *lines)


def _say_unserved(console: Console, remedy: str, *, wait: bool) -> None:
    line = f"no server is running; {remedy}{'; waiting for a server' if wait else ''}"
    terminal.say(console, line)


def _follow(console: Console, look: Callable[[], RequestRecord]) -> None:
    """Show the states that a request goes through, until its end; RunError if it was not forgotten."""
    from fedunlearn.certificates.words import ENDINGS

    shown = None
    record = look()
    try:
        with console.status("") as status:
            while True:
                if record.state != shown and (shown is not None or record.state != "received"):
                    console.print(f"request {record.id}: {record.state}", soft_wrap=True)
                shown = record.state
                status.update(Text(f"{record.id}: {record.state}"))
                if record.ended:
                    break
                time.sleep(LOOK_SECONDS)
                record = look()
    except KeyboardInterrupt:
        terminal.say(console, f"stopped waiting; request {record.id} is still {record.state}")
        raise typer.Exit(1) from None
    if record.state not in ("forgotten", "duplicate"):
        raise RunError(f"request {record.id}: {ENDINGS[record.state].title} ({record.state})")


def _patiently(console: Console, look: Callable[[], RequestRecord]) -> RequestRecord:
    """Look again and again while the door cannot be reached: a server may be restarted."""
    from fedunlearn.door.client import UnreachableError

    said = False
    while True:
        try:
            return look()
        except UnreachableError as error:
            if not said:
                console.print(f"{error}; still waiting", soft_wrap=True)
            said = True


@contextmanager
def _intake(folder: Path) -> Iterator[Intake]:
    """Open the run directory of a live federation to whoever asks in it."""
    from fedunlearn import config
    from fedunlearn.requests import Intake
    from fedunlearn.runs.classes import classes_of_run

    if not (folder / "experiment.toml").is_file():
        raise UserError(
            f"{folder}: holds no experiment.toml; name the run directory of a live federation, or a door's URL"
        )
    experiment = config.load(folder / "experiment.toml")
    if not experiment.live:
        raise UserError(
            f"{folder}: this run takes no requests; only an experiment with a [requests] table does"
        )
    with _ledger(folder, must_exist=False) as ledger:
        yield Intake(
            ledger,
            num_clients=experiment.federation.num_clients,
            task=experiment.data.task,
            num_classes=lambda: classes_of_run(folder, experiment),
        )


@contextmanager
def _ledger(folder: Path, *, must_exist: bool = True, read_only: bool = False) -> Iterator[Ledger]:
    from fedunlearn.requests import Ledger

    path = folder / "requests.sqlite"
    if must_exist and not path.is_file():
        raise UserError(
            f"{folder}: holds no requests.sqlite; name a run directory, such as runs/quickstart-1a2b3c4d"
        )
    with Ledger(path, read_only=read_only) as ledger:
        yield ledger


def _door(url: str, token_file: Path | None, authority: Path | None) -> Remote:
    from fedunlearn.door.client import Remote

    return Remote(url, _token(token_file), authority=authority)


def _token(file: Path | None) -> str:
    if file is None:
        token, where = os.environ.get("FEDUNLEARN_TOKEN", ""), "$FEDUNLEARN_TOKEN"
    else:
        try:
            token, where = read_text(file), str(file)
        except OSError as error:
            raise UserError(f"--token-file {file}: cannot be read ({error.strerror})") from None
        except UserError:
            raise UserError(f"--token-file {file}: is not a text file; a token is one line of text") from None
    token = token.strip()
    if not token or not (token.isascii() and token.isprintable()) or " " in token:
        raise UserError(f"{where}: holds no token for the door; name its file with --token-file")
    return token


def _is_url(place: str) -> bool:
    if re.fullmatch(r"[\w.-]+:\d+/?", place) and not expanded(place).exists():
        raise UserError(f"{place}: is not a run directory; a door's URL begins with http:// or https://")
    return place.startswith(("http://", "https://"))
