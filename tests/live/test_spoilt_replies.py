"""Thousands of spoilt replies through a live federation's server, over a SuperLink's objects.

None stops it. Each is counted for what it says, which an oracle adds up by itself, or refused by client number; and
no other client's is lost by it.
"""

import itertools
import json
import logging
from collections import Counter
from datetime import UTC, datetime
from io import BytesIO

import numpy as np
import pytest
import torch
from flwr.app import Message, RecordDict
from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

from fedunlearn.evaluation.histograms import Tally
from fedunlearn.federation.answers import FORGET, TRAIN
from fedunlearn.federation.grid import FIRST_CLIENT_NODE
from fedunlearn.federation.hosted_routine import Chosen
from fedunlearn.federation.jobs import Job
from fedunlearn.federation.payload import pack, unpack
from fedunlearn.federation.superlink_grid import SuperLinkGrid
from fedunlearn.federation.tallies import tally_record
from fedunlearn.live.evaluation import FederatedEvaluation
from fedunlearn.live.hooks import LiveConduct
from fedunlearn.live.measurements import RequestMeasures
from fedunlearn.live.notifications import Messenger
from fedunlearn.requests import LIVE_BRANCH, OPEN
from fedunlearn.server.recovery import RecoveryRule
from fedunlearn.strategies.puf import PUF, PUFSettings
from tests.federation.superlink import SuperLink
from tests.live.living import Living
from tests.live.spoiling import Spoiler
from tests.server.tiny import NUM_CLIENTS, Clients, initial_state, settings, training

ROUNDS = 6
SCALE = 1.5
SHIFT = 0.01


@pytest.fixture(autouse=True)
def _alike(monkeypatch):
    monkeypatch.setattr("os.fsync", lambda descriptor: None)
    monkeypatch.setattr("fedunlearn.live.hooks.FIRST_ANSWERS_SECONDS", 0.0)  # of real time
    # The same bytes every time: they are what is spoilt.
    numbers = itertools.count()
    monkeypatch.setattr("secrets.token_hex", lambda size: f"{next(numbers):0{2 * size}x}")
    monkeypatch.setattr("flwr.app.message.message.now", lambda: datetime(2030, 1, 1, tzinfo=UTC))
    monkeypatch.setattr(logging.getLogger("flwr"), "disabled", True)


class Measuring(Clients):
    """Clients that also measure, and learn that they have been forgotten."""

    @property
    def app(self):
        app = super().app
        app.evaluate("tally")(self._tally)
        app.query("forgotten")(self._tally)
        return app

    def _tally(self, message, context):
        client = self.number(context)
        told = tally_record(Tally(10 + client, 500.0, 7.0, (10 + client, *[0] * 19)))
        return Message(RecordDict({"tally": told} if message.content else {}), reply_to=message)


class Sending(PUF):
    """PUF whose clients are asked for a tensor beside the update, which moves the weights a little, too."""

    def job(self, start, kind):
        return Job(Chosen.of("fine-tune", {}), returns={"shift": start.w.numel()})

    def combine(self, round):
        shifts = [extras["shift"].tanh() for extras in round.extras.values()]
        return super().combine(round) + SHIFT * sum(shifts, torch.zeros_like(round.w))


class Roster:
    """The operator's word on which node serves which client."""

    def client_of_node(self, node_id):
        return node_id - FIRST_CLIENT_NODE


class Watched(FederatedEvaluation):
    """Asks the clients, and notes which weights it asked them of."""

    def __init__(self):
        super().__init__("classification", timeout=30)
        self.weights = {0: initial_state().vector.double().numpy()}
        self.metrics = []

    def __call__(self, server_round, arrays):
        self.weights[server_round] = unpack(arrays).vector.double().numpy()
        found = super().__call__(server_round, arrays)
        self.metrics.append(dict(found))
        return found


def serve(folder, seed):
    """Run one live federation with two requests to its end, of which about half of all replies are spoilt."""
    spoiler = Spoiler(seed)
    federation = Living(
        folder, clients=Measuring(), guard={"enabled": False}, rounds=ROUNDS, quorum=0.0, max_rounds=2
    )
    clock = federation.clock
    link = SuperLink(federation.clients.app, NUM_CLIENTS, spoil=spoiler)
    evaluation = Watched()
    measures = RequestMeasures(
        federation.ledger,
        LIVE_BRANCH,
        Messenger("classification", evaluation.held_out, timeout=30, clock=clock),
    )
    conduct = LiveConduct(
        federation.experiment,
        federation.ledger,
        folder,
        evaluation,
        roster=Roster(),
        measures=measures,
        clock=clock,
        pause=clock.pause,
    )
    federation.at_round(1, lambda: federation.ask(1))
    federation.at_round(3, lambda: federation.ask(3, 4))
    federation.strategy = Sending(
        settings(
            train=training(rounds=ROUNDS),
            recovery=RecoveryRule(until="max-rounds", max_rounds=2),
            stop_when_recovered=True,
            quorum=0.0,
        ),
        PUFSettings(scale=SCALE),
        branch=LIVE_BRANCH,
        ledger=federation.ledger,
        checkpoints=federation.checkpoints,
        observe=lambda report: (federation.reports.append(report), federation.on_report(report)),
        conduct=conduct,
    )
    grid = SuperLinkGrid(link, clock=clock, pause=clock.pause)
    federation.strategy.start(grid, pack(initial_state()), num_rounds=60, timeout=30, evaluate_fn=evaluation)
    return federation, spoiler, evaluation, link


def said(uploaded, link):
    """Return (update, examples, shift) of a reply, in float64, as an honest reader of Flower's format has it."""
    reply = inflate_object_from_contents(uploaded.proto.metadata.message_id, dict(link.objects))
    update, shift = reply.content["arrays"]["parameters"], reply.content["extras"]["shift"]
    delta, shifted = (np.load(BytesIO(array.data)).astype(np.float64) for array in (update, shift))
    return delta, reply.content["metrics"]["num-examples"], shifted


def check(federation, spoiler, evaluation, link):
    """Hold a federation against the oracle; return how many replies were counted and refused, honest and spoilt."""
    found = Counter()
    for report in federation.reports:
        t, plan = report.round, report.plan
        if t == 0:
            continue
        step, scale, examples, terms, shift = np.zeros(5), np.zeros(5), 0, 0, np.zeros(5)
        forgetting = not set(plan.forget) & report.failed.keys()
        for kind, clients in ((TRAIN, plan.train), (FORGET, plan.forget)):
            for client in clients:
                key = (kind, str(t), FIRST_CLIENT_NODE + client)
                spoilt = key in spoiler.spoilt
                why = report.failed.get(client)
                assert (why is None) == (client in report.losses) or kind == FORGET
                if why is not None:
                    assert spoilt, f"round {t}: client {client} sent nothing amiss, and was refused: {why}"
                    assert len(why) <= 4100
                    assert "cannot be read" not in why, "the last resort of the reader was needed"
                found["refused" if why else "counted, spoilt" if spoilt else "counted, sound"] += 1
                if why is not None or (kind == FORGET and not forgetting):
                    continue
                delta, n, shifted = said(spoiler.uploaded[key], link)
                shift = shift + SHIFT * np.tanh(shifted)
                sign = -SCALE if kind == FORGET else 1.0
                step, scale = step + sign * n * delta, scale + abs(sign * n * delta)
                examples, terms = examples + n, terms + 1
        before, after = evaluation.weights[t - 1], evaluation.weights[t]
        expected = before + (step / examples if terms else 0) + shift
        slack = 1e-6 * (np.abs(before) + (scale / examples if terms else 0)) + 1e-6
        if plan.forget and not np.allclose(after, before):
            assert forgetting
        if not np.allclose(after, before) or not plan.forget:
            assert (np.abs(after - expected) <= slack).all(), f"round {t}: {after} instead of {expected}"
    return found


def hold(federation, evaluation):
    """Check what is on record of it."""
    for record in federation.ledger.requests(LIVE_BRANCH):
        assert record.state not in OPEN
        json.dumps(federation.ledger.measures(LIVE_BRANCH, record.id), allow_nan=False)
    for metrics in evaluation.metrics:
        assert not metrics or (
            0 <= metrics["validation-accuracy"] <= 100 and np.isfinite(metrics["validation-loss"])
        )
    assert federation.ledger.check_trail(LIVE_BRANCH) == []


def run(folder, wanted, seed=0):
    """Spoil so many replies, and return the figures."""
    found, ways = Counter(), Counter()
    while ways.total() < wanted:
        place = folder / str(seed)
        place.mkdir()
        federation, spoiler, evaluation, link = serve(place, seed)
        found += check(federation, spoiler, evaluation, link)
        hold(federation, evaluation)
        federation.ledger.close()
        ways += spoiler.counts
        seed += 1
    return found, ways, seed


@pytest.mark.slow
def test_some_hundred_spoilt_replies(tmp_path):
    found, ways, _ = run(tmp_path, 300, seed=10_000)
    assert min(found.values()) > 10 and len(found) == 3
    assert len(ways) > 60


@pytest.mark.slow
def test_five_thousand_spoilt_replies(tmp_path, capsys):
    found, ways, federations = run(tmp_path, 5000)
    with capsys.disabled():
        print(
            f"\n{ways.total()} spoilt replies in {len(ways)} ways, {federations} live federations, 0 stops; of the "
            f"answers to training and forgetting {found['counted, sound']} sound ones counted, "
            f"{found['counted, spoilt']} spoilt ones counted for what they say, {found['refused']} refused by name"
        )
    assert len(found) == 3
