"""Tallies on the wire: the record that a node answers with, and how it is read where no node is trusted."""

from __future__ import annotations

from flwr.app import ConfigRecord, MetricRecord, RecordDict

from fedunlearn.evaluation.histograms import FEWEST, TOO_FEW, Tally, Withheld
from fedunlearn.federation.answers import TALLY

EVALUATE = "evaluate.tally"
"""Type of the message that asks a client for the tally of the weights in it on the client's own training data."""
FORGOTTEN = "query.forgotten"
"""Type of the message that tells a node that it has been forgotten, with the weights that have forgotten it."""
LONGEST_REASON = 200
"""Characters of a node's own words that are kept."""


def tally_record(told: Tally | Withheld) -> MetricRecord | ConfigRecord:
    """Return what a node sends: numbers, or in words why there are none."""
    if isinstance(told, Withheld):
        return ConfigRecord({"withheld": told.reason})
    return MetricRecord(
        {
            "num-examples": told.num_examples,
            "quality-sum": told.quality_sum,
            "loss-sum": told.loss_sum,
            "confidences": list(told.confidences),
        }
    )


def tally_in(content: RecordDict) -> Tally | Withheld:
    """Return the tally in a reply; one that is missing, or that can be no tally, counts as withheld."""
    record = content.get(TALLY)
    if isinstance(record, ConfigRecord):
        return Withheld(_one_line(record.get("withheld")) or "the node gave no reason")
    if not isinstance(record, MetricRecord):
        return Withheld("the node sent no tally")
    try:
        told = Tally(
            num_examples=_whole(record["num-examples"]),
            quality_sum=_number(record["quality-sum"]),
            loss_sum=_number(record["loss-sum"]),
            confidences=tuple(_whole(count) for count in _several(record["confidences"])),
        )
    except (KeyError, ValueError) as error:
        return Withheld(_one_line(f"refused: {error}"))
    if told.num_examples < FEWEST:
        return Withheld(f"refused: {TOO_FEW.reason}")
    return told


def _whole(value: object) -> int:
    if type(value) is not int:
        raise ValueError(f"{value!r} must be a whole number")
    return value


def _number(value: object) -> float:
    if type(value) not in (int, float):
        raise ValueError(f"{value!r} must be a number")
    return float(value)  # type: ignore[arg-type]


def _several(value: object) -> list[object]:
    if not isinstance(value, list):
        raise ValueError(f"{value!r} must be a list")
    return value


def _one_line(words: object) -> str:
    """Return a node's words as they may be kept: one printable line, and not too long."""
    text = " ".join(words.split()) if isinstance(words, str) else ""
    return "".join(c if c.isprintable() else "?" for c in text)[:LONGEST_REASON]
