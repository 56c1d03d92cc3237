"""Data of one's own, read as it lies on disk: a folder of pictures, IDX files, CelebA."""

import gzip
import math
import re
import struct
import zlib
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from diffusion.pictures import MAX_BYTES, Shape, read_pictures, resize

CLUTTER = ("thumbs.db", "desktop.ini")  # what file managers leave behind, beside names that begin with a dot
IDX = re.compile(r"(?P<prefix>.*?)(?P<kind>images|labels)[-.]idx[13](-ubyte)?(\.gz)?", re.IGNORECASE)
CELEBA_SPLITS = {"train": "0", "test": "2"}  # 1 is the validation split
CELEBA_CROP = 148  # of 178 x 218 pixels: the customary square, most of it face


class Labelled(NamedTuple):
    """Pictures uint8 (N, C, H, W), the class of each, all classes of the training split, and what was found."""

    images: Tensor
    names: list[str]
    classes: tuple[str, ...]
    found: str


# ---------------------------------------------------------------- a folder of pictures


def read_folder(root: Path, split: str, shape: Shape) -> Labelled:
    """Pictures that lie in root, all of the class "", or in one subfolder for each class, whose name is the prompt.

    Where root holds the folders train and test and nothing else, they are the splits; otherwise all is for training.
    Hidden files are passed over and links followed. Raises ValueError for other layouts, and as `read_pictures` does.
    """
    if {path.name for path in _entries(root)} == {"train", "test"}:
        training, root = _by_class(root / "train"), root / split
    elif split == "train":
        training = _by_class(root)
    else:
        raise ValueError(f"{root} has no test split; with one, it holds two folders and nothing else: train and test.")
    by_class = training if split == "train" else _by_class(root)
    names, paths = zip(*((name, path) for name, paths in by_class.items() for path in paths), strict=True)
    images, found = read_pictures(paths, shape)
    return Labelled(images, list(names), tuple(training), found)


def _by_class(root: Path) -> dict[str, list[Path]]:
    entries = _entries(root)
    folders, files = ([path for path in entries if path.is_dir() == wanted] for wanted in (True, False))
    if not entries:
        raise ValueError(f"{root} holds no pictures.")
    if folders and files:
        raise ValueError(
            f"{root} holds files ({files[0].name}) beside folders ({folders[0].name}): put each picture into the"
            " folder of its class, or all into one folder without classes."
        )
    if not folders:
        return {"": files}
    by_class = {folder.name: _entries(folder) for folder in folders}
    for folder in folders:
        if not by_class[folder.name]:
            raise ValueError(f"{folder} is a class without pictures: add some, or remove it.")
        if deeper := next((path for path in by_class[folder.name] if path.is_dir()), None):
            raise ValueError(
                f"{deeper} lies too deep: pictures lie in {root} or in its subfolders, one for each class; name a"
                " folder further down, or move the pictures up."
            )
    return by_class


def _entries(folder: Path) -> list[Path]:
    """What a folder holds, without what is hidden, in natural order: 2 before 10."""
    try:
        paths = [path for path in folder.iterdir() if not (path.name.startswith(".") or path.name.lower() in CLUTTER)]
    except OSError as error:
        raise ValueError(f"{folder} is no folder that can be read ({error.strerror}).") from None
    return sorted(paths, key=lambda path: (_natural(path.name), path.name))


def _natural(name: str) -> list[str | int]:
    parts = re.split(r"([0-9]+)", name.casefold())
    return [int(part) if i % 2 else part for i, part in enumerate(parts)]


# ---------------------------------------------------------------- IDX files


def read_idx(root: Path, split: str, shape: Shape | None) -> Labelled:
    """The pair *images-idx3-ubyte and *labels-idx1-ubyte in root, packed (.gz) or not; a class is its label's number.

    The pair whose name has "t10k" or "test" in it is the test split, the other one the training split. Pictures of
    EMNIST, which its files hold transposed, are set upright (Cohen et al. 2017).
    Raises ValueError, one sentence, for files that are missing, damaged or several, and as `resize` does.
    """
    pairs = {which: _pair(root, which) for which in ("train", split)}
    known = np.unique(_idx(pairs["train"]["labels"], 1)).tolist()
    pictures, labels = _idx(pairs[split]["images"], 3), _idx(pairs[split]["labels"], 1).tolist()
    where = pairs[split]["images"]
    if len(pictures) != len(labels):
        raise ValueError(f"{where} holds {len(pictures)} pictures, but there are {len(labels)} labels beside it.")
    if "emnist" in where.name.lower():
        pictures = pictures.transpose(0, 2, 1)
    side = min(pictures.shape[1:])
    images, found = resize(pictures, shape or (1, side, side))
    return Labelled(images, [str(label) for label in labels], tuple(map(str, known)), found)


def _pair(root: Path, split: str) -> dict[str, Path]:
    """The files of one split, "images" and "labels"."""
    pairs: dict[str, dict[str, Path]] = {}
    for path in _entries(root):  # an unpacked file comes before its .gz
        if match := IDX.fullmatch(path.name):
            prefix, kind = match["prefix"].lower(), match["kind"].lower()
            test = "train" not in prefix and ("t10k" in prefix or "test" in prefix)
            if test == (split == "test"):
                pairs.setdefault(prefix, {}).setdefault(kind, path)
    whole = [pair for pair in pairs.values() if len(pair) == 2]
    if not whole:
        start = "t10k" if split == "test" else "train"
        wanted = f"{start}-images-idx3-ubyte and {start}-labels-idx1-ubyte"
        raise ValueError(f"{root} holds no {split} split as IDX files: {wanted}, or the same with .gz.")
    if len(whole) > 1:
        names = ", ".join(pair["images"].name for pair in whole)
        raise ValueError(f"{root} holds several data sets ({names}): give each a folder of its own.")
    return whole[0]


def _idx(path: Path, dimensions: int) -> np.ndarray:
    """Unsigned bytes: the magic number 0x08 and the dimensions, big-endian sizes, the values (LeCun et al. 1998)."""
    unpack = gzip.open if path.suffix.lower() == ".gz" else open
    damaged = f"{path} is no IDX file of {dimensions} dimensions, or a damaged one: replace it."
    try:
        with unpack(path, "rb") as file:
            magic, *sizes = struct.unpack(f">{1 + dimensions}I", file.read(4 + 4 * dimensions))
            needed = math.prod(sizes)
            if magic != 0x0800 + dimensions or not 0 < needed <= MAX_BYTES:
                raise ValueError(damaged)
            values = file.read(needed + 1)
    except (OSError, EOFError, zlib.error, struct.error):
        raise ValueError(damaged) from None
    if len(values) != needed:
        raise ValueError(damaged)
    return np.frombuffer(values, np.uint8).reshape(sizes)


# ---------------------------------------------------------------- CelebA


def celeba_prompt(male: bool, smiling: bool, glasses: bool) -> str:
    """One of eight prompts, such as "woman", "smiling man" or "smiling woman with glasses"."""
    return f"{'smiling ' * smiling}{'man' if male else 'woman'}{' with glasses' * glasses}"


def read_celeba(root: Path, split: str, shape: Shape) -> Labelled:
    """CelebA's aligned faces as torchvision lays them out, in root/celeba or root (Liu et al. 2015).

    What is read is img_align_celeba, list_attr_celeba.txt and list_eval_partition.txt. A prompt says three of the forty
    attributes (Male, Smiling, Eyeglasses), which are what annotators saw and not what the person is.
    Raises ValueError, one sentence, for files that are missing or damaged, and as `read_pictures` does.
    """
    root = root / "celeba" if (root / "celeba").is_dir() else root
    attributes, partition = root / "list_attr_celeba.txt", root / "list_eval_partition.txt"
    if missing := [path.name for path in (attributes, partition) if not path.is_file()]:
        raise ValueError(f"{root} is not CelebA as torchvision lays it out: {' and '.join(missing)} missing.")
    try:
        _, header, *rows = _rows(attributes)
        columns = [1 + header.index(name) for name in ("Male", "Smiling", "Eyeglasses")]
        prompts = {row[0]: celeba_prompt(*(row[column] == "1" for column in columns)) for row in rows}
        splits = dict(_rows(partition))
        training, chosen = ([n for n in prompts if splits[n] == CELEBA_SPLITS[s]] for s in ("train", split))
    except (ValueError, LookupError):
        raise ValueError(f"{attributes} and {partition} are not CelebA's, or damaged: replace them.") from None
    if not chosen:
        raise ValueError(f"{partition} lists no picture of the {split} split.")
    used = {prompts[name] for name in training}
    every = [celeba_prompt(*which) for which in product((False, True), repeat=3)]
    images, found = read_pictures([root / "img_align_celeba" / name for name in chosen], shape, CELEBA_CROP)
    return Labelled(images, [prompts[name] for name in chosen], tuple(p for p in every if p in used), found)


def _rows(path: Path) -> list[list[str]]:
    return [line.split() for line in path.read_text(encoding="ascii").splitlines() if line]
