"""People who ask a live federation to forget, all at once, and what each of them is entitled to in the end."""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from fedunlearn.requests import Intake, Ledger
from fedunlearn.requests.intake import InvalidRequestError, NotWithdrawableError
from tests.e2e.live_server import FLAKY, NUM_CLIENTS, POISONED

POSTERS = 8
EACH = 25

Kind = Literal["valid", "poisoned", "everyone", "again", "withdrawn", "unknown", "nobody"]
DONE = ("forgotten", "forgotten-unrecovered")
RIGHT_ENDS: dict[str, tuple[str, ...]] = {
    "valid": DONE,
    "poisoned": ("refused",),
    "everyone": ("refused",),
    "again": ("duplicate",),
    "withdrawn": ("withdrawn",),
    "too late": DONE,
    "invalid": (),
}
"""How requests may end, by what became of them when they were posted."""


@dataclass(frozen=True)
class Job:
    """One thing that a poster does."""

    kind: Kind
    clients: tuple[int, ...]


@dataclass(frozen=True)
class Posted:
    """What came of it: ``fate`` is a key of RIGHT_ENDS, ``request`` None where nothing was recorded."""

    fate: str
    request: str | None
    clients: tuple[int, ...]


def jobs() -> list[list[Job]]:
    """Return what each poster does, in order: 200 things, of which 160 are valid requests for other clients."""
    draw = random.Random(5)
    clients = [k for k in range(NUM_CLIENTS) if k not in (*FLAKY, POISONED)]
    draw.shuffle(clients)
    valid = [Job("valid", (k,)) for k in FLAKY]
    valid += [Job("valid", (clients.pop(), clients.pop())) for _ in range(30)]
    valid += [Job("valid", (clients.pop(),)) for _ in range(160 - len(valid))]
    draw.shuffle(valid)
    other = [Job("withdrawn", (clients.pop(),)) for _ in range(10)]
    other += [Job("unknown", (NUM_CLIENTS + k,)) for k in range(8)] + [Job("nobody", ())] * 2
    other += [Job("poisoned", (POISONED,)), Job("everyone", tuple(range(NUM_CLIENTS)))]
    lists: list[list[Job]] = []
    for number in range(POSTERS):
        mine = valid[number::POSTERS]
        again = [Job("again", draw.choice(mine[:10]).clients) for _ in range(2)]
        rest = other[number::POSTERS]
        again += [Job("again", draw.choice(mine[:10]).clients) for _ in range(EACH - 22 - len(rest))]
        late = mine[10:] + again + rest
        draw.shuffle(late)
        lists.append(mine[:10] + late)
    return lists


def post(ledger_path: str, number: int, jobs: list[Job], turns: Any, results: Any) -> None:
    """Do the jobs, one for every turn that is given; put what came of them into the queue of results."""
    with Ledger(Path(ledger_path)) as ledger:
        intake = Intake(ledger, num_clients=NUM_CLIENTS)
        for place, job in enumerate(jobs):
            assert turns.acquire(timeout=300), "nobody gives this poster a turn"
            results.put(_do(intake, job, f"poster-{number}-{place}"))


def _do(intake: Intake, job: Job, key: str) -> Posted:
    asking = {"source": "http", "actor": "operator:test", "idempotency_key": key}
    try:
        receipt = intake.ask(job.clients, **asking)
    except InvalidRequestError:
        return Posted("invalid", None, job.clients)
    # The answer was lost on its way, say, and the poster asks again under the same key.
    again = intake.ask(job.clients, **asking)
    assert (again.request_id, again.repeated) == (receipt.request_id, True)
    if job.kind != "withdrawn":
        return Posted(job.kind, receipt.request_id, job.clients)
    try:
        intake.withdraw(receipt.request_id, actor="operator:test")
    except NotWithdrawableError:
        return Posted("too late", receipt.request_id, job.clients)
    return Posted("withdrawn", receipt.request_id, job.clients)
