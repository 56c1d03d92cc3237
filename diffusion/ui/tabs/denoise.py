"""The tab Denoise: one run as a film, from pure noise to the picture, with the formula of every step."""

import re
import shutil
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import gradio as gr
import numpy as np
import torch
from torch import Tensor

from diffusion import export
from diffusion.data import to_uint8
from diffusion.request import Request
from diffusion.samplers import SAMPLERS, Step
from diffusion.ui import controls, reels, widgets
from diffusion.ui.controls import ENGINE, Sampling, Shown
from diffusion.ui.formulas import formula, number
from diffusion.ui.lab import Lab
from diffusion.ui.readings import Reading, Seen
from diffusion.ui.reels import Reel, download
from diffusion.ui.shelf import Shelf
from diffusion.ui.studio import Studio, paced
from diffusion.ui.wording import announced

LEAD = """<p>Watch one picture come out of noise. At each step the network guesses the clean picture, and the sampler
moves the noisy state a little towards it.</p>"""
NOTE = """<p>States are drawn divided by √(1 + σ²), which gives them the data's spread at every noise level: grey is 0,
black −3 or less, white 3 or more. The signal-to-noise ratio is 1/σ², that of x = x₀ + σ ε.</p>"""
DECODED = "<p>The second pane shows the state through the decoder, which was never trained on noise.</p>"
NO_MP4 = "<p>MP4 is offered where ffmpeg is installed.</p>"
QUIET = {"api_visibility": "private", "show_progress": "hidden"}
OPENED = "Made when the model was opened. "
PROMPT, SEED = "", 10  # what the controls open with: any digit, of which this noise becomes one only after some steps
SPREAD = 3.0  # where the drawing of a state saturates, in standard deviations of the data
FOLLOW = """() => {
    const follow = () => {
        const player = document.querySelector("#denoise-player"), top = player?.getBoundingClientRect().top;
        if (!player?.offsetParent) requestAnimationFrame(follow);  // its tab is still opening
        else if (top < 0 || top > window.innerHeight / 2) player.scrollIntoView();
    };
    follow();
}"""


@cache
def shown(studio: Studio) -> Shown:
    """What the tab opens with for a model: a run made when it was opened."""
    request = Request(prompt=PROMPT, seed=SEED, **studio.defaults)
    began = time.monotonic()
    trace = list(studio.run(request))
    payload, opening, status = develop(studio, "opening", request, trace, time.monotonic() - began, OPENED)
    choices = studio.suggestions
    notes = [NOTE, DECODED if studio.latent else "", "" if shutil.which("ffmpeg") else NO_MP4]
    return {
        "picker": widgets.DigitPicker.showing(
            choices, PROMPT, thumbnails=studio.faces, free=studio.sentences, label=studio.asking,
            visible=bool(choices),
        ),
        "negative": controls.negative_shown(studio),
        **controls.sampling_shown(studio),
        "player": {"value": payload, "panes": list(opening.panes)},
        "status": {"value": status},
        "saved": {"choices": list(opening.panes), "value": list(opening.panes)[1:]},
        "note": {"value": "".join(notes)},
        "reel": {"value": opening},
    }  # fmt: skip


@dataclass(frozen=True)
class Handles:
    """Components that other tabs and links refer to; outputs are what `film` yields, in its order."""

    tab: gr.Tab
    picker: widgets.DigitPicker
    negative: gr.Dropdown
    sampling: Sampling
    go: gr.Button
    stop: gr.Button
    player: widgets.FramePlayer
    reel: gr.State
    status: gr.HTML
    saved: gr.CheckboxGroup
    savers: dict[str, gr.Button]
    note: gr.HTML
    file: gr.DownloadButton

    shown = staticmethod(shown)

    @property
    def inputs(self) -> list[gr.components.Component]:
        return [self.picker, self.negative, *self.sampling.inputs]

    @property
    def outputs(self) -> list[gr.components.Component]:
        return [self.player, self.reel, self.status]


def build(shelf: Shelf) -> Handles:
    """Draws the tab, with the default model's run."""
    now = shown(shelf.default)
    with gr.Tab("Denoise", id="denoise", elem_id="denoise") as tab:
        gr.HTML(LEAD, elem_classes="lab-lead")
        with gr.Row(equal_height=False):
            with gr.Column(scale=4, min_width=280, elem_classes="lab-card"):
                picker = widgets.DigitPicker(**now["picker"], any="Any", elem_id="denoise-picker")
                with gr.Row(elem_classes="lab-actions"):
                    go = gr.Button(
                        "Denoise", variant="primary", size="lg", scale=3, min_width=140, elem_id="denoise-go"
                    )
                    stop = gr.Button("Stop", size="lg", scale=1, min_width=80, elem_id="denoise-stop")
                sampling = controls.sampling(now, shelf.limits, "denoise", SEED)
                negative = gr.Dropdown(
                    **now["negative"], info="Acts where guidance is not 1.",
                    elem_id="denoise-negative",
                )  # fmt: skip
            with gr.Column(scale=7, min_width=300, elem_classes="lab-card"):
                player = widgets.FramePlayer(**now["player"], label="Denoising", origin=0, elem_id="denoise-player")
                status = gr.HTML(**now["status"], elem_classes="lab-status", elem_id="denoise-status")
                with gr.Row(elem_classes="lab-actions"):
                    saved = gr.CheckboxGroup(**now["saved"], label="Save the film of", elem_id="denoise-saved")
                with gr.Row(elem_classes="lab-actions"):
                    savers = {
                        suffix: gr.Button(f"Save {name}", size="md", min_width=90, elem_id=f"denoise-save-{suffix[1:]}")
                        for suffix, name in zip(export.FILMS, ("GIF", "WebP", "MP4"), strict=True)
                        if suffix != ".mp4" or shutil.which("ffmpeg")
                    }
                note = gr.HTML(**now["note"], elem_classes="lab-note")
                file = gr.DownloadButton("Film", visible="hidden", elem_id="denoise-file")
        controls.explain("What am I looking at?", "denoise")
        reel = gr.State(time_to_live=1800)
        # Not the State's own value, to which it would fall back after its time: another film than the one on show.
        gr.on(None, lambda: now["reel"]["value"], None, reel, api_name="_denoise_opening", queue=False, **QUIET)
    return Handles(tab, picker, negative, sampling, go, stop, player, reel, status, saved, savers, note, file)


def wire(shelf: Shelf, lab: Lab) -> None:
    """Connects the tab's events."""
    own = lab.denoise
    running = own.go.click(
        shelf.on(film), [lab.model, *own.inputs], own.outputs, api_name="_denoise_film", **QUIET, **ENGINE
    )
    running.then(stopped, own.reel, own.status, api_name="_denoise_stopped", queue=False, **QUIET)
    own.go.click(None, None, None, js=FOLLOW)  # on a phone the film is further down
    gr.on([own.stop.click, lab.model.input], None, None, None, cancels=[running], queue=False)
    for suffix, button in own.savers.items():
        button.click(
            partial(reels.save, suffix), [own.reel, own.saved], own.file, api_name=f"_denoise_save_{suffix[1:]}",
            **QUIET,
        ).success(None, None, None, js=download("denoise-file"))  # fmt: skip


def film(
    studio: Studio, prompt: str, negative: str, sampler: str, steps: int, guidance: float, seed: int
) -> Iterator[tuple[Any, Any, Any]]:
    """Runs one image and yields `Handles.outputs`: its frames while they are made, then the finished film."""
    request = controls.request(prompt, 1, sampler, steps, guidance, seed, negative=negative)
    run, trace, began = uuid.uuid4().hex[:8], [], time.monotonic()
    running = studio.run(request)
    try:
        for step, due in paced(running):
            trace.append(step)
            if not due:
                yield gr.skip(), gr.skip(), gr.skip()
                continue
            panes, (reading,) = shoot(studio, trace[-1:])
            # A film that was there before goes with the first frame: a stopped run leaves nothing to save.
            starts = step.index == 0
            about = announced(f"Running, about {studio.seconds(request):.1f} s.")
            shown = widgets.frame(
                run,
                step.index,
                {title: pictures[0] for title, pictures in panes.items()},
                total=request.steps + 1 if SAMPLERS[sampler].calls_per_step else None,
                caption=caption(trace, reading),
                formula=formula(sampler, trace).text,
            )
            yield shown, None if starts else gr.skip(), about if starts else gr.skip()
    finally:
        running.close()
    yield develop(studio, run, request, trace, time.monotonic() - began)


def shoot(studio: Studio, steps: Sequence[Step]) -> tuple[dict[str, np.ndarray], tuple[Reading | Seen | None, ...]]:
    """Panes of some of an image's steps, title -> uint8 (T, H, W) or (T, H, W, 3), and their predictions' readings."""
    sigma = torch.cat([step.sigma.reshape(1) for step in steps])
    together = Step(0, sigma, torch.cat([step.x for step in steps]), torch.cat([step.x0 for step in steps]), 0)
    noisy, clean = studio.pipeline.preview(together)
    shape = " × ".join(map(str, studio.pipeline.codec.latent_shape))
    state = {f"Noisy state, {shape}": mosaics(studio.pipeline.spread(together))}
    decoded = {"Noisy state, decoded": export.to_pictures(noisy)} if studio.latent else {}
    return state | decoded | {"Predicted picture": export.to_pictures(clean)}, studio.read(clean)


def mosaics(spread: Tensor) -> np.ndarray:
    """States (T, C, h, w) of about unit deviation, their channels side by side: uint8 (T, H, W)."""
    return np.stack([widgets.tile(channels) for channels in to_uint8(spread / SPREAD).cpu().numpy()])


def caption(trace: Sequence[Step], reading: Reading | Seen | None) -> str:
    """What the latest step did, and how its prediction reads."""
    sigma = trace[-1].sigma.item()
    if len(trace) == 1:
        return (
            f"σ = {number(sigma)}, SNR {number(snr(sigma))}: pure noise, before any network call.\n"
            "Nothing is predicted yet: the last pane shows the zero state."
        )
    calls, said = trace[-1].calls, ""
    if reading:
        said = f"\nThe prediction reads as {reading.said}."
    return (
        f"σ {number(trace[-2].sigma.item())} → {number(sigma)}, SNR {number(snr(sigma))}, "
        f"{calls} network call{'s' if calls > 1 else ''}{said}"
    )


def snr(sigma: float) -> float:
    """The signal-to-noise ratio of x = x0 + sigma * eps."""
    return sigma**-2 if sigma else float("inf")


def develop(
    studio: Studio, run: str, request: Request, trace: Sequence[Step], seconds: float, note: str = ""
) -> tuple[dict[str, Any], Reel, str]:
    """`Handles.outputs` of a finished run: the film, which opens with its end, what is saved of it, the status line."""
    panes, readings = shoot(studio, trace)
    levels = [step.sigma.item() for step in trace]
    so_far = [trace[: i + 1] for i in range(len(trace))]
    payload = widgets.film(
        run,
        panes,
        curves={"Noise level σ": levels, "Signal to noise 1/σ²": [snr(sigma) for sigma in levels]},
        captions=[caption(steps, reading) for steps, reading in zip(so_far, readings, strict=True)],
        formulas=[formula(request.sampler, steps).text for steps in so_far],
        ends=("noise", "picture"),
    )
    last, title = trace[-1], SAMPLERS[request.sampler].title
    seen = ""
    if readings[-1]:
        seen = f"From step {decided(readings)} of {last.index} on, every prediction is read as {readings[-1].label}. "
    status = (
        f"{note}{seen}{title}, seed {request.seed}: {last.calls} network calls in {seconds:.2f} s by {studio.about}."
    )
    name = re.sub(r"\W+", "-", f"denoise-{request.prompt or 'any'}-seed-{request.seed}")
    return payload, Reel(panes, name), announced(status)


def decided(readings: Sequence[Reading | Seen]) -> int:
    """The first step from which on every prediction reads as the last one does; at step 0 there is no prediction."""
    labels = [reading.label for reading in readings]
    return 1 + max((i for i in range(1, len(labels)) if labels[i] != labels[-1]), default=0)


def stopped(saved: Reel | None) -> Any:
    """The status after a run: what `film` said last, unless it was stopped."""
    return gr.skip() if saved else announced("Stopped. Its frames can be played; only a finished film can be saved.")
