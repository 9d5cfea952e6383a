"""metrics.jsonl: a torn last line is cut, the last line at an address counts, nothing whole is ever lost."""

import json
import os
from dataclasses import asdict, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedunlearn.runs.metrics_log import Metric, MetricsLog, read_metrics
from tests.profiles import few

ONE = Metric("puf-0-s1", 3, "server", "test", "accuracy", 61.5, 0.25)
TWO = Metric("puf-0-s1", 4, "client-3", "train", "loss", 1 / 3, 0.125)
OTHER = replace(ONE, branch="puf-0-s11")

metrics = st.builds(
    Metric,
    branch=st.sampled_from(["a", "a-1", "ä"]),
    round=st.integers(0, 3),
    entity=st.sampled_from(["server", "client-1"]),
    split=st.sampled_from(["test", "forget"]),
    metric=st.sampled_from(["accuracy", "loss"]),
    value=st.floats(allow_nan=False),
    seconds=st.floats(0, 10),
)


def test_lines_are_the_documented_ones_and_come_back(tmp_path):
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path)
    log.append([ONE, TWO])
    assert json.loads(path.read_text().splitlines()[0]) == {
        "branch": "puf-0-s1",
        "round": 3,
        "entity": "server",
        "split": "test",
        "metric": "accuracy",
        "value": 61.5,
        "seconds": 0.25,
    }
    assert list(read_metrics(path)) == [ONE, TWO]
    assert log.of("puf-0-s1") == {
        ("puf-0-s1", 3, "server", "test", "accuracy"): ONE,
        ("puf-0-s1", 4, "client-3", "train", "loss"): TWO,
    }


def test_wherever_the_last_line_is_torn_it_is_cut_and_the_log_goes_on(tmp_path):
    path = tmp_path / "metrics.jsonl"
    MetricsLog(path).append([ONE, TWO])
    whole = path.read_bytes()
    first = whole.index(b"\n") + 1
    for length in {*range(0, len(whole), 17), first - 1, first, first + 1, len(whole) - 1, len(whole)}:
        path.write_bytes(whole[:length])
        kept = [ONE, TWO][: (length >= first) + (length == len(whole))]
        assert list(read_metrics(path)) == kept, "a reader beside a running writer skips the torn line"
        log = MetricsLog(path)
        assert path.read_bytes() == whole[: [0, first, len(whole)][len(kept)]]
        log.append([OTHER])
        assert list(read_metrics(path)) == [*kept, OTHER]


@few
@given(st.lists(st.lists(metrics, max_size=5), max_size=5))
def test_reads_what_a_dictionary_would_hold_however_often_it_was_opened(tmp_path_factory, batches):
    """The last value at an address counts; one that an earlier process wrote is not written again."""
    path = tmp_path_factory.mktemp("log") / "metrics.jsonl"
    held = {}
    for batch in batches:
        MetricsLog(path).append(iter(batch))
        before = {address: m.value for address, m in held.items()}
        held |= {m.address: m for m in batch if before.get(m.address) != m.value}
    log = MetricsLog(path)
    for branch in ("a", "a-1", "ä", "never"):
        assert log.of(branch) == {address: m for address, m in held.items() if m.branch == branch}


@few
@given(st.lists(st.lists(metrics, max_size=5), max_size=5))
def test_what_another_appends_is_read_too_and_only_once_it_is_whole(tmp_path_factory, batches):
    path = tmp_path_factory.mktemp("log") / "metrics.jsonl"
    log, other = MetricsLog(path), MetricsLog(path)
    written = []
    for batch in batches:
        other.append(batch)
        written += batch
        with path.open("a") as file:  # as a writer at work leaves it for a moment
            file.write('{"branch": "a", "rou')
        for branch in ("a", "a-1", "ä"):
            assert log.of(branch) == {m.address: m for m in written if m.branch == branch}
        path.write_bytes(path.read_bytes().removesuffix(b'{"branch": "a", "rou'))


def test_only_a_branch_s_own_lines_are_parsed(tmp_path, monkeypatch):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    for _ in range(3):
        log.append([ONE, TWO])
        log.append([OTHER] * 50)
    parsed = []
    loads = json.loads
    monkeypatch.setattr(json, "loads", lambda line: parsed.append(line) or loads(line))
    assert list(log.of(ONE.branch).values()) == [ONE, TWO]
    assert len(parsed) == 6, "neither to find the branch's lines nor to read them"


def test_a_round_executed_again_counts_as_executed_last(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.append([ONE, OTHER])
    log.append([replace(ONE, value=70.0, seconds=9.0)])
    assert [m.value for m in log.of("puf-0-s1").values()] == [70.0]
    assert [m.value for m in log.of("puf-0-s11").values()] == [61.5]


def test_appending_waits_for_the_disk_and_nothing_to_append_does_not(tmp_path, monkeypatch):
    waited = []
    log = MetricsLog(tmp_path / "metrics.jsonl")
    path = tmp_path / "metrics.jsonl"
    monkeypatch.setattr(os, "fsync", lambda _: waited.append(len(path.read_bytes())))
    log.append([])
    assert waited == []
    log.append([ONE, TWO])
    assert waited == [path.stat().st_size], "all of it is in the file before the wait, and one wait is enough"


def test_a_diverged_loss_is_a_number_too(tmp_path):
    path = tmp_path / "metrics.jsonl"
    MetricsLog(path).append([replace(ONE, value=float("nan")), replace(TWO, value=float("inf"))])
    nan, inf = read_metrics(path)
    assert nan.value != nan.value
    assert inf.value == float("inf")


GARBAGE = [
    b"garbage",
    b"\0" * 40,
    b"\xff\xfe",
    b"{}",
    b"[1]",
    b"[" * 5000 + b"]" * 5000,
    b'{"branch": "a"}',
    b'{"branch": "\xff", "round": 1}',
    json.dumps(asdict(ONE) | {"round": "1"}).encode(),
    json.dumps(asdict(ONE) | {"value": None}).encode(),
    json.dumps(asdict(ONE) | {"more": 1}).encode(),
]


@pytest.mark.parametrize("garbage", GARBAGE, ids=lambda line: ascii(line[:20]))
def test_a_line_that_holds_no_metric_costs_only_itself(garbage, tmp_path):
    path = tmp_path / "metrics.jsonl"
    MetricsLog(path).append([ONE])
    with path.open("ab") as file:
        file.write(garbage + b"\n")
    log = MetricsLog(path)
    log.append([TWO])
    assert list(read_metrics(path)) == [ONE, TWO]
    assert {**log.of(ONE.branch), **log.of(TWO.branch)} == {ONE.address: ONE, TWO.address: TWO}
    assert garbage in path.read_bytes(), "whoever looks into the file finds what was there"


def test_lines_that_are_no_objects_are_counted_when_the_log_is_opened(tmp_path):
    path = tmp_path / "metrics.jsonl"
    MetricsLog(path).append([ONE])
    assert MetricsLog(path).garbled == 0
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes() + b"garbage\n\n")
    assert MetricsLog(path).garbled == 2
    assert list(read_metrics(path)) == [ONE], "a mark in front is no garbage"


def test_what_stands_there_from_before_a_crash_is_not_written_again(tmp_path):
    path = tmp_path / "metrics.jsonl"
    MetricsLog(path).append([ONE, TWO])
    log = MetricsLog(path)
    later, otherwise = replace(TWO, round=5), replace(TWO, value=0.5)
    log.append([ONE, otherwise])  # the first round that a new process executes, perhaps for the second time
    log.append([later])
    assert list(read_metrics(path)) == [ONE, TWO, otherwise, later]
    log.append([otherwise, OTHER])
    assert list(read_metrics(path))[4:] == [otherwise, OTHER], "later rounds are not looked at"
