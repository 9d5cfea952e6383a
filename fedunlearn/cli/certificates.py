"""Commands of the trail: make a signing key, and check certificates and whole runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from fedunlearn.errors import UserError
from fedunlearn.home import expanded

PublicKeyFiles = Annotated[
    list[Path] | None,
    typer.Option(
        "--public-key",
        parser=expanded,
        metavar="FILE",
        help="Public key that must have signed it, from a source you trust; repeat if keys have changed.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add ``keys new`` and ``verify``."""
    keys = typer.Typer(help="Keys that sign the trail and certificates.", no_args_is_help=True)
    app.add_typer(keys, name="keys")
    keys.command("new")(new)
    keys.callback()(_keys)  # a group of one command is a group all the same
    app.command()(verify)


def _keys() -> None:
    """Keys that sign the trail and certificates."""


def new(
    file: Annotated[
        Path,
        typer.Argument(parser=expanded, metavar="FILE", help="Where to write it: outside any run directory."),
    ],
) -> None:
    """Make a signing key: FILE (keep it secret) and FILE.pub (hand it out)."""
    from fedunlearn.certificates.keys import new_key

    key = new_key(file)
    typer.echo(f"key {key.key_id}: {file} is private, {file}.pub is for those who check certificates")


def verify(
    place: Annotated[
        Path,
        typer.Argument(
            parser=expanded, metavar="RUN|CERTIFICATE", help="A run directory, or one certificate."
        ),
    ],
    public_keys: PublicKeyFiles = None,
    heads: Annotated[
        list[str] | None,
        typer.Option(
            "--head",
            metavar="ENTRY:HASH",
            help="A head kept elsewhere, such as a receipt's, that the trail must contain; repeatable.",
        ),
    ] = None,
) -> None:
    """Check a run or a certificate without writing anything; exit 1 if a check fails.

    It checks signatures, trail, settings, checkpoints, certificates and their pages, and lists what is not covered.
    Failed checks come last.
    """
    if place.parts[:1] in (("http:",), ("https:",)):
        raise UserError(
            f"{place}: is not a path; verify a run on its own machine, and a certificate once downloaded"
        )

    from fedunlearn.certificates.keys import PublicKey
    from fedunlearn.certificates.verification import verify as check
    from fedunlearn.requests.chain import Head

    findings = check(
        place,
        public_keys=[PublicKey.load(file) for file in public_keys or ()],
        heads=[Head.parse(text) for text in heads or ()],
    )
    for finding in sorted(findings, key=lambda finding: finding.holds is False):
        mark = {True: "ok ", False: "BAD", None: "-  "}[finding.holds]
        typer.echo(f"{mark} {finding.text}")
    if bad := sum(finding.holds is False for finding in findings):
        typer.echo(f"{bad} of {len(findings)} checks failed", err=True)
        raise typer.Exit(1)
