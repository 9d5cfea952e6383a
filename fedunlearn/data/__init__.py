"""Sources of images → tensors in memory; partitioners → which client holds which rows of them.

`load_federated` is the way in. A new source or partitioner is a function in a file of its own and one line in
`SOURCES` or `PARTITIONERS`; its parameters are named as the fields of ``DataConfig`` that it reads.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch

from fedunlearn import registry
from fedunlearn.data.cifar import cifar10, cifar100
from fedunlearn.data.digits import digits
from fedunlearn.data.federated import FederatedData
from fedunlearn.data.mnist5k import mnist5k
from fedunlearn.data.partition import Partition
from fedunlearn.data.partition_file import from_file
from fedunlearn.data.partitioners import dirichlet, iid, pathological, shards
from fedunlearn.data.source import ImageSource, Indices
from fedunlearn.data.split import validation_split
from fedunlearn.data.synthetic import synthetic_images
from fedunlearn.randomness import numpy_generator

if TYPE_CHECKING:
    from fedunlearn.config import DataConfig

__all__ = [
    "PARTITIONERS",
    "SOURCES",
    "FederatedData",
    "ImageSource",
    "Indices",
    "Partition",
    "load_federated",
]

SOURCES: dict[str, Callable[..., ImageSource]] = {
    "mnist5k": mnist5k,
    "digits": digits,
    "cifar10": cifar10,
    "cifar100": cifar100,
    "synthetic-images": synthetic_images,
}

PARTITIONERS: dict[str, Callable[..., Partition]] = {
    "iid": iid,
    "dirichlet": dirichlet,
    "pathological": pathological,
    "shards": shards,
    "file": from_file,
}


def load_federated(
    config: "DataConfig",
    num_clients: int,
    seed: int,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> FederatedData:
    """Load a source, hold out validation data and deal the remaining training rows out to the clients.

    Parameters
    ----------
    config : DataConfig
        The ``[data]`` part of an experiment.
    num_clients : int
        Clients to deal to.
    seed : int
        The experiment's. It draws the validation split (purpose ``validation``) and the partition (purpose
        ``partition``); images and test set do not depend on it.
    device : torch.device or str
        Where the tensors live; the bits are the same everywhere.
    dtype : torch.dtype
        Of the images.

    Raises
    ------
    ConfigError
        Files that are not there, settings the source cannot satisfy, or a client left without data.
    """
    source = registry.call(SOURCES, config.source, key="data.source", config=config)
    num_rows = len(source.train_labels)
    train, validation = validation_split(num_rows, config.validation, numpy_generator(seed, "validation"))
    dealt: Partition = registry.call(
        PARTITIONERS,
        config.partition,
        key="data.partition",
        config=config,
        labels=source.train_labels[train].numpy(),
        num_clients=num_clients,
        rng=numpy_generator(seed, "partition"),
        source_rows=train,
        num_source_rows=num_rows,
    )
    # Client by client, and last what nobody holds: a client's own data are then neighbours.
    nobodys = np.setdiff1d(np.arange(len(train)), dealt.rows, assume_unique=True)
    rows = train[np.concatenate([dealt.rows, nobodys])]
    return FederatedData(
        train_images=source.normalise(source.train_images[rows], dtype).to(device),
        train_labels=source.train_labels[rows].to(device),
        validation_images=source.normalise(source.train_images[validation], dtype).to(device),
        validation_labels=source.train_labels[validation].to(device),
        test_images=source.normalise(source.test_images, dtype).to(device),
        test_labels=source.test_labels.to(device),
        clients=Partition(np.arange(len(dealt.rows)), dealt.offsets),
        source_rows=rows,
        class_names=source.class_names,
    )
