"""Change the program in small ways and see whether a test notices.

    python -m tests.mutants trace     # which test runs which line: one run of the tests, about an hour
    python -m tests.mutants run       # a seeded sample of changes, each against tests that run its line; resumable
    python -m tests.mutants report    # the share that was noticed, and what was not

``run`` takes up where it was stopped. A change that alters nothing anybody could see is no fault of the tests: such
survivors are judged in ``judged.json``, each with a reason, and do not count.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

from tests.mutants.operators import Mutant, mutants_of
from tests.mutants.run import Bench, import_heavy
from tests.mutants.tests_of import Trace

ROOT = Path(__file__).parents[2]
JUDGED = Path(__file__).with_name("judged.json")
PACKAGES = ("fedunlearn",)
QUICK = (
    *("-m", "not containers"),  # what is slow beside others may be quick enough for one change
    *(
        "--ignore=tests/containers",
        "--ignore=tests/e2e",
        "--ignore=tests/faults",
        "--ignore=tests/deployment",
    ),
    *("--ignore=tests/scale", "--ignore=tests/benchmarks", "--deselect=tests/mutants"),
)
"""Tests that are traced: quick, and in one process. The others start programs that nobody watches."""


def main() -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("trace", "run", "report"))
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "mutants", help="where results are kept")
    parser.add_argument("--count", type=int, default=200, help="how many changes are tried")
    parser.add_argument("--seed", type=int, default=1, help="of the sample")
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="of tests per change, by their usual times"
    )
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--only", default="", help="changes in files whose path begins so")
    parser.add_argument("--again", action="store_true", help="try those again that were not noticed")
    asked = parser.parse_args()
    asked.out = asked.out.resolve()
    asked.out.mkdir(parents=True, exist_ok=True)
    if asked.what == "trace":
        trace(asked.out, asked.jobs)
    elif asked.what == "run":
        run(asked.out, sample(asked.count, asked.seed, asked.only), asked.seconds, asked.jobs, asked.again)
    else:
        sys.exit(report(asked.out))


def trace(out: Path, jobs: int) -> None:
    """Run the quick tests, where changes are tried later, and note what those run that pass there."""
    folder = out / "trace"
    folder.mkdir(exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    bench = Bench.copied(ROOT, out / "bench-0")
    words = [sys.executable, "-m", "pytest", "-p", "tests.mutants.trace", "-n", str(jobs), *QUICK]
    environment = {**os.environ, "FEDUNLEARN_TRACE": str(folder), "OMP_NUM_THREADS": "1"}
    environment["PYTHONPATH"] = str(bench.root)
    subprocess.run(words, cwd=bench.root, env=environment, check=False)


def sample(count: int, seed: int, only: str) -> list[tuple[str, Mutant]]:
    """Return changes drawn by seed: lines with equal chances, then one of a line's changes."""
    lines: dict[tuple[str, int], list[Mutant]] = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            file = path.relative_to(ROOT).as_posix()
            if file.startswith(only):
                for mutant in mutants_of(path.read_text(encoding="utf-8")):
                    lines.setdefault((file, mutant.line), []).append(mutant)
    generator = random.Random(seed)
    chosen = generator.sample(sorted(lines), min(count, len(lines)))
    return [(file, generator.choice(lines[file, line])) for file, line in chosen]


def run(out: Path, chosen: list[tuple[str, Mutant]], seconds: float, jobs: int, again: bool) -> None:
    """Try every change that has not been tried, or not been noticed if ``again``, in as many processes as asked."""
    import_heavy()
    present = Bench.copied(ROOT, out / "bench-0").present(QUICK)
    traced = Trace.read(out / "trace", out / "bench-0", present)
    if not traced.seconds:
        sys.exit("no test is traced that is there now: python -m tests.mutants trace")
    done = {entry["change"] for entry in results(out) if not again or entry["outcome"] == "killed"}
    left = [(file, mutant) for file, mutant in chosen if describe(file, mutant)["change"] not in done]
    print(
        f"{len(chosen)} changes, {len(chosen) - len(left)} tried before; {len(traced.seconds)} tests traced, "
        f"{len(traced.added)} added since",
        flush=True,
    )
    children = []
    for job in range(jobs):
        child = os.fork()
        if child == 0:
            bench = Bench.copied(ROOT, out / f"bench-{job}")
            for file, mutant in left[job::jobs]:
                one(out, bench, traced, file, mutant, seconds)
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)


def one(out: Path, bench: Bench, traced: Trace, file: str, mutant: Mutant, seconds: float) -> None:
    """Try one change and write down what became of it."""
    program = mutant.applied_to((ROOT / file).read_text(encoding="utf-8"))
    tests = traced.chosen(file, mutant.line, seconds)
    began = time.monotonic()
    outcome, said = bench.try_out(file, program, tests, 3 * seconds + 60)
    took = round(time.monotonic() - began, 1)
    entry = {**describe(file, mutant), "outcome": outcome, "tests": len(tests), "seconds": took, "said": said}
    with (out / "results.jsonl").open("a", encoding="utf-8") as log:
        log.write(json.dumps(entry) + "\n")
    print(f"{outcome:9} {took:6.1f} s  {entry['change']}", flush=True)


def describe(file: str, mutant: Mutant) -> dict[str, str]:
    """Return what identifies a change however far its line has moved: the file and the line before and after."""
    source = (ROOT / file).read_text(encoding="utf-8")
    before = source.splitlines()[mutant.line - 1].strip()
    after = mutant.applied_to(source).splitlines()[mutant.line - 1].strip()
    return {"change": f"{file}: {before}  →  {after}", "place": f"{file}:{mutant.line}", "kind": mutant.kind}


def results(out: Path) -> list[dict[str, str]]:
    """Return what has been tried."""
    path = out / "results.jsonl"
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def report(out: Path) -> int:
    """Print the share that was noticed, and every change that was not; return 1 if it is under 95 %."""
    judged = json.loads(JUDGED.read_text(encoding="utf-8"))
    tried = list({entry["change"]: entry for entry in results(out)}.values())
    survivors = [entry for entry in tried if entry["outcome"] != "killed"]
    equal = [entry for entry in survivors if judged.get(entry["change"], {}).get("verdict") == "equivalent"]
    for entry in survivors:
        verdict = judged.get(entry["change"], {"verdict": "not judged", "why": entry["outcome"]})
        print(
            f"{entry['place']} ({entry['kind']}): {entry['change']}\n    {verdict['verdict']}: {verdict['why']}"
        )
    counted = len(tried) - len(equal)
    killed = len(tried) - len(survivors)
    late = sum(entry["said"] == "out of time" for entry in tried)
    share = killed / counted if counted else 0.0
    print(
        f"{len(tried)} changes: {killed} noticed ({late} by running out of time), {len(survivors)} not, of which "
        f"{len(equal)} change nothing: "
        f"{100 * share:.1f} % of {counted}"
    )
    return int(share < 0.95)


if __name__ == "__main__":
    main()
