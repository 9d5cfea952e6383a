"""The health check says what a server answers, and fails where there is no answer."""

from __future__ import annotations

import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from deploy import keys

SCRIPT = Path(__file__).parents[2] / "deploy" / "health.py"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200 if self.path == "/health" else 503)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving(context: ssl.SSLContext | None = None) -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Handler)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"{'http' if context is None else 'https'}://localhost:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def ask(*words: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-IS", SCRIPT, *map(str, words)], capture_output=True, text=True, timeout=60
    )


def test_a_server_that_answers_200_is_healthy() -> None:
    with serving() as url:
        assert ask(f"{url}/health").returncode == 0


def test_one_that_answers_otherwise_is_not() -> None:
    with serving() as url:
        answer = ask(f"{url}/other")
    assert answer.returncode == 1
    assert "503" in answer.stderr


def test_nor_is_one_that_is_not_there() -> None:
    with serving() as url:
        pass
    answer = ask(f"{url}/health")
    assert answer.returncode == 1
    assert answer.stderr.startswith(url)


@pytest.mark.parametrize("right", [True, False])
def test_a_certificate_is_checked(tmp_path: Path, right: bool) -> None:
    authority, other = keys.Authority.new("one"), keys.Authority.new("two")
    authority.issue(tmp_path, ["localhost"])
    (tmp_path / "ca.crt").write_bytes((authority if right else other).pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "tls.crt", tmp_path / "tls.key")
    with serving(context) as url:
        assert (ask(f"{url}/health", tmp_path / "ca.crt").returncode == 0) == right
