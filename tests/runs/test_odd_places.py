"""A run may lie under any name: every command finds it there."""

import pytest

from tests.live.test_local import LIVE
from tests.runs.damage import say

NAMES = [
    "[test]",
    ":cat:",
    "a?b",
    "a#b",
    "100%41",
    " a b ",
    "two\nlines",
    "-dash",
    "é→",
    "~",
    "x:y",
    "'q\"",
    "y" * 240,
]


@pytest.mark.quick(name=3)
@pytest.mark.capability("certificate")
@pytest.mark.parametrize("name", NAMES, ids=lambda name: ascii(name[:10]))
def test_a_live_federation_is_served_asked_and_verified_wherever_it_lies(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "live.toml").write_text(LIVE, encoding="utf-8")
    out = tmp_path / name
    begin = ("run", "live.toml", "--out", out)
    assert say(begin).code == 0
    (run,) = out.glob("live-*")
    for words in (
        ("forget", run, "--client", "1"),
        ("requests", run, "--verify"),
        (*begin, "--resume"),
        ("requests", run, "--verify"),
        ("verify", run),
    ):
        said = say(words)
        assert (said.code, said.escaped) == (0, None), (words, said.err)
    assert "forgotten" in say(("requests", run)).out
    assert {path.name for path in tmp_path.iterdir()} == {"live.toml", name}
