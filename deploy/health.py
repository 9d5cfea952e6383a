"""Whether a service answers ``GET`` with 200, for Docker's health checks: ``health.py URL [AUTHORITY]``.

Runs every few seconds in many containers, on ``python -I -S``: nothing is imported that it can do without.
"""

import socket
import ssl
import sys

TIMEOUT = 20.0  # seconds


def status(url: str, authority: str | None = None) -> str:
    """Return the first line of the answer; raise OSError where there is none.

    Parameters
    ----------
    url
        ``https://host:port/path``, or ``http://…``.
    authority
        File of the certificate authority that an https server is checked against.
    """
    scheme, _, rest = url.partition("://")
    address, _, path = rest.partition("/")
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=TIMEOUT) as plain:
        connection = plain
        if scheme == "https":
            connection = ssl.create_default_context(cafile=authority).wrap_socket(plain, server_hostname=host)
        with connection:
            connection.sendall(f"GET /{path} HTTP/1.0\r\nHost: {host}\r\n\r\n".encode())
            return connection.recv(4096).split(b"\r\n")[0].decode("latin-1")


if __name__ == "__main__":
    try:
        answer = status(*sys.argv[1:])
    except OSError as error:
        sys.exit(f"{sys.argv[1]}: {error}")
    if answer.split(" ")[1:2] != ["200"]:
        sys.exit(f"{sys.argv[1]}: {answer}")
