"""A large model of others in the app: opened when somebody asks for it, then making one picture at a time."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from threading import Lock, Thread
from typing import NamedTuple

import torch
from torch import Tensor

from diffusion.download import Download, watched
from diffusion.export import fingerprint
from diffusion.glance import Glance
from diffusion.pipeline import Pipeline
from diffusion.request import Request
from diffusion.samplers import SAMPLERS, Step
from diffusion.ui.studio import Limits, in_turn

PATIENCE = 3600.0  # seconds that a run may take: without a GPU each step takes many
POLL = 0.3  # seconds between two looks at how far the opening is


class Opened(NamedTuple):
    """A model in memory: what makes its pictures, what shows them on their way, and its weights' fingerprint."""

    pipeline: Pipeline
    glance: Glance
    weights: str


@dataclass(frozen=True)
class Pace:
    """How long a network call took at last, and for which size of picture."""

    size: tuple[int, ...]
    seconds: float


class Easel:
    """Opens one model of Stable Diffusion's kind, and runs requests for single pictures on it."""

    def __init__(self, reference: str, device: torch.device | str, limits: Limits, engine: Lock | None = None) -> None:
        """reference: as Pipeline.load takes it; engine: the lock that all models of the app share."""
        self.reference, self.device, self.limits = reference, torch.device(device), limits
        self.engine = engine or Lock()
        self.opened: Opened | None = None
        self._opening: Thread | None = None
        self._said, self._error = "", None
        self._start = Lock()
        self._pace: Pace | None = None

    def open(self) -> Iterator[str]:
        """Opens the model, and yields what is being done; whoever asks while it is being opened follows along.

        Raises:
            ValueError: one sentence on why it cannot be opened.
        """
        with self._start:
            if self.opened is None and (self._opening is None or not self._opening.is_alive()):
                self._said = "Reading the model"
                self._error = ValueError(f"{self.reference} could not be opened; the server's log says why.")
                self._opening = Thread(target=self._open, daemon=True)
                self._opening.start()
        began = time.monotonic()
        while self._opening is not None and self._opening.is_alive():
            yield f"{self._said}, {time.monotonic() - began:.0f} s."
            self._opening.join(POLL)
        if self.opened is None:
            raise ValueError(str(self._error))  # a new one: several visitors may raise it at once

    def _open(self) -> None:
        try:
            with watched(self._follow):
                pipeline = Pipeline.load(self.reference, device=self.device)
            if not pipeline.conditioner.sentences or not hasattr(pipeline.codec, "decoder"):
                raise ValueError(f"{self.reference} does not read sentences into latents: open it with --checkpoint.")
            self._said = "Learning what its latents look like"
            glance = Glance(pipeline.codec)
            self._said = "Taking its fingerprint"
            self.opened = Opened(pipeline, glance, fingerprint(pipeline))
        except ValueError as error:
            self._error = error
        except (MemoryError, torch.OutOfMemoryError):
            self._error = ValueError(f"{self.reference} does not fit into this machine's memory on {self.device.type}.")

    def _follow(self, now: Download) -> None:
        """Says how much of what is fetched, and that it is read once it is here."""
        done, total, free = (f"{size / 1e9:,.1f} GB" if size >= 1e8 else f"{size / 1e6:,.1f} MB" for size in
                             (now.done, now.total, now.free))  # fmt: skip
        fetching = f"Fetching {now.name}: {done} of {total}, {free} are free at {now.folder}"
        self._said = "Reading the model" if now.done == now.total else fetching

    @property
    def pipeline(self) -> Pipeline:
        """
        Raises:
            ValueError: the model is not open.
        """
        if self.opened is None:
            raise ValueError("The model is not open yet: press Open first.")
        return self.opened.pipeline

    @property
    def sides(self) -> tuple[int, int, int]:
        """The least and the greatest height or width that is offered, and what lies between two of them."""
        unit, native = self.pipeline.unit, self.pipeline.codec.image_shape[-1]
        return max(unit, native // 2 // unit * unit), 2 * native, unit

    def check(self, request: Request) -> None:
        """
        Raises:
            ValueError: the request is more than one visitor may ask for here.
        """
        least, greatest, _ = self.sides
        if request.count != 1:
            raise ValueError("One picture at a time here.")
        if request.steps > self.limits.steps:
            raise ValueError(f"At most {self.limits.steps} steps here, not {request.steps}.")
        if request.size is not None and not all(least <= side <= greatest for side in request.size):
            raise ValueError(f"Height and width must be from {least} to {greatest} pixels here.")

    def run(self, request: Request) -> Iterator[Step]:
        """The pipeline's steps; closing the iterator stops the engine and frees it. How long they take is kept.

        Raises:
            ValueError: the model is not open, the request does not fit it or the limits, memory ran out.
        """
        self.check(request)
        size, began = self.pipeline.shape(request)[1:], None
        try:
            for step in in_turn(self.engine, self.pipeline, request, PATIENCE):
                if began is not None and step.calls:
                    self._pace = Pace(size, (time.monotonic() - began) / step.calls)
                began = began or time.monotonic()
                yield step
        except torch.OutOfMemoryError:
            raise ValueError(f"Memory ran out at {size[1]} × {size[0]} pixels: take a smaller picture.") from None

    def images(self, step: Step, request: Request) -> Tensor:
        """A step's predicted picture (1, C, H, W) in [-1, 1], through the decoder.

        Raises:
            ValueError: memory ran out, or the numbers did.
        """
        try:
            return self.pipeline.images(step, request)
        except torch.OutOfMemoryError:
            raise ValueError("Memory ran out while the picture was decoded: take a smaller one.") from None

    def glimpse(self, step: Step) -> tuple[Tensor, Tensor]:
        """A step without the decoder: its noisy state, scaled to unit spread, and its prediction; (B, C, h, w) each."""
        return self.opened.glance(self.pipeline.spread(step)), self.opened.glance(step.x0)

    def calls(self, request: Request) -> int | None:
        """Network calls that a request will make, where its sampler makes the same number each time."""
        return SAMPLERS[request.sampler].calls_per_step * request.steps_run(request.strengths[0]) or None

    def seconds(self, request: Request, calls: int) -> float | None:
        """How long so many calls take, if any were made yet; in proportion to the pixels where the size is another."""
        if self._pace is None:
            return None
        (height, width), (then, wide) = self.pipeline.shape(request)[1:], self._pace.size
        return calls * self._pace.seconds * height * width / (then * wide)
