"""The roster: who is who. It binds a client's number, its SuperNode's key and node id, and its token for the door.

One TOML file on the server, written by ``fedunlearn roster``. It holds no secret: of a token only the SHA-256 is
kept, and a token has 256 random bits, so that there is nothing to be guessed from it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
import secrets
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from fedunlearn.config.conditions import Must, at_least, matching
from fedunlearn.config.source import parse
from fedunlearn.config.toml_text import dumps
from fedunlearn.config.toml_tree import Origin, plain, read
from fedunlearn.errors import UserError

Role = Literal["operator", "client", "monitor"]

TOKEN_BYTES = 32
LOCAL = "local"  # the actor "operator:local" is whoever works on the server's own command line
_CURVES = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)
_KEY = "must be a SuperNode's ECDSA public key (OpenSSH or PEM) on curve P-256, P-384 or P-521"


def new_token() -> str:
    """Return a new token of 256 random bits, in URL-safe characters."""
    return secrets.token_urlsafe(TOKEN_BYTES)


def token_hash(token: str) -> str:
    """Return what the roster keeps of a token: its SHA-256 in hexadecimal."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def canonical_key(text: str) -> str:
    """Return a SuperNode's public key, OpenSSH or PEM, as OpenSSH text without a comment.

    Raises
    ------
    ValueError
        It is no ECDSA public key on a curve that Flower accepts.
    """
    data = text.strip().encode()
    try:
        load = (
            serialization.load_pem_public_key
            if data.startswith(b"-----")
            else serialization.load_ssh_public_key
        )
        key = load(data)
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError(_KEY) from None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, _CURVES):
        raise ValueError(_KEY)
    return key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()


def _is_key(text: str) -> bool:
    try:
        canonical_key(text)
    except ValueError:
        return False
    return True


# Node ids reach 2**64 - 1, integers of TOML only 2**63 - 1.
NodeId = Annotated[str, matching(r"[1-9][0-9]{0,19}", "must be a node id as Flower shows it, in quotes")]
Hash = Annotated[
    str, matching(r"[0-9a-f]{64}", "must be the SHA-256 of a token in hexadecimal, never the token")
]


@dataclass(frozen=True, kw_only=True)
class ClientEntry:
    """``[[client]]``: what is known of one client; all but the number may come later."""

    number: Annotated[int, at_least(0)]
    public_key: Annotated[str, Must(_is_key, _KEY)] | None = None
    node_id: NodeId | None = None
    token_sha256: Hash | None = None
    num_examples: Annotated[int, at_least(1)] | None = None  # the most that its answers may claim


@dataclass(frozen=True, kw_only=True)
class StaffEntry:
    """``[[operator]]`` or ``[[monitor]]``: a person, or a program that reads the metrics."""

    name: Annotated[
        str,
        matching(r"[A-Za-z0-9._-]*", "may contain only letters, digits and . _ -"),
        matching(
            r"[A-Za-z0-9].{0,63}", "must begin with a letter or a digit, and have at most 64 characters"
        ),
    ]
    token_sha256: Hash


@dataclass(frozen=True)
class Actor:
    """Who holds a token.

    Attributes
    ----------
    role : str
        "operator" may ask for anyone, "client" for itself, "monitor" may read the metrics and nothing else.
    name : str
        The operator's or monitor's name, the client's number.
    """

    role: Role
    name: str

    @property
    def client(self) -> int | None:
        """The client's number, if it is a client."""
        return int(self.name) if self.role == "client" else None

    def __str__(self) -> str:
        return f"{self.role}:{self.name}"


@dataclass(frozen=True)
class Roster:
    """All entries of a roster file."""

    clients: tuple[ClientEntry, ...] = field(default=(), metadata={"key": "client"})
    operators: tuple[StaffEntry, ...] = field(default=(), metadata={"key": "operator"})
    monitors: tuple[StaffEntry, ...] = field(default=(), metadata={"key": "monitor"})

    @classmethod
    def load(cls, path: str | Path) -> Roster:
        """Read a roster file.

        Raises
        ------
        UserError
            It cannot be read, anyone may write to it, an entry is wrong, or two entries claim the same number,
            name, key, node or token.
        """
        path = Path(path)
        try:
            if path.stat().st_mode & 0o002:
                raise UserError(f"{path}: anyone on this machine can write to it; run chmod 600 {path}")
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise UserError(f"{path}: there is no such file; make it with `fedunlearn roster init`") from None
        except UnicodeDecodeError:
            raise UserError(f"{path}: must be a text file in UTF-8") from None
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({(error.strerror or 'error').lower()})") from None
        return cls.loads(text, str(path))

    @classmethod
    def loads(cls, text: str, place: str) -> Roster:
        """Read a roster from a file's text; `place` names the file in what `load` raises."""
        roster = read(cls, parse(text, place), Origin(place))
        roster._refuse_claims_of_two(place)
        return roster

    def to_toml(self) -> str:
        """Return the file's text; `load` reads the same roster from it."""
        return dumps(plain(self))

    def _refuse_claims_of_two(self, place: str) -> None:
        keys = (canonical_key(entry.public_key) for entry in self.clients if entry.public_key)
        tokens = [entry.token_sha256 for _, entry in self.entries]
        claims: dict[str, Iterable[object]] = {
            "client.number": (entry.number for entry in self.clients),
            "client.public-key": keys,
            "client.node-id": (entry.node_id for entry in self.clients if entry.node_id),
            "operator.name": (entry.name for entry in self.operators),
            "monitor.name": (entry.name for entry in self.monitors),
            "token-sha256": (token for token in tokens if token),
        }
        for path, values in claims.items():
            for value, count in Counter(values).items():
                if count > 1:
                    raise Origin(place).error(path, value, "must not be in two entries; remove one")
        if any(entry.name == LOCAL for entry in self.operators):
            raise Origin(place).error(
                "operator.name", LOCAL, "is reserved for the server's command line; choose another"
            )

    def client_of_node(self, node_id: int) -> int | None:
        """Return the number of the client whose SuperNode has this node id, or None."""
        return next((entry.number for entry in self.clients if entry.node_id == str(node_id)), None)

    def client(self, number: int) -> ClientEntry | None:
        """Return a client's entry, or None."""
        return next((entry for entry in self.clients if entry.number == number), None)

    @property
    def examples(self) -> dict[int, int]:
        """Client → the most examples that it has, of those where that is known."""
        return {entry.number: entry.num_examples for entry in self.clients if entry.num_examples is not None}

    def actor_of_token(self, token: str) -> Actor | None:
        """Return who holds a token, or None.

        Every entry is compared, each in constant time: how long it takes does not tell how near a guess was.
        """
        wanted = token_hash(token)
        found = None
        for actor, known in self._tokens:
            if hmac.compare_digest(known, wanted):
                found = actor
        return found

    @cached_property
    def _tokens(self) -> tuple[tuple[Actor, str], ...]:
        found = ((actor, entry.token_sha256) for actor, entry in self.entries)
        return tuple((actor, token) for actor, token in found if token is not None)

    @cached_property
    def entries(self) -> tuple[tuple[Actor, ClientEntry | StaffEntry], ...]:
        """Everybody, clients first."""
        return (
            *((Actor("client", str(entry.number)), entry) for entry in self.clients),
            *((Actor("operator", entry.name), entry) for entry in self.operators),
            *((Actor("monitor", entry.name), entry) for entry in self.monitors),
        )

    def with_entry(self, role: Role, entry: ClientEntry | StaffEntry) -> Roster:
        """Return the roster with an entry added, or put in the place of the one of the same number or name."""
        if isinstance(entry, ClientEntry):
            clients = [*(known for known in self.clients if known.number != entry.number), entry]
            return dataclasses.replace(self, clients=tuple(sorted(clients, key=lambda known: known.number)))
        known = self.operators if role == "operator" else self.monitors
        staff = tuple(
            sorted([*(one for one in known if one.name != entry.name), entry], key=lambda one: one.name)
        )
        if role == "operator":
            return dataclasses.replace(self, operators=staff)
        return dataclasses.replace(self, monitors=staff)

    def named(self, who: str) -> tuple[Actor, ClientEntry | StaffEntry]:
        """Return whom "client:3", "operator:NAME" or "monitor:NAME" stands for, and the entry.

        Raises
        ------
        UserError
            Nobody in the roster.
        """
        for actor, entry in self.entries:
            if str(actor) == who:
                return actor, entry
        raise UserError(f"{who}: is not in the roster; write client:3, operator:NAME or monitor:NAME")

    def without(self, actor: Actor) -> Roster:
        """Return the roster without somebody's entry, if there is one."""
        return Roster(
            tuple(entry for entry in self.clients if entry.number != actor.client),
            tuple(one for one in self.operators if (actor.role, actor.name) != ("operator", one.name)),
            tuple(one for one in self.monitors if (actor.role, actor.name) != ("monitor", one.name)),
        )
