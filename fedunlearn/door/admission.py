"""Who is connected, and who has to go when one more comes: never somebody who is being answered."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable


class Visitor:
    """One connection.

    Attributes
    ----------
    host : str
        The address it is counted under.
    end : callable
        Breaks the connection off; may be called once only.
    """

    def __init__(self, host: str, end: Callable[[], object]) -> None:
        self.host = host
        self.end = end


class Admission:
    """Bounds connections, altogether and for each host.

    One more than that is let in at the cost of the one of the same host, or else of the host that has most, that the
    door has waited for longest: for its handshake, the rest of its request, or until it reads its answer. So those
    who keep the door waiting keep nobody else out. If none keeps it waiting, the newcomer is turned away.

    Parameters
    ----------
    total
        Connections at a time.
    each
        Of one host; None: as many as altogether.
    """

    def __init__(self, total: int, each: int | None = None) -> None:
        self._total = total
        self._each = total if each is None else each
        self._awaited: dict[str, OrderedDict[Visitor, None]] = {}  # by host, longest first
        self._answered: dict[Visitor, None] = {}
        self._hosts: Counter[str] = Counter()
        self._number = 0

    def __len__(self) -> int:
        return self._number

    def enter(self, visitor: Visitor) -> bool:
        """Take somebody in, in another's place if need be; return False if there is no place."""
        if self._hosts[visitor.host] >= self._each and not self._dismiss(visitor.host):
            return False
        if len(self) >= self._total and not self.make_room():
            return False
        self._number += 1
        self._hosts[visitor.host] += 1
        self._awaited.setdefault(visitor.host, OrderedDict())[visitor] = None
        return True

    def make_room(self) -> bool:
        """Dismiss one of the host that keeps the door waiting most; return False if nobody does."""
        greediest = max(self._awaited, key=lambda host: len(self._awaited[host]), default=None)
        return greediest is not None and self._dismiss(greediest)

    def answering(self, visitor: Visitor) -> None:
        """Its request is there as a whole: from now on it waits for the door."""
        if self._forget(visitor):
            self._answered[visitor] = None

    def awaiting(self, visitor: Visitor) -> None:
        """The door waits for it again, from now on."""
        if self._answered.pop(visitor, visitor) is None:
            self._awaited.setdefault(visitor.host, OrderedDict())[visitor] = None

    def leave(self, visitor: Visitor) -> None:
        """It has gone; a second time changes nothing."""
        if self._answered.pop(visitor, visitor) is None or self._forget(visitor):
            self._number -= 1
            self._hosts[visitor.host] -= 1
            if not self._hosts[visitor.host]:
                del self._hosts[visitor.host]

    def _dismiss(self, host: str) -> bool:
        first = next(iter(self._awaited.get(host, ())), None)
        if first is None:
            return False
        self.leave(first)
        first.end()
        return True

    def _forget(self, visitor: Visitor) -> bool:
        """Take somebody out of those who are waited for; return whether it was among them."""
        own = self._awaited.get(visitor.host)
        if own is None or visitor not in own:
            return False
        del own[visitor]
        if not own:
            del self._awaited[visitor.host]
        return True
