"""What the Stable Diffusion tab shows: a run as it goes, its picture and its film, and step counts side by side."""

import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import torch
from PIL import Image

from diffusion import export
from diffusion.conditioning import unread
from diffusion.request import Request
from diffusion.samplers import SAMPLERS, Step
from diffusion.ui import controls, widgets
from diffusion.ui.easel import Easel
from diffusion.ui.formulas import formula, number
from diffusion.ui.reels import Reel
from diffusion.ui.studio import paced
from diffusion.ui.widgets import Masked
from diffusion.ui.wording import announced, counted, duration

COUNTS = (5, 10, 15, 20, 30, 50)
"""Step counts that can be compared."""

PREVIEW = "previews are a linear guess at each cell's colour"


def asked(
    easel: Easel, picture: Image.Image | None, strength: float, masked: Masked | None,
    prompt: object, negative: object, height: object, width: object, *settings: Any,
) -> Request:  # fmt: skip
    """The request that the controls ask for.

    Raises:
        ValueError: a setting is out of range, or the model is not open.
    """
    size = controls.whole("height", height), controls.whole("width", width)
    start = {}
    if picture is not None:
        seen = thumbnail(easel, picture, *size)
        pixels = export.fit(picture, (3, *size))
        painted = masked is not None and np.array_equal(masked.picture, seen) and masked.mask.any()
        cell = easel.pipeline.codec.factor
        mask = torch.from_numpy(masked.mask.repeat(cell, 0).repeat(cell, 1))[None] if painted else None
        start = {"image": export.to_image(pixels), "strength": strength, "mask": mask}
    request = controls.request(prompt, 1, *settings, negative=negative, size=size, **start)
    easel.check(request)
    easel.pipeline.shape(request)
    return request


def thumbnail(easel: Easel, picture: Image.Image, height: object, width: object) -> np.ndarray:
    """The picture, cut to a size's shape, with one pixel for each cell of its latent: uint8 (h, w, 3)."""
    cell = easel.pipeline.codec.factor
    sides = (int(controls.whole(name, side)) for name, side in (("height", height), ("width", width)))
    return export.fit(picture, (3, *(max(1, side // cell) for side in sides)))


def under(easel: Easel, picture: Image.Image | None, height: Any, width: Any, masked: Masked | None) -> Any:
    """What the mask is painted on; a mask that is on that already stays."""
    if picture is None:
        return None
    seen = thumbnail(easel, picture, height, width)
    return gr.skip() if masked is not None and np.array_equal(masked.picture, seen) else seen


def paint(easel: Easel, *inputs: Any) -> Iterator[tuple[Any, ...]]:
    """Makes one picture, and yields picture, film, status, whether it is still on its way, and the film as it is saved:
    guesses until then, then the decoded picture."""
    request = asked(easel, *inputs)
    run, trace, began, calls = uuid.uuid4().hex[:8], [], time.monotonic(), easel.calls(request)
    frames = request.steps_run(request.strengths[0]) + 1 if calls else None
    yield gr.skip(), gr.skip(), announced(f"Reading the prompt{_promised(easel, request, calls)}."), True, None
    running = easel.run(request)
    try:
        for step, due in paced(running):
            trace.append(step)
            if not due:
                yield (gr.skip(),) * 5
                continue
            panes, (guess,) = shoot(easel, trace[-1:])
            live = widgets.frame(
                run, step.index, {title: pictures[0] for title, pictures in panes.items()}, total=frames,
                caption=caption(trace), formula=formula(request.sampler, trace).text,
            )  # fmt: skip
            height, width = easel.pipeline.shape(request)[1:]
            shown = Image.fromarray(guess).resize((width, height), Image.Resampling.BICUBIC)
            said = announced(_progress(easel, request, step, calls, began))
            yield (shown if step.index else gr.skip()), live, said, gr.skip(), gr.skip()
    finally:
        running.close()
    reel = Reel(shoot(easel, trace)[0], f"{easel.pipeline.config.name}-seed-{request.seed}")
    film = movie(run, request, trace, reel.panes)
    yield gr.skip(), film, announced("Decoding the picture."), gr.skip(), reel
    with tempfile.TemporaryDirectory() as folder:  # the app copies what it is handed
        path = save(easel, request, trace[-1], Path(folder))
        said = announced(account(easel, request, trace[-1], time.monotonic() - began))
        yield path, gr.skip(), said, False, gr.skip()


def compare(easel: Easel, counts: Sequence[int], *inputs: Any) -> Iterator[tuple[Any, Any, Any]]:
    """The same request with several step counts, and yields gallery, status and whether more pictures are to come."""
    request, done = asked(easel, *inputs), []
    if not counts or not {*counts} <= {*COUNTS}:
        raise ValueError(f"Choose at least one step count of {', '.join(map(str, COUNTS))}.")
    requests = [replace(request, steps=steps) for steps in sorted(counts)]
    for one in requests:
        easel.check(one)
    yield [], announced(f"0 of {counted(len(requests), 'picture')} made."), True
    for one in requests:
        began, running = time.monotonic(), easel.run(one)
        try:
            for step in running:
                said = _progress(easel, one, step, easel.calls(one), began)
                said = f"{len(done)} of {len(requests)} made. {counted(one.steps, 'step')}: {said}"
                yield gr.skip(), announced(said), gr.skip()
        finally:
            running.close()
        picture = export.to_pictures(easel.images(step, one))[0]
        steps = counted(step.index, "step") if one.image is None else f"{step.index} of {counted(one.steps, 'step')}"
        taken = f"{steps}, {counted(step.calls, 'call')}, {time.monotonic() - began:.1f} s"
        done.append((Image.fromarray(picture), taken))
        yield list(done), announced(f"{len(done)} of {counted(len(requests), 'picture')} made."), gr.skip()
    title = SAMPLERS[request.sampler].title
    said = f"One noise (seed {request.seed}), one prompt, {title}: only the step count differs."
    yield gr.skip(), announced(said), False


def shoot(easel: Easel, steps: Sequence[Step]) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Panes of some of a run's steps, title -> uint8 (T, h, w, 3), and the predictions among them."""
    sigma = torch.cat([step.sigma.reshape(1) for step in steps])
    together = Step(0, sigma, torch.cat([step.x for step in steps]), torch.cat([step.x0 for step in steps]), 0)
    noisy, clean = (export.to_pictures(pictures) for pictures in easel.glimpse(together))
    return {"Noisy state": noisy, "Predicted picture": clean}, clean


def movie(run: str, request: Request, trace: Sequence[Step], panes: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """A finished run as a film."""
    so_far = [trace[: i + 1] for i in range(len(trace))]
    return widgets.film(
        run,
        panes,
        curves={"Noise level σ": [step.sigma.item() for step in trace]},
        captions=[caption(steps) for steps in so_far],
        formulas=[formula(request.sampler, steps).text for steps in so_far],
        ends=("noise" if request.image is None else "noised", "picture"),
    )


def caption(trace: Sequence[Step]) -> str:
    """What the latest step did."""
    sigma = number(trace[-1].sigma.item())
    if len(trace) == 1:
        return f"σ = {sigma}: the start, before any network call. Nothing is predicted yet."
    return f"σ {number(trace[-2].sigma.item())} → {sigma}, {counted(trace[-1].calls, 'network call')}; {PREVIEW}."


def save(easel: Easel, request: Request, last: Step, folder: Path) -> str:
    """The path of a new PNG of a run's picture, with its settings inside."""
    pictures = export.to_pictures(easel.images(last, request))
    path = folder / f"{easel.pipeline.config.name}-seed-{request.seed}.png"
    export.save_png(path, pictures, export.settings(request, easel.pipeline, easel.opened.weights))
    return str(path)


def account(easel: Easel, request: Request, last: Step, seconds: float) -> str:
    """What was made, at what cost, and which words were not read."""
    height, width = easel.pipeline.shape(request)[1:]
    strange = "".join(f" {said}" for said in unread(easel.pipeline.conditioner, request.texts))
    kept = "" if request.mask is None else f" {int((request.mask == 0).sum()):,} pixels are yours, unchanged."
    return (
        f"{width} × {height} pixels, {SAMPLERS[request.sampler].title}, {counted(last.calls, 'network call')} in "
        f"{seconds:.1f} s, seed {request.seed}, {_precision(easel)}.{kept}{strange}"
    )


def facts(easel: Easel) -> str:
    """A line on the model that is open."""
    pipeline, config = easel.pipeline, easel.pipeline.config
    parts = (("U-Net", pipeline.denoiser), ("autoencoder", pipeline.codec))
    sizes = ", ".join(f"{name} {sum(p.numel() for p in part.parameters()) / 1e6:,.1f} M" for name, part in parts)
    shape = " × ".join(map(str, pipeline.codec.latent_shape))
    return (
        f"{config.name}: {sizes} parameters, {_precision(easel)}; diffuses latents of {shape}, predicts "
        f"{config.prediction}; made for {pipeline.codec.image_shape[-1]} pixels."
    )


def _precision(easel: Easel) -> str:
    parameter = next(easel.pipeline.denoiser.parameters())
    return f"{str(parameter.dtype).removeprefix('torch.')} on {parameter.device.type.upper()}"


def _progress(easel: Easel, request: Request, step: Step, calls: int | None, began: float) -> str:
    of = f" of {request.steps_run(request.strengths[0])}" if calls else ""
    left = easel.seconds(request, calls - step.calls) if calls else None
    rest = "" if left is None else f", {duration(left)} left"
    return f"Step {step.index}{of}, {time.monotonic() - began:.0f} s{rest}."


def _promised(easel: Easel, request: Request, calls: int | None) -> str:
    seconds = easel.seconds(request, calls) if calls else None
    return "" if seconds is None else f"; the run will take {duration(seconds)}"
