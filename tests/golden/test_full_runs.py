"""The two experiments that readers meet first, in full, end in what was recorded."""

from pathlib import Path

import pytest

from tests.golden.reading import read
from tests.golden.recording import RECORDED, differences, expected
from tests.golden.running import FULL, names, run


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL)
def test_a_full_run_is_as_recorded(name: str, tmp_path: Path) -> None:
    recorded = expected(name).facts  # on another kind of machine nothing is run in vain
    assert differences(recorded, read(run(name, tmp_path))) == []


def test_everything_shipped_is_recorded_and_nothing_else() -> None:
    found = {path.relative_to(RECORDED).with_suffix("").as_posix() for path in RECORDED.rglob("*.json")}
    assert found == set(names())
