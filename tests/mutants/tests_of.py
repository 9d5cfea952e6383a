"""Which tests are run for a mutant: those that run its line, the nearest and quickest first, while there is time."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import coverage

SOURCE_READERS = ("tests/test_frozen.py", "tests/test_styles.py")
"""Tests that read the program itself: they run none of its lines, and any change may be one that they see."""
OF_ALL_FILES = "tests/test_"
"""How the tests begin that lie directly in ``tests``."""


@dataclass(frozen=True)
class Trace:
    """What a run of the tests has shown.

    Attributes
    ----------
    lines : dict
        File, from the root → line → tests that run it.
    seconds : dict
        Test that passed → how long it takes.
    added : frozenset of str
        Tests that are there now and were not when the trace was made.
    """

    lines: dict[str, dict[int, frozenset[str]]]
    seconds: dict[str, float]
    added: frozenset[str] = frozenset()

    @classmethod
    def read(cls, folder: Path, root: Path, present: frozenset[str]) -> Trace:
        """Read what the plugin in ``trace.py`` has written; tests that are not ``present`` any more are left out."""
        lines: dict[str, dict[int, set[str]]] = defaultdict(lambda: defaultdict(set))
        ran: dict[str, float | None] = {}
        for path in sorted(folder.glob("*.json")):
            ran |= json.loads(path.read_text(encoding="utf-8"))
        seconds = {test: took for test, took in ran.items() if took is not None and test in present}
        for path in sorted(folder.glob("*.coverage")):
            data = coverage.CoverageData(str(path))
            data.read()
            for file in data.measured_files():
                name = Path(file).relative_to(root).as_posix()
                for line, tests in data.contexts_by_lineno(file).items():
                    lines[name][line].update(tests)
        return cls(
            {
                file: {n: frozenset(t for t in tests if t in seconds) for n, tests in of.items()}
                for file, of in lines.items()
            },
            seconds,
            present - ran.keys(),
        )

    def chosen(self, file: str, line: int, budget: float) -> list[str]:
        """Return the tests for a change in a line, those of the folder that mirrors its own first.

        Last come those that read the program, whatever the budget. A line that no test runs, because it runs when its
        file is imported or in another process, may be noticed by any test of the file, by those of the mirroring
        folder, which look at what lies there without running it, and by those that hold for all files. Of tests added
        since the trace it is not known what they run: those of the mirroring folder are run as well, first.
        """
        of = self.lines.get(file, {})
        near = _mirror(file)
        tests: Iterable[str] = of.get(line, ())
        if not tests:
            tests = set().union(*of.values(), (t for t in self.seconds if t.startswith((near, OF_ALL_FILES))))
        ordered = sorted(
            tests,
            key=lambda test: (
                not test.startswith(near),
                not test.startswith(OF_ALL_FILES),
                self.seconds[test],
                test,
            ),
        )
        taken, spent = [], 0.0
        for test in ordered:
            spent += self.seconds[test] + 0.005  # what pytest itself takes
            if spent > budget:
                break
            taken.append(test)
        return [*sorted(test for test in self.added if test.startswith(near)), *taken, *SOURCE_READERS]


def _mirror(file: str) -> str:
    parts = PurePosixPath(file).parts
    folder = parts[1:-1] if parts[0] == "fedunlearn" else parts[:-1]
    return "/".join(("tests", *folder)) + "/" if folder else OF_ALL_FILES
