"""Federated learning, one PUF request and the recovery, in one file: the answer the framework must reproduce.

It shares no line with the framework and knows nothing of Flower, engines, ledgers, checkpoints or caches: one
client after the other, every number computed the plainest way that still draws the same random numbers and
adds in the same order. If the two disagree, one is wrong, and this one can be read top to bottom:

    split off validation data → deal the rest to clients → FedAvg → unlearn → FedAvg without the forgotten

PUF (Mora, Mazzocca, Montanari, Bellavista, arXiv 2504.05822): the clients to forget, U, train exactly as
always, and the server subtracts their pseudo-gradients Δ_u = w_u − w, once, in the round after the request:

    special, U alone:        w ← w − scale · Σ_U (n_u / N_U) Δ_u                              N_U = Σ_U n_u
    regular, retained too:   w ← w + r · Σ_S (n_k / N) Δ_k − scale · Σ_U (n_u / N) Δ_u    N = Σ_S n_k + Σ_U n_u

with the paper's second factor r = ``retain_rate``, which its code does not have.

A model retrained without U is the same run with ``forget=[]`` and ``exclude=U``. Only for models without
buffers (GroupNorm, not BatchNorm) and without randomness of their own (no dropout): a flat vector of the
parameters, in the order of ``model.parameters()``, is the whole model. Set the thread count before calling.
"""

import copy
import hashlib
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

# --- randomness: every draw has an address, no draw depends on another ------------------------------------


def derive_seed(seed: int, purpose: str, t: int = 0, client: int = 0) -> int:
    """Return the 64-bit seed of one address: little-endian BLAKE2b-8 of ``seed/purpose/round/client``."""
    digest = hashlib.blake2b(f"{seed}/{purpose}/{t}/{client}".encode(), digest_size=8).digest()
    return sum(byte << (8 * place) for place, byte in enumerate(digest))


def numpy_generator(seed: int, purpose: str, t: int = 0) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(derive_seed(seed, purpose, t)))


# --- data: who holds which rows ---------------------------------------------------------------------------


def partition(
    labels: Tensor, *, seed: int, num_clients: int, alpha: float, validation: float
) -> tuple[np.ndarray, list[np.ndarray]]:
    """Return the validation rows (as drawn) and each client's rows (sorted), all as rows of ``labels``."""
    y = labels.numpy()
    shuffled = numpy_generator(seed, "validation").permutation(len(y))
    num_validation = round(validation * len(y))
    train = np.sort(shuffled[num_validation:])

    rng = numpy_generator(seed, "partition")
    hands: list[list[int]] = [[] for _ in range(num_clients)]
    for label in range(int(y.max()) + 1):
        # The draws are made in positions within `train`, the way a federation sees its own data.
        positions = rng.permutation(np.flatnonzero(y[train] == label))
        shares = rng.dirichlet([alpha] * num_clients)
        cuts = (np.cumsum(shares)[:-1] * len(positions)).astype(int)
        for hand, piece in zip(hands, np.split(positions, cuts), strict=True):
            hand.extend(piece.tolist())
    if [] in hands:
        raise ValueError(f"client {hands.index([])} holds no data: raise alpha = {alpha} or change the seed")
    return shuffled[:num_validation], [train[sorted(hand)] for hand in hands]


# --- the model as one flat vector -------------------------------------------------------------------------


def flatten(model: nn.Module) -> Tensor:
    return torch.cat([parameter.detach().reshape(-1) for parameter in model.parameters()])


def unflatten(w: Tensor, model: nn.Module) -> None:
    """Write ``w`` into the parameters of ``model``."""
    start = 0
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(w[start : start + parameter.numel()].view_as(parameter))
            start += parameter.numel()


# --- one round --------------------------------------------------------------------------------------------


def sample(seed: int, t: int, pool: Sequence[int], slots: int) -> list[int]:
    """Return the retained participants of round t: everyone if there is room, else a draw from the pool."""
    if slots >= len(pool):
        return sorted(pool)
    drawn = numpy_generator(seed, "sampling", t).choice(sorted(pool), size=slots, replace=False)
    return sorted(int(client) for client in drawn)


def block_sum(w: Tensor, updates: Mapping[int, tuple[int, Tensor]]) -> tuple[Tensor, int]:
    """Return Σ n_k Δ_k and Σ n_k over ``{k: (n_k, Δ_k)}``: in client order in blocks of 64 client numbers."""
    total, examples = torch.zeros_like(w), 0
    for block in sorted({client // 64 for client in updates}):
        subtotal = torch.zeros_like(w)
        for client in sorted(client for client in updates if client // 64 == block):
            n, delta = updates[client]
            subtotal += n * delta
            examples += n
        total += subtotal
    return total, examples


def run(
    images: Tensor,
    labels: Tensor,
    model: nn.Module,
    *,
    seed: int,
    num_clients: int,
    alpha: float,
    validation: float,
    rounds: int,
    recovery_rounds: int,
    forget: Collection[int],
    mode: str,
    scale: float,
    lr: float,
    lr_decay: float,
    weight_decay: float,
    momentum: float,
    batch_size: int,
    local_epochs: int,
    participation: float = 1.0,
    retain_rate: float = 1.0,
    exclude: Collection[int] = (),
) -> list[Tensor]:
    """Return the flat weights w_0 (initial), w_1, …, w_{rounds + recovery_rounds}.

    ``images`` (n, C, H, W), normalised and of the model's dtype, and ``labels`` (n,) are the source's whole
    training split. Clients in ``forget`` train up to round ``rounds`` and are unlearned in the next, the
    first of the ``recovery_rounds``; those in ``exclude`` never take part. ``model`` gives w_0, unchanged.
    """
    if mode not in ("special", "regular"):
        raise ValueError(f"mode = {mode!r}: must be 'special' or 'regular'")
    if set(forget) & set(exclude) or not set(forget) | set(exclude) < set(range(num_clients)):
        raise ValueError("forget and exclude must be apart, name clients that exist, and leave one client")
    model = copy.deepcopy(model).train()
    if list(model.buffers()):
        raise ValueError("this oracle covers only models without buffers")
    _, rows = partition(labels, seed=seed, num_clients=num_clients, alpha=alpha, validation=validation)

    def local_training(w: Tensor, t: int, client: int) -> tuple[int, Tensor]:
        """Return n_k and Δ_k = w_k − w; a client to forget trains just like the others."""
        x, y = images[rows[client]], labels[rows[client]]
        unflatten(w, model)
        rate = lr * lr_decay ** (t - 1)
        sgd = torch.optim.SGD(model.parameters(), lr=rate, momentum=momentum, weight_decay=weight_decay)
        generator = torch.Generator().manual_seed(derive_seed(seed, "batches", t, client))
        for _ in range(local_epochs):
            order = torch.randperm(len(y), generator=generator)
            for start in range(0, len(y), batch_size):
                batch = order[start : start + batch_size]
                sgd.zero_grad()
                cross_entropy(model(x[batch]), y[batch]).backward()
                sgd.step()
        return len(y), flatten(model) - w

    slots = max(1, round(participation * num_clients))
    trajectory = [flatten(model)]
    for t in range(1, rounds + recovery_rounds + 1):
        w = trajectory[-1]
        out = set(exclude) if t <= rounds else set(exclude) | set(forget)
        pool = [client for client in range(num_clients) if client not in out]
        unlearning = sorted(set(forget)) if t == rounds + 1 else []
        alone = unlearning and mode == "special"
        retained = [] if alone else sample(seed, t, pool, max(slots - len(unlearning), 0))
        kept, kept_n = block_sum(w, {k: local_training(w, t, k) for k in retained})
        gone, gone_n = block_sum(w, {u: local_training(w, t, u) for u in unlearning})
        # FedAvg when nobody is unlearned, Special when nobody is retained, Regular otherwise.
        rate = retain_rate if unlearning else 1.0
        trajectory.append(w + (rate * kept - scale * gone) / (kept_n + gone_n))
    return trajectory


# --- has it recovered? ------------------------------------------------------------------------------------


def accuracy(w: Tensor, model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the accuracy, 0 to 100, of the model with weights ``w``."""
    model = copy.deepcopy(model).eval()
    unflatten(w, model)
    with torch.no_grad():
        return 100.0 * int((model(images).argmax(dim=1) == labels).sum()) / len(labels)


def first_recovered_round(
    accuracies: Sequence[float], targets: Sequence[float], *, rounds: int, epsilon: float = 0.0
) -> int | None:
    """Return the first round after ``rounds`` that is within ``epsilon`` points of its target, or None.

    Both sequences count from round 0; ``targets`` holds the retrained model's accuracy in the same round. The
    unlearning round ``rounds + 1`` may be the answer: recovery then took the least there is, 1 round.
    """
    for t in range(rounds + 1, len(accuracies)):
        if accuracies[t] >= targets[t] - epsilon:
            return t
    return None
