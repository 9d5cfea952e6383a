"""Certificates and keys of a deployment: made once, each where it belongs, and good for what they are for."""

from __future__ import annotations

import datetime
import os
import ssl
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.serialization import load_ssh_private_key

from deploy import keys
from fedunlearn.deployment.roster import Actor, Roster, canonical_key

SERVICES = (
    *("authority", "trust", "superlink", "proxy", "door", "serverapp", "operator"),
    *("client", "clientapp", "public"),
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for service in SERVICES:
        (tmp_path / service).mkdir()
    return tmp_path


def handshake(server: Path, authority: Path, name: str) -> None:
    """Speak TLS with the server of a folder's certificate, in memory; raises ssl.SSLError where it is not trusted."""
    ours = ssl.create_default_context(cafile=authority)
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    theirs.load_cert_chain(server / "tls.crt", server / "tls.key")
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [
        ours.wrap_bio(to_client, to_server, server_hostname=name),
        theirs.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(10):
        waiting = []
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                waiting.append(end)
        if not waiting:
            return
        ends = waiting
    raise AssertionError("the handshake does not end")


def snapshot(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class TestServer:
    @pytest.mark.parametrize(
        ("service", "name"),
        [("superlink", "superlink"), ("proxy", "fleet"), ("proxy", "fl.example.org"), ("door", "10.0.0.7")],
    )
    def test_a_service_is_trusted_under_its_names(self, folder: Path, service: str, name: str) -> None:
        keys.make_server(folder, ["fl.example.org", "10.0.0.7"])
        handshake(folder / service, folder / "trust" / "ca.crt", name)

    def test_and_under_no_other(self, folder: Path) -> None:
        keys.make_server(folder, [])
        with pytest.raises(ssl.SSLCertVerificationError):
            handshake(folder / "proxy", folder / "trust" / "ca.crt", "fl.example.org")
        with pytest.raises(ssl.SSLCertVerificationError):  # a client's container cannot pose as the SuperLink
            handshake(folder / "proxy", folder / "trust" / "ca.crt", "superlink")

    def test_everything_stays_the_second_time(self, folder: Path) -> None:
        keys.make_server(folder, ["fl.example.org"])
        first = snapshot(folder)
        keys.make_server(folder, ["fl.example.org"])
        assert snapshot(folder) == first

    def test_another_name_makes_another_certificate_of_the_same_authority(self, folder: Path) -> None:
        keys.make_server(folder, [])
        first = snapshot(folder)
        keys.make_server(folder, ["new.example.org"])
        changed = {
            str(path.relative_to(folder))
            for path, content in snapshot(folder).items()
            if content != first[path]
        }
        assert changed == {f"{service}/tls.{end}" for service in ("proxy", "door") for end in ("crt", "key")}
        handshake(folder / "proxy", folder / "trust" / "ca.crt", "new.example.org")

    @pytest.mark.parametrize(
        ("days_left", "renewed"), [(keys.RENEW_DAYS - 1, True), (keys.RENEW_DAYS + 1, False)]
    )
    def test_certificates_are_renewed_in_time(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, days_left: int, renewed: bool
    ) -> None:
        monkeypatch.setattr(keys, "CERTIFICATE_DAYS", days_left)
        keys.make_server(folder, [])
        before = (folder / "superlink" / "tls.crt").read_bytes()
        monkeypatch.undo()
        keys.make_server(folder, [])
        assert ((folder / "superlink" / "tls.crt").read_bytes() != before) == renewed

    def test_what_another_authority_signed_is_made_anew(self, folder: Path) -> None:
        keys.make_server(folder, [])
        for path in (folder / "authority").iterdir():  # its volume was lost
            path.unlink()
        keys.make_server(folder, [])
        handshake(folder / "superlink", folder / "trust" / "ca.crt", "superlink")

    def test_superlink_and_executor_share_a_secret_of_256_bits(self, folder: Path) -> None:
        keys.make_server(folder, [])
        secret = (folder / "superlink" / "superexec.secret").read_bytes()
        assert secret == (folder / "serverapp" / "superexec.secret").read_bytes()
        assert len(secret) == 32

    def test_the_authority_ends_after_its_certificates(self) -> None:
        left = keys.Authority.new("x").certificate.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
        assert left.days > keys.CERTIFICATE_DAYS + keys.RENEW_DAYS


class TestRoster:
    def test_the_token_left_for_the_operator_opens_the_door_as_operator(self, tmp_path: Path) -> None:
        keys.make_roster(tmp_path / "roster.toml", tmp_path)
        token = (tmp_path / "operator.token").read_text().strip()
        assert Roster.load(tmp_path / "roster.toml").actor_of_token(token) == Actor("operator", "operator")
        assert token not in (tmp_path / "roster.toml").read_text()

    def test_a_roster_that_is_there_stays(self, tmp_path: Path) -> None:
        keys.make_roster(tmp_path / "roster.toml", tmp_path)
        first = snapshot(tmp_path)
        keys.make_roster(tmp_path / "roster.toml", tmp_path)
        assert snapshot(tmp_path) == first


class TestClient:
    def test_its_supernode_is_trusted_by_its_executor_and_by_nobody_else(self, folder: Path) -> None:
        keys.make_server(folder, [])
        keys.make_client(folder, 3)
        handshake(folder / "client", folder / "clientapp" / "ca.crt", "runtime")
        with pytest.raises(ssl.SSLCertVerificationError):
            handshake(folder / "client", folder / "trust" / "ca.crt", "runtime")

    def test_what_leaves_it_is_the_public_key_that_a_roster_takes(self, folder: Path) -> None:
        keys.make_client(folder, 3)
        assert [path.name for path in (folder / "public").iterdir()] == ["client-3.pub"]
        public = (folder / "public" / "client-3.pub").read_text()
        pair = load_ssh_private_key((folder / "client" / "supernode").read_bytes(), None)
        derived = pair.public_key().public_bytes(
            serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
        )
        assert canonical_key(public) == derived.decode()

    def test_the_executor_does_not_get_the_supernodes_key(self, folder: Path) -> None:
        keys.make_client(folder, 0)
        assert {path.name for path in (folder / "clientapp").iterdir()} == {"ca.crt", "superexec.secret"}

    def test_everything_stays_the_second_time(self, folder: Path) -> None:
        keys.make_client(folder, 0)
        first = snapshot(folder)
        keys.make_client(folder, 0)
        assert snapshot(folder) == first


def test_only_what_is_public_can_be_read_by_others(folder: Path) -> None:
    keys.make_server(folder, [])
    keys.make_client(folder, 0)
    readable = {
        path.suffix for path in folder.rglob("*") if path.is_file() and path.stat().st_mode & stat.S_IROTH
    }
    assert readable == {".crt", ".pub"}
    assert not [path for path in folder.rglob("*") if path.is_file() and path.stat().st_mode & stat.S_IWOTH]


class TestCommand:
    """What a compose file hands over from its variables, and nobody has looked at before."""

    @staticmethod
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        root = Path(__file__).parents[2]
        return subprocess.run(
            [sys.executable, str(root / "deploy" / "keys.py"), *words],
            env={**os.environ, "PYTHONPATH": str(root)},
            capture_output=True,
            text=True,
            timeout=60,
        )

    @pytest.mark.parametrize("number", ["", "-1", "two", "1.0", "٣", str(2**31)])
    def test_a_client_without_a_number_is_refused_before_it_has_a_key(
        self, folder: Path, number: str
    ) -> None:
        done = self.run("--folder", str(folder), "client", f"--number={number}")
        assert done.returncode == 2
        assert f"{number!r} must be a whole number from 0 (FEDUNLEARN_CLIENT)" in done.stderr
        assert not snapshot(folder)

    @pytest.mark.parametrize(
        "name", ["https://fl.example.org", "fl.example.org:8443", "fl example", "a..b", "[::1]"]
    )
    def test_a_name_no_certificate_can_be_for_is_refused_before_there_is_one(
        self, folder: Path, name: str
    ) -> None:
        done = self.run("--folder", str(folder), "server", "--name", f"fl.example.org,{name}")
        assert done.returncode == 2
        assert f"{name!r} must be a host name or an address" in done.stderr
        assert not snapshot(folder)

    def test_several_names_stand_in_one_variable(self, folder: Path) -> None:
        roster = folder / "roster.toml"
        names = "fl.example.org,192.0.2.1,,2001:db8::1"
        done = self.run("--folder", str(folder), "server", "--roster", str(roster), "--name", names)
        assert done.returncode == 0, done.stderr
        for name in ("fl.example.org", "192.0.2.1", "2001:db8::1"):
            handshake(folder / "proxy", folder / "trust" / "ca.crt", name)
