"""Data of one party of a deployment, as a file: what a client holds, or what the server validates on.

Flower's nodes are other machines: a client loads its own file and nothing else. ``fedunlearn data export`` writes
the files that a simulation's data would be, tensor for tensor, so that a deployment ends in the same weights; whoever
has data of their own writes such a file with :func:`write_part`.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from fedunlearn import json_text
from fedunlearn.data.federated import FederatedData
from fedunlearn.data.partition import Partition
from fedunlearn.data.pixels import Pixels
from fedunlearn.errors import ConfigError

CLIENT_FILE = "data.safetensors"
VALIDATION_FILE = "validation.safetensors"
SERVER_FOLDER = "server"
ROUNDING = 0.02
"""So far outside 0 and 1 may a pixel be once its normalisation is undone."""
META = "fedunlearn"
"""The one entry of the file's metadata: a JSON object."""


@dataclass(frozen=True, eq=False)
class DataPart:
    """Images and labels of one party.

    Attributes
    ----------
    images : Tensor
        Normalised, float32 (float64 under ``engine.precision = "float64"``), (n, channels, height, width).
    labels : Tensor
        int64, (n,); of segmentation masks, uint8, (n, height, width).
    task : str
        "classification" or "segmentation".
    class_names : tuple of str
        One name per class, in the same order in every file of a federation.
    client : int or None
        Whose data they are; None: the server's.
    pixels : Pixels or None
        What the images were normalised by; some augmentations must know.
    """

    images: Tensor
    labels: Tensor
    task: str
    class_names: tuple[str, ...]
    client: int | None = None
    pixels: Pixels | None = None

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def in_channels(self) -> int:
        """Colour channels of an image."""
        return self.images.shape[1]

    @property
    def image_size(self) -> int:
        """Height and width of an image in pixels."""
        return self.images.shape[-1]

    def of_client(self, num_clients: int, device: torch.device) -> FederatedData:
        """Return a federation's data as this client sees it: its own rows, and nothing of anybody else."""
        assert self.client is not None
        ends = np.zeros(num_clients + 1, dtype=np.int64)
        ends[self.client + 1 :] = len(self.labels)
        return self._federated(device, train=self, clients=ends)

    def of_server(self, num_clients: int, device: torch.device) -> FederatedData:
        """Return a federation's data as the server sees it: something to validate on, and no client's rows."""
        return self._federated(device, validation=self, clients=np.zeros(num_clients + 1, dtype=np.int64))

    def _federated(
        self,
        device: torch.device,
        *,
        clients: np.ndarray[Any, np.dtype[np.int64]],
        train: DataPart | None = None,
        validation: DataPart | None = None,
    ) -> FederatedData:
        def tensors(part: DataPart | None) -> tuple[Tensor, Tensor]:
            if part is None:
                return self.images[:0].to(device), self.labels[:0].to(device)
            return part.images.to(device), part.labels.to(device)

        train_images, train_labels = tensors(train)
        validation_images, validation_labels = tensors(validation)
        test_images, test_labels = tensors(None)
        rows = np.arange(len(train_labels), dtype=np.int64)
        return FederatedData(
            train_images=train_images,
            train_labels=train_labels,
            validation_images=validation_images,
            validation_labels=validation_labels,
            test_images=test_images,
            test_labels=test_labels,
            clients=Partition(rows, clients),
            source_rows=rows,
            class_names=self.class_names,
            task=self.task,
            pixels=self.pixels,
        )


def export(data: FederatedData, out: Path, *, done: Callable[[Path], None] = lambda _: None) -> None:
    """Write ``client-<k>/data.safetensors`` for every client and ``server/validation.safetensors``.

    Parameters
    ----------
    out
        A folder, new or empty: files of another federation beside these would be taken for theirs.
    done
        Called with each file once it is written.

    Raises
    ------
    ConfigError
        If the folder cannot be made or holds something.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{out}: cannot be made ({error.strerror}); choose another --out") from None
    if any(out.iterdir()):
        raise ConfigError(f"{out}: is not empty; name a new folder with --out")

    def part(images: Tensor, labels: Tensor, client: int | None = None) -> DataPart:
        return DataPart(images, labels, data.task, data.class_names, client, data.pixels)

    for client in range(len(data.clients)):
        path = out / f"client-{client}" / CLIENT_FILE
        write_part(path, part(*data.client(client), client))
        done(path)
    path = out / SERVER_FOLDER / VALIDATION_FILE
    write_part(path, part(data.validation_images, data.validation_labels))
    done(path)


def write_part(path: Path, part: DataPart) -> None:
    """Write a party's data; the folder is made, the file is for its owner alone to read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    about = {
        "task": part.task,
        "class-names": list(part.class_names),
        "client": part.client,
        "shape": list(part.images.shape),
    }
    if part.pixels is not None:
        about |= asdict(part.pixels)
    # One metadata key only: safetensors does not fix the order of several.
    content = save(
        {"images": _plain(part.images), "labels": _plain(part.labels)}, metadata={META: json.dumps(about)}
    )
    path.touch(mode=0o600)
    path.write_bytes(content)


def read_part(path: Path, *, task: str, dtype: torch.dtype) -> DataPart:
    """Read a party's data and check that they are what an experiment trains on.

    Parameters
    ----------
    task
        The experiment's.
    dtype
        Of its images.

    Raises
    ------
    ConfigError
        If there is no such file, or it is damaged, or of another task or precision.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise ConfigError(
            f"{path}: cannot be read ({reason}); files of `fedunlearn data export` are expected"
        ) from None
    try:
        tensors = load(content)
        (length,) = struct.unpack("<Q", content[:8])
        about = json_text.loads(
            json_text.loads(content[8 : 8 + length], "its header")["__metadata__"][META], META
        )
        part = DataPart(
            images=tensors["images"],
            labels=tensors["labels"],
            task=str(about["task"]),
            class_names=tuple(map(str, about["class-names"])),
            client=_client(about["client"]),
            pixels=_pixels(about),
        )
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        why = f"{type(error).__name__}: {error}"
        raise ConfigError(
            f"{path}: is not a file of `fedunlearn data export` ({why}); export it again"
        ) from None
    _check(path, part, task, dtype)
    return part


def _check(path: Path, part: DataPart, task: str, dtype: torch.dtype) -> None:
    """Refuse data that a model would fail on later, and with less to say."""
    images, labels = part.images, part.labels
    if part.task != task:
        raise ConfigError(f"{path}: holds data for {part.task}; the experiment's data are for {task}")
    if images.dtype != dtype:
        raise ConfigError(f"{path}: images are {images.dtype}; the experiment computes in {dtype}")
    masks = task == "segmentation"
    wanted = (len(images), *images.shape[2:]) if masks else (len(images),)
    if images.dim() != 4 or tuple(labels.shape) != wanted:
        shapes = f"images {tuple(images.shape)}, labels {tuple(labels.shape)}"
        raise ConfigError(
            f"{path}: {shapes}; must be (n, channels, height, width) and {'masks' if masks else '(n,)'}"
        )
    if labels.dtype != (torch.uint8 if masks else torch.int64):
        raise ConfigError(
            f"{path}: labels are {labels.dtype}; must be {'torch.uint8' if masks else 'torch.int64'}"
        )
    if part.pixels is not None:
        mean, std = part.pixels.mean, part.pixels.std
        if len(std) != part.in_channels or not all(s > 0 for s in std):
            raise ConfigError(f"{path}: std = {list(std)}; must be a number above 0 for each channel")
        if len(mean) != part.in_channels:
            raise ConfigError(f"{path}: mean = {list(mean)}; must be a number for each channel")
    if len(labels) and (int(labels.min()) < 0 or int(labels.max()) >= part.num_classes):
        raise ConfigError(f"{path}: a label is not one of the {part.num_classes} classes the file names")
    if not bool(images.isfinite().all()):
        raise ConfigError(f"{path}: an image contains NaN or infinite numbers")
    if part.client is not None and not len(labels):
        raise ConfigError(f"{path}: holds no image; a client without data can neither train nor be forgotten")
    if len(set(part.class_names)) != part.num_classes:
        raise ConfigError(f"{path}: names a class twice: {', '.join(part.class_names)}")
    if part.pixels is not None and len(labels):
        low, high = part.pixels.range_of(images)
        if low < -ROUNDING or high > 1 + ROUNDING:
            raise ConfigError(
                f"{path}: its pixels, with mean and std undone, are {low:.3g} to {high:.3g} and must be 0 to 1; were "
                "the images normalised?"
            )


def _client(number: Any) -> int | None:
    if number is not None and (isinstance(number, bool) or not isinstance(number, int) or number < 0):
        raise ValueError(f"client {number!r} is not a number, counted from 0")
    return number


def _pixels(about: dict[str, Any]) -> Pixels | None:
    """Return the mean and std that the file names; None where its images were not normalised, as far as it says."""
    if "mean" not in about:
        return None
    return Pixels(tuple(map(float, about["mean"])), tuple(map(float, about["std"])))


def _plain(tensor: Tensor) -> Tensor:
    """Return the tensor in memory of its own: a view's file would hold whatever it is a view of."""
    return tensor.detach().cpu().contiguous().clone()
