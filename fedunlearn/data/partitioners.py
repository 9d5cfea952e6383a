"""Dealing training rows out to clients.

A partitioner is a pure function ``(labels, num_clients, rng, settings) -> Partition``: `labels` is int64,
(n,); every row is dealt exactly once (at most once if the partition is read from a file). It works out the
owner of every row in an array, never a list per client: 100 000 clients are dealt to in a second. A client left
without data is an error: it could neither train nor be forgotten.
"""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np

from fedunlearn.config.conditions import Count, above
from fedunlearn.config.settings import PartitionSettings
from fedunlearn.data.partition import Partition
from fedunlearn.data.source import Indices
from fedunlearn.errors import ConfigError
from fedunlearn.plurals import counted


def iid(labels: Indices, num_clients: int, rng: np.random.Generator) -> Partition:
    """Rows at random, equally many per client."""
    owners = np.empty(len(labels), dtype=np.int64)
    owners[rng.permutation(len(labels))] = in_turn(len(labels), num_clients)
    return hand_out(owners, num_clients, f"federation.num-clients = {num_clients}", "lower it")


@dataclass(frozen=True)
class DirichletSettings(PartitionSettings):
    """How even the shares are; smaller is more uneven."""

    alpha: Annotated[float, above(0)] = 0.3


def dirichlet(
    labels: Indices, num_clients: int, rng: np.random.Generator, settings: DirichletSettings
) -> Partition:
    """Label skew: each class is spread over the clients in shares drawn from Dirichlet(data.alpha).

    Small `alpha` gives most of a class to few clients; large `alpha` tends to equal shares. Clients' sizes
    differ.

    Source: Hsu, Qi and Brown 2019 (arXiv 1909.06335), with the draw per class over clients as in PUF's code.
    """
    alpha = settings.alpha
    owners = np.empty(len(labels), dtype=np.int64)
    for label in np.unique(labels):
        rows = rng.permutation(np.flatnonzero(labels == label))
        shares = rng.dirichlet(np.full(num_clients, alpha))
        if not np.isclose(shares.sum(), 1):  # the sampler overflowed
            raise ConfigError(f"data.alpha = {alpha}: too large to draw from; 1e6 is practically even")
        cuts = (np.cumsum(shares)[:-1] * len(rows)).astype(np.int64)
        # The sum of many shares may exceed 1 by its rounding, and a cut the last row.
        bounds = np.minimum(np.concatenate([[0], cuts, [len(rows)]]), len(rows))
        owners[rows] = np.repeat(np.arange(num_clients), np.diff(bounds))
    return hand_out(
        owners,
        num_clients,
        f"data.alpha = {alpha}",
        "raise it, lower federation.num-clients or use another seed",
    )


@dataclass(frozen=True)
class PathologicalSettings(PartitionSettings):
    """How few classes a client holds."""

    classes_per_client: Count = 2


def pathological(
    labels: Indices, num_clients: int, rng: np.random.Generator, settings: PathologicalSettings
) -> Partition:
    """Each client holds data.classes-per-client classes, each class equally many clients (± 1).

    A class's rows are shared equally by the clients that hold it.
    """
    classes, classes_per_client = np.unique(labels), settings.classes_per_client
    setting = f"data.classes-per-client = {classes_per_client}"
    if classes_per_client > len(classes):
        raise ConfigError(
            f"{setting}: the data have only {counted(len(classes), 'class', 'classes')}; lower it"
        )
    if classes_per_client * num_clients < len(classes):
        raise ConfigError(
            f"{setting}: {num_clients} clients cannot cover {len(classes)} classes; "
            "raise it or federation.num-clients"
        )
    holders: list[list[int]] = [[] for _ in classes]
    held = [0] * len(classes)  # the lists' lengths, as plain numbers: a client is a few microseconds' work
    for client in range(num_clients):
        # Taking the classes with fewest holders so far keeps the numbers of holders within one of each other;
        # the random order breaks ties, so that the classes which meet in a client vary.
        order = rng.permutation(len(classes)).tolist()
        for index in sorted(order, key=held.__getitem__)[:classes_per_client]:
            holders[index].append(client)
            held[index] += 1
    owners = np.empty(len(labels), dtype=np.int64)
    for label, clients in zip(classes, holders, strict=True):
        rows = rng.permutation(np.flatnonzero(labels == label))
        owners[rows] = np.array(clients)[in_turn(len(rows), len(clients))]
    return hand_out(owners, num_clients, setting, "lower federation.num-clients")


@dataclass(frozen=True)
class ShardsSettings(PartitionSettings):
    """How many shards a client gets."""

    shards_per_client: Count = 2


def shards(
    labels: Indices, num_clients: int, rng: np.random.Generator, settings: ShardsSettings
) -> Partition:
    """Rows sorted by label, cut into equal shards, data.shards-per-client of them dealt to each client.

    Source: McMahan et al. 2017 (arXiv 1602.05629), where each of 100 clients gets 2 of 200 shards.
    """
    shards_per_client = settings.shards_per_client
    num_shards = num_clients * shards_per_client
    client_of_shard = np.empty(num_shards, dtype=np.int64)
    client_of_shard[rng.permutation(num_shards)] = in_turn(num_shards, num_clients)
    owners = np.empty(len(labels), dtype=np.int64)
    owners[np.argsort(labels, kind="stable")] = client_of_shard[in_turn(len(labels), num_shards)]
    return hand_out(
        owners,
        num_clients,
        f"data.shards-per-client = {shards_per_client}",
        "lower it or federation.num-clients",
    )


@dataclass(frozen=True)
class SiteSettings(PartitionSettings):
    """None."""

    of_sites: ClassVar[bool] = True


NO_KEYS = SiteSettings()


def by_site(
    num_clients: int,
    *,
    sites: Indices | None,
    site_names: tuple[str, ...],
    other_folders: tuple[str, ...] = (),
    settings: SiteSettings = NO_KEYS,
) -> Partition:
    """One site's data per client; federation.num-clients is the number of sites.

    Parameters
    ----------
    num_clients : int
    sites : ndarray or None
        int64, (n,): each row's site, None for data without sites.
    site_names : tuple of str
        By number of site.
    other_folders : tuple of str
        What lies beside the sites and is not known as one: perhaps the one that is missed.
    """
    if sites is None:
        raise ConfigError(
            "data.partition = 'site': requires data with sites, such as prostate-mri; choose another"
        )
    if num_clients != len(site_names):
        unknown = f"; there is no site named {' or '.join(other_folders)}" if other_folders else ""
        raise ConfigError(
            f"federation.num-clients = {num_clients}: there are {len(site_names)} sites ({', '.join(site_names)}) "
            f"and each is one client; set it to {len(site_names)}{unknown}"
        )
    return hand_out(sites, num_clients, "data.partition = 'site'", "add cases")


def in_turn(n: int, parts: int) -> Indices:
    """Return the part that each of `n` things falls into: consecutive ones together, the first n % parts larger.

    The sizes are those of ``numpy.array_split``; a part may be empty.
    """
    least, larger = divmod(n, parts)
    sizes = np.full(parts, least)
    sizes[:larger] += 1
    return np.repeat(np.arange(parts, dtype=np.int64), sizes)


def hand_out(owners: Indices, num_clients: int, setting: str, remedy: str) -> Partition:
    """Return the partition that gives every row to its owner, or refuse one that leaves a client with none.

    Parameters
    ----------
    owners : ndarray
        int64, (n,): each row's client, −1 for a row that is nobody's.
    num_clients : int
        Clients there must be.
    setting, remedy : str
        What to name, and what to advise, should a client have no data although there are rows for all.
    """
    partition = Partition.of_owners(owners, num_clients)
    without = np.flatnonzero(partition.sizes == 0)
    if len(without):
        if num_clients > len(owners):  # whatever the setting
            setting = f"federation.num-clients = {num_clients}"
            remedy = f"there are only {len(owners)} training rows: use fewer clients"
        raise ConfigError(f"{setting}: leaves client {without[0]} (of {num_clients}) without data; {remedy}")
    return partition
