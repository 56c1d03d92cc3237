import hashlib
import shutil
import urllib.request
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from diffusion.data import DATASETS, OWN, ImageData, Painted, batch_indices, load, to_uint8, to_unit

DATA = Path(__file__).parent / "data"


@pytest.mark.parametrize(("name", "train", "test"), [("mnist", 600, 300), ("fashion-mnist", 200, 100)])
def test_idx_files_load_offline_as_balanced_uint8_images(name, train, test):
    for split, count in (("train", train), ("test", test)):
        data = load(name, split, DATA, download=False)
        assert data.images.shape == (count, 1, 28, 28)
        assert data.images.dtype == torch.uint8
        assert data.images.float().std() > 50
        assert data.labels.dtype == torch.int64
        assert torch.equal(data.labels.bincount(), torch.full((10,), count // 10))
        assert data.classes == DATASETS[name].classes


def test_classes_are_distinct_prompts():
    for source in DATASETS.values():
        assert len(set(source.classes)) == 10
        assert all(prompt and prompt == prompt.strip() for prompt in source.classes)
    assert DATASETS["fashion-mnist"].classes[9] == "ankle boot"  # as Zalando's own list has it


def test_images_and_labels_belong_together():
    data = load("mnist", "train", DATA, download=False)
    means = torch.stack([data.images[data.labels == digit].float().mean(0) for digit in range(10)])
    assert means[0, 0, 14, 14] < 50 < means[1, 0, 14, 14]  # a zero is hollow, a one is not


def test_the_default_folder_is_data_under_the_current_one(monkeypatch):
    monkeypatch.chdir(DATA.parent)
    assert len(load("mnist", "test", download=False).images) == 300


def test_unknown_names_and_splits_list_the_choices():
    with pytest.raises(ValueError, match="'cifar'; the choices are mnist, fashion-mnist, folder, idx, celeba"):
        load("cifar", "train", DATA)
    with pytest.raises(ValueError, match="'validation'; the choices are train, test"):
        load("mnist", "validation", DATA)


def test_own_data_needs_to_be_told_where_it_lies_and_what_shape_it_is_to_have(tmp_path):
    for name in OWN:
        with pytest.raises(ValueError, match=f"^{name} is data of your own: say where it lies with --data-dir"):
            load(name, "train", shape=(1, 28, 28))
    for name in ("folder", "celeba"):
        with pytest.raises(ValueError, match="need one shape"):
            load(name, "train", tmp_path)


def test_digits_are_brought_to_a_models_shape():
    small, whole = (load("mnist", "test", DATA, False, shape) for shape in ((1, 14, 14), (1, 28, 28)))
    means = F.avg_pool2d(whole.images.float(), 2)
    assert (small.images.float() - means).abs().max() <= 1  # rounded once across and once down
    assert torch.equal(small.labels, whole.labels)
    assert (whole.found, small.found) == ("", "300 pictures, 28 x 28, grey; resized to 14 x 14")
    assert load("mnist", "test", DATA, False, (3, 28, 28)).images.shape == (300, 3, 28, 28)


def test_the_digest_is_of_pictures_and_labels_and_stays_what_saved_states_hold():
    data = load("mnist", "test", DATA, download=False)
    known = hashlib.sha256(data.images.numpy().tobytes() + data.labels.numpy().tobytes()).hexdigest()[:16]
    assert data.digest == known
    assert ImageData(data.images.flip(0), data.labels, data.classes).digest != known
    assert ImageData(data.images, data.labels.flip(0), data.classes).digest != known
    assert ImageData(data.images[:, :, ::2], data.labels[:1], data.classes).digest != known  # a view with gaps


def test_missing_files_are_named_with_their_place_and_their_source(tmp_path):
    with pytest.raises(ValueError, match="allow the download") as error:
        load("mnist", "train", tmp_path, download=False)
    for words in (str(tmp_path / "MNIST" / "raw"), "train-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz", "http"):
        assert words in str(error.value)


def test_one_missing_file_is_named_alone(tmp_path):
    shutil.copytree(DATA / "MNIST", tmp_path / "MNIST")
    (tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(ValueError, match=r"^mnist: t10k-labels-idx1-ubyte missing in"):
        load("mnist", "train", tmp_path, download=False)


def test_without_a_network_the_error_says_how_to_get_the_files(tmp_path, monkeypatch):
    def offline(*args, **kwargs):
        raise urllib.request.URLError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", offline)
    with pytest.raises(
        ValueError, match=r"could not be downloaded .*; check the network, or download .* unpack"
    ) as error:
        load("fashion-mnist", "train", tmp_path)
    assert str(tmp_path / "FashionMNIST" / "raw") in str(error.value)


@pytest.mark.parametrize("file", ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"])
@pytest.mark.parametrize("damage", [lambda b: b[:-100], lambda b: b"", lambda b: b"\xff" * 64, lambda b: b[:6]])
def test_damaged_files_say_what_to_delete(tmp_path, file, damage):
    shutil.copytree(DATA / "MNIST", tmp_path / "MNIST")
    path = tmp_path / "MNIST" / "raw" / file
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=r"train files of mnist in .* are damaged; delete that folder"):
        load("mnist", "train", tmp_path, download=False)


def test_labels_of_another_count_or_class_are_damage(tmp_path):
    shutil.copytree(DATA / "MNIST", tmp_path / "MNIST")
    raw = tmp_path / "MNIST" / "raw"
    good = (raw / "train-labels-idx1-ubyte").read_bytes()
    shutil.copy(raw / "t10k-labels-idx1-ubyte", raw / "train-labels-idx1-ubyte")
    with pytest.raises(ValueError, match="damaged"):
        load("mnist", "train", tmp_path, download=False)
    (raw / "train-labels-idx1-ubyte").write_bytes(good[:-1] + b"\x0a")
    with pytest.raises(ValueError, match="damaged"):
        load("mnist", "train", tmp_path, download=False)


def test_every_gray_level_survives_the_round_trip():
    levels = torch.arange(256, dtype=torch.uint8)
    unit = to_unit(levels)
    assert unit.dtype == torch.float32
    assert (unit[0], unit[-1]) == (-1, 1)
    assert torch.equal(to_uint8(unit), levels)


def test_to_uint8_rounds_and_clamps():
    assert to_uint8(torch.tensor([-7.0, -1.0, 0.003, 1.0, 7.0])).tolist() == [0, 0, 128, 255, 255]
    assert to_uint8(torch.tensor([0.5], dtype=torch.float16)).dtype == torch.uint8


def test_each_epoch_is_a_permutation_of_its_own():
    order = torch.cat([batch_indices(60, 12, 3, step) for step in range(10)])
    first, second = order[:60], order[60:]
    assert torch.equal(first.sort().values, torch.arange(60))
    assert torch.equal(second.sort().values, torch.arange(60))
    assert not torch.equal(first, second)


def test_batches_run_on_across_the_end_of_an_epoch():
    order = torch.cat([batch_indices(10, 7, 0, step) for step in range(10)])
    assert all(torch.equal(epoch.sort().values, torch.arange(10)) for epoch in order.view(7, 10))
    assert torch.equal(torch.cat([batch_indices(10, 25, 0, step) for step in range(2)]), order[:50])


def test_a_step_depends_on_seed_and_step_alone():
    continuous = [batch_indices(100, 32, 5, step) for step in range(20)]
    for step in (19, 7, 0, 12):  # as a run that is resumed anywhere
        assert torch.equal(batch_indices(100, 32, 5, step), continuous[step])
    torch.manual_seed(1)
    before = torch.get_rng_state()
    assert not torch.equal(batch_indices(100, 32, 6, 0), continuous[0])
    assert torch.equal(torch.get_rng_state(), before)


def test_a_batch_is_its_callers_to_change():
    batch = batch_indices(8, 8, 0, 0)
    expected = batch.clone()
    batch.zero_()
    assert torch.equal(batch_indices(8, 8, 0, 0), expected)


@pytest.mark.parametrize(("count", "size"), [(0, 4), (4, 0)])
def test_empty_batches_are_refused(count, size):
    with pytest.raises(ValueError, match="at least one image"):
        batch_indices(count, size, 0, 0)


def test_a_training_in_bf16_paints_as_finely_as_any():
    digits, index = load("mnist", "test", DATA, download=False), torch.arange(16)
    plain, captions = Painted(digits).batch(index, torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        same, said = Painted(digits).batch(index, torch.Generator().manual_seed(0))
    assert torch.equal(plain, same) and captions == said
