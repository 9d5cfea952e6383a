"""A Ray of one's own, for as long as a test needs it."""

import tempfile
from contextlib import contextmanager

import ray

from fedunlearn.federation.ray_engine import connection


@contextmanager
def own_ray(cpus, gpus=0):
    """Start Ray for this process, and stop it whatever happens."""
    with tempfile.TemporaryDirectory(
        prefix="fr-", dir=connection.short_folder(), ignore_cleanup_errors=True
    ) as folder:
        connection.start(folder, cpus=cpus, gpus=gpus, content_bytes=0)
        try:
            yield
        finally:
            ray.shutdown()
