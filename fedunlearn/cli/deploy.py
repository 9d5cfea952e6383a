"""Commands of a deployment: data for its parties, and the supervisor of a live federation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from fedunlearn.cli import current_folder
from fedunlearn.errors import UserError
from fedunlearn.home import expanded, user_folder
from fedunlearn.text_files import resolved


def register(app: typer.Typer, data: typer.Typer) -> None:
    """Add the commands to the command line, ``export`` to the ones that prepare data."""
    data.command()(export)
    app.command()(supervise)


def export(
    file: Annotated[Path, typer.Argument(parser=expanded, metavar="FILE", help="An experiment, in TOML.")],
    out: Annotated[
        Path, typer.Option(parser=expanded, metavar="DIR", help="Folder to write to: new or empty.")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Override one key, such as data.alpha=0.1; repeatable."
        ),
    ] = None,
) -> None:
    """Write each client's data, and the server's validation data, as files for a deployment.

    They are the data of the experiment's first seed, bit for bit.
    """
    from fedunlearn import config, workspace
    from fedunlearn.data.export import export as write

    current_folder.make_importable()
    experiment = config.load(file, overrides=overrides or ())
    data = workspace.data_of(experiment, experiment.seeds[0])
    write(data, out, done=lambda path: typer.echo(path))


def supervise(
    folder: Annotated[
        Path,
        typer.Option(
            parser=expanded,
            metavar="RUN",
            help="The run directory on this machine, which the run's server uses too.",
        ),
    ],
    app: Annotated[Path, typer.Option(parser=expanded, metavar="DIR", help="Folder of the app.")] = Path(),
    superlink: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Connection in Flower's config.toml, if not its default."),
    ] = None,
    federation: Annotated[
        str | None, typer.Option(metavar="@ACCOUNT/NAME", help="Federation, if the SuperLink has several.")
    ] = None,
    run_config: Annotated[
        list[str] | None,
        typer.Option(
            "--run-config", "-c", metavar="'KEY=VALUE …'", help="Passed on to flwr run; repeatable."
        ),
    ] = None,
    poll: Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help="How often to check.")] = 5.0,
    dead_after: Annotated[
        float,
        typer.Option(min=20.0, metavar="SECONDS", help="Silence after which a server is considered dead."),
    ] = 30.0,
    until_done: Annotated[
        bool, typer.Option("--until-done", help="Stop once the run is complete and no request is open.")
    ] = False,
) -> None:
    """Keep a live federation running: submit its run, watch it, and submit it again when needed.

    It is submitted again when it has died, and when a forget request arrives after its end. The run directory is
    passed on as the run config's [bold]folder[/].
    """
    if user_folder("FLWR_HOME", "~/.flwr") is None:
        raise UserError("there is no home folder for Flower's settings; set HOME or FLWR_HOME")

    import time

    from fedunlearn.deployment.superlink import FlowerSuperLink
    from fedunlearn.deployment.supervise import Supervisor

    def say(line: str) -> None:
        typer.echo(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}")

    place = resolved(folder)
    _agree_on_folder(run_config or [], place)
    link = FlowerSuperLink(
        superlink,
        app=resolved(app),
        run_config=[*(run_config or []), f"folder={json.dumps(str(place))}"],
        federation=federation,
    )
    try:
        Supervisor(link, place, dead_after=dead_after, say=say).watch(poll, until_done=until_done)
    except KeyboardInterrupt:
        say("stopped; the run goes on without a supervisor")
    finally:
        link.close()


def _agree_on_folder(run_config: list[str], place: Path) -> None:
    """Refuse a run config that sends the server to another folder than the one that is watched."""
    import click
    from flwr.common.config import parse_config_args

    try:
        # Beside another setting, as they are submitted: Flower takes a TOML file only alone.
        named = parse_config_args([*run_config, "beside=1"]).get("folder")
    except (ValueError, click.ClickException) as error:
        raise UserError(f"--run-config: cannot be read ({error})") from None
    if named not in (None, "") and resolved(expanded(str(named))) != place:
        raise UserError(f'--run-config folder="{named}": differs from --folder {place}; leave it out')
