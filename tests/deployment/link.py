"""A SuperLink with TLS and node authentication, and SuperNodes with keys of their own, on loopback."""

from __future__ import annotations

import datetime
import ipaddress
import subprocess
import sys
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import NameOID

from tests.deployment.flower import Flower, free_port, healthy, wait_for
from tests.deployment.site import Site

NAME = "tls"
"""The connection's, in Flower's configuration file."""
BEAT = 15
"""Seconds after which a SuperNode says at the latest that it is there; after twice as many it is taken for lost."""
SUPERNODE = f"""
from flwr.common import constant
constant.HEARTBEAT_DEFAULT_INTERVAL = {BEAT}  # of 30, so that tests wait half as long
from flwr.supernode.cli import flower_supernode
flower_supernode()
"""


class Link:
    """A SuperLink that keeps its state in a file, its SuperNodes, and what it takes to reach it.

    Parameters
    ----------
    flower
        Where its processes run.
    address
        Where it listens.

    Attributes
    ----------
    nodes : dict[int, str]
        Client → id of its registered node.
    processes : dict[int, Popen]
        Client → its SuperNode.
    """

    def __init__(self, flower: Flower, address: str = "127.0.0.1") -> None:
        self.flower = flower
        self._address = address
        self.port = free_port()
        self.nodes: dict[int, str] = {}
        self.processes: dict[int, subprocess.Popen[bytes]] = {}
        self._commands: dict[int, list[str]] = {}
        self._keys = flower.folder / "keys"
        self._keys.mkdir()
        write_certificates(self._keys, address)
        (flower.home / "config.toml").write_text(
            f'[superlink]\ndefault = "{NAME}"\n[superlink.{NAME}]\naddress = "{address}:{self.port}"\n'
            f'root-certificates = "{self.authority}"\n'
        )
        self.process = self.start()

    @property
    def authority(self) -> Path:
        """The certificate that the SuperLink's own is signed with."""
        return self._keys / "ca.crt"

    @property
    def database(self) -> Path:
        """The SuperLink's state."""
        return self.flower.folder / "superlink.sqlite"

    def start(self) -> subprocess.Popen[bytes]:
        """Start the SuperLink, and return once it answers."""
        self.process = self.flower.start(
            "flower-superlink",
            *("--ssl-certfile", self._keys / "server.crt", "--ssl-keyfile", self._keys / "server.key"),
            *("--ssl-ca-certfile", self.authority, "--enable-supernode-auth"),
            *("--database", self.database, "--host", self._address, "--port", str(self.port)),
            log="superlink",
        )
        url = f"https://{self._address}:{self.port}"

        def answers() -> bool | None:
            assert self.process.poll() is None, self.flower.log("superlink")
            return healthy(url, self.authority) or None

        wait_for("the SuperLink", answers)
        return self.process

    def register(self, client: int) -> str:
        """Make a key for a client's SuperNode, register it, and return the node id."""
        key = ec.generate_private_key(ec.SECP384R1())
        path = self._keys / f"client-{client}"
        path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
        path.chmod(0o600)
        public = path.with_suffix(".pub")
        public.write_bytes(key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH))
        node = str(self.flower.json("supernode", "register", public, NAME)["node-id"])
        self.nodes[client] = node
        return node

    def start_node(self, client: int, *, site: Site | None = None, **config: Any) -> None:
        """Start a client's SuperNode, in a network of its own if one is given.

        Further keywords are its node config, ``_`` for ``-``.
        """
        config = {"partition_id": client} | config
        words = [
            f"{key.replace('_', '-')}={value if isinstance(value, int) else repr(str(value))}".replace(
                "'", '"'
            )
            for key, value in config.items()
        ]
        command = [
            *(sys.executable, "-c", SUPERNODE),
            *("--superlink", f"{self._address}:{self.port}", "--root-certificates", str(self.authority)),
            *("--auth-supernode-private-key", str(self._keys / f"client-{client}")),
            *("--port", str(free_port()), "--node-config", " ".join(words)),
        ]
        self._commands[client] = command if site is None else site.within(*command)
        self.start_again(client)

    def start_again(self, client: int) -> None:
        """Start a client's SuperNode as it was started before."""
        self.processes[client] = self.flower.run(self._commands[client], log=f"node-{client}")

    def kill_node(self, client: int) -> None:
        """Kill a client's SuperNode, and leave it dead."""
        process = self.processes.pop(client)
        process.kill()
        process.wait()

    def stop_node(self, client: int) -> None:
        """Stop a client's SuperNode; it signs off."""
        process = self.processes.pop(client)
        process.terminate()
        process.wait()

    def tend(self) -> None:
        """Start SuperNodes again that have ended by themselves, as a restart policy does."""
        for client, process in list(self.processes.items()):
            if process.poll() is not None:
                self.start_again(client)

    def write_roster(self) -> Path:
        """Write a roster of the registered nodes."""
        path = self.flower.folder / "roster.toml"
        entries = [
            f'[[client]]\nnumber = {k}\nnode-id = "{node}"\n' for k, node in sorted(self.nodes.items())
        ]
        path.write_text("".join(entries))
        path.chmod(0o600)
        return path


def write_certificates(folder: Path, address: str = "127.0.0.1") -> None:
    """Write ``ca.crt``, and ``server.crt`` and ``server.key`` for an address of this machine."""
    now = datetime.datetime.now(datetime.UTC)
    until = now + datetime.timedelta(days=1)

    def named(name: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])

    authority = ec.generate_private_key(ec.SECP256R1())
    server = ec.generate_private_key(ec.SECP256R1())
    common = (
        x509.CertificateBuilder()
        .issuer_name(named("tests"))
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(until)
    )
    identifier = x509.SubjectKeyIdentifier.from_public_key(authority.public_key())
    may_sign_certificates = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
    own = (
        common.subject_name(named("tests"))
        .serial_number(x509.random_serial_number())
        .public_key(authority.public_key())
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(may_sign_certificates, critical=True)
        .add_extension(identifier, critical=False)
        .sign(authority, hashes.SHA256())
    )
    theirs = (
        common.subject_name(named(address))
        .serial_number(x509.random_serial_number())
        .public_key(server.public_key())
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName(
                [x509.IPAddress(ipaddress.ip_address(address)), x509.DNSName("localhost")]
            ),
            critical=False,
        )
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False
        )
        .sign(authority, hashes.SHA256())
    )
    (folder / "ca.crt").write_bytes(own.public_bytes(Encoding.PEM))
    (folder / "server.crt").write_bytes(theirs.public_bytes(Encoding.PEM))
    key = folder / "server.key"
    key.write_bytes(server.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    key.chmod(0o600)
