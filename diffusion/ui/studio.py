"""The one engine behind the app: a model, the classifier that reads its digits, limits, and what a run costs here."""

import math
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from diffusion.classifier import Classifier
from diffusion.export import fingerprint, to_pictures
from diffusion.pipeline import Pipeline, Request
from diffusion.samplers import SAMPLERS, Step

EXAMPLES = Path(__file__).parent / "examples" / "mnist.png"
FRAME = 1 / 24  # seconds; a browser merges what comes faster
SHOWING = 1 / 5  # of the time at most goes into frames: decoding one costs about half a network call
ODE_CALLS = 60  # what the adaptive sampler needs, about: it has no step count to go by


@dataclass(frozen=True)
class Limits:
    """What one request may ask for, and how many may wait.

    count: images; steps: of the grid; work: images x network calls, guidance counting twice; seconds: of computing;
    queue: requests waiting; upload: megabytes.
    """

    count: int = 64
    steps: int = 250
    work: int = 16_000
    seconds: float = 300.0
    queue: int = 24
    upload: int = 8


@dataclass(frozen=True)
class Reading:
    """What the classifier sees in one picture: the likeliest class and its probability."""

    label: str
    confidence: float


@dataclass(frozen=True)
class Result:
    """A finished run: pictures uint8 (N, H, W), the classifier's readings, network calls and seconds."""

    request: Request
    pictures: np.ndarray
    readings: tuple[Reading, ...]
    calls: int
    seconds: float


class Studio:
    """Runs requests one at a time and knows how long they take; everything that the tabs share and no tab owns."""

    def __init__(self, pipeline: Pipeline, classifier: Classifier, limits: Limits = Limits()) -> None:
        self.pipeline, self.classifier, self.limits = pipeline, classifier, limits
        self.name, self.classes = pipeline.config.name, pipeline.config.classes
        self.size = pipeline.codec.image_shape[-1]
        self.weights = fingerprint(pipeline)[:8]
        self.examples = _examples(self.size)
        self._lock = threading.Lock()
        self._base, self._each = self._measure()
        self.opening = self.finish(Request(prompt=self.classes * 2, count=20, seed=7, **self.defaults))

    @classmethod
    def load(cls, checkpoint: str, device: str, limits: Limits = Limits()) -> "Studio":
        """Opens a checkpoint by name, folder or Hub id, and the classifier of its data set."""
        pipeline = Pipeline.load(checkpoint).to(device)
        return cls(pipeline, Classifier.load(f"{pipeline.config.data}-classifier").to(device), limits)

    @property
    def defaults(self) -> dict[str, str | int | float]:
        """The model's own sampler, steps and guidance."""
        defaults = self.pipeline.config.defaults
        return {"sampler": defaults.sampler, "steps": defaults.steps, "guidance": defaults.guidance}

    @property
    def about(self) -> str:
        """Which weights, on which device."""
        return f"{self.name} ({self.weights}) on {self.pipeline.device.type.upper()}"

    def check(self, request: Request) -> None:
        """
        Raises:
            ValueError: the request is more than one visitor may ask for here.
        """
        limits, work = self.limits, self._work(request)
        if request.count > limits.count:
            raise ValueError(f"At most {limits.count} images at once here, not {request.count}.")
        if request.steps > limits.steps:
            raise ValueError(f"At most {limits.steps} steps here, not {request.steps}.")
        if work > limits.work:
            raise ValueError(
                f"{request.count} images with {self.calls(request)} calls each are {work:,} network evaluations; "
                f"at most {limits.work:,} at once here: take fewer images or steps."
            )

    def run(self, request: Request) -> Iterator[Step]:
        """The pipeline's steps, one run at a time; closing the iterator stops the engine and frees it.

        Raises:
            ValueError: the request does not fit the model or the limits, or took too long.
        """
        self.check(request)
        if not self._lock.acquire(timeout=self.limits.seconds):
            raise ValueError("The engine is busy with somebody else's pictures; please try again in a moment.")
        try:
            began = time.monotonic()
            for step in self.pipeline.generate(request):
                yield step
                if time.monotonic() - began > self.limits.seconds:
                    raise ValueError(f"The run took more than {self.limits.seconds:g} s; take fewer images or steps.")
        finally:
            self._lock.release()

    def finish(self, request: Request) -> Result:
        """Runs a request to its end."""
        began = time.monotonic()
        *_, last = self.run(request)
        return self.result(request, last, time.monotonic() - began)

    def result(self, request: Request, last: Step, seconds: float) -> Result:
        """The pictures of a run's last step, read by the classifier."""
        pictures = self.pipeline.images(last, request)
        return Result(request, to_pictures(pictures), self.read(pictures), last.calls, seconds)

    @torch.no_grad()
    def read(self, pictures: Tensor) -> tuple[Reading, ...]:
        """The classifier's reading of pictures (N, C, H, W) in [-1, 1]."""
        confidence, label = self.classifier(pictures.to(self.pipeline.device)).softmax(1).max(1)
        names = self.classifier.config.classes
        return tuple(Reading(names[k], c) for k, c in zip(label.tolist(), confidence.tolist(), strict=True))

    def calls(self, request: Request) -> int:
        """Network calls that a request will make; an estimate for the adaptive sampler."""
        per_step = SAMPLERS[request.sampler].calls_per_step
        return per_step * max(map(request.steps_run, request.strengths)) if per_step else ODE_CALLS

    def _work(self, request: Request) -> int:
        return self.calls(request) * request.count * (1 if request.guidance == 1 else 2)

    def seconds(self, request: Request) -> float:
        """How long a request will take here while it is shown, from the measurement made at start."""
        return (self.calls(request) * self._base + self._work(request) * self._each) / (1 - SHOWING)

    def _measure(self) -> tuple[float, float]:
        """Seconds per network call: a fixed part and a part per image, from the quickest runs of 1 and 16 images."""

        def once(count: int) -> float:
            began = time.perf_counter()
            list(self.pipeline.generate(Request(count=count, steps=2)))
            return (time.perf_counter() - began) / 2

        one, many = (min(once(count) for _ in range(5)) for count in (1, 16))  # the rest are slowed by something else
        each = max((many - one) / 15, 0.0)
        return max(one - each, 0.0), each


def paced(steps: Iterator[Step]) -> Iterator[tuple[Step, bool]]:
    """Each step, and whether it is time to show it: the first always, then as FRAME and SHOWING allow."""
    next_frame = -math.inf
    for step in steps:
        began = time.monotonic()
        due = began >= next_frame
        yield step, due
        if due:  # the consumer has shown it by now
            next_frame = began + max(FRAME, (time.monotonic() - began) / SHOWING)


def _examples(size: int) -> np.ndarray:
    """Real test images that come with the app, uint8 (classes, 20, H, W)."""
    sheet = np.asarray(Image.open(EXAMPLES))
    return sheet.reshape(-1, size, sheet.shape[1] // size, size).swapaxes(1, 2)
