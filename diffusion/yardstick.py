"""What all measurements of a model share: real images that a classifier has read, and pictures that the model draws."""

import math
import time
from collections.abc import Generator
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion.classifier import Classifier, Reading
from diffusion.data import ImageData, to_uint8
from diffusion.distances import BALL, CHUNK
from diffusion.pipeline import Pipeline
from diffusion.request import Request

MIN_COUNT = BALL + 1  # fewer images have no ball around them


@dataclass
class Progress:
    """How far a measurement is: `done` of `total`, in images or what costs as much."""

    total: float
    done: float = 0

    def after(self, n: float) -> tuple[float, float]:
        """Count n more; returns (done, total)."""
        self.done += n
        return self.done, self.total


@dataclass(frozen=True)
class Yardstick:
    """Real images as a classifier reads them: what generated ones are held against, read once for all of them."""

    classifier: Classifier
    images: Tensor  # test images, uint8 (N, C, H, W)
    labels: Tensor  # (N,), the classifier's
    test: Reading  # of these images
    train: Tensor  # features of all training images


@dataclass(frozen=True)
class Samples:
    """What a model drew: images uint8 (N, C, H, W), network calls an image, seconds for all."""

    images: Tensor
    calls: float
    seconds: float


def check(pipeline: Pipeline, classifier: Classifier, data: ImageData, count: int, batch: int) -> None:
    """Raise ValueError for too few images, and for a model, classifier and data set that do not fit each other."""
    if count < MIN_COUNT or batch < 1:
        raise ValueError(
            f"an evaluation needs {MIN_COUNT} images or more, in batches of 1 or more, got {count} and {batch}."
        )
    known = classifier.config.classes
    named = ((f"the model {pipeline.config.name}", pipeline.config.classes), ("the data set", data.classes))
    for who, theirs in named:
        if not set(theirs) <= set(known):
            raise ValueError(f"{who} has the classes {', '.join(theirs)}, but the classifier knows {', '.join(known)}.")


def read_real(
    pipeline: Pipeline,
    classifier: Classifier,
    train_data: ImageData,
    test_data: ImageData,
    count: int,
    seed: int,
    progress: Progress,
) -> Generator[tuple[float, float], None, Yardstick]:
    """Read all training images, and min(count, all) test images in the proportions in which the model is to draw."""
    chosen = pick(test_data.labels, count, seed, balanced=bool(pipeline.config.classes))
    images = test_data.images[chosen]
    labels = _labels(test_data.classes, classifier.config.classes)[test_data.labels[chosen]]
    test = classifier.read(images)
    yield progress.after(len(images))
    features = []
    for part in train_data.images.split(CHUNK):
        features.append(classifier.read(part).features)
        yield progress.after(len(part))
    return Yardstick(classifier, images, labels, test, torch.cat(features))


def draw(
    pipeline: Pipeline, settings: Request, count: int, batch: int, progress: Progress, cost: float = 1
) -> Generator[tuple[float, float], None, Samples]:
    """Generate `count` images by the settings, class by class in turn, each counted as `cost` in the progress."""
    prompts = _prompts(pipeline, count)
    pictures, calls, seconds = [], 0, 0.0
    for start in range(0, count, batch):
        prompt, began = prompts[start : start + batch], time.perf_counter()
        request = replace(settings, prompt=prompt, count=len(prompt), seed=settings.seed + start)
        for step in pipeline.generate(request):
            last = step
        pictures.append(to_uint8(pipeline.images(last, request)).cpu())
        seconds += time.perf_counter() - began
        calls += last.calls * len(prompt)
        yield progress.after(cost * len(prompt))
    return Samples(torch.cat(pictures), calls / count, seconds)


def recognised(pipeline: Pipeline, classifier: Classifier, made: Reading) -> float | None:
    """Return the share of `draw`n images that are taken for their prompt; None where the model has no prompts."""
    if not pipeline.config.classes:
        return None
    return made.accuracy(_labels(_prompts(pipeline, len(made.features)), classifier.config.classes))


def pick(labels: Tensor, count: int, seed: int, balanced: bool) -> Tensor:
    """Draw the indices of min(count, N) different images with the labels (N,), evenly or equally many of each class.

    A hundred images of one class too many move the Frechet distance more than most models do.
    """
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    if balanced:
        own = F.one_hot(labels[order])
        turn = (own.cumsum(0) * own).sum(1)  # 1 for the first of its class, 2 for the second
        order = order[turn.argsort(stable=True)]
    return order[:count]


def finite(values: dict[str, Any]) -> dict[str, Any]:
    """Return the values as JSON can hold them: None for infinity and NaN."""
    return {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in values.items()}


def _prompts(pipeline: Pipeline, count: int) -> tuple[str, ...]:
    """Equally many of each class; without classes the unconditional prompt."""
    classes = pipeline.config.classes or ("",)
    return tuple(classes[i % len(classes)] for i in range(count))


def _labels(prompts: tuple[str, ...], classes: tuple[str, ...]) -> Tensor:
    return torch.tensor([classes.index(prompt) for prompt in prompts])
