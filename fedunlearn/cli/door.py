"""``fedunlearn door``, which serves forget requests over HTTP, and ``fedunlearn roster``, which says who may ask."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fedunlearn import terminal
from fedunlearn.durable import write_synced
from fedunlearn.errors import UserError
from fedunlearn.home import expanded

if TYPE_CHECKING:
    from fedunlearn.deployment.roster import Roster

roster = typer.Typer(
    help="Keep the roster: clients, their SuperNodes, and tokens for the door.", no_args_is_help=True
)

RosterPath = Annotated[
    Path, typer.Argument(parser=expanded, metavar="ROSTER", help="The roster's TOML file.")
]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        parser=expanded,
        metavar="FILE",
        help="Write the token to this new file, readable only by you, instead of showing it.",
    ),
]
NodeIdOption = Annotated[
    str | None, typer.Option(metavar="ID", help="The SuperNode's id, as `flwr supernode register` shows it.")
]


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command()(door)
    app.add_typer(roster, name="roster")


def door(
    folder: Annotated[
        Path, typer.Argument(parser=expanded, metavar="RUN", help="The run directory of a live federation.")
    ],
    roster: Annotated[
        Path,
        typer.Option(parser=expanded, metavar="FILE", help="Who may make requests; see `fedunlearn roster`."),
    ],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 picks a free one.")] = 8443,
    tls_cert: Annotated[
        Path | None, typer.Option(parser=expanded, metavar="FILE", help="Certificate with its chain, PEM.")
    ] = None,
    tls_key: Annotated[
        Path | None, typer.Option(parser=expanded, metavar="FILE", help="Its private key, PEM.")
    ] = None,
    insecure_loopback: Annotated[
        bool, typer.Option("--insecure-loopback", help="Plain HTTP, on a loopback address.")
    ] = False,
    proxy: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="A reverse proxy whose X-Forwarded-For is trusted."),
    ] = None,
    token_rate: Annotated[float, typer.Option(min=0.01, help="Requests per second for each token.")] = 10.0,
    address_rate: Annotated[
        float, typer.Option(min=0.01, help="Requests per second for each address.")
    ] = 50.0,
) -> None:
    """Serve forget requests over HTTP, until SIGTERM or Ctrl-C."""
    if (tls_cert is None) != (tls_key is None):
        raise UserError("--tls-cert and --tls-key: give both")
    if tls_cert is None and not insecure_loopback:
        raise UserError("--tls-cert and --tls-key are missing; to try the door out: --insecure-loopback")
    if tls_cert is not None and insecure_loopback:
        raise UserError("--insecure-loopback: leave it out with --tls-cert")

    from fedunlearn.deployment.roster_file import RosterFile
    from fedunlearn.door.ledger_thread import NotBegunError, open_ledger
    from fedunlearn.door.limits import Limits
    from fedunlearn.door.serve import DoorServer, Tls

    _log_to_stderr()
    known = RosterFile(roster)
    server = DoorServer(
        folder,
        known,
        host=host,
        port=port,
        tls=Tls(tls_cert, tls_key) if tls_cert and tls_key else None,
        proxy=proxy,
        limits=Limits(token_rate=token_rate, address_rate=address_rate),
    )
    try:
        opened = open_ledger(folder)  # what is wrong with it is better said now than with every answer
        opened.ledger.close()
        for client in known.current().clients:
            if client.number >= opened.intake.num_clients:
                logging.getLogger(__name__).warning(
                    "%s: client:%d is not in this federation, whose clients are 0 to %d",
                    *(roster, client.number, opened.intake.num_clients - 1),
                )
    except NotBegunError:
        logging.getLogger(__name__).warning(
            "%s: no run has begun there yet; until then every answer is 503", folder
        )
    typer.echo(f"door: {server.url}")
    server.run()


def _log_to_stderr() -> None:
    line = logging.Formatter("%(asctime)sZ %(levelname)s %(name)s %(message)s", "%Y-%m-%dT%H:%M:%S")
    line.converter = time.gmtime
    handler = logging.StreamHandler()
    handler.setFormatter(line)
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("uvicorn").setLevel(logging.WARNING)


@roster.command()
def init(path: RosterPath) -> None:
    """Make an empty roster."""
    from fedunlearn.deployment.roster_file import edit

    edit(path, lambda empty: empty, new=True)


@roster.command()
def add_client(
    path: RosterPath,
    number: Annotated[int, typer.Option(min=0, help="The client's number: its partition-id.")],
    public_key: Annotated[
        Path | None,
        typer.Option(parser=expanded, metavar="FILE", help="The SuperNode's public key, OpenSSH or PEM."),
    ] = None,
    node_id: NodeIdOption = None,
    num_examples: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="The most examples its replies may claim.")
    ] = None,
    token_file: TokenFile = None,
    token: Annotated[
        bool, typer.Option(help="Give it a token, so that it can make requests for itself.")
    ] = True,
) -> None:
    """Add a client; its token is shown once."""
    from fedunlearn.deployment.roster import ClientEntry, canonical_key, token_hash

    try:
        key = None if public_key is None else canonical_key(public_key.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"--public-key {public_key}: {getattr(error, 'strerror', None) or error}") from None

    def added(known: Roster, secret: str) -> Roster:
        if known.client(number) is not None:
            raise UserError(
                f"client:{number} is already in the roster; change it with `roster rotate` or `roster set-node`"
            )
        hashed = token_hash(secret) if token else None
        entry = ClientEntry(
            number=number, public_key=key, node_id=node_id, token_sha256=hashed, num_examples=num_examples
        )
        return known.with_entry("client", entry)

    _change(path, added, token_file, with_token=token)


@roster.command()
def add_operator(
    path: RosterPath, name: Annotated[str, typer.Argument(metavar="NAME")], token_file: TokenFile = None
) -> None:
    """Add an operator, who may make requests for any client; the token is shown once."""
    _add_staff(path, "operator", name, token_file)


@roster.command()
def add_monitor(
    path: RosterPath, name: Annotated[str, typer.Argument(metavar="NAME")], token_file: TokenFile = None
) -> None:
    """Add a monitor, which may read the metrics; the token is shown once."""
    _add_staff(path, "monitor", name, token_file)


@roster.command()
def set_node(
    path: RosterPath,
    number: Annotated[int, typer.Argument(metavar="CLIENT", min=0, help="The client's number.")],
    node_id: Annotated[str, typer.Argument(metavar="NODE-ID", help="The SuperNode's id.")],
) -> None:
    """Record a client's SuperNode, once it is registered."""
    _set(path, number, node_id=node_id)


@roster.command()
def set_examples(
    path: RosterPath,
    number: Annotated[int, typer.Argument(metavar="CLIENT", min=0, help="The client's number.")],
    num_examples: Annotated[
        int, typer.Argument(metavar="N", min=1, help="The most examples its replies may claim.")
    ],
) -> None:
    """Record the most examples a client has; a live federation refuses replies that claim more."""
    _set(path, number, num_examples=num_examples)


def _set(path: Path, number: int, **changes: Any) -> None:
    """Change what a roster says of a client that is in it."""
    from fedunlearn.deployment.roster_file import edit

    def changed(known: Roster) -> Roster:
        entry = known.client(number)
        if entry is None:
            raise UserError(f"client:{number} is not in the roster; add it with `roster add-client`")
        return known.with_entry("client", dataclasses.replace(entry, **changes))

    edit(path, changed)


Who = Annotated[str, typer.Argument(metavar="WHO", help="client:3, operator:NAME or monitor:NAME.")]


@roster.command()
def rotate(path: RosterPath, who: Who, token_file: TokenFile = None) -> None:
    """Issue a new token; the old one stops working at once."""
    from fedunlearn.deployment.roster import token_hash

    def rotated(known: Roster, secret: str) -> Roster:
        actor, entry = known.named(who)
        return known.with_entry(actor.role, dataclasses.replace(entry, token_sha256=token_hash(secret)))

    _change(path, rotated, token_file)


@roster.command()
def remove(path: RosterPath, who: Who) -> None:
    """Remove an entry from the roster."""
    from fedunlearn.deployment.roster_file import edit

    edit(path, lambda known: known.without(known.named(who)[0]))


@roster.command()
def show(path: RosterPath) -> None:
    """Show who is in the roster."""
    from fedunlearn.deployment.roster import Roster

    known = Roster.load(path)
    for entry in known.clients:
        token = "token" if entry.token_sha256 else "no token"
        key = "key" if entry.public_key else "no key"
        examples = "" if entry.num_examples is None else f", at most {entry.num_examples} examples"
        typer.echo(f"client:{entry.number}  node {entry.node_id or 'unknown'}, {key}, {token}{examples}")
    for role, staff in (("operator", known.operators), ("monitor", known.monitors)):
        for one in staff:
            typer.echo(f"{role}:{one.name}")


def _add_staff(path: Path, role: str, name: str, token_file: Path | None) -> None:
    from fedunlearn.deployment.roster import Actor, Role, StaffEntry, token_hash

    kind: Role = "operator" if role == "operator" else "monitor"

    def added(known: Roster, secret: str) -> Roster:
        if any(actor == Actor(kind, name) for actor, _ in known.entries):
            raise UserError(f"{kind}:{name} is already in the roster; `roster rotate` gives it a new token")
        return known.with_entry(kind, StaffEntry(name=name, token_sha256=token_hash(secret)))

    _change(path, added, token_file)


def _change(
    path: Path, change: Callable[[Roster, str], Roster], token_file: Path | None, *, with_token: bool = True
) -> None:
    """Change a roster with a new token and hand the token out.

    The token's file is written first: a token that is in force and that nobody has would be worse than one that
    somebody has and that is not in force.
    """
    from fedunlearn.deployment.roster import new_token
    from fedunlearn.deployment.roster_file import edit

    secret = new_token()
    if not with_token:
        edit(path, lambda known: change(known, ""))
        return
    if token_file is not None:
        _write_token(token_file, secret)
    try:
        edit(path, lambda known: change(known, secret))
    except BaseException:
        if token_file is not None:
            token_file.unlink()
        raise
    if token_file is None:
        try:
            terminal.say(terminal.console(), secret)
        finally:
            typer.echo("This token is shown once and not stored; hand it over privately.", err=True)


def _write_token(path: Path, secret: str) -> None:
    try:
        write_synced(path, f"{secret}\n".encode(), mode=0o600, new=True)
    except OSError as error:
        raise UserError(f"--token-file {path}: cannot be made ({error.strerror})") from None
