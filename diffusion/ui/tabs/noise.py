"""The Noise tab: what the forward process does to a picture, and the whole of diffusion on a line."""

import secrets
from dataclasses import dataclass
from typing import Any

import gradio as gr
import numpy as np

from diffusion.export import read_picture
from diffusion.toy import TARGETS
from diffusion.ui.controls import MAX_UI_SEED, Shown, explain
from diffusion.ui.errors import polite
from diffusion.ui.lab import Lab
from diffusion.ui.noising import LIMITS, POINTS, SCHEDULES, lesson, noised, tables
from diffusion.ui.shelf import Shelf
from diffusion.ui.studio import Studio
from diffusion.ui.widgets import DigitPicker, NoiseBench, NoiseCurves, SketchPad, WalkPlot

FIRST, COLUMN, SEED = 4, 2, 5  # the opening picture's class and number, and its noise
OPENING = "Cosine", 0.5
TARGET, STEPS, PATHS, STRENGTH, LINE_SEED = "Hills", 50, 40, 1.0, 4

LEAD = "<p>Every diffusion model learns to undo one thing: noise, mixed into a picture. Drag the slider.</p>"
QUIET = {"api_visibility": "private", "show_progress": "hidden"}


def shown(studio: Studio) -> Shown:
    """What the tab opens with for a model: one of its test images, with the noise that all of them get."""
    first = min(FIRST, len(studio.kinds) - 1)
    picture = studio.nth(COLUMN)[first]
    return {
        "tests": DigitPicker.showing(studio.kinds, studio.kinds[first], thumbnails=studio.nth(COLUMN)),
        "column": {"value": COLUMN},
        "sketch": SketchPad.showing(studio.shape, None),
        "picture": {"value": picture},
        "seed": {"value": SEED},
        "bench": {"value": noised(picture, SEED)},
    }


@dataclass(frozen=True)
class Handles:
    """The tab's components."""

    tab: gr.Tab
    tests: DigitPicker
    column: gr.State
    others: gr.Button
    sketch: SketchPad
    upload: gr.UploadButton
    renew: gr.Button
    picture: gr.State
    seed: gr.State
    bench: NoiseBench
    target: DigitPicker
    steps: gr.Slider
    paths: gr.Slider
    strength: gr.Slider
    again: gr.Button
    line_seed: gr.State
    plot: WalkPlot
    facts: gr.HTML

    shown = staticmethod(shown)

    @property
    def line(self) -> list[gr.components.Component]:
        """What `lesson` takes, in its order."""
        return [self.target, self.steps, self.paths, self.strength, self.line_seed]


def build(shelf: Shelf) -> Handles:
    """Draws the tab, with a test image of the default model's data."""
    now = shown(shelf.default)
    plotted, measured = lesson(TARGET, STEPS, PATHS, STRENGTH, LINE_SEED)
    with gr.Tab("Noise", id="noise", elem_id="noise-tab") as tab:
        gr.HTML(LEAD, elem_classes="lab-lead")
        picture, seed, column, line_seed = (
            gr.State(value) for value in (*(now[name]["value"] for name in ("picture", "seed", "column")), LINE_SEED)
        )
        with gr.Row(equal_height=False, elem_classes="lab-split"):
            with (
                gr.Column(scale=2, min_width=280),
                gr.Column(elem_classes=["lab-card", "lab-later"]),
            ):
                with gr.Tabs(selected="pick", elem_id="noise-ways"):
                    with gr.Tab("Pick", id="pick"):
                        tests = DigitPicker(**now["tests"], label="Real test images", elem_id="noise-tests")
                        others = gr.Button("Ten others", elem_id="noise-others", size="md")
                    with gr.Tab("Draw", id="draw"):
                        sketch = SketchPad(**now["sketch"], label="Your picture", elem_id="noise-sketch")
                    with gr.Tab("Upload", id="upload"):
                        gr.HTML(
                            f"<p>Any picture will do: PNG, JPEG or WebP, up to {shelf.limits.upload} MB. It is cut "
                            "to a square and made as small as the test images.</p>",
                            elem_classes="lab-note",
                        )
                        upload = gr.UploadButton(
                            "Choose a picture", file_types=[".png", ".jpg", ".jpeg", ".webp"], elem_id="noise-upload"
                        )
                renew = gr.Button("New noise", variant="primary", elem_id="noise-renew")
            with gr.Column(scale=5, min_width=290, elem_classes="lab-card"):
                bench = NoiseBench(
                    **now["bench"], label="A picture and its noise", paths=tables(),
                    opening=(list(SCHEDULES).index(OPENING[0]), OPENING[1]), elem_id="noise-bench",
                )  # fmt: skip
        gr.HTML(
            "<h2>Six schedules, one family</h2><p>A schedule says when there is how much noise, and nothing else. "
            "Choose another one above, with the noise level kept: the picture stays, its time changes.</p>",
            elem_classes="lab-lead",
        )
        with gr.Column(elem_classes="lab-card"):
            NoiseCurves(elem_id="noise-curves")
        gr.HTML(
            "<h2>There and back, on a line</h2><p>Pictures with one pixel: here the denoiser is a formula, so the "
            "paths back are exact but for the size of their steps. Take fewer steps and watch the distance grow.</p>",
            elem_classes="lab-lead",
        )
        with gr.Row(equal_height=False, elem_classes="lab-split"):
            with gr.Column(scale=2, min_width=280), gr.Column(elem_classes=["lab-card", "lab-later"]):
                target = DigitPicker(list(TARGETS), TARGET, label="Data", elem_id="noise-target")
                steps, paths, strength = (
                    gr.Slider(*LIMITS[name], value, step=step, label=label, info=info, elem_id=f"noise-{name}")
                    for name, value, step, label, info in (
                        ("steps", STEPS, 1, "Steps", "Even in time."),
                        ("paths", PATHS, 1, "Paths", f"Of {POINTS} simulated."),
                        ("strength", STRENGTH, 0.1, "Noise strength λ", "Of the way back."),
                    )
                )
                gr.HTML(
                    "<p>0 is the probability-flow ODE, 1 the reverse SDE. What more noise spreads, the score draws "
                    "together: it counts (1 + λ²) / 2 times, so that every λ passes through the same "
                    "distributions.</p>",
                    elem_classes="lab-note",
                )
                again = gr.Button("Other paths", elem_id="noise-again")
            with gr.Column(scale=5, min_width=290, elem_classes="lab-card"):
                plot = WalkPlot(plotted, label="Diffusion on a line", elem_id="noise-plot")
                facts = gr.HTML(measured, elem_classes="lab-facts", elem_id="noise-facts")
                gr.HTML(
                    "<p>The Wasserstein-1 distance: how far points must move, on average, to lie as the data does. "
                    "What true draws come to is chance; what lies above it comes from the steps.</p>",
                    elem_classes="lab-note",
                )
        explain("How noise is added, and how it is taken away", "noise")
    return Handles(
        tab, tests, column, others, sketch, upload, renew, picture, seed, bench,
        target, steps, paths, strength, again, line_seed, plot, facts,
    )  # fmt: skip


def wire(shelf: Shelf, lab: Lab) -> None:
    own = lab.noise

    @shelf.on
    def pick(studio: Studio, label: str, column: int, seed: int) -> tuple[np.ndarray, dict[str, Any]]:
        picture = studio.example(label, column)
        return picture, noised(picture, seed)

    @shelf.on
    def others(studio: Studio, column: int) -> tuple[int, dict[str, Any]]:
        column += 1
        update = DigitPicker.showing(studio.kinds, None, thumbnails=studio.nth(column))
        return column, gr.update(**update)  # none of them is on the bench yet

    @polite
    def drawn(sketch: np.ndarray | None, seed: int) -> tuple[Any, ...]:
        return (gr.skip(), gr.skip(), gr.skip()) if sketch is None else (sketch, noised(sketch, seed), None)

    @shelf.on
    def uploaded(studio: Studio, path: str | None, seed: int) -> tuple[np.ndarray, dict[str, Any], None]:
        if path is None:
            raise ValueError("Choose a picture file first.")
        picture = studio.taken(read_picture(path), as_is=True)
        return picture, noised(picture, seed), None

    def renewed(picture: np.ndarray) -> tuple[int, dict[str, Any]]:
        seed = secrets.randbelow(MAX_UI_SEED)
        return seed, noised(picture, seed)

    last = {"trigger_mode": "always_last", **QUIET}
    own.tests.input(
        pick, [lab.model, own.tests, own.column, own.seed], [own.picture, own.bench], api_name="_noise_pick", **last
    )
    own.others.click(others, [lab.model, own.column], [own.column, own.tests], api_name="_noise_others", **last)
    own_picture = [own.picture, own.bench, own.tests]
    own.sketch.input(drawn, [own.sketch, own.seed], own_picture, api_name="_noise_drawn", **last)
    own.upload.upload(uploaded, [lab.model, own.upload, own.seed], own_picture, api_name="_noise_upload", **QUIET)
    own.renew.click(renewed, own.picture, [own.seed, own.bench], api_name="_noise_renew", **last)

    gr.on(
        [own.target.input, own.steps.change, own.paths.change, own.strength.change, own.line_seed.change],
        polite(lesson), own.line, [own.plot, own.facts], api_name="_noise_line", **last,
    )  # fmt: skip
    own.again.click(lambda: secrets.randbelow(MAX_UI_SEED), None, own.line_seed, api_name="_noise_again", **last)
