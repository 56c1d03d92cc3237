"""Which sampler is best for how many network calls: one model's samplers, measured side by side at equal budgets."""

import math
from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from diffusion.classifier import Classifier
from diffusion.data import ImageData
from diffusion.distances import frechet
from diffusion.pipeline import Pipeline
from diffusion.request import MAX_STEPS, Request, check_number
from diffusion.samplers import SAMPLERS
from diffusion.yardstick import Progress, check, draw, finite, read_real, recognised

CALLS = (10, 20, 50, 250)
SWEPT = ("dpmpp_2m", "unipc", "ddim", "ddpm", "euler_maruyama", "predictor_corrector", "heun", "ode")
GUESS = 100  # calls that an adaptive sampler is taken to need, for the estimate of the time alone
HEADER = (
    f"{'sampler':<21}{'steps':>6}{'calls':>7}{'images':>8}{'recognised':>12}{'confidence':>12}"
    f"{'Frechet':>10}{'x real':>8}{'s/image':>10}"
)


@dataclass(frozen=True)
class Cell:
    """What one sampler reached with one budget of network calls."""

    sampler: str
    steps: int | None  # None where the sampler itself decides
    calls: float  # network calls per image that it took, each on both prompts under guidance
    count: int
    accuracy: float | None  # None where the model has no prompts to be held to
    confidence: float
    frechet: float  # of `count` generated images to all training images
    frechet_ratio: float  # to the floor, the distance of as many test images
    seconds: float  # per image

    def row(self) -> str:
        """Return the cell as a line under HEADER."""
        steps = "own" if self.steps is None else str(self.steps)
        accuracy = "-" if self.accuracy is None else f"{self.accuracy:.2%}"
        return (
            f"{self.sampler:<21}{steps:>6}{self.calls:>7.4g}{self.count:>8}{accuracy:>12}{self.confidence:>12.2%}"
            f"{self.frechet:>10.4g}{self.frechet_ratio:>8.2f}{self.seconds:>10.4f}"
        )


@dataclass(frozen=True)
class Sweep:
    """All cells of a sweep, and what as many real test images score."""

    model: str
    samplers: tuple[str, ...]
    budgets: tuple[int, ...]  # of network calls
    count: int
    guidance: float
    seed: int
    test_accuracy: float
    test_confidence: float
    frechet_floor: float
    cells: tuple[Cell, ...]

    def real_row(self) -> str:
        """Return the test images as a line under HEADER."""
        return (
            f"{'real images':<21}{'':>6}{'':>7}{self.count:>8}{self.test_accuracy:>12.2%}{self.test_confidence:>12.2%}"
            f"{self.frechet_floor:>10.4g}{1:>8.2f}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return all fields as JSON can hold them."""
        return finite(asdict(self)) | {"cells": [finite(asdict(cell)) for cell in self.cells]}


def plan(samplers: Sequence[str], calls: Sequence[int]) -> list[tuple[str, int | None]]:
    """Return (sampler, steps) of every cell: steps to spend each budget, or None once for a sampler of its own pace.

    Raises ValueError for an unknown sampler, and for budgets that are not from 2 to 1000 calls.
    """
    for sampler in samplers:
        Request(sampler=sampler)
    for budget in calls:
        check_number("calls", budget, 2, MAX_STEPS, whole=True)
    cells: list[tuple[str, int | None]] = []
    for sampler in dict.fromkeys(samplers):
        each = SAMPLERS[sampler].calls_per_step
        cells += [(sampler, budget // each) for budget in dict.fromkeys(calls)] if each else [(sampler, None)]
    return cells


def sweep(
    pipeline: Pipeline,
    classifier: Classifier,
    train_data: ImageData,
    test_data: ImageData,
    *,
    samplers: Sequence[str],
    calls: Sequence[int],
    count: int,
    guidance: float,
    seed: int,
    batch: int,
) -> Generator[tuple[float, float] | Cell, None, Sweep]:
    """Measure `count` images for each sampler and each budget of network calls, all from the same noise.

    Yields (work done, work to do) and every Cell as soon as it is known; returns the Sweep. The training images are
    read once. Raises ValueError as `plan` and `evaluate` do, and for fewer than `count` test images to compare with.
    """
    cells = plan(samplers, calls)
    check(pipeline, classifier, test_data, count, batch)
    if count > len(test_data.images):
        raise ValueError(f"there are {len(test_data.images)} test images to compare as many with, got count {count}.")
    requests = [
        Request(sampler=sampler, seed=seed, guidance=guidance) if steps is None
        else Request(sampler=sampler, seed=seed, guidance=guidance, steps=steps)
        for sampler, steps in cells
    ]  # fmt: skip
    costs = [(steps or GUESS) * max(1, SAMPLERS[sampler].calls_per_step) for sampler, steps in cells]
    progress = Progress(len(train_data.images) + count + count * sum(costs))
    yield progress.after(0)
    real = yield from read_real(pipeline, classifier, train_data, test_data, count, seed, progress)
    floor, done = frechet(real.test.features, real.train), []
    for (sampler, steps), request, cost in zip(cells, requests, costs, strict=True):
        samples = yield from draw(pipeline, request, count, batch, progress, cost)
        made = classifier.read(samples.images)
        distance = frechet(made.features, real.train)
        cell = Cell(
            sampler=sampler,
            steps=steps,
            calls=samples.calls,
            count=count,
            accuracy=recognised(pipeline, classifier, made),
            confidence=made.confidence(),
            frechet=distance,
            frechet_ratio=distance / floor if floor else math.inf,
            seconds=samples.seconds / count,
        )
        done.append(cell)
        yield cell
    return Sweep(
        model=pipeline.config.name,
        samplers=tuple(samplers),
        budgets=tuple(calls),
        count=count,
        guidance=guidance,
        seed=seed,
        test_accuracy=real.test.accuracy(real.labels),
        test_confidence=real.test.confidence(),
        frechet_floor=floor,
        cells=tuple(done),
    )
