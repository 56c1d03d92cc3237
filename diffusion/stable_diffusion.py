"""Stable Diffusion 1 and 2 in this engine: others' folders and files as checkpoints of ours, and ours as theirs."""

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml
from torch import Tensor

from diffusion import checkpoints, diffusers_layout, original_layout
from diffusion.autoencoder import VAEConfig
from diffusion.checkpoints import CONFIG, PICKLES, SAFETENSORS, Checkpoint
from diffusion.clip import CLIPConfig, check_installed
from diffusion.config import dump
from diffusion.diffusers_layout import placed
from diffusion.schedules import Discrete
from diffusion.unet import UNetConfig
from diffusion.weights import Shapes, read_metadata, read_shapes, read_tensors

if TYPE_CHECKING:
    from diffusion.pipeline import Pipeline

INDEX = "model_index.json"
UNET, VAE, TEXT, TOKENIZER, SCHEDULER = "unet", "vae", "text_encoder", "tokenizer", "scheduler"
SCHEDULER_CONFIG = f"{SCHEDULER}/scheduler_config.json"
WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors")
"""Of a U-Net or an autoencoder; the first that is there is read."""

PIPELINES = {"StableDiffusionPipeline", "StableDiffusionImg2ImgPipeline", "StableDiffusionInpaintPipeline"}
PARTS = {UNET: "UNet2DConditionModel", VAE: "AutoencoderKL", TEXT: "CLIPTextModel"}
"""What a model_index.json may name; the rest that it names, such as the safety checker, is not read."""

PREDICTIONS = {"epsilon": "eps", "eps": "eps", "v": "v", "v_prediction": "v"}
"""What a file or the .yaml beside it may say -> our name."""

STEPS, GUIDANCE = 25, 7.5
"""What a model of others is sampled with, if nothing else is said."""


def read(
    reference: str | Path,
    raw: bool = False,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> Checkpoint:
    """Any checkpoint that the engine can open: its own, a folder in diffusers' layout, or one file of Stable Diffusion.

    raw: of a file that has a network twice, not the one that was averaged over its training. device, dtype: what the
    tensors of Stable Diffusion become as they are read, by default float16 on a GPU; those of our own are small, and
    stay float32 in main memory.

    Raises:
        ValueError: one sentence on what is wrong with the reference or the checkpoint.
    """
    dtype = dtype or (torch.float16 if torch.device(device).type in ("cuda", "mps") else torch.float32)
    path = checkpoints.local(reference)
    if path.is_file():
        return _read_file(path, raw, device, dtype)
    if INDEX in (files := checkpoints.listing(reference)):
        return _read_folder(reference, files, device, dtype)
    return checkpoints.read(reference)


def write(pipeline: "Pipeline", folder: str | Path) -> None:
    """Write a model's U-Net and autoencoder, float32, as the folders unet and vae, which diffusers opens.

    Raises:
        ValueError: diffusers has no such network; pixels have no autoencoder.
    """
    network, codec = pipeline.config.network, pipeline.config.codec
    if not isinstance(codec, VAEConfig):
        raise ValueError("Diffusers' pipelines need an autoencoder, and this model's codec has none.")
    for part, module, settings in (
        (UNET, pipeline.denoiser.network, diffusers_layout.unet_settings(network)),
        (VAE, pipeline.codec, diffusers_layout.vae_settings(codec)),
    ):
        checkpoints.write(Path(folder) / part, settings, module.state_dict(), torch.float32, WEIGHTS[0])


def _read_folder(
    reference: str | Path, files: Collection[str], device: torch.device | str, dtype: torch.dtype
) -> Checkpoint:
    """A model in the layout of diffusers, of which `files` is the list."""
    check_installed()
    small = [INDEX, *(f"{part}/{CONFIG}" for part in PARTS), SCHEDULER_CONFIG]
    what = "model in the layout of diffusers"
    folder = checkpoints.find(reference, small, small, what)
    _check_index(checkpoints.read_config(folder, INDEX), str(reference))
    unet, vae, scheduler = (folder / name for name in (UNET, VAE, SCHEDULER_CONFIG))
    network = diffusers_layout.unet_config(checkpoints.read_config(unet), str(unet / CONFIG))
    codec = diffusers_layout.vae_config(checkpoints.read_config(vae), network.sample_size, str(vae / CONFIG))
    schedule, prediction, grid, sampler = diffusers_layout.schedule(
        checkpoints.read_config(folder, SCHEDULER_CONFIG), str(scheduler)
    )
    here = checkpoints.local(reference)
    source = str(here.resolve()) if here.is_dir() else str(reference)
    conditioner = CLIPConfig(reference=source, encoder=TEXT, tokenizer=TOKENIZER, dim=network.cross_attention_dim)
    name = folder.resolve().name if here.is_dir() else source.split("@")[0].split("/")[-1]
    config = _config(name, codec, conditioner, network, schedule, prediction, grid, sampler)

    weights = {file: part for part in (UNET, VAE) for file in _weights(reference, part, files, what)}
    folder = checkpoints.find(reference, [*weights], [*weights], what)
    tensors = {}
    for file, part in weights.items():
        tensors |= _placed(part, read_tensors(folder / file, None, device, dtype))
    return Checkpoint(folder, config, tensors)


def _weights(reference: str | Path, part: str, files: Collection[str], what: str) -> list[str]:
    """The files that a part's tensors are in: one, or the several that an index names where they were cut up."""
    for name in WEIGHTS:
        if f"{part}/{name}" in files:
            return [f"{part}/{name}"]
    index = f"{part}/{WEIGHTS[0]}.index.json"
    if index not in files:
        return [f"{part}/{WEIGHTS[0]}"]  # which is what is lacking, and will be said to be
    folder = checkpoints.find(reference, [index], [index], what)
    shards = checkpoints.read_config(folder, index).get("weight_map")
    if not isinstance(shards, dict) or not {*shards.values()} <= {Path(str(name)).name for name in shards.values()}:
        raise ValueError(f"{folder / index} names no files in its weight_map: copy or download it again.")
    return sorted({f"{part}/{name}" for name in shards.values()})


def _check_index(index: Mapping[str, Any], where: str) -> None:
    kind = index.get("_class_name")
    if kind not in PIPELINES:
        raise ValueError(f"{where} is a {kind}; what can be opened is {', '.join(sorted(PIPELINES))}.")
    for part, wanted in PARTS.items():
        found = (index.get(part) or [None, None])[1]
        if found != wanted:
            raise ValueError(f"{where}: its {part} is a {found}; only {wanted} can be opened.")


def _read_file(path: Path, raw: bool, device: torch.device | str, dtype: torch.dtype) -> Checkpoint:
    """A whole model in one file, in the layout of Stable Diffusion's authors."""
    if path.suffix in PICKLES:
        raise ValueError(
            f"{path} is a pickle, which can run code when it is opened: get the same model as .safetensors, or convert"
            " it with torch.load(path, weights_only=True), which runs none, and safetensors' save_file."
        )
    if path.suffix != SAFETENSORS:
        raise ValueError(f"{path} is a file; name a checkpoint's folder, or a .safetensors file of Stable Diffusion.")
    check_installed()
    shapes = read_shapes(path)
    layout = original_layout.layout(shapes, str(path), raw)
    prediction, size = _said(path, shapes, original_layout.open_clip(layout))
    try:
        network = original_layout.unet_settings(original_layout.shapes_of(layout.unet, shapes))
        codec = original_layout.vae_settings(original_layout.shapes_of(layout.vae, shapes))
        conditioner = CLIPConfig(reference=str(path.resolve()), dim=network["cross_attention_dim"])
        cells = size // 2 ** (len(codec["block_out_channels"]) - 1)
        network = UNetConfig(sample_size=cells, **network)
        codec = VAEConfig(image_size=size, sample_size=size, **codec)
    except KeyError as error:
        raise ValueError(f"{path} lacks the tensor that diffusers calls {error}; copy or download it again.") from None
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} is no Stable Diffusion 1 or 2: {error}") from None
    schedule = Discrete("scaled_linear", 1000, 0.00085, 0.012)
    config = _config(path.stem, codec, conditioner, network, schedule, prediction, "leading", "plms")
    tensors = {}
    for part, places in ((UNET, layout.unet), (VAE, layout.vae)):
        tensors |= _placed(part, original_layout.fetch(path, places, device, dtype))
    return Checkpoint(path.parent, config, tensors, layout.ignored)


def _said(path: Path, shapes: Shapes, version2: bool) -> tuple[str, int]:
    """What a file's network predicts, eps or v, and the side of its pictures.

    It is said in the file (as modelspec), by a mark, or by the .yaml of the same name beside it; else it is what is
    usual: eps and 512 for version 1, v and 768 for version 2.

    Raises:
        ValueError: the .yaml is damaged, or what is said is neither.
    """
    metadata, beside = read_metadata(path), path.with_suffix(".yaml")
    said = metadata.get("modelspec.prediction_type") or ("v" if "v_pred" in shapes else None)
    side = re.match(r"\d+", metadata.get("modelspec.resolution", ""))
    size = int(side[0]) if side else None
    if beside.is_file():
        try:
            params = yaml.safe_load(beside.read_text(encoding="utf-8"))["model"]["params"]
            said = said or params.get("parameterization", "eps")
            size = size or 8 * int(params["image_size"])
        except (yaml.YAMLError, UnicodeDecodeError, KeyError, TypeError, ValueError, AttributeError):
            raise ValueError(f"{beside} does not say model.params.image_size: mend it, or move it away.") from None
    said = said or ("v" if version2 else "eps")
    if said not in PREDICTIONS:
        raise ValueError(f"{path} says that its network predicts {said}; {', '.join(PREDICTIONS)} are known here.")
    prediction = PREDICTIONS[said]
    return prediction, size or (768 if version2 and prediction == "v" else 512)


def _config(
    name: str,
    codec: VAEConfig,
    conditioner: CLIPConfig,
    network: UNetConfig,
    schedule: Discrete,
    prediction: str,
    grid: str,
    sampler: str,
) -> dict[str, Any]:
    """What our config.json would say."""
    if network.out_channels != codec.latent_channels:
        raise ValueError(
            f"The network of {name} gives {network.out_channels} channels, not the latent's {codec.latent_channels}:"
            " only networks that predict the noise, and no variance, can be opened."
        )
    if network.in_channels != codec.latent_channels:
        kind = {9: "made for inpainting", 8: "made to edit pictures", 7: "made to enlarge pictures"}
        raise ValueError(
            f"The network of {name} reads {network.in_channels} channels, not the latent's {codec.latent_channels}: it"
            f" is {kind.get(network.in_channels, 'of another kind')}; the plain model does that here."
        )
    return {
        "name": name,
        "codec": dump(codec),
        "conditioner": dump(conditioner),
        "network": dump(network),
        "schedule": dump(schedule),
        "prediction": prediction,
        "grid": grid,
        "data": "images",
        "defaults": {"sampler": sampler, "steps": STEPS, "guidance": GUIDANCE},
    }


def _placed(part: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A part's tensors under the names that they have in a whole model of ours."""
    prefix = {UNET: "denoiser.network.", VAE: "codec."}[part]
    return {f"{prefix}{name}": tensor for name, tensor in (placed(*item) for item in tensors.items())}
