"""Objects on their way to another process: they arrive as they were sent, and their memory is not copied."""

import pickle

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedunlearn.federation.ray_engine.shared_buffers import SMALL, Parcel, pack, unpack
from fedunlearn.models.state import ModelState
from tests.federation.contributions import bits

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.bool, torch.uint8]
LARGE = SMALL + 1


def frozen(parcel):
    """Return the parcel as Ray hands it out: of the same memory, which is marked as read-only."""

    def locked(array):
        view = array.view()
        view.flags.writeable = False
        return view

    return Parcel(parcel.pickled, [locked(a) for a in parcel.blocks], [locked(a) for a in parcel.tensors])


@given(
    st.sampled_from(DTYPES),
    st.lists(st.integers(0, 5), max_size=3),
    st.booleans(),
)
def test_a_tensor_arrives_as_it_was(dtype, shape, large):
    shape = [*shape, LARGE] if large else shape
    sent = (torch.randn(shape, dtype=torch.float64) * 10).to(dtype)
    got = unpack(frozen(pack({"deep": [sent]})))["deep"][0]
    assert got.dtype == dtype and got.shape == sent.shape
    assert torch.equal(got, sent)


def test_a_tensor_that_is_not_contiguous_arrives_as_it_was():
    sent = torch.arange(4.0 * LARGE).view(2, LARGE, 2).transpose(0, 2)[1:]
    assert torch.equal(unpack(pack(sent)), sent)


@pytest.mark.filterwarnings("error")
def test_large_tensors_and_arrays_are_seen_where_they_lie():
    tensor, array = torch.zeros(LARGE), np.zeros(LARGE)
    parcel = frozen(pack((tensor, array)))
    got_tensor, got_array = unpack(parcel)
    assert got_tensor.data_ptr() == tensor.data_ptr()
    assert got_array.ctypes.data == array.ctypes.data
    assert not got_array.flags.writeable
    assert len(parcel.pickled) < 1000
    assert parcel.num_bytes == len(parcel.pickled) + 4 * LARGE + 8 * LARGE


def test_what_is_to_be_one_s_own_is_a_copy():
    sent = torch.zeros(LARGE)
    got = unpack(frozen(pack(sent)), own=True)
    got += 1
    assert sent.sum() == 0


def test_small_ones_are_in_the_pickle_and_one_s_own():
    sent = torch.zeros(3)
    parcel = pack(sent)
    assert not parcel.tensors and not parcel.blocks
    got = unpack(parcel)
    got += 1
    assert unpack(parcel).sum() == sent.sum() == 0


def test_a_tensor_that_is_there_twice_is_sent_once():
    tensor = torch.zeros(LARGE)
    assert len(pack([tensor, {"again": tensor}]).tensors) == 1


def test_what_travels_apart_is_left_out_and_put_back():
    shared = ModelState(torch.zeros(LARGE))
    parcel = pack({"message": 1, "model": shared}, apart={id(shared): 0})
    assert parcel.num_bytes < 1000
    other = object()
    assert unpack(parcel, others=[other]) == {"message": 1, "model": other}


def test_functions_without_a_name_can_be_sent():
    offset = torch.arange(3.0)
    assert bits(unpack(pack(lambda x: x + offset))(1)) == bits(offset + 1)


def test_what_cannot_be_pickled_is_an_error():
    with pytest.raises((TypeError, pickle.PicklingError)):
        pack(x for x in ())
