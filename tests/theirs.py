"""Small models of others with random weights: Stable Diffusion 1 and 2 as diffusers and transformers build them."""

from pathlib import Path

import diffusers
import torch
import transformers
from test_clip import TEXT

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
TRAINED = {**BETAS, "steps_offset": 1}
SIDE, CELLS, WIDTH = 16, 8, 64


def shaken(module: torch.nn.Module) -> torch.nn.Module:
    """Every weight changed, so that no norm is the identity and no bias is zero."""
    generator = torch.Generator().manual_seed(0)
    for p in module.parameters():
        p.data += 0.05 * torch.randn(p.shape, generator=generator)
    return module.eval()


def unet(version: int = 1) -> diffusers.UNet2DConditionModel:
    """A small one: version 2 projects by linear layers, and its heads are 64 wide."""
    widths, heads = {1: ((32, 64), 8), 2: ((64, 128), (1, 2))}[version]
    return shaken(
        diffusers.UNet2DConditionModel(
            sample_size=CELLS, block_out_channels=widths, layers_per_block=1, cross_attention_dim=WIDTH * version,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            attention_head_dim=heads, use_linear_projection=version == 2,
        )
    )  # fmt: skip


def vae() -> diffusers.AutoencoderKL:
    return shaken(
        diffusers.AutoencoderKL(
            block_out_channels=(32, 64), down_block_types=("DownEncoderBlock2D",) * 2,
            up_block_types=("UpDecoderBlock2D",) * 2, sample_size=SIDE, scaling_factor=0.18215,
        )
    )  # fmt: skip


def text_encoder(version: int = 1) -> transformers.CLIPTextModel:
    """Version 2's stops a layer short of OpenCLIP's last, and has the exact GELU."""
    act = {1: "quick_gelu", 2: "gelu"}[version]
    settings = {**TEXT, "hidden_size": WIDTH * version, "num_attention_heads": version, "hidden_act": act}
    return shaken(transformers.CLIPTextModel(transformers.CLIPTextConfig(**settings)))


def model(tokenizer: Path, version: int = 1, **scheduler: object) -> diffusers.StableDiffusionPipeline:
    """A whole small Stable Diffusion, as diffusers has it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return diffusers.StableDiffusionPipeline(
            unet=unet(version), vae=vae(), text_encoder=text_encoder(version),
            tokenizer=transformers.CLIPTokenizer.from_pretrained(tokenizer),
            scheduler=diffusers.DDIMScheduler(**TRAINED, clip_sample=False, set_alpha_to_one=True, **scheduler),
            safety_checker=None, feature_extractor=None, requires_safety_checker=False,
        )  # fmt: skip


SD15 = {
    "sample_size": 64, "block_out_channels": (320, 640, 1280, 1280), "layers_per_block": 2, "cross_attention_dim": 768,
    "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3, "attention_head_dim": 8,
}  # fmt: skip
SD21 = {**SD15, "sample_size": 96, "cross_attention_dim": 1024, "attention_head_dim": (5, 10, 20, 20),
        "use_linear_projection": True}  # fmt: skip
SD_VAE = {
    "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "sample_size": 512,
    "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
}  # fmt: skip
CLIP_L = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
CLIP_H = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23, "num_attention_heads": 16,
          "hidden_act": "gelu"}  # fmt: skip


def full_size(tokenizer: Path, scheduler: diffusers.SchedulerMixin) -> diffusers.StableDiffusionPipeline:
    """Stable Diffusion 1.5 with random numbers in all of its billion places."""
    return diffusers.StableDiffusionPipeline(
        unet=shaken(diffusers.UNet2DConditionModel(**SD15)), vae=shaken(diffusers.AutoencoderKL(**SD_VAE)),
        text_encoder=shaken(transformers.CLIPTextModel(transformers.CLIPTextConfig(**CLIP_L))),
        tokenizer=transformers.CLIPTokenizer.from_pretrained(tokenizer), scheduler=scheduler, safety_checker=None,
        feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
