"""Natural forgetting: go on with federated averaging without the clients to forget, and do nothing else.

Source: the baseline of arXiv 2504.05822, and of the field.

Formula. With S⁺ the participants that are not to be forgotten, N = Σ_{S⁺} n_k: w ← w + Σ_{S⁺} (n_k/N) Δ_k.

Deviations: none. Its requests end as ``excluded``, never as forgotten.
"""

from typing import Any, ClassVar

from fedunlearn.strategies.base import UnlearningStrategy


class Natural(UnlearningStrategy):
    """Federated averaging that leaves out whoever asked to be forgotten, from the next round on."""

    forgets: ClassVar[bool] = False

    @classmethod
    def describe(cls, method: Any) -> str:
        """Return what a certificate says of it."""
        return "natural forgetting, where training continues without a client and nothing is removed from the model"
