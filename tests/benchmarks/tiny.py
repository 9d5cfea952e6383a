"""Cases that are over in no time."""

from benchmarks.cases import Case

# 40 images are two batches, so that a wrong order of rows shows.
TINY = Case(
    name="tiny",
    model="mlp",
    num_clients=3,
    images_per_client=40,
    image_size=4,
    rounds=3,
    warm_up=2,
    block_rounds=2,
    batch_clients=2,
)
NOOP = Case(name="noop-tiny", num_clients=3, noop_floats=1000, rounds=2, warm_up=1, block_rounds=2)
