"""For all tests: one thread each, no deadlines on machines that are busy with something else."""

import os
import tempfile

import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("fedunlearn", deadline=None, print_blob=True)
settings.load_profile("fedunlearn")

# Prepared volumes are kept in the user's cache folder; tests, and the processes they start, have one of their own.
_caches = tempfile.TemporaryDirectory(prefix="fedunlearn-tests-")
os.environ["XDG_CACHE_HOME"] = _caches.name
