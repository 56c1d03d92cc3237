"""Folders in the layout of diffusers: its settings into this engine's configs and back, and its older names.

Pure functions; a setting that would change what is computed, and that this engine does not have, is an error.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from diffusion.autoencoder import VAEConfig
from diffusion.schedules import Discrete
from diffusion.unet import UNetConfig

Settings = Mapping[str, Any]

UNET_FIXED = {
    "center_input_sample": False, "flip_sin_to_cos": True, "freq_shift": 0, "downsample_padding": 1,
    "mid_block_scale_factor": 1, "act_fn": "silu", "norm_eps": 1e-5, "resnet_time_scale_shift": "default",
    "resnet_out_scale_factor": 1.0, "time_embedding_type": "positional", "conv_in_kernel": 3, "conv_out_kernel": 3,
    "attention_type": "default",
}  # fmt: skip
VAE_FIXED = {"act_fn": "silu", "use_quant_conv": True, "use_post_quant_conv": True, "mid_block_add_attention": True}
"""Settings that are not settings here, and what is computed."""

UNET_READ = {
    "sample_size", "in_channels", "out_channels", "down_block_types", "mid_block_type", "up_block_types",
    "block_out_channels", "layers_per_block", "norm_num_groups", "cross_attention_dim", "transformer_layers_per_block",
    "attention_head_dim", "num_attention_heads", "use_linear_projection",
    "dropout", "upcast_attention", "addition_embed_type_num_heads",  # change nothing here
}  # fmt: skip
VAE_READ = {
    "in_channels", "out_channels", "down_block_types", "up_block_types", "block_out_channels", "layers_per_block",
    "latent_channels", "norm_num_groups", "scaling_factor",
    "sample_size", "force_upcast",  # change nothing here
}  # fmt: skip

DOWN, UP = ("DownBlock2D", "CrossAttnDownBlock2D"), ("UpBlock2D", "CrossAttnUpBlock2D")
MIDDLE = ("UNetMidBlock2D", "UNetMidBlock2DCrossAttn")
"""Blocks without attention and with it."""

OLD_NAMES = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""The autoencoder's attention as it was named once."""


class Scheduler(NamedTuple):
    """One of diffusers' schedulers here: the sampler, and the spacing of its timesteps where none is said."""

    sampler: str
    spacing: str


SCHEDULERS = {
    "PNDMScheduler": Scheduler("plms", "leading"),
    "DDIMScheduler": Scheduler("ddim", "leading"),
    "DDPMScheduler": Scheduler("ddpm", "leading"),
    "EulerDiscreteScheduler": Scheduler("euler", "linspace"),
    "EulerAncestralDiscreteScheduler": Scheduler("euler_ancestral", "linspace"),
    "HeunDiscreteScheduler": Scheduler("heun", "linspace"),
    "LMSDiscreteScheduler": Scheduler("lms", "linspace"),
    "DPMSolverMultistepScheduler": Scheduler("dpmpp_2m", "linspace"),
    "UniPCMultistepScheduler": Scheduler("unipc", "linspace"),
}
GRIDS = {"leading": "leading", "linspace": "uniform_time", "trailing": "trailing"}
PREDICTIONS = {"epsilon": "eps", "v_prediction": "v", "sample": "x0"}
"""Diffusers' words -> ours."""


def unet_config(settings: Settings, where: str) -> UNetConfig:
    """A U-Net of diffusers as ours.

    Raises:
        ValueError: a setting is missing, or asks for what this U-Net does not compute; it is named.
    """
    _check(settings, UNET_READ, UNET_FIXED, where)
    widths = tuple(_get(settings, "block_out_channels", where))
    levels = len(widths)
    attention = tuple(_flag(kind, DOWN, where) for kind in _get(settings, "down_block_types", where))
    up = tuple(_flag(kind, UP, where) for kind in _get(settings, "up_block_types", where))
    if up != attention[::-1]:
        raise ValueError(f"{where}: up_block_types must have attention where down_block_types have it.")
    mid_attention = _flag(settings.get("mid_block_type", MIDDLE[True]), MIDDLE, where)
    # Diffusers' attention_head_dim is the number of heads, by an old mistake of names.
    heads = _each(settings.get("num_attention_heads") or settings.get("attention_head_dim", 8), levels)
    head_widths = {width / number for width, number in zip(widths, heads, strict=True)}
    if len(set(heads)) == 1:
        heads_setting = {"attention_heads": heads[0]}
    elif len(head_widths) == 1:
        heads_setting = {"attention_head_dim": int(head_widths.pop())}
    else:
        raise ValueError(f"{where}: attention_head_dim must give all levels equally many or equally wide heads.")

    def single(key: str, default: int) -> int:
        values = set(_each(settings.get(key, default), levels))
        if len(values) > 1:
            raise ValueError(f"{where}: {key} must be one number for all levels, not {settings[key]}.")
        return values.pop()

    return _built(
        UNetConfig,
        where,
        sample_size=_get(settings, "sample_size", where),
        in_channels=settings.get("in_channels", 4),
        out_channels=settings.get("out_channels", 4),
        block_out_channels=widths,
        layers_per_block=single("layers_per_block", 2),
        attention=attention,
        mid_attention=mid_attention,
        transformer_layers=single("transformer_layers_per_block", 1),
        cross_attention_dim=single("cross_attention_dim", 1280),
        norm_num_groups=settings.get("norm_num_groups", 32),
        **heads_setting,
    )


def vae_config(settings: Settings, cells: int, where: str) -> VAEConfig:
    """An autoencoder of diffusers as ours, for latents of cells x cells.

    Raises:
        ValueError: a setting is missing, or asks for what this autoencoder does not compute; it is named.
    """
    _check(settings, VAE_READ, VAE_FIXED, where)
    for key, kind in (("down_block_types", "DownEncoderBlock2D"), ("up_block_types", "UpDecoderBlock2D")):
        if other := [block for block in _get(settings, key, where) if block != kind]:
            raise ValueError(f"{where}: {key} has {other[0]}; only {kind} is known here.")
    widths = tuple(_get(settings, "block_out_channels", where))
    size = cells * 2 ** (len(widths) - 1)
    return _built(
        VAEConfig,
        where,
        image_size=size,
        sample_size=size,
        channels=settings.get("in_channels", 3),
        latent_channels=settings.get("latent_channels", 4),
        block_out_channels=widths,
        layers_per_block=settings.get("layers_per_block", 1),
        norm_num_groups=settings.get("norm_num_groups", 32),
        scaling_factor=settings.get("scaling_factor", 0.18215),
    )


def schedule(settings: Settings, where: str) -> tuple[Discrete, str, str, str]:
    """What a scheduler's settings say: the schedule, the prediction, the grid and the sampler.

    The offset of leading timesteps is always 1, and the last step leads to sigma = 0.

    Raises:
        ValueError: the scheduler or one of its settings is not known here.
    """
    name = settings.get("_class_name")
    if name not in SCHEDULERS:
        raise ValueError(f"{where}: the scheduler {name} is not known here; known are {', '.join(SCHEDULERS)}.")
    if settings.get("rescale_betas_zero_snr") or settings.get("trained_betas"):
        raise ValueError(f"{where}: rescale_betas_zero_snr and trained_betas are not known here, only plain betas.")
    betas = settings.get("beta_schedule", "linear")
    if betas not in ("linear", "scaled_linear", "squaredcos_cap_v2"):
        raise ValueError(f"{where}: beta_schedule is {betas}; linear, scaled_linear and squaredcos_cap_v2 are known.")
    table = _built(
        Discrete,
        where,
        kind="cosine" if betas == "squaredcos_cap_v2" else betas,
        steps=settings.get("num_train_timesteps", 1000),
        beta_start=settings.get("beta_start", 0.0001),
        beta_end=settings.get("beta_end", 0.02),
    )
    prediction = settings.get("prediction_type", "epsilon")
    spacing = settings.get("timestep_spacing", SCHEDULERS[name].spacing)
    for key, value, known in (("prediction_type", prediction, PREDICTIONS), ("timestep_spacing", spacing, GRIDS)):
        if value not in known:
            raise ValueError(f"{where}: {key} is {value}; {', '.join(known)} are known here.")
    grid = "karras" if settings.get("use_karras_sigmas") else GRIDS[spacing]
    sde = settings.get("algorithm_type") == "sde-dpmsolver++"
    return table, PREDICTIONS[prediction], grid, "dpmpp_2m_sde" if sde else SCHEDULERS[name].sampler


def unet_settings(config: UNetConfig) -> dict[str, Any]:
    """A U-Net of ours as diffusers describes it.

    Raises:
        ValueError: diffusers has no such network.
    """
    if config.skips == "add" or config.time_embedding == "fourier":
        raise ValueError("Diffusers has no U-Net of this kind: only skips that are concatenated and sinusoidal time.")
    if config.cross_attention_dim is None and any((*config.attention, config.mid_attention)):
        raise ValueError("Diffusers has no such U-Net whose attention sees no context.")
    return {
        "_class_name": "UNet2DConditionModel",
        "sample_size": config.sample_size,
        "in_channels": config.in_channels,
        "out_channels": config.out_channels,
        "down_block_types": [DOWN[attention] for attention in config.attention],
        "mid_block_type": MIDDLE[config.mid_attention],
        "up_block_types": [UP[attention] for attention in config.attention[::-1]],
        "block_out_channels": list(config.block_out_channels),
        "layers_per_block": config.layers_per_block,
        "transformer_layers_per_block": config.transformer_layers,
        "attention_head_dim": [max(config.heads(width), 1) for width in config.block_out_channels],
        "cross_attention_dim": config.cross_attention_dim or 1,
        "norm_num_groups": config.norm_num_groups,
        **UNET_FIXED,
    }


def vae_settings(config: VAEConfig) -> dict[str, Any]:
    """An autoencoder of ours as diffusers describes it; it takes pictures that are padded to sample_size."""
    levels = len(config.block_out_channels)
    return {
        "_class_name": "AutoencoderKL",
        "sample_size": config.sample_size,
        "in_channels": config.channels,
        "out_channels": config.channels,
        "down_block_types": ["DownEncoderBlock2D"] * levels,
        "up_block_types": ["UpDecoderBlock2D"] * levels,
        "block_out_channels": list(config.block_out_channels),
        "layers_per_block": config.layers_per_block,
        "latent_channels": config.latent_channels,
        "norm_num_groups": config.norm_num_groups,
        "scaling_factor": config.scaling_factor,
        **VAE_FIXED,
    }


def placed(name: str, tensor: Tensor) -> tuple[str, Tensor]:
    """Our name for a tensor of diffusers' U-Net or autoencoder, and its numbers in our shape.

    A 1 x 1 convolution and a linear layer are the same: version 2 projects into its transformers by the latter, and the
    autoencoder's attention was once made of the former.
    """
    if old := re.fullmatch(r"(.*attentions\.0\.)(query|key|value|proj_attn)\.(weight|bias)", name):
        name = f"{old[1]}{OLD_NAMES[old[2]]}.{old[3]}"
    if re.search(r"\.proj_(in|out)\.weight$", name) and tensor.ndim == 2:
        tensor = tensor[..., None, None]
    if re.search(r"coder\.mid_block\.attentions\.0\.to_.*weight$", name) and tensor.ndim == 4:
        tensor = tensor.flatten(1)
    return name, tensor


def _get(settings: Settings, key: str, where: str) -> Any:
    if settings.get(key) is None:
        raise ValueError(f"{where}: '{key}' is missing.")
    return settings[key]


def _each(value: Any, levels: int) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value] * levels


def _flag(kind: str, kinds: tuple[str, str], where: str) -> bool:
    """Whether this kind of block has attention."""
    if kind not in kinds:
        raise ValueError(f"{where}: the block {kind} is not known here; known are {' and '.join(kinds)}.")
    return kind == kinds[True]


def _check(settings: Settings, read: set[str], fixed: Settings, where: str) -> None:
    for key, value in settings.items():
        if key.startswith("_") or key in read:
            continue
        if value != fixed[key] if key in fixed else value:
            known = repr(fixed[key]) if key in fixed else "none"
            raise ValueError(f"{where}: {key} is {value!r}, which this engine does not compute; {known} would do.")


def _built(config: type, where: str, **settings: Any) -> Any:
    try:
        return config(**settings)
    except (ValueError, TypeError) as error:
        raise ValueError(f"{where}: {str(error).rstrip('.')}.") from None
