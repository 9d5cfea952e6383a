"""CIFAR-10 and CIFAR-100, read by torchvision from a folder that the user fills.

Nothing is downloaded: a run must not depend on a server. Channel means and deviations are those of PUF's
code.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from fedunlearn.config.conditions import PathText
from fedunlearn.config.settings import SourceSettings
from fedunlearn.data.source import ImageSource
from fedunlearn.errors import ConfigError
from fedunlearn.home import expanded

ARCHIVES = {"CIFAR10": "cifar-10-python.tar.gz", "CIFAR100": "cifar-100-python.tar.gz"}


@dataclass(frozen=True)
class CIFAR10Settings(SourceSettings):
    """Where the files lie."""

    classes: ClassVar[int | None] = 10
    directory: PathText


@dataclass(frozen=True)
class CIFAR100Settings(SourceSettings):
    """Where the files lie."""

    classes: ClassVar[int | None] = 100
    directory: PathText


def cifar10(settings: CIFAR10Settings) -> ImageSource:
    """CIFAR-10 from data.directory, 32 × 32 × 3, 10 classes, 50 000 train / 10 000 test."""
    return _read("CIFAR10", settings.directory, mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616))


def cifar100(settings: CIFAR100Settings) -> ImageSource:
    """CIFAR-100 from data.directory, 32 × 32 × 3, 100 classes, 50 000 train / 10 000 test."""
    return _read("CIFAR100", settings.directory, mean=(0.5071, 0.4865, 0.4409), std=(0.2673, 0.2564, 0.2762))


def _read(name: str, directory: str, mean: tuple[float, ...], std: tuple[float, ...]) -> ImageSource:
    import torchvision  # lazily: slow to import, and only needed here

    dataset = getattr(torchvision.datasets, name)
    root = _checked_root(dataset, ARCHIVES[name], directory)
    train, test = dataset(root, train=True, download=False), dataset(root, train=False, download=False)
    return ImageSource(
        train_images=_channels_first(train),
        train_labels=torch.tensor(train.targets, dtype=torch.int64),
        test_images=_channels_first(test),
        test_labels=torch.tensor(test.targets, dtype=torch.int64),
        class_names=tuple(train.classes),
        white=255.0,
        mean=mean,
        std=std,
    )


def _checked_root(dataset: Any, archive: str, directory: str) -> Path:
    """Return the folder that torchvision reads from, or say which file is not in it as it should be."""
    remedy = f"unpack {archive} there"
    root = expanded(directory)
    folder = root / dataset.base_folder
    if not folder.is_dir():
        raise ConfigError(f"data.directory = {directory!r}: there is no folder {folder}; {remedy}")
    from torchvision.datasets.utils import check_integrity

    listed = [*dataset.train_list, *dataset.test_list, (dataset.meta["filename"], dataset.meta["md5"])]
    for filename, checksum in listed:
        if not (folder / filename).is_file():
            raise ConfigError(
                f"data.directory = {directory!r}: {folder / filename} is missing; {remedy} again"
            )
        try:
            sound = check_integrity(folder / filename, checksum)
        except OSError as error:
            raise ConfigError(
                f"data.directory = {directory!r}: {folder / filename} cannot be read ({error.strerror})"
            ) from error
        if not sound:
            raise ConfigError(
                f"data.directory = {directory!r}: {folder / filename} is damaged; {remedy} again"
            )
    return root


def _channels_first(dataset: Any) -> Tensor:
    return torch.from_numpy(dataset.data).permute(0, 3, 1, 2).contiguous()
