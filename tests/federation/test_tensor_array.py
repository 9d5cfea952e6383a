"""A model on the wire: a reference within a process, an ordinary Flower array between two."""

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.inflatable.inflatable_utils import (
    inflate_object_from_contents,
    push_objects,
    validate_object_content,
)
from hypothesis import given
from hypothesis import strategies as st

from fedunlearn.federation.compat import ensure_task_identity
from fedunlearn.federation.local import LocalGrid
from fedunlearn.federation.payload import ModelState, TensorArray, pack, tensor_of, unpack
from fedunlearn.strategies.puf import PUF
from tests.federation.contributions import bits
from tests.server.tiny import Federation, initial_state

TENSORS = st.sampled_from(
    [
        torch.linspace(-1, 1, 7),
        torch.linspace(-1, 1, 7, dtype=torch.float64),
        torch.tensor([float("nan"), float("inf"), -0.0, 1e-45]),
        torch.arange(12).reshape(3, 4),
        torch.arange(12.0).reshape(3, 4).t(),
        torch.tensor(5),
        torch.zeros(0),
        torch.zeros(300_000),  # more than one of Flower's chunks, all alike
        torch.tensor([True, False]),
        torch.linspace(0, 1, 3).half(),
    ]
)


def over_the_wire(message):
    """Send a message as Flower does: every object on its own, by its hash, put together again elsewhere."""
    sent = {}
    push_objects(get_all_nested_objects(message), sent.__setitem__)
    for content in sent.values():
        validate_object_content(content)
    return inflate_object_from_contents(message.object_id, sent)


def message(state):
    ensure_task_identity()
    content = RecordDict({"arrays": pack(state), "metrics": MetricRecord({"num-examples": 3})})
    return Message(content, 2, "train", group_id="1")


@given(TENSORS, TENSORS)
def test_the_receiver_elsewhere_gets_the_same_bits_as_ordinary_arrays(vector, buffer):
    received = over_the_wire(message(ModelState(vector, {"norm.mean": buffer})))
    arrays = received.content["arrays"]
    assert {type(array) for array in arrays.values()} == {Array}
    state = unpack(arrays)
    for sent, got in ((vector, state.vector), (buffer, state.buffers["norm.mean"])):
        assert (got.dtype, got.shape) == (sent.dtype, sent.shape)
        assert bits(got) == bits(sent)
    assert received.content["metrics"] == {"num-examples": 3}


@given(TENSORS)
def test_it_is_the_very_array_that_flower_would_have_made(tensor):
    ours, flower_s = TensorArray(tensor), Array(tensor)
    assert (ours.dtype, ours.shape, ours.stype) == (flower_s.dtype, flower_s.shape, flower_s.stype)
    assert ours.data == flower_s.data
    assert ours.object_id == flower_s.object_id
    assert ours.deflate() == flower_s.deflate()
    assert np.array_equal(ours.numpy(), flower_s.numpy(), equal_nan=tensor.dtype.is_floating_point)


def test_within_a_process_the_receiver_gets_the_very_tensor():
    state = ModelState(torch.ones(3), {"mean": torch.zeros(2), "batches": torch.tensor(4)})
    received = unpack(message(state).content["arrays"])
    assert received.vector.data_ptr() == state.vector.data_ptr()
    for name, buffer in state.buffers.items():
        assert received.buffers[name].data_ptr() == buffer.data_ptr()


def test_what_came_over_a_wire_is_a_copy_that_may_be_written_to():
    sent = torch.ones(3)
    got = tensor_of(over_the_wire(message(ModelState(sent))).content["arrays"]["parameters"])
    got.zero_()
    assert torch.equal(sent, torch.ones(3))


def test_a_tensor_with_a_gradient_travels_without_it():
    parameter = torch.nn.Parameter(torch.ones(3))
    received = unpack(pack(ModelState(parameter))).vector
    assert not received.requires_grad
    assert received.data_ptr() == parameter.data_ptr()


def test_buffers_may_be_called_anything():
    names = ["parameters", "a.b.c", "buffers/x", "mean"]
    state = ModelState(torch.ones(1), {name: torch.tensor([float(i)]) for i, name in enumerate(names)})
    received = unpack(over_the_wire(message(state)).content["arrays"])
    assert {name: value.item() for name, value in received.buffers.items()} == dict(
        zip(names, range(4), strict=True)
    )


def test_the_payload_s_size_follows_from_the_tensors():
    assert ModelState(torch.zeros(10)).num_bytes == 40
    buffers = {"mean": torch.zeros(3, dtype=torch.float64), "batches": torch.tensor(0)}
    assert ModelState(torch.zeros(10), buffers).num_bytes == 40 + 24 + 8


class SerialisedError(AssertionError):
    pass


@pytest.fixture
def no_bytes(monkeypatch):
    """Let nobody turn a tensor into bytes."""

    def refuse(*_, **__):
        raise SerialisedError("an array was serialised within a process")

    monkeypatch.setattr(TensorArray, "data", property(refuse))
    monkeypatch.setattr(TensorArray, "deflate", refuse)
    monkeypatch.setattr(Array, "__init__", refuse)
    monkeypatch.setattr(np, "save", refuse)
    monkeypatch.setattr(np, "load", refuse)


def test_the_guard_notices_a_record_made_from_a_dictionary(no_bytes):
    with pytest.raises(SerialisedError):
        ArrayRecord({"parameters": TensorArray(torch.ones(3))})


@pytest.mark.parametrize("workers", [1, 2])
def test_nothing_is_serialised_within_a_process(no_bytes, workers):
    made = Federation(start=initial_state(buffers=True))
    made.submit("r1", (2,), 2)
    with LocalGrid(made.clients.app, 6, workers=workers) as made.grid:
        made.run(PUF, 4, mode="regular")
    assert made.progress("r1").unlearned_round == 3
