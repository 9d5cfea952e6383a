"""Random clients' answers for property tests, and the plain sums they are compared with."""

import math

import torch
from hypothesis import strategies as st

from fedunlearn.federation.sums import Contribution

SIZE = 3
CLIENTS = st.integers(0, 200)  # four blocks of 64
NUM_EXAMPLES = st.integers(1, 5000)


def vectors(dtype=torch.float32, size=SIZE):
    """Vectors of awkward numbers: rounding is what these tests are about."""
    width = 32 if dtype == torch.float32 else 64
    number = st.floats(-1e3, 1e3, width=width, allow_subnormal=False)
    return st.lists(number, min_size=size, max_size=size).map(lambda xs: torch.tensor(xs, dtype=dtype))


@st.composite
def contributions(draw, dtype=torch.float32, least=0, most=8, clients=CLIENTS, deltas=None):
    """Answers of different clients, in a random order."""
    numbers = draw(st.lists(clients, min_size=least, max_size=most, unique=True))
    deltas = vectors(dtype) if deltas is None else deltas
    return [Contribution(client, draw(NUM_EXAMPLES), draw(deltas)) for client in numbers]


def bits(tensor):
    """The bytes of a tensor: equal only where every last bit is (and -0.0 is not 0.0)."""
    return tensor.contiguous().numpy().tobytes()


def exact_sum(contributions, size=SIZE):
    """Σ n_k Δ_k in float64, rounded once."""
    columns = [[c.num_examples * float(c.delta[i]) for c in contributions] for i in range(size)]
    return torch.tensor([math.fsum(column) for column in columns], dtype=torch.float64)


def num_examples(contributions):
    """Σ n_k."""
    return sum(c.num_examples for c in contributions)
