"""The tab Generate: pictures made while you watch, read back by a classifier, and handed on."""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import gradio as gr
import numpy as np

from diffusion.export import to_pictures
from diffusion.request import Request
from diffusion.ui import keep, links
from diffusion.ui.controls import (
    ENGINE,
    Sampling,
    Shown,
    explain,
    negative_shown,
    request,
    sampling,
    sampling_shown,
    whole,
)
from diffusion.ui.errors import polite
from diffusion.ui.lab import Lab
from diffusion.ui.shelf import Shelf
from diffusion.ui.studio import Result, Studio, paced
from diffusion.ui.tabs import denoise
from diffusion.ui.verdict import account, judged, progress
from diffusion.ui.widgets import DigitGrid, DigitPicker, grid
from diffusion.ui.wording import counted, duration

COUNT, SEED = 16, 1  # what the controls open with


@cache
def shown(studio: Studio) -> Shown:
    """What the tab opens with for a model, its pictures made when it was opened."""
    choices, noun = studio.suggestions, studio.noun
    first = choices[min(3, len(choices) - 1)] if choices else ""
    asking = "Say what you want to see, watch it" if studio.sentences else f"Pick a {noun}, watch it"
    doing = f"{asking} come out of noise" if choices else f"Watch {noun}s come out of noise"
    reader = ", and see it read back" if studio.classifier else ""
    return {
        "lead": {"value": f"<p>{doing}{reader}.</p>"},
        "picker": DigitPicker.showing(
            choices,
            first,
            thumbnails=studio.thumbnails,
            free=studio.sentences,
            label=studio.asking,
            visible=bool(choices),
        ),
        "negative": negative_shown(studio),
        **sampling_shown(studio),
        "go": {"value": label(studio, first, COUNT, *studio.defaults.values())},
        "status": {"value": account(studio, studio.opening, "Made when the model was opened: ")},
        "grid": {"value": judged(studio.opening), "label": f"{noun.capitalize()}s"},
        "encode": {"visible": studio.latent},
        "result": {"value": studio.opening},
        "out.link": {"visible": False},
    }


@dataclass(frozen=True)
class Handles:
    """Components that other tabs, links and this tab's own events refer to."""

    tab: gr.Tab
    lead: gr.HTML
    notice: gr.HTML
    picker: DigitPicker
    negative: gr.Dropdown
    count: gr.Slider
    sampling: Sampling
    go: gr.Button
    stop: gr.Button
    grid: DigitGrid
    status: gr.HTML
    watch: gr.Button
    change: gr.Button
    encode: gr.Button
    out: keep.Out
    back: keep.Back
    result: gr.State  # of Result, None while there is none
    arrived: gr.State  # of bool: a link opened this page

    shown = staticmethod(shown)

    @property
    def settings(self) -> list[gr.components.Component]:
        """The controls, in the order of links.KEYS."""
        return [self.picker, self.negative, self.count, *self.sampling.inputs]

    @property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """Lowest and highest of those that are numbers."""
        numbers = (self.count, self.sampling.steps, self.sampling.guidance, self.sampling.seed)
        names = ("count", "steps", "guidance", "seed")
        return {name: (number.minimum, number.maximum) for name, number in zip(names, numbers, strict=True)}


def build(shelf: Shelf) -> Handles:
    """Draws the tab, with the pictures that the default model made when it was opened."""
    now, limits = shown(shelf.default), shelf.limits
    with gr.Tab("Generate", id="generate", elem_id="generate-tab") as tab:
        lead = gr.HTML(**now["lead"], elem_classes="lab-lead")
        notice = gr.HTML(visible=False, elem_id="generate-notice", elem_classes="lab-note")
        with gr.Row(equal_height=False, elem_classes="lab-split"):
            with gr.Column(min_width=290):
                with gr.Column(elem_classes="lab-card"):
                    picker = DigitPicker(**now["picker"], any="Any", each="One of each", elem_id="generate-picker")
                    with gr.Row():
                        count = gr.Slider(
                            1, limits.count, COUNT, step=1, label="How many", elem_id="generate-count", min_width=180
                        )
                        negative = gr.Dropdown(
                            **now["negative"], info="Acts where guidance is not 1.",
                            elem_id="generate-negative", min_width=140,
                        )  # fmt: skip
                    with gr.Row(elem_classes="lab-actions"):
                        go = gr.Button(**now["go"], variant="primary", size="lg", min_width=200, elem_id="generate-go")
                        stop = gr.Button("Stop", size="lg", scale=0, min_width=80, elem_id="generate-stop")
                with gr.Column(elem_classes=["lab-card", "lab-later"]):
                    knobs = sampling(now, limits, "generate", SEED)
                with gr.Column(elem_classes=["lab-card", "lab-later"]):
                    back = keep.back()
            with gr.Column(min_width=290, elem_classes="lab-card"):
                status = gr.HTML(**now["status"], elem_id="generate-status", elem_classes="lab-status")
                cells = DigitGrid(**now["grid"], elem_id="generate-grid")
                gr.HTML("<p>With the one that you select:</p>", elem_classes="lab-note")
                with gr.Row(elem_classes="lab-actions"):
                    watch = gr.Button("See how it was made", scale=3, min_width=170, elem_id="generate-watch")
                    change = gr.Button("Change it", scale=2, min_width=90, elem_id="generate-change")
                    encode = gr.Button(
                        "Through the VAE", **now["encode"], scale=2, min_width=150, elem_id="generate-encode"
                    )
                out = keep.out()
        explain("How noise becomes a picture", "generate")
        result, arrived = gr.State(time_to_live=1800), gr.State(False)
    return Handles(
        tab, lead, notice, picker, negative, count, knobs, go, stop, cells, status, watch, change, encode, out, back,
        result, arrived,
    )  # fmt: skip


def wire(shelf: Shelf, lab: Lab) -> None:
    """Connects the tab's events."""
    own = lab.generate
    quiet = {"api_visibility": "private", "show_progress": "hidden"}
    priced = [own.picker, own.count, *own.sampling.inputs[:3]]
    gr.on(
        [control.change for control in priced], shelf.on(label), [lab.model, *priced], own.go,
        api_name="_generate_label", queue=False, trigger_mode="always_last", **quiet,
    )  # fmt: skip
    outputs = [own.grid, own.status, own.result]
    running = gr.on(
        [own.go.click, own.arrived.change], shelf.on(make), [lab.model, *own.settings], outputs,
        api_name="_generate_make", **quiet, **ENGINE,
    )  # fmt: skip
    running.failure(stopped, own.result, own.status, api_name="_generate_stopped", queue=False, **quiet)
    gr.on([own.stop.click, lab.model.input], None, None, None, cancels=[running], queue=False)

    chosen = [own.grid, own.result]
    own.change.click(
        polite(lambda index, result: (gr.Tabs(selected="image"), picture(index, result))),
        chosen, [lab.tabs, lab.image.source], api_name="_generate_to_image", **quiet,
    )  # fmt: skip
    own.encode.click(
        polite(lambda index, result: (gr.Tabs(selected="vae"), picture(index, result))),
        chosen, [lab.tabs, lab.vae.first], api_name="_generate_to_vae", **quiet,
    )  # fmt: skip
    theirs = lab.denoise
    opened = own.watch.click(
        polite(lambda index, result: (gr.Tabs(selected="denoise"), *alone(index, result))),
        chosen, [lab.tabs, *theirs.inputs], api_name="_generate_to_denoise", **quiet,
    )  # fmt: skip
    opened.success(None, None, None, js=denoise.FOLLOW)
    film = opened.success(
        shelf.on(denoise.film), [lab.model, *theirs.inputs], theirs.outputs, api_name="_generate_film",
        **quiet, **ENGINE,
    )  # fmt: skip
    film.then(denoise.stopped, theirs.reel, theirs.status, api_name="_generate_film_stopped", queue=False, **quiet)
    gr.on([theirs.stop.click, lab.model.input], None, None, None, cancels=[film], queue=False)

    keep.wire_out(shelf, own.out, own.result)
    keep.wire_back(shelf, lab)


def make(
    studio: Studio, digit: str, negative: str, count: float, sampler: str, steps: float, guidance: float, seed: float
) -> Iterator[Any]:
    """Makes the pictures and yields grid, status and result: noisy states on their way, then what they became."""
    wanted = asked(studio, digit, count, sampler, steps, guidance, seed=seed, negative=negative)
    running, began = studio.run(wanted), time.monotonic()
    try:
        for step, due in paced(running):
            if due:
                yield grid(to_pictures(studio.pipeline.noisy(step)), done=False), progress(studio, wanted, step), None
            else:
                yield gr.skip()
    finally:
        running.close()
    result = studio.result(wanted, step, time.monotonic() - began)
    yield judged(result), account(studio, result), result


def asked(studio: Studio, digit: str, count: Any, sampler: str, steps: Any, guidance: Any, **more: Any) -> Request:
    """The request that the controls ask for."""
    prompt = links.prompts(digit, count := whole("count", count), studio.suggestions)
    return request(prompt, count, sampler, steps, guidance, **more)


def label(studio: Studio, digit: str, count: float, sampler: str, steps: float, guidance: float) -> str:
    """The primary button's text: what it makes, and how long that will take on this machine."""
    try:
        wanted = asked(studio, digit, count, sampler, steps, guidance, seed=0)
        studio.check(wanted)
    except ValueError:  # said in full when the button is pressed
        return f"Make {studio.noun}s"
    return f"Make {counted(wanted.count, studio.noun)} · {duration(studio.seconds(wanted))}"


def stopped(result: Result | None) -> Any:
    """The status after a run that did not finish; one that never started changed nothing."""
    if result:
        return gr.skip()
    return '<p role="status"><strong>Stopped.</strong></p><p>These pictures stay unfinished; the engine is free.</p>'


def picture(index: int | None, result: Result | None) -> np.ndarray:
    """The selected picture of a result; the only one needs no selection."""
    k = _selected(index, result)
    return result.pictures[k]


def alone(index: int | None, result: Result | None) -> list[Any]:
    """The selected picture's own settings, in the order of denoise.Handles.inputs."""
    k, wanted = _selected(index, result), result.request
    return [wanted.prompts[k], wanted.negative, wanted.sampler, wanted.steps, wanted.guidance, wanted.seeds[k]]


def _selected(index: int | None, result: Result | None) -> int:
    if result is None:
        raise ValueError("There are no finished pictures here: make some first.")
    count = result.request.count
    if index is None and count == 1:
        return 0
    if index is None or index >= count:
        raise ValueError("Which one? Select one in the grid first.")
    return index
