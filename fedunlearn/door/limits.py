"""How much one caller may ask of the door: requests a second, bytes, seconds, connections."""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

KEYS = 10_000
"""Callers that a set of buckets remembers at most."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The door's limits. Rates are requests a second; five seconds' worth may come at once.

    Attributes
    ----------
    token_rate, address_rate : float
        For each token; for each address, whatever it sends and whether it has a token or not.
    body_bytes, head_bytes : int
        Of one request: its body as sent, chunked or not; its first line with all headers.
    head_seconds, body_seconds : float
        From a connection's opening, or the answer before, until the head is there; then until the body is.
    silent_seconds : float
        From a connection's acceptance until its first byte; and from there until its TLS handshake is over.
    ledger_seconds : float
        How long a request waits for the ledger, which the server may be writing to, before it is told to come
        back.
    connections, address_connections : int
        Open at a time: altogether, and from one address. Whoever is one too many takes the place of the one that the
        door has waited for longest (`fedunlearn.door.admission`).
    silent : int
        Open beside those and without a byte yet.
    waiting : int
        Requests that may wait for the ledger at a time.
    """

    token_rate: float = 10.0
    address_rate: float = 50.0
    body_bytes: int = 64 * 1024
    head_bytes: int = 16 * 1024
    head_seconds: float = 10.0
    body_seconds: float = 10.0
    silent_seconds: float = 5.0
    ledger_seconds: float = 10.0
    connections: int = 512
    address_connections: int = 256
    silent: int = 256
    waiting: int = 512


class Buckets:
    """Token buckets, one for each caller: `rate` requests a second in the long run, `burst` at once.

    A full bucket is as good as none, so that the longest unused are forgotten when there are too many.

    Parameters
    ----------
    rate
        Requests a second, > 0.
    burst
        What a full bucket holds; default five seconds' worth, at least 1.
    clock
        Seconds that only grow.
    """

    def __init__(
        self, rate: float, burst: float | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.rate = rate
        self.burst = max(1.0, 5 * rate) if burst is None else burst
        self._clock = clock
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()  # level, and when it was that

    def __len__(self) -> int:
        return len(self._levels)

    def take(self, caller: str) -> float:
        """Take one from the caller's bucket; return 0, or the seconds until there is one to take."""
        now = self._clock()
        level, then = self._levels.pop(caller, (self.burst, now))
        level = min(self.burst, level + (now - then) * self.rate)
        allowed = level >= 1
        self._levels[caller] = (level - 1 if allowed else level, now)
        if len(self._levels) > KEYS:
            self._levels.popitem(last=False)
        return 0.0 if allowed else (1 - level) / self.rate


def neighbourhood(address: str) -> str:
    """Return what an address is counted as: itself, or its /64 network for IPv6, where hosts choose addresses."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address  # such as the test client's
    if ip.version == 4:
        return str(ip)
    if ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped)
    return str(ipaddress.ip_network((ip, 64), strict=False))
