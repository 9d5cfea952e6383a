"""A lack of memory is told from other failures, whoever ran out of it and however it is reported."""

import traceback

import numpy as np
import pytest
import torch

from fedunlearn.errors import OutOfMemoryError, RunError
from fedunlearn.out_of_memory import is_shortage, naming_shortage, stop_if_out_of_memory

CUDA = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.64 GiB."


def full_gpu():
    raise torch.OutOfMemoryError(CUDA)


def petabyte():
    torch.empty(1 << 50, dtype=torch.uint8)


def numpy_petabyte():
    np.ones(1 << 50, dtype=np.uint8)


def python():
    bytearray(1 << 62)


def in_a_chain():
    try:
        full_gpu()
    except RuntimeError as error:
        raise KeyError("layer1") from error


def harmless():
    raise RuntimeError("size mismatch: 3 and 4")  # torch.OutOfMemoryError: out of memory


def report(call):
    """Return the traceback that a call ends in."""
    try:
        call()
    except Exception:
        return traceback.format_exc()
    raise AssertionError("it did not fail")


@pytest.mark.parametrize("call", [full_gpu, petabyte, numpy_petabyte, python, in_a_chain])
def test_tracebacks_of_every_allocator(call):
    assert is_shortage(report(call))


@pytest.mark.parametrize(
    "text",
    [
        "<class 'MemoryError'>:<''>",  # as Flower's own runtimes tell of a client
        "RuntimeError: CUDA error: out of memory",
        "RuntimeError: cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "OSError: [Errno 12] Cannot allocate memory",
        "3 Ray workers died, one after another, while they trained client 4; the last: out of memory according to "
        "Ray: Task was killed due to the node running low on memory.",
    ],
)
def test_what_others_report(text):
    assert is_shortage(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "did not answer",
        "refused: update holds NaN or Inf",
        # Ray does not know why a worker is gone: to be redone, or a failed client, as before.
        "3 Ray workers died, one after another, while they trained client 4; the last: Worker unexpectedly exits. "
        "Out of memory, killed, or crashed.",
    ],
)
def test_other_failures_are_none(text):
    assert not is_shortage(text)


def test_nor_is_a_source_line_that_speaks_of_memory():
    text = report(harmless)
    assert "OutOfMemoryError" in text
    assert not is_shortage(text)


def test_the_first_client_without_memory_ends_the_run_in_one_line():
    failed = {1: report(harmless), 3: report(full_gpu), 5: report(petabyte)}
    with pytest.raises(RunError) as ended:
        stop_if_out_of_memory(failed, 7)
    assert str(ended.value) == "client 3, round 7: out of memory (asked for 2.00 GiB)"
    assert ended.value.during == "training"
    with pytest.raises(RunError, match=rf"^client 5, .* \(asked for {1 << 50} bytes\)$"):
        stop_if_out_of_memory({5: failed[5]}, 7)
    stop_if_out_of_memory({1: failed[1]}, 7)


def test_what_was_being_done_is_named_once():
    with (
        pytest.raises(
            OutOfMemoryError, match=r"^evaluation, round 2: out of memory \(asked for 1.00 PiB\)$"
        ) as ended,
        naming_shortage("the run"),
        naming_shortage("evaluation, round 2", "evaluation"),
    ):
        numpy_petabyte()
    assert ended.value.during == "evaluation"
    assert isinstance(ended.value.__cause__, MemoryError)


def test_other_exceptions_pass_untouched():
    error = KeyError("x")
    with pytest.raises(KeyError) as passed, naming_shortage("the run"):
        raise error
    assert passed.value is error


def test_an_error_that_quotes_a_workers_traceback_is_read_too():
    with pytest.raises(OutOfMemoryError, match=r"^starting: out of memory"), naming_shortage("starting"):
        raise RunError(f"Ray worker 7 cannot start:\n{report(full_gpu)}")
