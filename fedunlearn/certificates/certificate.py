"""The certificate of an ended forget request: a JSON document, signed, and the files it is kept in.

``certificates/<request>.json`` is the certificate; ``<request>.html`` beside it shows the same to a reader. When
something that a certificate left open has been settled (retention that was hindered, a key that was missing), another
*edition* takes its place and names the one before, which stays as ``<request>.edition-<n>.json``.

A value that is not known is null, with a ``reason`` beside it.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fedunlearn import __version__, config
from fedunlearn.certificates import facts, shape
from fedunlearn.certificates.kept import Kept
from fedunlearn.certificates.keys import SigningKey
from fedunlearn.certificates.page import page
from fedunlearn.certificates.relations import Relations, related
from fedunlearn.certificates.retention import CERTIFICATES, is_temporary
from fedunlearn.certificates.signing import CERTIFICATE, digest, sign
from fedunlearn.certificates.words import ENDINGS, LEGAL, LIMITS, PURGED, ending, meaning
from fedunlearn.config import Experiment
from fedunlearn.config.toml_tree import plain
from fedunlearn.durable import sync_folder, write_synced
from fedunlearn.errors import UserError
from fedunlearn.json_text import loads
from fedunlearn.requests.chain import Head
from fedunlearn.requests.records import AuditEntry, PlanRecord, RequestRecord

KIND = "certificate of a forget request"
SCHEMA = 2
UNSIGNED = "no signing key was given to the server (--key or $FEDUNLEARN_SIGNING_KEY)"
STAGES = ("before", "unlearned", "ended")


@dataclass(frozen=True)
class Evidence:
    """Everything that a certificate is written from.

    Attributes
    ----------
    run : str
        Name of the run directory.
    experiment, branch
        What is run, and which federation of it.
    record, entries
        The request, and its own entries of the trail in order.
    relations
        All requests of the federation, at least up to `head`.
    plans
        All plans up to `round`.
    weights : Mapping
        ``before``, ``after`` and ``end``, each ``{"round", "sha256", "reason"}``.
    measures : Mapping
        Stage → document, of those stages that were measured.
    kept : sequence of Kept
        What the run directory still holds.
    retention : Mapping
        What was put away; see :mod:`fedunlearn.certificates.issuer`.
    head : Head
        Of the trail, when the certificate was written.
    round : int
        The last round that was complete then.
    problems : sequence of str
        What was found wrong with the trail then.
    issued_at : float
        Unix seconds.
    earlier : Mapping[str, Mapping[str, Any]]
        Earlier requests that have a certificate → that.
    """

    run: str
    experiment: Experiment
    branch: str
    record: RequestRecord
    entries: Sequence[AuditEntry]
    relations: Relations
    plans: Sequence[PlanRecord]
    weights: Mapping[str, Mapping[str, Any]]
    measures: Mapping[str, Mapping[str, Any]]
    kept: Sequence[Kept]
    retention: Mapping[str, Any]
    head: Head
    round: int
    issued_at: float
    problems: Sequence[str] = ()
    earlier: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


def compose(
    evidence: Evidence, *, key: SigningKey | None, replaces: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Return a certificate, signed if there is a key.

    Parameters
    ----------
    replaces
        The edition that this one takes the place of.
    """
    record, experiment = evidence.record, evidence.experiment
    links = related(record, evidence.relations, evidence.head.entry)
    how = facts.standing(record, evidence.entries, evidence.plans, evidence.relations, evidence.head.entry)
    told = facts.story(record, evidence.entries, links, evidence.plans, experiment, how)
    end = ending(told)
    tree = plain(experiment)
    earlier = links.pop("earlier")
    document: dict[str, Any] = {
        "kind": KIND,
        "schema": SCHEMA,
        "edition": 1 if replaces is None else int(replaces["edition"]) + 1,
        "replaces": None
        if replaces is None
        else {"edition": replaces["edition"], "issued_at": replaces["issued_at"], "sha256": digest(replaces)},
        "issued_at": facts.instant(evidence.issued_at),
        "run": {
            "name": evidence.run,
            "experiment": experiment.name,
            "federation": evidence.branch,
            "settings_sha256": config.digest(experiment),
        },
        "request": {
            "id": record.id,
            "clients": list(record.owners),
            **({"parts": [part.to_dict() for part in record.parts]} if record.parts else {}),
            "asked_by": facts.asked_by(record),
            "came_by": record.source,
        },
        "outcome": {
            "state": record.state,
            "title": end.title,
            "tone": end.tone,
            "unlearned": end.unlearned,
            "caveats": facts.caveats(record, evidence.kept, policy=evidence.retention["policy"]),
            "meaning": meaning(told),
            "remark": facts.remark(evidence.entries),
            "limits": [*(LIMITS if end.unlearned else ()), LEGAL],
        },
        "times": facts.times(record, evidence.entries, evidence.plans),
        "history": facts.history(evidence.entries),
        "method": {
            "in_words": facts.method_in_words(experiment),
            "bound": facts.bound_in_words(experiment),
            "step": facts.step(record, evidence.plans, how),
            "settings": {
                name: tree[name] for name in ("method", "recover", "requests", "guard") if name in tree
            },
        },
        "participation": facts.participation(record, evidence.plans, ended_round=record.ended_round),
        "weights": {name: dict(value) for name, value in evidence.weights.items()},
        "measures": _measures(evidence, unlearned=end.unlearned),
        "data": {
            **evidence.retention,
            "remaining": [asdict(item) for item in evidence.kept],
            "note": PURGED if evidence.retention.get("removed") else None,
        },
        "related": {
            **links,
            "as_a_whole": {
                "forgotten": list(how.forgotten),
                "left_out": list(how.left_out),
                "open": list(how.asked),
            },
            "earlier_certificates": [
                _earlier(evidence.relations[id_], evidence.earlier.get(id_)) for id_ in earlier
            ],
        },
        "trail": {
            "entry": evidence.head.entry,
            "hash": evidence.head.hash,
            "round": evidence.round,
            "problems": list(evidence.problems),
        },
        "issuer": {
            "software": f"fedunlearn {__version__}",
            "key_id": None if key is None else key.key_id,
            "public_key": None if key is None else key.public.text,
        },
    }
    document["signature"] = _signature(document, key)
    return document


def _earlier(record: RequestRecord, document: Mapping[str, Any] | None) -> dict[str, Any]:
    return {
        "request": record.id,
        "state": record.state,
        "title": ENDINGS[record.state].title if document is None else document["outcome"]["title"],
        "sha256": None if document is None else digest(document),
    }


def unsigned_part(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the signature covers: everything but the signature."""
    return {name: value for name, value in document.items() if name != "signature"}


def _signature(document: Mapping[str, Any], key: SigningKey | None) -> dict[str, Any]:
    if key is None:
        return {"algorithm": None, "value": None, "reason": UNSIGNED}
    return {"algorithm": "Ed25519", "value": sign(CERTIFICATE, document, key), "reason": None}


def _measures(evidence: Evidence, *, unlearned: bool) -> dict[str, Any]:
    why = "nothing was recorded for it" if unlearned else "no unlearning step was applied for this request"
    return {
        stage: dict(evidence.measures[stage]) if stage in evidence.measures else facts.absent(why, round=None)
        for stage in STAGES
    }


@dataclass(frozen=True)
class Prepared:
    """A certificate on the disk that does not have its name yet.

    Attributes
    ----------
    path : Path
        What it will be called.
    replaced : tuple or None
        File and name of the edition before, where one is replaced.
    page, certificate : tuple
        File and name of each.
    """

    path: Path
    replaced: tuple[Path, Path] | None
    page: tuple[Path, Path]
    certificate: tuple[Path, Path]


def prepare(run: Path, document: Mapping[str, Any]) -> Prepared:
    """Write a certificate, its page and the edition that it replaces to files that :func:`publish` names.

    Nobody need be kept from anything meanwhile: they are of no consequence until they are named.
    """
    folder = run / CERTIFICATES
    folder.mkdir(exist_ok=True)
    path = folder / f"{document['request']['id']}.json"
    replaced = None
    if document["edition"] > 1 and path.exists():
        before = read(path)
        if before["edition"] < document["edition"]:
            aside = path.with_name(f"{path.stem}.edition-{before['edition']}.json")
            replaced = (_written(aside, path.read_bytes()), aside)
    shown = path.with_suffix(".html")
    page_of_it = _temporary(shown)
    page_of_it.write_text(page(document), encoding="utf-8")  # can be made again: nobody waits for the disk
    return Prepared(path, replaced, (page_of_it, shown), (_written(path, dumps(document).encode()), path))


def publish(prepared: Sequence[Prepared]) -> None:
    """Give certificates their names, durably.

    The page comes first: where the certificate is, it is too, but after a power cut; see :func:`write_page`. An
    edition that is replaced is set aside before.
    """
    aside = [one.replaced for one in prepared if one.replaced is not None]
    for temporary, path in aside:
        temporary.replace(path)
    if aside:
        sync_folder(prepared[0].path.parent)
    for one in prepared:
        for temporary, path in (one.page, one.certificate):
            temporary.replace(path)
    if prepared:
        sync_folder(prepared[0].path.parent)


def sweep(run: Path) -> None:
    """Remove what a crash has left of certificates that were being written."""
    folder = run / CERTIFICATES
    for path in folder.iterdir() if folder.is_dir() else ():
        if is_temporary(path.name):
            path.unlink(missing_ok=True)


def _temporary(path: Path) -> Path:
    # Of no other server's name: one that was replaced and has not noticed may be writing the same certificate.
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


def _written(path: Path, content: bytes) -> Path:
    temporary = _temporary(path)
    write_synced(temporary, content)
    return temporary


def write_page(path: Path, document: Mapping[str, Any]) -> None:
    """Write the page of the certificate at ``path``; which can be made again any time: nobody waits for the disk."""
    shown = path.with_suffix(".html")
    temporary = _temporary(shown)
    temporary.write_text(page(document), encoding="utf-8")
    temporary.replace(shown)


def read(path: Path) -> dict[str, Any]:
    """Read a certificate.

    Raises
    ------
    UserError
        It cannot be read, is none, is one of another version, or lacks something. One line.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    document = loads(content, path)
    if not isinstance(document, dict) or document.get("kind") != KIND:
        raise UserError(f"{path}: is not a {KIND}")
    version = document.get("schema")
    if type(version) is not int or version != SCHEMA:
        shown = version if type(version) is int else "unknown"
        raise UserError(f"{path}: is a certificate of version {shown}; this fedunlearn reads {SCHEMA}")
    if why := shape.problem(document):
        raise UserError(f"{path}: is not a complete certificate; {why}")
    return document


def dumps(document: Mapping[str, Any]) -> str:
    """Return the text of a certificate's file."""
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def issued(run: Path) -> dict[str, Path]:
    """Return the newest edition of every certificate of a run, by request id."""
    folder = run / CERTIFICATES
    files = folder.glob("*.json") if folder.is_dir() else ()
    return {path.stem: path for path in sorted(files) if "." not in path.stem}
