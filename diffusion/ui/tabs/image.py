"""Image to image: a drawing, a photograph or a test picture becomes another, whole or in part."""

import time
from dataclasses import dataclass
from functools import cache
from typing import Any

import gradio as gr
import numpy as np

from diffusion import export
from diffusion.ui.becoming import (
    INSIDE_CSS,
    STRENGTHS,
    account,
    asked,
    climb,
    eight,
    glimpse,
    ladder,
    look,
    movie,
    picked,
    strip_account,
    turn,
    under,
)
from diffusion.ui.controls import ENGINE, Sampling, Shown, explain, sampling, sampling_shown
from diffusion.ui.errors import polite
from diffusion.ui.lab import Lab
from diffusion.ui.shelf import Shelf
from diffusion.ui.studio import Result, Studio
from diffusion.ui.widgets import DigitGrid, DigitPicker, FramePlayer, MaskPad, SketchPad
from diffusion.ui.wording import announced

COLUMN, STRENGTH, SEED = 9, 0.6, 6  # what the page opens with
WISHES = "a blue {} on yellow paper", "a white {} on black", "a thin green {}", "an orange 8"
QUIET = {"api_visibility": "private", "show_progress": "hidden"}


@cache
def shown(studio: Studio) -> Shown:
    """What the tab opens with for a model, made when it was opened: a test picture that became something else."""
    first, noun = min(3, len(studio.kinds) - 1), studio.noun
    picture, choices = studio.nth(COLUMN)[first], wishes(studio, studio.kinds[first])
    target = choices[0 if studio.sentences else min(8, len(choices) - 1)] if choices else ""
    request = asked(studio, picture, None, True, target, STRENGTH, *studio.defaults.values(), SEED)
    began = time.monotonic()
    steps = list(studio.run(request))
    result = studio.result(request, steps[-1], time.monotonic() - began)
    strip = studio.finish(eight(request))
    views, plan, promise, strip_promise = glimpse(studio, request, picture)
    doing = f"denoised as another {noun}" if choices else "denoised again"
    if studio.sentences:
        doing = "denoised until it shows what you say"
    return {
        "lead": {"value": f"<p>Your {noun}, noised, then {doing}: more noise keeps less of yours.</p>"},
        "source": SketchPad.showing(studio.shape, picture),
        "tests": DigitPicker.showing(studio.kinds, studio.kinds[first], thumbnails=studio.nth(COLUMN)),
        "column": {"value": COLUMN},
        "upload_note": {"value": upload_note(studio)},
        "mask": {"value": picture},
        "centre": {"visible": studio.centred},
        "target": DigitPicker.showing(
            choices, target, thumbnails=studio.thumbnails, free=studio.sentences, visible=bool(choices),
            label="What it shall show" if studio.sentences else "Turn it into",
        ),
        "strength": {"info": plan},
        **sampling_shown(studio),
        "go": {"value": promise},
        "inside": {"value": views},
        "player": {"value": movie(studio, "opening", steps, result)},
        "status": {"value": announced(f"Made when the model was opened: {account(studio, result)}")},
        "result": {"value": result},
        "compare": {"visible": studio.latent},
        "strip": {"value": ladder(strip)},
        "strip_go": {"value": strip_promise},
        "strip_status": {"value": announced(strip_account(strip))},
    }  # fmt: skip


def wishes(studio: Studio, kind: str) -> tuple[str, ...]:
    """What a picture of this kind could become: the model's classes, or in words the same in other colours."""
    return tuple(wish.format(kind) for wish in WISHES) if studio.sentences else studio.suggestions


def upload_note(studio: Studio) -> str:
    """What may be uploaded, and what becomes of it."""
    height, width = studio.shape[:2]
    made = f"It is cut to a square and brought to {width} × {height} pixels."
    if studio.centred:
        made = "A photo of a digit on paper will do: its ink becomes white on black."
    return f"<p>PNG, JPEG or WebP, up to {studio.limits.upload} MB. {made}</p>"


@dataclass(frozen=True)
class Handles:
    """Components that other tabs, links and this tab's own events refer to."""

    tab: gr.Tab
    lead: gr.HTML
    ways: gr.Tabs
    source: SketchPad
    tests: DigitPicker
    column: gr.State
    shuffle: gr.Button
    upload_note: gr.HTML
    upload: gr.UploadButton
    mask: MaskPad
    centre: gr.Checkbox
    inside: gr.HTML
    target: DigitPicker
    strength: gr.Slider
    sampling: Sampling
    go: gr.Button
    stop: gr.Button
    player: FramePlayer
    status: gr.HTML
    result: gr.State
    back: gr.Button
    compare: gr.Button
    strip: DigitGrid
    strip_go: gr.Button
    strip_status: gr.HTML

    shown = staticmethod(shown)

    @property
    def inputs(self) -> list[gr.components.Component]:
        """What `_request` takes, in its order."""
        return [self.source, self.mask, self.centre, self.target, self.strength, *self.sampling.inputs]


def build(shelf: Shelf) -> Handles:
    """Draws the tab, with what the default model made when it was opened."""
    now, limits = shown(shelf.default), shelf.limits
    with gr.Tab("Image to image", id="image", elem_id="image-tab", render_children=True) as tab:
        lead = gr.HTML(**now["lead"], elem_classes="lab-lead")
        with gr.Row(equal_height=True):
            with gr.Column(scale=10, min_width=290, elem_classes="lab-card"):
                with gr.Tabs(selected="draw", elem_id="image-ways") as ways:
                    with gr.Tab("Draw", id="draw"):
                        source = SketchPad(**now["source"], label="Your picture", elem_id="image-source")
                    with gr.Tab("Pick", id="pick"):
                        column = gr.State(COLUMN)
                        tests = DigitPicker(**now["tests"], label="Real test images", elem_id="image-tests")
                        shuffle = gr.Button("Ten others", elem_id="image-shuffle", size="md")
                    with gr.Tab("Upload", id="upload"):
                        upload_text = gr.HTML(**now["upload_note"], elem_classes="lab-note")
                        upload = gr.UploadButton(
                            "Choose a picture",
                            file_types=[".png", ".jpg", ".jpeg", ".webp"],
                            elem_id="image-upload",
                        )
                    with gr.Tab("Mask", id="mask"):
                        mask = MaskPad(
                            **now["mask"], label="Paint what may change; the rest stays", elem_id="image-mask"
                        )
                centre = gr.Checkbox(
                    True, **now["centre"], label="Centre and scale it as MNIST does", elem_id="image-centre",
                    container=False,
                )  # fmt: skip
            with gr.Column(scale=10, min_width=290, elem_classes="lab-card"):
                target = DigitPicker(**now["target"], any="Anything", elem_id="image-target")
                strength = gr.Slider(
                    0, 1, STRENGTH, step=0.05, label="Strength", **now["strength"], elem_id="image-strength"
                )
                with gr.Row(elem_classes="lab-actions"):
                    go = gr.Button(**now["go"], variant="primary", elem_id="image-go", min_width=210)
                    stop = gr.Button("Stop", elem_id="image-stop", scale=0, min_width=70)
                inside = gr.HTML(
                    **now["inside"], css_template=INSIDE_CSS, elem_id="image-inside", apply_default_css=False
                )
                with gr.Accordion("Sampler, steps, guidance, seed", open=False):
                    knobs = sampling(now, limits, "image", SEED)
            with gr.Column(scale=10, min_width=290, elem_classes="lab-card"):
                player = FramePlayer(
                    **now["player"], label="Result", panes=("Result",), origin=0, elem_id="image-player"
                )
                status = gr.HTML(**now["status"], elem_id="image-status", elem_classes="lab-status")
                result = gr.State(now["result"]["value"])
                with gr.Row(elem_classes="lab-actions"):
                    back = gr.Button("Use as picture", elem_id="image-back", size="md", min_width=120)
                    compare = gr.Button(
                        "To the VAE tab", **now["compare"], elem_id="image-compare", size="md", min_width=120
                    )
        with gr.Column(elem_classes="lab-card"):
            with gr.Row(elem_classes="lab-actions"):
                gr.HTML("<h2>Eight strengths, one noise</h2>", elem_classes="lab-lead")
                strip_go = gr.Button(**now["strip_go"], elem_id="image-strip-go", scale=0, min_width=310)
            strip = DigitGrid(**now["strip"], label="Eight strengths", columns=len(STRENGTHS), elem_id="image-strip")
            strip_status = gr.HTML(**now["strip_status"], elem_id="image-strip-status", elem_classes="lab-status")
        explain("How one picture becomes another", "image")
    return Handles(
        tab, lead, ways, source, tests, column, shuffle, upload_text, upload, mask, centre, inside, target, strength,
        knobs, go, stop, player, status, result, back, compare, strip, strip_go, strip_status,
    )  # fmt: skip


def wire(shelf: Shelf, lab: Lab) -> None:
    tab = lab.image
    inputs = [lab.model, *tab.inputs]
    gr.on(
        [component.change for component in tab.inputs],
        shelf.on(look), inputs, [tab.inside, tab.strength, tab.go, tab.strip_go],
        queue=False, trigger_mode="always_last", api_name="_image_look", **QUIET,
    )  # fmt: skip
    gr.on(
        [tab.source.change, tab.centre.change],
        shelf.on(under), [lab.model, tab.source, tab.centre, tab.mask], tab.mask,
        queue=False, trigger_mode="always_last", api_name="_image_under", **QUIET,
    )  # fmt: skip
    one = tab.go.click(
        shelf.on(turn), inputs, [tab.player, tab.status, tab.result], api_name="_image_turn", **ENGINE, **QUIET
    )
    strip = tab.strip_go.click(
        shelf.on(climb), inputs, [tab.strip, tab.strip_status], api_name="_image_climb", **ENGINE, **QUIET
    )
    gr.on([tab.stop.click, lab.model.input], None, None, None, cancels=[one, strip], queue=False)

    def pick(studio: Studio, label: str, column: int) -> np.ndarray:
        return studio.example(label, column)

    def others(studio: Studio, column: int) -> tuple[int, dict[str, Any]]:
        column += 1
        # None of them is on the pad yet.
        return column, gr.update(**DigitPicker.showing(studio.kinds, None, thumbnails=studio.nth(column)))

    def read(studio: Studio, path: str | None, centre: bool) -> tuple[np.ndarray, None, Any]:
        if path is None:
            raise ValueError("Choose a picture file first.")
        return studio.taken(export.read_picture(path), as_is=not centre), None, gr.Tabs(selected="draw")

    tab.tests.input(
        shelf.on(pick), [lab.model, tab.tests, tab.column], tab.source, queue=False, api_name="_image_pick", **QUIET
    )
    tab.shuffle.click(
        shelf.on(others), [lab.model, tab.column], [tab.column, tab.tests], queue=False, api_name="_image_others",
        **QUIET,
    )  # fmt: skip
    # A drawing is no test image: with none selected, each can be picked again.
    tab.source.input(lambda: None, None, tab.tests, queue=False, api_name="_image_drawn", **QUIET)
    # Queued like all that may refuse: an error outside the queue reaches no visitor.
    tab.upload.upload(
        shelf.on(read), [lab.model, tab.upload, tab.centre], [tab.source, tab.tests, tab.ways],
        api_name="_image_read", **QUIET,
    )  # fmt: skip

    @polite
    def again(result: Result | None) -> tuple[Any, np.ndarray, None]:
        return gr.Tabs(selected="draw"), picked(result), None

    @polite
    def send(result: Result | None) -> tuple[Any, np.ndarray]:
        return gr.Tabs(selected="vae"), picked(result)

    tab.back.click(again, tab.result, [tab.ways, tab.source, tab.tests], api_name="_image_again", **QUIET)
    tab.compare.click(send, tab.result, [lab.tabs, lab.vae.first], api_name="_image_compare", **QUIET)
    tab.strip.input(
        lambda index: gr.skip() if index is None else STRENGTHS[index], tab.strip, tab.strength,
        queue=False, trigger_mode="always_last", api_name="_image_strength", **QUIET,
    )  # fmt: skip
