"""For all tests: one thread each, no deadlines on machines that are busy with something else."""

import torch
from hypothesis import settings

torch.set_num_threads(1)
settings.register_profile("fedunlearn", deadline=None, print_blob=True)
settings.load_profile("fedunlearn")
