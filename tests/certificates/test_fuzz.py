"""Certificates and pages with random mutations: `verify` finds each of them, and there is never a traceback."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedunlearn import config
from fedunlearn.certificates import certificate, checked_certificate
from fedunlearn.certificates.checked_certificate import Surroundings
from fedunlearn.certificates.findings import books
from fedunlearn.certificates.keys import new_key
from fedunlearn.certificates.signing import CERTIFICATE, sign
from fedunlearn.certificates.verification import verify
from fedunlearn.errors import UserError
from tests.certificates.eventful_run import eventful_run
from tests.certificates.live_run import KEY, LiveRun

MUTATIONS = 1500
VALUES: list[Any] = [
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2**63,
        2**64 - 1,
        -0.0,
        1e308,
        "",
        "?",
        "\ud83d\ude00",
        [],
        [[]],
        {},
        {"a": []},
    ),
    *(
        "forgotten",
        "failed",
        "2026-01-31T12:00:00Z",
        "0" * 64,
        "<script>",
        "Ω\n",
        "-3",
        [0],
        [-1],
        [3, 3],
        {"0": 1},
    ),
]

INSERTED = [b"[" * 5000, b"9" * 5000, b"NaN", b"\\ud800", b"\xef\xbb\xbf", b'"a":1,"a":1,', b" ", b"\n"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> LiveRun:
    return eventful_run(tmp_path_factory.mktemp("fuzz") / "run")


def bytes_mutated(content: bytes, draw: random.Random) -> bytes:
    place, many = draw.randrange(len(content)), draw.randrange(1, 9)
    kind = draw.randrange(6)
    if kind == 0:
        return content[:place] + bytes([content[place] ^ (1 << draw.randrange(8))]) + content[place + 1 :]
    if kind == 1:
        return content[:place] + content[place + many :]
    if kind == 2:
        return content[:place] + draw.randbytes(many) + content[place:]
    if kind == 3:
        return content[:place]
    if kind == 4:
        return content[:place] + content[place : place + 200] + content[place:]
    return content[:place] + draw.choice(INSERTED) + content[place:]


def document_mutated(document: Any, draw: random.Random) -> bytes:
    """Change the tree: a value, a name, an item or a whole part of it, once or a few times."""
    document = json.loads(json.dumps(document))
    for _ in range(draw.choice([1, 1, 1, 2, 4])):
        inner = document
        while True:
            keys = list(inner) if isinstance(inner, dict) else list(range(len(inner)))
            if not keys:
                break
            key = draw.choice(keys)
            if isinstance(inner[key], dict | list) and inner[key] and draw.random() < 0.8:
                inner = inner[key]
                continue
            kind = draw.randrange(5)
            if kind == 0:
                del inner[key]
            elif kind == 1 and isinstance(inner, dict):
                inner[f"{key}?"] = inner.pop(key)
            elif kind == 2 and isinstance(inner, list):
                draw.shuffle(inner)
            elif kind == 3:
                inner[key] = json.loads(json.dumps(draw.choice(list(document.values()))))
            else:
                inner[key] = draw.choice(VALUES)
            break
    text = certificate.dumps(document)
    return text.encode("utf-8", "surrogatepass")


def found(path: Path, surroundings: Surroundings) -> list[str]:
    """What does not hold, by whoever knows the key: of one certificate, as `verify` looks at it in its run."""
    try:
        findings = list(checked_certificate.check(path, [KEY.public], surroundings))
    except UserError as error:
        assert "\n" not in str(error) and len(str(error)) < 400
        return [str(error)]
    for finding in findings:
        assert "\n" not in finding.text
    return [finding.text for finding in findings if finding.holds is False]


@pytest.mark.quick(kind=1)
@pytest.mark.parametrize("kind", ["bytes", "document", "page"])
def test_every_mutation_is_found(run: LiveRun, kind: str) -> None:
    draw = random.Random(f"certificates {kind}")
    surroundings = Surroundings(run.folder, books(run.folder), None)
    paths = sorted(certificate.issued(run.folder).values())
    mutate: Callable[[bytes], bytes] = lambda content: bytes_mutated(content, draw)  # noqa: E731
    tried = 0
    while tried < MUTATIONS:
        path = paths[tried % len(paths)]
        place = path.with_suffix(".html") if kind == "page" else path
        before = place.read_bytes()
        changed = document_mutated(json.loads(before), draw) if kind == "document" else mutate(before)
        if changed == before:
            continue
        tried += 1
        place.write_bytes(changed)
        try:
            assert found(path, surroundings), (tried, kind)
        finally:
            place.write_bytes(before)
    assert [
        finding.text for finding in verify(run.folder, public_keys=[KEY.public]) if finding.holds is False
    ] == []


@pytest.mark.slow
def test_who_signs_a_mutation_with_a_key_of_his_own_causes_no_traceback(run: LiveRun, tmp_path: Path) -> None:
    """There the facts, and not the signature, are what is looked at."""
    draw, key = random.Random("signed anew"), new_key(tmp_path / "key.pem")
    surroundings = Surroundings(run.folder, books(run.folder), config.load(run.folder / "experiment.toml"))
    paths = sorted(certificate.issued(run.folder).values())
    whole = 0
    for number in range(MUTATIONS):
        path = paths[number % len(paths)]
        before = path.read_bytes()
        try:
            document = json.loads(document_mutated(json.loads(before), draw).decode())
        except UnicodeDecodeError:
            continue  # half a character, which nobody can sign
        if not isinstance(document.get("issuer"), dict) or not isinstance(document.get("signature"), dict):
            continue
        document["issuer"] |= {"key_id": key.key_id, "public_key": key.public.text}
        document["signature"]["value"] = sign(CERTIFICATE, certificate.unsigned_part(document), key)
        path.write_bytes(certificate.dumps(document).encode("utf-8", "surrogatepass"))
        try:
            for finding in checked_certificate.check(path, [], surroundings):
                assert "\n" not in finding.text
            whole += 1
        except UserError as error:
            assert "\n" not in str(error)
        finally:
            path.write_bytes(before)
    assert whole > 100, "too few had the form of a certificate"
