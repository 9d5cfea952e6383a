"""Sources of images → tensors in memory; partitioners → which client holds which rows of them.

`load_federated` is the way in. A new source or partitioner is a function in a file of its own and one line in
:mod:`fedunlearn.plugins`; its keys in the file are its `settings`. A source hands over labelled images
(`ImageSource`) or slices of volumes with masks (`SliceSource`).
"""

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from fedunlearn import plugins
from fedunlearn.data.federated import FederatedData
from fedunlearn.data.partition import Partition
from fedunlearn.data.prostate.case_split import split_by_case
from fedunlearn.data.slice_index import SliceIndex
from fedunlearn.data.slice_source import SliceSource
from fedunlearn.data.source import ImageSource, Indices
from fedunlearn.data.split import validation_split
from fedunlearn.errors import ConfigError
from fedunlearn.randomness import numpy_generator

if TYPE_CHECKING:
    from fedunlearn.config import DataConfig

__all__ = [
    "FederatedData",
    "ImageSource",
    "Indices",
    "Partition",
    "SliceIndex",
    "SliceSource",
    "load_federated",
]


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
    source = plugins.call("data", config.source, settings=config.source_settings)
    if isinstance(source, SliceSource):
        return _federate_slices(source, config, num_clients, seed, torch.device(device), dtype)
    if not isinstance(source, ImageSource):
        given = type(source).__name__
        raise ConfigError(
            f'data.source = "{config.source}": returned a {given}, but must return an ImageSource or a SliceSource'
        )
    return _federate_images(source, config, num_clients, seed, torch.device(device), dtype)


def _dealt(config: "DataConfig", **offered: Any) -> Partition:
    """Return who holds which rows, as ``data.partition`` says."""
    found = plugins.call("partitions", config.partition, settings=config.partition_settings, **offered)
    if not isinstance(found, Partition):
        given = type(found).__name__
        raise ConfigError(
            f'data.partition = "{config.partition}": returned a {given}, but must return a Partition'
        )
    return found


def _federate_images(
    source: ImageSource,
    config: "DataConfig",
    num_clients: int,
    seed: int,
    device: torch.device,
    dtype: torch.dtype,
) -> FederatedData:
    num_rows = len(source.train_labels)
    train, validation = validation_split(num_rows, config.validation, numpy_generator(seed, "validation"))
    dealt: Partition = _dealt(
        config,
        labels=source.train_labels[train].numpy(),
        num_clients=num_clients,
        rng=numpy_generator(seed, "partition"),
        source_rows=train,
        num_source_rows=num_rows,
        sites=None,
        site_names=(),
        other_folders=(),
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
        origin=source.origin,
        pixels=source.pixels,
    )


def _federate_slices(
    source: SliceSource,
    config: "DataConfig",
    num_clients: int,
    seed: int,
    device: torch.device,
    dtype: torch.dtype,
) -> FederatedData:
    train, validation, test = split_by_case(source.index, source.site_names, config.validation, seed)
    dealt: Partition = _dealt(
        config,
        num_clients=num_clients,
        sites=source.index.site[train],
        site_names=source.site_names,
        other_folders=source.other_folders,
    )
    rows = {"train": train[dealt.rows], "validation": validation, "test": test}
    images = {split: source.images(rows[split], dtype).to(device) for split in rows}
    masks = {split: source.masks[torch.from_numpy(rows[split])].to(device) for split in rows}
    not_test = np.union1d(train, validation)  # the source's training split
    return FederatedData(
        train_images=images["train"],
        train_labels=masks["train"],
        validation_images=images["validation"],
        validation_labels=masks["validation"],
        test_images=images["test"],
        test_labels=masks["test"],
        clients=Partition(np.arange(len(dealt.rows)), dealt.offsets),
        source_rows=np.searchsorted(not_test, rows["train"]).astype(np.int64),
        class_names=source.class_names,
        task="segmentation",
        origin=source.origin,
        client_names=source.site_names,
        slices={split: source.index.take(rows[split]) for split in rows},
        notes=source.notes,
    )
