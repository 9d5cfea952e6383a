"""The command line. Imports of torch and Flower wait until a command needs them: ``--help`` is quick."""

from __future__ import annotations

import errno
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn

import typer
from rich.console import Console
from rich.text import Text

from fedunlearn import __version__, terminal
from fedunlearn.cli import certificates, current_folder, deploy, door, live, sweep
from fedunlearn.errors import RunError, UserError
from fedunlearn.home import expanded
from fedunlearn.plurals import counted

app = typer.Typer(
    name="fedunlearn",
    help="Make federated models forget, and prove it against a model retrained without the forgotten data.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)

data = typer.Typer(help="Prepare data.", no_args_is_help=True)
app.add_typer(data, name="data")

ExperimentFile = Annotated[
    Path, typer.Argument(parser=expanded, metavar="FILE", help="An experiment, in TOML.")
]
RunFolder = Annotated[Path, typer.Argument(parser=expanded, metavar="RUN", help="A run directory.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override one key, such as train.lr=0.05; repeatable."),
]
Engine = Annotated[
    str | None,
    typer.Option(
        "--engine", metavar="local|ray|auto", help="Engine to run on, instead of the file's engine.name."
    ),
]
Smoke = Annotated[
    bool,
    typer.Option("--smoke", help="Apply the file's smoke table: a scaled-down version of the experiment."),
]


def _load(file: Path, overrides: list[str] | None, engine: str | None, smoke: bool) -> Any:
    from fedunlearn import config

    current_folder.make_importable()
    sets = [*(overrides or []), *([f"engine.name={engine}"] if engine else [])]
    experiment = config.load(file, overrides=sets, smoke=smoke)
    if any(method.routine is not None for method in experiment.methods):
        from fedunlearn.config.source import origin_of
        from fedunlearn.federation.hosted_routine import check_routines

        check_routines(experiment, origin_of(file, sets, smoke=smoke))
        if experiment.smoke:  # refused now, not on the day somebody needs it
            check_routines(config.load(file, smoke=True), origin_of(file, smoke=True))
    return experiment


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"fedunlearn {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Options before the command."""


@app.command()
def run(
    file: ExperimentFile,
    overrides: Overrides = None,
    out: Annotated[Path, typer.Option(parser=expanded, metavar="DIR", help="Folder for runs.")] = Path(
        "runs"
    ),
    engine: Engine = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an unfinished run.")] = False,
    fresh: Annotated[
        bool,
        typer.Option(
            "--fresh", help="Delete this experiment's run and start over; refused if it has live requests."
        ),
    ] = False,
    smoke: Smoke = False,
    key: Annotated[
        Path | None,
        typer.Option(
            parser=expanded,
            metavar="FILE",
            help="Signing key of a live federation; default: $FEDUNLEARN_SIGNING_KEY.",
        ),
    ] = None,
) -> None:
    """Run an experiment: train, forget, recover, compare with retraining, and write a report.

    An experiment with \\[requests] is a live federation, which takes forget requests while it runs.
    """
    if resume and fresh:
        raise UserError("--resume and --fresh: choose one; --resume continues the run, --fresh deletes it")
    experiment = _load(file, overrides, engine, smoke)

    from flwr.common.logger import update_console_handler

    from fedunlearn.live.local import run_live
    from fedunlearn.simulation.progress import progress_for
    from fedunlearn.simulation.runner import simulate

    update_console_handler(colored=sys.stderr.isatty())
    console = terminal.console()
    progress = progress_for(console)
    try:
        if experiment.live:
            folder = run_live(experiment, out=out, resume=resume, fresh=fresh, progress=progress, key=key)
        else:
            folder = simulate(experiment, out=out, resume=resume, fresh=fresh, progress=progress)
    except KeyboardInterrupt:
        progress.close()
        words = [shlex.quote(word) for word in sys.argv[1:] if word not in ("--resume", "--fresh")]
        terminal.say(console, f"stopped; continue with: fedunlearn {' '.join(words)} --resume")
        raise typer.Exit(1) from None
    finally:
        progress.close()
    if experiment.live:
        terminal.say(console, f"run: {terminal.shown(folder)}")
    elif _show(folder, console):
        raise typer.Exit(1)


@app.command()
def check(
    file: ExperimentFile, overrides: Overrides = None, engine: Engine = None, smoke: Smoke = False
) -> None:
    """Show what an experiment would do and cost, without running it."""
    experiment = _load(file, overrides, engine, smoke)

    from fedunlearn.simulation.forecast import forecast, show

    show(forecast(experiment), terminal.console())


@app.command()
def report(
    folder: RunFolder,
    figure: Annotated[
        Path | None,
        typer.Option(parser=expanded, metavar="FILE", help="Also write the first chart as an SVG file."),
    ] = None,
) -> None:
    """Rewrite a finished run's scorecard and report, and show the scorecard."""
    if figure is not None:
        from fedunlearn.report.figure import write_figure

        write_figure(_finished(folder), figure)
    _show(_finished(folder), terminal.console())


@app.command()
def compare(
    folders: Annotated[
        list[Path], typer.Argument(parser=expanded, metavar="RUN...", help="Run directories.")
    ],
    centralised: Annotated[
        bool,
        typer.Option("--centralised", help="Show UA, RA, TA, MIA-efficacy, Average Gap, ToW and run time."),
    ] = False,
) -> None:
    """Show several finished runs side by side."""
    from fedunlearn.report.run_files import with_setting
    from fedunlearn.report.tables import centralised_tables, comparison_table
    from fedunlearn.simulation.runner import read_scorecard

    cards = [with_setting(read_scorecard(_finished(folder)), folder) for folder in folders]
    table = centralised_tables(cards) if centralised else comparison_table(cards)
    terminal.show(terminal.console(), table)


@app.command("list")
def list_(
    what: Annotated[
        Literal["models", "data", "strategies", "routines", "tasks", "metrics"],
        typer.Argument(help="What to list."),
    ],
) -> None:
    """List the available models, data sources and partitions, strategies, local routines, tasks or metrics."""
    from fedunlearn.cli.listing import catalogue

    console = terminal.console()
    for name, text in catalogue(what):
        console.print(Text.assemble((name, "bold"), f"  {text}"), soft_wrap=True)


@data.command()
def phantom(
    out: Annotated[
        Path, typer.Option(parser=expanded, metavar="DIR", help="Folder to write to: new or empty.")
    ],
    cases: Annotated[int, typer.Option(metavar="N", help="Cases per site.")],
    seed: Annotated[int, typer.Option(help="Seed of the patients; the same seed gives the same bytes.")] = 0,
    size: Annotated[
        int, typer.Option(metavar="PIXELS", help="In-plane matrix size of the largest site.")
    ] = 320,
) -> None:
    """Write a six-site set of synthetic prostate MRI, in the layout of the public data."""
    from rich.progress import Progress

    from fedunlearn.data.phantom import SITES, write_phantoms

    console = terminal.console()
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bars:
        task = bars.add_task("", total=cases * len(SITES))

        def done(site: str, case: int) -> None:
            bars.update(task, advance=1, description=site)
            if case == cases - 1:
                console.print(f"{site}: {counted(cases, 'case')}")

        try:
            write_phantoms(out, cases=cases, seed=seed, size=size, done=done)
        except KeyboardInterrupt:
            bars.stop()
            terminal.say(
                console, f"stopped; {terminal.shown(out)} is incomplete: delete it before you start again"
            )
            raise typer.Exit(1) from None
    terminal.say(console, f"phantoms: {terminal.shown(out)}")


@data.command()
def augmentations(
    file: ExperimentFile,
    out: Annotated[Path, typer.Option(parser=expanded, metavar="FILE", help="PNG to write.")],
    overrides: Overrides = None,
    smoke: Smoke = False,
) -> None:
    """Draw an experiment's training images as they are, and under every augmentation policy.

    Policies come after the file's data.augmentation, or after crop-flip if it has none. Crop-flip mirrors images: for
    digits use --set data.augmentation=crop.
    """
    experiment = _load(file, overrides, None, smoke)

    from fedunlearn.simulation.augmented import draw_augmentations

    draw_augmentations(experiment, out)
    terminal.say(terminal.console(), f"picture: {terminal.shown(out)}")


def _show(folder: Path, console: Console) -> bool:
    """Write what people read of a finished run, and show the scorecard; return whether any forgetting failed."""
    from fedunlearn.report.page import write_report
    from fedunlearn.report.run_files import with_setting
    from fedunlearn.report.scores import Scores
    from fedunlearn.report.tables import markdown, scorecard_table
    from fedunlearn.simulation.runner import read_scorecard
    from fedunlearn.text_files import write_text

    card = with_setting(read_scorecard(folder), folder)
    try:
        write_text(folder / "scorecard.md", markdown(card))
        where = terminal.shown(write_report(folder))
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES):
            raise
        where = f"not written, {terminal.shown(folder)} is read-only here"
    terminal.show(console, scorecard_table(card))
    failures = Scores(card).failures()
    for label, reasons in failures.items():
        for why in reasons:
            terminal.say(console, f"{label}: forgetting {why}")
    terminal.say(console, f"report: {where}")
    return bool(failures)


def _finished(folder: Path) -> Path:
    if not (folder / "scorecard.json").is_file():
        experiment = folder / "experiment.toml"
        if experiment.is_file() and _is_live(experiment):
            raise UserError(
                f"{folder}: live runs have no scorecard; see `fedunlearn requests {folder}` and its certificates"
            )
        raise UserError(
            f"{folder}: holds no scorecard.json; name the directory of a finished run, "
            "such as runs/quickstart-1a2b3c4d"
        )
    return folder


def _is_live(experiment: Path) -> bool:
    from fedunlearn import config

    return config.load(experiment).live


deploy.register(app, data)
door.register(app)
live.register(app)
sweep.register(app)
certificates.register(app)


def main() -> None:
    """Entry point: exit code 0 done, 2 the user's input is wrong (one line), 1 the run failed."""
    terminal.prepare()
    try:
        try:
            app()
        finally:
            terminal.finish()
    except UserError as error:
        _end(2, f"error: {error}")
    except OSError as error:  # such as a full disk: nothing that the input could have got right
        _end(1, f"failed: {error.filename or 'a file'}: {error.strerror or error}")
    except RunError as error:
        _end(1, f"failed: {error}")


def _end(code: int, message: str) -> NoReturn:
    print(terminal.one_line(message), file=sys.stderr)
    raise SystemExit(code) from None


if __name__ == "__main__":
    main()
