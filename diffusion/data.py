"""Data sets as tensors that stay in memory, each class with its prompt."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
import torchvision
from torch import Tensor


class Source(NamedTuple):
    """Where a data set comes from, and the prompts of its classes in label order."""

    dataset: type[torchvision.datasets.MNIST]
    classes: tuple[str, ...]


FASHION = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
DATASETS = {
    "mnist": Source(torchvision.datasets.MNIST, tuple("0123456789")),
    "fashion-mnist": Source(torchvision.datasets.FashionMNIST, FASHION),
}


@dataclass(frozen=True)
class ImageData:
    """One split: images uint8 (N, C, H, W), labels int64 (N,), and the prompt classes[label] of each label."""

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]


def load(
    name: str, split: Literal["train", "test"], data_dir: Path | str | None = None, download: bool = True
) -> ImageData:
    """Read a data set from data_dir (default: the folder "data"), fetching it first where it is missing.

    Raises ValueError for an unknown name or split, for missing files that cannot be fetched, and for damaged files.
    """
    if name not in DATASETS:
        raise ValueError(f"unknown data set '{name}'; the choices are {', '.join(DATASETS)}.")
    if split not in ("train", "test"):
        raise ValueError(f"unknown split '{split}'; the choices are train, test.")
    dataset, classes = DATASETS[name]
    root = Path("data" if data_dir is None else data_dir)
    raw = root / dataset.__name__ / "raw"
    files = [Path(archive).stem for archive, _ in dataset.resources]
    missing = [file for file in files if not (raw / file).is_file()]
    archives = ", ".join(f"{file}.gz" for file in files)
    by_hand = f"download {archives} from {dataset.mirrors[0]} and unpack them into {raw}."
    if missing and not download:
        raise ValueError(f"{name}: {', '.join(missing)} missing in {raw}; allow the download, or {by_hand}")
    if missing:
        try:
            dataset(root, download=True)
        except (OSError, RuntimeError, EOFError) as error:
            reason = str(error).strip().splitlines()[-1] if str(error).strip() else type(error).__name__
            raise ValueError(f"{name} could not be downloaded ({reason}); check the network, or {by_hand}") from error
    damaged = f"the {split} files of {name} in {raw} are damaged; delete that folder and load the data set again."
    try:
        read = dataset(root, train=split == "train")
    except (AssertionError, LookupError, ValueError, RuntimeError, EOFError) as error:
        raise ValueError(damaged) from error
    images, labels = read.data.unsqueeze(1), read.targets
    if len(images) == 0 or len(images) != len(labels) or labels.min() < 0 or labels.max() >= len(classes):
        raise ValueError(damaged)
    return ImageData(images, labels, classes)


def to_unit(images: Tensor) -> Tensor:
    """Map uint8 images in [0, 255] to float32 in [-1, 1]."""
    return images.float() / 127.5 - 1


def to_uint8(images: Tensor) -> Tensor:
    """Map float images in [-1, 1] to uint8 in [0, 255], rounded; values outside are clamped."""
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


@lru_cache(maxsize=4)
def _permutation(count: int, seed: int, epoch: int) -> Tensor:
    mixed = np.random.SeedSequence((seed, epoch)).generate_state(1, np.uint64)[0]
    return torch.randperm(count, generator=torch.Generator().manual_seed(int(mixed)))


def batch_indices(count: int, batch_size: int, seed: int, step: int) -> Tensor:
    """Return the image indices (batch_size,) of a training step: a function of (seed, step), so that resuming is exact.

    Every epoch is its own permutation of range(count); a batch at the end of one epoch goes on with the next.
    """
    if count < 1 or batch_size < 1:
        raise ValueError(
            f"batches need at least one image and one place, got {count} images in batches of {batch_size}."
        )
    position, needed, parts = step * batch_size, batch_size, []
    while needed:
        epoch, start = divmod(position, count)
        parts.append(_permutation(count, seed, epoch)[start : start + needed])
        position, needed = position + len(parts[-1]), needed - len(parts[-1])
    return torch.cat(parts)
