"""Makes certificates, keys and secrets of one machine of a deployment: ``keys.py server`` or ``keys.py client``.

Every service finds its own in a folder of its own (a volume of its own), and nothing of another's:

========================  ======================================================================================
``authority``             the server's certificate authority with its key; mounted here and nowhere else
``trust``                 the authority's certificate, for everyone
``superlink``             TLS certificate of the SuperLink; the secret of the server's SuperExec
``proxy``, ``door``       TLS certificates of the two that others can reach
``serverapp``             the SuperExec's secret, and the key that signs trail and certificates
``operator``              tokens for the door, to be handed over and deleted: the roster keeps only their hashes
``client``                a SuperNode's key pair, the TLS certificate of its Runtime API, its SuperExec's secret
``clientapp``             that secret again, and what the certificate is checked with
``public``                public keys of SuperNodes, ``client-<number>.pub``: the only thing that leaves a client
========================  ======================================================================================

What is there stays, but for TLS certificates that end within two months: these are made anew, and the services have
to be restarted to read them. Needs no network.
"""

from __future__ import annotations

import argparse
import datetime
import ipaddress
import os
import re
import secrets
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from fedunlearn.certificates.keys import new_key
from fedunlearn.deployment.roster import StaffEntry, new_token, token_hash
from fedunlearn.deployment.roster_file import edit

AUTHORITY_DAYS = 3650
CERTIFICATE_DAYS = 365
RENEW_DAYS = 60
SECRET_BYTES = 32
OPERATOR = "operator"
HOST_NAME = re.compile(
    r"(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*"
)


def main() -> None:
    """Make what is missing of one machine's keys."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--folder", type=Path, default=Path("/keys"), help="where the folders of the services are"
    )
    parts = parser.add_subparsers(dest="part", required=True)
    server = parts.add_parser("server")
    server.add_argument(
        "--name",
        action="append",
        type=host_names,
        default=[],
        help="host names or addresses that clients and askers use, separated by commas",
    )
    server.add_argument(
        "--roster", type=Path, default=Path("/roster/roster.toml"), help="who may use the door"
    )
    client = parts.add_parser("client")
    client.add_argument(
        "--number", type=client_number, required=True, help="the client's number in the federation, from 0"
    )
    asked = parser.parse_args()
    if asked.part == "server":
        make_server(asked.folder, [name for names in asked.name for name in names])
        make_roster(asked.roster, asked.folder / "operator")
    else:
        make_client(asked.folder, asked.number)


def client_number(text: str) -> int:
    """Return a client's number; argparse says what is wrong with one that is none."""
    if not (text.isascii() and text.isdigit() and int(text) < 2**31):
        raise argparse.ArgumentTypeError(f"{text!r} must be a whole number from 0 (FEDUNLEARN_CLIENT)")
    return int(text)


def host_names(text: str) -> list[str]:
    """Return host names and addresses separated by commas: no certificate can be for anything else."""
    names = [name for name in text.split(",") if name]
    for name in names:
        if isinstance(_general_name(name), x509.DNSName) and not HOST_NAME.fullmatch(name):
            raise argparse.ArgumentTypeError(
                f"{name!r} must be a host name or an address, without scheme or port (FEDUNLEARN_NAMES)"
            )
    return names


def make_server(folder: Path, names: list[str]) -> None:
    """Make the server's authority, certificates, secret and signing key.

    Parameters
    ----------
    names
        Host names and addresses under which proxy and door are reached from outside.
    """
    authority = Authority.kept(folder / "authority")
    for service in ("trust", "superlink", "proxy", "door"):
        write(folder / service / "ca.crt", authority.pem, 0o644)
    authority.issue(folder / "superlink", ["superlink", "localhost"])
    authority.issue(folder / "proxy", ["fleet", "localhost", *names])
    authority.issue(folder / "door", ["door", "localhost", "127.0.0.1", *names])
    share_secret(folder / "superlink", folder / "serverapp")
    signing = folder / "serverapp" / "signing.pem"
    if not signing.exists():
        new_key(signing)


def make_roster(path: Path, tokens: Path) -> None:
    """Make a roster with one operator, and leave the operator's token; a roster that is there stays."""
    if path.exists():
        return
    hashed = leave_token(tokens / f"{OPERATOR}.token")
    entry = StaffEntry(name=OPERATOR, token_sha256=hashed)
    edit(path, lambda roster: roster.with_entry("operator", entry), new=True)


def make_client(folder: Path, number: int) -> None:
    """Make a client's key pair, its certificate and secret, and put the public key where it can be handed over."""
    private = folder / "client" / "supernode"
    if not private.exists():
        pair = ec.generate_private_key(ec.SECP384R1())
        public = pair.public_key().public_bytes(
            serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
        )
        write(private.with_name("supernode.pub"), public + b"\n", 0o644)
        pem = pair.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        )
        write(private, pem, 0o600)
    public = private.with_name("supernode.pub").read_bytes()
    if os.access(folder / "public", os.W_OK):  # mounted where server and clients share a machine
        write(folder / "public" / f"client-{number}.pub", public, 0o644)
    # The Runtime API is between two containers of this machine: its authority signs once and is forgotten.
    if due(folder / "client" / "tls.crt"):
        authority = Authority.new("fedunlearn client")
        authority.issue(folder / "client", ["runtime", "localhost"])
        for service in ("client", "clientapp"):
            write(folder / service / "ca.crt", authority.pem, 0o644)
    share_secret(folder / "client", folder / "clientapp")
    print(
        f"client {number}: the public key of its SuperNode, for the server's operator:\n{public.decode()}",
        end="",
    )


def leave_token(path: Path) -> str:
    """Make a token for the door, leave it in a file to be handed over, and return its hash for the roster."""
    token = new_token()
    write(path, f"{token}\n".encode(), 0o600)
    return token_hash(token)


class Authority:
    """A certificate authority: a key, and its own certificate."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self.key = key
        self.certificate = certificate

    @property
    def pem(self) -> bytes:
        """The certificate."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @classmethod
    def new(cls, name: str) -> Authority:
        """Make an authority that exists in memory only."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        usage = x509.KeyUsage(False, False, False, False, False, True, True, False, False)
        draft = _draft(subject, key.public_key(), subject, key, AUTHORITY_DAYS)
        draft = draft.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        return cls(key, draft.add_extension(usage, critical=True).sign(key, hashes.SHA256()))

    @classmethod
    def kept(cls, folder: Path) -> Authority:
        """Read the authority in a folder, or make one there."""
        if (folder / "ca.key").exists():
            key = serialization.load_pem_private_key((folder / "ca.key").read_bytes(), password=None)
            assert isinstance(key, ec.EllipticCurvePrivateKey)
            return cls(key, x509.load_pem_x509_certificate((folder / "ca.crt").read_bytes()))
        authority = cls.new("fedunlearn federation")
        write(folder / "ca.crt", authority.pem, 0o644)
        write(folder / "ca.key", _pem(authority.key), 0o600)
        return authority

    def issue(self, folder: Path, names: list[str]) -> None:
        """Write ``tls.key`` and ``tls.crt`` for these names, unless a certificate for them has long to go."""
        wanted = [_general_name(name) for name in dict.fromkeys(names)]
        if not due(folder / "tls.crt", wanted, self.certificate):
            return
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
        draft = _draft(subject, key.public_key(), self.certificate.subject, self.key, CERTIFICATE_DAYS)
        draft = (
            draft.add_extension(x509.SubjectAlternativeName(wanted), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        )
        write(folder / "tls.key", _pem(key), 0o600)
        certificate = draft.sign(self.key, hashes.SHA256())
        write(folder / "tls.crt", certificate.public_bytes(serialization.Encoding.PEM), 0o644)


def due(
    path: Path, names: list[x509.GeneralName] | None = None, authority: x509.Certificate | None = None
) -> bool:
    """Whether a certificate has to be made: missing, about to end, for other names, or of another authority."""
    if not path.exists():
        return True
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    left = certificate.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    known = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return (
        left < datetime.timedelta(days=RENEW_DAYS)
        or (names is not None and list(known) != names)
        or (authority is not None and not _issued(certificate, authority))
    )


def share_secret(*folders: Path) -> None:
    """Put one random secret into every folder that lacks it, the same that the first has."""
    first = folders[0] / "superexec.secret"
    if not first.exists():
        write(first, secrets.token_bytes(SECRET_BYTES), 0o600)
    for folder in folders[1:]:
        write(folder / first.name, first.read_bytes(), 0o600)


def write(path: Path, content: bytes, mode: int) -> None:
    """Write a file whole or not at all; nobody can open it in between who may not afterwards."""
    beside = path.with_name(f".{path.name}.new")
    beside.unlink(missing_ok=True)
    with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def _draft(
    subject: x509.Name,
    public_key: ec.EllipticCurvePublicKey,
    issuer: x509.Name,
    issuer_key: ec.EllipticCurvePrivateKey,
    days: int,
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key())
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))  # clocks differ
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(identifier, critical=False)
    )


def _issued(certificate: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except (ValueError, InvalidSignature):
        return False
    return True


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


if __name__ == "__main__":
    main()
