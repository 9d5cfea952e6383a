"""Natural forgetting: go on with federated averaging without the clients to forget, and do nothing else.

The baseline of arXiv 2504.05822 (and of the field). Its requests end as ``excluded``, never as forgotten.
"""

from typing import Any, ClassVar

from fedunlearn.strategies.base import UnlearningStrategy


class Natural(UnlearningStrategy):
    """Federated averaging that leaves out whoever asked to be forgotten, from the next round on."""

    forgets: ClassVar[bool] = False

    @classmethod
    def describe(cls, method: Any) -> str:
        """Return what a certificate says of it."""
        return "natural forgetting, where training goes on without a client and nothing is taken out of the model"
