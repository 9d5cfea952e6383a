"""Which branches belong into one chart: the methods that answer the same requests, and their oracles.

A *panel* is one target set (or one timeline) under one seed. The reference at round t is the oracle of the
requests made before t; the floor is the median distance between that oracle and others of other seeds.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from fedunlearn.report.run_files import Branch, Request, RunFiles
from fedunlearn.report.scores import Json
from fedunlearn.report.series import Series, series_of
from fedunlearn.report.words import PartName, clients


@dataclass(frozen=True)
class Reference:
    """The oracle that counts from one round on, and the further retrainings beside it."""

    first_round: int
    last_round: int
    retrain: Branch
    floors: tuple[Branch, ...]


@dataclass(frozen=True)
class Panel:
    """One chart's worth of branches."""

    seed: int
    target: int | None
    requests: tuple[Request, ...]
    forget: tuple[int, ...]
    """Everything forgotten in the end: what the branches' ``forget`` split consists of."""
    original: Branch | None
    methods: tuple[Branch, ...]
    references: tuple[Reference, ...]
    fork: int
    """The last round before the first request is answered."""
    last: int
    start: int
    """The first round worth drawing: the requests are the story, not the training before them."""
    names: Mapping[int, str | PartName]
    """Of clients that have one."""

    @property
    def title(self) -> str:
        """What is forgotten, in words."""
        start = f"Timeline of {len(self.requests)} requests: forget " if len(self.requests) > 1 else "Forget "
        return start + clients(self.forget, self.names)


def panels(run: RunFiles) -> list[Panel]:
    """Return the panels of a run: seed by seed, target by target."""
    together: dict[tuple[int, int, tuple[int, ...]], list[Branch]] = defaultdict(list)
    for branch in run.branches:
        if branch.kind == "method":
            place = -1 if branch.target is None else branch.target
            together[branch.seed, place, branch.forget].append(branch)
    return [_panel(run, together[key]) for key in sorted(together)]


def _panel(run: RunFiles, methods: Sequence[Branch]) -> Panel:
    first = methods[0]
    requests = tuple(sorted(first.requests, key=lambda request: (request.at_round, request.id)))
    fork = requests[0].at_round
    last = max(branch.last_round for branch in methods)
    beside = [branch for branch in run.branches if branch.seed == first.seed]
    return Panel(
        seed=first.seed,
        target=first.target,
        requests=requests,
        forget=first.forget,
        original=next((branch for branch in beside if branch.kind == "original"), None),
        methods=tuple(methods),
        references=_references(requests, beside, last),
        fork=fork,
        last=last,
        start=max(1, fork - max(3, round((last - fork) * 0.3))),
        names=run.names(first.seed),
    )


def _references(requests: Sequence[Request], beside: Sequence[Branch], last: int) -> tuple[Reference, ...]:
    """Return, for every request in turn, the oracle that never saw what was forgotten up to it."""
    found: list[Reference] = []
    gone: set[int] = set()
    for place, request in enumerate(requests):
        gone |= set(request.clients)
        retrained = [branch for branch in beside if set(branch.forget) == gone]
        retrain = next((branch for branch in retrained if branch.kind == "retrain"), None)
        floors = tuple(branch for branch in retrained if branch.kind == "floor")
        end = requests[place + 1].at_round if place + 1 < len(requests) else last
        if retrain is not None:
            found.append(Reference(0 if place == 0 else request.at_round, end, retrain, floors))
    return tuple(found)


def original_series(run: RunFiles, panel: Panel, split: str) -> Series:
    """Return the original's trajectory up to the fork.

    Its quality on forgotten data depends on who is forgotten, so no line of its own need have it: it is the mean over
    ``client-k`` lines weighted by their sizes, else the scorecard's one value when the request arrived.
    """
    if panel.original is None:
        return series_of({})
    name, quality = panel.original.name, run.scores.quality
    if split != "forget":
        return run.metrics.series(name, split, quality.measure).between(0, panel.fork)
    partition = run.partitions.get(panel.seed)
    sizes = [partition.size(client) if partition else 1 for client in panel.forget]
    weights = [float(size) for size in sizes if size is not None]
    if len(weights) == len(panel.forget):
        mean = run.metrics.over_clients(name, "forget", panel.forget, weights, quality.measure)
        mean = mean.between(0, panel.fork)
        if len(mean):
            return mean
    for row in run.scores.rows_at("original", "request"):
        value = (row.get("metrics") or {}).get(quality.of("forget"))
        same = row.get("seed") == panel.seed and _forgotten(row) == set(panel.forget)
        if same and value is not None and row.get("round") == panel.fork:
            return series_of({panel.fork: float(value)})
    return series_of({})


def _forgotten(row: Json) -> set[int]:
    forget = row.get("forget") or {}
    return set(forget.get("parts") or forget.get("clients") or ())


def method_series(run: RunFiles, panel: Panel, branch: Branch, split: str) -> Series:
    """Return a method's trajectory, beginning at the point of the original from which it forks."""
    own = run.metrics.series(branch.name, split, run.scores.quality.measure)
    before = original_series(run, panel, split).between(panel.fork, panel.fork)
    return before.followed_by(own) if len(own) else own


def reference_series(run: RunFiles, panel: Panel, reference: Reference, split: str) -> tuple[Series, Series]:
    """Return (the oracle's trajectory, its median |distance| to further retrainings), while the oracle counts.

    A value on forgotten data is comparable only where it is over the same data: of a timeline's oracles that is
    the last alone, so it is then returned over all rounds.
    """
    measure = run.scores.quality.measure
    first, last = reference.first_round, reference.last_round
    if split == "forget":
        if set(reference.retrain.forget) != set(panel.forget):
            return series_of({}), series_of({})
        first = 0
    oracle = run.metrics.series(reference.retrain.name, split, measure).between(first, last)
    others = [
        run.metrics.series(floor.name, split, measure).between(first, last).as_dict()
        for floor in reference.floors
    ]
    distances = {
        round: [abs(value - other[round]) for other in others if round in other]
        for round, value in oracle.as_dict().items()
    }
    return oracle, series_of({round: median(known) for round, known in distances.items() if known})
