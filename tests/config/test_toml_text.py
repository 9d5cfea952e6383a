"""TOML that is written is the TOML that ``tomllib`` reads."""

from __future__ import annotations

import tomllib
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fedunlearn.config.toml_text import dumps, inline

text = st.text(st.characters(exclude_categories=["Cs"]))
scalars = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    text,
    st.dates(),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)


def same(left: Any, right: Any) -> bool:
    return left == right and repr(left) == repr(right)  # repr tells 1 from 1.0 and 0.0 from -0.0


@given(values)
def test_an_inline_value_reads_back_and_takes_one_line(value: Any) -> None:
    written = inline(value)
    assert len(written.splitlines()) == 1
    assert same(tomllib.loads(f"value = {written}")["value"], value)


@given(st.dictionaries(text, values, max_size=4))
def test_a_document_reads_back(document: dict[str, Any]) -> None:
    assert tomllib.loads(dumps(document)) == document


def test_sections_are_written_as_people_write_them() -> None:
    document = {"train": {"lr": 0.1}, "method": [{"name": "puf"}, {"name": "natural"}], "name": "x"}
    assert dumps(document) == (
        'name = "x"\n\n[train]\nlr = 0.1\n\n[[method]]\nname = "puf"\n\n[[method]]\nname = "natural"\n'
    )
