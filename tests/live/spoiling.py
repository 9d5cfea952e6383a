"""Replies of a SuperNode that has got out of hand: a sound one, spoilt in one of many ways, drawn by a seed."""

from __future__ import annotations

import pickle
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import numpy as np
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.proto.message_pb2 import ObjectTree
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

from tests.federation.superlink import Uploaded

DTYPES = ["float32", "float64", "float16", ">f4", "<f8", "int8", "int64", "bool", "O", "<U5", "|S4", "V8", "bfloat16",
          "complex64", "datetime64[s]", "", "float32 ", "f", "np.float32", "\x00", "Ω"]  # fmt: skip
SHAPES: list[tuple[int, ...]] = [(), (0,), (1,), (4,), (6,), (5, 1), (1, 5), (-1,), (-5,), (2**31,), (2**62,), (0, 5),
                                 (10**9, 10**9), tuple([1] * 70), (5, 0)]  # fmt: skip
NUMBERS: list[Any] = [0, 1, -1, 2, 7, 2**31 - 1, 2**31, 2**53, 2**62, -(2**63), 2**63 - 1, 0.0, -0.0, 0.5, 1e-320,
                      1e308, -1e308, float("nan"), float("inf"), -float("inf"), 3.0, [], [1], [0.5, 0.5], [1] * 20,
                      [0.0] * 20, [2**62] * 20, [-1] * 20, [5, *[0] * 19], [1] * 21, [1] * 5000]  # fmt: skip
WORDS: list[Any] = ["", "train", "update", "weights", "Update", "train.forget", '{"name": "fine-tune"}', 0, 1, True,
                    False, 0.5, b"", b"update", [], ["update"], [1.5], "x" * 5000, "a\nb\x1b[31m", "Ω"]  # fmt: skip
REASONS = ["", "no", "out of memory", "CUDA out of memory. Tried", "x" * 100_000, "a\x1b[2J\x00", "holds NaN or Inf",
           "refused: holds NaN or Inf", "refused: not what was asked", "Traceback\n" * 500, "Ω\u202e"]  # fmt: skip
VALUES = [float("nan"), float("inf"), -float("inf"), 3.4e38, -3.4e38, 1e30, 1e-45, 0.0, 1e6, -1.0]


def saved(values: Any, **options: Any) -> bytes:
    """Return what np.save makes of values."""
    buffer = BytesIO()
    np.save(buffer, values, **options)
    return buffer.getvalue()


def zipped(values: Any) -> bytes:
    buffer = BytesIO()
    np.savez(buffer, a=values)
    return buffer.getvalue()


@dataclass
class Spoiler:
    """Spoils some of the replies that a SuperLink gets.

    Attributes
    ----------
    spoilt : dict
        (kind, round, node) → how; of every reply to training, at the last time it was sent.
    uploaded : dict
        The same, of all replies to training, spoilt or not.
    counts : Counter
        How often each way was drawn, over all kinds of replies.
    """

    seed: int
    share: float = 0.5
    spoilt: dict[tuple[str, str, int], str] = field(default_factory=dict)
    uploaded: dict[tuple[str, str, int], Uploaded] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.ways = [self.records, self.records, self.records, self.objects, self.announced]

    def __call__(self, message: Message, uploaded: Uploaded) -> None:
        round = message.metadata.group_id.split("/")[0]
        key = (message.metadata.message_type, round, message.metadata.dst_node_id)
        self.spoilt.pop(key, None)
        # Who does not say whom it serves takes no part at all, and would spoil nothing more.
        share = self.share / 10 if message.metadata.message_type == "query" else self.share
        if self.rng.random() < share:
            how = self.rng.choice(self.ways)(message, uploaded)
            self.counts[how] += 1
            self.spoilt[key] = how
        self.uploaded[key] = uploaded

    # -- what a reply says -----------------------------------------------------------------------------------

    def records(self, message: Message, uploaded: Uploaded) -> str:
        """Change what the reply holds, and upload it as Flower does."""
        reply = inflate_object_from_contents(uploaded.proto.metadata.message_id, dict(uploaded.objects))
        assert isinstance(reply, Message)
        while True:
            change = self.rng.choice(
                [
                    self._array,
                    self._array,
                    self._array,
                    self._number,
                    self._number,
                    self._record,
                    self._whole,
                    self._self,
                ]
            )
            try:
                how, changed = change(message, reply)
                made = Uploaded.of(changed)
                break
            except (ValueError, TypeError, KeyError, IndexError, OverflowError):
                # Flower cannot send that: another.
                reply = inflate_object_from_contents(
                    uploaded.proto.metadata.message_id, dict(uploaded.objects)
                )
                assert isinstance(reply, Message)
        own = uploaded.proto.metadata
        uploaded.tree, uploaded.objects = made.tree, made.objects
        metadata = type(own)()
        metadata.CopyFrom(own)
        metadata.message_id = made.proto.metadata.message_id
        made.proto.metadata.CopyFrom(metadata)  # the SuperLink knows to what and from whom it is
        uploaded.proto = made.proto
        return how

    def _array(self, message: Message, reply: Message) -> tuple[str, Message]:
        rng = self.rng
        record = rng.choice([record for record in reply.content.values() if isinstance(record, ArrayRecord)])
        key = rng.choice(list(record))
        old = record[key]
        values = old.numpy()
        dtype, shape, stype, data = old.dtype, old.shape, old.stype, old.data
        what = rng.choice(
            ["dtype", "shape", "stype", "bytes", "bytes", "bytes", "values", "values", "keys", "both"]
        )
        if what == "dtype":
            dtype = rng.choice(DTYPES)
        elif what == "shape":
            shape = rng.choice(SHAPES)
        elif what == "stype":
            stype = rng.choice(["", "pickle", "numpy.ndarray ", "torch", "\x00"])
        elif what == "bytes":
            return f"array: {self._bytes_of(record, key, values, data)}", reply
        elif what == "values":
            changed = (
                np.full_like(values, rng.choice(VALUES)) if values.dtype.kind == "f" else values[..., None]
            )
            if values.dtype.kind == "f" and rng.random() < 0.5 and values.size:
                changed = values.copy()
                changed[rng.randrange(values.size)] = rng.choice(VALUES)
            data = saved(changed)
        elif what == "both":
            other = np.zeros(
                rng.choice([s for s in SHAPES if s and max(s) < 100 and min(s) >= 0]),
                rng.choice(["f4", "f8", "i8"]),
            )
            dtype, shape, data = str(other.dtype), other.shape, saved(other)
        else:
            return f"keys: {self._keys(record, key)}", reply
        record[key] = Array(dtype, shape, stype, data)
        return f"array: {what}", reply

    def _bytes_of(self, record: ArrayRecord, key: str, values: Any, data: bytes) -> str:
        rng = self.rng
        ways: dict[str, Callable[[], bytes]] = {
            "cut off": lambda: data[: rng.randrange(len(data))],
            "longer": lambda: data + rng.randbytes(rng.choice([1, 3, 100, 100_000])),
            "garbage": lambda: rng.randbytes(rng.choice([0, 1, 10, len(data)])),
            "bits of the header": lambda: _flipped(rng, data, 0, 128),
            "bits of the values": lambda: _flipped(rng, data, 128, len(data)),
            "bits": lambda: _flipped(rng, data, 0, len(data)),
            "another dtype": lambda: saved(
                values.astype(rng.choice(["f8", ">f4", "i4", "c8", "f2", "?", "S3"]))
            ),
            "another shape": lambda: saved(values.reshape(-1, 1)),
            "another order": lambda: saved(np.asfortranarray(values)),
            "a pickle": lambda: pickle.dumps(values),
            "objects": lambda: saved(np.array([values, None], dtype=object), allow_pickle=True),
            "a zip": lambda: zipped(values),
            "a huge header": lambda: data[:10] + data[10:128].replace(b"(", b"(10**9,", 1) + data[128:],
            "code": lambda: data[:10] + b"__import__('os').abort()".ljust(117) + b"\n" + data[128:],
        }
        how = rng.choice(list(ways))
        old = record[key]
        record[key] = Array(old.dtype, old.shape, old.stype, ways[how]())
        return how

    def _keys(self, record: ArrayRecord, key: str) -> str:
        rng = self.rng
        how = rng.choice(["without", "renamed", "another", "swapped", "none"])
        if how == "none":
            for name in list(record):
                del record[name]
        elif how == "another":
            record[rng.choice(["extra", "buffers/extra", "", "buffers/"])] = record[key]
        elif how == "swapped":
            other = rng.choice(list(record))
            record[key], record[other] = record[other], record[key]
        else:
            if how == "renamed":
                record[rng.choice(["Parameters", "buffers/parameters", "x" * 1000, "\x00"])] = record[key]
            del record[key]
        return how

    def _number(self, message: Message, reply: Message) -> tuple[str, Message]:
        rng = self.rng
        some = [(n, r) for n, r in reply.content.items() if isinstance(r, MetricRecord | ConfigRecord)]
        name, record = rng.choice(some)
        key = rng.choice([*record, "another"])
        if rng.random() < 0.15:
            del record[key]
            return f"{name}: without {key}", reply
        record[key] = rng.choice(NUMBERS if isinstance(record, MetricRecord) else WORDS)
        return f"{name}: {key}", reply

    def _record(self, message: Message, reply: Message) -> tuple[str, Message]:
        rng = self.rng
        content = reply.content
        name = rng.choice(list(content))
        how = rng.choice(["without", "renamed", "another type", "one more", "swapped"])
        if how == "another type":
            kinds = [
                ArrayRecord(),
                MetricRecord({"a": 1}),
                ConfigRecord({"a": "b"}),
                MetricRecord(),
                ConfigRecord(),
            ]
            content[name] = rng.choice(kinds)
        elif how == "one more":
            content[rng.choice(["more", "tally", "config", ""])] = rng.choice(
                [MetricRecord({"a": 1}), ConfigRecord()]
            )
        elif how == "swapped":
            other = rng.choice(list(content))
            content[name], content[other] = content[other], content[name]
        else:
            if how == "renamed":
                content[name + "s"] = content[name]
            del content[name]
        return f"record: {how}", reply

    def _whole(self, message: Message, reply: Message) -> tuple[str, Message]:
        rng = self.rng
        how = rng.choice(["error", "error", "empty", "echo"])
        if how == "error":
            return "whole: error", Message(
                Error(rng.choice([0, 1, 2, 255, 2**31 - 1]), rng.choice(REASONS)), reply_to=message
            )
        if how == "empty":
            return "whole: empty", Message(RecordDict(), reply_to=message)
        echo = RecordDict(dict(message.content.items()))
        return "whole: echo", Message(echo, reply_to=message)

    def _self(self, message: Message, reply: Message) -> tuple[str, Message]:
        """Say something else of itself than the SuperLink knows: nobody looks at that."""
        rng = self.rng
        reply.metadata.__dict__.update(
            rng.choice(
                [
                    {"_src_node_id": rng.choice([0, 1, 2, 3, 99])},
                    {"_reply_to_message_id": f"message {rng.randrange(20)}"},
                    {"_group_id": "999"},
                    {"_message_type": rng.choice(["train", "evaluate", "query", "train.other"])},
                    {"_ttl": -1.0},
                    {"_created_at": float("nan")},
                    {"_run_id": 77},
                ]
            )
        )
        return "itself", reply

    # -- its bytes -------------------------------------------------------------------------------------------

    def objects(self, message: Message, uploaded: Uploaded) -> str:
        """Change bytes of one of the objects that the reply is uploaded in."""
        rng = self.rng
        name = rng.choice(list(uploaded.objects))
        content = uploaded.objects[name]
        assert content is not None
        kind = content.split(b" ", 1)[0].decode()
        how = rng.choice(["bits", "cut off", "longer", "garbage", "another's", "body", "nested", "empty"])
        body_at = content.index(b"\x00") + 1
        changed = {
            "bits": lambda: _flipped(rng, content, 0, len(content)),
            "cut off": lambda: content[: rng.randrange(len(content))],
            "longer": lambda: content + rng.randbytes(rng.choice([1, 9, 3_000_000])),
            "garbage": lambda: rng.randbytes(len(content)),
            "another's": lambda: rng.choice(list(uploaded.objects.values())),
            "body": lambda: (
                content[:body_at]
                + _flipped(rng, content[body_at:] or b"\x00", 0, len(content) - body_at or 1)
            ),
            "nested": lambda: content[:body_at] + rng.choice([b"[", b'{"a":', b"\x0a"]) * 50_000,
            "empty": lambda: b"",
        }[how]()
        uploaded.objects[name] = changed
        return f"object {kind}: {how}"

    def announced(self, message: Message, uploaded: Uploaded) -> str:
        """Announce other objects than are uploaded, or what the SuperLink passes on unread."""
        rng = self.rng
        how = rng.choice(["never uploaded", "gone", "extra", "no tree", "type", "group", "id", "ttl"])
        name = rng.choice(list(uploaded.objects))
        if how == "never uploaded":
            uploaded.objects[name] = None
        elif how == "gone":
            del uploaded.objects[name]
        elif how == "extra":
            uploaded.tree.children.append(ObjectTree(object_id=rng.choice(["", "x", name])))
        elif how == "no tree":
            uploaded.tree = ObjectTree()
        elif how == "type":
            uploaded.proto.metadata.message_type = rng.choice(
                ["evaluate", "train.other", "nonsense", "", "query"]
            )
        elif how == "group":
            uploaded.proto.metadata.group_id = rng.choice(["", "999", "x" * 10_000])
        elif how == "id":
            uploaded.proto.metadata.message_id = rng.choice([name, "", "x"])
        else:
            uploaded.proto.metadata.ttl = rng.choice([0.0, -1.0, float("nan"), 1e300])
        return f"announced: {how}"


def _flipped(rng: random.Random, data: bytes, start: int, stop: int) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 8])):
        changed[rng.randrange(start, min(stop, len(data)))] ^= 1 << rng.randrange(8)
    return bytes(changed)
