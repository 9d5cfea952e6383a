"""A live federation under its supervisor, and how it stands."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from typing import TypeVar

from fedunlearn import config
from fedunlearn.certificates.keys import new_key
from fedunlearn.requests import LIVE_BRANCH, Intake, Ledger, RequestRecord
from tests.deployment.federation import CLIENTS, Federation
from tests.deployment.flower import REPOSITORY, wait_for
from tests.deployment.link import NAME

T = TypeVar("T")


class Run:
    """A run, and the supervisors that keep it served until it is done.

    Parameters
    ----------
    federation
        Where it runs.
    name
        What its folder, its logs and its files are called.
    text
        The experiment.
    seed
        Of the random instants.
    supervisors
        How many are started, at the same time.
    """

    def __init__(
        self, federation: Federation, name: str, text: str, *, seed: int = 0, supervisors: int = 1
    ) -> None:
        self.federation = federation
        self.experiment = config.loads(text)
        self.folder = federation.folder / name
        self.killed_in: set[int] = set()
        """Rounds that were under way when a server was killed."""
        self._draw = random.Random(seed)
        self._logs = [f"supervisor-{name}-{number}" for number in range(supervisors)]
        file, key = federation.folder / f"{name}.toml", federation.folder / f"{name}.pem"
        file.write_text(text)
        new_key(key)
        words = federation.settings(file, signing_key=key, superlink_database=federation.link.database)
        command = ("supervise", "--app", REPOSITORY, "--superlink", NAME, "--folder", self.folder)
        options = ("--poll", "1", "--dead-after", "20", "--until-done", "--run-config", words)
        start = federation.flower.start_ours
        self._supervisors = [start(*command, *options, log=log) for log in self._logs]

    def ask(self, *clients: int) -> str:
        """Ask for clients to be forgotten, whether or not anybody serves now; return the request's id."""
        with Ledger(self.folder / "requests.sqlite") as ledger:
            intake = Intake(ledger, num_clients=len(CLIENTS))
            return intake.ask(clients, source="cli", actor="operator:local").request_id

    def wait(self, what: str, find: Callable[[Ledger], T | None]) -> T:
        """Return what is found in the ledger as soon as it is; nodes that die by themselves are started again."""

        def found() -> T | None:
            self.federation.link.tend()
            assert all(supervisor.poll() is None for supervisor in self._supervisors), self.logs()
            if not (self.folder / "requests.sqlite").is_file():
                return None
            with Ledger(self.folder / "requests.sqlite") as ledger:
                return find(ledger)

        try:
            return wait_for(what, found)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.logs()}") from None

    def wait_for_server(self, before: int = 0) -> int:
        """Wait until a server holds the lease that came after an earlier one; return its token."""

        def serving(ledger: Ledger) -> int | None:
            lease = ledger.lease(LIVE_BRANCH)
            return None if lease is None or lease.token <= before else lease.token

        return self.wait("a server", serving)

    def wait_for_plan(self, round: int) -> None:
        """Wait until a round has been planned."""
        self.wait(f"the plan of round {round}", lambda ledger: ledger.plan(LIVE_BRANCH, round))

    def wait_for_round(self, round: int) -> None:
        """Wait until a round is done, which is when the next one is planned or its checkpoint is there."""
        checkpoint = self.folder / "checkpoints" / f"{LIVE_BRANCH}-r{round:04d}.safetensors"

        def done(ledger: Ledger) -> bool | None:
            return checkpoint.exists() or ledger.last_round(LIVE_BRANCH) > round or None

        self.wait(f"the end of round {round}", done)

    def state(self, request: str) -> str:
        """Return the state of a request."""
        with Ledger(self.folder / "requests.sqlite") as ledger:
            record: RequestRecord = ledger.request(LIVE_BRANCH, request)
        return record.state

    def random_instant(self, within: float) -> None:
        """Let a random time pass, of at most so many seconds."""
        instant = time.monotonic() + self._draw.uniform(0.0, within)
        self.wait("a random instant", lambda ledger: time.monotonic() >= instant or None)

    def kill_server(self) -> int:
        """Kill the ServerApp as the kernel would; return the token of the lease that it held."""
        token = self._note_kill()
        found = self.federation.flower.processes("flwr-serverapp")
        assert found, "no ServerApp is there to be killed"
        for process in found:
            os.kill(process.pid, signal.SIGKILL)
        return token

    def kill_superlink(self) -> int:
        """Kill the SuperLink, and start it with its database again; return the token of the server's lease."""
        token = self._note_kill()
        link = self.federation.link
        link.process.kill()
        link.process.wait()
        link.start()
        return token

    def _note_kill(self) -> int:
        with Ledger(self.folder / "requests.sqlite") as ledger:
            self.killed_in.add(ledger.last_round(LIVE_BRANCH))
            lease = ledger.lease(LIVE_BRANCH)
        assert lease is not None
        return lease.token

    def end(self) -> None:
        """Wait until the run is complete, and nothing is open."""

        def ended() -> set[int] | None:
            self.federation.link.tend()
            codes = {supervisor.poll() for supervisor in self._supervisors}
            return None if None in codes else {code for code in codes if code is not None}

        assert wait_for("the supervisors' end", ended) == {0}, self.logs()

    def said(self) -> list[str]:
        """Return what each supervisor said."""
        return [self.federation.flower.log(log) for log in self._logs]

    def logs(self) -> str:
        """Return what everybody said."""
        return self.federation.logs(*self._logs)
