"""A link that leads to itself is one line wherever a path is followed, and no traceback."""

from typer.testing import CliRunner

from fedunlearn.cli.main import app
from fedunlearn.errors import UserError
from fedunlearn.text_files import resolved, write_text


def test_a_link_that_leads_to_itself_is_replaced_by_what_is_written(tmp_path):
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    assert resolved(loop).name == "loop"
    write_text(loop, "text")
    assert loop.read_text(encoding="utf-8") == "text"


def test_commands_that_follow_it_say_what_is_wrong(tmp_path):
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for words in (["verify", str(loop)], ["report", str(loop)], ["forget", str(loop), "--client", "1"]):
        result = CliRunner().invoke(app, words)
        assert isinstance(result.exception, SystemExit | UserError), words
        assert result.exit_code != 0
