"""Routines for Ray actors: what they do in a round, and what goes wrong, is told by the round's config."""

import os
import signal
from functools import partial
from pathlib import Path

import ray
import torch
from flwr.app import ConfigRecord, MetricRecord, RecordDict
from flwr.app import Message as FlowerMessage
from flwr.clientapp import ClientApp

from fedunlearn.errors import UserError
from fedunlearn.federation.answers import RoundWork
from fedunlearn.federation.payload import ModelState, pack, unpack
from tests.federation.scripted_routine import ScriptedRoutine, start_state


class RayRoutine(ScriptedRoutine):
    """``config``: "faults" as of ScriptedRoutine; "deadly" clients take their process with them.

    A "trap" is a folder with a pipe: who comes to client ``trapped`` for the first time writes the number of
    its process there, and waits for somebody to kill it. With a "home", any client on another node is trapped.
    """

    def train(self, client, kind, config, tensors):
        self.faults = config.get("faults", {})
        if client in config.get("deadly", ()):
            os.kill(os.getpid(), signal.SIGKILL)
        home = config.get("home")
        away = home is not None and ray.get_runtime_context().get_node_id() != home
        if client == config.get("trapped") or away:
            fall_into(Path(config["trap"]))
        return super().train(client, kind, config, tensors)

    def train_stack(self, clients, start, config):
        self.faults = config.get("faults", {})
        return super().train_stack(clients, start, config)


def fall_into(trap):
    """Tell who has come, and wait to be killed; whoever comes later goes through."""
    pipe = trap / "pid"
    try:
        pipe.rename(trap / "sprung")
    except FileNotFoundError:
        return
    (trap / "sprung").write_text(str(os.getpid()))
    signal.pause()


def set_trap(folder):
    """Return the config that makes a trap of a folder."""
    os.mkfifo(folder / "pid")
    return {"trap": str(folder)}


def broken():
    """A routine that cannot be made."""
    raise ZeroDivisionError("no data today")


def wrong():
    """A routine that the user's input keeps from being made."""
    raise UserError("data.source = 'mist': must be one of mnist")


def round_of(clients, *, forget=(), individually=False, buffers=False, number=1, size=7, **config):
    """Return a round's work."""
    state = start_state(buffers=buffers, size=size)
    config = {"round": number, "lr": 0.1, "seed": 1, **config}
    return RoundWork(state, config, tuple(clients), tuple(forget), individually)


# -- a client app, for messages ------------------------------------------------------------------------------

app = ClientApp()


@app.query()
def query(message, context):
    """Answer with everything a client knows, after counting how often it was asked."""
    counter = context.state.setdefault("counter", MetricRecord({"asked": 0}))
    counter["asked"] += 1
    told = {**context.node_config, **context.run_config, "run": context.run_id, "node": context.node_id}
    told |= {"asked": counter["asked"], "threads": torch.get_num_threads()}
    content = {"metrics": MetricRecord(), "config": ConfigRecord(told)}
    return FlowerMessage(RecordDict(content), reply_to=message)


@app.query("place")
def place(message, context):
    """Answer with the process and the GPUs it sees."""
    seen = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    content = {"metrics": MetricRecord({"pid": os.getpid()}), "config": ConfigRecord({"gpus": seen})}
    return FlowerMessage(RecordDict(content), reply_to=message)


@app.train()
def train(message, context):
    """Answer with the weights plus the client's number; clients 13 raise, clients in ``deadly`` die."""
    client = int(context.node_config["partition-id"])
    config = message.content["config"]
    if client in config.get("deadly", ()):
        os.kill(os.getpid(), signal.SIGKILL)
    if client == 13:
        raise RuntimeError("an unlucky number")
    state = unpack(message.content["arrays"])
    content = {
        "arrays": pack(ModelState(state.vector + client, state.buffers)),
        "metrics": MetricRecord({"n": 1}),
    }
    return FlowerMessage(RecordDict(content), reply_to=message)


WITH_BUFFERS = partial(RayRoutine, buffers=True)
