"""The commands and settings that the pages name are there."""

import re
import tomllib
from pathlib import Path

import pytest
from flwr.common.config import parse_config_args
from typer.main import get_command

from fedunlearn.cli.main import app

ROOT = Path(__file__).parents[2]
DEPLOYMENT = (ROOT / "docs" / "deployment.md").read_text()
CONFIG = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["config"]


@pytest.mark.parametrize("page", ["README.md", "docs/deployment.md"])
def test_every_command_has_the_options_that_a_page_gives_it(page):
    text = (ROOT / page).read_text().replace("\\\n", " ")
    spans = re.findall(r"`(fedunlearn [^`]+)`|^(?:\$ )?(fedunlearn .*)$", text, flags=re.MULTILINE)
    named = [(inline or line).partition(" #")[0].split()[1:] for inline, line in spans]
    named = [words for words in named if words[0] != "COMMAND"]
    assert named, "nothing was found to check"
    for words in named:
        found = get_command(app)
        while hasattr(found, "commands") and words:
            assert words[0] in found.commands, words
            found, words = found.commands[words[0]], words[1:]
        options = {option for one in found.params for option in (*one.opts, *one.secondary_opts)}
        assert {word for word in words if re.match("--[a-z]", word)} <= options, (found.name, words)


def test_the_table_of_run_config_keys_is_whole():
    (table,) = re.findall(r"^\| run-config key .*\n(?:\|.*\n)+", DEPLOYMENT, flags=re.MULTILINE)
    assert re.findall(r"^\| `([a-z-]+)` \|", table, flags=re.MULTILINE) == list(CONFIG)


def test_flower_can_read_the_run_configs_shown():
    shown = re.findall(r"--run-config '([^']+)'", DEPLOYMENT)
    assert len(shown) >= 2
    for text in shown:
        settings = parse_config_args([text])
        assert settings.keys() <= CONFIG.keys() and len(settings) == text.count("="), text
        assert (ROOT / str(settings["experiment"])).is_file()
