"""Untrained models of few numbers, one for each kind of thing that a checkpoint can be."""

import torch

from diffusion.autoencoder import PixelsConfig
from diffusion.classifier import Classifier
from diffusion.conditioning import UnconditionalConfig, WordsConfig
from diffusion.data import DATASETS
from diffusion.pipeline import Defaults, ModelConfig, Pipeline
from diffusion.ui.studio import Limits, Studio
from diffusion.unet import UNetConfig


def pixels(name: str, data: str, classes: tuple[str, ...] = (), size: int = 28, channels: int = 1) -> Pipeline:
    """A model in pixel space; without classes it takes no prompts."""
    network = UNetConfig(
        sample_size=size, in_channels=channels, out_channels=channels, block_out_channels=(8, 8),
        attention=(False, True), mid_attention=False, cross_attention_dim=6 if classes else None,
        norm_num_groups=4, attention_head_dim=4,
    )  # fmt: skip
    conditioner = WordsConfig(vocabulary=classes, dim=6) if classes else UnconditionalConfig()
    config = ModelConfig(
        name, PixelsConfig(image_size=size, sample_size=size, channels=channels), conditioner, network,
        data=data, classes=classes, defaults=Defaults("ddim", 4, 1.5 if classes else 1.0),
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Pipeline(config).eval()


def studio(name: str, limits: Limits) -> Studio:
    """garments: prompts with names; plain: digits without prompts; colour: own pictures that no classifier reads."""
    if name == "garments":
        fashion = DATASETS["fashion-mnist"].classes
        return Studio(pixels(name, "fashion-mnist", fashion), Classifier.of("fashion-mnist"), limits)
    if name == "plain":
        return Studio(pixels(name, "mnist"), Classifier.of("mnist"), limits)
    return Studio(pixels(name, "folder", ("cat", "red fox"), size=32, channels=3), None, limits)


NAMES = ("garments", "plain", "colour")
