"""Every command in the README does what it says, in an order a reader would follow."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest

from tests.cli.test_commands import fedunlearn

ROOT = Path(__file__).parents[2]
SHORTER = {"train.rounds=200": "train.rounds=2"}  # a reader needs the time to ask, a test does not
README = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands() -> list[str]:
    lines = [line for block in blocks("console") for line in block.splitlines() if line.startswith("$ ")]
    return [line.removeprefix("$ ").partition(" #")[0].strip() for line in lines]


@pytest.mark.slow
def test_the_readers_own_experiment_and_every_fedunlearn_command(tmp_path: Path) -> None:
    (experiment,) = blocks("toml")
    (tmp_path / "my.toml").write_text(experiment)
    for folder in ("experiments", "sweeps"):
        (tmp_path / folder).symlink_to(ROOT / folder)  # as if started where the README lies
    mine = [shlex.split(c)[1:] for c in commands() if c.startswith("fedunlearn ")]
    assert len(mine) >= 6 and SHORTER.keys() <= {word for words in mine for word in words}
    mine = [[SHORTER.get(word, word) for word in words] for words in mine]
    for arguments in mine:
        expanded = (
            [str(p.relative_to(tmp_path)) for a in arguments for p in tmp_path.glob(a)]
            if "*" in arguments[-1]
            else []
        )
        result = fedunlearn(*(arguments[:-1] + expanded if expanded else arguments), cwd=tmp_path)
        assert result.returncode == 0, f"fedunlearn {' '.join(arguments)}\n{result.stderr}"
        assert result.stdout.strip()


def test_every_make_target_named_is_there() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    named = {shlex.split(c)[1] for c in commands() if c.startswith("make ")} | {"install"}
    assert {"demo", "test"} <= named <= targets


def test_every_link_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)]+)\)", README)
    local = [link for link in links if "://" not in link]
    assert len(local) >= 5
    assert [link for link in local if not (ROOT / link).exists()] == []


def test_the_experiment_shown_names_what_the_demo_has() -> None:
    (experiment,) = blocks("toml")
    shown = tomllib.loads(experiment)
    demo = tomllib.loads((ROOT / "experiments" / "quickstart.toml").read_text())
    assert shown.keys() <= demo.keys() | {"targets"}
