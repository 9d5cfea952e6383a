"""The arrows between the rooms: what must work where neither Flower nor Ray is installed."""

import subprocess
import sys

BLOCKED = """
import sys

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
        "import fedunlearn.config, fedunlearn.report.html, fedunlearn.report.tables, fedunlearn.requests\n"
    )


def test_a_client_trains_and_is_measured_without_flower_and_ray() -> None:
    run(
        """
from fedunlearn import config, resident
from fedunlearn.evaluation.measures import measure
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
method = [{name = "puf"}]
''')
data = resident.data_of(experiment, seed=1)
model = resident.new_model(experiment, data, seed=1)
before = model.vector.clone()
train_local(model, *data.client(0), experiment.train, lr=0.1, generator=torch_generator(1, "batches", 1, 0))
assert not before.equal(model.vector)
found = measure(collect(model.module, data), forget=data.indices_of([0]), retain=data.all_but([0]), seed=1)
assert 0 <= found["forget_accuracy"] <= 100
"""
    )
