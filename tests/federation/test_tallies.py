"""Tallies over Flower's wire, and from nodes that send anything at all."""

import math

import pytest
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from fedunlearn.evaluation.histograms import BINS, Tally, Withheld, total
from fedunlearn.federation.answers import MOST_EXAMPLES
from fedunlearn.federation.tallies import LARGEST_LOSS, LONGEST_REASON, TALLY, tally_in, tally_record

BINS_OF_SEVEN = (3, *(0,) * (BINS - 2), 4)
SEVEN = Tally(7, 400 + 100 / 3, 0.1 + 0.2, BINS_OF_SEVEN)
SENT = dict(tally_record(SEVEN))


def over_the_wire(record):
    """The record as the other side has it: Flower's own serialisation there and back."""
    content = RecordDict({TALLY: record})
    return RecordDict.inflate(
        content.deflate(),
        {child.object_id: type(child).inflate(child.deflate()) for child in content.children.values()},
    )


@pytest.mark.parametrize("told", [SEVEN, Withheld("fewer than 5 examples")])
def test_what_a_node_tells_arrives_to_the_last_bit(told):
    assert tally_in(over_the_wire(tally_record(told))) == told


def test_nothing_but_counts_and_sums_leaves_the_node():
    """Its size does not depend on the number of examples."""
    assert {name: type(value) for name, value in SENT.items()} == {
        "num-examples": int,
        "quality-sum": float,
        "loss-sum": float,
        "confidences": list,
    }
    assert len(SENT["confidences"]) == BINS


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (None, "the node sent no tally"),
        (ArrayRecord(), "the node sent no tally"),
        (ConfigRecord(), "the node gave no reason"),
        (ConfigRecord({"withheld": 3}), "the node gave no reason"),
        (ConfigRecord({"withheld": "  "}), "the node gave no reason"),
        (MetricRecord(), "refused: num-examples is missing"),
        (MetricRecord({**SENT, "num-examples": 7.0}), "refused: 7.0 must be a whole number"),
        (MetricRecord({**SENT, "num-examples": 8}), "refused: a histogram of 20 bins and 7 examples"),
        (MetricRecord({**SENT, "loss-sum": float("inf")}), "refused: sum of losses inf"),
        (MetricRecord({**SENT, "quality-sum": [1.0]}), "refused: [1.0] must be a number"),
        (MetricRecord({**SENT, "confidences": 7}), "refused: 7 must be a list"),
        (MetricRecord({**SENT, "confidences": 20 * [7.0]}), "refused: 7.0 must be a whole number"),
        (MetricRecord({**SENT, "confidences": [7]}), "refused: [7] must be a list of 20 numbers"),
        (
            MetricRecord({**SENT, "confidences": 10**5 * [0]}),
            "refused: [0, 0, 0, 0, 0, 0, ...] must be a list of 20",
        ),
        (
            MetricRecord({**SENT, "num-examples": 2**62}),
            "refused: 4611686018427387904 must be a whole number, at most",
        ),
        (
            MetricRecord({**SENT, "loss-sum": 1e308}),
            "refused: sum of losses 1e+308: too large for 7 examples",
        ),
        (MetricRecord({**SENT, "loss-sum": 10**400}), "refused: a number of"),
        (MetricRecord({**SENT, "loss-sum": 10**5000}), "refused: a number of more than 40 digits"),
        (
            MetricRecord(dict(tally_record(Tally(4, 0.0, 0.0, (4, *(0,) * 19))))),
            "refused: fewer than 5 examples",
        ),
    ],
)
def test_what_is_no_tally_is_withheld_with_a_reason(record, reason):
    found = tally_in(RecordDict() if record is None else RecordDict({TALLY: record}))
    assert isinstance(found, Withheld)
    assert found.reason.startswith(reason)


def test_a_node_s_words_are_kept_short_and_on_one_line():
    found = tally_in(RecordDict({TALLY: ConfigRecord({"withheld": "no\n\tdata\x1b[31m " + 500 * "x"})}))
    assert found.reason.startswith("no data?[31m xxx")
    assert len(found.reason) == LONGEST_REASON


values = st.one_of(
    st.integers(-(2**40), 2**40),
    st.floats(),
    st.lists(st.integers(-3, 9), max_size=25),
    st.lists(st.floats()),
)


@given(st.dictionaries(st.sampled_from([*SENT, "other"]), values))
def test_nothing_that_a_node_sends_stops_the_server(sent):
    found = tally_in(RecordDict({TALLY: MetricRecord({**SENT, **sent})}))
    assert isinstance(found, Tally | Withheld)


def test_tallies_that_pass_can_always_be_added_up():
    """Each of the largest sums that are let through; a server takes hundreds of them together."""
    most = {**SENT, "num-examples": MOST_EXAMPLES, "confidences": [MOST_EXAMPLES, *19 * [0]]}
    most |= {"quality-sum": 100.0 * MOST_EXAMPLES, "loss-sum": MOST_EXAMPLES * LARGEST_LOSS}
    one = tally_in(RecordDict({TALLY: MetricRecord(most)}))
    assert isinstance(one, Tally)
    together = total([one] * 1000)
    assert math.isfinite(together.loss) and together.quality == 100
