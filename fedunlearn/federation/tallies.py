"""Tallies on the wire: the record that a node answers with, and how it is read where no node is trusted."""

from __future__ import annotations

import sys

from flwr.app import ConfigRecord, MetricRecord, RecordDict

from fedunlearn.evaluation.histograms import BINS, FEWEST, TOO_FEW, Tally, Withheld
from fedunlearn.federation.answers import MOST_EXAMPLES, TALLY
from fedunlearn.federation.shown import printable, shown

EVALUATE = "evaluate.tally"
"""Type of the message that asks a client for the tally of the weights in it on the client's own training data."""
FORGOTTEN = "query.forgotten"
"""Type of the message that tells a node that it has been forgotten, with the weights that have forgotten it."""
LONGEST_REASON = 200
"""Characters of a node's own words that are kept."""
LARGEST_LOSS = 3.5e38
"""Nats: more than float32 can hold no example's loss is; sums of such sums stay numbers."""


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
    except KeyError as error:
        return Withheld(f"refused: {error.args[0]} is missing")
    except ValueError as error:
        return Withheld(_one_line(f"refused: {error}"))
    if told.loss_sum > told.num_examples * LARGEST_LOSS:
        return Withheld(f"refused: sum of losses {told.loss_sum}: too large for {told.num_examples} examples")
    if told.num_examples < FEWEST:
        return Withheld(f"refused: {TOO_FEW.reason}")
    return told


def _whole(value: object) -> int:
    if type(value) is not int or abs(value) > MOST_EXAMPLES:
        raise ValueError(f"{shown(value)} must be a whole number, at most {MOST_EXAMPLES}")
    return value


def _number(value: object) -> float:
    if type(value) is int and abs(value) <= sys.maxsize:
        return float(value)
    if type(value) is not float:
        raise ValueError(f"{shown(value)} must be a number")
    return value


def _several(value: object) -> list[object]:
    if not isinstance(value, list) or len(value) != BINS:
        raise ValueError(f"{shown(value)} must be a list of {BINS} numbers")
    return value


def _one_line(words: object) -> str:
    """Return a node's words as they may be kept: one printable line, and not too long."""
    text = " ".join(words.split()) if isinstance(words, str) else ""
    return printable(text)[:LONGEST_REASON]
