"""Checkpoints on disk: what is written is read, and every failure has its sentence."""

import errno
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import diffusion
from diffusion.checkpoints import CONFIG, WEIGHTS, load_into, names, read, write

CONFIG_VALUES = {"kind": "toy", "name": "one", "engine": diffusion.__version__, "sizes": [1, 2]}


def tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {"a.weight": torch.randn(4, 3, generator=generator), "steps": torch.tensor(7), "half": torch.ones(2).half()}


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "one", CONFIG_VALUES, tensors())
    return tmp_path / "one"


def fails(reference: str | Path, *parts: str, **options) -> str:
    """The message with which `read` refuses: one line that holds all the parts."""
    with pytest.raises(ValueError) as caught:
        read(reference, **options)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    for part in parts:
        assert part in message
    return message


# Folders --------------------------------------------------------------------------------------------------------------


def test_what_is_written_is_read(folder):
    checkpoint = read(folder)
    assert checkpoint.folder == folder
    assert checkpoint.config == CONFIG_VALUES
    assert list(checkpoint.config) == list(CONFIG_VALUES)
    assert {name: t.dtype for name, t in checkpoint.tensors.items()} == {
        "a.weight": torch.float32,
        "half": torch.float32,
        "steps": torch.int64,
    }
    assert torch.equal(checkpoint.tensors["a.weight"], tensors()["a.weight"].half().float())
    assert checkpoint.tensors["steps"] == 7
    assert load_file(folder / WEIGHTS)["a.weight"].dtype == torch.float16
    assert sorted(os.listdir(folder)) == [CONFIG, WEIGHTS]


def test_the_same_content_gives_the_same_bytes(folder, tmp_path):
    write(tmp_path / "two", CONFIG_VALUES, dict(reversed(tensors().items())))
    assert files(folder) == files(tmp_path / "two")


def test_other_dtypes_views_and_tied_tensors(tmp_path):
    x = torch.randn(4, 4)
    write(tmp_path, {}, {"x": x, "tied": x, "view": x.T, "big": torch.tensor([1e6])}, dtype=torch.float32)
    stored = read(tmp_path).tensors
    assert torch.equal(stored["x"], x)
    assert torch.equal(stored["tied"], x)
    assert torch.equal(stored["view"], x.T)
    write(tmp_path, {}, {"x": torch.tensor([1e6])}, dtype=torch.bfloat16)
    assert read(tmp_path).tensors["x"].item() == pytest.approx(1e6, rel=0.01)


@pytest.mark.parametrize(
    ("value", "message"), [(float("nan"), "not finite"), (float("-inf"), "not finite"), (70000.0, "65504")]
)
def test_bad_values_are_refused_and_nothing_is_written(folder, value, message):
    before = files(folder)
    with pytest.raises(ValueError, match=f"'bad.bias'.*({message})"):
        write(folder, {"kind": "other"}, {"ok": torch.ones(1), "bad.bias": torch.tensor([1.0, value])})
    assert files(folder) == before


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_an_interrupted_write_keeps_the_old_checkpoint(folder, monkeypatch, call):
    before = files(folder)

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(OSError, match="No space"):
            write(folder, {"kind": "other"}, {"x": torch.ones(1)})
    assert files(folder) == before


def test_a_name_comes_before_a_folder_and_a_folder_before_the_hub(tmp_path, monkeypatch):
    for place in ("models/one", "one", "two", "owner/digits"):
        write(tmp_path / place, {"at": place}, {})
    monkeypatch.chdir(tmp_path)
    under = tmp_path / "models"
    assert read("one", names_under=under).config == {"at": "models/one"}
    assert read("./one", names_under=under).config == {"at": "one"}
    assert read(Path("one"), names_under=under).config == {"at": "one"}
    assert read("two", names_under=under).config == {"at": "two"}
    assert read(str(tmp_path / "two"), names_under=under).config == {"at": "two"}
    assert read("owner/digits", names_under=under).config == {"at": "owner/digits"}


def test_names_and_kinds(tmp_path):
    write(tmp_path / "b", {"kind": "classifier"}, {})
    write(tmp_path / "a", {}, {})
    (tmp_path / "empty").mkdir()
    assert names(tmp_path) == {"a": "model", "b": "classifier"}
    assert names(tmp_path / "nowhere") == {}


def test_unknown_names(folder):
    fails("onw", "'onw'", "one", "Hub id", names_under=folder.parent)
    fails("onw", "none yet", names_under=folder)
    fails("../onw/x/y", "No checkpoint", names_under=folder.parent)
    fails(Path("owner/digits"), "No checkpoint")
    fails(str(folder / CONFIG), "is a file")


def test_incomplete_folders(folder):
    (folder / WEIGHTS).unlink()
    fails(folder, f"has no {WEIGHTS}", str(folder))
    torch.save(tensors(), folder / "model.pt")
    fails(folder, "pickle (model.pt)", "run code", "save_file")
    (folder / CONFIG).unlink()
    fails(folder, f"has no {CONFIG}")


@pytest.mark.parametrize(
    ("config", "parts"),
    [
        ("{'a': 1}", ["not JSON", "line 1"]),
        ("[1]", ["a list"]),
        ("\xff", ["not JSON"]),
        ('{"engine": "99.0"}', ["engine 99.0", diffusion.__version__, "update"]),
    ],
)
def test_bad_configs(folder, config, parts):
    (folder / CONFIG).write_bytes(config.encode("latin-1"))
    fails(folder, CONFIG, *parts)


def test_a_patch_release_reads_on(folder):
    (folder / CONFIG).write_text(json.dumps({"engine": diffusion.__version__.rpartition(".")[0] + ".99"}))
    read(folder)


@pytest.mark.parametrize("keep", [0, 4, 20, -1])
def test_truncated_weights(folder, keep):
    path = folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:keep])
    fails(folder, WEIGHTS, "bytes", "again")


def test_corrupt_weights(folder):
    path = folder / WEIGHTS
    whole = path.read_bytes()
    path.write_bytes(whole[:8] + b"#" * 20 + whole[28:])
    fails(folder, WEIGHTS, "damaged", "again")
    path.write_bytes(whole.replace(b'"F16"', b'"F99"', 1))
    fails(folder, WEIGHTS, "damaged", "again")
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n")
    fails(folder, "Git LFS pointer", "git lfs pull")


def test_nothing_is_unpickled(folder, monkeypatch):
    torch.save(tensors(), folder / WEIGHTS)  # a pickle under a safe name
    monkeypatch.setattr("pickle.Unpickler", None)
    fails(folder, WEIGHTS)


# Loading into a module ------------------------------------------------------------------------------------------------


def test_load_into_is_strict():
    module = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    weights = {name: torch.ones_like(tensor) for name, tensor in module.state_dict().items()}
    load_into(module, weights, "here")
    assert all((tensor == 1).all() for tensor in module.state_dict().values())

    weights.pop("0.bias")
    weights |= {"1.weight": torch.ones(2, 5), "2.extra": torch.ones(1), "3.extra": torch.ones(1)}
    with pytest.raises(ValueError) as caught:
        load_into(module, weights, "here")
    assert str(caught.value) == (
        "here: the weights do not fit the config, likely its block_out_channels or width: '0.bias' (missing),"
        " '2.extra' (unexpected), '3.extra' (unexpected) and 1 more."
    )


@pytest.mark.parametrize(
    "changed",
    [
        {"in_channels": 3},
        {"out_channels": 3},
        {"block_out_channels": (32, 32)},
        {"block_out_channels": (16, 32, 32), "attention": (False, True, True)},
        {"layers_per_block": 1},
        {"layers_per_block": 3},
        {"attention": (True, True)},
        {"attention": (False, False)},
        {"mid_attention": False},
        {"transformer_layers": 2},
        {"cross_attention_dim": 32},
        {"cross_attention_dim": None},
        {"time_embedding": "fourier"},
        {"skips": "add"},
    ],
    ids=str,
)
def test_load_into_names_the_setting_that_differs(changed):
    from diffusion.unet import UNet, UNetConfig

    base = {"block_out_channels": (16, 32), "layers_per_block": 2, "attention": (False, True), "attention_head_dim": 16}
    weights, module = UNet(UNetConfig(**base)).state_dict(), UNet(UNetConfig(**{**base, **changed}))
    with pytest.raises(ValueError, match=f"likely its {next(iter(changed))}"):
        load_into(module, weights, "here")
