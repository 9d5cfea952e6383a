"""What the ledger knows about one ended request, put in the form that a certificate states. Pure functions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from fedunlearn import plugins
from fedunlearn.certificates.kept import Kept
from fedunlearn.certificates.relations import Relations
from fedunlearn.certificates.unlearning_rounds import rounds_of, tried_last
from fedunlearn.certificates.words import APPROXIMATE, ENDINGS, Story, named
from fedunlearn.config import Experiment
from fedunlearn.plurals import counted
from fedunlearn.requests.reconcile import RECONCILED
from fedunlearn.requests.records import NEVER_TOOK_PART, AuditEntry, PlanRecord, RequestRecord
from fedunlearn.requests.standing import Standing, fates
from fedunlearn.runs.history_files import HISTORY

NOT_UNLEARNED = "no unlearning step was applied for this request"
GONE = "its checkpoint was gone before its hash could be taken"
DAMAGED = "its checkpoint is damaged"

QUALITY_WORD = {"classification": "accuracy", "segmentation": "Dice score"}


def instant(seconds: float) -> str:
    """Return a time as ISO 8601 in UTC, to the second.

    >>> instant(0)
    '1970-01-01T00:00:00Z'
    """
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def absent(reason: str, **known: Any) -> dict[str, Any]:
    """Return what stands where a value is missing: nulls, and why."""
    return {**known, "reason": reason}


def history(entries: Iterable[AuditEntry]) -> list[dict[str, Any]]:
    """Return a request's entries of the trail, each with its place and hash, so that they can be checked."""
    return [
        {
            "entry": entry.entry,
            "from": entry.from_state,
            "to": entry.to_state,
            "round": entry.round,
            "at": instant(entry.at),
            "hash": entry.hash,
        }
        for entry in entries
    ]


def times(
    record: RequestRecord, entries: Sequence[AuditEntry], plans: Iterable[PlanRecord]
) -> dict[str, dict[str, Any]]:
    """Return when a request was asked, planned, applied to the weights, and ended: ``{"at", "round", "reason"}``."""
    unlearned = record.unlearned_round is not None
    scheduled = [entry for entry in entries if entry.to_state == "scheduled"]
    if took := rounds_of(record.unlearned_round, plans):
        # A round of it that failed was planned anew.
        scheduled = [entry for entry in scheduled if entry.round is None or entry.round <= took[0].round]
    applied = [entry for entry in entries if entry.to_state == "recovering"]
    why = "no plan of a round named this request" if not scheduled else ""
    found = {
        "asked": (entries[0], ""),
        "planned": (scheduled[-1] if scheduled else None, why),
        "applied": (applied[-1] if applied else None, "no unlearning step was applied for this request"),
        "ended": (entries[-1], ""),
    }
    stated = {}
    for name, (entry, reason) in found.items():
        if entry is None:
            stated[name] = absent(reason, at=None, round=None)
            continue
        round = record.unlearned_round if name == "applied" and unlearned else entry.round
        missing = None if round is not None else "it arrived while the federation ran, not from a script"
        stated[name] = {"at": instant(entry.at), "round": round, "reason": missing}
    return stated


def rounds_of_weights(
    record: RequestRecord, at_end: PlanRecord | None, first: Callable[[int], int]
) -> dict[str, int | None]:
    """Return after which rounds the weights were that a certificate states: before the step, after it, at the end.

    Parameters
    ----------
    at_end
        The plan of the round in which the request ended. If it names a request that was refused, the guard took that
        round's step back: equal hashes show that it did.
    first
        Returns the first round of the unlearning that ended with a round.
    """
    step = record.unlearned_round
    if (
        step is None
        and record.state == "refused"
        and at_end is not None
        and record.id in at_end.plan["requests"]
    ):
        step = record.ended_round
    return {"before": first(step) - 1 if step else None, "after": step, "end": record.ended_round}


def no_weights(name: str) -> dict[str, Any]:
    """Return what stands for weights (``before``, ``after``, ``end``) of no round."""
    why = "the request did not end in a particular round" if name == "end" else NOT_UNLEARNED
    return absent(why, round=None, sha256=None)


def participation(
    record: RequestRecord, plans: Iterable[PlanRecord], *, ended_round: int | None
) -> dict[str, dict[str, Any]]:
    """Return for each client in which rounds its training went into the model, as plans and failures have it.

    Parameters
    ----------
    plans
        Of rounds that are complete.

    Returns
    -------
    dict
        Number of a client, or of a part of one's data → ``{"rounds", "first", "last", "without_it_until",
        "planned_after_end"}``: how many rounds of ordinary training, the first and the last of them; up to which
        round others trained on while no plan named the client (null: there is no such round); and how many later
        rounds were planned with it although the request had ended (unlearned or excluded: none).
    """
    plans = [plan for plan in plans if plan.plan.get("train")]
    owner_of = {client: client for client in record.clients} | {p.number: p.client for p in record.parts}
    rounds: dict[int, list[int]] = {client: [] for client in record.clients}
    after = dict.fromkeys(record.clients, 0)
    planned = dict.fromkeys(record.clients, 0)
    until = max((plan.round for plan in plans), default=0)
    for plan in plans:
        trained, without = set(plan.plan["train"]), plan.plan.get("without", {})
        for client, owner in owner_of.items():
            if owner not in trained or client in without.get(str(owner), ()):
                continue
            planned[client] = max(planned[client], plan.round)
            if ended_round is not None and plan.round > ended_round:
                after[client] += 1
            elif owner not in plan.failed:
                rounds[client].append(plan.round)
    return {
        str(client): {
            "rounds": len(taken),
            "first": min(taken, default=None),
            "last": max(taken, default=None),
            "without_it_until": until if taken and planned[client] == taken[-1] < until else None,
            "planned_after_end": after[client],
        }
        for client, taken in rounds.items()
    }


def method_in_words(experiment: Experiment) -> str:
    """Return what the method does, in words that follow a colon: its own."""
    method = experiment.methods[0]
    described: str = plugins.find("strategies", method.name).describe(method.settings)
    return described


def bound_in_words(experiment: Experiment) -> str | None:
    """Return how the guard bounds a forgetting client's update; None where nothing does."""
    guard = experiment.guard
    method = experiment.methods[0]
    strategy = plugins.find("strategies", method.name)
    # Of a method that asks nothing of them there is no update.
    if (
        guard is None
        or not guard.enabled
        or not (strategy.forgets and strategy.needs(method.settings).online)
    ):
        return None
    return (
        f"An update longer than {guard.max_norm:g} times the median length of the last retained ones would have been "
        "scaled down to that before it was applied."
    )


def _measured(experiment: Experiment) -> str:
    """Return what recovery is judged by, in words."""
    by_clients = experiment.requests is not None and experiment.requests.validation == "clients"
    place = "as the remaining clients measure it" if by_clients else "on the server's validation data"
    return f"{QUALITY_WORD[experiment.data.task]} {place}"


def story(
    record: RequestRecord,
    entries: Sequence[AuditEntry],
    links: Mapping[str, Any],
    plans: Iterable[PlanRecord],
    experiment: Experiment,
    how: Standing,
) -> Story:
    """Return what the sentences about a request need to know."""
    plans = list(plans)
    took = rounds_of(tried_last(record, entries), plans)
    return Story(
        clients=record.clients,
        state=record.state,
        came_from=entries[-1].from_state,
        unlearned_round=record.unlearned_round,
        ended_round=record.ended_round,
        until=experiment.recover.until,
        epsilon=experiment.recover.epsilon,
        max_rounds=experiment.recover.max_rounds,
        quality=_measured(experiment),
        method=method_in_words(experiment),
        same_as=links["same_as"],
        others=tuple(links["done_by"] or links["recovery_taken_over_by"]),
        forgotten={int(client): tuple(requests) for client, requests in links["forgotten_by"].items()},
        never_took_part=_never_took_part(record, entries, plans),
        parts=record.parts,
        standing=how,
        first_round=took[0].round if took else None,
        steps=took[-1].plan.get("step", 0) if took else 0,
    )


def standing(
    record: RequestRecord,
    entries: Sequence[AuditEntry],
    plans: Sequence[PlanRecord],
    relations: Relations,
    by: int,
) -> Standing:
    """Return how things stand with what a request names, as of an entry of the trail.

    Where its clients had none of the data that it names, the step is the one that they were asked to take part in.
    """
    step = record.unlearned_round
    if step is None and record.state == "excluded" and entries[-1].from_state == "unlearning":
        step = record.ended_round
    found = next((plan for plan in plans if plan.round == step), None)
    owner_of = {client: client for client in record.clients} | {p.number: p.client for p in record.parts}

    def forgotten(number: int) -> bool:
        rounds = (relations.first_unlearned(n, by) for n in (number, owner_of[number]))
        return any(round is not None and step is not None and round < step for round in rounds)

    of_step: Mapping[int, str] = {}
    if found is not None:
        earlier = (plan for plan in plans if plan.round < found.round)
        of_step = fates(owner_of, set(found.plan.get("forget", ())), earlier, forgotten)
    owners = sorted({part.client for part in record.parts})
    gone = [k for k in owners if relations.first_unlearned(k, by) is not None]
    left_out = [k for k in owners if k not in gone and relations.left_out(k, by)]
    return Standing(
        **{
            fate: tuple(sorted(number for number, own in of_step.items() if own == fate))
            for fate in ("with_client", "already", "never")
        },
        forgotten=tuple(gone),
        left_out=tuple(left_out),
        asked=tuple(k for k in owners if k not in (*gone, *left_out) and relations.open(k, by)),
    )


def _never_took_part(
    record: RequestRecord, entries: Sequence[AuditEntry], plans: Iterable[PlanRecord]
) -> bool:
    """Whether the request ended with that remark, which no hash covers, and the plans bear it out."""
    if record.state != "excluded" or entries[-1].detail != NEVER_TOOK_PART:
        return False
    plans = list(plans)
    taken = participation(record, plans, ended_round=None)
    return not any(part["rounds"] for part in taken.values()) and not any(
        client in plan.plan.get("forget", ()) and client not in plan.failed
        for plan in plans
        for client in record.clients
    )


def step(record: RequestRecord, plans: Iterable[PlanRecord], how: Standing) -> dict[str, Any]:
    """Return who took part in the unlearning step, of what is this request's business.

    Returns
    -------
    dict
        ``round``; ``first_round``, where it took several; ``own_update``: this request's clients that took part in
        it; ``stored_update``: client → round of the stored update that was used instead; ``already``: clients that an
        earlier request had unlearned; ``never``: those that never took part in training; ``with_client``, where there
        are such: parts of the data of clients that were unlearned as a whole in the same step; ``others``: how many
        clients, and parts, of other requests were unlearned in the same step.
    """
    took = rounds_of(record.unlearned_round, plans)
    if not took:
        return absent(
            "no unlearning step was applied for this request"
            if record.unlearned_round is None
            else "the plan of that round is not in the ledger",
            round=record.unlearned_round,
        )
    forget = set(took[-1].plan.get("forget", ()))
    own = forget & set(record.clients)
    stored: dict[int, int] = {}
    asked: set[int] = set()
    for plan in (each.plan for each in took):
        instead = {int(client): round for client, round in plan.get("stored", {}).items()}
        stored |= instead
        asked |= own - instead.keys() if plan.get("asks", True) else set()
    first = took[0].round
    return {
        "round": record.unlearned_round,
        **({"first_round": first} if first != record.unlearned_round else {}),
        "own_update": sorted(asked),
        "stored_update": {str(client): stored[client] for client in sorted(own & stored.keys())},
        "already": list(how.already),
        "never": list(how.never),
        **({"with_client": list(how.with_client)} if how.with_client else {}),
        "others": len(forget - own),
        "reason": None,
    }


def caveats(record: RequestRecord, kept: Iterable[Kept], *, policy: str) -> list[str]:
    """Return what belongs right under the headline, lest that says more than is true."""
    unlearned = ENDINGS[record.state].unlearned
    if not unlearned and record.state != "excluded":
        return []
    kinds = {"update": "stored updates of the clients"}
    if unlearned:
        kinds = {"earlier-weights": "weights from before the step", **kinds}
    kept = [item for item in kept if item.holds in kinds]
    files = sum(item.files for item in kept)
    said = [APPROXIMATE] if unlearned else []
    if files:
        what = " and ".join(words for holds, words in kinds.items() if any(k.holds == holds for k in kept))
        moved = policy == "quarantine" and not all(map(_of_earlier_rounds, kept))
        stays = policy != "quarantine" or any(map(_of_earlier_rounds, kept))
        where = " and ".join(["in quarantine"] * moved + ["in the run directory"] * stays)
        lie = f"are still {where} ({counted(files, 'file')}, listed below)"
        said.append(f"Not everything has been removed: {what} {lie}.")
    return said


def _of_earlier_rounds(item: Kept) -> bool:
    """Whether it is something that a method needs, and that is not moved as it stands."""
    return item.place.startswith(f"{HISTORY}/")


def asked_by(record: RequestRecord) -> str:
    """Return who asked, without a person's name: that is in the ledger, and none of a certificate's business."""
    role, _, who = record.actor.partition(":")
    if role == "client" and who.isdigit():
        return f"{named((int(who),))} itself"
    return "an operator" if role == "operator" else "not recorded"


def remark(entries: Sequence[AuditEntry]) -> str | None:
    """Return what was noted when the request ended, without the name of an operator."""
    if entries[-1].detail == RECONCILED:
        return None  # says nothing about the request
    text = re.sub(r"\boperator:\S+", "an operator", entries[-1].detail)
    return re.sub(r"\bclient:(\d+)", r"client \1", text) or None
