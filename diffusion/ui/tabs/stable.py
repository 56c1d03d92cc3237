"""The tab Stable Diffusion: a model of others in the same engine, where the app was started with one."""

import html
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr
import numpy as np

from diffusion.clip import TRANSFORMERS
from diffusion.ui import controls, reels, rendering
from diffusion.ui.controls import ENGINE, Sampling
from diffusion.ui.easel import Easel
from diffusion.ui.errors import polite
from diffusion.ui.rendering import COUNTS
from diffusion.ui.studio import Limits
from diffusion.ui.widgets import FramePlayer, MaskPad, Photo
from diffusion.ui.wording import announced

PROMPT = "a photograph of a lighthouse on a cliff, evening light"
SEED, STRENGTH = 1, 0.7  # what the controls open with
SIDE = 512  # of the pictures, until the model is open
EXAMPLE = "stable-diffusion-v1-5/stable-diffusion-v1-5"
PANES = ("Noisy state", "Predicted picture")
QUIET = {"api_visibility": "private", "show_progress": "hidden"}
ABSENT = f"""
<p>The small models of the other tabs and Stable Diffusion are one and the same program: a U-Net, an autoencoder, a
text encoder, a noise schedule, a sampler and guidance. With its weights this engine makes its pictures, every step in
view. They are not part of the app, which was started without them.</p>
<p>To have them here, start the app with a model of Stable Diffusion 1 or 2:</p>
<pre><code>pip install '{html.escape(TRANSFORMERS)}'
python app.py --sd {EXAMPLE}</code></pre>
<p>A name is that of a repository on the Hugging Face Hub, from which some 4 GB are fetched once. It may also be a
folder in the layout of diffusers, or a single .safetensors file in the original layout. A GPU with 8 GB of memory makes
a picture in seconds; a processor needs 8 GB of memory too, and minutes. Where the app's flags cannot be set, as on a
Hugging Face Space, the environment variable DIFFUSION_SD names the model.</p>
"""
NAMED = """
() => new MutationObserver(() => {
  for (const image of document.querySelectorAll('#stable-made img')) image.alt = 'The picture made';
  // A thumbnail's caption is beside it: nobody has to hear it twice.
  for (const image of document.querySelectorAll('#stable-gallery .thumbnail-item img')) image.alt = '';
}).observe(document.body, { childList: true, subtree: true })
"""


@dataclass(frozen=True)
class Handles:
    """The components that events of this tab refer to; None where there is no model to open."""

    tab: gr.Tab
    lead: gr.HTML
    open: gr.Button
    opening: gr.HTML
    room: gr.Column
    prompt: gr.Textbox
    negative: gr.Textbox
    height: gr.Slider
    width: gr.Slider
    sampling: Sampling
    begin: gr.Accordion
    picture: Photo
    strength: gr.Slider
    mask: MaskPad
    go: gr.Button
    stop: gr.Button
    made: gr.Image
    again: gr.Button
    film: FramePlayer
    savers: dict[str, gr.Button]
    file: gr.DownloadButton
    reel: gr.State  # of Reel, None while there is none
    status: gr.HTML
    painting: gr.State
    counts: gr.CheckboxGroup
    compare: gr.Button
    compare_stop: gr.Button
    gallery: gr.Gallery
    compared: gr.HTML
    comparing: gr.State

    @property
    def inputs(self) -> list[gr.components.Component]:
        """What `rendering.asked` takes, in its order."""
        size = (self.height, self.width)
        return [self.picture, self.strength, self.mask, self.prompt, self.negative, *size, *self.sampling.inputs]

    @property
    def entrance(self) -> list[gr.blocks.Block]:
        """What `opened` and `arrive` set, in their order."""
        return [self.lead, self.open, self.opening, self.room]

    @property
    def settled(self) -> list[gr.components.Component]:
        """What `settle` sets, in its order."""
        return [self.height, self.width, *self.sampling.inputs[:3]]


def build(easel: Easel | None, limits: Limits) -> Handles | None:
    """Draws the tab; without a model it says how to have one."""
    with gr.Tab("Stable Diffusion", id="stable", elem_id="stable-tab") as tab:
        if easel is None:
            with gr.Column(elem_classes="lab-card"):
                gr.HTML(ABSENT, elem_classes="lab-prose", elem_id="stable-absent")
            return None
        name = html.escape(easel.reference)
        lead = gr.HTML(f"<p>{name} is ready to be opened.</p>", elem_classes="lab-lead", elem_id="stable-lead")
        with gr.Row(elem_classes="lab-actions"):
            opens = gr.Button("Open the model", variant="primary", elem_id="stable-open", scale=0, min_width=200)
        opening = gr.HTML(
            "<p>Its weights are read into memory, and fetched before if they are not here yet.</p>",
            elem_classes="lab-status", elem_id="stable-opening",
        )  # fmt: skip
        with gr.Column(visible=False, elem_id="stable-room") as room:
            handles = _room(tab, lead, opens, opening, room, limits)
        controls.explain("What is the same, and what is not?", "stable")
    return handles


def _room(
    tab: gr.Tab, lead: gr.HTML, opens: gr.Button, opening: gr.HTML, room: gr.Column, limits: Limits
) -> Handles:  # fmt: skip
    """Draws what works once the model is open."""
    shown = {
        "sampling.sampler": {"value": "dpmpp_2m", "info": controls.sampler_note("dpmpp_2m")},
        "sampling.steps": {"value": 20},
        "sampling.guidance": {"value": 7.5},
    }
    with gr.Row(equal_height=False, elem_classes="lab-split"):
        with gr.Column(scale=5, min_width=290):
            with gr.Column(elem_classes="lab-card"):
                prompt = gr.Textbox(PROMPT, label="Prompt", lines=2, max_length=1000, elem_id="stable-prompt")
                negative = gr.Textbox("", label="Negative prompt", max_length=1000, elem_id="stable-negative")
                with gr.Row(elem_classes="lab-actions"):
                    go = gr.Button("Make the picture", variant="primary", scale=3, min_width=160, elem_id="stable-go")
                    stop = gr.Button("Stop", scale=1, min_width=70, elem_id="stable-stop")
            with gr.Column(elem_classes=["lab-card", "lab-later"]):
                with gr.Row():
                    width = gr.Slider(64, 2 * SIDE, SIDE, step=64, label="Width", elem_id="stable-width")
                    height = gr.Slider(64, 2 * SIDE, SIDE, step=64, label="Height", elem_id="stable-height")
                knobs = controls.sampling(shown, limits, "stable", SEED)
            with gr.Accordion(
                "Begin with a picture", open=False, elem_classes=["explain", "lab-later"], elem_id="stable-begin"
            ) as begin:
                picture = Photo(
                    format="png", sources=["upload", "clipboard"], label="Your picture", height=260,
                    elem_id="stable-picture",
                )  # fmt: skip
                strength = gr.Slider(
                    0, 1, STRENGTH, step=0.05, label="Strength", info="The share of the steps that is run on it.",
                    elem_id="stable-strength",
                )  # fmt: skip
                mask = MaskPad(
                    parts=False, label="Paint what may change; without paint, all of it may", elem_id="stable-mask"
                )
        with gr.Column(scale=7, min_width=300):
            with gr.Column(elem_classes="lab-card"):
                made = gr.Image(
                    label="Picture", show_label=False, format="png", interactive=False, elem_id="stable-made",
                    elem_classes="lab-picture", buttons=["download", "fullscreen"],
                )  # fmt: skip
                status = gr.HTML(announced("Nothing made yet."), elem_classes="lab-status", elem_id="stable-status")
                painting = gr.State(False)
                again = gr.Button("Begin with this picture", size="md", elem_id="stable-again")
            with gr.Column(elem_classes="lab-card"):
                film = FramePlayer(label="Step by step", panes=PANES, origin=0, elem_id="stable-film")
                with gr.Row(elem_classes="lab-actions"):
                    savers = {
                        suffix: gr.Button(f"Save {name}", size="md", min_width=90, elem_id=f"stable-save-{suffix[1:]}")
                        for suffix, name in ((".gif", "GIF"), (".webp", "WebP"))
                    }
                file = gr.DownloadButton("Film", visible="hidden", elem_id="stable-file")
                reel = gr.State(time_to_live=1800)
    with gr.Column(elem_classes="lab-card"):
        with gr.Row(elem_classes="lab-actions"):
            counts = gr.CheckboxGroup(
                [(str(count), count) for count in COUNTS], value=[5, 10, 20], label="Step counts side by side",
                elem_id="stable-counts",
            )  # fmt: skip
            compare = gr.Button("Compare", scale=0, min_width=140, elem_id="stable-compare")
            compare_stop = gr.Button("Stop", scale=0, min_width=70, elem_id="stable-compare-stop")
        gallery = gr.Gallery(
            label="The same noise and prompt", show_label=False, height="auto", object_fit="contain", format="png",
            interactive=False, elem_id="stable-gallery", elem_classes="lab-side",
        )  # fmt: skip
        compared = gr.HTML(announced(""), elem_classes="lab-status", elem_id="stable-compared")
        comparing = gr.State(False)
    return Handles(
        tab, lead, opens, opening, room, prompt, negative, height, width, knobs, begin, picture, strength, mask, go,
        stop, made, again, film, savers, file, reel, status, painting, counts, compare, compare_stop, gallery, compared,
        comparing,
    )  # fmt: skip


def wire(easel: Easel | None, own: Handles | None) -> None:
    """Connects the tab's events."""
    if easel is None or own is None:
        return

    def on(handler: Callable[..., Any]) -> Callable[..., Any]:
        return polite(partial(handler, easel))

    for event in (
        own.open.click(on(opened), None, own.entrance, api_name="_stable_open", **QUIET),
        gr.on(None, partial(arrive, easel), None, own.entrance, api_name="_stable_arrive", **QUIET),
    ):
        # Only then: controls that are not on the page yet would lose what they are set to.
        event.success(partial(settle, easel), None, own.settled, api_name="_stable_settle", **QUIET)
    running = own.go.click(
        on(rendering.paint), own.inputs, [own.made, own.film, own.status, own.painting, own.reel],
        api_name="_stable_paint", **QUIET, **ENGINE,
    )  # fmt: skip
    for suffix, button in own.savers.items():
        button.click(
            partial(reels.save, suffix, titles=PANES), own.reel, own.file, api_name=f"_stable_save_{suffix[1:]}",
            **QUIET,
        ).success(None, None, None, js=reels.download("stable-file"))  # fmt: skip
    comparing = own.compare.click(
        on(rendering.compare), [own.counts, *own.inputs], [own.gallery, own.compared, own.comparing],
        api_name="_stable_compare", **QUIET, **ENGINE,
    )  # fmt: skip
    for event, stop, begun, status, name in (
        (running, own.stop, own.painting, own.status, "_stable_paint_stopped"),
        (comparing, own.compare_stop, own.comparing, own.compared, "_stable_compare_stopped"),
    ):
        event.failure(stopped, begun, status, api_name=name, queue=False, **QUIET)
        stop.click(None, None, None, cancels=[event], queue=False)
    under = {"fn": on(rendering.under), "inputs": [own.picture, own.height, own.width, own.mask], "outputs": own.mask}
    own.picture.change(**under, trigger_mode="always_last", api_name="_stable_under", **QUIET)
    # An error outside the queue reaches no visitor: half of a number that is being typed is no mistake.
    gr.on(
        [own.height.change, own.width.change], **under, trigger_mode="always_last", queue=False,
        api_name="_stable_size", **QUIET,
    )  # fmt: skip
    own.again.click(polite(again), own.made, [own.picture, own.begin], api_name="_stable_again", **QUIET)
    gr.on(None, None, None, None, js=NAMED)


def opened(easel: Easel) -> Iterator[list[Any]]:
    """Opens the model and yields what `Handles.entrance` becomes."""
    try:
        for said in easel.open():
            yield [gr.skip(), gr.update(interactive=False), announced(said), gr.skip()]
    except ValueError as error:
        yield [gr.skip(), gr.update(interactive=True), announced(str(error)), gr.skip()]
        raise
    yield arrive(easel)


def arrive(easel: Easel) -> list[Any]:
    """The same for a page that comes when somebody else has opened it."""
    if easel.opened is None:
        return [gr.skip()] * 4
    said = f"<p>{html.escape(rendering.facts(easel))}</p>"
    return [said, gr.update(visible=False), gr.update(visible=False), gr.update(visible=True)]


def settle(easel: Easel) -> list[Any]:
    """The controls as the model wants them."""
    if easel.opened is None:
        return [gr.skip()] * 5
    least, greatest, unit = easel.sides
    side, defaults = easel.pipeline.codec.image_shape[-1], easel.pipeline.config.defaults
    return [
        *(gr.update(minimum=least, maximum=greatest, step=unit, value=side) for _ in ("height", "width")),
        gr.update(value=defaults.sampler, info=controls.sampler_note(defaults.sampler)),
        defaults.steps,
        defaults.guidance,
    ]


def stopped(begun: bool) -> Any:
    """The status after a run that did not finish; one that never started changed nothing."""
    return announced("Stopped. The engine is free.") if begun else gr.skip()


def again(made: np.ndarray | None) -> tuple[np.ndarray, Any]:
    """The finished picture as what the next one begins with, in view."""
    if made is None:
        raise ValueError("There is no picture yet: make one first.")
    return made, gr.update(open=True)
