"""Anything in the place of a reply: what was asked for, or one line that says what is wrong with it."""

import math
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict

from fedunlearn.evaluation.histograms import Tally
from fedunlearn.federation.answers import TRAIN
from fedunlearn.federation.compat import ensure_task_identity, error_reply, stamp
from fedunlearn.federation.payload import ModelState, TensorArray, pack, packed
from fedunlearn.federation.replies import LONGEST_ERROR, Correspondence, Question, read, secret_group
from fedunlearn.federation.tallies import tally_record
from tests.federation.contributions import bits
from tests.federation.test_tensor_array import over_the_wire

NODE = 7
LIKE = ModelState(
    torch.linspace(-1, 1, 5),
    {
        "mean": torch.zeros(2, 3).t(),
        "batches": torch.tensor(0),
        "on": torch.tensor([True, False]),
        "none": torch.zeros(0),
    },
)
UPDATE = ModelState(
    torch.linspace(2, 3, 5),
    {
        "mean": torch.arange(6.0).reshape(2, 3).t(),
        "batches": torch.tensor(4),
        "on": torch.tensor([True, True]),
        "none": torch.zeros(0),
    },
)
QUESTION = Question(3, NODE, TRAIN, "2", update_of=LIKE)


def asked():
    ensure_task_identity()
    return stamp(Message(RecordDict(), NODE, TRAIN, group_id="2"), "m1")


def content(**changes):
    """Return a sound reply's content as a wire brings it, with other records in the place of some; None: without."""
    records = {
        "arrays": pack(UPDATE),
        "metrics": MetricRecord({"num-examples": 9, "train-loss": 0.5}),
        "work": ConfigRecord({"carries": "update", "ran": "train"}),
    }
    reply = over_the_wire(Message(RecordDict(records), reply_to=asked()))
    for name, record in changes.items():
        if record is None:
            del reply.content[name]
        else:
            reply.content[name] = record
    return reply.content


def read_content(found, question=QUESTION):
    return read(Message(found, reply_to=asked()), question)


def refusal(found, question=QUESTION):
    reading = read_content(found, question)
    assert reading.contribution is None and reading.tally is None and reading.client is None
    assert reading.why.startswith("refused: ") and "\n" not in reading.why and len(reading.why) < 600
    return reading.why.removeprefix("refused: ")


# -- what is sound ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("wired", [True, False])
def test_a_sound_reply_is_read_to_the_last_bit(wired):
    found = content(**({} if wired else {"arrays": pack(UPDATE)}))
    reading = read_content(found)
    assert reading.why == "" and not reading.error
    contribution = reading.contribution
    assert (contribution.client, contribution.num_examples, reading.loss) == (3, 9, 0.5)
    assert bits(contribution.delta) == bits(UPDATE.vector)
    assert {k: (bits(v), v.dtype, v.shape) for k, v in contribution.buffers.items()} == {
        k: (bits(v), v.dtype, v.shape) for k, v in UPDATE.buffers.items()
    }
    same = contribution.delta.data_ptr() == UPDATE.vector.data_ptr()
    assert same == (not wired), "within a process nothing is copied"


def test_what_came_over_a_wire_may_be_written_to():
    read_content(content()).contribution.delta.zero_()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16])
def test_in_the_model_s_own_precision(dtype):
    like = ModelState(torch.zeros(3, dtype=dtype))
    update = ModelState(torch.linspace(0, 1, 3, dtype=dtype))
    arrays = over_the_wire(Message(RecordDict({"arrays": pack(update)}), reply_to=asked())).content["arrays"]
    reading = read_content(content(arrays=arrays), Question(3, NODE, TRAIN, "2", update_of=like))
    assert bits(reading.contribution.delta) == bits(update.vector)


def test_other_records_and_metrics_are_nobody_s_business():
    found = content(
        mine=MetricRecord({"battery": 3}), metrics=MetricRecord({"num-examples": 9, "accuracy": [1.0]})
    )
    reading = read_content(found)
    assert reading.contribution is not None and math.isnan(reading.loss)


@pytest.mark.parametrize("loss", [3, -0.0, math.nan, math.inf])
def test_a_loss_is_any_number(loss):
    reading = read_content(content(metrics=MetricRecord({"num-examples": 9, "train-loss": loss})))
    assert repr(reading.loss) == repr(float(loss))


# -- what is not -----------------------------------------------------------------------------------------


def saved(values, **options):
    buffer = BytesIO()
    np.save(buffer, values, **options)
    return buffer.getvalue()


def parameters(data, *, dtype="float32", shape=(5,), stype="numpy.ndarray"):
    arrays = content()["arrays"]
    arrays["parameters"] = Array(dtype, shape, stype, data)
    return arrays


SOUND = saved(UPDATE.vector.numpy())
FIVE = np.arange(5, dtype=np.float32)
BYTES = {
    "cut off": SOUND[:-1],
    "header alone": SOUND[:128],
    "half a header": SOUND[:40],
    "nothing": b"",
    "too long": SOUND + b"\0",
    "another version": SOUND[:6] + b"\x02\x00" + SOUND[8:],
    "a header that reaches beyond the end": SOUND[:8] + b"\xff\xff" + SOUND[10:],
    "a header of no length": SOUND[:8] + b"\0\0" + SOUND[10:],
    "the other byte order": saved(FIVE.astype(">f4")),
    "whole numbers": saved(FIVE.astype(np.int32)),
    "double precision": saved(FIVE.astype(np.float64)),
    "half of it": saved(FIVE[:4]),
    "a matrix": saved(FIVE[None]),
    "a pickle": saved(np.array([{}] * 5, dtype=object), allow_pickle=True),
    "a pickle that says it is numbers": SOUND[:128] + b"\x80\x04c" + 17 * b".",
    "text": saved(np.array(["abcde"])),
    "records": saved(np.zeros(5, dtype=[("a", "<f4")])),
    "a billion numbers": SOUND.replace(b"(5,)", b"(10**9,)"),
    "a zip": b"PK\x03\x04" + SOUND[4:],
    "code in the header": SOUND[:10] + b"__import__('os').abort()".ljust(118) + SOUND[128:],
}


@pytest.mark.parametrize("name", [n for n in BYTES if n != "a pickle that says it is numbers"])
def test_bytes_that_are_not_the_array_s(name, monkeypatch):
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("nothing foreign is decoded by guesswork"))
    assert refusal(content(arrays=parameters(BYTES[name]))).startswith("update ")


def test_bytes_of_the_right_length_are_numbers_whatever_they_were_meant_to_be():
    delta = read_content(
        content(arrays=parameters(BYTES["a pickle that says it is numbers"]))
    ).contribution.delta
    assert bits(delta) == BYTES["a pickle that says it is numbers"][128:]


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ({"shape": (10**18,)}, "update of shape (1000000000000000000,) and 'float32', the model's is (5,)"),
        ({"shape": tuple(range(10**5))}, "update of shape (0, 1, 2, 3, 4, 5, ...) and"),
        ({"shape": ()}, "update of shape () and"),
        ({"shape": (-5,)}, "update of shape (-5,) and"),
        ({"shape": (10**5000,)}, "update of shape (a number of more than 40 digits"),
        ({"dtype": "O"}, "update of shape (5,) and 'O', the model's is (5,) and torch.float32"),
        ({"dtype": 10**6 * "x"}, "update of shape (5,) and 'xxxxxxxx"),
        ({"stype": "pickle"}, "update serialised as 'pickle', must be 'numpy.ndarray'"),
        ({"stype": ""}, "update serialised as ''"),
    ],
)
def test_an_array_that_says_it_is_something_else(told, why):
    assert refusal(content(arrays=parameters(SOUND, **told))).startswith(why)


def test_truth_values_that_are_neither():
    arrays = content()["arrays"]
    data = arrays["buffers/on"].data
    arrays["buffers/on"] = Array("bool", (2,), "numpy.ndarray", data[:-1] + b"\x07")
    assert refusal(content(arrays=arrays)) == "buffer on of booleans that are neither 0 nor 1"


def test_other_arrays_than_the_model_s():
    arrays = content()["arrays"]
    arrays["another"] = arrays["parameters"]
    assert refusal(content(arrays=arrays)).startswith("buffers ['another', 'batches', ")
    del arrays["another"], arrays["buffers/mean"]
    assert refusal(content(arrays=arrays)).startswith(
        "buffers ['batches', 'none', 'on'], the model's are ['batches', "
    )
    assert refusal(content(arrays=ArrayRecord())) == "the answer holds no arrays/parameters"
    assert refusal(content(arrays=MetricRecord())) == "the answer holds no arrays/parameters"
    assert refusal(content(arrays=None)) == "the answer holds no arrays/parameters"


@pytest.mark.parametrize(
    ("metrics", "why"),
    [
        ({}, "num-examples = None, must be a whole number"),
        ({"num-examples": 9.0}, "num-examples = 9.0, must be a whole number"),
        ({"num-examples": [9]}, "num-examples = [9], must be a whole number"),
        ({"num-examples": 0}, "num-examples = 0, must be at least 1"),
        ({"num-examples": -(2**62)}, "num-examples = -4611686018427387904, must be a whole number"),
        ({"num-examples": 2**63}, "num-examples = 9223372036854775808, must be a whole number"),
        ({"num-examples": 2**31}, "num-examples = 2147483648, must be at most 2147483647"),
        ({"num-examples": 10**5000}, "num-examples = a number of more than 40 digits"),
        ({"num-examples": 9, "train-loss": [0.5]}, "train-loss = [0.5], must be a number"),
        ({"num-examples": 9, "train-loss": 10**400}, "train-loss = a number of more than 40 digits"),
    ],
)
def test_numbers_that_are_none(metrics, why):
    assert refusal(content(metrics=MetricRecord(metrics))).startswith(why)


def test_a_truth_value_is_no_number():
    """Flower's records refuse one where it is set; who writes their own wire need not."""
    metrics = MetricRecord({"num-examples": 9})
    metrics.__dict__["_data"]["num-examples"] = True
    assert refusal(content(metrics=metrics)) == "num-examples = True, must be a whole number"


@pytest.mark.parametrize("record", [None, MetricRecord(), ConfigRecord()])
def test_what_does_not_say_what_it_is(record):
    assert refusal(content(work=record)).startswith("not what was asked: the reply ")


@pytest.mark.parametrize("value", ["weights", "", 1, True, b"update", ["update"], 10**5 * "x"])
def test_what_says_that_it_carries_something_else(value):
    work = ConfigRecord({"carries": value, "ran": "train"})
    assert refusal(content(work=work)).startswith("not what was asked: the reply carries ")


def test_a_reply_without_a_word():
    reply = Message(RecordDict(), reply_to=asked())
    reply.__dict__["_content"] = None
    assert read(reply, QUESTION).why == "refused: the reply is empty"


@pytest.mark.parametrize(
    ("metadata", "why"),
    [
        ({"_message_type": "evaluate"}, "a reply to 'evaluate', not to train"),
        ({"_group_id": "1"}, "a reply to another message, not to train"),
        ({"_message_type": "query." + 10**6 * "a"}, "a reply to 'query.aaaaa"),
    ],
)
def test_a_reply_to_something_else(metadata, why):
    reply = Message(content(), reply_to=asked())
    reply.metadata.__dict__.update(metadata)
    reading = read(reply, QUESTION)
    assert reading.contribution is None
    assert reading.why.startswith(f"refused: {why}") and len(reading.why) < 400


@pytest.mark.parametrize(
    ("reason", "why"),
    [
        ("ValueError: no", "ValueError: no"),
        ("", "the node reported an error without a reason"),
        (None, "the node reported an error without a reason"),
        ("\n \n", "the node reported an error without a reason"),
        ("a\x1b[31m\x00b\rc", "a?[31m?b\nc"),
        ("x" * 10**6, "x" * LONGEST_ERROR),
        ("first\nlast", "first\nlast"),
    ],
)
def test_a_node_s_account_of_its_error_is_kept_short_and_printable(reason, why):
    reading = read(Message(Error(0, reason), reply_to=asked()), QUESTION)
    assert (reading.why, reading.error) == (why, True)


def test_what_nobody_has_thought_of_is_the_client_s_failure():
    class Odd(RecordDict):
        def get(self, *_):
            raise RecursionError

    assert refusal(Odd()) == "the reply cannot be read (RecursionError)"


@pytest.mark.parametrize("number", [None, 4, 3.0, [3]])
@pytest.mark.parametrize("like", [LIKE, None])
def test_a_reply_to_another_assignment_than_was_asked(number, like):
    """A client may take part in a round with several parts of its data: each reply says which it is to."""
    question = Question(3, NODE, TRAIN, "2", update_of=like, assigned=True, tally=True)
    tally = {"tally": tally_record(Tally(7, 100.0, 1.0, (7, *19 * [0])))}
    metrics = {"num-examples": 9} if number is None else {"num-examples": 9, "number": number}
    assert refusal(content(metrics=MetricRecord(metrics), **tally), question).startswith(
        f"metrics/number = {number}"
    )
    sound = read_content(content(metrics=MetricRecord({"num-examples": 9, "number": 3}), **tally), question)
    assert sound.why == "" and sound.tally.num_examples == 7


RETURNS = {"head": 3, "seen": 1}
EXTRAS = {"head": torch.linspace(0, 1, 3), "seen": torch.ones(1)}


def extra_content(extras):
    """Return a sound reply's content with these tensors beside the update, as a wire brings them."""
    reply = over_the_wire(Message(RecordDict({"extras": packed(extras)}), reply_to=asked()))
    return content(extras=reply.content["extras"])


@pytest.mark.parametrize("wired", [True, False])
def test_tensors_beside_the_update_are_read_to_the_last_bit(wired):
    found = extra_content(EXTRAS) if wired else content(extras=packed(EXTRAS))
    reading = read_content(found, replace(QUESTION, returns=RETURNS))
    assert reading.why == "" and reading.contribution is not None
    assert {name: bits(t) for name, t in reading.extras.items()} == {
        name: bits(t) for name, t in EXTRAS.items()
    }


def test_extras_that_nobody_asked_for_are_not_looked_at():
    reading = read_content(extra_content({"x": torch.full((2,), math.nan)}))
    assert reading.why == "" and reading.extras == {}


@pytest.mark.parametrize(
    ("extras", "why"),
    [
        ({}, "extras [], the job's are ['head', 'seen']"),
        ({"head": EXTRAS["head"]}, "extras ['head'], the job's are"),
        ({**EXTRAS, "x": torch.ones(1)}, "extras ['head', 'seen', 'x'], the job's are"),
        (
            {**EXTRAS, "head": torch.ones(2)},
            "extra 'head' of shape (2,) and 'float32', the job's is (3,) and torch",
        ),
        ({**EXTRAS, "head": torch.ones(3, 1)}, "extra 'head' of shape (3, 1) and 'float32', the job's is"),
        (
            {**EXTRAS, "seen": torch.ones(1).double()},
            "extra 'seen' of shape (1,) and 'float64', the job's is",
        ),
        ({**EXTRAS, "seen": torch.tensor([math.nan])}, "extra 'seen' holds NaN or Inf"),
        ({**EXTRAS, "seen": torch.tensor([math.inf])}, "extra 'seen' holds NaN or Inf"),
    ],
)
def test_other_tensors_than_were_asked_for_are_refused_in_one_line(extras, why):
    assert refusal(extra_content(extras), replace(QUESTION, returns=RETURNS)).startswith(why)


def test_so_are_none_and_bytes_that_are_no_tensor_s():
    question = replace(QUESTION, returns=RETURNS)
    for found in (content(), content(extras=MetricRecord({"head": 1}))):
        assert refusal(found, question) == "the answer holds no extras, the job's are ['head', 'seen']"
    spoilt = extra_content(EXTRAS)
    head = spoilt["extras"]["head"]
    spoilt["extras"]["head"] = Array(head.dtype, head.shape, head.stype, head.data[:-1])
    assert refusal(spoilt, question).startswith("extra 'head' of ")


def test_whom_a_node_serves_is_a_number():
    question = Question(-1, NODE, TRAIN, "2", client=True)
    assert read_content(RecordDict({"metrics": MetricRecord({"client": 4})}), question).client == 4
    for found in (RecordDict(), RecordDict({"metrics": MetricRecord({"client": [4]})})):
        assert refusal(found, question).startswith("client = ")
    assert refusal(RecordDict({"metrics": ConfigRecord({"client": 4})}), question).startswith("client = None")


# -- whose it is -----------------------------------------------------------------------------------------


def test_each_message_is_answered_once_by_the_node_that_it_went_to():
    ensure_task_identity()
    first, second = Question(0, 2, TRAIN, secret_group(2)), Question(1, 3, TRAIN, secret_group(2))
    sent = Correspondence([(first, RecordDict()), (second, RecordDict())])
    one, other = (stamp(message, f"m{message.metadata.dst_node_id}") for message in sent.messages)
    stranger = Message(RecordDict(), reply_to=stamp(Message(RecordDict(), 9, TRAIN, group_id="2"), "m9"))
    forged = Message(RecordDict(), reply_to=one)
    forged.metadata.__dict__["_src_node_id"] = 3
    unnamed = Message(RecordDict(), reply_to=Message(RecordDict(), 2, TRAIN, group_id="2"))
    for reply in (stranger, forged, unnamed):
        assert sent.question_of(reply) is None
    assert sent.question_of(error_reply(other, "no")) is second
    assert sent.question_of(Message(RecordDict(), reply_to=one)) is first
    for reply in (Message(RecordDict(), reply_to=one), error_reply(other, "no")):
        assert sent.question_of(reply) is None, "a second time"


def test_a_tensor_of_this_process_may_be_anything_too():
    arrays = pack(UPDATE)
    arrays["parameters"] = TensorArray(torch.zeros(4))
    assert refusal(content(arrays=arrays)) == "update of shape (4,), the model's is (5,)"


def test_no_other_node_can_tell_a_message_s_id():
    """It is a hash of the message, which is in all else the same for every client: the secret is in it."""
    ensure_task_identity()
    content = RecordDict({"config": ConfigRecord({"round": 2})})
    ids = set()
    for _ in range(3):
        message = Question(0, 2, TRAIN, secret_group(2)).message(content)
        message.metadata.__dict__["_created_at"] = 1.0
        ids.add(message.object_id)
    assert len(ids) == 3
    assert secret_group(2).startswith("2/") and len(secret_group()) == 1 + 32
