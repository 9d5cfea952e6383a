"""Runs a SuperNode, and runs it again when it has failed: ``supernode.py OPTIONS-OF-FLOWER-SUPERNODE``.

An address that cannot be one would be tried for ever: it is refused in one line, with exit code 2.
``supernode.py --check OPTIONS`` does no more than that.

One that died without saying so counts as online for another minute at most, and until then a new one is turned away.
So it is started again when that minute is surely over. Not sooner: back before the server has seen that it was gone,
it would be waited for, for an answer that died with it.
"""

import ipaddress
import os
import re
import signal
import subprocess
import sys
import threading

PAUSE = float(
    os.environ.get("SUPERNODE_PAUSE", "65")
)  # seconds; of two missed heartbeats of 30, and a look at them


LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
"""One part of a host name."""


def objection(address: str) -> str:
    """Say why ``HOST:PORT`` cannot be the address of a SuperLink, or return an empty string."""
    host, colon, port = address.rpartition(":")
    if not colon or not host:
        return "has no host; it must be HOST:PORT"
    if not port.isascii() or not port.isdigit() or not 1 <= int(port) <= 65535:
        return "has no port from 1 to 65535; it must be HOST:PORT"
    if host.startswith("[") and host.endswith("]"):
        try:
            ipaddress.IPv6Address(host[1:-1])
        except ValueError:
            return "has no IPv6 address between its brackets"
        return ""
    if len(host) > 253 or not all(LABEL.fullmatch(label) for label in host.removesuffix(".").split(".")):
        return "has no host name or address before its port; it must be HOST:PORT, without a scheme such as https://"
    return ""


def superlink_of(options: list[str]) -> str:
    """Return the address among a SuperNode's options; Flower's default if there is none."""
    for index, option in enumerate(options):
        if option == "--superlink":
            return options[index + 1] if index + 1 < len(options) else ""
        if option.startswith("--superlink="):
            return option.partition("=")[2]
    return "127.0.0.1:9092"


def main(options: list[str]) -> None:
    """Check the address, then keep a SuperNode running."""
    only_check = options[:1] == ["--check"]
    address = superlink_of(options[only_check:])
    if why := objection(address):
        print(f"SuperNode: the server's address {address!r} (FEDUNLEARN_SERVER) {why}", file=sys.stderr)
        sys.exit(2)
    if not only_check:
        run(options)


def run(options: list[str]) -> None:
    """Run it until somebody stops this process: then the SuperNode says goodbye, so that it can be back at once."""
    stopped = threading.Event()
    child: subprocess.Popen[bytes] | None = None

    def stop(*_: object) -> None:
        stopped.set()
        if child is not None:
            child.terminate()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    while not stopped.is_set():
        child = subprocess.Popen(["flower-supernode", *options])
        if stopped.is_set():  # between the last look and the start
            child.terminate()
        code = child.wait()
        if not stopped.is_set():
            print(f"the SuperNode ended with {code}; it is started again in {PAUSE:g} s", flush=True)
            stopped.wait(PAUSE)


if __name__ == "__main__":
    main(sys.argv[1:])
