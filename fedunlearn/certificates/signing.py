"""What exactly is signed: canonical JSON behind a line that says what kind of document it is.

The line keeps a signature from being passed off as one under a document of another kind. Canonical JSON is UTF-8
with sorted keys, without spaces, and with Python's shortest form of a float.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from typing import Any

from fedunlearn.certificates.keys import PublicKey, SigningKey
from fedunlearn.requests.records import canonical_json

HEAD = "fedunlearn trail head 1"
SEAL = "fedunlearn checkpoint seal 1"
CERTIFICATE = "fedunlearn certificate 1"


def signed_bytes(kind: str, document: Mapping[str, Any]) -> bytes:
    """Return the bytes that are signed: the kind, a line end, and the document as canonical JSON.

    Raises
    ------
    LedgerError
        JSON cannot hold something in the document without changing it.
    """
    return f"{kind}\n{canonical_json(dict(document), 'document')}".encode()


def digest(document: Mapping[str, Any]) -> str:
    """Return the SHA-256 (hex) of a document's canonical JSON."""
    return hashlib.sha256(canonical_json(dict(document), "document").encode()).hexdigest()


def sign(kind: str, document: Mapping[str, Any], key: SigningKey) -> str:
    """Return the signature in base64."""
    return base64.b64encode(key.sign(signed_bytes(kind, document))).decode()


def verifies(kind: str, document: Mapping[str, Any], signature: str, key: PublicKey) -> bool:
    """Whether this key signed this document as one of this kind; False also for what is no base64."""
    try:
        raw = base64.b64decode(signature, validate=True)
    except (binascii.Error, ValueError):
        return False
    return key.verifies(raw, signed_bytes(kind, document))
