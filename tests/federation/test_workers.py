"""A real federation, of networks on images: the number of workers changes no bit of it."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest

from fedunlearn import workspace
from fedunlearn.clients.app import app
from fedunlearn.federation.local import LocalGrid
from fedunlearn.requests import Ledger
from fedunlearn.runs.checkpoints import Checkpoints
from fedunlearn.server.branch import Branch, ForgetRequest
from fedunlearn.server.serve import serve
from tests.clients.experiment import write

ROUNDS = 4


def federate(folder, workers, *overrides):
    """Train, forget clients 1 and 3, recover; return every checkpoint's bytes and what was reported."""
    folder.mkdir()
    path, experiment = write(folder, *overrides)
    branch = Branch(
        name="puf",
        kind="method",
        label="puf",
        seed=1,
        training_seed=1,
        last_round=ROUNDS,
        forget=(1, 3),
        requests=(ForgetRequest("r1", (1,), 2), ForgetRequest("r2", (3,), 2)),
        method=experiment.methods[0],
    )
    reports = []
    with (
        LocalGrid(app, 5, run_config={"experiment": str(path), "seed": 1}, workers=workers) as grid,
        Ledger(folder / "requests.sqlite") as ledger,
    ):
        checkpoints = Checkpoints(folder / "checkpoints", "puf")
        requests = serve(
            grid, experiment, branch, ledger=ledger, checkpoints=checkpoints, observe=reports.append
        )
    files = {t: checkpoints.path(t).read_bytes() for t in checkpoints.rounds()}
    assert [r.unlearned_round for r in requests] == [3, 3]
    return files, [(r.plan, dict(r.metrics), list(r.losses.items()), r.coefficients) for r in reports]


@pytest.mark.parametrize(
    "overrides", [("model.name=mlp",), ("model.name=small-cnn", "federation.participation=0.8")]
)
def test_one_worker_and_three_write_the_same_bytes(tmp_path, overrides):
    one = federate(tmp_path / "one", 1, *overrides)
    three = federate(tmp_path / "three", 3, *overrides)
    assert list(one[0]) == [1, 2, 3, 4]
    assert len(set(one[0].values())) == ROUNDS, "the weights do move"
    assert one == three


def test_every_worker_has_a_model_of_its_own(tmp_path):
    path, _ = write(tmp_path)
    together = Barrier(3, timeout=10)

    def model(_):
        together.wait()
        return workspace.workplace(str(path), 1).model

    with ThreadPoolExecutor(3) as pool:
        models = list(pool.map(model, range(3)))
    assert len({m.vector.data_ptr() for m in models}) == 3
    assert len({m.vector.numel() for m in models}) == 1
