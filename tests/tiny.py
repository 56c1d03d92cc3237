"""Untrained models of few numbers, one for each kind of thing that a checkpoint can be."""

import torch

from diffusion.autoencoder import PixelsConfig, VAEConfig
from diffusion.captions import VOCABULARY
from diffusion.classifier import Classifier, ClassifierConfig
from diffusion.conditioning import TextConfig, UnconditionalConfig, WordsConfig
from diffusion.data import DATASETS
from diffusion.pipeline import CODECS, Defaults, ModelConfig, Pipeline
from diffusion.ui.studio import Limits, Studio
from diffusion.unet import UNetConfig

DIGITS, GARMENTS = (DATASETS[name].classes for name in ("mnist", "fashion-mnist"))

PLAIN = PixelsConfig(sample_size=28)


def model(
    classes: tuple[str, ...] = (),
    codec: PixelsConfig | VAEConfig = PLAIN,
    name: str = "tiny",
    data: str = "mnist",
    sentences: bool = False,
) -> Pipeline:
    """With classes it takes their names, with sentences any words, else no prompts."""
    prompted = classes or sentences
    channels, size, _ = CODECS[codec.kind](codec).latent_shape
    network = UNetConfig(
        sample_size=size, in_channels=channels, out_channels=channels, block_out_channels=(8, 8),
        attention=(False, True), mid_attention=False, cross_attention_dim=6 if prompted else None,
        norm_num_groups=4, attention_head_dim=4,
    )  # fmt: skip
    conditioner = WordsConfig(vocabulary=classes, dim=6) if classes else UnconditionalConfig()
    if sentences:
        conditioner = TextConfig(vocabulary=VOCABULARY, dim=6, heads=2)
    best = Defaults("ddim", 4, 1.5 if prompted else 1.0)
    config = ModelConfig(name, codec, conditioner, network, data=data, classes=classes, defaults=best)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Pipeline(config).eval()


def judge() -> Classifier:
    """An untrained classifier of digits."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Classifier(ClassifierConfig(width=2)).eval()


def studio(name: str, limits: Limits) -> Studio:
    """garments: prompts with names; plain: digits without prompts; colour: own pictures that no classifier
    reads; sentences: prompts in words."""
    if name == "garments":
        return Studio(model(GARMENTS, name=name, data="fashion-mnist"), Classifier.of("fashion-mnist"), limits)
    if name == "plain":
        return Studio(model(name=name), Classifier.of("mnist"), limits)
    coloured = PixelsConfig(image_size=32, sample_size=32, channels=3)
    if name == "sentences":
        return Studio(model((), coloured, name, "painted-mnist", sentences=True), Classifier.of("mnist"), limits)
    return Studio(model(("cat", "red fox"), coloured, name, "folder"), None, limits)


NAMES = ("garments", "plain", "colour", "sentences")
