"""What a cache holds."""

from fedunlearn.simulation.cache import Cache


def has_branch(cache: Cache, key: str) -> bool:
    """Return whether a branch is there, whole."""
    return cache._history(cache._entry("branches", key)) is not None
