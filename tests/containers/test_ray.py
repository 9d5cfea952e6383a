"""The Ray profile: a head and a worker, and a simulation that runs on both."""

from __future__ import annotations

import json

import pytest

from tests.containers.stack import stack, wait_for

NODES = """
import json, ray
ray.init(address="auto", log_to_driver=False, logging_level="ERROR")
print(json.dumps([node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]]))
"""


@pytest.mark.slow
@pytest.mark.containers
@pytest.mark.timeout(1800)
@pytest.mark.usefixtures("images")
def test_a_simulation_runs_on_a_head_and_a_worker() -> None:
    with stack("ray") as project:
        project.compose("--profile", "ray", "up", "--detach", "--no-build", "ray-head", "ray-worker")

        def nodes() -> set[str]:
            lines = project.within("ray-head", "python", "-c", NODES, check=False).splitlines()
            return set(json.loads(lines[-1])) if lines else set()

        wait_for("two nodes", lambda: len(nodes()) == 2, 300, lambda: project.logs("ray-head", "ray-worker"))
        address = ("--engine", "ray", "--set", "engine.ray.address=auto", "--set", "engine.workers=2")
        run = ("fedunlearn", "run", "experiments/quickstart.toml", "--smoke", *address, "--out", "/runs")
        project.within("ray-head", *run)
        assert "scorecard.json" in project.within("ray-head", "sh", "-c", "ls /runs/*")
