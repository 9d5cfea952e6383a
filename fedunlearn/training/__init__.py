"""Training, one model at a time (:func:`train_local`) or many at once (:func:`train_stack`, :func:`train_many`).

Every way ends in the same weights: bit for bit by :func:`train_local`, up to rounding by the others.
"""

from fedunlearn.training.acceleration import accelerate
from fedunlearn.training.feed import Feed
from fedunlearn.training.local import LocalResult, learning_rate, train_local
from fedunlearn.training.losses import LOSSES, dice_cross_entropy
from fedunlearn.training.malloc import keep_freed_memory
from fedunlearn.training.many import train_many
from fedunlearn.training.optimizers import FlatSGD, make_optimizer
from fedunlearn.training.recipe import CLASSIFY, Recipe
from fedunlearn.training.stack_size import stack_size
from fedunlearn.training.stackable import NotStackableError, why_not_stackable
from fedunlearn.training.stacked import StackResult, StackTrainer, train_stack

__all__ = [
    "CLASSIFY",
    "LOSSES",
    "Feed",
    "FlatSGD",
    "LocalResult",
    "NotStackableError",
    "Recipe",
    "StackResult",
    "StackTrainer",
    "accelerate",
    "dice_cross_entropy",
    "keep_freed_memory",
    "learning_rate",
    "make_optimizer",
    "stack_size",
    "train_local",
    "train_many",
    "train_stack",
    "why_not_stackable",
]
