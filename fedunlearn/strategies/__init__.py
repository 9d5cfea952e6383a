"""Flower server strategies: one file per method, each only its deviation from the shared round loop."""
