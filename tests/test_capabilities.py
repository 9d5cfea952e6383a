"""``make test`` runs every capability once from end to end, whatever else is left to ``make rest``."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
CAPABILITIES = {
    "simulation": "an experiment from its file to its report, by the command line",
    "routine": "clients run a routine to forget, in a simulation and asked live, to the same weights",
    "golden": "a shipped experiment ends in the weights and scores that were recorded",
    "kill": "a run killed with SIGKILL is resumed and ends in the same bytes",
    "ray": "clients train on Ray's actors, to the bits of the local engine",
    "flower": "Flower's ServerApp and ClientApp, to the bytes of the simulation",
    "live": "a live federation is asked to forget, does so and issues a certificate",
    "door": "a door in a process of its own takes a request",
    "certificate": "a certificate that nobody touched is verified, and one that was is found",
    "sweep": "settings of a method are searched, chosen and written",
    "plug-in": "a package of somebody else's brings strategy, data, model and metric",
}
LEFT_OUT = {"slow", "containers"}


def marks_of(path: Path) -> dict[str, tuple[set[str], set[str]]]:
    """Return the capabilities and the other marks of a module's tests, its own included, by name."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    own = [
        n.value for n in tree.body if isinstance(n, ast.Assign) and ast.unparse(n.targets[0]) == "pytestmark"
    ]
    found = {}
    for test in (node for node in tree.body if isinstance(node, ast.FunctionDef)):
        marks = [node for place in (*own, *test.decorator_list) for node in ast.walk(place)]
        names = {node.attr for node in marks if isinstance(node, ast.Attribute)}
        named = [
            n for n in marks if isinstance(n, ast.Call) and ast.unparse(n.func) == "pytest.mark.capability"
        ]
        found[test.name] = {ast.literal_eval(call.args[0]) for call in named}, names
    return found


def test_each_capability_has_a_test_and_make_test_runs_it() -> None:
    shown: set[str] = set()
    for path in TESTS.rglob("test_*.py"):
        for test, (capabilities, marks) in marks_of(path).items():
            if capabilities:
                assert not marks & LEFT_OUT, f"{test} shows {capabilities}, and `make test` leaves it out"
                shown |= capabilities
    assert shown == CAPABILITIES.keys()


@pytest.mark.parametrize("left_out", sorted(LEFT_OUT))
def test_marks_are_found_wherever_they_stand(left_out: str, tmp_path: Path) -> None:
    module = tmp_path / "test_it.py"
    shows = '@pytest.mark.capability("door")\n'
    for text in (
        f"{shows}@pytest.mark.{left_out}\ndef test_it(): ...",
        f"pytestmark = [pytest.mark.{left_out}]\n{shows}def test_it(): ...",
        f'{shows}@pytest.mark.parametrize("n", [pytest.param(1, marks=pytest.mark.{left_out})])\ndef test_it(n): ...',
    ):
        module.write_text(text, encoding="utf-8")
        capabilities, marks = marks_of(module)["test_it"]
        assert capabilities == {"door"} and left_out in marks
    module.write_text(f"{shows}def test_it(): ...", encoding="utf-8")
    assert marks_of(module)["test_it"] == ({"door"}, {"mark", "capability"})
