"""Shared by the evaluation tests: one thread, and outputs built from plain lists."""

import torch

torch.set_num_threads(1)
