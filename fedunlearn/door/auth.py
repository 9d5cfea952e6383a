"""Who is at the door: the bearer token of a request, looked up in the roster as it is now."""

from __future__ import annotations

from collections.abc import Iterable

from fedunlearn.deployment.roster import Actor, Role
from fedunlearn.deployment.roster_file import RosterFile

CHALLENGE = {"WWW-Authenticate": 'Bearer realm="fedunlearn"'}
"""Header of every 401."""
_LONGEST = 512  # characters of a token worth hashing


class DeniedError(Exception):
    """Not let in.

    Attributes
    ----------
    status : int
        401 or 403.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def actor_of(headers: Iterable[tuple[bytes, bytes]], roster: RosterFile) -> Actor:
    """Return who sends a request with these headers.

    Raises
    ------
    DeniedError
        With 401: no token, several, or one that the roster does not know. What was sent is not repeated: it
        may be a token with a letter too many.
    """
    found = [value for name, value in headers if name == b"authorization"]
    if len(found) != 1:
        raise DeniedError(401, "exactly one token is needed: Authorization: Bearer TOKEN")
    scheme, _, token = found[0].partition(b" ")
    token = token.strip()
    if scheme.lower() != b"bearer" or not token or len(token) > _LONGEST:
        raise DeniedError(401, "exactly one token is needed: Authorization: Bearer TOKEN")
    actor = roster.current().actor_of_token(token.decode("latin-1"))
    if actor is None:
        raise DeniedError(401, "this token is not, or no longer, in the roster")
    return actor


def require(actor: Actor, *roles: Role) -> None:
    """Raise DeniedError with 403 unless the actor has one of the roles."""
    if actor.role not in roles:
        raise DeniedError(403, f"the role {actor.role!r} may not do this")


def may_ask(actor: Actor, clients: Iterable[int] | None) -> None:
    """Raise DeniedError with 403 unless the actor may ask for these clients, or data of theirs; None: everyone's."""
    require(actor, "operator", "client")
    if actor.client is not None and (clients is None or set(clients) != {actor.client}):
        raise DeniedError(403, f"client {actor.client} may ask only for itself")


def may_see(actor: Actor, clients: Iterable[int]) -> bool:
    """Whether a request for these clients is the actor's business; a client's is one for itself alone."""
    return actor.role == "operator" or (actor.client is not None and set(clients) == {actor.client})
