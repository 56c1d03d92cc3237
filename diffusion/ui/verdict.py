"""What is read back from a result: in the grid picture by picture, and in a sentence."""

import html
from typing import Any

from diffusion.conditioning import unread
from diffusion.request import Request
from diffusion.samplers import SAMPLERS, Step
from diffusion.ui.readings import Reading, Seen, verdict
from diffusion.ui.studio import Result, Studio
from diffusion.ui.widgets import Mark, grid
from diffusion.ui.wording import counted, seeds


def judged(result: Result) -> dict[str, Any]:
    """The grid of a result, each picture with what is read in it and whether that is what was asked for."""
    if None in result.readings:
        return grid(result.pictures)
    pairs = list(zip(result.request.prompts, result.readings, strict=True))
    captions = [
        reading.beside(prompt) + ("" if reading.confidence is None else f" · {100 * reading.confidence:.0f} %")
        for prompt, reading in pairs
    ]
    return grid(result.pictures, captions=captions, marks=[mark(*pair) for pair in pairs])


def mark(prompt: str, reading: Reading | Seen) -> Mark | None:
    """How a picture's reading compares with what was asked for."""
    answer = reading.answers(prompt)
    if answer is False:
        return "differ"
    if not reading.sure:
        return "doubt"
    return "agree" if answer else None


def account(studio: Studio, result: Result, opening: str = "") -> str:
    """The status of a result: how it reads and, in a second line, what it cost and what made it."""
    request = result.request
    cost = f"{opening}{result.calls} network calls, {result.seconds:.1f} s, {seeds(request)}, {studio.about}."
    strange = unread(studio.pipeline.conditioner, request.texts)
    said = html.escape(" ".join([verdict(request.prompts, result.readings, studio.noun), *strange]))
    return f'<p role="status"><strong>{said}</strong></p><p>{html.escape(cost)}</p>'


def progress(studio: Studio, wanted: Request, step: Step) -> str:
    """The status of a run under way; screen readers hear its beginning and not every step."""
    of = f" of {wanted.steps}" if SAMPLERS[wanted.sampler].calls_per_step else ""
    now = f"Step {step.index}{of}, noise level {step.sigma.max().item():.2g}."
    about = f"{step.calls} network calls, {seeds(wanted)}, {studio.about}."
    return (
        f'<p><strong role="status">Making {counted(wanted.count, studio.noun)}.</strong>'
        f' <span aria-hidden="true">{now}</span></p>'
        f'<p aria-hidden="true">{html.escape(about)}</p>'
    )
