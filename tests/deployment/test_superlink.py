"""A real SuperLink and SuperNodes with TLS, keys and data of their own: the same weights, and an impostor refused.

A live federation under a supervisor, with everything that may die there: ``tests/faults``.
"""

from __future__ import annotations

import pytest

from fedunlearn.deployment.superlink import FlowerSuperLink
from tests.deployment import tiny
from tests.deployment.flower import REPOSITORY, wait_for
from tests.deployment.link import NAME

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800), pytest.mark.xdist_group("superlink")]
IMPOSTOR = 3
"""Number of a registered node that says it is client 0, and is not in the roster."""


@pytest.fixture
def impostor(federation):
    link = federation.link
    link.register(IMPOSTOR)
    link.start_node(IMPOSTOR, partition_id=0, data_dir=federation.data_of(0))
    federation.await_nodes(IMPOSTOR)
    yield link.nodes[IMPOSTOR]
    link.stop_node(IMPOSTOR)


def test_it_ends_in_the_weights_of_the_local_engine_and_an_impostor_is_refused(
    federation, impostor, monkeypatch
):
    folder = federation.folder
    file = folder / "digits.toml"
    file.write_text(tiny.DIGITS.replace(f"num-clients = {tiny.CLIENTS}", "num-clients = 3"))
    for name, value in federation.environment().items():
        monkeypatch.setenv(name, value)
    words = federation.settings(file, folder=folder / "run")
    superlink = FlowerSuperLink(NAME, app=REPOSITORY, run_config=[words])
    assert superlink.state("12345") is None, "a run that it does not know"
    run = superlink.submit()

    def ended():
        federation.link.tend()
        state = superlink.state(run)
        return state if state.ended else None

    state = wait_for("the end of the run", ended)
    assert (state.status, state.details) == ("completed", ""), federation.logs()
    tiny.assert_equal_weights(tiny.run_weights(folder / "run"), tiny.local_weights(file, folder / "local"))
    said = federation.flower.call("log", run, NAME, "--show")
    assert f"node {impostor} is refused: it says that it serves client 0" in said
    assert "train message" not in federation.flower.log(f"node-{IMPOSTOR}")
    superlink.stop(run)  # has ended: nothing happens
    superlink.close()
