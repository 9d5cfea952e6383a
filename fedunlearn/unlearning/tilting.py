"""What TRW teaches instead of a class: the original's softmax without it, tilted towards similar classes.

    q_f = 0,    q_i ∝ p_i exp(β s_i)  for i ≠ f.

s compares rows of the last layer's weight: centred, projected on their first min(K − 1, ``components``) principal
components, the cosine of each to the row of f, and a softmax with a temperature over the classes that stay.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def similarities(
    weight: Tensor, gone: Tensor, *, temperature: float, components: int = 0, centre: bool = False
) -> Tensor:
    """Return s, (K, K) in float64: row f of a class to forget adds up to 1 over those that stay, else zero.

    Parameters
    ----------
    weight : Tensor, shape (K, features)
        Of the last layer.
    gone : Tensor of bool, shape (K,)
        The classes to forget.
    components : int
        0 compares whole rows.
    """
    rows = weight.detach().double()
    if centre:
        rows = rows - rows.mean(0)
    if components:
        left, sizes, _ = torch.linalg.svd(rows, full_matrices=False)
        kept = min(len(rows) - 1, components)
        rows = left[:, :kept] * sizes[:kept]
    cosines = F.cosine_similarity(rows[:, None], rows[None], dim=2)
    return (cosines / temperature).masked_fill(gone, -torch.inf).softmax(1) * gone[:, None]


def tilted_targets(logits: Tensor, labels: Tensor, similarity: Tensor, gone: Tensor, beta: float) -> Tensor:
    """Return q, (n, K), of the original's logits of examples to forget."""
    tilted = logits.log_softmax(1) + beta * similarity.to(logits.dtype)[labels]
    return tilted.masked_fill(gone, -torch.inf).softmax(1)
