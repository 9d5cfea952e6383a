"""The arrows between the rooms: what must work where neither Flower nor Ray is installed."""

import ast
import importlib
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

BLOCKED = """
import sys
import tomllib

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("flwr", "ray"):
            raise ModuleNotFoundError(f"{name} is blocked", name=name)

sys.meta_path.insert(0, Block())
try:
    import flwr
except ModuleNotFoundError:
    pass
else:
    raise AssertionError("the block does not block")
"""


def run(code: str) -> None:
    subprocess.run([sys.executable, "-c", BLOCKED + code], check=True, timeout=120)


def test_the_library_imports_without_flower_and_ray() -> None:
    run(
        "import fedunlearn.unlearning, fedunlearn.evaluation, fedunlearn.models\n"
        "import fedunlearn.training, fedunlearn.data\n"
        "import fedunlearn.evaluation.measures, fedunlearn.evaluation.scorecard, fedunlearn.evaluation.outputs\n"
        "import fedunlearn.config, fedunlearn.report.page, fedunlearn.report.tables, fedunlearn.requests\n"
    )


@pytest.mark.slow
def test_a_client_trains_and_is_measured_without_flower_and_ray() -> None:
    run(
        """
from fedunlearn import config, workspace
from fedunlearn.evaluation.evidence import Evidence
from fedunlearn.evaluation.measures import measure
from fedunlearn.evaluation.metrics import computed
from fedunlearn.evaluation.outputs import collect
from fedunlearn.randomness import torch_generator
from fedunlearn.training import train_local

experiment = config.loads('''
name = "alone"
targets = [[0]]
data = {source = "synthetic-images", num-train = 100, num-test = 40, partition = "iid"}
model = {name = "mlp"}
train = {rounds = 1, lr = 0.1}
federation = {num-clients = 2}
method = [{name = "puf", scale = 7.5, mode = "regular"}, {name = "natural"}]
''')
written = config.to_toml(experiment)  # what nobody here can read stays as it is
assert "scale = 7.5" in written and config.loads(written) == experiment
data = workspace.data_of(experiment, seed=1)
model = workspace.new_model(experiment, data, seed=1)
before = model.vector.clone()
train_local(model, *data.client(0), experiment.train, lr=0.1, generator=torch_generator(1, "batches", 1, 0))
assert not before.equal(model.vector)
outputs = collect(model.module, data)
evidence = Evidence(outputs, forget=data.indices_of([0]), retain=data.all_but([0]), seed=1)
found = measure(evidence, computed(data.task).values())
assert 0 <= found["forget_accuracy"] <= 100
"""
    )


def lists() -> dict[str, list[str]]:
    """Return module → what it lists in ``__all__``."""
    found = {}
    for path in sorted(
        file for package in ("fedunlearn", "strategies", "clients") for file in (ROOT / package).rglob("*.py")
    ):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
                name = path.relative_to(ROOT).with_suffix("").as_posix().replace("/", ".")
                found[name.removesuffix(".__init__")] = ast.literal_eval(node.value)
    return found


@pytest.mark.parametrize(("module", "names"), lists().items(), ids=lists())
def test_what_a_module_lists_can_be_imported_from_it(module: str, names: list[str]) -> None:
    assert len(set(names)) == len(names)
    assert [name for name in names if not hasattr(importlib.import_module(module), name)] == []


ARROWS = [
    ("fedunlearn/requests/ledger.py", "import fedunlearn.certificates.issuer", "Rooms"),
    ("fedunlearn/server/plan.py", "import fedunlearn.live.hooks", "Rooms"),
    ("fedunlearn/training/losses.py", "import fedunlearn.federation.sums", "Rooms"),
    (
        "fedunlearn/models/mlp.py",
        "import ray",
        "Models, training, unlearning and evaluation run without Flower and Ray",
    ),
    ("fedunlearn/server/plan.py", "import fedunlearn.server.loop", "No circles"),
]


@pytest.mark.parametrize(("file", "planted", "contract"), ARROWS, ids=lambda given: given.split()[-1])
def test_the_linter_notices_an_arrow_that_points_the_other_way(
    file: str, planted: str, contract: str, tmp_path: Path
) -> None:
    shutil.copytree(
        ROOT / "fedunlearn", tmp_path / "fedunlearn", ignore=shutil.ignore_patterns("__pycache__")
    )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    path = tmp_path / file
    path.write_text(path.read_text(encoding="utf-8") + f"\n\n{planted}  # noqa\n", encoding="utf-8")
    lint = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    found = subprocess.run(
        [sys.executable, "-c", lint, "--no-cache"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
    )
    assert found.returncode == 1, found.stdout + found.stderr
    assert f"{contract} BROKEN" in found.stdout


def test_the_picture_of_the_rooms_is_what_the_linter_holds() -> None:
    lint = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    (layers,) = (c["layers"] for c in lint["contracts"] if c["name"] == "Rooms")
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    picture = page.split("```")[1].strip().splitlines()
    assert [re.split(r"\s{2,}", line)[0] for line in picture] == layers
