"""The app's own components in a real browser, on a small app made of nothing else."""

import re
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
import torch
from axe_playwright_python.sync_playwright import Axe
from pixels import drag, rgb
from playwright.sync_api import Locator, Page, expect

from diffusion.captions import COLOURS, Description
from diffusion.data import load
from diffusion.export import to_pictures
from diffusion.painting import Painter
from diffusion.ui.theme import CSS, studio_theme
from diffusion.ui.widgets import (
    DigitGrid,
    DigitPicker,
    FramePlayer,
    MaskPad,
    SketchPad,
    film,
    frame,
    grid,
    tile,
)

STEPS = 12
WCAG = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}


def strokes(digit: int, level: int = 255) -> np.ndarray:
    """A picture that is told apart from its neighbours: a ring whose opening turns with the digit."""
    y, x = np.mgrid[:28, :28] - 13.5
    ring = np.abs(np.hypot(x, y) - 8) < 2
    opening = np.abs((np.arctan2(y, x) - digit * 0.628 + np.pi) % (2 * np.pi) - np.pi) < 0.4
    return (level * (ring & ~opening)).astype(np.uint8)


@cache
def painted() -> tuple[np.ndarray, np.ndarray]:
    """A thick red digit on white paper, uint8 (32, 32, 3), and how much of each pixel is ink."""
    digits = load("mnist", "test", Path(__file__).parents[1] / "data", download=False)
    description = Description(str(digits.labels[0].item()), "red", "white", "thick", "upright", "large", "middle")
    painter = Painter(digits.images[:1], digits.labels[:1])
    images = painter.paint(torch.arange(1), [description], torch.Generator().manual_seed(1))
    picture = to_pictures(images)[0]
    away = picture - picture[0, 0].astype(float)
    ink = away.reshape(-1, 3)[np.linalg.norm(away, axis=-1).argmax()]
    return picture, (away @ ink / (ink @ ink)).clip(0, 1).round(3)


def path(digit: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Noise levels, noisy states and predictions of a make-believe run: 12 frames of 28 x 28."""
    rng = np.random.default_rng(digit)
    sigma = np.append(np.geomspace(80, 0.02, STEPS - 1), 0.0)
    clean = strokes(digit).astype(float)
    noise = rng.normal(128, 70, clean.shape)
    share = (sigma / np.hypot(1, sigma))[:, None, None]
    noisy = np.clip((1 - share) * clean + share * noise, 0, 255).astype(np.uint8)
    return sigma, noisy, np.clip((1 - share**4) * clean, 0, 255).astype(np.uint8)


def reel(digit: int, run: str) -> dict:
    """The finished film of that run."""
    sigma, noisy, predicted = path(digit)
    snr = [np.inf if s == 0 else 1 / s**2 for s in sigma]
    return film(
        run,
        {"Noisy state": noisy, "Predicted image": predicted},
        curves={"Noise level σ": sigma, "Signal to noise 1/σ²": snr},
        captions=[f"The network is told how noisy the picture is (σ = {s:.3g})." for s in sigma],
        formulas=[f"x = x₀ + σ·ε = x₀ + {s:.3g} · ε" for s in sigma],
        ends=("noise", "picture"),
    )


def stream(digit: str) -> Iterator[dict]:
    """That run frame by frame, then as a film."""
    sigma, noisy, predicted = path(int(digit))
    for i in range(STEPS):
        time.sleep(0.04)
        panes = {"Noisy state": noisy[i], "Predicted image": predicted[i]}
        yield frame("live", i, panes, total=STEPS, caption=f"Working at σ = {sigma[i]:.3g}.")
    yield reel(int(digit), "live")


def judged(count: int) -> dict:
    """A finished grid in which the judge is not always of one mind."""
    marks = ["doubt" if k % 11 == 4 else "differ" if k % 17 == 9 else "agree" for k in range(count)]
    captions = [f"{k % 10} · {52 if mark == 'doubt' else 99} %" for k, mark in enumerate(marks)]
    return grid(np.stack([strokes(k) for k in range(count)]), captions=captions, marks=marks)


def sample(count: str) -> Iterator[dict]:
    """That grid, drawn twice before it is done."""
    for level in (90, 170):
        time.sleep(0.1)
        yield grid(np.stack([strokes(k, level) for k in range(int(count))]), done=False)
    yield judged(int(count))


def build() -> gr.Blocks:
    """Every widget once, with what Python makes of its value beside it."""
    quiet = {"api_visibility": "private", "show_progress": "hidden", "trigger_mode": "always_last"}
    with gr.Blocks(title="Widgets") as demo:
        gr.HTML("<h1>Widgets</h1><p>Every component of the app on one page.</p>", elem_classes="lab-hero")
        with gr.Row():
            with gr.Column(min_width=280, elem_classes="lab-card"):
                pick = DigitPicker(map(str, range(10)), "3", elem_id="pick", any="Any")
                picked = gr.Textbox(label="Picked", elem_id="picked", interactive=False)
                gr.Slider(1, 100, 20, step=1, label="Steps", interactive=True)
                with gr.Row(elem_classes="lab-actions"):
                    run = gr.Button("Denoise", variant="primary", elem_id="run", min_width=100)
                    swap = gr.Button("Use clothes", elem_id="swap", min_width=100)
            with gr.Column(min_width=280, elem_classes="lab-card"):
                player = FramePlayer(label="Denoising", panes=("Noisy state", "Predicted image"), elem_id="player")
        with gr.Row():
            with gr.Column(min_width=280, elem_classes="lab-card"):
                cells = DigitGrid(judged(16), label="Digits", elem_id="cells")
                chosen = gr.Textbox(label="Chosen", elem_id="chosen", interactive=False)
                with gr.Row(elem_classes="lab-actions"):
                    many = gr.Button("64", elem_id="many", min_width=60)
                    few = gr.Button("10", elem_id="few", min_width=60)
            with gr.Column(min_width=280, elem_classes="lab-card"):
                pad = SketchPad(label="Sketch", elem_id="pad")
                drawn = gr.Textbox(label="Drawn", elem_id="drawn", interactive=False)
                load = gr.Button("Load a picture", elem_id="load")
            with gr.Column(min_width=280, elem_classes="lab-card"):
                mask = MaskPad(label="Paint what to change", elem_id="mask")
                masked = gr.Textbox(label="Masked", elem_id="masked", interactive=False)
                send = gr.Button("Send the picture here", elem_id="send")
        with gr.Row():
            with gr.Column(min_width=280, elem_classes="lab-card"):
                paints = SketchPad(shape=(32, 32, 3), label="Painting", elem_id="paints")
                seen = gr.Textbox(label="Seen", elem_id="seen", interactive=False)
                with gr.Row(elem_classes="lab-actions"):
                    digit = gr.Button("A painted digit", elem_id="digit", min_width=100)
                    grey = gr.Button("In grey", elem_id="grey", min_width=100)
                    colour = gr.Button("In colour", elem_id="colour", min_width=100)
            with gr.Column(min_width=280, elem_classes="lab-card"):
                parts = MaskPad(label="Paint a part", elem_id="parts")
                part = gr.Textbox(label="Part", elem_id="part", interactive=False)
                lay = gr.Button("Lay the painting here", elem_id="lay")
        with gr.Column(elem_classes="lab-card"):
            walk = FramePlayer(
                film("walk", {"Walk": np.stack([strokes(0, 20 * k) for k in range(12)])}, ends=("3", "8"), start=0),
                label="Walk", step="Point", loop=True, autoplay=True, elem_id="walk",
            )  # fmt: skip
            at = gr.Textbox(label="Frame", elem_id="at", interactive=False)
            where = gr.Button("Which frame?", elem_id="where")

        pick.input(repr, pick, picked, **quiet)
        run.click(stream, pick, player, **quiet)
        swap.click(
            lambda: gr.update(
            **DigitPicker.showing(["coat", "<b>bag</b>"], "coat", thumbnails=[strokes(1), strokes(2)], label="Clothes")
        ),
            None, pick, **quiet,
        )  # fmt: skip
        cells.input(repr, cells, chosen, **quiet)
        many.click(lambda: list(sample("64"))[-1], None, cells, **quiet)
        few.click(lambda: (yield from sample("10")), None, cells, **quiet)
        pad.input(lambda x: "empty" if x is None else f"{(x > 127).sum()} {x[14, 14]}", pad, drawn, **quiet)
        load.click(lambda: strokes(3), None, pad, **quiet)
        mask.input(lambda m: f"{m.mask.sum()} of {m.picture.sum()}", mask, masked, **quiet)
        send.click(lambda x: x, pad, mask, **quiet)
        where.click(repr, walk, at, **quiet)
        paints.input(
            lambda x: "empty" if x is None else f"{'x'.join(map(str, x.shape))} {x[16, 16]} {x[0, 0]}", paints, seen,
            **quiet,
        )  # fmt: skip
        digit.click(lambda: painted()[0], None, paints, **quiet)
        for button, shape in ((grey, (28, 28)), (colour, (32, 32, 3))):
            button.click(lambda shape=shape: gr.update(**SketchPad.showing(shape, None)), None, paints, **quiet)
        lay.click(lambda x: x, paints, parts, **quiet)
        parts.input(lambda m: f"{m.mask.sum()} of {m.picture.sum()}", parts, part, **quiet)
    return demo


@pytest.fixture(scope="session")
def address(serve: Callable[..., str]) -> str:
    """The small app, running."""
    return serve(build(), theme=studio_theme(), css_paths=[CSS], footer_links=["settings"], run_history=False)


@pytest.fixture
def app(page: Page, address: str, errors: list[str]) -> Page:
    """The small app in a fresh page, for a visitor who wants no motion unasked."""
    page.emulate_media(reduced_motion="reduce")
    page.goto(f"{address}/?__theme=light")
    expect(page.locator("#cells .cell")).to_have_count(16)
    return page


def pixels(canvas: Locator) -> list[int]:
    """The red channel of what a canvas shows."""
    script = "c => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data].filter((_, k) => k % 4 === 0)"
    return canvas.evaluate(script)


def play(app: Page) -> None:
    """A run from start to finish."""
    app.locator("#run").click()
    expect(app.locator("#player [data-done='1']")).to_have_attribute("data-frames", str(STEPS))


def test_player_streams_then_scrubs_without_the_server(
    app: Page, still: Callable[[], None], posts: Callable[[], list[str]]
) -> None:
    play(app)
    player, scrub = app.locator("#player"), app.locator("#player").get_by_role("slider")
    expect(player.locator(".position")).to_have_text("12 / 12")
    expect(player.locator(".caption")).to_contain_text("σ = 0)")
    still()
    requests = posts()
    _, noisy, predicted = path(3)
    canvases = player.locator("canvas")
    scrub.press("Home")
    expect(player.locator(".position")).to_have_text("1 / 12")
    expect(player.locator(".formula")).to_have_text("x = x₀ + σ·ε = x₀ + 80 · ε")
    assert pixels(canvases.nth(0)) == noisy[0].ravel().tolist()
    for _ in range(5):
        scrub.press("ArrowRight")
    assert pixels(canvases.nth(0)) == noisy[5].ravel().tolist()
    assert pixels(canvases.nth(1)) == predicted[5].ravel().tolist()
    expect(scrub).to_have_attribute("aria-valuetext", "Step 6 of 12")
    plot = player.locator("svg[role=img]")
    box = plot.bounding_box()
    plot.click(position={"x": box["width"] - 12, "y": 40})
    expect(player.locator(".position")).to_have_text("12 / 12")
    expect(player.locator(".curves b")).to_have_text(["0", "∞"])
    app.wait_for_timeout(300)
    assert requests == []


def test_player_plays_pauses_and_tells_its_frame(app: Page) -> None:
    walk = app.locator("#walk")
    expect(walk.locator(".position")).to_have_text("1 / 12")
    expect(walk.locator(".ends span")).to_have_text(["3", "8"])
    walk.get_by_role("combobox").select_option("2")
    walk.get_by_role("button", name="Play").press("Space")
    expect(walk.locator(".position")).not_to_have_text("1 / 12")
    walk.get_by_role("button", name="Pause").click()
    shown = walk.locator(".position").inner_text()
    app.wait_for_timeout(300)
    expect(walk.locator(".position")).to_have_text(shown)
    app.locator("#where").click()
    expect(app.get_by_label("Frame", exact=True)).to_have_value(str(int(shown.split()[0]) - 1))


def test_player_starts_by_itself_only_where_motion_is_welcome(app: Page, address: str) -> None:
    app.wait_for_timeout(400)
    expect(app.locator("#walk .position")).to_have_text("1 / 12")
    app.emulate_media(reduced_motion="no-preference")
    app.goto(address)
    expect(app.locator("#walk").get_by_role("button", name="Pause")).to_be_visible()
    expect(app.locator("#walk .position")).not_to_have_text("1 / 12")


def test_grid_draws_then_selects(app: Page) -> None:
    cells, chosen = app.locator("#cells .cell"), app.get_by_label("Chosen", exact=True)
    assert pixels(cells.nth(5).locator("canvas")) == strokes(5).ravel().tolist()
    cells.nth(2).click()
    expect(chosen).to_have_value("2")
    app.keyboard.press("ArrowRight")
    app.keyboard.press("ArrowDown")
    app.keyboard.press("Enter")
    expect(chosen).to_have_value("7")
    selected = app.locator("#cells").get_by_role("option", selected=True)
    expect(selected).to_have_accessible_name("Picture 8, 7 · 99 %, what was asked for")
    assert app.locator("#cells .cell[tabindex='0']").count() == 1
    app.keyboard.press("Enter")
    expect(chosen).to_have_value("None")
    app.locator("#few").click()
    expect(cells).to_have_count(10)
    expect(app.locator("#cells [data-done='1']")).to_be_visible()
    app.locator("#many").click()
    expect(cells).to_have_count(64)


def test_sketch_by_mouse_and_keyboard(app: Page) -> None:
    pad, drawn = app.locator("#pad .ink"), app.get_by_label("Drawn", exact=True)
    pad.scroll_into_view_if_needed()
    box = pad.bounding_box()
    middle = (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    app.mouse.move(middle[0], middle[1] - box["height"] / 4)
    app.mouse.down()
    app.mouse.move(middle[0], middle[1] + box["height"] / 4, steps=4)
    app.mouse.up()
    expect(drawn).to_have_value(re.compile(r"^[3-9]\d 255$"))
    app.locator("#pad .undo").click()
    expect(drawn).to_have_value("empty")
    pad.focus()
    for key in ("Space", "Shift+ArrowRight", "Shift+ArrowRight", "ArrowDown"):
        app.keyboard.press(key)
    expect(drawn).to_have_value(re.compile(r"^\d+ \d+$"))
    app.keyboard.press("Control+z")
    app.locator("#pad .clear").click()
    expect(drawn).to_have_value("empty")
    app.locator("#load").click()
    expect(app.locator("#pad [data-painted]")).to_have_attribute("data-painted", str((strokes(3) > 127).sum()))
    assert pixels(pad) == strokes(3).ravel().tolist()


def test_mask_over_a_picture_that_another_widget_sent(app: Page) -> None:
    mask = app.locator("#mask")
    expect(mask.locator(".hint")).to_have_text("No picture yet")
    app.locator("#load").click()
    expect(app.locator("#pad [data-painted]")).not_to_have_attribute("data-painted", "0")
    app.locator("#send").click()
    expect(mask.locator(".hint")).to_have_text("Paint over the part to change")
    assert pixels(mask.locator(".picture")) == strokes(3).ravel().tolist()
    mask.get_by_label("Broad").check(force=True)
    mask.locator(".ink").click()
    expect(app.get_by_label("Masked", exact=True)).to_have_value(f"80 of {strokes(3).sum()}")
    mask.get_by_role("button", name="Erase").click()
    mask.locator(".ink").click()
    expect(app.get_by_label("Masked", exact=True)).to_have_value(f"0 of {strokes(3).sum()}")


MIDDLE = 0.5  # between pixels 15 and 16 of 32: a line there covers both, and part of their neighbours


def test_colours_are_mixed_into_what_is_below(app: Page) -> None:
    paints, pad, seen = app.locator("#paints"), app.locator("#paints .ink"), app.get_by_label("Seen", exact=True)
    names = paints.get_by_role("group", name="Colour").get_by_role("radio")
    assert [name.inner_text() for name in paints.locator(".palette b").all()] == list(COLOURS)
    expect(names).to_have_count(len(COLOURS))
    white, red, blue, yellow = (np.array(COLOURS[name]) for name in ("white", "red", "blue", "yellow"))
    assert (rgb(pad) == white).all() and rgb(pad).shape == (32, 32, 3)
    paints.get_by_role("radio", name="red").check(force=True)
    drag(app, pad, (0.2, MIDDLE), (0.8, MIDDLE))
    expect(seen).to_have_value(f"32x32x3 {red} {white}")
    line = rgb(pad)
    assert (line[15:17, 8:24] == red).all() and (line[:12] == white).all()
    edge = (line[12:20, 16].astype(float) - white) / (red - white)  # one share for all three channels
    assert np.ptp(edge, axis=1).max() < 0.02 and (np.abs(edge[[2, 5]] - 0.43) < 0.1).all()
    drag(app, pad, (0.2, MIDDLE), (0.8, MIDDLE))  # the same pen over its own line adds nothing
    assert (rgb(pad) == line).all()
    paints.get_by_role("radio", name="blue").check(force=True)
    drag(app, pad, (MIDDLE, 0.2), (MIDDLE, 0.8))
    expect(seen).to_have_value(f"32x32x3 {blue} {white}")
    cross = rgb(pad)
    across = (cross[16, 14].astype(float) - red) / (blue - red)  # here the soft edge lies on red
    assert np.ptp(across) < 0.02 and 0.05 < across.mean() < 0.95
    paints.get_by_role("radio", name="yellow").check(force=True)
    paints.get_by_role("button", name="Paper in this colour").click()
    expect(seen).to_have_value(f"32x32x3 {blue} {yellow}")
    filled = rgb(pad)
    assert (filled[:10, :10] == yellow).all() and (filled[15:17, 8:13] == red).all()
    turned = (filled[12:20, 10].astype(float) - yellow) / (red - yellow)
    share = (cross[12:20, 10].astype(float) - white) / (red - white)
    assert np.abs(turned - share)[:, 1:].max() < 0.03  # as much of each edge is red as was
    paints.get_by_role("button", name="Erase").click()
    drag(app, pad, (MIDDLE, MIDDLE), (MIDDLE, MIDDLE))
    expect(seen).to_have_value(f"32x32x3 {yellow} {yellow}")
    for before in (filled, cross, line):
        paints.get_by_role("button", name="Undo").click()
        assert (rgb(pad) == before).all()
        if before is cross:
            expect(seen).to_have_value(f"32x32x3 {blue} {white}")
    paints.get_by_role("button", name="Clear").click()
    expect(seen).to_have_value("empty")
    assert (rgb(pad) == white).all()


def test_who_takes_a_colour_draws_again(app: Page) -> None:
    paints, pad, seen = app.locator("#paints"), app.locator("#paints .ink"), app.get_by_label("Seen", exact=True)
    erase = paints.get_by_role("button", name="Erase")
    erase.click()
    expect(erase).to_have_attribute("aria-pressed", "true")
    paints.get_by_role("radio", name="black").focus()
    app.keyboard.press("ArrowRight")
    app.keyboard.press("ArrowRight")
    expect(paints.get_by_role("radio", name="red")).to_be_checked()
    expect(erase).to_have_attribute("aria-pressed", "false")
    pad.focus()
    for key in ("Space", "Shift+ArrowRight", "Shift+ArrowRight"):
        app.keyboard.press(key)
    expect(seen).to_have_value(f"32x32x3 {np.array(COLOURS['red'])} {np.array(COLOURS['white'])}")
    app.keyboard.press("Control+z")
    app.keyboard.press("Control+z")
    app.keyboard.press("Control+z")
    expect(seen).to_have_value("empty")


def test_paper_of_a_picture_that_came_from_elsewhere_is_changed_around_its_ink(app: Page) -> None:
    paints, pad = app.locator("#paints"), app.locator("#paints .ink")
    picture, cover = painted()
    app.locator("#digit").click()
    expect(paints.locator("[data-painted]")).to_have_attribute("data-painted", re.compile("^[1-9]"))
    assert (rgb(pad) == picture).all()
    paints.get_by_role("radio", name="green").check(force=True)
    paints.locator(".fill").click()
    filled, green = rgb(pad).astype(float), np.array(COLOURS["green"])
    assert (
        np.abs(filled[cover == 0] - green).max() <= 3 and np.abs(filled[cover == 1] - picture[cover == 1]).max() <= 12
    )
    soft = (cover > 0.1) & (cover < 0.9)
    ink, white = picture[cover == 1].mean(0), picture[cover == 0].mean(0)
    mixed = green + cover[soft][:, None] * (ink - green)
    assert soft.sum() > 20 and np.abs(filled[soft] - mixed).mean() < 8 < np.abs(white - green).mean()
    paints.locator(".undo").click()
    assert (rgb(pad) == picture).all()


def test_a_pad_follows_another_model(app: Page) -> None:
    """Blank, it takes the new shape; a picture brings its own."""
    paints, pad, seen = app.locator("#paints"), app.locator("#paints .ink"), app.get_by_label("Seen", exact=True)
    app.locator("#digit").click()
    expect(paints.locator("[data-painted]")).to_have_attribute("data-painted", re.compile("^[1-9]"))
    app.locator("#grey").click()
    expect(paints.locator(".palette")).to_be_hidden()
    expect(paints.locator(".fill")).to_be_hidden()
    assert (rgb(pad) == np.zeros((28, 28, 3))).all()
    expect(paints.locator(".undo")).to_be_disabled()
    drag(app, pad, (0.2, 0.518), (0.8, 0.518))
    expect(seen).to_have_value(re.compile(r"^28x28 \d+ 0$"))
    app.locator("#colour").click()
    expect(paints.locator(".palette")).to_be_visible()
    assert rgb(pad).shape == (32, 32, 3) and (rgb(pad) == COLOURS["white"]).all()
    app.locator("#grey").click()
    expect(paints.locator(".palette")).to_be_hidden()
    app.locator("#digit").click()
    expect(paints.locator(".palette")).to_be_visible()
    assert (rgb(pad) == painted()[0]).all()
    paints.locator(".clear").click()
    expect(seen).to_have_value("empty")


def test_paper_and_ink_are_masked_in_one_go(app: Page) -> None:
    parts, mask, told = app.locator("#parts"), app.locator("#parts .ink"), app.get_by_label("Part", exact=True)
    expect(parts.get_by_role("button", name="All paper")).to_be_disabled()
    picture, cover = painted()

    def masked() -> np.ndarray:
        opaque = "c => [...c.getContext('2d').getImageData(0, 0, 32, 32).data].filter((_, k) => k % 4 === 3)"
        return np.array(mask.evaluate(opaque)).reshape(32, 32) > 0

    app.locator("#digit").click()
    expect(app.locator("#paints [data-painted]")).to_have_attribute("data-painted", re.compile("^[1-9]"))
    app.locator("#lay").click()
    expect(parts.locator(".hint")).to_have_text("Paint over the part to change")
    parts.get_by_role("button", name="All paper").click()
    expect(told).to_have_value(re.compile(f"^[1-9]\\d+ of {picture.sum()}$"))
    paper = masked()
    parts.get_by_role("button", name="All ink").click()
    expect(told).not_to_have_value(f"{paper.sum()} of {picture.sum()}")
    ink = masked()
    assert paper[cover < 0.65].all() and not paper[cover > 0.85].any()
    assert ink[cover > 0.35].all() and not ink[cover < 0.15].any()
    assert (paper | ink).all() and 0 < (paper & ink).sum() < 150  # soft edges belong to both
    parts.locator(".undo").click()
    assert (masked() == paper).all()
    parts.locator(".clear").click()
    expect(told).to_have_value(f"0 of {picture.sum()}")


def test_grey_pictures_have_paper_and_ink_too(app: Page) -> None:
    app.locator("#load").click()
    expect(app.locator("#pad [data-painted]")).not_to_have_attribute("data-painted", "0")
    app.locator("#send").click()
    masked = app.get_by_label("Masked", exact=True)
    app.locator("#mask").get_by_role("button", name="All ink").click()
    expect(masked).to_have_value(f"{(strokes(3) > 0).sum()} of {strokes(3).sum()}")
    app.locator("#mask").get_by_role("button", name="All paper").click()
    expect(masked).to_have_value(f"{(strokes(3) == 0).sum()} of {strokes(3).sum()}")


def test_picker_is_one_radio_group(app: Page) -> None:
    picked = app.get_by_label("Picked", exact=True)
    group = app.get_by_role("group", name="Digit")
    group.get_by_role("radio", name="3").focus()
    app.keyboard.press("ArrowRight")
    app.keyboard.press("ArrowRight")
    expect(picked).to_have_value("'5'")
    group.get_by_role("radio", name="Any").check(force=True)
    expect(picked).to_have_value("''")
    app.locator("#swap").click()
    clothes = app.get_by_role("group", name="Clothes").get_by_role("radio")
    expect(clothes).to_have_count(3)
    clothes.nth(2).check(force=True)
    expect(picked).to_have_value("'<b>bag</b>'")
    assert app.locator("#pick b").count() == 0


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_accessible_at_every_width_in_both_themes(page: Page, address: str, errors: list[str], theme: str, width: int):
    page.set_viewport_size({"width": width, "height": 900})
    page.emulate_media(reduced_motion="reduce")
    page.goto(f"{address}/?__theme={theme}")
    expect(page.locator("#cells .cell")).to_have_count(16)
    play(page)
    page.locator("#load").click()
    expect(page.locator("#pad [data-painted]")).not_to_have_attribute("data-painted", "0")
    page.locator("#send").click()
    expect(page.locator("#mask [data-idle='0']")).to_be_visible()
    page.locator("#mask .ink").click()
    page.locator("#digit").click()
    expect(page.locator("#paints [data-painted]")).not_to_have_attribute("data-painted", "0")
    page.locator("#lay").click()
    expect(page.locator("#parts [data-idle='0']")).to_be_visible()
    page.locator("#parts").get_by_role("button", name="All paper").click()
    page.locator("#many").click()
    expect(page.locator("#cells .cell")).to_have_count(64)
    page.locator("#cells .cell").nth(4).click()
    page.wait_for_timeout(300)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    results = Axe().run(page, context={"exclude": [["footer"]]}, options=WCAG)  # the footer is Gradio's own
    assert results.violations_count == 0, results.generate_report()


def test_payloads_say_what_does_not_fit() -> None:
    black = np.zeros((2, 28, 28), np.uint8)
    with pytest.raises(ValueError, match="2 frames needs 2 entries in captions; got 1"):
        film("r", {"A": black}, captions=["one"])
    with pytest.raises(ValueError, match="must be uint8"):
        frame("r", 0, {"A": black[0].astype(float)})
    with pytest.raises(ValueError, match="1 to 64 pictures; got 65"):
        grid(np.zeros((65, 28, 28), np.uint8))
    assert tile(np.stack([strokes(k) for k in range(5)])).shape == (57, 86)


@pytest.mark.parametrize(
    ("widget", "payload", "message"),
    [
        (SketchPad(), {"w": 28, "h": 28, "px": "AAAA"}, "A sketch must be 28 x 28 bytes"),
        (SketchPad(), 7, "A sketch must have sides w and h"),
        (MaskPad(), {"px": "?"}, "The picture must have sides w and h"),
        (DigitGrid(), {"selected": 64}, "number from 0 to 63"),
        (FramePlayer(), {"shown": -1}, "by its number"),
        (DigitPicker("01"), 2, "Digit must be text of at most 1000 characters"),
    ],
)
def test_values_from_the_browser_are_checked(widget: gr.HTML, payload: object, message: str) -> None:
    with pytest.raises(gr.Error, match=message):
        widget.preprocess(payload)
