"""A federation that forgets by the probing strategy, in any engine; and the same by hand, in float64."""

from copy import deepcopy
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from fedunlearn import config, workspace
from fedunlearn.clients.tasks import routine_of
from fedunlearn.randomness import torch_generator
from fedunlearn.requests import Ledger
from fedunlearn.runs.checkpoints import Checkpoints
from fedunlearn.server.branch import Branch, ForgetRequest
from fedunlearn.server.serve import serve
from tests.clients.experiment import TEXT

ROUNDS, UNLEARNS = 6, 3
SEED = 1
FORGOTTEN = (3, 5)
"""A whole client, and half of client 1's data, which is number 5 of a federation of five."""
OVERRIDES = (
    "target=[{clients = [3]}, {clients = [1], samples = 0.5}]",
    'method=[{name = "tests.server.prober:Prober"}]',
    "model.name=mlp",
    "train.lr=0.05",
)


def experiment_in(folder, *overrides):
    """Return the path of the experiment, and the experiment."""
    text = TEXT.replace("targets = [[1]]\n", "")
    experiment = config.loads(text, overrides=(*OVERRIDES, *overrides))
    path = folder / "experiment.toml"
    path.write_text(config.to_toml(experiment), encoding="utf-8")
    return path, experiment


def trainer_of(experiment):
    """Return how a worker's routine is made, anywhere."""
    return partial(routine_of, experiment, SEED)


def federate(folder, grid, experiment, *, rounds=ROUNDS):
    """Run the federation on a grid; return the bytes of its checkpoints, and what was reported of each round."""
    branch = Branch(
        name="probe",
        kind="method",
        label="probe",
        seed=SEED,
        training_seed=SEED,
        last_round=rounds,
        forget=FORGOTTEN,
        requests=tuple(ForgetRequest(f"r{k}", (k,), UNLEARNS - 1) for k in FORGOTTEN),
        method=experiment.methods[0],
    )
    checkpoints = Checkpoints(folder / "checkpoints", "probe")
    reports = []
    with grid, Ledger(folder / "requests.sqlite") as ledger:
        serve(grid, experiment, branch, ledger=ledger, checkpoints=checkpoints, observe=reports.append)
    files = {t: checkpoints.path(t).read_bytes() for t in checkpoints.rounds()}
    return files, [(r.plan, dict(r.metrics), list(r.losses.items()), dict(r.failed)) for r in reports]


def snapshots(folder):
    """Return round → what its checkpoint holds."""
    checkpoints = Checkpoints(folder / "checkpoints", "probe")
    return {t: checkpoints.load(t) for t in checkpoints.rounds()}


def by_hand(experiment, rounds=ROUNDS):
    """Return (weights, step, seen) after each round, in float64, by plain loops over what the strategy says.

    Of the program only the data, the initial weights and the addresses of random numbers are used.
    """
    data = workspace.data_of(experiment, SEED)
    flat = workspace.new_model(experiment, data, SEED)
    module = deepcopy(flat.module).double()
    initial = parameters_to_vector(module.parameters()).detach()
    assert torch.equal(initial.float(), flat.vector)
    half = experiment.parts[5].rows(data.train_labels[data.clients[1]].numpy(), SEED)

    def examples(number, *, forgotten):
        """Return F and R of a client or part, in a round at whose beginning somebody has been forgotten or not."""
        images, labels = data.client(1 if number == 5 else number)
        mine = torch.ones(len(labels), dtype=torch.bool)
        if number == 5 or (number == 1 and forgotten):
            mine[half] = number == 5
            mine[np.setdiff1d(np.arange(len(labels)), half)] = number != 5
        others = images[~mine] if number == 5 else images[:0]
        return (images[mine].double(), labels[mine]), others.double()

    def trained(start, images, labels, t, number):
        net = deepcopy(module)
        vector_to_parameters(start.clone(), net.parameters())
        velocity = [torch.zeros_like(p) for p in net.parameters()]
        generator = torch_generator(SEED, "batches", t, number)
        for _ in range(2):
            for batch in torch.randperm(len(labels), generator=generator).split(8):
                net.zero_grad()
                F.cross_entropy(net(images[batch]), labels[batch]).backward()
                with torch.no_grad():
                    for p, v in zip(net.parameters(), velocity, strict=True):
                        v.mul_(0.5).add_(p.grad + 1e-3 * p)
                        p.sub_(0.03 * v)
        return parameters_to_vector(net.parameters()).detach()

    def pulled(start, number, rate, *, forgotten):
        (images, _), others = examples(number, forgotten=forgotten)
        rest = others.mean() if len(others) else torch.zeros((), dtype=torch.float64)
        w = start + rate * (initial - start)
        w[:4] += 0.01 * (number + 1) * torch.tensor([1.0, 2, 3, 4]).double() * images.mean() + rest
        return w, len(images), torch.stack([images.mean(), rest, torch.tensor(float(len(images))).double()])

    states = [(initial, torch.zeros_like(initial), torch.zeros(3, dtype=torch.float64))]
    for t in range(1, rounds + 1):
        w, step, seen = states[-1]
        ahead, forgotten = w + 0.5 * step, t >= UNLEARNS
        everybody = [k for k in range(5) if k != 3 or not forgotten]
        start = ahead if t % 2 else w
        mean, total, windows = torch.zeros_like(w), 0, torch.zeros(4, dtype=torch.float64)
        for k in everybody:
            if t % 2:
                (images, labels), _ = examples(k, forgotten=forgotten)
                w_k, n = trained(start, images, labels, t, k), len(labels)
            else:
                w_k, n, saw = pulled(start, k, 0.2, forgotten=forgotten)
                seen, windows = seen + saw, windows + w_k[:4]
            mean, total = mean + n * (w_k - start), total + n
        made = start + mean / total
        if t == UNLEARNS:
            results = {u: pulled(ahead, u, 0.4, forgotten=True) for u in FORGOTTEN}
            weight = sum(n for _, n, _ in results.values())
            for w_u, n, saw in results.values():
                made = made - 0.3 * n / weight * (w_u - ahead)
                seen, windows = seen + saw, windows + w_u[:4]
        made[:4] += 0.01 * windows
        states.append((made, made - w, seen))
    return states
