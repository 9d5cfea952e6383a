"""Images by their content: equal numbers for equal pixels."""

from __future__ import annotations

from hashlib import blake2b

import numpy as np
from torch import Tensor

from fedunlearn.data.source import Indices


def content_numbers(images: Tensor) -> Indices:
    """Return a number per image, int64, (n,): equal for equal pixels, and for others with 64-bit certainty."""
    rows = images.detach().cpu().flatten(1).contiguous().numpy()
    digests = b"".join(blake2b(row, digest_size=8).digest() for row in rows)
    return np.frombuffer(digests, dtype="<i8").astype(np.int64)
