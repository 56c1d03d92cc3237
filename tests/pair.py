"""An untrained model of painted pictures with an autoencoder, and autoencoders to be compared with it."""

import json
from pathlib import Path

import tiny
import torch

from diffusion import checkpoints
from diffusion.autoencoder import Autoencoder, AutoencoderConfig, VAEConfig
from diffusion.classifier import Classifier
from diffusion.config import dump
from diffusion.latent_space import Space, Survey
from diffusion.ui.studio import Limits, Studio

SMALL = VAEConfig(
    image_size=32, sample_size=32, channels=3, latent_channels=4, block_out_channels=(8, 8, 8), norm_num_groups=4
)
SPACE = Space(
    name="own",
    kl_weight=0.001,
    psnr=34.21,
    kl=833.4,
    means=(-0.14, 0.1, 0.0, 2.0),
    deviations=(1.5, 0.9, 0.9, 1.0),
    deviation=1.12,
    width=0.0537,
    kept={"0.1": 0.98, "0.3": 0.96, "0.5": 0.865},
    between={"0.25": 0.66, "0.5": 0.164, "0.75": 0.65},
    drawn=0.0,
)
OTHER = {"name": "other", "kl_weight": 2e-8, "kept": {"0.1": 0.91, "0.3": 0.62, "0.5": 0.295}, "kl": 3581.0}
SURVEY = Survey(400, 0, 0.975, (SPACE, Space(**(vars(SPACE) | OTHER))))


def write(folder: Path, name: str, seed: int = 1, codec: VAEConfig = SMALL, beside: str = "own") -> Autoencoder:
    """An autoencoder as a checkpoint in a folder of them."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        autoencoder = Autoencoder(AutoencoderConfig(name, codec=codec, data="painted-mnist", beside=beside)).eval()
    checkpoints.write(folder / name, dump(autoencoder.config), autoencoder.state_dict(), torch.float32)
    return autoencoder


def measured(folder: Path, name: str) -> None:
    """Puts the figures beside it."""
    (folder / name / "metrics.json").write_text(json.dumps({"latents": SURVEY.to_dict()}))


def own() -> Studio:
    """The model in the app, whose name is "own"."""
    return Studio(tiny.model((), SMALL, "own", "painted-mnist", sentences=True), Classifier.of("mnist"), Limits())
