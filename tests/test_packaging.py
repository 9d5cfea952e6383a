"""What an installation consists of: one package, that bears with whatever its user calls a folder."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    (built,) = WheelBuilder(str(ROOT)).build(
        directory=str(tmp_path_factory.mktemp("dist")), versions=["standard"]
    )
    return Path(built)


def test_a_wheel_holds_one_package_with_strategies_and_clients_in_it(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"fedunlearn"}
    code = {p.relative_to(ROOT).as_posix() for p in (ROOT / "fedunlearn").rglob("*.py")}
    assert {"fedunlearn/strategies/puf.py", "fedunlearn/clients/app.py"} < code
    assert code | {"fedunlearn/py.typed"} == {name for name in names if ".dist-info/" not in name}


@pytest.mark.slow
def test_folders_of_ones_own_named_strategies_and_clients_do_no_harm(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    for name in ("strategies", "clients"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise AssertionError('{name} is the user's own')\n")
    code = (
        "import sys; sys.path.insert(1, 'site')\n"
        "import fedunlearn.clients.app, fedunlearn.strategies.puf, fedunlearn.simulation.runner\n"
        "from pathlib import Path\n"
        "assert Path(fedunlearn.__file__).parents[1].name == 'site', fedunlearn.__file__\n"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert found.returncode == 0, found.stderr


def test_the_checkout_shows_both_folders_at_its_top_and_nobody_imports_them_by_these_names():
    for name in ("strategies", "clients"):
        link = ROOT / name
        assert link.is_symlink()
        assert link.resolve() == ROOT / "fedunlearn" / name
    bare = ("from strategies", "import strategies", "from clients", "import clients")
    for path in (p for top in ("fedunlearn", "benchmarks", "tests") for p in (ROOT / top).rglob("*.py")):
        lines = path.read_text(encoding="utf-8").splitlines()
        assert not [line for line in lines if line.lstrip().startswith(bare)], path
