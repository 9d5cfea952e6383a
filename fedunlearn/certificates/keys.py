"""The key that signs heads and certificates: Ed25519, in a PEM file that lies outside the run directory.

Whoever can write to the run directory could sign anything if the key lay in it: a signature would prove nothing.
The public key lies beside the private one as ``<file>.pub``; hand it to those who are to check certificates.
"""

from __future__ import annotations

import base64
import hashlib
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from fedunlearn.durable import write_synced
from fedunlearn.errors import UserError
from fedunlearn.home import expanded
from fedunlearn.text_files import resolved

KEY_VARIABLE = "FEDUNLEARN_SIGNING_KEY"
"""The environment variable that names the key's file where no option does."""


@dataclass(frozen=True)
class PublicKey:
    """What signatures are checked with.

    Attributes
    ----------
    raw : bytes
        The 32 bytes of the Ed25519 public key.
    """

    raw: bytes

    @property
    def key_id(self) -> str:
        """The key's short name: the first 16 hex digits of the SHA-256 of its raw bytes."""
        return hashlib.sha256(self.raw).hexdigest()[:16]

    @property
    def text(self) -> str:
        """The raw bytes in base64, as certificates carry them."""
        return base64.b64encode(self.raw).decode()

    @classmethod
    def from_text(cls, text: str) -> PublicKey:
        """Inverse of :attr:`text`; anything else raises ValueError."""
        raw = base64.b64decode(text, validate=True)
        if len(raw) != 32:
            raise ValueError(f"a public key of {len(raw)} bytes; Ed25519 has 32")
        return cls(raw)

    @classmethod
    def load(cls, path: Path) -> PublicKey:
        """Read a ``.pub`` file.

        Raises
        ------
        UserError
            It cannot be read, or holds no Ed25519 public key.
        """
        try:
            key = serialization.load_pem_public_key(path.read_bytes())
        except OSError as error:
            raise UserError(f"{path}: cannot be read ({error.strerror}); name a public key's file") from error
        except (ValueError, UnsupportedAlgorithm):
            key = None
        if not isinstance(key, Ed25519PublicKey):
            raise UserError(
                f"{path}: holds no Ed25519 public key in PEM; `fedunlearn keys new` writes FILE.pub"
            )
        return cls(key.public_bytes_raw())

    def verifies(self, signature: bytes, message: bytes) -> bool:
        """Whether the private half of this key signed this message."""
        try:
            Ed25519PublicKey.from_public_bytes(self.raw).verify(signature, message)
        except InvalidSignature:
            return False
        return True


class SigningKey:
    """A private key that has been read into memory."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        self.public = PublicKey(private.public_key().public_bytes_raw())

    @property
    def key_id(self) -> str:
        """The short name of its public half."""
        return self.public.key_id

    def sign(self, message: bytes) -> bytes:
        """Return the 64 bytes of the signature; the same message gives the same ones."""
        return self._private.sign(message)

    @classmethod
    def load(cls, path: Path, *, run_folder: Path | None = None) -> SigningKey:
        """Read a private key.

        Parameters
        ----------
        run_folder
            The run directory whose trail it is to sign.

        Raises
        ------
        UserError
            It cannot be read, holds no Ed25519 private key, lies inside the run directory, or others than its owner
            may read or write it.
        """
        if run_folder is not None and resolved(path).is_relative_to(resolved(run_folder)):
            raise UserError(
                f"{path}: the signing key is inside the run directory {run_folder}, where anyone who can edit the "
                "trail could sign it too; keep it elsewhere"
            )
        try:
            with path.open("rb") as file:
                mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
                private = serialization.load_pem_private_key(file.read(), password=None)
        except OSError as error:
            raise UserError(
                f"{path}: the signing key cannot be read ({error.strerror}); make one with `fedunlearn keys new`"
            ) from error
        except TypeError:
            raise UserError(
                f"{path}: is protected by a passphrase, which a server cannot enter; use a key without one"
            ) from None
        except (ValueError, UnsupportedAlgorithm):
            private = None
        if not isinstance(private, Ed25519PrivateKey):
            raise UserError(
                f"{path}: holds no Ed25519 private key in PEM; make one with `fedunlearn keys new`"
            )
        if os.name == "posix" and mode & 0o077:
            raise UserError(
                f"{path}: others may read or change the signing key (mode {mode:04o}): run `chmod 600 {path}`"
            )
        return cls(private)


def new_key(path: Path) -> SigningKey:
    """Make a key: write the private half with mode 0600, and ``<path>.pub`` beside it.

    Raises
    ------
    UserError
        One of the files exists (a key is never overwritten: what it signed could no longer be checked), or the
        folder cannot be written to.
    """
    private = Ed25519PrivateKey.generate()
    pem = private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    beside = path.with_name(path.name + ".pub")
    if beside.exists():
        raise UserError(f"{beside}: already exists and a key is never overwritten; choose another name")
    _write_new(path, pem, 0o600)
    _write_new(beside, public, 0o644)
    return SigningKey(private)


def find_key(option: Path | str | None, *, run_folder: Path) -> SigningKey | None:
    """Return the key that an option or ``$FEDUNLEARN_SIGNING_KEY`` names; None where neither names one.

    Raises
    ------
    UserError
        See :meth:`SigningKey.load`.
    """
    named = str(option or os.environ.get(KEY_VARIABLE, ""))
    return SigningKey.load(expanded(named), run_folder=run_folder) if named else None


def _write_new(path: Path, content: bytes, mode: int) -> None:
    try:
        write_synced(path, content, mode=mode, new=True)
    except FileExistsError:
        raise UserError(
            f"{path}: already exists and a key is never overwritten; choose another name"
        ) from None
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); choose another folder") from error
