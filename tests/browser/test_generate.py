"""The Generate tab, used as visitors and other people's links and files use it."""

import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from pixels import becomes
from playwright.sync_api import Page, expect

from diffusion import export
from diffusion.request import Request
from diffusion.ui.studio import Studio

WCAG = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
SMALL = {"digit": "7", "negative": "", "count": 4, "sampler": "dpmpp_2m", "steps": 6, "guidance": 2.0, "seed": 1}


@pytest.fixture
def tab(page: Page, app_url: str, errors: list[str]) -> Page:
    """The app in a fresh page."""
    answered: list[str] = []
    for event in ("requestfinished", "requestfailed"):  # the stream of answers ends with the last; either side ends it
        page.on(event, lambda request: answered.append(request.url) if "/queue/data" in request.url else None)
    page.goto(f"{app_url}/?__theme=light")
    while not answered:
        page.wait_for_timeout(50)
    expect(page.locator("#generate-grid [data-done='1'] .cell")).to_have_count(20)
    return page


def request(**changes: Any) -> Request:
    """What the settings SMALL with some changes ask for."""
    settings = {**SMALL, **changes}
    return Request(prompt=settings.pop("digit"), **settings)


def choose(page: Page, **settings: Any) -> None:
    """Moves the controls, each as a visitor would."""
    for name, value in settings.items():
        control = page.locator(f"#generate-{'picker' if name == 'digit' else name}")
        if name == "digit":
            control.get_by_role("radio", name=value, exact=True).check(force=True)
        elif name in ("negative", "sampler"):
            control.get_by_role("combobox").click()
            page.get_by_role("option", name=value, exact=True).click()
        else:
            control.locator("input[type=number]").fill(str(value))
            page.keyboard.press("Tab")
    expect(page.locator("#generate-go")).to_contain_text(re.compile(r"Make \d+ digits? · "))


def make(page: Page) -> None:
    """Presses the primary button and waits for the result."""
    page.locator("#generate-status p").first.evaluate("line => line.dataset.old = 1")
    page.locator("#generate-go").click()
    made(page)


def made(page: Page) -> None:
    """Waits for the run under way."""
    status = page.locator("#generate-status", has_not=page.locator("[data-old]"), has_not_text="Made when")
    expect(status).to_contain_text("The classifier")
    expect(page.locator("#generate-grid [data-done='1']")).to_be_visible()


def shown(page: Page) -> np.ndarray:
    """The pictures in the grid, as uint8 (N, 28, 28)."""
    script = """grid => [...grid.querySelectorAll('canvas')].map(canvas =>
        [...canvas.getContext('2d').getImageData(0, 0, 28, 28).data].filter((_, k) => k % 4 === 0))"""
    return np.array(page.locator("#generate-grid").evaluate(script), np.uint8).reshape(-1, 28, 28)


def controls(page: Page) -> dict[str, str]:
    """What the controls show."""
    numbers = ("count", "steps", "guidance", "seed")
    read = {name: page.locator(f"#generate-{name} input[type=number]").input_value() for name in numbers}
    read["digit"] = page.locator("#generate-picker input:checked").input_value()
    return read | {name: page.locator(f"#generate-{name} input").input_value() for name in ("negative", "sampler")}


def toast(page: Page) -> str:
    """What the app objects to; the message goes away."""
    message = page.get_by_test_id("toast-text")
    expect(message).to_be_visible()
    text = message.inner_text()
    page.get_by_test_id("toast-close").click()
    expect(message).to_have_count(0)
    return text


def test_opens_with_digits_that_the_model_made(tab: Page, studio: Studio) -> None:
    becomes(tab, lambda: shown(tab), studio.opening.pictures)
    expect(tab.locator("#generate-status")).to_contain_text("Made when the model was opened: ")
    expect(tab.locator("#generate-status")).to_contain_text(studio.about)
    first = studio.opening.readings[0]
    expect(tab.locator("#generate-grid .cell").first).to_contain_text(f"{first.label} · {100 * first.confidence:.0f} %")
    expect(tab.locator("#generate-go")).to_have_text(re.compile(r"Make 16 digits · (about [\d.]+|under 0.1) s"))
    assert tab.locator("#generate-go").bounding_box()["y"] < 800 - 46


def test_streams_noise_into_digits_and_reads_them(tab: Page, studio: Studio) -> None:
    choose(tab, digit="7", count=4, steps=6, guidance=2)
    tab.evaluate("""() => {
        const grid = document.querySelector('#generate-grid'), seen = window.seen = [];
        const draw = CanvasRenderingContext2D.prototype.putImageData;
        CanvasRenderingContext2D.prototype.putImageData = function (image, ...rest) {
            if (grid.contains(this.canvas)) seen.push(image.data.join());
            return draw.call(this, image, ...rest);
        };
    }""")
    make(tab)
    expected = studio.finish(request())
    becomes(tab, lambda: shown(tab), expected.pictures)
    drawn = tab.evaluate("window.seen")
    assert len(drawn) >= 8 and len(set(drawn)) >= 8  # four pictures: noise at least, then the digits
    right = sum(reading.label == "7" for reading in expected.readings)
    status = tab.locator("#generate-status")
    expect(status.get_by_role("status")).to_have_text(f"The classifier reads {right} of 4 as a 7.")
    expect(status).to_contain_text(re.compile(rf"6 network calls, [\d.]+ s, seeds 1 to 4, {re.escape(studio.about)}\."))
    captions = [f"{reading.label} · {100 * reading.confidence:.0f} %" for reading in expected.readings]
    expect(tab.locator("#generate-grid .caption")).to_have_text(captions)


def test_stop_frees_the_engine_within_a_step(tab: Page, studio: Studio) -> None:
    choose(tab, count=64, steps=100)
    calls: list[float] = []
    hook = studio.pipeline.denoiser.register_forward_hook(lambda *_: calls.append(time.monotonic()))
    try:
        tab.locator("#generate-go").click()
        expect(tab.locator("#generate-status")).to_contain_text(re.compile(r"Making 64 digits\. Step [1-9]"))
        tab.locator("#generate-stop").click()
        expect(tab.locator("#generate-status")).to_contain_text("Stopped")
        assert studio.engine.acquire(timeout=10)
        studio.engine.release()
        made_by_then = len(calls)
        tab.wait_for_timeout(2000)
        assert len(calls) == made_by_then < 100
    finally:
        hook.remove()
    for button in ("save", "copy", "change", "watch"):
        tab.locator(f"#generate-{button}").click()
        assert "finished" in toast(tab)
    choose(tab, digit="7", count=4, steps=6, guidance=2)
    make(tab)
    becomes(tab, lambda: shown(tab), studio.finish(request()).pictures)


def test_by_keyboard_alone(tab: Page, studio: Studio) -> None:
    choose(tab, count=4, steps=6, guidance=2)
    tab.locator("#generate-picker").get_by_role("radio", name="3", exact=True).focus()
    for _ in range(4):
        tab.keyboard.press("ArrowRight")
    expect(tab.locator("#generate-picker input:checked")).to_have_value("7")
    tab.locator("#generate-status p").first.evaluate("line => line.dataset.old = 1")
    tab.locator("#generate-go").focus()
    tab.keyboard.press("Enter")
    made(tab)
    becomes(tab, lambda: shown(tab), studio.finish(request()).pictures)
    tab.locator("#generate-grid .cell[tabindex='0']").focus()
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("Enter")
    expect(tab.get_by_role("option", selected=True)).to_have_accessible_name(re.compile("^Picture 2, "))


def test_negative_digit_any_and_one_of_each(tab: Page, studio: Studio) -> None:
    choose(tab, digit="7", count=4, steps=6, guidance=2, negative="1", sampler="UniPC")
    expect(tab.locator("#generate-sampler")).to_contain_text("1 call per step.")
    make(tab)
    becomes(tab, lambda: shown(tab), studio.finish(request(negative="1", sampler="unipc")).pictures)
    choose(tab, digit="Any", negative="None", guidance=1)
    make(tab)
    becomes(tab, lambda: shown(tab), studio.finish(request(digit="", sampler="unipc", guidance=1)).pictures)
    expect(tab.locator("#generate-status")).to_contain_text("The classifier sees ")
    choose(tab, digit="One of each", count=12)
    make(tab)
    each = request(digit=tuple("012345678901"), count=12, sampler="unipc", guidance=1)
    becomes(tab, lambda: shown(tab), studio.finish(each).pictures)
    expect(tab.locator("#generate-status")).to_contain_text("of 12 as the digits asked for")


def test_the_button_says_what_it_will_take_and_the_limit_is_explained(tab: Page, studio: Studio) -> None:
    choose(tab, count=64, steps=50)
    expect(tab.locator("#generate-go")).to_contain_text("Make 64 digits · about")
    long = tab.locator("#generate-go").inner_text()
    choose(tab, steps=5)
    expect(tab.locator("#generate-go")).not_to_have_text(long)
    tab.locator("#generate-steps input[type=number]").fill("100")
    tab.locator("#generate-sampler").get_by_role("combobox").click()
    tab.get_by_role("option", name="Heun", exact=True).click()
    expect(tab.locator("#generate-go")).to_have_text("Make digits")
    tab.locator("#generate-go").click()
    assert "25,600 network evaluations; at most 16,000" in toast(tab)
    becomes(tab, lambda: shown(tab), studio.opening.pictures)  # nothing was touched


def test_the_dice_change_the_seed(tab: Page) -> None:
    seed = tab.locator("#generate-seed input")
    before = seed.input_value()
    tab.locator("#generate-dice").click()
    expect(seed).not_to_have_value(before)


def test_png_there_and_back(tab: Page, studio: Studio, app_url: str, tmp_path: Path) -> None:
    choose(tab, digit="7", count=4, steps=6, guidance=2.5, negative="1", seed=123)
    make(tab)
    pictures, settings = shown(tab), controls(tab)
    with tab.expect_download() as download:
        tab.locator("#generate-save").click()
    path = tmp_path / download.value.suggested_filename
    assert path.name == "diffusion-lab-mnist-latent-seed-123.png"
    download.value.save_as(path)
    assert np.array_equal(export.read_images(path), pictures)
    assert export.read_settings(path)["seed"] == 123

    tab.goto(app_url)
    expect(tab.locator("#generate-grid .cell")).to_have_count(20)
    tab.locator("#generate-drop input[type=file]").set_input_files(path)
    expect(tab.locator("#generate-restored")).to_have_text(
        "Restored: 4 × 7, away from 1, DPM-Solver++ (2M), 6 steps, guidance 2.5, seed 123. "
        "Press Make to see the same pictures."
    )
    expect(tab.locator("#generate-go")).to_contain_text("Make 4 digits")
    assert controls(tab) == settings
    make(tab)
    becomes(tab, lambda: shown(tab), pictures)


def hostile(path: Path, studio: Studio) -> Iterator[tuple[Path, str]]:
    """Files that are not what they seem, with what is said about each."""
    pictures, good = studio.opening.pictures[:4], export.settings(request(), studio.pipeline)
    text = path / "text.png"
    text.write_text("<script>alert(1)</script>")
    yield text, "not a picture that can be read"
    plain = path / "plain.png"
    Image.fromarray(pictures[0]).save(plain)
    yield plain, "carries no settings"
    broken = path / "broken.png"
    export.save_png(broken, pictures, good)
    broken.write_bytes(broken.read_bytes()[:-200])
    yield broken, "damaged"
    for name, changes, sentence in (
        ("markup", {"sampler": "<img src=x onerror=alert(1)>"}, "Unknown sampler '<img src=x onerror=alert(1)>'"),
        ("many", {"count": 4000}, "count must be a whole number from 1 to 64"),
        ("type", {"steps": "many"}, "steps must be a whole number"),
        ("interval", {"interval": [0.1, 1.0]}, "more than this tab has controls for"),
        ("list", {"prompt": ["1", "1", "7", "7"]}, "a list of digits of its own"),
        ("picture", {"image": "0123456789ab"}, "want the image 0123456789ab"),
    ):
        file = path / f"{name}.png"
        export.save_png(file, pictures, {**good, **changes})
        yield file, sentence


def test_files_that_are_not_what_they_seem(tab: Page, studio: Studio, tmp_path: Path) -> None:
    before = controls(tab)
    for file, sentence in hostile(tmp_path, studio):
        tab.locator("#generate-drop input[type=file]").set_input_files(file)
        assert sentence in toast(tab), file.name
        assert controls(tab) == before
    other = tmp_path / "other.png"
    settings = {**export.settings(request(), studio.pipeline), "weights": "<b>0</b>"}
    export.save_png(other, studio.opening.pictures[:4], settings)
    tab.locator("#generate-drop input[type=file]").set_input_files(other)
    expect(tab.locator("#generate-restored")).to_contain_text("Other weights made it")
    assert controls(tab)["digit"] == "7"


def test_a_link_brings_the_same_pictures(tab: Page, app_url: str, errors: list[str]) -> None:
    choose(tab, digit="One of each", count=12, steps=6, guidance=2.5, seed=99)
    make(tab)
    pictures, settings = shown(tab), controls(tab)
    tab.locator("#generate-copy").click()
    field = tab.get_by_label("Opens with these pictures")
    expect(field).to_have_value(re.compile("^http"))
    link = field.input_value()
    assert link.startswith(f"{app_url}/?checkpoint=mnist-latent&digit=each&") and "__theme" not in link
    tab.goto(link)
    made(tab)
    becomes(tab, lambda: shown(tab), pictures)
    assert controls(tab) == settings
    expect(tab.locator("#generate-notice")).to_have_count(0)


def test_links_that_ask_for_what_there_is_not(page: Page, app_url: str, studio: Studio, errors: list[str]) -> None:
    page.goto(f"{app_url}/?digit=7&count=4&steps=6&seed=1&guidance=nan&sampler=<img src=x>&color=red&weights=00000000")
    expect(page.locator("#generate-notice li")).to_have_text(
        [
            "guidance must be a number from 0 to 10, not “nan”.",
            re.compile(r"^sampler must be one of dpmpp_2m, .*, not “<img src=x>”\.$"),
            "There is no setting “color”.",
            f"It was made with other weights than these ({studio.weights}): its pictures will differ.",
        ]
    )
    expect(page.locator("#generate-status")).to_contain_text("The classifier reads 4 of 4")
    expect(page.locator("#generate-status")).to_contain_text("seeds 1 to 4")
    becomes(page, lambda: shown(page), studio.finish(request(guidance=studio.defaults["guidance"])).pictures)
    page.goto(f"{app_url}/?digit=10&count=" + "9" * 3000)
    expect(page.locator("#generate-notice li")).to_have_count(2)
    expect(page.locator("#generate-status")).to_contain_text("Made when the model was opened: ")


def select(page: Page, index: int) -> None:
    page.locator("#generate-grid .cell").nth(index).click()
    expect(page.locator("#generate-grid .cell").nth(index)).to_have_attribute("aria-selected", "true")


def drawn(page: Page, canvas: str) -> np.ndarray:
    """What one canvas of 28 x 28 shows."""
    script = "c => [...c.getContext('2d').getImageData(0, 0, 28, 28).data].filter((_, k) => k % 4 === 0)"
    return np.array(page.locator(canvas).evaluate(script), np.uint8).reshape(28, 28)


def test_a_selected_digit_goes_to_the_other_tabs(tab: Page, studio: Studio) -> None:
    tab.locator("#generate-change").click()
    assert "Select one in the grid" in toast(tab)
    select(tab, 2)
    tab.locator("#generate-change").click()
    expect(tab.get_by_role("tab", name="Image to image")).to_have_attribute("aria-selected", "true")
    expect(tab.locator("#image-source [data-painted]")).to_have_attribute(
        "data-painted", str((studio.opening.pictures[2] > 127).sum())
    )
    becomes(tab, lambda: drawn(tab, "#image-source .ink"), studio.opening.pictures[2])
    tab.get_by_role("tab", name="Generate").click()
    tab.locator("#generate-encode").click()
    expect(tab.get_by_role("tab", name="VAE")).to_have_attribute("aria-selected", "true")
    tab.get_by_role("tab", name="Generate").click()
    tab.locator("#generate-watch").click()
    expect(tab.get_by_role("tab", name="Denoise")).to_have_attribute("aria-selected", "true")
    expect(tab.locator("#denoise-seed input")).to_have_value(str(studio.opening.request.seed + 2))
    expect(tab.locator("#denoise-status")).to_contain_text(f"seed {studio.opening.request.seed + 2}:")
    becomes(tab, lambda: drawn(tab, "#denoise-player canvas >> nth=2"), studio.opening.pictures[2])


@pytest.mark.parametrize(("width", "theme"), [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")])
def test_fits_and_is_accessible(
    page: Page, app_url: str, width: int, theme: str, errors: list[str], still: Callable[[], None]
) -> None:
    page.set_viewport_size({"width": width, "height": 844})
    page.goto(f"{app_url}/?__theme={theme}&digit=7&count=4&steps=6&color=red")
    made(page)
    page.locator("#generate-copy").click()
    expect(page.get_by_label("Opens with these pictures")).to_be_visible()
    page.get_by_text("How noise becomes a picture").click()
    expect(page.get_by_role("heading", name="The equation")).to_be_visible()
    still()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    if width == 390:  # the result comes before the controls that can wait
        tops = [page.locator(f"#generate-{name}").bounding_box()["y"] for name in ("go", "grid", "sampler")]
        assert tops == sorted(tops)
    results = Axe().run(page, context={"exclude": [["footer"]]}, options=WCAG)  # the footer is Gradio's own
    assert results.violations_count == 0, results.generate_report()
