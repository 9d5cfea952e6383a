"""The section of a certificate's page that shows what was measured, and says what that is worth."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fedunlearn.certificates.pieces import bullets, number, section, table, why
from fedunlearn.html.markup import Markup, tag
from fedunlearn.parts import Part
from fedunlearn.wording import named

_STAGES = {
    "before": "before the step",
    "unlearned": "right after the step",
    "ended": "when the request ended",
}
_MEASURES = {
    "forget_accuracy": "accuracy on the client's own data, %",
    "forget_dice": "Dice score on the client's own data, %",
    "forget_loss": "loss on the client's own data, nats",
    "mia_auc_binned": "telling the client's data from unseen data by confidence: AUC, % (50: no better than chance)",
    "accuracy": "the model's accuracy on validation data, %",
    "dice": "the model's Dice score on validation data, %",
    "loss": "the model's loss on validation data, nats",
}

BLUNT_AUC = 5.0
"""So near to 50 %, in points, an attack that was tried before the step could not tell anything worth forgetting."""


def measures_section(measures: Mapping[str, Mapping[str, Any]], parts: Sequence[Part] = ()) -> Markup:
    """Return the section of what was measured, stage by stage."""
    cells: dict[str, dict[str, Markup]] = {}
    for stage, stated in measures.items():
        for name, value in stated.get("validation", {}).items():
            cells.setdefault(_MEASURES.get(name, name), {})[stage] = number(value, None)
        for client, found in stated.get("clients", {}).items():
            for name, value in found["values"].items():
                what = f"{named([int(client)], parts)}: {_MEASURES.get(name, name)}"
                cells.setdefault(what, {})[stage] = number(value, found["reasons"].get(name))
    head = [""]
    for stage, title in _STAGES.items():
        round = measures[stage].get("round")
        head.append(title if round is None else f"{title} (round {round})")
    rows = [
        [what, *(row.get(stage, why("not measured")) for stage in _STAGES)] for what, row in cells.items()
    ]
    missing = [
        f"Nothing was measured {title}: {measures[stage]['reason']}."
        for stage, title in _STAGES.items()
        if measures[stage].get("reason")
    ]
    return section(
        "What was measured",
        tag("p", "Nodes send sums and counts, never values of individual examples.", class_="note"),
        table(head, rows) if rows else Markup(""),
        *(
            tag("p", text)
            for text in (*_blunt_attacks(measures["before"], parts), *_not_asked_again(measures))
        ),
        bullets(missing),
    )


def _blunt_attacks(before: Mapping[str, Any], parts: Sequence[Part]) -> Iterable[str]:
    """Say where the attack could not tell a client's data even before the step: its value afterwards says nothing."""
    for client, found in before.get("clients", {}).items():
        auc = found["values"].get("mia_auc_binned")
        if auc is not None and abs(auc - 50) <= BLUNT_AUC:
            yield (
                f"The attack could hardly tell {_data_of(int(client), parts)} from unseen data even before the step "
                f"(AUC {auc:.2f} %; 50 % is chance), so a value near 50 % afterwards proves nothing."
            )


def _data_of(number: int, parts: Sequence[Part]) -> str:
    return (
        named([number], parts) if any(p.number == number for p in parts) else f"the data of client {number}"
    )


def _not_asked_again(measures: Mapping[str, Mapping[str, Any]]) -> Iterable[str]:
    ended = measures["ended"].get("clients", {})
    if any(value is not None for found in ended.values() for value in found["values"].values()):
        return
    reasons = sorted({reason for found in ended.values() for reason in found["reasons"].values() if reason})
    if reasons:
        yield (
            "There are no values on the clients' own data from the end of the request, because their nodes were not "
            f"asked again: {'; '.join(reasons)}."
        )
