"""Make federated models forget, and prove it."""

__version__ = "0.1.0"
