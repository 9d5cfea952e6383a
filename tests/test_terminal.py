"""What the command line writes arrives: at any width, in any encoding, whatever paths hold, or else on stderr."""

import io
import os
import re
import shlex
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console
from rich.table import Table

from fedunlearn import terminal
from fedunlearn.cli.main import main
from fedunlearn.deployment.roster import Roster, token_hash
from fedunlearn.report.tables import centralised_tables, comparison_table, scorecard_table
from fedunlearn.requests import Ledger
from fedunlearn.simulation.progress import LiveProgress, PlainProgress, progress_for
from tests.door.served import Place, place
from tests.e2e.tiny import TINY, run, tiny
from tests.report.example_run import ExampleRun

ROOT = Path(__file__).resolve().parents[1]
BAD_SIZES = ["0", "00", "-5", "+80", "1.5", "abc", "", " ", "²", "٣", "1" * 5000, "10000", "1000000000"]
SIZES = [*BAD_SIZES, "1", "39", "120", "9999"]
NAMES = [
    "[test]",
    "[bold red]x",
    ":cat:",
    "a b ",
    " a",
    "tab\there",
    "two\nlines",
    "it's\n",
    "-dash",
    "é",
    "x" * 200,
]


@pytest.fixture
def at(tmp_path: Path) -> Place:
    return place(tmp_path)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Run a command as the entry point does, in this process; return its exit code."""

    def run(*words: object) -> int:
        monkeypatch.setattr(sys, "argv", ["fedunlearn", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0)

    return run


def asked(at: Place) -> list[str]:
    with Ledger(at.folder / "requests.sqlite") as ledger:
        return [request.id for request in ledger.requests("federation")]


@pytest.mark.parametrize("columns", SIZES)
def test_a_receipt_is_whole_at_any_width(columns, at, command, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", columns)
    assert command("forget", at.folder, "--client", 3) == 0
    first, head, *_ = capsys.readouterr().out.splitlines()
    (request,) = asked(at)
    assert first == f"request {request}: received"
    assert re.fullmatch(r"head \d+:[0-9a-f]{64} \(keep it: .*\)", head)


@pytest.mark.parametrize("columns", SIZES)
def test_a_table_shows_its_cells_at_any_width(columns, at, command, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "100")
    assert command("forget", at.folder, "--client", 3) == 0
    capsys.readouterr()
    monkeypatch.setenv("COLUMNS", columns)
    assert command("requests", at.folder) == 0
    out = capsys.readouterr().out
    assert asked(at)[0] in out and "received" in out
    assert max(map(len, out.splitlines())) < 200


def numbers_of(text: str) -> Counter[str]:
    return Counter(word for word in text.split() if re.fullmatch(r"\(?[0-9][0-9.,]*(±[0-9.]+)?\)?", word))


@pytest.mark.parametrize("columns", ["1", "20", "39", "80"])
@pytest.mark.parametrize("terminal_like", ["0", "1"])
def test_a_narrow_terminal_cuts_no_number_and_leaves_out_no_column(columns, terminal_like, monkeypatch):
    card = ExampleRun(name="study", seeds=(1, 2), targets=((0,), (2,))).card("study")
    monkeypatch.setenv("TTY_COMPATIBLE", terminal_like)
    monkeypatch.setenv("NO_COLOR", "1")
    for build in (
        scorecard_table,
        lambda card: comparison_table([card]),
        lambda card: centralised_tables([card] * 2),
    ):
        shown = []
        for width in ("250", columns):
            monkeypatch.setenv("COLUMNS", width)
            console = terminal.console()
            console.file = io.StringIO()
            terminal.show(console, build(card))
            shown.append(re.sub(r"\x1b\[[0-9;]*m", "", console.file.getvalue()))
        wide, narrow = shown
        assert numbers_of(wide) and not numbers_of(wide) - numbers_of(narrow)
        assert "…" not in narrow
        heads = {word for line in wide.splitlines()[:5] for word in line.split() if word.isalpha()}
        assert heads <= set(narrow.split())
        assert max(map(len, narrow.splitlines())) <= (90 if columns == "80" else 100)


def test_ids_too_long_for_100_columns_are_folded_and_numbers_beside_them_whole():
    console = Console(file=io.StringIO(), width=20)
    table = Table("epochs")
    table.add_column("request", overflow="fold")
    table.add_row("1,234,567.8±9.1", "r" * 150)
    terminal.show(console, table)
    shown = console.file.getvalue()
    assert "1,234,567.8±9.1" in shown and shown.count("r") == 150 + 1  # of the heading
    assert max(map(len, shown.splitlines())) <= 100


def test_compare_shows_whole_numbers_on_a_narrow_terminal(finished, command, monkeypatch, capsys):
    shown = []
    for columns in ("200", "20"):
        monkeypatch.setenv("COLUMNS", columns)
        assert command("compare", finished) == 0
        shown.append(capsys.readouterr().out)
    assert "…" not in shown[1] and not numbers_of(shown[0]) - numbers_of(shown[1])


def test_requests_show_every_column_on_a_narrow_terminal(at, command, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "20")
    assert command("forget", at.folder, "--client", 3) == 0
    capsys.readouterr()
    assert command("requests", at.folder) == 0
    words = capsys.readouterr().out.split()
    assert {"request", "clients", "unlearned", "state", "ended", "received", *asked(at)} <= set(words)


@pytest.mark.parametrize("columns", BAD_SIZES)
@pytest.mark.parametrize("terminal_like", [False, True])
def test_without_a_width_it_is_100_columns_and_never_none(columns, terminal_like, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("LINES", columns)
    monkeypatch.setenv("TTY_COMPATIBLE", str(int(terminal_like)))
    console = terminal.console()
    assert console.is_terminal == terminal_like
    assert console.width == (80 if terminal_like else 100) and console.size.height > 0


@pytest.mark.parametrize("columns", ["0", "-1", "²", "1000000000"])
def test_help_and_usage_errors_are_shown_at_any_width(columns):
    environment = os.environ | {"COLUMNS": columns, "TERMINAL_WIDTH": columns}
    for words, expected in ((["--help"], "Show the version"), (["list", "[nothing]"], "[nothing]")):
        done = subprocess.run(
            [sys.executable, "-m", "fedunlearn.cli", *words], env=environment, capture_output=True, text=True
        )
        assert expected in done.stdout + done.stderr and len(done.stdout) < 20_000


@pytest.mark.parametrize(
    "variable", [{"NO_COLOR": "1"}, {"TERM": "dumb"}, {"TERM": "unknown"}, {"FORCE_COLOR": "1"}]
)
def test_colours_change_no_receipt(variable, at, command, monkeypatch, capsys):
    for name, value in variable.items():
        monkeypatch.setenv(name, value)
    assert command("forget", at.folder, "--client", 3) == 0
    assert capsys.readouterr().out.startswith(f"request {asked(at)[0]}: received\nhead ")


def stream(encoding: str) -> tuple[io.BytesIO, io.TextIOWrapper]:
    raw = io.BytesIO()
    return raw, io.TextIOWrapper(raw, encoding=encoding, errors="strict", write_through=True)


@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "cp1252", "utf-8"])
def test_what_the_encoding_lacks_is_replaced_and_bytes_of_a_name_stay(encoding, monkeypatch):
    raw, out = stream(encoding)
    monkeypatch.setattr(sys, "stdout", out)
    terminal.prepare()
    terminal.say(terminal.console(), "0.9 → é " + os.fsdecode(b"\xff.toml"))
    known = "0.9 → é ".encode(encoding, "replace")
    assert raw.getvalue() == known + b"\xff.toml\n"


TWICE = """
import sys
from pathlib import Path
from fedunlearn.cli.main import main
for words in (["run", "x.toml"], ["report", "--figure", "figure.svg"]):
    sys.argv = ["fedunlearn", *words, *map(str, Path("runs").glob("tiny-*"))]
    try:
        main()
    except SystemExit as ended:
        assert not ended.code
"""


@pytest.mark.slow
def test_a_run_ends_well_in_any_locale_and_its_files_are_utf_8(tmp_path):
    (tmp_path / "x.toml").write_text(TINY + "# → é", encoding="utf-8")
    poor = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "latin-1"}
    done = subprocess.run(
        [sys.executable, "-c", TWICE],
        cwd=tmp_path,
        env=os.environ | poor | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"\nreport: runs/tiny-" in done.stdout and "±".encode("latin-1") in done.stdout
    (folder,) = (tmp_path / "runs").glob("tiny-*")
    for file in (folder / "scorecard.md", folder / "report.html", tmp_path / "figure.svg"):
        assert not file.read_bytes().decode("utf-8").isascii()
    ElementTree.parse(tmp_path / "figure.svg")


@pytest.mark.slow
@pytest.mark.parametrize("closed", ["full", "closed", "pipe"])
def test_a_receipt_that_stdout_does_not_take_is_on_stderr(closed, at):
    command = shlex.join([sys.executable, "-m", "fedunlearn.cli", "forget", str(at.folder), "--client", "3"])
    to = {"full": "> /dev/full", "closed": ">&-", "pipe": "| true"}[closed]
    done = subprocess.run(["bash", "-c", f"set -o pipefail; {command} {to}"], capture_output=True, text=True)
    (request,) = asked(at)
    if closed == "pipe" and done.returncode == 0:
        pytest.skip("the reader took it before it went")
    assert f"request {request}: received\nhead " in done.stderr
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
    assert done.returncode == (0 if closed == "closed" else 1)


@pytest.mark.parametrize("closed", ["full", "closed"])
@pytest.mark.parametrize("words", ["add-client {} --number 9", "add-operator {} bob", "rotate {} client:3"])
def test_a_token_that_stdout_does_not_take_is_on_stderr_and_opens(words, closed, at):
    """The roster keeps its hash alone: were the token lost, nobody could ask."""
    before = set(Roster.load(at.roster).entries)
    command = shlex.join([sys.executable, "-m", "fedunlearn.cli", "roster"])
    to = {"full": "> /dev/full", "closed": ">&-"}[closed]
    whole = f"{command} {words.format(shlex.quote(str(at.roster)))} {to}"
    done = subprocess.run(["bash", "-c", whole], capture_output=True, text=True)
    token, note, *rest = done.stderr.splitlines()
    ((_, entry),) = set(Roster.load(at.roster).entries) - before
    assert entry.token_sha256 == token_hash(token)
    assert note == "This token is shown once and not stored; hand it over privately."
    assert done.returncode == (0 if closed == "closed" else 1)
    assert all(line.startswith("failed: ") for line in rest) and len(rest) == done.returncode


@pytest.mark.slow
def test_a_table_that_stdout_does_not_take_is_one_line(at):
    command = shlex.join([sys.executable, "-m", "fedunlearn.cli", "list", "models"])
    done = subprocess.run(["bash", "-c", f"{command} > /dev/full"], capture_output=True, text=True)
    assert done.returncode == 1
    assert re.fullmatch(r"failed: .*: No space left on device\n", done.stderr)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    return run(tiny(), tmp_path_factory.mktemp("runs"))


@pytest.mark.slow
@pytest.mark.parametrize("name", [*NAMES, os.fsdecode(b"\xff\xfe")], ids=ascii)
def test_a_path_that_is_printed_exists(name, finished, command, tmp_path, monkeypatch):
    place = tmp_path / name
    place.mkdir()
    folder = finished.rename(place / "run")
    raw, out = stream("utf-8")
    monkeypatch.setattr(sys, "stdout", out)
    try:
        assert command("report", folder) == 0
        line = raw.getvalue().splitlines()[-1]
        assert line.startswith(b"report: ")
        printed = line.removeprefix(b"report: ")
        if printed.startswith(b"$'"):
            printed = subprocess.check_output(["bash", "-c", b"printf %s " + printed])
        assert Path(os.fsdecode(printed)) == folder / "report.html" and (folder / "report.html").is_file()
    finally:
        folder.rename(finished)


@pytest.mark.parametrize("name", ["[test]", "[/nothing]", ":cat:", "two\nlines"])
def test_a_path_in_an_error_is_on_its_one_line(name, command, capsys, tmp_path):
    assert command("report", tmp_path / name) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and name.replace("\n", r"\n") in error


def test_nothing_in_tables_or_progress_is_markup(monkeypatch):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    found = terminal.console()
    found.file = io.StringIO()
    table = Table("[red]head", title="[bold]title :cat:")
    table.add_row("[/] cell :cat:")
    found.print(table, "[link=x] printed :cat:")
    said = re.sub(r"\x1b\[[0-9;]*m", "", found.file.getvalue())
    for text in ("[red]head", "[bold]title :cat:", "[/] cell :cat:", "[link=x] printed :cat:"):
        assert text in said


def test_one_line_leaves_nothing_that_commands_a_terminal():
    assert terminal.one_line("a\nb\x1b[2J\x9bc d\u2028é") == r"a\nb\x1b[2J\x9bc d\u2028é"


def test_a_dumb_terminal_has_plain_lines(monkeypatch):
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setenv("TERM", "dumb")
    assert isinstance(progress_for(terminal.console()), PlainProgress)
    monkeypatch.setenv("TERM", "xterm")
    assert isinstance(progress_for(terminal.console()), LiveProgress)
