"""A sweep that runs in seconds: two methods of a tiny federation."""

EXPERIMENT = """
name = "small"
seeds = [1]
[[target]]
clients = [1]
samples = 0.5
[data]
source = "synthetic-images"
num-train = 160
num-test = 60
num-classes = 4
validation = 0.2
[federation]
num-clients = 2
[model]
name = "mlp"
hidden = [8]
[train]
rounds = 3
batch-size = 8
lr = 0.1
[recover]
until = "max-rounds"
max-rounds = 2
[[method]]
name = "puf"
[[method]]
name = "local-routine"
routine = "fine-tune"
[[method]]
name = "natural"
"""

SWEEP = """
name = "find"
experiment = "small.toml"
seeds = [7, 8]
trials = 3
[space.puf-special-2]
scale = {low = 0.5, high = 20.0, log = true}
[space.fine-tune.settings]
lr = {low = 0.001, high = 0.1, log = true}
epochs = [1, 2, 3]
"""


def write(folder, sweep=SWEEP, experiment=EXPERIMENT):
    """Write both files and return the sweep's."""
    (folder / "small.toml").write_text(experiment)
    file = folder / "find.toml"
    file.write_text(sweep)
    return file
