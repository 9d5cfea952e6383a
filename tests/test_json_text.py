"""One reader of JSON: it reads what Python wrote, and refuses in one line what says nothing or two things."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedunlearn.errors import UserError
from fedunlearn.json_text import DEEPEST, JsonError, loads, loads_object

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**64) + 1, 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=30,
)


@given(VALUES, st.booleans())
def test_what_python_writes_is_read_back(value: Any, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    for form in (text, text.encode(), "\ufeff" + text, b"\xef\xbb\xbf" + text.encode()):
        found = loads(form, "here")
        assert found == value and json.dumps(found) == json.dumps(value)


def nested(depth: int, opening: str = "[", closing: str = "]") -> str:
    return opening * depth + "0" + closing * depth


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "line 1 column 1"),
        ("{torn", "line 1 column 2"),
        ('{"a": 1', "line 1 column 8"),
        ('{"a": 1}}', "Extra data"),
        ('{"a": 1, "b": {"c": 1, "c": 1}}', "the key 'c' appears twice"),
        ('{"' + "k" * 99 + '": 1, "' + "k" * 99 + '": 2}', "kkkk…kkkk"),
        ("[NaN]", "NaN is not a number"),
        ("[-Infinity]", "-Infinity is not a number"),
        ("[1e999]", "'1e999' is not finite"),
        (f"[{'9' * 400}.0]", "is not finite"),
        (f"[{2**64}]", "'18446744073709551616' is beyond 64 bits"),
        (f"[-{2**64}]", "beyond 64 bits"),
        (f"[{'7' * 5000}]", "beyond 64 bits"),
        (nested(DEEPEST + 1), f"nested deeper than {DEEPEST}"),
        (nested(DEEPEST + 1, '{"a":', "}"), f"nested deeper than {DEEPEST}"),
        ("[" * 100_000, "nested deeper"),
        (nested(100_000), "nested deeper"),
        (nested(100_000, '{"a":', "}"), "nested deeper"),
        (r'["\ud800"]', "surrogate"),
        (r'{"\udc00": 1}', "surrogate"),
        (b'["\xff"]', "byte 2 is not UTF-8"),
        (b'["\xed\xa0\x80"]', "byte 2 is not UTF-8"),
        ("[1]".encode("utf-16"), "byte 0 is not UTF-8"),
        (b"\x00\x00", "line 1 column 1"),
    ],
    ids=lambda value: repr(value)[:24],
)
def test_what_says_nothing_or_two_things_is_refused_in_one_line(text: str | bytes, says: str) -> None:
    with pytest.raises(JsonError) as caught:
        loads(text, "runs/a/x.json")
    message = str(caught.value)
    assert message.startswith("runs/a/x.json: ") and says in message
    assert "\n" not in message and len(message) < 200


def test_it_is_a_users_error_and_what_readers_of_json_catch() -> None:
    assert issubclass(JsonError, UserError) and issubclass(JsonError, ValueError)


@pytest.mark.parametrize(
    "value",
    [
        json.loads(nested(DEEPEST)),
        2**64 - 1,
        1 - 2**64,
        [[]] * 500,
        {"a": "[" * 500},
        ["\U0001f600"],
        "0" * 400,
    ],
    ids=lambda value: repr(value)[:16],
)
def test_what_only_looks_too_much_is_read(value: Any) -> None:
    assert loads(json.dumps(value), "here") == value


def test_numbers_that_are_not_finite_are_read_where_they_are_allowed() -> None:
    found = loads("[NaN, Infinity, -Infinity, 1e999]", "here", allow_nan=True)
    assert math.isnan(found[0]) and found[1:] == [math.inf, -math.inf, math.inf]
    with pytest.raises(JsonError, match="appears twice"):
        loads('{"a": NaN, "a": NaN}', "here", allow_nan=True)


@pytest.mark.parametrize(
    ("text", "kind"),
    [("[]", "a list"), ("null", "null"), ("true", "true"), ('"x"', "a text"), ("7", "a number")],
)
def test_what_is_no_object_is_named(text: str, kind: str) -> None:
    assert loads_object("{}", "here") == {}
    with pytest.raises(JsonError, match=f"^here: is {kind}, but must be a JSON object {{…}}$"):
        loads_object(text, "here")
