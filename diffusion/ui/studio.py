"""A model in the app: the classifier that reads its pictures, limits, examples, and what a run costs here."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import numpy as np
from PIL import Image
from torch import Tensor

from diffusion.autoencoder import VAE
from diffusion.classifier import INSTRUMENTS, Classifier
from diffusion.data import PAINTED, Painted
from diffusion.export import fingerprint, fit, to_digit, to_pictures
from diffusion.pipeline import Pipeline
from diffusion.request import Request
from diffusion.samplers import SAMPLERS, Step
from diffusion.ui.readings import Reading, Seen, classify, measure

EXAMPLES = Path(__file__).parent / "examples"  # {data set}.png: test images, a row for each class
NOUNS = {"mnist": "digit", "fashion-mnist": "garment"}
FRAME = 1 / 24  # seconds; a browser merges what comes faster
SHOWING = 1 / 5  # of the time at most goes into frames: decoding one costs about half a network call
LARGEST = 256  # pixels: each tab makes dozens of pictures when a model is opened
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
class Result:
    """A model's finished run: pictures uint8 (N, H, W) or (N, H, W, 3), their readings, network calls and seconds."""

    model: str
    request: Request
    pictures: np.ndarray
    readings: tuple[Reading | Seen | None, ...]
    calls: int
    seconds: float


class Studio:
    """Runs requests one at a time and knows how long they take; everything that the tabs share and no tab owns."""

    def __init__(
        self, pipeline: Pipeline, classifier: Classifier | None, limits: Limits = Limits(), engine: Lock | None = None
    ) -> None:
        """classifier: None where there is none for the model's data, of digits for painted ones; engine: the lock that
        all models here share."""
        self.pipeline, self.classifier, self.limits = pipeline, classifier, limits
        self.name, self.classes = pipeline.config.name, pipeline.config.classes
        self.noun = NOUNS.get(pipeline.config.data, "picture")
        self.weights = fingerprint(pipeline)[:8]
        self.engine = engine or Lock()
        self._base, self._each = self._measure()
        prompts = self.suggestions[: limits.count // 2] * 2
        self.opening = self.finish(Request(prompts or "", count=len(prompts) or 20, seed=7, **self.defaults))
        self.kinds, self.examples = self._examples()

    @classmethod
    def load(cls, checkpoint: str, device: str, limits: Limits = Limits(), engine: Lock | None = None) -> Studio:
        """Opens a checkpoint by name, folder or Hub id, and the classifier of its data set."""
        pipeline = Pipeline.load(checkpoint, device=device)
        if max(pipeline.codec.image_shape[1:]) > LARGEST:
            raise ValueError(f"{checkpoint} makes pictures too large for these tabs: open it with --sd {checkpoint}.")
        data = PAINTED.get(pipeline.config.data, pipeline.config.data)
        return cls(pipeline, Classifier.of(data).to(device) if data in INSTRUMENTS else None, limits, engine)

    @property
    def sentences(self) -> bool:
        """Whether it reads prompts in words of one's own."""
        return self.pipeline.conditioner.sentences

    @property
    def painted(self) -> bool:
        """Whether its pictures are painted ones, in which each attribute can be measured."""
        return self.pipeline.config.data in PAINTED

    @property
    def yardstick(self) -> Classifier | None:
        """The classifier where it reads the pictures as they are, so that its features tell how far they are apart."""
        return None if self.painted else self.classifier

    @property
    def suggestions(self) -> tuple[str, ...]:
        """What it can be asked for: its classes, or sentences to begin with, or nothing."""
        return self.classes or (Painted.prompts if self.sentences else ())

    def accepts(self, prompt: str) -> bool:
        """Whether it can be asked for this."""
        return self.sentences or prompt in ("", *self.classes)

    @property
    def asking(self) -> str:
        """What the choice of a prompt is called."""
        return "Prompt" if self.sentences else self.noun.capitalize()

    @property
    def latent(self) -> bool:
        """Whether an autoencoder stands between the pictures and what is diffused."""
        return isinstance(self.pipeline.codec, VAE)

    @property
    def shape(self) -> tuple[int, ...]:
        """What its pictures are as arrays: (H, W), or in colour (H, W, 3)."""
        channels, height, width = self.pipeline.codec.image_shape
        return (height, width) if channels == 1 else (height, width, channels)

    @property
    def centred(self) -> bool:
        """Whether its pictures are digits in MNIST's form, cut out and centred."""
        return self.noun == "digit" and self.shape == (28, 28)

    @property
    def thumbnails(self) -> list[np.ndarray]:
        """A picture of each class to go with its name; digits speak for themselves."""
        return [] if self.noun == "digit" else self.faces

    @property
    def faces(self) -> list[np.ndarray]:
        """A picture of each class, or none where not every class has one."""
        return list(self.nth(0)) if self.classes == self.kinds else []

    def nth(self, nth: int) -> np.ndarray:
        """The nth example of every kind, uint8 (kinds, *shape); after the last comes the first."""
        return self.examples[:, nth % self.examples.shape[1]]

    def example(self, kind: str, nth: int) -> np.ndarray:
        """The nth example of a kind, uint8 of the model's shape.

        Raises:
            ValueError: there is no such kind.
        """
        if kind not in self.kinds:
            raise ValueError(f"There is no class {kind[:40]!r} here; the choices are {', '.join(self.kinds)}.")
        return self.nth(nth)[self.kinds.index(kind)]

    @property
    def defaults(self) -> dict[str, str | int | float]:
        """The model's own sampler, steps and guidance."""
        defaults = self.pipeline.config.defaults
        return {"sampler": defaults.sampler, "steps": defaults.steps, "guidance": defaults.guidance}

    @property
    def about(self) -> str:
        """Which weights, on which device."""
        return f"{self.name} ({self.weights}) on {self.pipeline.device.type.upper()}"

    def taken(self, picture: Image.Image, as_is: bool = False) -> np.ndarray:
        """A picture from outside in the model's shape, uint8; a digit is cut out and centred as MNIST's are.

        Raises:
            ValueError: there is no ink to centre.
        """
        if self.centred and not as_is:
            return to_digit(picture)
        return fit(picture, self.pipeline.codec.image_shape)

    def check(self, request: Request) -> None:
        """
        Raises:
            ValueError: the request is more than one visitor may ask for here.
        """
        limits, work = self.limits, self.work(request)
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
        yield from in_turn(self.engine, self.pipeline, request, self.limits.seconds)

    def finish(self, request: Request) -> Result:
        """Runs a request to its end."""
        began = time.monotonic()
        *_, last = self.run(request)
        return self.result(request, last, time.monotonic() - began)

    def result(self, request: Request, last: Step, seconds: float) -> Result:
        """The pictures of a run's last step, read by the classifier."""
        pictures = self.pipeline.images(last, request)
        return Result(self.name, request, to_pictures(pictures), self.read(pictures), last.calls, seconds)

    def read(self, pictures: Tensor) -> tuple[Reading | Seen | None, ...]:
        """What is seen in pictures (N, C, H, W) in [-1, 1], of each None where there is no classifier."""
        if self.classifier is None:
            return (None,) * len(pictures)
        read = measure if self.painted else classify
        return read(pictures.to(self.pipeline.device), self.classifier)

    def calls(self, request: Request) -> int:
        """Network calls that a request will make; an estimate for the adaptive sampler."""
        per_step = SAMPLERS[request.sampler].calls_per_step
        return per_step * max(map(request.steps_run, request.strengths)) if per_step else ODE_CALLS

    def work(self, request: Request) -> int:
        """Network evaluations: images x calls, guidance counting twice."""
        return self.calls(request) * request.count * (1 if request.guidance == 1 else 2)

    def seconds(self, request: Request) -> float:
        """How long a request will take here while it is shown, from the measurement made at start."""
        return (self.calls(request) * self._base + self.work(request) * self._each) / (1 - SHOWING)

    def _examples(self) -> tuple[tuple[str, ...], np.ndarray]:
        """Kinds and pictures of each, uint8 (kinds, n, *shape): test images, else what the model made when opened."""
        sheet = EXAMPLES / f"{self.pipeline.config.data}.png"
        if sheet.exists():
            rows, (height, *row) = np.asarray(Image.open(sheet)), self.shape
            pictures = rows.reshape(-1, height, rows.shape[1] // row[0], *row).swapaxes(1, 2)
            return self.classifier.config.classes, pictures
        made, asked = self.opening.pictures, self.opening.request.prompts
        if not self.suggestions:
            return ("made here",), made[None]
        return asked[: len(made) // 2], made.reshape(2, -1, *self.shape).swapaxes(0, 1)

    def _measure(self) -> tuple[float, float]:
        """Seconds per network call: a fixed part and a part per image, from the quickest runs of 1 and 16 images."""

        def once(count: int) -> float:
            began = time.perf_counter()
            list(self.pipeline.generate(Request(count=count, steps=2)))
            return (time.perf_counter() - began) / 2

        one, many = (min(once(count) for _ in range(5)) for count in (1, 16))  # the rest are slowed by something else
        each = max((many - one) / 15, 0.0)
        return max(one - each, 0.0), each


def in_turn(engine: Lock, pipeline: Pipeline, request: Request, seconds: float) -> Iterator[Step]:
    """A pipeline's steps while nothing else runs on the engine, which whatever ends them frees again.

    Raises:
        ValueError: the engine was busy for so many seconds, or the run took that long, or does not fit the model.
    """
    if not engine.acquire(timeout=seconds):
        raise ValueError("The engine is busy with somebody else's pictures; please try again in a moment.")
    try:
        began = time.monotonic()
        for step in pipeline.generate(request):
            yield step
            if time.monotonic() - began > seconds:
                raise ValueError(f"The run took more than {seconds:g} s; take fewer images or steps.")
    finally:
        engine.release()


def paced(steps: Iterator[Step]) -> Iterator[tuple[Step, bool]]:
    """Each step, and whether it is time to show it: the first always, then as FRAME and SHOWING allow."""
    next_frame = -math.inf
    for step in steps:
        began = time.monotonic()
        due = began >= next_frame
        yield step, due
        if due:  # the consumer has shown it by now
            next_frame = began + max(FRAME, (time.monotonic() - began) / SHOWING)
