"""A certificate → one self-contained page for people: no script, no network, fit for paper.

The same document gives the same bytes, so that a page that was edited can be told from the one that was written.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fedunlearn.certificates.measures_section import measures_section
from fedunlearn.certificates.pieces import (
    STYLE,
    bullets,
    clock_time,
    definitions,
    section,
    table,
    why,
)
from fedunlearn.certificates.signing import digest
from fedunlearn.certificates.words import ENDINGS, WORDS
from fedunlearn.html.markup import Markup, join, tag
from fedunlearn.html.palette import css_variables
from fedunlearn.parts import Part
from fedunlearn.plurals import counted
from fedunlearn.wording import named, numbers_of, parts_of

_TIMES = {"asked": "Asked", "planned": "Planned", "applied": "Applied to the model", "ended": "Ended"}
_WEIGHTS = {
    "before": "before the step",
    "after": "after the step",
    "end": "at the end",
}


def page(document: Mapping[str, Any]) -> str:
    """Return the page of a certificate."""
    outcome, request = document["outcome"], document["request"]
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        tag("title", f"{outcome['title']} · request {request['id']}"),
        tag("style", Markup(css_variables() + STYLE)),
    )
    body = tag(
        "main",
        _header(document),
        tag("section", *(tag("p", text) for text in outcome["meaning"]), class_="meaning"),
        _remark(outcome),
        section("What this certificate does not say", bullets(outcome["limits"])),
        _request(document),
        _method(document),
        _weights(document["weights"]),
        measures_section(document["measures"], parts_of(document)),
        _data(document),
        _related(document["related"], parts_of(document), unlearned=outcome["unlearned"]),
        _trail(document),
        _words(),
        _footer(document),
        class_=outcome.get("tone", ENDINGS[outcome["state"]].tone),
    )
    return f"<!doctype html>\n{tag('html', head, tag('body', body), lang='en')}\n"


def _header(document: Mapping[str, Any]) -> Markup:
    request, run = document["request"], document["run"]
    warnings = []
    if document["signature"]["value"] is None:
        warnings.append(
            f"Not signed: {document['signature']['reason']}. Anyone could have written this page."
        )
    if document["trail"]["problems"]:
        warnings.append("The trail was damaged when this was written; see the end of this page.")
    return join(
        tag(
            "header",
            tag("p", "Certificate of a forget request"),
            tag("h1", document["outcome"]["title"]),
            *(tag("p", text, class_="caveat") for text in document["outcome"].get("caveats", ())),
            tag(
                "p",
                f"{_whose(document, start=True)} of the federation “{run['experiment']}” · "
                f"request {request['id']}",
            ),
            tag(
                "p",
                f"Issued {clock_time(document['issued_at'])} UTC"
                + (f" · edition {document['edition']}" if document["edition"] > 1 else ""),
            ),
        ),
        *(tag("p", text, class_="warning") for text in warnings),
    )


def _remark(outcome: Mapping[str, Any]) -> Markup:
    if not outcome["remark"]:
        return Markup("")
    return tag("p", f"The server's remark at the end of the request: “{outcome['remark']}”.", class_="note")


def _request(document: Mapping[str, Any]) -> Markup:
    request, rows = document["request"], []
    named_there = ", named in the ledger" if request["asked_by"] == "an operator" else ""
    for name, title in _TIMES.items():
        time = document["times"][name]
        if time["at"] is None:
            rows.append([title, why(time["reason"]), ""])
        else:
            rows.append(
                [title, clock_time(time["at"]), "" if time["round"] is None else f"round {time['round']}"]
            )
    return section(
        "The request",
        definitions(
            {
                "Asks to forget": _whose(document),
                "Asked by": f"{request['asked_by']}{named_there} (via {request['came_by']})",
                "Federation": f"{document['run']['experiment']} ({document['run']['name']})",
            }
        ),
        table(["", "when (UTC)", "in"], rows),
    )


def _whose(document: Mapping[str, Any], *, start: bool = False) -> str:
    return named(numbers_of(document), parts_of(document), start=start)


def _method(document: Mapping[str, Any]) -> Markup:
    step, parts, known = document["method"]["step"], [], parts_of(document)
    if step["reason"] is None:
        first = step.get("first_round")
        text = f"Round {step['round']}: " if first is None else f"Rounds {first} to {step['round']}: "
        if step["own_update"]:
            owners = sorted({p.client for p in known if p.number in step["own_update"]})
            if first is not None:
                text += f"{named(owners or step['own_update'], start=True)} took part in it. "
            elif known:
                text += f"{named(owners, start=True)} worked with these data once more for it. "
            else:
                text += f"{named(step['own_update'])} trained once more for it. "
        for client, round in step["stored_update"].items():
            text += (
                f"Client {client} could not be reached; its stored update of round {round} was used instead. "
            )
        if step["already"]:
            text += f"Already unlearned by an earlier request: {named(step['already'], known)}. "
        if step["never"]:
            text += f"Never took part in training, so no step was needed: {named(step['never'], known)}. "
        if with_client := step.get("with_client"):
            client = f"client{'s' * (len(with_client) > 1)}"
            text += f"Unlearned with all other data of their {client}: {named(with_client, known)}. "
        if not any(
            step.get(how) for how in ("own_update", "stored_update", "already", "never", "with_client")
        ):
            text += "the clients concerned took no part in it. "
        if step["others"]:
            more = "client, or part of a client's data, was"
            if step["others"] > 1:
                more = "clients, or parts of clients' data, were"
            text += f"In the same step {step['others']} {more} unlearned for other requests."
        parts.append(tag("p", text.strip()))
        if document["method"]["bound"]:
            parts.append(tag("p", document["method"]["bound"]))
    else:
        parts.append(tag("p", f"Step: {step['reason']}.", class_="note"))
    rows = []
    for client, part in document["participation"].items():
        taken = (
            f"{part['rounds']}, the first {part['first']}, the last {part['last']}"
            if part["rounds"]
            else "none"
        )
        who = named([int(client)], known)
        rows.append([who, taken])
        left_out = document["outcome"]["unlearned"] or document["outcome"]["state"] == "excluded"
        if left_out and (until := part.get("without_it_until")):
            rows[-1][1] += (
                f"; training continued to round {until}; from the first round planned after the request arrived, "
                f"{who} had no part in it"
            )
        if document["outcome"]["unlearned"] and part["planned_after_end"]:
            rounds = counted(
                part["planned_after_end"], "round after the end was", "rounds after the end were"
            )
            after = f"{rounds} planned with {who}"
            parts.append(tag("p", f"{after}: this should not happen.", class_="warning"))
    return section(
        "Method and participation in training",
        tag("p", f"The federation forgets by {document['method']['in_words']}."),
        *parts,
        table(["", "rounds of ordinary training that it took part in"], rows),
    )


def _weights(weights: Mapping[str, Mapping[str, Any]]) -> Markup:
    rows: list[Sequence[str]] = []
    for name, title in _WEIGHTS.items():
        stated = weights[name]
        round = "" if stated["round"] is None else f"round {stated['round']}"
        shown = tag("code", stated["sha256"]) if stated["sha256"] else why(stated["reason"])
        rows.append([title, round, shown])
    return section(
        "The shared model",
        tag(
            "p",
            "SHA-256 of the model's raw weights and buffers. Equal hashes: the same model.",
            class_="note",
        ),
        table(["", "after", "SHA-256"], rows),
    )


def _data(document: Mapping[str, Any]) -> Markup:
    data = document["data"]
    parts: list[Markup] = [tag("p", data["policy_in_words"])]
    if data["removed"]:
        parts.append(tag("p", f"Removed: {_listed(data['removed'])}."))
    if data["moved"]:
        parts.append(tag("p", f"Moved to {data['quarantine']}: {_listed(data['moved'])}."))
    if data["note"]:
        parts.append(tag("p", data["note"], class_="note"))
    rows = [
        [tag("code", item["place"]), str(item["files"]), item["about"]]
        for item in sorted(data["remaining"], key=lambda item: _ORDER.index(item["holds"]))
    ]
    parts.append(tag("p", "What was in the run directory when this was issued:"))
    parts.append(table(["place", "files", "what"], rows))
    parts.append(definitions({"Messages on the SuperLink": data["superlink"]["in_words"]}))
    if document["outcome"]["unlearned"]:
        several = len(document["request"]["clients"]) > 1
        nodes = _nodes_of_parts(document) if parts_of(document) else _nodes_told(document)
        parts.append(definitions({"The clients' own nodes" if several else "The client's own node": nodes}))
    if data["not_examined"]:
        parts.append(tag("p", "Not examined:"))
        parts.append(bullets(data["not_examined"]))
    return section("The client's data: what was removed, what still exists", *parts)


def _nodes_told(document: Mapping[str, Any]) -> str:
    """Say whose nodes know that all of their data have been forgotten."""
    told = sorted({client for stage in document["measures"].values() for client in stage.get("told", ())})
    if not told:
        return "not known to have been notified"
    it_is = "they are" if len(told) > 1 else "it is"
    untold = [client for client in document["request"]["clients"] if client not in told]
    others = f"; not known to have been notified: {named(untold)}" if untold else ""
    return f"notified that {it_is} forgotten: {named(told)}{others}"


def _nodes_of_parts(document: Mapping[str, Any]) -> str:
    """Say of the clients whose data are named in part what they did for it, and what they do now."""
    worked = {
        p.client for p in parts_of(document) if p.number in document["method"]["step"].get("own_update", ())
    }
    whole = document["related"]["as_a_whole"]
    becomes = dict.fromkeys(document["request"]["clients"], "goes on with the rest")
    becomes |= dict.fromkeys(whole["forgotten"], "has been forgotten as a whole")
    becomes |= dict.fromkeys(whole["left_out"], "has been left out as a whole")
    becomes |= dict.fromkeys(whole["open"], "is named as a whole by a request that is still open")
    alike: dict[tuple[bool, str], list[int]] = {}
    for client, what in becomes.items():
        alike.setdefault((client in worked, what), []).append(client)
    said = []
    for (own, what), clients in alike.items():
        did = (
            "took part in the forgetting of these data"
            if own
            else "was not asked about these data separately"
        )
        if len(clients) > 1:
            did = did.replace("was", "were")
            verb, _, rest = what.partition(" ")
            what = f"{ {'goes': 'go', 'has': 'have', 'is': 'are'}[verb] } {rest}"
        said.append(f"{named(sorted(clients))} {did}, and {what}")
    return "; ".join(said)


_ORDER = ("update", "earlier-weights", "weights", "numbers", "record", "unknown")


def _related(related: Mapping[str, Any], known: Sequence[Part], *, unlearned: bool) -> Markup:
    lines = []
    if related["same_as"]:
        lines.append(f"Repeats request {related['same_as']}.")
    if related["done_by"]:
        lines.append(f"Its clients were unlearned by: {', '.join(related['done_by'])}.")
    for client, requests in related.get("forgotten_by", {}).items():
        lines.append(f"{named([int(client)], known, start=True)} was forgotten by: {', '.join(requests)}.")
    if related["recovery_taken_over_by"]:
        lines.append(f"Recovery was taken over by: {', '.join(related['recovery_taken_over_by'])}.")
    if related["same_step"]:
        more = f", and {related['same_step_more']} more" if related["same_step_more"] else ""
        lines.append(f"Unlearned in the same round: {', '.join(related['same_step'])}{more}.")
    for earlier in related["earlier_certificates"]:
        ending = ENDINGS[earlier["state"]]
        after = ""
        if ending.unlearned:
            after = " That stands."
        elif unlearned:
            after = " Where the two differ, this later certificate counts."
        lines.append(
            f"An earlier request that names one of the same clients, {earlier['request']}, ended as "
            f"“{earlier.get('title', ending.title)}”.{after}"
        )
    return section("Other requests", bullets(lines)) if lines else Markup("")


def _trail(document: Mapping[str, Any]) -> Markup:
    trail, issuer, signature = document["trail"], document["issuer"], document["signature"]
    rows = [
        [
            str(e["entry"]),
            e["to"],
            "" if e["round"] is None else str(e["round"]),
            clock_time(e["at"]),
            tag("code", e["hash"]),
        ]
        for e in document["history"]
    ]
    facts: dict[str, str] = {
        "Head of the trail": tag("code", f"{trail['entry']}:{trail['hash']}"),
        "Signed with key": tag("code", issuer["key_id"] or "none"),
        "Signature": tag("code", signature["value"]) if signature["value"] else why(signature["reason"]),
        "SHA-256 of the certificate": tag("code", digest(document)),
    }
    if replaced := document["replaces"]:
        edition = f"edition {replaced['edition']} of {clock_time(replaced['issued_at'])} UTC, SHA-256 "
        facts["Replaces"] = join(edition, tag("code", replaced["sha256"]))
    return section(
        "Trail and signature",
        tag(
            "p",
            "Every step of every request is an entry in a chain where each hash covers the previous one. This "
            "request's entries:",
            class_="note",
        ),
        table(["entry", "state", "round", "when (UTC)", "hash"], rows),
        definitions(facts),
        bullets(f"Problem in the trail: {problem}" for problem in trail["problems"]),
        tag(
            "p",
            "To check it: ",
            tag("code", f"fedunlearn verify {document['request']['id']}.json --public-key KEY.pub"),
            ". Get the public key from the operator separately, not with this certificate.",
        ),
    )


def _words() -> Markup:
    explained = [join(tag("b", word), f": {text}") for word, text in WORDS.items()]
    return tag("section", bullets(explained), class_="note")


def _footer(document: Mapping[str, Any]) -> Markup:
    return tag(
        "footer",
        f"This page shows {document['request']['id']}.json, which is what the signature covers. Written by "
        f"{document['issuer']['software']}.",
    )


def _listed(names: Sequence[str]) -> str:
    """Name files folder by folder, of several in one the first and the last."""
    folders: dict[str, list[str]] = {}
    for name in names:
        folder, _, last = name.rpartition("/")
        folders.setdefault(folder, []).append(last)
    told = []
    for folder, files in folders.items():
        place = f"{folder}/" if folder else ""
        told.append(f"{place}{files[0]}" + (f" … {files[-1]} ({len(files)})" if len(files) > 1 else ""))
    return ", ".join(told)
