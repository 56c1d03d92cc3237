"""Checkpoints: folders that describe themselves, on this disk or on the Hugging Face Hub."""

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from functools import partial
from itertools import zip_longest
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from safetensors.torch import save
from torch import Tensor, nn

from diffusion import __version__
from diffusion.weights import read_tensors

CONFIG, WEIGHTS = "config.json", "model.safetensors"
SAFETENSORS = ".safetensors"
FILES = (CONFIG, WEIGHTS, "recipe.yaml", "README.md", "samples.png", "training.json", "metrics.json")
"""All that is ever fetched from the Hub; the first two are required."""

CHECKPOINTS = Path(os.environ.get("DIFFUSION_CHECKPOINTS") or Path(__file__).resolve().parent.parent / "checkpoints")
PICKLES = {".pt", ".pth", ".ckpt", ".bin", ".pkl"}
HUB_ID = re.compile(r"(?P<repo>[\w-][\w.-]*/[\w-][\w.-]*)(@(?P<revision>[\w./-]+))?")

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

REASONS = {
    "OfflineModeIsEnabled": "'{name}' is not in the cache and HF_HUB_OFFLINE is set: load it once with it unset.",
    "GatedRepoError": "'{repo}' is gated: accept its terms at {page}, then log in with `hf auth login`.",
    "RevisionNotFoundError": "'{repo}' has no branch, tag or commit '{revision}'; {page}/commits/main lists them.",
    "RepositoryNotFoundError": "No folder '{name}' here, no such model on the Hub: check the spelling, or log in with"
    " `hf auth login` if it is private.",
    "refused": "The Hub refused your token for '{repo}' ({status}): log in again with `hf auth login`.",
    "busy": "The Hub is too busy to send '{name}' ({status}): try again in a few minutes.",
    "full": "The disk filled up before '{name}' was complete: {free:,} bytes are free at {cache}.",
    "incomplete": "'{name}' arrived incomplete and was discarded: check the connection and try again.",
    "HTTPError": "The connection to {page} failed and '{name}' is not in the cache: check it and try again.",
    "Exception": "'{name}' could not be read from the Hub: {error}.",
}
"""What went wrong on the way from the Hub (an exception's class, or a word for several) -> what to say; first match."""


class Checkpoint(NamedTuple):
    """What a checkpoint holds: its settings, and its tensors by name with floating ones as float32.

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
    path = local(reference, names_under)
    if path.is_dir():
        for name in required:
            if not (path / name).is_file():
                present = [str(file.relative_to(path)) for file in (path / name).parent.glob("*")]
                raise ValueError(_lacks(str(path), name, present, required, what))
        return path
    if path.is_file():
        raise ValueError(f"{path} is a file; name the folder that holds {' and '.join(required)}.")
    if isinstance(reference, str) and (hub := HUB_ID.fullmatch(reference)):
        return _download(reference, hub["repo"], hub["revision"], files, required, what)
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
        return _files(path)
    if path.is_file() or not (isinstance(reference, str) and (hub := HUB_ID.fullmatch(reference))):
        return set()
    import huggingface_hub
    from huggingface_hub.errors import HTTPError, OfflineModeIsEnabled

    repo, revision = hub["repo"], hub["revision"]
    try:
        info = huggingface_hub.HfApi().model_info(repo, revision=revision, timeout=10)
        return {file.rfilename for file in info.siblings}
    except (HTTPError, OfflineModeIsEnabled, ValueError) as error:
        try:
            # The patterns are of what must be there, which is nothing.
            cached = partial(huggingface_hub.snapshot_download, local_files_only=True, allow_patterns=[])
            return _files(Path(cached(repo, revision=revision)))
        except (FileNotFoundError, ValueError):
            raise ValueError(_reason(error, reference)) from error


def _files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in (*folder.glob("*"), *folder.glob("*/*")) if path.is_file()}


def local(reference: str | Path, names_under: Path | None = CHECKPOINTS) -> Path:
    """The folder or file that a reference is on this disk, or would be."""
    path = Path(reference).expanduser()
    if names_under and isinstance(reference, str) and path.name == reference and (names_under / path).is_dir():
        return names_under / path
    return path


def _download(
    name: str, repo: str, revision: str | None, files: Collection[str], required: Collection[str], what: str
) -> Path:
    """The cached folder of a repository's `files`: fetched unless they are here already, weights verified."""
    import huggingface_hub as hub  # only here: a local checkpoint needs neither the library nor its start-up time
    from huggingface_hub.errors import HTTPError, OfflineModeIsEnabled

    fetch = partial(hub.snapshot_download, repo, revision=revision, allow_patterns=[*files])
    wanted = [file for file in required if file in files]
    weights = [file for file in wanted if file.endswith(SAFETENSORS)]
    try:
        info = hub.HfApi().model_info(repo, revision=revision, files_metadata=True, timeout=10)
    except (HTTPError, OfflineModeIsEnabled, ValueError) as error:
        try:  # whatever the Hub says today, a copy that is here still works
            folder = Path(fetch(local_files_only=True))
            for file in wanted:
                (folder / file).resolve(strict=True)
        except (FileNotFoundError, ValueError):
            raise ValueError(_reason(error, name)) from error
        for file in weights:
            _verify(folder, file, None, name)
        return folder

    announced = {file.rfilename: file for file in info.siblings}
    for file in required:
        if file not in announced:
            raise ValueError(_lacks(f"'{name}' on the Hub", file, announced, required, what))
    paths = {file: hub.try_to_load_from_cache(repo, file, revision=info.sha) for file in files if file in announced}
    needed = sum(announced[file].size for file, path in paths.items() if not isinstance(path, str))
    cache = Path(hub.constants.HF_HUB_CACHE)
    if needed > (free := _free(cache)):
        raise ValueError(f"'{name}' needs {needed:,} bytes, {free:,} are free at {cache}: make room or set HF_HOME.")
    try:
        folder = Path(fetch() if needed else fetch(revision=info.sha, local_files_only=True))
    except Exception as error:  # of HTTP, the disk or the library's native transfer: each has its sentence
        raise ValueError(_reason(error, name)) from error
    for file in weights:
        _verify(folder, file, announced[file], name)
    return folder


def _verify(folder: Path, file: str, announced: Any, name: str) -> None:
    """Compare weights with the Hub's hash (sha256 in LFS, else Git's blob sha1) once; the verdict is kept."""
    weights = folder / file
    expected = announced and (announced.lfs.sha256 if announced.lfs else announced.blob_id)
    if weights.is_symlink():  # the cache names each blob by its hash
        expected = Path(os.readlink(weights)).name
    if not expected:
        return
    stat = weights.stat()
    verdict, seen = folder.parents[1] / "verified" / expected, f"{stat.st_size} {stat.st_mtime_ns}"
    if verdict.is_file() and verdict.read_text() == seen:
        return
    digest = hashlib.sha256() if len(expected) == 64 else hashlib.sha1(b"blob %d\0" % stat.st_size)
    with weights.open("rb") as content:
        while block := content.read(2**20):
            digest.update(block)
    if digest.hexdigest() != expected:
        weights.resolve().unlink()
        weights.unlink(missing_ok=True)
        raise ValueError(f"'{name}': {file} is not what the Hub announced (other hash) and was removed; try again.")
    with suppress(OSError):  # a read-only cache is hashed each time
        verdict.parent.mkdir(exist_ok=True)
        verdict.write_text(seen)


def _free(folder: Path) -> int:
    """Free bytes on the disk that holds a folder, or will hold it."""
    return shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free


def _reason(error: BaseException, name: str) -> str:
    from huggingface_hub import constants

    if type(error).__name__ == "LocalEntryNotFoundError" and error.__cause__:
        error = error.__cause__
    status = getattr(getattr(error, "response", None), "status_code", 0)
    causes = {cls.__name__ for cls in type(error).__mro__} | {
        "refused" if status in (401, 403) else "",
        "busy" if status == 429 or status >= 500 else "",
        "full" if getattr(error, "errno", None) == errno.ENOSPC else "",
        "incomplete" if "Consistency check failed" in str(error) else "",
    }
    repo, _, revision = name.partition("@")
    return next(reason for cause, reason in REASONS.items() if cause in causes).format(
        name=name,
        repo=repo,
        revision=revision,
        page=f"{constants.ENDPOINT}/{repo}",
        status=status,
        cache=constants.HF_HUB_CACHE,
        free=_free(Path(constants.HF_HUB_CACHE)),
        error=" ".join(str(error).split()).rstrip(".") or type(error).__name__,
    )


def _lacks(where: str, name: str, present: Iterable[str], required: Iterable[str], what: str) -> str:
    beside = (Path(file) for file in present if Path(file).parent == Path(name).parent)
    pickles = sorted(str(path) for path in beside if path.suffix in PICKLES)
    if name.endswith(SAFETENSORS) and pickles:
        return f"{where} has only a pickle ({pickles[0]}), which can run code: convert it with safetensors' save_file."
    return f"{where} has no {name}; a {what} is a folder with {' and '.join(required)}."


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
