"""Make federated models forget, and prove it."""

from fedunlearn.home import give_name, settle_matplotlib

__version__ = "0.1.0"

give_name()  # before anything imports MONAI
settle_matplotlib()
