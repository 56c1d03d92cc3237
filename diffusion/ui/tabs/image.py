"""Image to image: a drawing, a photograph or a test picture becomes another, whole or in part."""

import base64
import html
import time
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from io import BytesIO
from typing import Any

import gradio as gr
import numpy as np
import torch
from PIL import Image

from diffusion import export
from diffusion.pipeline import Request
from diffusion.samplers import SAMPLERS, Step
from diffusion.ui import controls
from diffusion.ui.controls import ENGINE, Sampling, Shown, explain, sampling, sampling_shown
from diffusion.ui.errors import polite
from diffusion.ui.lab import Lab
from diffusion.ui.shelf import Shelf
from diffusion.ui.studio import Reading, Result, Studio, paced
from diffusion.ui.widgets import DigitGrid, DigitPicker, FramePlayer, Masked, MaskPad, SketchPad, film, frame, grid

COLUMN, STRENGTH, SEED = 9, 0.6, 6  # what the page opens with
STRENGTHS = (0.0, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)  # closer where a digit changes its class
EMPTY = "There is no picture yet: draw one, take a test image or upload a photo."
QUIET = {"api_visibility": "private", "show_progress": "hidden"}
INSIDE_CSS = """
.inside { display: grid; grid-template-columns: repeat(3, minmax(0, 1fr)); gap: 12px; }
figure { margin: 0; min-width: 0; }
img { display: block; width: 100%; aspect-ratio: 1; background: var(--lab-paper); image-rendering: pixelated;
  border-radius: var(--radius-md); box-shadow: 0 0 0 1px var(--lab-line); }
figcaption { margin-top: var(--spacing-sm); font-size: var(--text-xs); line-height: 1.4; }
figcaption span { display: block; color: var(--body-text-color-subdued); font-variant-numeric: tabular-nums; }
"""


@cache
def shown(studio: Studio) -> Shown:
    """What the tab opens with for a model, made when it was opened: a test picture that became something else."""
    first, classes = min(3, len(studio.kinds) - 1), studio.classes
    target = classes[min(8, len(classes) - 1)] if classes else ""
    picture = studio.examples[first, COLUMN]
    request = _request(studio, picture, None, True, target, STRENGTH, *studio.defaults.values(), SEED)
    began = time.monotonic()
    steps = list(studio.run(request))
    result = studio.result(request, steps[-1], time.monotonic() - began)
    eight = studio.finish(_eight(request))
    views, plan, promise, eight_promise = _look(studio, request, picture)
    noun = studio.noun
    doing = f"denoised as another {noun}" if classes else "denoised again"
    return {
        "lead": {"value": f"<p>Your {noun}, noised, then {doing}: more noise keeps less of yours.</p>"},
        "source": {"value": picture},
        "tests": DigitPicker.showing(studio.kinds, studio.kinds[first], thumbnails=studio.examples[:, COLUMN]),
        "column": {"value": COLUMN},
        "mask": {"value": picture},
        "centre": {"visible": noun == "digit"},
        "target": DigitPicker.showing(classes, target, thumbnails=studio.thumbnails, visible=bool(classes)),
        "strength": {"info": plan},
        **sampling_shown(studio),
        "go": {"value": promise},
        "inside": {"value": views},
        "player": {"value": _movie(studio, "opening", steps, result)},
        "status": {"value": _line(f"Made when the model was opened: {_account(studio, result)}")},
        "compare": {"visible": studio.latent},
        "strip": {"value": _ladder(eight)},
        "strip_go": {"value": eight_promise},
        "strip_status": {"value": _line(_strip_account(eight))},
        "result": {"value": result},
    }


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
                        gr.HTML(
                            f"<p>PNG, JPEG or WebP, up to {limits.upload} MB. A photo of a digit on paper will do: its "
                            "ink becomes white on black.</p>",
                            elem_classes="lab-note",
                        )
                        upload = gr.UploadButton(
                            "Choose a picture", file_types=[".png", ".jpg", ".jpeg", ".webp"], elem_id="image-upload"
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
                target = DigitPicker(**now["target"], label="Turn it into", elem_id="image-target", any="Anything")
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
                result = gr.State(now["result"]["value"], time_to_live=1800)
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
        tab, lead, ways, source, tests, column, shuffle, upload, mask, centre, inside, target, strength, knobs, go,
        stop, player, status, result, back, compare, strip, strip_go, strip_status,
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
        shelf.on(under), [lab.model, tab.source, tab.centre], tab.mask,
        queue=False, trigger_mode="always_last", api_name="_image_under", **QUIET,
    )  # fmt: skip
    one = tab.go.click(
        shelf.on(turn), inputs, [tab.player, tab.status, tab.result], api_name="_image_turn", **ENGINE, **QUIET
    )
    eight = tab.strip_go.click(
        shelf.on(climb), inputs, [tab.strip, tab.strip_status], api_name="_image_climb", **ENGINE, **QUIET
    )
    gr.on([tab.stop.click, lab.model.input], None, None, None, cancels=[one, eight], queue=False)

    def pick(studio: Studio, label: str, column: int) -> np.ndarray:
        return studio.examples[studio.kinds.index(label), column]

    def others(studio: Studio, column: int) -> tuple[int, dict[str, Any]]:
        column = (column + 1) % studio.examples.shape[1]
        # None of them is on the pad yet.
        return column, gr.update(**DigitPicker.showing(studio.kinds, None, thumbnails=studio.examples[:, column]))

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
        return gr.Tabs(selected="draw"), _picture(result), None

    @polite
    def send(result: Result | None) -> tuple[Any, np.ndarray]:
        return gr.Tabs(selected="vae"), _picture(result)

    tab.back.click(again, tab.result, [tab.ways, tab.source, tab.tests], api_name="_image_again", **QUIET)
    tab.compare.click(send, tab.result, [lab.tabs, lab.vae.first], api_name="_image_compare", **QUIET)
    tab.strip.input(
        lambda index: gr.skip() if index is None else STRENGTHS[index], tab.strip, tab.strength,
        queue=False, trigger_mode="always_last", api_name="_image_strength", **QUIET,
    )  # fmt: skip


def look(studio: Studio, *inputs: Any) -> tuple[Any, ...]:
    """Everything that follows from the picture and the settings, before any network call."""
    try:
        request = _request(studio, *inputs)
        views, plan, *promises = _look(studio, request, export.to_pictures(request.image[None])[0])
    except ValueError as error:
        return (_line(str(error)), *[gr.skip()] * 3)
    return (views, gr.update(info=plan), *promises)


def under(studio: Studio, sketch: np.ndarray | None, centre: bool) -> np.ndarray | None:
    """What the mask is painted on: the picture as the model gets it."""
    try:
        return None if sketch is None else seen(sketch, centre and studio.noun == "digit")
    except ValueError:  # said by `look`
        return sketch


def turn(studio: Studio, *inputs: Any) -> Iterator[tuple[Any, ...]]:
    """Turns the picture into the target and yields film, status and result."""
    request, run, began, taken = _request(studio, *inputs), uuid.uuid4().hex[:8], time.monotonic(), []
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
    yield _movie(studio, run, taken, result), _line(_account(studio, result)), result


def climb(studio: Studio, *inputs: Any) -> Iterator[tuple[Any, ...]]:
    """Does it at eight strengths at once and yields strip and status."""
    request, began = _eight(_request(studio, *inputs)), time.monotonic()
    running = studio.run(request)
    try:
        for step, due in paced(running):
            if due:
                live = grid(export.to_pictures(studio.pipeline.preview(step)[0]), done=False)
            yield (live if due else gr.skip(), gr.skip())
    finally:
        running.close()
    result = studio.result(request, step, time.monotonic() - began)
    yield _ladder(result), _line(_strip_account(result))


def seen(sketch: np.ndarray, centre: bool) -> np.ndarray:
    """What the model gets for a sketch, uint8 (28, 28): brought into MNIST's form unless it has that form already.

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


def _request(
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
    picture = seen(sketch, centre and studio.noun == "digit")
    painted = _over(masked, picture) and masked.mask.any()  # a mask belongs to the picture that it was painted on
    mask = torch.from_numpy(masked.mask)[None] if painted else None
    return controls.request(target, 1, *settings, image=export.to_image(picture), strength=strength, mask=mask)


def _over(masked: Masked | None, picture: np.ndarray) -> bool:
    """Whether the mask pad shows this picture."""
    return masked is not None and bool((masked.picture == picture).all())


def _eight(request: Request) -> Request:
    """The same request at eight strengths in one batch; one seed for all, so that only the strength differs."""
    count = len(STRENGTHS)
    return replace(request, count=count, seed=(request.seed,) * count, strength=STRENGTHS)


def _look(studio: Studio, request: Request, picture: np.ndarray) -> tuple[str, str, str, str]:
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
    name = request.prompts[0]
    doing = f"Turn it into {_a(name)}" if name else f"Make it another {studio.noun}"
    return (
        inside,
        _plan(request, sigma),
        f"{doing} · {_seconds(studio.seconds(request))}",
        f"Try eight strengths · {_seconds(studio.seconds(_eight(request)))}",
    )


def _plan(request: Request, sigma: str) -> str:
    run = request.steps_run(request.strength)
    if run == 0:
        plan = f"Runs 0 of {request.steps} steps: nothing is denoised."
    elif SAMPLERS[request.sampler].calls_per_step:
        plan = f"Runs {run} of {request.steps} steps, starts at {sigma}."
    else:
        plan = f"Starts at {sigma} and chooses its own steps."
    return plan if request.mask is None else f"{plan} Only {int(request.mask.sum())} painted pixels may change."


def _movie(studio: Studio, run: str, taken: Sequence[Step], result: Result) -> dict[str, Any]:
    """The run as a film: the noised start, the noisy state after each step, and the result in the end's place."""
    states = torch.cat([step.x for step in taken])
    sigmas = torch.stack([step.sigma.reshape(()) for step in taken])
    noisy, _ = studio.pipeline.preview(Step(0, sigmas, states, states, 0))
    pictures = np.concatenate([export.to_pictures(noisy)[:-1], result.pictures])
    captions = [*map(_caption, taken[:-1]), f"After {_steps(taken[-1].index)}: the result."]
    return film(run, {"Result": pictures}, captions=captions, ends=("noised", "result"))


def _caption(step: Step) -> str:
    what = "Your picture with noise added" if step.index == 0 else f"After {_steps(step.index)}"
    return f"{what}, σ = {float(step.sigma):.3g}."


def _ladder(result: Result) -> dict[str, Any]:
    """The eight pictures, each with its strength and steps, and a mark where the classifier reads the target."""
    request = result.request
    captions = [f"{s:g} · {_steps(request.steps_run(s))}" for s in request.strengths]
    marks = ["agree" if r.label == p else None for r, p in zip(result.readings, request.prompts, strict=True)]
    return grid(result.pictures, captions=captions, marks=marks)


def _account(studio: Studio, result: Result) -> str:
    request, reading = result.request, result.readings[0]
    kept = "" if request.mask is None else f" {int((request.mask == 0).sum())} pixels are yours, unchanged."
    return (
        f"{_calls(result.calls)}, {result.seconds:.1f} s. The classifier reads {reading.label}, "
        f"{reading.confidence:.0%}.{kept} Weights {studio.about}."
    )


def _strip_account(result: Result) -> str:
    labels = ", ".join(reading.label for reading in result.readings)
    return (
        f"One noise for all eight; only the strength differs. The classifier reads {labels}. "
        f"{_calls(result.calls)} for the whole batch, {result.seconds:.1f} s. Select one to take over its strength."
    )


def _picture(result: Result | None) -> np.ndarray:
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


def _line(text: str) -> str:
    return f'<p role="status">{html.escape(text)}</p>'


def _reads(reading: Reading) -> str:
    return f"reads {reading.label}, {reading.confidence:.0%}"


def _a(name: str) -> str:
    return f"{'an' if name[:1].lower() in tuple('8aeiou') else 'a'} {name}"


def _steps(count: int) -> str:
    return f"{count} step{'' if count == 1 else 's'}"


def _calls(count: int) -> str:
    return f"{count} network call{'' if count == 1 else 's'}"


def _seconds(seconds: float) -> str:
    return f"about {max(seconds, 0.1):.1f} s" if seconds < 10 else f"about {seconds:.0f} s"
