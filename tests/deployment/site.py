"""A network of one SuperNode's own, joined to this machine by a cable that can be pulled."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
from contextlib import suppress
from types import TracebackType

NODE = "node"
"""The network's own end of the cable."""


def can_make_networks() -> bool:
    """Return whether a test may make networks here."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return False
    try:
        with Site():
            return True
    except subprocess.CalledProcessError:  # root, but not of the machine: in a container, say
        return False


class Site:
    """A network namespace; to be used in a ``with`` statement.

    Attributes
    ----------
    server, node : str
        The addresses at both ends of the cable, this machine's and the network's.
    """

    def __init__(self) -> None:
        mark = secrets.token_hex(3)
        self._name, self._cable = f"fedunlearn-{mark}", f"fu{mark}"
        low = 4 * secrets.randbelow(1 << 14)
        self.server, self.node = (f"10.213.{(low + end) >> 8}.{(low + end) & 255}" for end in (1, 2))

    def __enter__(self) -> Site:
        _ip("netns", "add", self._name)
        try:
            _ip("link", "add", self._cable, "type", "veth", "peer", "name", NODE, "netns", self._name)
            _ip("address", "add", f"{self.server}/30", "dev", self._cable)
            _ip("link", "set", self._cable, "up")
            _ip("-n", self._name, "address", "add", f"{self.node}/30", "dev", NODE)
            _ip("-n", self._name, "link", "set", "lo", "up")
            self.mend()
        except BaseException:
            self.remove()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.remove()

    def within(self, *words: str) -> list[str]:
        """Return a command that runs in this network."""
        return ["ip", "netns", "exec", self._name, *words]

    def cut(self) -> None:
        """Pull the cable at the node's end."""
        _ip("-n", self._name, "link", "set", NODE, "down")

    def mend(self) -> None:
        """Plug it in again."""
        _ip("-n", self._name, "link", "set", NODE, "up")

    def remove(self) -> None:
        """Remove cable and network."""
        for words in (("link", "delete", self._cable), ("netns", "delete", self._name)):
            with suppress(subprocess.CalledProcessError):  # was not made
                _ip(*words)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)
