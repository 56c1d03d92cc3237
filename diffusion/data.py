"""Data sets as tensors that stay in memory, each class with its prompt."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple, Protocol

import numpy as np
import torch
import torchvision
from torch import Tensor

from diffusion.captions import Description, caption, forget
from diffusion.folders import Labelled, read_celeba, read_folder, read_idx
from diffusion.painting import SIDE, Painter
from diffusion.pictures import Shape, resize


class Source(NamedTuple):
    """Where a data set comes from, and the prompts of its classes in label order."""

    dataset: type[torchvision.datasets.MNIST]
    classes: tuple[str, ...]


FASHION = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
DATASETS = {
    "mnist": Source(torchvision.datasets.MNIST, tuple("0123456789")),
    "fashion-mnist": Source(torchvision.datasets.FashionMNIST, FASHION),
}
"""Data sets that can be fetched."""
OWN = {"folder": read_folder, "idx": read_idx, "celeba": read_celeba}
"""Data of one's own: what is in it, and which classes, only its files say."""
PAINTED = {"painted-mnist": "mnist"}
"""Digits that are painted anew in every batch, with captions, and the data set that they come from."""


class Examples(Protocol):
    """Pictures with prompts, from which a model learns.

    classes: the prompts of all of them, () where prompts are sentences. prompts: some to show what a model can do.
    fixed: whether a batch depends on its index alone. digest: 16 hex digits that tell these pictures from any others.
    """

    classes: tuple[str, ...]
    prompts: tuple[str, ...]
    fixed: bool
    digest: str

    def __len__(self) -> int:
        """How many pictures there are to begin with."""

    def __str__(self) -> str:
        """What they are, in a line or two."""

    def batch(self, index: Tensor, source: torch.Generator) -> tuple[Tensor, list[str]]:
        """Pictures (B, C, H, W) float32 in [-1, 1] and their prompts, for indices (B,)."""

    def few(self) -> "Examples":
        """Some of them, to try things with."""


@dataclass(frozen=True)
class ImageData:
    """One split: images uint8 (N, C, H, W), labels int64 (N,), and the prompt classes[label] of each label.

    Pictures without classes have the one class "". found: what the files held before it was brought to one shape.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    found: str = ""

    fixed: ClassVar[bool] = True

    def __len__(self) -> int:
        return len(self.images)

    def __str__(self) -> str:
        per_class = torch.bincount(self.labels, minlength=len(self.classes)).tolist()
        classes = [f"{name} ({n})" for name, n in zip(self.classes, per_class, strict=True) if name]
        grouped = f"in {len(classes)} classes\n  {', '.join(classes)}" if classes else "without classes"
        return f"{len(self)} images of {' x '.join(map(str, self.images.shape[1:]))} {grouped}"

    @property
    def prompts(self) -> tuple[str, ...]:
        """The classes."""
        return self.classes

    def batch(self, index: Tensor, source: torch.Generator | None = None) -> tuple[Tensor, list[str]]:
        """Pictures in [-1, 1] and their prompts; of N pictures, N + i is picture i turned left to right."""
        turned, index = (index // len(self)).bool(), index % len(self)
        images = self.images[index]
        images = torch.where(turned.view(-1, 1, 1, 1), images.flip(-1), images)
        return to_unit(images), [self.classes[label] for label in self.labels[index].tolist()]

    def few(self) -> "ImageData":
        """The first 512."""
        return replace(self, images=self.images[:512], labels=self.labels[:512])

    @cached_property
    def digest(self) -> str:
        """16 hex digits that tell these pictures and labels from any others."""
        digest = hashlib.sha256(self.images.contiguous().numpy())
        digest.update(self.labels.contiguous().numpy())
        return digest.hexdigest()[:16]


class Painted:
    """Digits painted anew in every batch, each with a caption that leaves out some of what there is to say."""

    classes: ClassVar[tuple[str, ...]] = ()
    fixed: ClassVar[bool] = False
    shape: ClassVar[Shape] = (3, SIDE, SIDE)
    prompts: ClassVar[tuple[str, ...]] = (
        "a thick red 7",
        "a small green three leaning left on a white background",
        "0 in blue on yellow paper",
        "a thin white 5 on black",
        "a huge orange eight",
        "a tiny purple 4 in the top left corner",
        "a pink 2, standing upright",
        "a bold black nine leaning to the right",
        "six",
        "a yellow digit on a blue background",
    )

    def __init__(self, digits: ImageData, held_out: Sequence[Description] = ()) -> None:
        """digits: MNIST or what looks like it; held_out: combinations that are never painted."""
        self.digits, self.held_out = digits, tuple(held_out)

    @cached_property
    def painter(self) -> Painter:
        """Traces the digits when it is first asked for, two minutes for all of MNIST."""
        with torch.autocast("cpu", enabled=False):
            return Painter(self.digits.images, self.digits.labels, self.held_out)

    @property
    def digest(self) -> str:
        """That of the digits, and of what is held out."""
        return hashlib.sha256(f"{self.digits.digest} {self.held_out}".encode()).hexdigest()[:16]

    def __len__(self) -> int:
        return len(self.digits)

    def __str__(self) -> str:
        held_out = f", {len(self.held_out)} combinations held out" if self.held_out else ""
        return f"{len(self)} digits, painted anew in every batch as 3 x {SIDE} x {SIDE}, with captions{held_out}"

    def batch(self, index: Tensor, source: torch.Generator) -> tuple[Tensor, list[str]]:
        """Pictures (B, 3, 32, 32) in [-1, 1] and a caption of each; a training in bf16 paints as finely as any."""
        with torch.autocast("cpu", enabled=False):
            images, descriptions = self.painter.batch(index, source)
        return images, [caption(forget(description, source), source) for description in descriptions]

    def few(self) -> "Painted":
        """Of the first 512 digits."""
        return Painted(self.digits.few(), self.held_out)


def check_name(name: str) -> None:
    """Raises ValueError unless it is a key of DATASETS, OWN or PAINTED."""
    if name not in (names := (*DATASETS, *OWN, *PAINTED)):
        raise ValueError(f"unknown data set '{name}'; the choices are {', '.join(names)}.")


def load(
    name: str,
    split: Literal["train", "test"],
    data_dir: Path | str | None = None,
    download: bool = True,
    shape: Shape | None = None,
) -> ImageData:
    """Read a data set from data_dir; by default from the folder "data", fetching it first where it is missing.

    shape: (C, H, W) to bring the pictures to; None leaves those of MNIST and IDX files as they are.
    Raises ValueError for an unknown name or split, for missing files that cannot be fetched, and for damaged files.
    """
    check_name(name)
    if name in PAINTED:
        raise ValueError(
            f"{name} is painted from {PAINTED[name]}, anew for every use: load that, and give it to Painted."
        )
    if split not in ("train", "test"):
        raise ValueError(f"unknown split '{split}'; the choices are train, test.")
    if name in OWN:
        if data_dir is None:
            raise ValueError(f"{name} is data of your own: say where it lies with --data-dir.")
        if shape is None and name != "idx":
            raise ValueError(f"{name}: pictures of many sizes need one shape to be brought to, (C, H, W).")
        return _labelled(name, OWN[name](Path(data_dir), split, shape), split)
    data = _fetched(name, split, data_dir, download)
    if shape in (None, tuple(data.images.shape[1:])):
        return data
    images, found = resize(data.images.squeeze(1).numpy(), shape)
    return replace(data, images=images, found=found)


def _labelled(name: str, data: Labelled, split: str) -> ImageData:
    """Class names as labels."""
    rows = {which: row for row, which in enumerate(data.classes)}
    if strange := next((which for which in data.names if which not in rows), None):
        raise ValueError(f"{name}: the {split} split holds the class '{strange}', which the training split lacks.")
    if len(data.images) < 2:
        raise ValueError(f"{name}: one picture is too few; give two or more, and hundreds for a model worth having.")
    return ImageData(data.images, torch.tensor([rows[which] for which in data.names]), data.classes, data.found)


def _fetched(name: str, split: str, data_dir: Path | str | None, download: bool) -> ImageData:
    """MNIST or what looks like it, as torchvision lays it out."""
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
