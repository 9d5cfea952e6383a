"""Loading the small sites, and the one line that refuses them."""

import pytest
import torch

from fedunlearn.config import DataConfig
from fedunlearn.data import load_federated
from fedunlearn.errors import ConfigError

SIZE = 16
CASES = 5
"""Of each of the six sites."""


def config(directory, **changes):
    settings = {"partition": "site", "validation": 0.2, "resize": SIZE, **changes}
    return DataConfig.of(source="prostate-mri", directory=str(directory), **settings)


def load(directory, seed=1, num_clients=6, **changes):
    dtype = changes.pop("dtype", torch.float32)
    return load_federated(config(directory, **changes), num_clients, seed, dtype=dtype)


def error(directory, **changes):
    with pytest.raises(ConfigError) as caught:
        load(directory, **changes)
    assert "\n" not in str(caught.value)
    return str(caught.value).replace(f"{directory}/", "")
