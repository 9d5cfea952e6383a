"""Every random draw of a run, addressed by what it is for.

No result depends on a global generator. A draw is addressed by ``(seed, purpose, round, client)``, and its
generator is seeded with the 64-bit number

    little-endian(BLAKE2b-8("{seed}/{purpose}/{round}/{client}"))

so that it does not matter which worker, engine or process draws it, nor what was drawn before.

Purposes in use: ``validation``, ``partition``, ``targets``, ``part`` (experiment seed; of a part its number stands
in place of the client); ``weights``, ``batches``,
``sampling``, ``routine`` (training seed: the experiment seed, or the one derived under ``floor`` for a further
retraining, with its number, counted from 0, in place of the round);
``sweep/<label>`` (a sweep's own: its trials of a method);
``augmentation`` and ``dropout`` (seed of the client's ``batches``); ``membership`` (evaluation); ``bootstrap``;
``synthetic`` and ``test-split`` (seed 0: images and test sets are the same for every experiment seed); ``phantom``
(seed of ``fedunlearn data phantom``, with the site in place of the round and the case in place of the client).
Sources with sites draw ``validation`` and ``test-split`` per site, with its number in place of the client.
Unlearning methods, from the seed of the generator they are given: ``augmentation``, ``dropout``, ``labels``,
``held-out`` (scrub), ``random-teacher`` and ``retain-share`` (bad-teacher), ``extra-class`` (boundary-expand),
``calibration`` (mpru), ``forget-batches`` (neggrad-plus), ``noise`` (fisher-noise).

torch is imported only when a torch generator is asked for, so that the command line can draw target sets
without paying for it.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def derive_seed(seed: int, purpose: str, round: int = 0, client: int = 0) -> int:
    """Return the documented 64-bit seed, 0 ≤ value < 2**64, of the draw at this address."""
    address = f"{seed}/{purpose}/{round}/{client}".encode()
    return int.from_bytes(hashlib.blake2b(address, digest_size=8).digest(), "little")


def torch_generator(seed: int, purpose: str, round: int = 0, client: int = 0) -> torch.Generator:
    """Return a CPU ``torch.Generator`` for the draw at this address."""
    import torch

    return torch.Generator().manual_seed(derive_seed(seed, purpose, round, client))


def numpy_generator(seed: int, purpose: str, round: int = 0, client: int = 0) -> np.random.Generator:
    """Return a NumPy generator (PCG64) for the draw at this address."""
    return np.random.Generator(np.random.PCG64(derive_seed(seed, purpose, round, client)))
