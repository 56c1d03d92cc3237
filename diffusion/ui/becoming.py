"""What the Image tab shows: a picture as the model gets it, on its way from there, and what it became."""

import base64
import html
import textwrap
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from io import BytesIO
from typing import Any

import gradio as gr
import numpy as np
import torch
from PIL import Image

from diffusion import export
from diffusion.conditioning import unread
from diffusion.request import Request
from diffusion.samplers import SAMPLERS, Step
from diffusion.ui import controls
from diffusion.ui.readings import Reading, Seen
from diffusion.ui.studio import Result, Studio, paced
from diffusion.ui.widgets import Masked, film, frame, grid
from diffusion.ui.wording import announced, article, counted, duration

STRENGTHS = (0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)  # closer where a digit changes its class
EMPTY = "There is no picture yet: draw one, take a test image or upload a photo."
LONGEST = 40  # letters of a prompt on a button
INSIDE_CSS = """
.inside { display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); gap: 12px; }
figure { margin: 0; min-width: 0; }
img { display: block; width: 100%; aspect-ratio: 1; background: var(--lab-paper); image-rendering: pixelated;
  border-radius: var(--radius-md); box-shadow: 0 0 0 1px var(--lab-line); }
figcaption { margin-top: var(--spacing-sm); font-size: var(--text-xs); line-height: 1.4; }
figcaption span { display: block; color: var(--body-text-color-subdued); font-variant-numeric: tabular-nums; }
"""


def look(studio: Studio, sketch: np.ndarray | None, *inputs: Any) -> tuple[Any, ...]:
    """Everything that follows from the picture and the settings, before any network call."""
    try:
        if _foreign(studio, sketch):
            return (gr.skip(),) * 4
        request = asked(studio, sketch, *inputs)
        if not studio.accepts(request.prompts[0]):  # of the model before: the page is on its way to this one
            return (gr.skip(),) * 4
        views, plan, *promises = glimpse(studio, request, export.to_pictures(request.image[None])[0])
    except ValueError as error:
        return (announced(str(error)), *[gr.skip()] * 3)
    return (views, gr.update(info=plan), *promises)


def under(studio: Studio, sketch: np.ndarray | None, centre: bool, masked: Masked | None) -> Any:
    """What the mask is painted on: the picture as the model gets it; a mask that is on that already stays."""
    if _foreign(studio, sketch):
        return gr.skip()
    try:
        picture = None if sketch is None else seen(sketch, centre and studio.centred)
    except ValueError:  # said by `look`
        picture = sketch
    return gr.skip() if picture is not None and _over(masked, picture) else picture


def _foreign(studio: Studio, sketch: np.ndarray | None) -> bool:
    """Whether a picture is of another model than the one chosen, to which the page is on its way."""
    return sketch is not None and sketch.shape != studio.shape


def turn(studio: Studio, *inputs: Any) -> Iterator[tuple[Any, ...]]:
    """Turns the picture into the target and yields film, status and result."""
    request, run, began, taken = asked(studio, *inputs), uuid.uuid4().hex[:8], time.monotonic(), []
    total = request.steps_run(request.strength) + 1 if SAMPLERS[request.sampler].calls_per_step else None
    running = studio.run(request)
    try:
        for step, due in paced(running):
            taken.append(step)
            if due:
                noisy = export.to_pictures(studio.pipeline.preview(step)[0])[0]
                live = frame(run, step.index, {"Result": noisy}, total=total, caption=_caption(step))
            yield (live if due else gr.skip(), gr.skip(), gr.skip())
    finally:
        running.close()
    result = studio.result(request, taken[-1], time.monotonic() - began)
    yield movie(studio, run, taken, result), announced(account(studio, result)), result


def climb(studio: Studio, *inputs: Any) -> Iterator[tuple[Any, ...]]:
    """Does it at eight strengths at once and yields strip and status."""
    request, began = eight(asked(studio, *inputs)), time.monotonic()
    running = studio.run(request)
    try:
        for step, due in paced(running):
            if due:
                live = grid(export.to_pictures(studio.pipeline.preview(step)[0]), done=False)
            yield (live if due else gr.skip(), gr.skip())
    finally:
        running.close()
    result = studio.result(request, step, time.monotonic() - began)
    yield ladder(result), announced(strip_account(result))


def seen(sketch: np.ndarray, centre: bool) -> np.ndarray:
    """What the model gets for a sketch: one to be centred is brought into MNIST's form, unless it has that already.

    Raises:
        ValueError: there is no ink to centre.
    """
    return export.to_digit(Image.fromarray(sketch)) if centre and not _settled(sketch) else sketch


def _settled(sketch: np.ndarray) -> bool:
    """About 20 pixels long or wide with its mass on the centre, as all of MNIST is: to resample it would only blur."""
    places = np.argwhere(sketch > 64)
    if not len(places):
        return False
    middle = (np.argwhere(sketch) * sketch[sketch > 0][:, None].astype(float)).sum(0) / sketch.sum(dtype=float)
    return abs(np.ptp(places, axis=0).max() + 1 - 20) <= 2 and bool((abs(middle - 14) <= 1.5).all())


def asked(
    studio: Studio,
    sketch: np.ndarray | None,
    masked: Masked | None,
    centre: bool,
    target: str,
    strength: float,
    *settings: Any,
) -> Request:
    if sketch is None:
        raise ValueError(EMPTY)
    if _foreign(studio, sketch):
        theirs, its = (" × ".join(map(str, shape)) for shape in (sketch.shape, studio.shape))
        raise ValueError(f"The picture has {theirs} numbers, those of {studio.name} have {its}: take another.")
    picture = seen(sketch, centre and studio.centred)
    painted = _over(masked, picture) and masked.mask.any()  # a mask belongs to the picture that it was painted on
    mask = torch.from_numpy(masked.mask)[None] if painted else None
    return controls.request(target, 1, *settings, image=export.to_image(picture), strength=strength, mask=mask)


def _over(masked: Masked | None, picture: np.ndarray) -> bool:
    """Whether the mask pad shows this picture."""
    return masked is not None and np.array_equal(masked.picture, picture)


def eight(request: Request) -> Request:
    """The same request at eight strengths in one batch; one seed for all, so that only the strength differs."""
    count = len(STRENGTHS)
    return replace(request, count=count, seed=(request.seed,) * count, strength=STRENGTHS)


def glimpse(studio: Studio, request: Request, picture: np.ndarray) -> tuple[str, str, str, str]:
    """The three pictures inside, the plan, and what the two buttons promise."""
    steps = studio.pipeline.generate(request)
    start = next(steps)  # comes before the first network call: cheap enough to follow a slider
    steps.close()
    noised, rebuilt = studio.pipeline.preview(start)
    readings = studio.read(torch.cat([request.image[None].to(rebuilt), rebuilt]))
    sigma = f"σ\u00a0{float(start.sigma):.3g}"
    coded = [(export.to_pictures(rebuilt)[0], "Through the VAE", _reads(readings[1]))] if studio.latent else []
    inside = _figures(
        (picture, "What the model sees", _reads(readings[0])),
        *coded,
        (export.to_pictures(noised)[0], "Noised start", sigma),
    )
    return (
        inside,
        _plan(request, sigma),
        f"{_doing(studio, request.prompts[0])} · {duration(studio.seconds(request))}",
        f"Try eight strengths · {duration(studio.seconds(eight(request)))}",
    )


def _doing(studio: Studio, prompt: str) -> str:
    """What the run does, in a few words."""
    if not prompt.strip():
        return f"Make it another {studio.noun}"
    if studio.sentences:
        return f"Make it: {textwrap.shorten(prompt, LONGEST, placeholder=' …')}"
    return f"Turn it into {article(prompt)}"


def _plan(request: Request, sigma: str) -> str:
    run = request.steps_run(request.strength)
    if run == 0:
        plan = f"Runs 0 of {request.steps} steps: nothing is denoised."
    elif SAMPLERS[request.sampler].calls_per_step:
        plan = f"Runs {run} of {request.steps} steps, starts at {sigma}."
    else:
        plan = f"Starts at {sigma} and chooses its own steps."
    return plan if request.mask is None else f"{plan} Only {int(request.mask.sum())} painted pixels may change."


def movie(studio: Studio, run: str, taken: Sequence[Step], result: Result) -> dict[str, Any]:
    """The run as a film: the noised start, the noisy state after each step, and the result in the end's place."""
    states = torch.cat([step.x for step in taken])
    sigmas = torch.stack([step.sigma.reshape(()) for step in taken])
    noisy, _ = studio.pipeline.preview(Step(0, sigmas, states, states, 0))
    pictures = np.concatenate([export.to_pictures(noisy)[:-1], result.pictures])
    captions = [*map(_caption, taken[:-1]), f"After {counted(taken[-1].index, 'step')}: the result."]
    return film(run, {"Result": pictures}, captions=captions, ends=("noised", "result"))


def _caption(step: Step) -> str:
    what = "Your picture with noise added" if step.index == 0 else f"After {counted(step.index, 'step')}"
    return f"{what}, σ = {float(step.sigma):.3g}."


def ladder(result: Result) -> dict[str, Any]:
    """The eight pictures, each with its strength and steps, and a mark where the target is read in it."""
    request = result.request
    captions = [f"{s:g} · {counted(request.steps_run(s), 'step')}" for s in request.strengths]
    marks = ["agree" if r and r.answers(p) else None for r, p in zip(result.readings, request.prompts, strict=True)]
    return grid(result.pictures, captions=captions, marks=marks)


def account(studio: Studio, result: Result) -> str:
    request, reading = result.request, result.readings[0]
    kept = "" if request.mask is None else f" {int((request.mask == 0).sum())} pixels are yours, unchanged."
    cost = f"{counted(result.calls, 'network call')}, {result.seconds:.1f} s."
    strange = "".join(f" {sentence}" for sentence in unread(studio.pipeline.conditioner, request.texts))
    return f"{cost}{_said(reading)}{strange}{kept} Weights {studio.about}."


def strip_account(result: Result) -> str:
    request = result.request
    pairs = zip(request.prompts, result.readings, strict=True)
    labels = ", ".join(reading.beside(prompt) for prompt, reading in pairs if reading)
    said = f"Read as {labels}. " if labels else ""
    return (
        f"One noise for all eight; only the strength differs. {said}"
        f"{counted(result.calls, 'network call')} for the whole batch, {result.seconds:.1f} s. "
        "Select one to take over its strength."
    )


def picked(result: Result | None) -> np.ndarray:
    if result is None:
        raise ValueError("There is no result any more: make it again.")
    return result.pictures[0]


def _figures(*figures: tuple[np.ndarray, str, str]) -> str:
    """Small pictures in a row, each with a title and a line below."""
    parts = []
    for picture, title, line in figures:
        file = BytesIO()
        Image.fromarray(picture).save(file, "PNG")
        text = base64.b64encode(file.getvalue()).decode()
        title, line = html.escape(title), html.escape(line)
        parts.append(
            f'<figure><img src="data:image/png;base64,{text}" alt="{title}"><figcaption>{title}<span>{line}</span>'
            "</figcaption></figure>"
        )
    return f'<div class="inside">{"".join(parts)}</div>'


def _reads(reading: Reading | Seen | None) -> str:
    return f"reads {reading.said}" if reading else ""


def _said(reading: Reading | Seen | None) -> str:
    return f" Read as {reading.said}." if reading else ""
