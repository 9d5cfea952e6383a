"""The round loop that every unlearning strategy shares: durable, resumable, one plan per round."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from logging import INFO, WARNING
from typing import Any, ClassVar

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.common.logger import log
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy
from torch import Tensor

from fedunlearn.config.settings import NoSettings
from fedunlearn.errors import NOT_FINITE, ConfigError, UserError
from fedunlearn.federation.answers import FORGET, TRAIN, Answers, RoundTrainer, RoundWork
from fedunlearn.federation.jobs import Job
from fedunlearn.federation.payload import ModelState, check_packed, pack, unpack
from fedunlearn.federation.sums import BlockSum, Contribution
from fedunlearn.parts import Assignment
from fedunlearn.requests import Ledger
from fedunlearn.runs.checkpoints import Checkpoints, Snapshot
from fedunlearn.server.architecture import Architecture, one_parameter
from fedunlearn.server.history import History, Keeps
from fedunlearn.server.hooks import Conduct
from fedunlearn.server.messages import MessageTrainer
from fedunlearn.server.plan import RoundPlan, Situation
from fedunlearn.server.recovery import RequestProgress
from fedunlearn.server.round import Needs, Round, RoundStart, State, copied, others_of, tensors_of
from fedunlearn.server.rounds import (
    QuorumMissedError,
    RoundInProgress,
    RoundReport,
    check_quorum,
    divergence,
    floats,
    is_finite,
    mean_loss,
    no_answers,
)
from fedunlearn.server.settings import Settings
from fedunlearn.training import learning_rate

EvaluateFn = Callable[[int, ArrayRecord], MetricRecord | None]


class RoundLoop(Strategy):
    """The rounds of a federation that can be asked to forget, whatever its method.

    The life of a round: poll the ledger → plan → commit the plan → send → combine → evaluate → checkpoint →
    bring the ledger up to the checkpoint. Killed anywhere in between, the next :meth:`start` with the same
    ledger and checkpoints carries on and ends in the same weights, bit for bit: a plan that was committed is
    executed as planned without polling again, a request that a checkpoint names is never applied twice.

    Parameters
    ----------
    settings
        Of the federation, see :class:`Settings`.
    method
        The strategy's own, of its ``settings_type``. Default: its defaults.
    branch
        Name of this federation in the ledger.
    ledger
        Where requests come from and plans are committed to. Default: an empty one in memory.
    checkpoints
        Where the federation is saved after every round. Default: nowhere.
    first_round
        Rounds already behind the weights given to :meth:`start`, for a federation that forks from another.
    observe
        Called with a :class:`RoundReport` for every round, just before it is saved.
    conduct
        What is done otherwise in a live federation. Default: as in a simulation.
    excluded
        Clients, and parts of clients' data, that never take part.
    architecture
        What the model is made of. Default: one parameter, and nobody knows how to draw it.
    history
        Returns the store of what the method needs of earlier rounds. Default: one in memory.
    archives
        Stores for federations that fork from this one.

    Raises
    ------
    ConfigError
        There is no such client or part.
    TypeError
        The settings are another strategy's.
    """

    settings_type: ClassVar[type] = NoSettings
    """Frozen dataclass of the strategy's own settings: its keys under [[method]]."""

    def __init_subclass__(cls, **options: Any) -> None:
        """Refuse a strategy with messages of its own, which nobody would send or read.

        Raises
        ------
        TypeError
        """
        super().__init_subclass__(**options)
        if own := {"configure_train", "aggregate_train"} & vars(cls).keys():
            raise TypeError(
                f"{cls.__name__}.{min(own)} would never be called: what clients do is for job() to say, and what "
                f"becomes of it for combine()"
            )

    def __init__(
        self,
        settings: Settings,
        method: Any = None,
        *,
        branch: str = "federation",
        ledger: Ledger | None = None,
        checkpoints: Checkpoints | None = None,
        first_round: int = 0,
        observe: Callable[[RoundReport], None] | None = None,
        conduct: Conduct | None = None,
        excluded: Iterable[int] = (),
        architecture: Architecture | None = None,
        history: Callable[[Keeps], History] = History,
        archives: Iterable[History] = (),
    ) -> None:
        self.method = self.settings_type() if method is None else method
        if not isinstance(self.method, self.settings_type):
            given, name = type(method).__name__, type(self).__name__
            raise TypeError(f"{name} takes {self.settings_type.__name__}, not {given}")
        self.needed = self.needs(self.method)
        if self.needed.individual and settings.aggregation.needs_individual:
            raise ValueError(
                f'aggregation = "{settings.aggregation.rule}": must be "mean", as {type(self).__name__} '
                "combines individual updates itself"
            )
        self.settings = settings
        self.conduct = conduct or Conduct()
        ledger = ledger if ledger is not None else Ledger(":memory:")
        self.docket = self.conduct.docket(
            ledger, branch, settings, forgets=self.forgets, online=self.needed.online
        )
        self.excluded = frozenset(excluded)
        if unknown := sorted(k for k in self.excluded if not self.docket.knows(k)):
            last = settings.num_clients - 1
            raise ConfigError(f"excluded: there is no client {unknown[0]}; clients are numbered 0 to {last}")
        self.checkpoints = checkpoints
        self.observe = observe
        self.round = first_round
        self.model: ModelState | None = None
        self._current: RoundInProgress | None = None
        self.history = History() if self.needed.keeps is None else history(self.needed.keeps)
        self._stores = (self.history, *archives)
        self._architecture = architecture
        self._state_before: State = {}
        self._before: Snapshot | None = None
        self._taken_back: int | None = (
            None  # to after which round, where the round at hand takes an unlearning back
        )
        """The federation before the unlearning of several rounds that is under way."""

    @property
    def requests(self) -> tuple[RequestProgress, ...]:
        """The requests served so far, and how far each has come."""
        return self.docket.requests

    @property
    def _recorded(self) -> bool:
        """Whether the round at hand goes into a history: an ordinary one that a store keeps."""
        plan = self._current.plan if self._current is not None else None
        if plan is None or plan.forget:
            return False
        return any(store.keeps_round(plan.round) for store in self._stores)

    @property
    def _keeping(self) -> bool:
        """Whether anything is ever kept of earlier rounds."""
        return any(store.keeps is not None for store in self._stores)

    @property
    def _individually(self) -> bool:
        """Whether a round's updates are held one by one until all have arrived."""
        asked = self.needed.individual or self.settings.aggregation.needs_individual or self._recorded
        return asked or self.conduct.wants_updates

    # -- what a method decides: see fedunlearn/strategies/base.py -------------------------------------------

    forgets: ClassVar[bool]

    @classmethod
    @abstractmethod
    def needs(cls, method: Any) -> Needs:
        """Return what the method cannot do without, with these settings."""

    @abstractmethod
    def plan(self, situation: Situation) -> RoundPlan:
        """Decide who trains and who is forgotten in a round."""

    @abstractmethod
    def job(self, start: RoundStart, kind: str) -> Job | None:
        """Return what one kind of the round's clients does instead of training."""

    @abstractmethod
    def combine(self, round: Round) -> Tensor:
        """Return the next global weights as a new tensor."""

    @abstractmethod
    def buffers(self, round: Round) -> Mapping[str, Tensor]:
        """Return the next global buffers."""

    @abstractmethod
    def coefficients(self, round: Round) -> dict[int, float]:
        """Return the factor that multiplied each forgotten client's update."""

    @abstractmethod
    def state(self) -> State:
        """Return what the method keeps between rounds."""

    @abstractmethod
    def load_state(self, state: State) -> None:
        """Take over what :meth:`state` has returned."""

    # -- Flower's verbs -----------------------------------------------------------------------------------

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Refuse: :meth:`start` has no use for it, and another loop would train a forgotten client again.

        Raises
        ------
        UserError
        """
        raise self._not_its_start()

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Refuse, as :meth:`configure_train` does.

        Raises
        ------
        UserError
        """
        raise self._not_its_start()

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Return no messages: simulations measure on the server, in one pass over all data."""
        return []

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Return nothing, since nothing was asked."""
        return None

    def summary(self) -> None:
        """Log what will run."""
        log(INFO, "\t└──> %s: %s", type(self).__name__, self.settings)

    # -- the loop -----------------------------------------------------------------------------------------

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: EvaluateFn | None = None,
    ) -> Result:
        """Run the federation, from its latest checkpoint if there is one, up to round ``num_rounds``.

        Parameters are Flower's. ``evaluate_fn`` measures the weights after each round; recovery is judged by
        the ``validation-accuracy`` (percent; of masks ``validation-dice``) it returns. ``num_rounds`` counts
        from the federation's first round ever, not from ``first_round``.

        Returns
        -------
        flwr.serverapp.strategy.Result
            Final arrays, and the metrics of the rounds executed by this call.

        Raises
        ------
        QuorumMissedError
            If a round misses its quorum; a live federation waits and repeats the round instead.
        DivergedError
            If the weights of a simulated federation became NaN or infinite.
        UserError
            If ``initial_arrays`` are not a model as :func:`~fedunlearn.federation.payload.pack` makes it.
        """
        check_packed(initial_arrays)
        result = Result()
        config = train_config or ConfigRecord()
        arrays = self._resume(initial_arrays)
        self.conduct.begins(self.round, self.docket, unpack(arrays), grid)
        if self.round == 0 and evaluate_fn is not None and self.checkpoints is not None:
            metrics = evaluate_fn(0, arrays)
            begun = RoundInProgress(RoundPlan(0, ()), {}, no_answers())
            self.conduct.learn(begun, self.docket, floats(metrics))
            with self.conduct.writing():
                self._report(begun, metrics, 0.0)
        while self.conduct.next_round(self.round + 1, num_rounds, self.docket, self.settings, grid):
            began = time.perf_counter()
            server_round = self.round + 1
            before = arrays = self._planned(server_round, arrays)
            try:
                arrays, train_metrics = self._train(server_round, before, config, grid, timeout)
            except QuorumMissedError as error:
                self.conduct.missed(error, grid)
                continue
            metrics = evaluate_fn(server_round, arrays) if evaluate_fn is not None else None
            if why := self._objection(metrics):
                arrays = self._roll_back(before, why)
                metrics = evaluate_fn(server_round, arrays) if evaluate_fn is not None else None
            self._complete(metrics, time.perf_counter() - began, grid)
            if train_metrics is not None:
                result.train_metrics_clientapp[server_round] = train_metrics
            if metrics is not None:
                result.evaluate_metrics_serverapp[server_round] = metrics
        result.arrays = arrays
        return result

    def _train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid, timeout: float
    ) -> tuple[ArrayRecord, MetricRecord | None]:
        """Return what the clients make of the model in one round, by messages or without."""
        trainer = self._trainer(grid, timeout)
        model = unpack(arrays)
        plan, failed, config = self._begin(server_round, model, config)
        current = self._current
        assert current is not None
        current.jobs = self._jobs(plan, model)
        answers = trainer.train_round(
            RoundWork(
                state=model,
                config=config,
                train=tuple(k for k in plan.train if k not in failed),
                forget=tuple(k for k in plan.asked_to_forget if k not in failed),
                individually=self._individually,
                norms=self.conduct.wants_norms,
                tolerant=self.conduct.tolerant,
                assignments=self.assignments(plan),
                jobs=current.jobs,
            )
        )
        self.model = self._combine(current, model, answers)
        return pack(self.model), mean_loss(answers)

    def _planned(self, server_round: int, arrays: ArrayRecord) -> ArrayRecord:
        """Plan and commit a round; return the weights that it starts from, which a plan may have to go back to."""
        plan, failed = self.docket.plan(server_round, partial(self._decide, server_round))
        if self._breaks_off(plan.round, plan.step):
            arrays = pack(self._go_back())
            self._before = None
        if plan.step == 0 and not plan.completes:
            state, model = copied(self.state()), unpack(arrays)
            others = {"strategy": others_of(state)} if others_of(state) else {}
            self._before = Snapshot(server_round - 1, model.vector, model.buffers, others, tensors_of(state))
        self._current = RoundInProgress(plan, failed, no_answers())
        return arrays

    def _breaks_off(self, round: int, step: int) -> bool:
        """Whether a plan does not go on with the unlearning under way; a round that is repeated begins it again."""
        return step == 0 and self._before is not None and self._before.round < round - 1

    def _go_back(self) -> ModelState:
        """Take back the unlearning under way: the method's state here; weights and buffers are returned."""
        before = self._before
        assert before is not None
        self.docket.break_off()
        self.load_state(copied({**before.meta.get("strategy", {}), **before.state}))
        self.history.take_back(before.round)
        self._taken_back = before.round
        return ModelState(before.vector, before.buffers)

    def _trainer(self, grid: Grid, timeout: float) -> RoundTrainer:
        """Return the engine's own way to train a round, or messages."""
        trainer: RoundTrainer | None = getattr(grid, "trainer", None)
        return trainer or MessageTrainer(grid, self.conduct.nodes(grid), timeout)

    def _not_its_start(self) -> UserError:
        """Return the error of a loop that would forget a client in one round and train it in the next."""
        return UserError(
            f"{type(self).__name__} must be run with its own start(): Flower's Strategy.start, or a wrapper such as "
            f"DifferentialPrivacy… around it, would train a forgotten client again; nothing has been sent"
        )

    def _begin(
        self, server_round: int, model: ModelState, config: ConfigRecord
    ) -> tuple[RoundPlan, Mapping[int, str], ConfigRecord]:
        """Begin the planned round; return the plan, who failed in it before a crash, what clients are told."""
        self.model = model
        assert self._current is not None, "start() plans first"
        plan, failed = self._current.plan, self._current.failed
        for store in self._stores:
            store.begin(server_round, model.vector.device)
        self.docket.begin(plan)
        told = {
            **config,
            **self.conduct.told(plan),
            "round": server_round,
            "lr": learning_rate(self.settings.train, server_round),
            "seed": self.settings.seed,
        }
        return plan, failed, ConfigRecord(told)

    def _jobs(self, plan: RoundPlan, model: ModelState) -> dict[str, Job]:
        """Return what the kinds that take part in the round do other than to train as usual."""
        start = RoundStart(plan, model, self.settings.seed, self._architecture_of(model), self.history)
        jobs = {}
        for kind, numbers in ((TRAIN, plan.train), (FORGET, plan.asked_to_forget)):
            if not numbers or (job := self.job(start, kind)) is None:
                continue
            like = model.vector
            if job.start is not None and (job.start.shape, job.start.dtype) != (like.shape, like.dtype):
                raise ValueError(
                    f"{type(self).__name__}.job: start of shape {tuple(job.start.shape)} and {job.start.dtype}, the "
                    f"weights are of {tuple(like.shape)} and {like.dtype}"
                )
            jobs[kind] = job
        return jobs

    def _architecture_of(self, model: ModelState) -> Architecture:
        return self._architecture or one_parameter(model.vector)

    def _combine(self, current: RoundInProgress, model: ModelState, answers: Answers) -> ModelState:
        """Return the next global model from the round's answers."""
        plan = current.plan
        quorum, routine = self.settings.quorum, FORGET in current.jobs
        answers.refuse(self.conduct.screened(plan, self.docket, answers, model, routine=routine))
        # A client that had failed before a crash was not asked again: the replay does the same.
        answers.failed |= current.failed
        if why := divergence(plan, answers.failed, quorum, routine=routine):
            self.conduct.diverged(plan.round, why)
        check_quorum(plan, answers.failed, self.settings.quorum)
        self.docket.record_failures(plan, current.failed, answers.failed)
        held = bool(answers.failed.keys() & set(plan.forget))
        if held and plan.several:
            # Nor is a part of it of another kind of round: it is tried again, or all of it is taken back.
            answers.forgetting, current.answers = [], answers
            return self._go_back() if self.docket.breaks_off(plan, answers.failed) else model
        if held:
            # Never half applied: the whole concurrent set waits for a later round.
            answers.forgetting = []
            answers.extras = {k: extras for k, extras in answers.extras.items() if k not in plan.forget}
        else:
            answers.forgetting = self.conduct.forgetting(plan, answers, model)
            if plan.requests and (plan.step == 0 or plan.completes):
                after, start = self._unlearned_from(plan, model)
                current.reference = self.conduct.reference(plan, self.docket, start, round=after)
        current.answers = answers
        current.forgets = bool(answers.forgetting or (plan.forget and not plan.asks))
        round = self._round_of(current, model)
        self._state_before = copied(self.state())
        made = ModelState(self.combine(round), self.buffers(round))
        current.coefficients = self.coefficients(round)
        if is_finite(made):
            return made
        self.conduct.diverged(plan.round, f"the global model {NOT_FINITE}")
        if current.forgets:
            # What a step that forgets has made of the model is the guard's to judge, as its requests depend on it.
            return made
        self.load_state(self._state_before)
        return model

    def _unlearned_from(self, plan: RoundPlan, model: ModelState) -> tuple[int, ModelState]:
        """Return the model before the unlearning at hand, and after which round it was that."""
        if (before := self._before) is None:
            return plan.round - 1, model
        return before.round, ModelState(before.vector, before.buffers)

    def _round_of(self, current: RoundInProgress, model: ModelState) -> Round:
        """Return a round as the method sees it, with the retained updates summed up."""
        summed, updates = current.answers.retained, tuple[Contribution, ...]()
        if not isinstance(summed, BlockSum):
            self.conduct.keep(current.plan, summed)
            if self._recorded:
                job = current.jobs.get(TRAIN)
                for store in self._stores:
                    store.record(model, summed, None if job is None else job.start)
            updates = tuple(summed) if self.needed.individual else ()
            summed = self.settings.aggregation.sum_of(summed)
            current.answers.retained = summed
        return Round(
            plan=current.plan,
            model=model,
            seed=self.settings.seed,
            architecture=self._architecture_of(model),
            history=self.history,
            retained=summed,
            updates=updates,
            forgetting=current.answers.forgetting,
            forgets=current.forgets,
            extras=current.answers.extras,
        )

    def _resume(self, initial: ArrayRecord) -> ArrayRecord:
        """Return the weights to go on from, and bring the ledger to what they have been through."""
        # Who is replaced between looking for the checkpoint and dropping what is later would drop its successor's.
        with self.conduct.writing() if self._keeping else nullcontext():
            snapshot = self.checkpoints.latest() if self.checkpoints is not None else None
            if snapshot is not None:
                self.round = snapshot.round
            taken_back = None if snapshot is None else snapshot.meta.get("taken-back")
            for store in self._stores:
                store.restore(self.round, taken_back=taken_back)
        if snapshot is None:
            return initial
        self.docket.restore(snapshot.meta["requests"])
        self.conduct.restore(snapshot.meta)
        self.docket.reconcile(self.round)
        like = unpack(initial).vector
        tensors = {name: tensor.to(like.device) for name, tensor in snapshot.state.items()}
        self.load_state({**snapshot.meta.get("strategy", {}), **tensors})
        if (before := snapshot.before) is not None:
            tensors = {name: tensor.to(like.device) for name, tensor in before.state.items()}
            self._before = replace(before, vector=before.vector.to(like.device), state=tensors)
        return pack(ModelState(snapshot.vector.to(like.device), snapshot.buffers))

    def _decide(
        self, server_round: int, to_forget: tuple[int, ...], gone: frozenset[int], step: int
    ) -> RoundPlan:
        """Ask the method for its plan of a round."""
        if self._breaks_off(server_round, step):
            self._go_back()  # it plans with the state that the round will start with
        settings, docket = self.settings, self.docket
        plan = self.plan(
            Situation(
                round=server_round,
                num_clients=settings.num_clients,
                slots=settings.slots,
                gone=gone,
                to_forget=to_forget,
                seed=settings.seed,
                absent=self.conduct.absent,
                step=step,
            )
        )
        never = gone | self.excluded
        without = docket.parts.without(plan.train, plan.forget, never, docket.settled)
        return replace(plan, without=without)

    def assignments(self, plan: RoundPlan) -> dict[int, Assignment]:
        """Return what those of a round work with who do not simply work with all of their data."""
        return self.docket.parts.assignments((*plan.train, *plan.asked_to_forget), plan.without)

    def _objection(self, metrics: MetricRecord | None) -> str:
        """Ask the guard about a round that forgot somebody; an empty string: it may stand."""
        current = self._current
        assert current is not None and self.model is not None
        if not current.forgets:
            return ""
        why = self.conduct.objection(current, self.docket, self.model, floats(metrics))
        if why:
            requests = ", ".join(current.plan.requests)
            log(WARNING, "round %d was rolled back: %s; refused: %s", current.plan.round, why, requests)
        return why

    def _roll_back(self, before: ArrayRecord, why: str) -> ArrayRecord:
        """Return to the weights before the round, or before the first round of the unlearning."""
        assert self._current is not None
        self._current.roll_back(why)
        if self._before is not None:
            self.model = self._go_back()
            return pack(self.model)
        self.load_state(self._state_before)
        self.history.take_back(self._current.plan.round - 1)
        self.model = unpack(before)
        return before

    def _publish(self, current: RoundInProgress, metrics: MetricRecord | None, seconds: float) -> None:
        """Do what goes before a checkpoint, and counts from it on."""
        for store in self._stores:
            store.publish()
        self._report(current, metrics, seconds)

    def _report(self, current: RoundInProgress, metrics: MetricRecord | None, seconds: float) -> None:
        if self.observe is None:
            return
        plan, answers = current.plan, current.answers
        report = RoundReport(
            round=plan.round,
            plan=plan,
            metrics=floats(metrics),
            requests=self.requests,
            losses=answers.losses,
            failed=answers.failed,
            coefficients=current.coefficients,
            seconds=seconds,
        )
        self.observe(report)

    def _complete(self, metrics: MetricRecord | None, seconds: float, grid: Grid) -> None:
        """Judge recovery, save the federation, then tell ledger and observer."""
        current, docket = self._current, self.docket
        assert current is not None and self.model is not None
        plan = current.plan
        docket.apply(
            plan,
            current.answers.failed,
            reference=current.reference,
            refused=current.refused,
            delivered=current.forgotten,
        )
        self.round = plan.round
        docket.requests = self.settings.recovery.judge(docket.requests, self.round, floats(metrics))
        self.conduct.learn(current, docket, floats(metrics))
        if not docket.under_way:
            self._before = None
        state = self.state()
        account = {"requests": docket.account(), **self.conduct.account()}
        if others := others_of(state):
            account["strategy"] = others
        if self._taken_back is not None:
            account["taken-back"] = self._taken_back
        self.conduct.save(
            self.checkpoints,
            Snapshot(
                self.round, self.model.vector, self.model.buffers, account, tensors_of(state), self._before
            ),
            lambda: self._publish(current, metrics, seconds),
            {place: file for store in self._stores for place, file in store.prepared.items()},
        )
        self._taken_back = None
        if self._keeping:
            with self.conduct.writing():  # what is stale to a server that was replaced may be its successor's
                for store in self._stores:
                    store.settle(under_way=bool(docket.under_way))
        docket.reconcile(self.round)
        self.conduct.completed(current, docket, self.model, floats(metrics), grid)
