"""The measuring instrument: a small convolutional classifier whose features and answers judge generated images."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from diffusion import checkpoints
from diffusion.config import STRICT, parse
from diffusion.data import DATASETS, to_unit

LABEL_SMOOTHING = 0.05
INSTRUMENTS = {"mnist": "mnist-classifier", "fashion-mnist": "fashion-classifier"}
"""Data set -> the checkpoint of the classifier that its models are measured with."""


@dataclass(frozen=True)
class ClassifierConfig:
    """Sizes of a Classifier, whose channels grow from width to 8 width, the number of its features."""

    kind: Literal["classifier"] = "classifier"
    image_size: int = 28
    channels: int = 1
    classes: tuple[str, ...] = DATASETS["mnist"].classes
    width: int = 16

    __pydantic_config__ = STRICT

    def __post_init__(self) -> None:
        if self.image_size < 17:
            raise ValueError(f"image_size {self.image_size} is too small for the classifier; use 17 or more.")


class Reading(NamedTuple):
    """What a classifier sees in N images: features (N, F) and class probabilities (N, K)."""

    features: Tensor
    probabilities: Tensor

    def accuracy(self, labels: Tensor) -> float:
        """Return the share in [0, 1] of images whose most probable class is their label (N,)."""
        return (self.probabilities.argmax(1) == labels.cpu()).double().mean().item()

    def confidence(self) -> float:
        """Return the mean probability of the most probable class, whichever it is."""
        return self.probabilities.amax(1).double().mean().item()


def _conv(inputs: int, outputs: int, stride: int = 1, padding: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, 3, stride, padding, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class Classifier(nn.Module):
    """Seven 3 x 3 convolutions with batch normalization, global average pooling and one linear layer."""

    def __init__(self, config: ClassifierConfig = ClassifierConfig()):
        super().__init__()
        self.config, width = config, config.width
        self.stem = _conv(config.channels, width)
        self.body = nn.Sequential(
            _conv(width, 2 * width, stride=2),
            _conv(2 * width, 4 * width),
            _conv(4 * width, 4 * width, stride=2),
            _conv(4 * width, 8 * width),
            _conv(8 * width, 8 * width, padding=0),
            _conv(8 * width, 8 * width, padding=0),
        )
        self.head = nn.Linear(8 * width, len(config.classes))

    @classmethod
    def load(cls, reference: str | Path) -> "Classifier":
        """Read a trained classifier from a checkpoint name, folder or Hub id; it comes back in eval mode."""
        checkpoint = checkpoints.read(reference)
        classifier = cls(parse(ClassifierConfig, checkpoint.config, str(checkpoint.folder / "config.json")))
        checkpoints.load_into(classifier, checkpoint.tensors, str(reference))
        return classifier.eval()

    @classmethod
    def of(cls, data: str) -> "Classifier":
        """Read the classifier that ships for a data set.

        Raises ValueError where there is none.
        """
        if data not in INSTRUMENTS:
            known = " and ".join(INSTRUMENTS)
            raise ValueError(
                f"no classifier ships for '{data}', but for {known}: train one with checkpoints/mnist-classifier/"
                f"recipe.yaml and --set data={data}, and name it with --classifier."
            )
        return cls.load(INSTRUMENTS[data])

    def features(self, images: Tensor) -> Tensor:
        """Map images (B, C, H, W) in [-1, 1] to the features (B, F) before the last layer."""
        shape = (self.config.channels, self.config.image_size, self.config.image_size)
        if images.shape[1:] != shape:
            raise ValueError(f"the classifier reads images of shape {shape}, got {tuple(images.shape[1:])}.")
        h = self.stem(images).contiguous(memory_format=torch.channels_last)  # a third faster on a CPU
        return self.body(h).mean((2, 3))

    def forward(self, images: Tensor) -> Tensor:
        """Map images (B, C, H, W) in [-1, 1] to logits (B, K)."""
        return self.head(self.features(images))

    def loss(self, images: Tensor, labels: Tensor, generator: torch.Generator, mirror: bool = False) -> Tensor:
        """Return the cross-entropy (B,) of augmented images with smoothed labels (Szegedy et al. 2016, Section 7)."""
        logits = self(augment(images, generator, mirror))
        return F.cross_entropy(logits, labels, label_smoothing=LABEL_SMOOTHING, reduction="none")

    @torch.no_grad()
    def read(self, images: Tensor, batch: int = 500) -> Reading:
        """Read uint8 images (N, C, H, W) in eval mode, batch by batch; the Reading is on the CPU."""
        training, device = self.training, self.head.weight.device
        self.eval()
        features = torch.cat([self.features(to_unit(part.to(device))) for part in images.split(batch)])
        reading = Reading(features.cpu(), self.head(features).softmax(1).cpu())
        self.train(training)
        return reading

    def accuracy(self, images: Tensor, labels: Tensor) -> float:
        """Return the share in [0, 1] of uint8 images (N, C, H, W) that are taken for what their labels (N,) say."""
        return self.read(images).accuracy(labels)


def augment(images: Tensor, generator: torch.Generator, mirror: bool = False) -> Tensor:
    """Rotate (within 12 degrees), shear (0.15), scale (12 percent) and shift (8 percent) each image by its own draw.

    images (B, C, H, W) in [-1, 1]; what comes in from outside the picture is black. mirror: half of them, by chance,
    are turned left to right, which a garment survives and a digit does not.
    """
    draw = torch.rand(7, len(images), generator=generator, device=generator.device).to(images.device) * 2 - 1
    angle, shear = draw[0] * math.radians(12), draw[1] * 0.15
    scale_x, scale_y = 1 + 0.12 * draw[2], 1 + 0.12 * draw[3]
    if mirror:
        scale_x = scale_x * draw[6].sign()
    # affine_grid measures in half pictures: a shift of 8 percent of the side is 0.16.
    row_x = torch.stack([scale_x * angle.cos(), scale_x * (shear * angle.cos() - angle.sin()), 0.16 * draw[4]], 1)
    row_y = torch.stack([scale_y * angle.sin(), scale_y * (shear * angle.sin() + angle.cos()), 0.16 * draw[5]], 1)
    grid = F.affine_grid(torch.stack([row_x, row_y], 1), list(images.shape), align_corners=False)
    return F.grid_sample(images + 1, grid, align_corners=False) - 1  # outside the picture grid_sample reads 0
