"""Checkpoints: folders that describe themselves, on this disk or on the Hugging Face Hub."""

import json
import os
import re
from collections.abc import Collection, Mapping
from functools import partial
from itertools import zip_longest
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from safetensors.torch import save
from torch import Tensor, nn

from diffusion import __version__, hub
from diffusion.hub import SAFETENSORS
from diffusion.weights import read_tensors

CONFIG, WEIGHTS = "config.json", "model.safetensors"
FILES = (CONFIG, WEIGHTS, "recipe.yaml", "README.md", "samples.png", "training.json", "metrics.json")
"""All that is ever fetched from the Hub; the first two are required."""

CHECKPOINTS = Path(os.environ.get("DIFFUSION_CHECKPOINTS") or Path(__file__).resolve().parent.parent / "checkpoints")
PICKLES = {".pt", ".pth", ".ckpt", ".bin", ".pkl"}

SETTINGS = {
    r"transformer_blocks\.\d+\.(attn2|norm2)\.": "cross_attention_dim",
    r"transformer_blocks\.[1-9]\d*\..* absent": "transformer_layers",
    r"mid_block\.(attentions|resnets\.1)\..* absent": "mid_attention",
    r"blocks\.\d+\.attentions\.0\..* absent": "attention",
    r"blocks\.\d+\.(resnets|attentions)\.[1-9]\d*\..* absent": "layers_per_block",
    r"time_(proj|embedding)\..* absent": "time_embedding",
    r"quant_conv\.|decoder\.conv_in\.weight 1|encoder\.conv_out\..* 0": "latent_channels",
    r"encoder\.conv_in\.weight 1|decoder\.conv_out\..* 0|stem\.0\.weight 1": "channels",
    r"conv_in\.weight 1": "in_channels",
    r"conv_out\..* 0": "out_channels",
    r"coder\.(down|up)_blocks\.": "block_out_channels",
    r"up_blocks\.": "skips",
    r"^(embeddings|encoder\.layers|final_layer_norm)\.": "hidden_size, num_hidden_layers or vocab_size",
    r"conditioner\.|head\..* 0": "classes",
    r"": "block_out_channels or width",
}
"""The first pattern found in a tensor's name and fault (absent, or the axis of another length) -> what to look at."""


class Checkpoint(NamedTuple):
    """What a checkpoint holds: its settings, and its tensors by name; floating ones as float32, unless asked otherwise.

    ignored: the tensors of others' files that no picture needs, each with the reason.
    """

    folder: Path
    config: dict[str, Any]
    tensors: dict[str, Tensor]
    ignored: Mapping[str, str] = MappingProxyType({})


def write(
    folder: str | Path,
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    dtype: torch.dtype = torch.float16,
    weights: str = WEIGHTS,
) -> None:
    """Write config.json and `weights`; whatever interrupts it, each is afterwards the old file or the new one.

    Floating tensors are stored as `dtype`, all others as they are.

    Raises:
        ValueError: a tensor, which it names, is not finite or too large for `dtype`; nothing has been written then.
    """
    stored = {name: _stored(name, tensor, dtype) for name, tensor in tensors.items()}
    text = json.dumps(config, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    contents = {weights: save(stored, metadata={"format": "pt"}), CONFIG: text.encode()}
    for name, content in contents.items():
        replace_file(folder / name, content)


def replace_file(path: Path, content: bytes) -> None:
    """Writes a file so that a crash or a power cut at any moment leaves the old content or the new, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    if os.name == "posix":  # makes the renaming itself survive a power cut; Windows cannot open a folder
        descriptor = os.open(path.parent, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def _stored(name: str, tensor: Tensor, dtype: torch.dtype) -> Tensor:
    tensor = tensor.detach().cpu()
    if not tensor.is_floating_point():
        return tensor.clone(memory_format=torch.contiguous_format)
    if not tensor.isfinite().all():
        raise ValueError(f"'{name}' holds values that are not finite: the training diverged; keep an earlier state.")
    cast = tensor.to(dtype).clone(memory_format=torch.contiguous_format)  # a copy: safetensors refuses shared memory
    if not cast.isfinite().all():
        largest, limit = tensor.abs().max().item(), torch.finfo(dtype).max
        raise ValueError(f"'{name}' holds {largest:.6g}, {dtype} at most {limit:.6g}: write it as torch.bfloat16.")
    return cast


def names(under: Path = CHECKPOINTS) -> dict[str, str]:
    """The checkpoints under a folder, by name, each with the kind its config gives ("model" where it gives none)."""
    found = {path.parent.name: path.parent for path in sorted(under.glob(f"*/{CONFIG}"))}
    return {name: str(read_config(folder).get("kind", "model")) for name, folder in found.items()}


def read(reference: str | Path, *, names_under: Path = CHECKPOINTS) -> Checkpoint:
    """Read a checkpoint given by its name, its folder or its Hub id.

    The first of these that exists is read: the folder `reference` under `names_under` if it is a plain name; the folder
    `reference`; the repository `owner/name[@revision]` of the Hugging Face Hub. A Path is always a folder. Only
    safetensors are read, never a pickle.

    Raises:
        ValueError: there is no such checkpoint, or it is incomplete, damaged or written by a newer engine.
    """
    folder = find(reference, names_under=names_under)
    return Checkpoint(folder, read_config(folder), read_tensors(folder / WEIGHTS))


def find(
    reference: str | Path,
    files: Collection[str] = FILES,
    required: Collection[str] = (CONFIG, WEIGHTS),
    what: str = "checkpoint",
    names_under: Path | None = CHECKPOINTS,
) -> Path:
    """The folder that a reference stands for.

    From the Hub come those of `files` that are not here yet, so that a caller can look at the small ones first.

    Raises:
        ValueError: there is no such folder or repository, or it lacks one of `required`; `what` it is called then.
    """
    path, check = local(reference, names_under), partial(_check, required=required, what=what)
    if path.is_dir():
        check(str(path), hub.files_in(path))
        return path
    if path.is_file():
        raise ValueError(f"{path} is a file; name the folder that holds {' and '.join(required)}.")
    if isinstance(reference, str) and hub.ID.fullmatch(reference):
        return hub.fetch(reference, files, required, check)
    choices = "a folder or a Hub id owner/name[@revision]"
    if names_under:
        known = ", ".join(path.parent.name for path in sorted(names_under.glob(f"*/{CONFIG}"))) or "none yet"
        choices = f"a name ({known}), {choices}"
    raise ValueError(f"No {what} '{reference}': give {choices}.")


def listing(reference: str | Path, names_under: Path | None = CHECKPOINTS) -> set[str]:
    """The files that the folder or repository of a reference has, and those in its subfolders; none if it has neither.

    Raises:
        ValueError: the Hub cannot be asked, and nothing is here.
    """
    path = local(reference, names_under)
    if path.is_dir():
        return hub.files_in(path)
    if path.is_file() or not (isinstance(reference, str) and hub.ID.fullmatch(reference)):
        return set()
    return hub.listing(reference)


def local(reference: str | Path, names_under: Path | None = CHECKPOINTS) -> Path:
    """The folder or file that a reference is on this disk, or would be."""
    path = Path(reference).expanduser()
    if names_under and isinstance(reference, str) and path.name == reference and (names_under / path).is_dir():
        return names_under / path
    return path


def _check(where: str, present: Collection[str], required: Collection[str], what: str) -> None:
    """ValueError if one of the files that are `required` is not among those that are `present`."""
    if (name := next((name for name in required if name not in present), None)) is None:
        return
    beside = (Path(file) for file in present if Path(file).parent == Path(name).parent)
    pickles = sorted(path.as_posix() for path in beside if path.suffix in PICKLES)
    if name.endswith(SAFETENSORS) and pickles:
        raise ValueError(
            f"{where} has only a pickle ({pickles[0]}), which can run code: convert it with safetensors' save_file."
        )
    raise ValueError(f"{where} has no {name}; a {what} is a folder with {' and '.join(required)}.")


def read_config(folder: Path, name: str = CONFIG) -> dict[str, Any]:
    """A folder's settings; ValueError where they are damaged or written by a newer engine."""
    path = folder / name
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:  # JSON or UTF-8
        raise ValueError(f"{path} is not JSON ({error}); restore it from where the checkpoint came from.") from None
    if not isinstance(config, dict):
        raise ValueError(f"{path} holds a {type(config).__name__}; it must be an object of settings.")
    engine = str(config.get("engine", "0"))
    if _version(engine) > _version(__version__):
        raise ValueError(f"{path} was written by engine {engine} and this is {__version__}; update Diffusion Lab.")
    return config


def _version(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", text)[:2]]  # a patch release never changes the format


def load_into(module: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Make tensors a module's own, all of them and nothing else; it may have been built without memory (device meta).

    Raises:
        ValueError: some are missing, unexpected or ill-shaped; names up to three and the setting that likely differs.
    """
    wanted = module.state_dict()
    faults = {name: "missing" for name in wanted if name not in tensors}
    faults |= {name: "unexpected" for name in tensors if name not in wanted}
    faults |= {
        name: f"{tuple(tensors[name].shape)} instead of {tuple(tensor.shape)}"
        for name, tensor in wanted.items()
        if name in tensors and tensors[name].shape != tensor.shape
    }
    if faults:
        listed = ", ".join(f"'{name}' ({fault})" for name, fault in list(faults.items())[:3])
        more = f" and {len(faults) - 3} more" if len(faults) > 3 else ""
        likely = _setting(first := next(iter(faults)), tensors.get(first), wanted.get(first))
        raise ValueError(f"{where}: the weights do not fit the config, likely its {likely}: {listed}{more}.")
    module.load_state_dict(tensors, assign=True)


def _setting(name: str, found: Tensor | None, wanted: Tensor | None) -> str:
    fault: object = "absent"
    if found is not None and wanted is not None:
        fault = next(axis for axis, (a, b) in enumerate(zip_longest(found.shape, wanted.shape)) if a != b)
    return next(setting for pattern, setting in SETTINGS.items() if re.search(pattern, f"{name} {fault}"))
