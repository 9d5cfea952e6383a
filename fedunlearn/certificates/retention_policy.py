"""What ``[retention]`` means for one ended request: which files go, and what a certificate says of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any

from fedunlearn import plugins
from fedunlearn.certificates.kept import Listing
from fedunlearn.certificates.retention import earlier_files, is_temporary, quarantine_folder
from fedunlearn.certificates.superlink_messages import MessagePurge
from fedunlearn.certificates.words import ENDINGS
from fedunlearn.config import Experiment
from fedunlearn.plurals import counted
from fedunlearn.requests.records import RequestRecord
from fedunlearn.runs.history_files import HISTORY

ALWAYS_UNSEEN = (
    "logs of the processes, which may name client numbers",
    "the memory and swap space of running processes",
)


@dataclass(frozen=True)
class SuperLink:
    """What is known of the SuperLink that this federation's messages went through.

    Attributes
    ----------
    runs : frozenset[int]
        Flower's run ids of all servers that this federation had; empty: it never ran under Flower.
    database : Path or None
        The SuperLink's state, if the server was told where it is.
    """

    runs: frozenset[int] = field(default_factory=frozenset)
    database: Path | None = None

    def untouched(self, why: str | None = None) -> dict[str, Any]:
        """Return what a certificate says where nothing was looked for, and why if that was decided so."""
        if self.runs and why is not None:
            return _said("not examined", f"Not examined: {why}.")
        if not self.runs:
            return _said("none", "None: the federation's messages stayed within the server's own processes.")
        return _said(
            "not examined",
            "Not examined: the server does not know where the SuperLink keeps its state (superlink-database). A "
            "SuperLink without --database keeps messages in memory until it stops; with it, in that file.",
        )

    def purged(self, purge: MessagePurge) -> dict[str, Any]:
        """Return what a certificate says after a purge."""
        messages, contents = counted(purge.messages, "message"), counted(purge.objects, "content")
        done = f"{messages} and {contents} left there were deleted"
        if purge.problem is not None:
            words = (
                f"Not known to be gone: {purge.problem}. ({done}.) The server tries again after every round."
            )
            return _said("open", words, purge.messages, purge.objects)
        words = (
            f"{self.database}: {done}, the file was rebuilt and its write-ahead log emptied. No message of this "
            "federation's finished rounds is left in it."
        )
        return _said("purged", words, purge.messages, purge.objects)


def _said(
    state: str, in_words: str, messages: int | None = None, objects: int | None = None
) -> dict[str, Any]:
    return {"state": state, "in_words": in_words, "messages": messages, "objects": objects}


def concerned(record: RequestRecord) -> bool:
    """Whether anything is put away for a request that ended like this: it was unlearned, or at least left out."""
    return ENDINGS[record.state].unlearned or record.state == "excluded"


def files_to_put_away(
    run: Path, branch: str, experiment: Experiment, record: RequestRecord, listing: Listing | None = None
) -> list[Path]:
    """Return the files that are to go for one ended request; none under ``earlier = "keep"``."""
    assert experiment.retention is not None, "a live experiment has [retention]"
    if experiment.retention.earlier == "keep" or not concerned(record):
        return []
    return earlier_files(
        run,
        branch,
        unlearned_round=record.unlearned_round,
        clients=record.owners,
        spared_from=spared_from(record),
        listing=listing,
    )


def spared_from(record: RequestRecord) -> int | None:
    """Return from which round on clients trained without the parts that an ended request names.

    None where it names whole clients; and where only those that were refused or never left out.
    """
    if not record.parts:
        return None
    if record.unlearned_round is not None:
        return record.unlearned_round
    return None if record.ended_round is None else record.ended_round + 1


def account(
    run: Path,
    experiment: Experiment,
    record: RequestRecord,
    put_away: Sequence[str],
    superlink: dict[str, Any],
) -> dict[str, Any]:
    """Return what a certificate says of retention.

    Parameters
    ----------
    put_away
        Files of the run directory that were removed or moved for this request, by relative path.
    superlink
        See :class:`SuperLink`.
    """
    settings = experiment.retention
    assert settings is not None
    policy = settings.earlier
    unseen = list(ALWAYS_UNSEEN)
    if experiment.engine.name == "ray":
        unseen.append("Ray's object store and what it spilled to disk")
    if superlink["state"] == "purged":
        unseen.append("the SuperLink's log of runs, which may name client numbers")
    return {
        "policy": policy,
        "policy_in_words": _policy(policy, record, put_away, results=_keeps_results(experiment)),
        "removed": by_store(n for n in put_away if policy == "purge" or is_temporary(Path(n).name)),
        "moved": by_store(n for n in put_away if policy != "purge" and not is_temporary(Path(n).name)),
        "quarantine": str(quarantine_folder(run, settings.quarantine)) if policy == "quarantine" else None,
        "superlink": superlink,
        "open": [superlink["in_words"]] if superlink["state"] == "open" else [],
        "not_examined": unseen,
    }


def _keeps_results(experiment: Experiment) -> bool:
    """Whether the method needs what clients came to in earlier rounds."""
    method = experiment.methods[0]
    return plugins.find("strategies", method.name).needs(method.settings).keeps is not None


def by_store(names: Iterable[str]) -> list[str]:
    """Return sorted names as they are shown: of earlier rounds, which may be thousands, by store and number.

    >>> by_store(["a/b", *(f"history/federation/all-updates/round-{t:06}/x" for t in range(9)), "stored/b"])
    ['a/b', 'history/federation/all-updates/ (9 files)', 'stored/b']
    """
    shown = []
    for place, several in groupby(names, key=_shown):
        number = len(list(several))
        shown.append(f"{place} ({counted(number, 'file')})" if place.endswith("/") else place)
    return shown


def _shown(name: str) -> str:
    top, *rest = name.split("/")
    return "/".join([top, *rest[:2], ""]) if top == HISTORY and len(rest) > 3 else name


def _policy(policy: str, record: RequestRecord, put_away: Sequence[str], *, results: bool) -> str:
    setting = f'([retention] earlier = "{policy}")'
    if record.state == "duplicate":
        return f"Files are removed for the request that unlearned the clients, once it has ended {setting}."
    if not concerned(record):
        return f"Nothing is removed because of a request that ended like this {setting}."
    own = ["the stored updates of its clients", *["their results of earlier rounds"] * results]
    if record.unlearned_round is not None:
        what = ", ".join([f"checkpoints from before round {record.unlearned_round}", *own])
        what += " and temporary files"
    else:
        what = " and ".join(own) + (
            " (checkpoints stay: the newest contains what was learned from them as much as the older ones do)"
        )
    if policy == "keep":
        return f"The federation keeps everything {setting}: {what} were not removed."
    done = "removed" if policy == "purge" else "moved to quarantine"
    there = "" if put_away else " There were none at that time; an earlier request may have had them removed."
    return f"Once a request has ended, {what} are {done} {setting}.{there}"
