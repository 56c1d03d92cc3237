"""What the Prompt tab computes: where each word is looked at, the way to another prompt, and a change of mind."""

import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import gradio as gr
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion.attention import watch
from diffusion.conditioning import unread
from diffusion.export import to_pictures
from diffusion.request import Request, Travel, Turn, check_number
from diffusion.samplers import SAMPLERS, Step
from diffusion.ui.controls import request, whole
from diffusion.ui.studio import Result, Studio, paced
from diffusion.ui.verdict import account, judged, progress
from diffusion.ui.widgets import film, frame, grid
from diffusion.ui.wording import announced, counted

PICTURES = 8  # at once at most
PANES = 7  # words at most that get a pane of their own
FRAMES = 40  # of a film at most; of longer runs they are picked evenly
DIM, GLOW = 0.35, (255, 176, 0)  # how much of a picture's light stays under what is lit, and in which colour
FEWEST, MOST = 3, 24  # pictures on the way to another prompt
SHORT = 32  # letters of a prompt in a title


@dataclass(frozen=True)
class Watched:
    """A finished run and where its network looked, in T of its steps.

    sigmas: noise levels; pictures: as predicted, uint8 (T, N, H, W) or (T, N, H, W, 3); maps (T, N, L, S, S), of which
    those of all L tokens are 1 together.
    """

    result: Result
    steps: tuple[int, ...]
    sigmas: tuple[float, ...]
    pictures: np.ndarray
    maps: Tensor


def watched(studio: Studio, wanted: Request) -> Iterator[tuple[Step, Tensor | None]]:
    """Each step of a run and where the network looked in it; None at the start, when it had not been called yet.

    A step that needs no call keeps what was looked at before.
    """
    running = studio.run(wanted)
    try:
        yield next(running), None  # from here on the engine is this run's, and no other can be taken for it
        calls, looked = 0, None
        with watch(studio.pipeline.denoiser.network, wanted.count) as maps:
            for step in running:
                if step.calls > calls:
                    calls, looked = step.calls, maps()
                yield step, looked
    finally:
        running.close()


def paint(studio: Studio, prompt: str, negative: str, *settings: Any) -> Iterator[tuple[Any, ...]]:
    """Makes pictures; settings: sampler, steps, guidance, seed, count. Yields grid, film, status and
    the Watched."""
    wanted = asked(prompt, negative, *settings)
    began, trace = time.monotonic(), []
    running = watched(studio, wanted)
    try:
        for (step, maps), due in paced(running):
            if maps is not None:
                trace.append((step, maps.half()))
            if due:
                live = grid(to_pictures(studio.pipeline.noisy(step)), done=False)
                yield live, gr.skip(), progress(studio, wanted, step), None
            else:
                yield (gr.skip(),) * 4
    finally:
        running.close()
    result = studio.result(wanted, step, time.monotonic() - began)
    kept = sorted({round(i) for i in np.linspace(0, len(trace) - 1, min(FRAMES, len(trace)))})
    steps, maps = zip(*(trace[i] for i in kept), strict=True)
    seen = Watched(
        result,
        tuple(step.index for step in steps),
        tuple(step.sigma.max().item() for step in steps),
        np.stack([to_pictures(studio.pipeline.decode(step.x0)) for step in steps]),
        torch.stack(maps),
    )
    yield judged(result), attended(studio, seen, 0), account(studio, result), seen


def asked(prompt: str, negative: str, *settings: Any) -> Request:
    """The request for pictures of one prompt."""
    *sampling, count = settings
    check_number("The number of pictures", count := whole("The number of pictures", count), 1, PICTURES, whole=True)
    return request(prompt, count, *sampling, negative=negative)


def attended(studio: Studio, seen: Watched, index: int) -> dict[str, Any]:
    """The film of one picture of a run: what was predicted, and how much each word was looked at where.

    The light of all words has one scale in each step, so that they can be compared.
    """
    tokens = studio.pipeline.conditioner.tokens(seen.result.request.prompts[index])
    maps = seen.maps[:, index].float()
    words = {}
    for place, word in enumerate(tokens):
        if word:
            words[word] = words.get(word, 0) + maps[:, place]  # a word said twice is one pane
    share = {word: where.mean((1, 2)) for word, where in words.items()}
    first = sorted(words, key=lambda word: -share[word].mean())[:PANES]
    brightest = torch.stack([words[word] for word in first]).amax((0, 2, 3))[:, None, None] if first else 1
    pictures = seen.pictures[:, index]
    panes = {"Predicted picture": pictures}
    panes |= {f"“{word}”": lit(pictures, words[word] / brightest) for word in words if word in first}
    captions = [
        f"Step {step}, σ = {sigma:.3g}. Of what the network looked at: {_shares(share, first, t)}."
        for t, (step, sigma) in enumerate(zip(seen.steps, seen.sigmas, strict=True))
    ]
    # It opens where there is a picture to see already, and still something to be decided by the words.
    start = len(pictures) // 3
    return film(uuid.uuid4().hex[:8], panes, captions=captions, ends=("noise", "picture"), start=start)


def _shares(share: dict[str, Tensor], first: Sequence[str], t: int) -> str:
    """How much of all attention each word had at a step, and how much was left for what is no word."""
    said = [f"“{word}” {100 * share[word][t]:.0f} %" for word in sorted(first, key=lambda word: -share[word][t])]
    others = sum(float(part[t]) for word, part in share.items() if word not in first)
    rest = 1 - others - sum(float(share[word][t]) for word in first)
    said += [f"other words {100 * others:.0f} %"] if len(share) > len(first) else []
    return ", ".join([*said, f"no word {100 * rest:.0f} %"])


def lit(pictures: np.ndarray, maps: Tensor) -> np.ndarray:
    """Pictures (T, H, W) or (T, H, W, 3) in grey under maps (T, S, S) in [0, 1] as light: uint8 (T, H, W, 3)."""
    grey = pictures if pictures.ndim == 3 else pictures @ np.array([0.299, 0.587, 0.114])
    light = F.interpolate(maps[:, None], pictures.shape[1:3], mode="bilinear").clamp(0, 1)[:, 0, ..., None].numpy()
    return (DIM * grey[..., None] * (1 - light) + np.array(GLOW) * light).round().astype(np.uint8)


def travel(studio: Studio, prompt: str, negative: str, *settings: Any) -> Iterator[tuple[Any, ...]]:
    """Makes the pictures on the way; settings: sampler, steps, guidance, seed, and the other prompt and seed, and how
    many. Yields film, strip, status and the Result."""
    wanted = way(prompt, negative, *settings)
    began, running = time.monotonic(), studio.run(wanted)
    try:
        for step, due in paced(running):
            live = grid(to_pictures(studio.pipeline.noisy(step)), done=False) if due else gr.skip()
            yield gr.skip(), live, progress(studio, wanted, step) if due else gr.skip(), None
    finally:
        running.close()
    result = studio.result(wanted, step, time.monotonic() - began)
    yield *travelled(studio, result), result


def way(prompt: str, negative: str, *settings: Any) -> Request:
    """The request for what lies between two prompts and seeds, one picture for each share of the way."""
    *sampling, other, seed, count = settings
    what = "The number of pictures on the way"
    check_number(what, count := whole(what, count), FEWEST, MOST, whole=True)
    wanted = request(prompt, count, *sampling, negative=negative)
    shares = tuple(i / (count - 1) for i in range(count))
    return replace(wanted, seed=(wanted.seed,) * count, travel=Travel(other, whole("seed", seed), shares))


def travelled(studio: Studio, result: Result) -> tuple[dict[str, Any], dict[str, Any], str]:
    """Film, strip and status of a way."""
    travel = result.request.travel
    said = [reading.beside("") if reading else "" for reading in result.readings]
    shares = [f"{100 * share:.0f} % of the way" for share in travel.shares]
    captions = [f"{share}{name and f': reads as {name}'}." for share, name in zip(shares, said, strict=True)]
    steps = sum(one != other for one, other in pairwise(said))
    turns = f"What it reads as changes {counted(steps, 'time')} on the way. " if any(said) else ""
    cost = f"{counted(result.calls, 'network call')} for all {result.request.count} pictures, {result.seconds:.1f} s."
    status = " ".join([f"{turns}{cost}", *unread(studio.pipeline.conditioner, result.request.texts)])
    way = film(
        uuid.uuid4().hex[:8], {"On the way": result.pictures}, captions=captions, ends=("this prompt", "the other")
    )
    return way, grid(result.pictures, captions=[f"{100 * share:.0f} %" for share in travel.shares]), announced(status)


def fork(studio: Studio, prompt: str, negative: str, *settings: Any) -> Iterator[tuple[Any, ...]]:
    """Makes a picture twice, once with a change of mind; settings: sampler, steps, guidance, seed, the other prompt and
    the step after which it counts. Yields film, status and the Result."""
    wanted = parting(prompt, negative, *settings)
    run, trace, began = uuid.uuid4().hex[:8], [], time.monotonic()
    running = studio.run(wanted)
    try:
        for step, due in paced(running):
            trace.append(step)
            if due:
                panes = {title: pictures[0] for title, pictures in _branches(studio, wanted, [step]).items()}
                yield (
                    frame(run, step.index, panes, total=wanted.steps + 1, caption=_story(wanted, trace)),
                    progress(studio, wanted, step),
                    None,
                )
            else:
                yield gr.skip(), gr.skip(), None
    finally:
        running.close()
    result = studio.result(wanted, trace[-1], time.monotonic() - began)
    yield *forked(studio, result, trace, run), result


def parting(prompt: str, negative: str, *settings: Any) -> Request:
    """The request for two pictures from one seed, of which the second is asked for something else after a step.

    Raises:
        ValueError: the change would come after the last step, there is but one, or the sampler chooses its own steps.
    """
    *sampling, other, after = settings
    wanted = request(prompt, 2, *sampling, negative=negative)
    if not SAMPLERS[wanted.sampler].calls_per_step:
        raise ValueError(
            f"{SAMPLERS[wanted.sampler].title} takes steps of its own for each picture, so there is none after which "
            "both could part: choose another sampler."
        )
    if wanted.steps < 2:
        raise ValueError("A change of mind takes 2 steps or more: one before it and one after.")
    what = "The step of the change"
    check_number(what, after := whole(what, after), 1, wanted.steps - 1, whole=True)
    return replace(wanted, seed=(wanted.seed,) * 2, turn=Turn(after, (prompt, other)))


def forked(studio: Studio, result: Result, trace: Sequence[Step], run: str) -> tuple[dict[str, Any], str]:
    """Film and status of a finished fork."""
    wanted = result.request
    apart = [(step.x[0] - step.x[1]).square().mean().sqrt().item() for step in trace]
    movie = film(
        run,
        _branches(studio, wanted, trace),
        curves={"How far the two states are apart": apart},
        captions=[_story(wanted, trace[: i + 1]) for i in range(len(trace))],
        ends=("noise", "pictures"),
    )
    kept, changed = (reading.beside("") if reading else "" for reading in result.readings)
    same = f"Both read as {kept}. " if kept == changed else f"One reads as {kept}, the other as {changed}. "
    said = same if kept else ""
    cost = f"{counted(result.calls, 'network call')} for both, {result.seconds:.1f} s."
    return movie, announced(" ".join([f"{said}{cost}", *unread(studio.pipeline.conditioner, wanted.texts)]))


def _branches(studio: Studio, wanted: Request, steps: Sequence[Step]) -> dict[str, np.ndarray]:
    """Noisy states and predictions of both branches after each step, title -> uint8 (T, H, W) or (T, H, W, 3)."""
    sigma = torch.stack([step.sigma for step in steps]).repeat_interleave(2)
    x, x0 = (torch.cat([getattr(step, name) for step in steps]) for name in ("x", "x0"))
    noisy, clean = (to_pictures(part) for part in studio.pipeline.preview(Step(0, sigma, x, x0, 0)))
    kept, changed = map(_short, wanted.turn.prompts)
    return {
        "Its noisy state": noisy[::2],
        f"Kept: {kept}": clean[::2],
        "The other's noisy state": noisy[1::2],
        f"Then: {changed}": clean[1::2],
    }


def _story(wanted: Request, trace: Sequence[Step]) -> str:
    """Which part of a fork a step belongs to."""
    step, turn = trace[-1], wanted.turn.step
    at = f"Step {step.index} of {wanted.steps}, σ = {step.sigma.max().item():.3g}"
    if step.index <= turn:
        return f"{at}: one and the same state. They part after step {turn}."
    return f"{at}: the second has followed its own prompt for {counted(step.index - turn, 'step')}."


def _short(prompt: str) -> str:
    """A prompt as a title."""
    return f"{prompt[:SHORT]}…" if len(prompt) > SHORT else prompt or "nothing"
