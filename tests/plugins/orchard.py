"""A package outside the repository, as somebody else would write it: one file per kind of component."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path

from fedunlearn import plugins
from fedunlearn.evaluation import metric as metrics
from fedunlearn.simulation import source_hash

FILES = {
    "orchard/__init__.py": "",
    "orchard/damped.py": '''"""Damped forgetting: a client's update is taken back by a share."""

from dataclasses import dataclass

from fedunlearn.config.conditions import Share
from fedunlearn.config.settings import Settings
from fedunlearn.federation.sums import BlockSum
from fedunlearn.server.plan import RoundPlan
from fedunlearn.strategies.base import UnlearningStrategy

from .steps import SIGN


@dataclass(frozen=True)
class DampedSettings(Settings):
    rate: Share = 0.5


class Damped(UnlearningStrategy):
    """A client's update is taken back by a share of it."""

    settings_type = DampedSettings
    steps = 0

    def plan(self, situation):
        if not situation.to_forget:
            return situation.fedavg()
        return RoundPlan(situation.round, (), situation.to_forget)

    def combine(self, round):
        self.steps += 1
        if not round.forgets:
            return round.fedavg()
        gone = BlockSum.of(round.forgetting)
        return gone.weighted_sum(like=round.w).mul_(SIGN * self.method.rate / gone.num_examples).add_(round.w)

    def state(self):
        return {"steps": self.steps}

    def load_state(self, state):
        self.steps = state.get("steps", 0)
''',
    "orchard/steps.py": "SIGN = -1.0\n",
    "orchard/shake.py": '''"""Shake: noise on all weights."""

from dataclasses import dataclass

import torch

from fedunlearn.config.conditions import NonNegative
from fedunlearn.config.settings import Settings
from fedunlearn.unlearning import PLAIN, Method, Needs, Passes


@dataclass(frozen=True)
class Shake(Settings):
    strength: NonNegative = 0.01


def unlearn(model, forget, retain, *, settings, generator, conditions=PLAIN):
    shaken = model.copy()
    noise = torch.randn(shaken.num_parameters, generator=generator)
    shaken.vector.add_(settings.strength * noise.to(shaken.vector))
    return shaken


METHOD = Method("shake", Shake, unlearn, "an orchard", lambda settings: Passes(0, 0), lambda settings: Needs(False))
''',
    "orchard/trunk.py": '''"""Trunk: one hidden layer."""

from dataclasses import dataclass

from torch import nn

from fedunlearn.config.conditions import Count
from fedunlearn.config.settings import ModelSettings


@dataclass(frozen=True)
class TrunkSettings(ModelSettings):
    rings: Count = 6


def trunk(num_classes: int, in_channels: int, image_size: int, settings: TrunkSettings) -> nn.Module:
    """One hidden layer of model.rings units."""
    inputs = in_channels * image_size**2
    return nn.Sequential(
        nn.Flatten(), nn.Linear(inputs, settings.rings), nn.Tanh(), nn.Linear(settings.rings, num_classes)
    )
''',
    "orchard/apples.py": '''"""Apples: made-up images of three kinds."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import torch

from fedunlearn.config.conditions import at_least, at_most
from fedunlearn.config.settings import SourceSettings
from fedunlearn.data import ImageSource


@dataclass(frozen=True)
class ApplesSettings(SourceSettings):
    classes: ClassVar[int | None] = 3
    crates: Annotated[int, at_least(1), at_most(100)] = 4


def apples(settings: ApplesSettings) -> ImageSource:
    """Made-up images of three kinds of apples, data.crates times thirty."""
    draw = torch.Generator().manual_seed(0)
    labels = torch.arange(30 * settings.crates) % 3
    images = torch.randint(0, 60, (len(labels), 1, 4, 4), generator=draw) + 60 * labels.view(-1, 1, 1, 1)
    images = images.to(torch.uint8)
    return ImageSource(
        images, labels, images[:30], labels[:30], ("red", "green", "blue"), 255.0, (0.4,), (0.2,)
    )
''',
    "orchard/rows.py": '''"""Rows: one client after the other, the first with more."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np

from fedunlearn.config.conditions import above, below
from fedunlearn.config.settings import PartitionSettings
from fedunlearn.data import Partition


@dataclass(frozen=True)
class RowsSettings(PartitionSettings):
    first: Annotated[float, above(0), below(1)] = 0.4


def rows(labels, num_clients: int, rng, settings: RowsSettings) -> Partition:
    """The first client holds data.first of the rows, the others share the rest."""
    shuffled = rng.permutation(len(labels))
    cut = int(settings.first * len(labels))
    owners = np.empty(len(labels), dtype=np.int64)
    owners[shuffled[:cut]] = 0
    owners[shuffled[cut:]] = 1 + np.arange(len(labels) - cut) % (num_clients - 1)
    return Partition.of_owners(owners, num_clients)
''',
    "orchard/taste.py": '''"""Taste: a metric."""

import numpy as np

from fedunlearn.evaluation.evidence import Evidence
from fedunlearn.evaluation.metric import metric


@metric("sourness", title="sourness", unit="0 to 1", better="retrain", tasks=("classification",))
def sourness(evidence: Evidence) -> float:
    """Mean doubt about the data to forget."""
    return float(1 - np.mean(evidence.forgotten.confidences))
''',
}
COMPONENTS = {
    "strategies": {"damped": "orchard.damped:Damped"},
    "routines": {"shake": "orchard.shake:METHOD"},
    "models": {"trunk": "orchard.trunk:trunk"},
    "data": {"apples": "orchard.apples:apples"},
    "partitions": {"rows": "orchard.rows:rows"},
    "metrics": {"sourness": "orchard.taste:sourness"},
}
PROJECT = """[project]
name = "orchard"
version = "1.0"

[build-system]
requires = ["setuptools>=64"]
build-backend = "setuptools.build_meta"

[tool.setuptools]
packages = ["orchard"]
"""


def points(header: str) -> str:
    """Return the entry points of all components, each group under a header."""
    return "\n".join(
        header.format(kind=kind)
        + "\n"
        + "".join(
            f'{name} = "{value}"\n' if '"' in header else f"{name} = {value}\n"
            for name, value in each.items()
        )
        for kind, each in COMPONENTS.items()
    )


def write_project(folder: Path) -> None:
    """Write the project, ready to be installed."""
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    header = '[project.entry-points."fedunlearn.{kind}"]'
    (folder / "pyproject.toml").write_text(f"{PROJECT}\n{points(header)}", encoding="utf-8")


def install_by_hand(folder: Path) -> None:
    """Write what pip leaves in a folder of packages."""
    write_project(folder)
    (folder / "pyproject.toml").unlink()
    noted = folder / "orchard-1.0.dist-info"
    noted.mkdir()
    (noted / "METADATA").write_text("Metadata-Version: 2.1\nName: orchard\nVersion: 1.0\n", encoding="utf-8")
    (noted / "entry_points.txt").write_text(points("[fedunlearn.{kind}]"), encoding="utf-8")


def install_by_pip(project: Path, folder: Path) -> None:
    """Install the project in a folder of packages; nothing is fetched."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--disable-pip-version-check"]
    options = ["--no-build-isolation", "--no-deps", "--target", str(folder)]
    subprocess.run([*pip, *options, str(project)], check=True, timeout=300)


def new_process() -> None:
    """Forget what a process learns of packages while it runs."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "orchard"]:
        del sys.modules[name]
    for found in [key for key, value in plugins.LOADED.items() if _is_theirs(key[1], value)]:
        del plugins.LOADED[found]
    metrics._defined.pop("sourness", None)
    plugins._points.cache_clear()
    source_hash._hash.cache_clear()
    importlib.invalidate_caches()


def _is_theirs(name: str, found: object) -> bool:
    return "orchard" in name or any(name in each for each in COMPONENTS.values())
