"""The Stable Diffusion tab in a real browser: a model opened in view, its picture and film, a picture to begin with,
step counts side by side, and what no model takes."""

import re
import shutil
import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from threading import Event

import numpy as np
import pytest
import torch
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from pixels import becomes, drag, rgb
from playwright.sync_api import Locator, Page, expect

from diffusion import export
from diffusion.pipeline import Pipeline
from diffusion.request import Request
from diffusion.ui import build_app, launch_kwargs
from diffusion.ui.easel import Easel
from diffusion.ui.shelf import Shelf
from diffusion.ui.studio import Limits, Studio
from diffusion.ui.tabs.stable import PROMPT

WCAG = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}
LIMITS = Limits(steps=50)
ENDED = re.compile(r"network calls? in \d")
Serve = Callable[..., str]


def served(serve: Serve, words: Studio, easel: Easel | None) -> str:
    return serve(build_app(Shelf(words), easel), **launch_kwargs(words.limits))


@pytest.fixture(scope="module")
def easel(foreign: Path) -> Easel:
    easel = Easel(str(foreign), "cpu", LIMITS)
    assert list(easel.open())
    return easel


@pytest.fixture(scope="module")
def address(serve: Serve, words: Studio, easel: Easel) -> str:
    """The app with the model already open."""
    return served(serve, words, easel)


@pytest.fixture
def tab(page: Page, address: str, errors: list[str]) -> Page:
    """A fresh page; three steps are enough for whoever asks for no others."""
    enter(page, address)
    return page


@pytest.fixture
def slow(easel: Easel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each network call takes a fifth of a second."""
    denoise = easel.pipeline.denoiser.forward
    monkeypatch.setattr(easel.pipeline.denoiser, "forward", lambda *given: time.sleep(0.2) or denoise(*given))


def visit(page: Page, address: str, theme: str = "light") -> None:
    page.goto(f"{address}/?__theme={theme}")
    page.get_by_role("tab", name="Stable Diffusion").click()
    expect(page.locator("#stable-tab")).to_be_visible()


def enter(page: Page, address: str, theme: str = "light") -> None:
    """To the opened model, once the controls are as it wants them."""
    visit(page, address, theme)
    expect(field(page, "width")).to_have_value("16")
    number(page, "steps", 3)


def field(page: Page, name: str) -> Locator:
    return page.locator(f"#stable-{name} input[type=number]")


def number(page: Page, name: str, value: float) -> None:
    field(page, name).fill(str(value))
    page.keyboard.press("Tab")
    expect(field(page, name)).to_have_value(str(value))


def said(page: Page, name: str = "status") -> Locator:
    """A line on what is going on."""
    return page.locator(f"#stable-{name} [role=status]")


def make(page: Page) -> None:
    """Presses the button and waits for the picture; what the line said before, perhaps the same, does not count."""
    said(page).evaluate("line => line.dataset.old = 1")
    page.locator("#stable-go").click()
    expect(page.locator("#stable-status [role=status]:not([data-old])")).to_have_text(ENDED)


def sent(page: Page, image: str) -> bytes:
    """The file behind a picture of the page, which the page has drawn."""
    shown = page.locator(f"{image} img")
    expect(shown).to_have_js_property("complete", True)
    assert shown.evaluate("image => image.naturalWidth") > 0
    return page.request.get(shown.get_attribute("src")).body()


def asked(prompt: str = PROMPT, steps: int = 3, **more: object) -> Request:
    """What the page asks for where nothing else is chosen."""
    return Request(prompt, size=(16, 16), sampler="ddim", steps=steps, guidance=7.5, seed=1, **more)


def png(pixels: np.ndarray) -> bytes:
    Image.fromarray(pixels).save(file := BytesIO(), "PNG")
    return file.getvalue()


def photo() -> np.ndarray:
    """A picture in which no two places are alike."""
    return np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)


def unfold(page: Page) -> None:
    page.locator("#stable-begin button.label-wrap").click()
    expect(page.locator("#stable-picture")).to_be_visible()


def send(page: Page, content: bytes, name: str = "photo.png") -> None:
    chooser = page.locator("#stable-picture input[type=file]")
    chooser.set_input_files({"name": name, "mimeType": "image/png", "buffer": content})


def lies_on(page: Page, picture: np.ndarray, width: int = 8, height: int = 8) -> None:
    """The mask is on this picture, cut to so many cells."""
    canvas = page.locator("#stable-mask .picture")
    expect(canvas).to_have_js_property("width", width)
    expect(canvas).to_have_js_property("height", height)
    becomes(page, lambda: rgb(canvas), export.fit(Image.fromarray(picture), (3, height, width)))


def painted(page: Page) -> np.ndarray:
    """The mask, bool (h, w)."""
    alpha = "c => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data].filter((_, at) => at % 4 === 3)"
    ink = page.locator("#stable-mask .ink")
    return np.array(ink.evaluate(alpha)).reshape(ink.evaluate("c => [c.height, c.width]")) > 0


def toasts(page: Page) -> int:
    """How many there are now: what waits until there are none would wait until they are gone."""
    return page.locator(".toast-body").count()


def refused(page: Page, sentence: str) -> None:
    """One toast with this sentence, which is then put away."""
    expect(page.locator(".toast-body")).to_have_count(1)
    expect(page.locator(".toast-body")).to_contain_text(sentence)
    page.locator(".toast-body").get_by_label("Close", exact=True).click()
    expect(page.locator(".toast-body")).to_have_count(0)


def faults(page: Page) -> dict[str, list[str]]:
    """What axe finds, and whether the page is wider than the screen."""
    page.wait_for_timeout(300)  # axe measures colours in mid-air too
    found = {fault["id"]: [node["html"][:160] for node in fault["nodes"]]
             for fault in Axe().run(page, options=WCAG).response["violations"]}  # fmt: skip
    wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
    return found | ({"wider than the screen": [str(wide)]} if wide > 0 else {})


def test_without_a_model_it_says_how_to_have_one(page: Page, serve: Serve, words: Studio, errors: list[str]) -> None:
    address, found = served(serve, words, None), {}
    for theme in ("light", "dark"):
        visit(page, address, theme)
        expect(page.locator("#stable-absent")).to_contain_text("python app.py --sd stable-diffusion-v1-5/")
        assert page.locator("#stable-tab").get_by_role("button").count() == 0
        for width in (1280, 390):
            page.set_viewport_size({"width": width, "height": 844})
            found[theme, width] = faults(page)
            code = page.locator("#stable-absent pre")
            assert code.evaluate("e => e.scrollWidth <= e.clientWidth")  # all of the command is seen
    assert not any(found.values()), found


def test_a_model_is_opened_in_view(
    page: Page, serve: Serve, words: Studio, foreign: Path, errors: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever comes meanwhile follows along, and whoever comes later has nothing to wait for."""
    load, gate = Pipeline.load, Event()
    monkeypatch.setattr(Pipeline, "load", lambda *given, **more: gate.wait() and load(*given, **more))
    address = served(serve, words, Easel(str(foreign), "cpu", LIMITS))
    visit(page, address)
    expect(page.locator("#stable-lead")).to_contain_text("is ready to be opened")
    expect(page.locator("#stable-room")).to_be_hidden()
    assert not faults(page)
    page.locator("#stable-open").click()
    other, later = page.context.new_page(), page.context.new_page()
    visit(other, address)
    other.locator("#stable-open").click()
    for one in (page, other):
        expect(said(one, "opening")).to_have_text(re.compile(r"^Reading the model, \d+ s\.$"))
        expect(one.locator("#stable-open")).to_be_disabled()
    gate.set()
    expect(page.locator("#stable-room")).to_be_visible()
    visit(later, address)
    for one in (page, other, later):
        expect(one.locator("#stable-lead")).to_contain_text("small-diffusion: U-Net 0.8 M, autoencoder")
        for gone in ("open", "opening"):
            expect(one.locator(f"#stable-{gone}")).to_be_hidden()
        for name, value in {"width": "16", "height": "16", "steps": "25", "guidance": "7.5"}.items():
            expect(field(one, name)).to_have_value(value)
        for name, value in {"min": "8", "max": "32", "step": "4"}.items():
            expect(one.locator("#stable-width").get_by_role("slider")).to_have_attribute(name, value)
        expect(one.locator("#stable-sampler input")).to_have_value("DDIM")
    assert toasts(page) == 0


def test_what_cannot_be_opened_is_said(
    page: Page, serve: Serve, words: Studio, foreign: Path, tmp_path: Path, errors: list[str]
) -> None:
    visit(page, served(serve, words, Easel(str(tmp_path / "<b>model"), "cpu", LIMITS)))
    page.locator("#stable-open").click()
    refused(page, "/<b>model': give a name")
    expect(said(page, "opening")).to_contain_text(re.compile("^No checkpoint '.*<b>model': give a name"))
    shutil.copytree(foreign, tmp_path / "<b>model")
    page.locator("#stable-open").click()
    expect(page.locator("#stable-room")).to_be_visible()


@pytest.mark.usefixtures("slow")
def test_a_picture_is_made_in_view(tab: Page, easel: Easel) -> None:
    """Its film grows as it goes; its end is the engine's own, and the file says how to make it again."""
    expect(tab.locator("#stable-film")).to_be_hidden()
    number(tab, "steps", 8)
    tab.locator("#stable-prompt textarea").fill("a thick red 7")
    tab.locator("#stable-negative textarea").fill("blue paper")
    tab.locator("#stable-go").click()
    film, status = tab.locator("#stable-film [data-frames]"), said(tab)
    expect(status).to_have_text(re.compile(r"^Step [1-7] of 8, \d+ s, about \d\.\d s left\.$"))
    expect(film).to_have_attribute("data-frames", re.compile("^[2-8]$"))
    expect(film).to_have_attribute("data-done", "0")
    expect(status).to_have_text(
        re.compile(r"^16 × 16 pixels, DDIM, 8 network calls in \d+\.\d s, seed 1, float32 on CPU\.$")
    )
    expect(film).to_have_attribute("data-frames", "9")
    with tab.expect_download() as download:
        tab.locator("#stable-made").get_by_role("link").click()
    assert download.value.suggested_filename == "small-diffusion-seed-1.png"
    file = download.value.path().read_bytes()
    assert file == sent(tab, "#stable-made")
    request = export.request_from(export.read_settings(file))
    assert request == asked("a thick red 7", negative="blue paper", steps=8)
    *_, last = easel.pipeline.generate(request)
    np.testing.assert_array_equal(export.read_images(file), export.to_pictures(easel.images(last, request)))

    caption, canvas = tab.locator("#stable-film .caption"), tab.locator("#stable-film .pane canvas").first
    expect(caption).to_contain_text("→ 0, 8 network calls")
    end = rgb(canvas)
    tab.locator("#stable-film .scrub").evaluate("s => { s.value = 0; s.dispatchEvent(new Event('input')); }")
    expect(caption).to_contain_text("the start, before any network call")
    assert (rgb(canvas) != end).any()
    for kind in ("GIF", "WebP"):
        with tab.expect_download() as download:
            tab.get_by_role("button", name=f"Save {kind}").locator("visible=true").click()
        assert download.value.suggested_filename == f"small-diffusion-seed-1.{kind.lower()}"
        with Image.open(download.value.path()) as saved:
            assert saved.size == (2 * 280 + 8, 280) and saved.n_frames > 4


@pytest.mark.usefixtures("slow")
def test_a_run_can_be_stopped(tab: Page, easel: Easel) -> None:
    """The engine is free at once; where nothing runs there is nothing to stop."""
    status = said(tab)
    tab.locator("#stable-stop").click()
    number(tab, "steps", 50)
    tab.locator("#stable-go").click()
    expect(status).to_contain_text(re.compile(r"^\s*Step [1-9]"))
    tab.locator("#stable-stop").click()
    expect(status).to_have_text("Stopped. The engine is free.")
    tab.locator("#stable-save-gif").click()
    expect(tab.locator(".toast-body").first).to_contain_text("There is no finished film here to save")
    assert easel.engine.acquire(timeout=5)
    easel.engine.release()
    number(tab, "steps", 2)
    make(tab)
    made = status.inner_text()
    tab.locator("#stable-stop").click()
    tab.wait_for_timeout(500)
    assert status.inner_text() == made


def test_only_what_is_painted_changes(tab: Page, easel: Easel) -> None:
    unfold(tab)
    expect(tab.locator("#stable-mask .hint")).to_have_text("No picture yet")
    send(tab, png(photo()))
    start = export.fit(Image.fromarray(photo()), (3, 16, 16))
    lies_on(tab, photo())
    drag(tab, tab.locator("#stable-mask .ink"), (0.2, 0.3), (0.5, 0.3))
    mask = painted(tab)
    assert 4 <= mask.sum() <= 40 and mask[2, 2] and not mask[7].any()
    make(tab)
    expect(said(tab)).to_contain_text(f"{256 - 4 * mask.sum()} pixels are yours, unchanged.")
    (pixels,) = export.read_images(sent(tab, "#stable-made"))
    large = mask.repeat(2, 0).repeat(2, 1)
    np.testing.assert_array_equal(pixels[~large], start[~large])
    request = asked(image=export.to_image(start), strength=0.7, mask=torch.from_numpy(large)[None])
    *_, last = easel.pipeline.generate(request)
    np.testing.assert_array_equal(pixels, export.to_pictures(easel.images(last, request))[0])


def test_a_mask_comes_and_goes_with_its_picture(tab: Page) -> None:
    unfold(tab)
    send(tab, png(photo()))
    lies_on(tab, photo())
    drag(tab, tab.locator("#stable-mask .ink"), (0.2, 0.3), (0.5, 0.3))
    assert painted(tab).any()
    field(tab, "width").fill("")
    tab.keyboard.type("3")
    tab.wait_for_timeout(1000)
    assert toasts(tab) == 0  # 3 is no width, and no mistake yet
    tab.keyboard.type("2")
    tab.keyboard.press("Tab")
    lies_on(tab, photo(), width=16)
    assert not painted(tab).any()
    tab.locator("#stable-picture").get_by_label("Remove Image").click()
    expect(tab.locator("#stable-mask .hint")).to_have_text("No picture yet")
    assert toasts(tab) == 0
    make(tab)
    expect(said(tab)).to_contain_text("32 × 16 pixels")


def test_a_finished_picture_begins_the_next(tab: Page) -> None:
    """Pixel by pixel, and in view."""
    tab.locator("#stable-again").click()
    refused(tab, "There is no picture yet: make one first.")
    make(tab)
    made = np.asarray(Image.open(BytesIO(sent(tab, "#stable-made"))))
    tab.locator("#stable-again").click()
    lies_on(tab, made)
    np.testing.assert_array_equal(np.asarray(Image.open(BytesIO(sent(tab, "#stable-picture")))), made)


def test_step_counts_side_by_side(tab: Page, easel: Easel) -> None:
    captions, status = tab.locator("#stable-gallery .caption-label"), said(tab, "compared")
    tab.locator("#stable-counts").get_by_label("20", exact=True).uncheck()
    tab.locator("#stable-compare").click()
    expect(status).to_have_text("One noise (seed 1), one prompt, DDIM: only the step count differs.")
    expect(captions).to_have_text([re.compile(rf"^{n} steps, {n} calls, \d+\.\d s$") for n in (5, 10)])
    for steps, shown in zip((5, 10), tab.locator("#stable-gallery .thumbnail-item img").all(), strict=True):
        file = tab.request.get(shown.get_attribute("src")).body()
        *_, last = easel.pipeline.generate(request := asked(steps=steps))
        wanted = export.to_pictures(easel.images(last, request))[0]
        np.testing.assert_array_equal(np.asarray(Image.open(BytesIO(file))), wanted)
    unfold(tab)
    send(tab, png(photo()))
    expect(tab.locator("#stable-mask .hint")).to_have_text("Paint over the part to change")
    tab.locator("#stable-compare").click()
    expect(captions).to_have_text([re.compile(f"^{k} of {n} steps, {k} calls, ") for n, k in ((5, 4), (10, 7))])


@pytest.mark.usefixtures("slow")
def test_a_comparison_can_be_stopped(tab: Page, easel: Easel) -> None:
    status = said(tab, "compared")
    for count in ("5", "10", "20"):
        tab.locator("#stable-counts").get_by_label(count, exact=True).uncheck()
    tab.locator("#stable-compare").click()
    refused(tab, "Choose at least one step count of 5, 10, 15, 20, 30, 50.")
    expect(status).to_have_text("")
    tab.locator("#stable-counts").get_by_label("50", exact=True).check()
    tab.locator("#stable-compare").click()
    expect(status).to_contain_text("0 of 1 made. 50 steps: Step ")
    tab.locator("#stable-compare-stop").click()
    expect(status).to_have_text("Stopped. The engine is free.")
    assert easel.engine.acquire(timeout=5)
    easel.engine.release()


def test_sizes_that_no_picture_has(tab: Page) -> None:
    number(tab, "width", 18)
    tab.locator("#stable-go").click()
    refused(tab, "This model's pictures cannot be 18 pixels high or wide: take 16 or 20.")
    for typed, held in (("5000", "32"), ("-3", "8"), ("", "8"), ("1e9", "32")):
        field(tab, "width").fill(typed)
        tab.keyboard.press("Tab")
        expect(field(tab, "width")).to_have_value(held)
    assert toasts(tab) == 0
    expect(said(tab)).to_have_text("Nothing made yet.")


def test_a_prompt_is_text_whatever_it_says(tab: Page, easel: Easel) -> None:
    prompt = tab.locator("#stable-prompt textarea")
    strange = "a thick red 7 <b>on</b> <script>throw 1</script> paper 🙂 שלום {{x}} "
    prompt.fill("")
    prompt.focus()
    tab.keyboard.insert_text(strange * 50)
    expect(prompt).to_have_value((strange * 50).encode("utf-16-le")[:2000].decode("utf-16-le", "ignore"))
    make(tab)
    status = said(tab)
    expect(status).to_contain_text("past them were")
    expect(status).to_contain_text("<script>")
    assert status.locator("b, script").count() == 0
    request = export.request_from(export.read_settings(sent(tab, "#stable-made")))
    assert request.prompt == prompt.input_value()
    assert toasts(tab) == 0


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"This is no picture, whatever its name says.", "this is not a picture that can be read"),
        (b"", "this is not a picture that can be read"),
        (png(photo())[:200], "the picture is damaged"),
        (png(np.zeros((1, 20_000, 3), np.uint8)), "the picture is larger than "),
    ],
)  # fmt: skip
def test_files_that_are_no_pictures(tab: Page, content: bytes, sentence: str) -> None:
    unfold(tab)
    send(tab, content)
    refused(tab, sentence)
    expect(tab.locator("#stable-mask .hint")).to_have_text("No picture yet")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_everybody_can_use_it(page: Page, address: str, errors: list[str], theme: str) -> None:
    """Axe finds nothing, and a phone has room, before a run and after, with all that can be unfolded."""
    enter(page, address, theme)
    found = {}
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 844})
        found["before", width] = faults(page)
    make(page)
    page.locator("#stable-again").click()
    expect(page.locator("#stable-mask .hint")).to_have_text("Paint over the part to change")
    page.locator("#stable-compare").click()
    expect(said(page, "compared")).to_contain_text("only the step count differs")
    page.locator("#stable-tab .explain button.label-wrap").last.click()
    for width in (1280, 390):
        page.set_viewport_size({"width": width, "height": 844})
        found["after", width] = faults(page)
    assert not any(found.values()), found
