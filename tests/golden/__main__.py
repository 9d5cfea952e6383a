"""Pin what may not change: the weights, trails and scores of every shipped experiment.

    python -m tests.golden record [NAME ...]       # run them and write what they end in to tests/golden/recorded
    python -m tests.golden compare FOLDER NAME     # compare a finished run with what is recorded under a name

A name is ``smoke/…`` or ``full/…`` with an experiment's path under ``experiments``: ``smoke/puf/prostate-unet``,
``full/quickstart``. Without a name everything is recorded: the smoke of each experiment, quickstart and timeline in
full. ``tests/e2e/test_smokes.py`` and ``tests/golden/test_full_runs.py`` compare.

When it is right to record anew:

- a change is *meant* to change these weights, scores or costs. It says so in its commit, with the reason, and the
  recording is part of that commit; the lines that differ show that nothing else has changed;
- an experiment, method or measure was added: only what is new differs;
- the torch build, the type of processor or a library that scores (scikit-learn, SciPy, MONAI) is another one. Record
  on the commit that was recorded last, and compare later ones with that.

It is never right because of a refactoring: what was moved, renamed or made faster ends in the same bits, or it is
wrong. Where a run's folder is laid out in another way, `tests.golden.reading.read` is changed, and no recording.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

from fedunlearn.errors import UserError
from tests.golden.reading import read
from tests.golden.recording import RECORDED, Recording, differences, elsewhere, fingerprint
from tests.golden.running import names, run


def main() -> int:
    """Do what the command line asks for; return 1 if a run is not as it should be."""
    parser = argparse.ArgumentParser(prog="python -m tests.golden", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    record = commands.add_parser("record", help="write the recording anew")
    record.add_argument("names", nargs="*", metavar="NAME", help="such as full/quickstart; default: all")
    record.add_argument("--into", type=Path, default=RECORDED, help="folder of recordings")
    record.add_argument("--workers", type=int, help="of the engine; no result depends on their number")
    record.set_defaults(do=_record)
    compare = commands.add_parser("compare", help="compare a finished run")
    compare.add_argument("folder", type=Path, metavar="FOLDER", help="its run directory")
    compare.add_argument("name", choices=names(), metavar="NAME", help="of what is recorded")
    compare.set_defaults(do=_compare)
    asked = parser.parse_args()
    if unknown := set(getattr(asked, "names", ())) - set(names()):
        record.error(f"{min(unknown)}: must be one of {', '.join(names())}")
    try:
        return int(asked.do(asked))
    except (AssertionError, OSError, UserError) as error:  # what was asked for cannot be done: no traceback
        print(error, file=sys.stderr)
        return 1


def _record(asked: argparse.Namespace) -> int:
    overrides = [] if asked.workers is None else [f"engine.workers={asked.workers}"]
    with tempfile.TemporaryDirectory(prefix="golden-") as scratch:
        os.environ["XDG_CACHE_HOME"] = scratch  # nothing that other code has prepared
        for name in asked.names or names():
            begun = time.monotonic()
            with tempfile.TemporaryDirectory(dir=scratch) as folder:
                facts = read(run(name, Path(folder), *overrides))
            if bad := [text for text, verdict in facts["verified"].items() if verdict == "BAD"]:
                print(f"{name}: not recorded, `fedunlearn verify` finds it BAD:", *bad, sep="\n")
                return 1
            Recording(fingerprint(), facts).save(name, asked.into)
            print(f"{name}: {time.monotonic() - begun:.0f} s", flush=True)
    return 0


def _compare(asked: argparse.Namespace) -> int:
    recording = Recording.load(asked.name)
    if why := elsewhere(recording.fingerprint, fingerprint()):
        print(why, file=sys.stderr)
    found = differences(recording.facts, read(asked.folder))
    print(*(found or ["as recorded"]), sep="\n")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
