"""A SuperLink with TLS and the SuperNodes of three clients, with keys and data of their own, on this machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from fedunlearn import config, workspace
from fedunlearn.data.export import export
from tests.deployment import tiny
from tests.deployment.flower import Flower, run_config, wait_for
from tests.deployment.link import Link
from tests.deployment.site import Site, can_make_networks

CLIENTS = (0, 1, 2)
APART = 2
"""The client whose SuperNode has a network of its own, where tests may make one."""


@dataclass
class Federation:
    """What runs, and where.

    Attributes
    ----------
    folder : Path
        Holds ``data/`` and whatever tests put there.
    site : Site or None
        The network of client :data:`APART`'s node.
    """

    folder: Path
    flower: Flower
    link: Link
    roster: Path
    site: Site | None

    @property
    def validation(self) -> Path:
        """The server's validation data."""
        return self.folder / "data" / "server" / "validation.safetensors"

    def data_of(self, client: int) -> Path:
        """Return the folder of a client's data."""
        return self.folder / "data" / f"client-{client}"

    def settings(self, experiment: Path, **more: object) -> str:
        """Return the run config of a run of an experiment."""
        return run_config(experiment=experiment, roster=self.roster, validation=self.validation, **more)

    def environment(self) -> Mapping[str, str]:
        """Return what this process needs in its environment to reach the SuperLink as its programs do."""
        mine = self.flower.environment
        return {name: value for name, value in mine.items() if name.startswith("FLWR_") or name == "PATH"}

    def await_nodes(self, *clients: int) -> None:
        """Wait until the nodes of these clients have been let in."""
        for client in clients:
            line = f"SuperNode ID: {self.link.nodes[client]}"
            wait_for(f"node {client}", lambda c=client, x=line: x in self.flower.log(f"node-{c}") or None)

    def logs(self, *more: str) -> str:
        """Return what everybody said."""
        names = [*more, "superlink", *(f"node-{client}" for client in self.link.nodes)]
        return "\n".join(f"== {name}\n{self.flower.log(name)}" for name in names)


@contextmanager
def opened(folder: Path) -> Iterator[Federation]:
    """Start a federation's processes, and end them with the block."""
    export(workspace.data_of(config.loads(tiny.LIVE), 1), folder / "data")
    with ExitStack() as stack:
        site = stack.enter_context(Site()) if can_make_networks() else None
        flower = stack.enter_context(Flower(folder / "flower"))
        link = Link(flower) if site is None else Link(flower, site.server)
        with ThreadPoolExecutor() as pool:
            list(pool.map(link.register, CLIENTS))
        federation = Federation(folder, flower, link, link.write_roster(), site)
        for client in CLIENTS:
            apart = site if client == APART else None
            link.start_node(client, site=apart, data_dir=federation.data_of(client))
        federation.await_nodes(*CLIENTS)
        yield federation
