"""``flwr run`` in Flower's own simulation ends where the local engine ends."""

import pytest

from tests.deployment import tiny
from tests.deployment.flower import REPOSITORY, Flower, run_config, wait_for

OPTIONS = "num-supernodes=2 client-resources-num-cpus=1 init-args-num-cpus=1"


@pytest.mark.slow
def test_flowers_simulation_ends_in_the_weights_of_the_local_engine(tmp_path_factory):
    folder = tmp_path_factory.mktemp("simulation")
    file = folder / "digits.toml"
    file.write_text(tiny.DIGITS)
    settings = run_config(experiment=file, folder=folder / "run")
    with Flower(folder / "flower") as flower:
        words = ("--stream", "--federation-config", OPTIONS, "--run-config", settings)
        said = flower.call("run", REPOSITORY, "local", *words)
        # The stream may end before the run does.
        wait_for(f"the last round; {said}", lambda: tiny.is_complete(folder / "run") or None)
    found = tiny.run_weights(folder / "run")
    tiny.assert_equal_weights(found, tiny.local_weights(file, folder / "local"))
    assert "no roster: every node is trusted" in said
