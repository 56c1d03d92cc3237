"""Data of one's own: which files are which class and split, and what is said of any other layout."""

import gzip
import shutil
import struct
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from diffusion.data import load
from diffusion.folders import celeba_prompt

DATA = Path(__file__).parent / "data"
SHAPE = (1, 8, 8)


def paint(path: Path, level: int = 0) -> Path:
    """A picture of one grey level, by which it can be told again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8), level).save(path)
    return path


def write_idx(path: Path, array: np.ndarray) -> None:
    head = struct.pack(f">{1 + array.ndim}I", 0x0800 + array.ndim, *array.shape)
    unpacked = head + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(unpacked) if path.suffix == ".gz" else unpacked)


def write_pair(root: Path, name: str, images: np.ndarray, labels: list[int], suffix: str = "") -> None:
    write_idx(root / f"{name}images-idx3-ubyte{suffix}", images)
    write_idx(root / f"{name}labels-idx1-ubyte{suffix}", np.array(labels))


def refused(name: str, root: Path, *words: str, split: str = "train") -> None:
    with pytest.raises(ValueError, match=r"\.$") as error:
        load(name, split, root, shape=SHAPE)
    said = str(error.value)
    assert all(word in said for word in words), said
    assert "\n" not in said


# ---------------------------------------------------------------- a folder of pictures


def test_subfolders_are_classes_in_natural_order(tmp_path):
    for level, name in enumerate(["cat/1.png", "cat/2.png", "10/a.png", "2/b.png", "Big dog/c.png"]):
        paint(tmp_path / name, level)
    data = load("folder", "train", tmp_path, shape=SHAPE)
    assert data.classes == ("2", "10", "Big dog", "cat")
    found = {(data.classes[label], int(image[0, 0, 0])) for image, label in zip(data.images, data.labels, strict=True)}
    assert found == {("cat", 0), ("cat", 1), ("10", 2), ("2", 3), ("Big dog", 4)}
    assert (data.images.shape, data.images.dtype, data.labels.dtype) == ((5, 1, 8, 8), torch.uint8, torch.int64)
    assert data.found == "5 pictures, 8 x 8, grey"


def test_pictures_without_subfolders_have_no_class(tmp_path):
    for level in (9, 10, 11):
        paint(tmp_path / f"{level}.png", level)
    data = load("folder", "train", tmp_path, shape=SHAPE)
    assert data.classes == ("",)
    assert data.labels.tolist() == [0, 0, 0]
    assert data.images[:, 0, 0, 0].tolist() == [9, 10, 11]


def test_hidden_files_and_what_file_managers_leave_are_passed_over(tmp_path):
    for name in ("a/1.png", "b/2.png"):
        paint(tmp_path / name)
    for name in (".DS_Store", "Thumbs.db", "a/.DS_Store", "a/desktop.ini", ".git/config"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"no picture")
    assert load("folder", "train", tmp_path, shape=SHAPE).classes == ("a", "b")


def test_links_are_followed_and_loops_end(tmp_path):
    paint(tmp_path / "elsewhere" / "1.png", 7)
    paint(tmp_path / "own" / "a" / "2.png", 8)
    (tmp_path / "own" / "b").symlink_to(tmp_path / "elsewhere")
    data = load("folder", "train", tmp_path / "own", shape=SHAPE)
    assert data.classes == ("a", "b")
    assert data.images[:, 0, 0, 0].tolist() == [8, 7]
    (tmp_path / "own" / "loop").symlink_to(tmp_path / "own")
    refused("folder", tmp_path / "own", "lies too deep", str(Path("loop", "a")))
    (tmp_path / "own" / "loop").unlink()
    (tmp_path / "own" / "a" / "self.png").symlink_to(tmp_path / "own" / "a" / "self.png")
    refused("folder", tmp_path / "own", "self.png")


def test_folders_train_and_test_are_splits(tmp_path):
    for level, name in enumerate(["train/a/1.png", "train/b/2.png", "train/b/3.png", "test/b/4.png", "test/b/5.png"]):
        paint(tmp_path / name, level)
    train, test = (load("folder", split, tmp_path, shape=SHAPE) for split in ("train", "test"))
    assert train.classes == test.classes == ("a", "b")
    assert train.labels.tolist() == [0, 1, 1]
    assert (test.labels.tolist(), test.images[:, 0, 0, 0].tolist()) == ([1, 1], [3, 4])
    paint(tmp_path / "test/c/6.png")
    refused("folder", tmp_path, "the test split holds the class 'c'", split="test")
    refused("folder", tmp_path / "train", "has no test split", split="test")


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ([], ["holds no pictures"]),
        (["1.png"], ["one picture is too few"]),
        (["a/1.png"], ["one picture is too few"]),
        (["1.png", "a/2.png"], ["holds files (1.png) beside folders (a)"]),
        (["a/1.png", "a/b/2.png"], [str(Path("a", "b")), "lies too deep"]),
        (["a/1.png", "b/"], ["is a class without pictures"]),
        (["1.png", "notes.txt"], ["notes.txt", "is no picture", "move it elsewhere"]),
    ],
)
def test_other_layouts_get_a_sentence(files, words, tmp_path):
    for name in files:
        if name.endswith("/"):
            (tmp_path / name).mkdir()
        elif name.endswith(".png"):
            paint(tmp_path / name)
        else:
            (tmp_path / name).write_text("text")
    refused("folder", tmp_path, *words)


def test_a_folder_that_is_none_is_named(tmp_path):
    refused("folder", tmp_path / "nowhere", "nowhere is no folder", "No such file")
    refused("folder", paint(tmp_path / "a.png"), "a.png is no folder")


# ---------------------------------------------------------------- IDX files


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_mnists_own_files_read_as_torchvision_reads_them(suffix, tmp_path):
    for path in (DATA / "MNIST" / "raw").iterdir():
        content = path.read_bytes()
        (tmp_path / (path.name + suffix)).write_bytes(gzip.compress(content) if suffix else content)
    for split in ("train", "test"):
        ours, theirs = load("idx", split, tmp_path), load("mnist", split, DATA, download=False)
        assert torch.equal(ours.images, theirs.images)
        assert torch.equal(ours.labels, theirs.labels)
        assert ours.classes == theirs.classes
        assert ours.digest == theirs.digest


def test_classes_are_the_labels_that_the_training_files_hold(tmp_path):
    images = np.arange(4)[:, None, None] * np.ones((1, 8, 8))
    write_pair(tmp_path, "letters-train-", images, [26, 3, 11, 3], ".gz")
    write_pair(tmp_path, "letters-test-", images[:2], [11, 3])
    train, test = (load("idx", split, tmp_path) for split in ("train", "test"))
    assert train.classes == test.classes == ("3", "11", "26")
    assert train.labels.tolist() == [2, 0, 1, 0]
    assert test.labels.tolist() == [1, 0]
    write_pair(tmp_path, "letters-test-", images[:2], [11, 4])
    refused("idx", tmp_path, "the test split holds the class '4'", split="test")


def test_one_pair_without_a_split_is_for_training(tmp_path):
    write_pair(tmp_path, "", np.zeros((3, 8, 8)), [0, 1, 1])
    assert load("idx", "train", tmp_path).classes == ("0", "1")
    refused("idx", tmp_path, "no test split", "t10k-images-idx3-ubyte", split="test")


def test_pictures_of_emnist_are_set_upright(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 8))
    write_pair(tmp_path, "emnist-digits-train-", images, [0, 1])
    assert np.array_equal(load("idx", "train", tmp_path).images[:, 0].numpy(), images.transpose(0, 2, 1))


def test_idx_pictures_are_brought_to_the_models_shape(tmp_path):
    write_pair(tmp_path, "train-", np.full((2, 28, 20), 77), [0, 1])
    assert torch.equal(
        load("idx", "train", tmp_path, shape=(3, 8, 8)).images, torch.full((2, 3, 8, 8), 77, dtype=torch.uint8)
    )
    assert load("idx", "train", tmp_path).images.shape == (2, 1, 20, 20)


def test_idx_files_that_are_missing_several_or_damaged_are_named(tmp_path):
    refused("idx", tmp_path, str(tmp_path), "train-images-idx3-ubyte and train-labels-idx1-ubyte")
    write_pair(tmp_path, "train-", np.zeros((4, 8, 8)), [0, 1, 2, 3])
    labels, images = tmp_path / "train-labels-idx1-ubyte", tmp_path / "train-images-idx3-ubyte"
    labels.rename(tmp_path / "aside")
    refused("idx", tmp_path, "no train split")
    write_idx(labels, np.array([0, 1, 2]))
    refused("idx", tmp_path, "holds 4 pictures, but there are 3 labels")
    shutil.copy(images, labels)
    refused("idx", tmp_path, str(labels), "no IDX file of 1 dimensions")
    write_idx(labels, np.array([0, 1, 2, 3]))
    whole = images.read_bytes()
    for damaged in (whole[:-1], whole + b"0", whole[:5], b"", gzip.compress(whole), b"\xff" * 300):
        images.write_bytes(damaged)
        refused("idx", tmp_path, str(images), "damaged")
    images.unlink()
    packed = images.with_name(images.name + ".gz")
    for damaged in (gzip.compress(whole)[:-9], whole, gzip.compress(whole)[:20] + b"\0" * 40):
        packed.write_bytes(damaged)
        refused("idx", tmp_path, str(packed), "damaged")
    packed.write_bytes(gzip.compress(whole))
    assert len(load("idx", "train", tmp_path).images) == 4
    write_pair(tmp_path, "other-train-", np.zeros((2, 8, 8)), [0, 1])
    refused("idx", tmp_path, "several data sets", "other-train-images-idx3-ubyte")


def test_no_memory_is_given_to_what_a_header_only_claims(tmp_path):
    write_pair(tmp_path, "train-", np.zeros((4, 8, 8)), [0, 1, 2, 3])
    (tmp_path / "train-images-idx3-ubyte").write_bytes(struct.pack(">4I", 0x0803, 2**31, 2**31, 2**31))
    refused("idx", tmp_path, "damaged")


# ---------------------------------------------------------------- CelebA

PEOPLE = [  # Male, Smiling, Eyeglasses, split
    (-1, -1, -1, 0),
    (-1, 1, 1, 0),
    (1, 1, -1, 0),
    (1, -1, 1, 2),
    (1, 1, -1, 2),
    (-1, 1, 1, 2),
    (1, -1, -1, 1),
]
PROMPTS = ["woman", "smiling woman with glasses", "smiling man", "man with glasses"]


@pytest.fixture
def celeba(tmp_path):
    """As torchvision unpacks it, with a face of a level of its own: 148 x 148 of 178 x 218, the rest is 255."""
    root = tmp_path / "celeba"
    (root / "img_align_celeba").mkdir(parents=True)
    names = [f"{i + 1:06}.jpg" for i in range(len(PEOPLE))]
    header = ["5_o_Clock_Shadow", "Eyeglasses", "Male", "Smiling", "Young"]
    attributes = [str(len(names)), " ".join(header) + " "]
    for i, (name, (male, smiling, glasses, _)) in enumerate(zip(names, PEOPLE, strict=True)):
        face = Image.new("RGB", (178, 218), "white")
        face.paste((20 * i, 100, 30), (15, 35, 163, 183))
        face.save(root / "img_align_celeba" / name, quality=95, subsampling=0)
        attributes.append(f"{name} {-1:2} {glasses:2} {male:2} {smiling:2} {1:2}")
    (root / "list_attr_celeba.txt").write_text("\n".join(attributes) + "\n")
    splits = [f"{name} {person[3]}" for name, person in zip(names, PEOPLE, strict=True)]
    (root / "list_eval_partition.txt").write_text("\n".join(splits) + "\n")
    return tmp_path


def test_celeba_gives_faces_with_what_the_annotators_saw(celeba):
    data = load("celeba", "train", celeba, shape=(3, 64, 64))
    assert data.images.shape == (3, 3, 64, 64)
    assert [data.classes[label] for label in data.labels] == PROMPTS[:3]
    assert data.classes == ("woman", "smiling woman with glasses", "smiling man")
    middle = data.images[:, :, 4:-4, 4:-4].float()
    expected = torch.tensor([[20.0 * i, 100, 30] for i in range(3)]).view(3, 3, 1, 1)
    assert (middle - expected).abs().max() <= 4  # JPEG's
    assert data.images[:, :, 0].float().mean() < 90  # the crop leaves no white around the face
    assert data.found == "3 pictures, 178 x 218, RGB; cut to their centre squares of 148; resized to 64 x 64"
    inside = load("celeba", "train", celeba / "celeba", shape=(3, 64, 64))
    assert inside.digest == data.digest


def test_celeba_is_read_as_torchvision_reads_it(celeba, monkeypatch):
    """Torchvision opens nothing but the files whose checksums it knows; ours are others, so it must not look."""
    root = celeba / "celeba"
    names = [path.name for path in sorted((root / "img_align_celeba").iterdir())]
    for file, columns, header in (
        ("identity_CelebA", 1, 0),
        ("list_bbox_celeba", 4, 2),
        ("list_landmarks_align_celeba", 10, 2),
    ):
        rows = [f"{len(names)}", " ".join("abcdefghij"[:columns])][:header] + [name + " 1" * columns for name in names]
        (root / f"{file}.txt").write_text("\n".join(rows) + "\n")
    monkeypatch.setattr(torchvision.datasets.CelebA, "_check_integrity", lambda self: True)
    theirs, ours = torchvision.datasets.CelebA(celeba, "train"), load("celeba", "train", celeba, shape=(3, 148, 148))
    columns = [theirs.attr_names.index(name) for name in ("Male", "Smiling", "Eyeglasses")]
    for (face, attributes), image, label in zip(theirs, ours.images, ours.labels, strict=True):
        assert np.array_equal(np.asarray(face)[35:183, 15:163].transpose(2, 0, 1), image)
        assert ours.classes[label] == celeba_prompt(*(bool(attributes[column]) for column in columns))


def test_the_eight_prompts():
    assert celeba_prompt(False, False, False) == "woman"
    assert celeba_prompt(True, True, True) == "smiling man with glasses"
    assert len({celeba_prompt(*which) for which in product((False, True), repeat=3)}) == 8


def test_celebas_partition_is_respected(celeba):
    attributes = celeba / "celeba" / "list_attr_celeba.txt"
    refused("celeba", celeba, "the class 'man with glasses', which the training split lacks", split="test")
    attributes.write_text(attributes.read_text().replace("000004.jpg -1  1", "000004.jpg -1 -1").replace(
        "000001.jpg -1 -1 -1", "000001.jpg -1 -1  1"))  # fmt: skip
    data = load("celeba", "test", celeba, shape=(3, 8, 8))
    assert [data.classes[label] for label in data.labels] == ["man", "smiling man", "smiling woman with glasses"]
    assert data.images[:, 0, 4, 4].tolist() == pytest.approx([60, 80, 100], abs=3)


def test_a_celeba_that_is_not_whole_gets_a_sentence(celeba):
    root = celeba / "celeba"
    (root / "img_align_celeba" / "000002.jpg").unlink()
    refused("celeba", celeba, "000002.jpg", "cannot be opened")
    partition, attributes = root / "list_eval_partition.txt", root / "list_attr_celeba.txt"
    good = partition.read_text()
    for bad in ("000001.jpg 0\n", "one\n", "\n", "é 0\n", "a b c d\n"):
        partition.write_text(bad, encoding="utf-8")
        refused("celeba", celeba, "not CelebA's, or damaged")
    partition.write_text(good.replace(" 0", " 1"))
    refused("celeba", celeba, "lists no picture of the train split")
    partition.write_text(good)
    attributes.write_text(attributes.read_text().replace("Smiling", "Frowning"))
    refused("celeba", celeba, "not CelebA's, or damaged")
    attributes.unlink()
    refused("celeba", celeba, "list_attr_celeba.txt missing")
    refused("celeba", celeba / "nowhere", "list_attr_celeba.txt and list_eval_partition.txt missing")
