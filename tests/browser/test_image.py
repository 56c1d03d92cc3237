"""The Image to image tab in a real browser: three ways to a picture, what the model makes of it, and files that lie."""

import base64
import re
import struct
import time
import zlib
from collections.abc import Callable
from functools import partial
from io import BytesIO

import numpy as np
import pytest
import tiny
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from pixels import becomes, drag, rgb
from playwright.sync_api import Locator, Page, expect

from diffusion.captions import COLOURS
from diffusion.ui import build_app, launch_kwargs
from diffusion.ui.becoming import STRENGTHS, seen
from diffusion.ui.shelf import Shelf
from diffusion.ui.studio import Studio
from diffusion.ui.tabs.image import COLUMN

WCAG = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}


@pytest.fixture
def image(page: Page, app_url: str, errors: list[str]) -> Page:
    """A fresh page on the tab, with what it opens with."""
    visit(page, app_url)
    return page


def visit(page: Page, address: str, theme: str = "light") -> None:
    page.goto(f"{address}/?__theme={theme}")
    page.get_by_role("tab", name="Image to image").click()
    expect(page.locator("#image-player [data-done='1']")).to_be_visible()
    expect(page.locator("#image-strip .cell")).to_have_count(len(STRENGTHS))


def way(page: Page, name: str) -> None:
    page.locator("#image-ways").get_by_role("tab", name=name).click()


def shown(canvas: Locator) -> np.ndarray:
    """What a canvas shows, (H, W)."""
    flat = canvas.evaluate("c => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]")
    return np.array(flat, np.uint8).reshape(*canvas.evaluate("c => [c.height, c.width]"), 4)[..., 0]


def pad(page: Page) -> np.ndarray:
    return shown(page.locator("#image-source .ink"))


def result(page: Page) -> np.ndarray:
    return shown(page.locator("#image-player canvas"))


def inside(page: Page, title: str) -> np.ndarray:
    """One of the three small pictures."""
    source = page.locator("#image-inside").get_by_alt_text(title).get_attribute("src")
    return np.asarray(Image.open(BytesIO(base64.b64decode(source.split(",")[1]))))


def reading(page: Page, title: str) -> Locator:
    return page.locator("#image-inside figure").filter(has_text=title).locator("span")


def set_steps(page: Page, count: int) -> None:
    """Types them, again until they hold: a field that has just been unfolded may take on its first value once more."""
    field = page.locator("#image-steps").get_by_label("number input for Steps")
    for _ in range(20):
        field.fill(str(count))
        page.keyboard.press("Tab")
        page.wait_for_timeout(300)
        if f"of {count} steps" in page.locator("#image-strength").inner_text():
            break


def set_strength(page: Page, strength: float) -> None:
    page.locator("#image-strength").get_by_label("number input").fill(str(strength))
    page.keyboard.press("Tab")


def turn(page: Page, steps: int) -> None:
    """A run from start to finish, of another number of steps than the run before."""
    before = page.locator("#image-status").inner_text()
    page.locator("#image-go").click()
    expect(page.locator("#image-status")).not_to_have_text(before)
    expect(page.locator("#image-player [data-done='1']")).to_have_attribute("data-frames", str(steps + 1))


def send(page: Page, name: str, content: bytes) -> None:
    way(page, "Upload")
    with page.expect_file_chooser() as chosen:
        page.get_by_role("button", name="Choose a picture").click()
    chosen.value.set_files({"name": name, "mimeType": "image/png", "buffer": content})


def photo(digit: np.ndarray) -> bytes:
    """A digit in blue ink on warm paper, off centre and with a shadow across, as a PNG."""
    ink = np.asarray(Image.fromarray(digit).resize((224, 224), Image.Resampling.BICUBIC), float) / 255
    y, x = np.mgrid[:480, :640] / 640
    paper = np.stack([235 - 60 * x, 228 - 60 * x, 210 - 55 * y], -1)
    paper += np.random.default_rng(0).normal(0, 3, paper.shape)
    cover = np.zeros((480, 640, 1))
    cover[180:404, 60:284, 0] = ink
    picture = paper * (1 - cover) + np.array([30, 40, 110]) * cover
    file = BytesIO()
    Image.fromarray(picture.clip(0, 255).astype(np.uint8)).save(file, "PNG")
    return file.getvalue()


def bomb() -> bytes:
    """A PNG of a few bytes whose header claims 20,000 x 20,000 pixels."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 20_000, 20_000, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


def test_opens_with_a_3_that_became_an_8(image: Page, studio: Studio) -> None:
    becomes(image, lambda: pad(image), studio.examples[3, COLUMN])
    expect(image.locator("#image-status")).to_contain_text("Made when the model was opened")
    expect(image.locator("#image-status")).to_contain_text(re.compile(r"Read as 8, \d+ %.*on CPU"))
    expect(image.locator("#image-player [data-done='1']")).to_have_attribute("data-frames", "13")
    expect(image.locator("#image-go")).to_have_text(re.compile(r"Turn it into an 8 · (about \d+\.\d|under 0\.1) s"))
    expect(reading(image, "What the model sees")).to_have_text(re.compile("^reads 3, "))
    captions = image.locator("#image-strip .caption")
    expect(captions.first).to_have_text("0 · 0 steps")
    expect(captions.last).to_have_text("1 · 20 steps")


def test_first_view_needs_no_scrolling(image: Page) -> None:
    image.set_viewport_size({"width": 1280, "height": 800})
    for part in ("#image-source .ink", "#image-target", "#image-strength", "#image-go", "#image-player canvas"):
        box = image.locator(part).bounding_box()
        assert box["y"] + box["height"] <= 800, part


@pytest.mark.parametrize("strength", [0.05, 0.55, 1.0])
def test_says_where_a_strength_starts(image: Page, studio: Studio, strength: float) -> None:
    before = inside(image, "Noised start")
    set_strength(image, strength)
    run = round(20 * strength)
    sigma = f"{float(studio.pipeline.grid(20)[20 - run]):.3g}"
    expect(image.locator("#image-strength")).to_contain_text(f"Runs {run} of 20 steps, starts at σ\u00a0{sigma}.")
    expect(reading(image, "Noised start")).to_have_text(f"σ\u00a0{sigma}")
    assert (inside(image, "Noised start") != before).any()


def test_strength_0_is_the_plain_reconstruction(image: Page) -> None:
    set_strength(image, 0)
    expect(image.locator("#image-strength")).to_contain_text("Runs 0 of 20 steps")
    turn(image, 0)
    expect(image.locator("#image-status")).to_contain_text("0 network calls")
    becomes(image, lambda: result(image), inside(image, "Through the VAE"))


def test_a_drawing_is_centred_as_mnist_does(image: Page) -> None:
    image.locator("#image-source").get_by_role("button", name="Clear").click()
    expect(image.locator("#image-inside")).to_contain_text("There is no picture yet")
    drag(image, image.locator("#image-source .ink"), (0.2, 0.1), (0.2, 0.5))
    expect(reading(image, "What the model sees")).to_have_text(re.compile("^reads 1, "))
    sketch, model = pad(image), inside(image, "What the model sees")
    columns = np.flatnonzero(sketch.max(0))
    assert columns.max() < 10
    assert abs(np.ptp(np.flatnonzero(model.max(1) > 64)) + 1 - 20) <= 1
    assert abs(model.sum(0) @ np.arange(28) / model.sum() - 14) <= 1
    image.get_by_label("Centre and scale it as MNIST does").uncheck()
    expect(reading(image, "What the model sees")).to_be_visible()
    image.wait_for_function(
        "old => document.querySelector('#image-inside img').src !== old",
        arg=f"data:image/png;base64,{_png(model)}",
    )
    becomes(image, lambda: inside(image, "What the model sees"), sketch)


def _png(picture: np.ndarray) -> str:
    file = BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def test_draws_and_runs_by_keyboard_alone(image: Page) -> None:
    clear = image.locator("#image-source").get_by_role("button", name="Clear")
    clear.focus()
    image.keyboard.press("Enter")
    expect(image.locator("#image-inside")).to_contain_text("There is no picture yet")
    image.locator("#image-source .ink").focus()
    for _ in range(6):
        image.keyboard.press("ArrowUp")
    for _ in range(12):
        image.keyboard.press("Shift+ArrowDown")
    expect(reading(image, "What the model sees")).to_have_text(re.compile("^reads 1, "))
    image.locator("#image-target input:checked").focus()
    image.keyboard.press("ArrowRight")
    expect(image.locator("#image-go")).to_contain_text("Turn it into a 9")
    image.locator("#image-go").focus()
    image.keyboard.press("Enter")
    expect(image.locator("#image-status")).not_to_contain_text("when the model was opened")


def test_reads_a_photo_of_a_digit(image: Page, studio: Studio) -> None:
    send(image, "a photo.png", photo(studio.examples[7, 2]))
    expect(reading(image, "What the model sees")).to_have_text(re.compile("^reads 7, "))
    expect(image.locator("#image-ways").get_by_role("tab", name="Draw")).to_have_attribute("aria-selected", "true")
    close = np.abs(pad(image).astype(int) - studio.examples[7, 2])
    assert close.mean() < 12
    becomes(image, lambda: inside(image, "What the model sees"), pad(image))


def test_picks_a_test_image_bit_for_bit(image: Page, studio: Studio) -> None:
    way(image, "Pick")
    tests = image.locator("#image-tests")
    tests.get_by_label("5").check(force=True)
    expect(reading(image, "What the model sees")).to_have_text(re.compile("^reads 5, "))
    becomes(image, lambda: inside(image, "What the model sees"), studio.examples[5, COLUMN])
    image.locator("#image-shuffle").click()
    expect(tests.locator("input:checked")).to_have_count(0)
    tests.get_by_label("5").check(force=True)
    old = _png(studio.examples[5, COLUMN])
    image.wait_for_function("old => !document.querySelector('#image-inside img').src.endsWith(old)", arg=old)
    becomes(image, lambda: inside(image, "What the model sees"), studio.examples[5, COLUMN + 1])


def test_turns_a_3_into_an_8_in_view(image: Page) -> None:
    image.locator("#image-strength").get_by_label("number input").fill("0.75")
    image.keyboard.press("Tab")
    expect(image.locator("#image-strength")).to_contain_text("Runs 15 of 20 steps")
    turn(image, 15)
    expect(image.locator("#image-status")).to_contain_text(re.compile(r"15 network calls, [\d.]+ s\. Read as 8, "))
    final = result(image)
    slider = image.locator("#image-player").get_by_role("slider")
    slider.press("Home")
    expect(image.locator("#image-player .caption")).to_contain_text("Your picture with noise added, σ = ")
    assert np.abs(result(image).astype(int) - inside(image, "Noised start")).max() <= 1
    slider.press("End")
    becomes(image, lambda: result(image), final)


def stops_midway(page: Page, steps: int) -> None:
    """A run of this many steps ends where Stop was pressed, and what it would have become is not there."""
    page.get_by_role("button", name="Sampler, steps, guidance, seed").click()
    set_steps(page, steps)
    set_strength(page, 1)
    expect(page.locator("#image-strength")).to_contain_text(f"Runs {steps} of {steps} steps")
    page.locator("#image-go").click()
    position = page.locator("#image-player .position")
    expect(position).to_have_text(re.compile(rf"^([2-9]|\d\d+) / {steps}$"))
    page.locator("#image-stop").click()
    page.wait_for_timeout(600)
    reached = position.inner_text()
    page.wait_for_timeout(600)
    assert position.inner_text() == reached != f"{steps} / {steps}"
    expect(page.locator("#image-status")).to_contain_text("when the model was opened")


def test_stops(image: Page) -> None:
    stops_midway(image, 100)


def test_eight_strengths_share_one_noise(image: Page) -> None:
    before = image.locator("#image-strip-status").inner_text()
    way(image, "Pick")
    image.locator("#image-tests").get_by_label("4").check(force=True)
    expect(reading(image, "What the model sees")).to_have_text(re.compile("^reads 4, "))
    image.locator("#image-strip-go").click()
    expect(image.locator("#image-strip-status")).not_to_have_text(before)
    expect(image.locator("#image-strip-status")).to_contain_text("20 network calls for the whole batch")
    expect(image.locator("#image-strip [data-done]")).to_have_attribute("data-done", "1")
    cells = image.locator("#image-strip .cell")
    expect(cells.locator(".caption")).to_have_text([f"{s:g} · {round(20 * s)} steps" for s in STRENGTHS])
    becomes(image, lambda: shown(cells.first.locator("canvas")), inside(image, "Through the VAE"))
    cells.nth(2).click()
    expect(image.locator("#image-strength").get_by_label("number input")).to_have_value(f"{STRENGTHS[2]:g}")
    # At full strength the batch's picture is a single run's: the same seed, the same noise.
    cells.last.click()
    expect(image.locator("#image-strength")).to_contain_text("Runs 20 of 20 steps")
    turn(image, 20)
    assert np.abs(shown(cells.last.locator("canvas")).astype(int) - result(image)).max() <= 2


def test_a_mask_leaves_every_other_pixel_as_it_was(image: Page, studio: Studio) -> None:
    source = studio.examples[3, COLUMN]
    way(image, "Mask")
    expect(image.locator("#image-mask .ink")).to_be_visible()
    drag(image, image.locator("#image-mask .ink"), (0.3, 0.25), (0.3, 0.75))
    mask = image.locator("#image-mask .ink").evaluate(
        "c => [...c.getContext('2d').getImageData(0, 0, 28, 28).data].filter((_, k) => k % 4 === 3)"
    )
    mask = np.array(mask).reshape(28, 28) > 0
    assert 30 < mask.sum() < 400
    expect(image.locator("#image-strength")).to_contain_text(f"Only {mask.sum()} painted pixels may change.")
    set_strength(image, 1)
    expect(image.locator("#image-strength")).to_contain_text("Runs 20 of 20 steps")
    turn(image, 20)
    expect(image.locator("#image-status")).to_contain_text(f"{784 - mask.sum()} pixels are yours, unchanged.")
    final = result(image)
    assert (final[~mask] == source[~mask]).all()
    assert (final[mask] != source[mask]).any()
    # Another picture, another mask: the old one is gone.
    way(image, "Pick")
    image.locator("#image-tests").get_by_label("6").check(force=True)
    expect(image.locator("#image-strength")).not_to_contain_text("painted pixels")


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("huge.png", bomb(), "larger than 4096 x 4096 pixels"),
        ("text.png", b"This is no picture, whatever its name says.", "not a picture that can be read"),
        ("empty.png", b"", "not a picture that can be read"),
        ("blank.png", photo(np.zeros((28, 28), np.uint8)), "no ink stands out from the paper"),
        ("torn.png", photo(np.full((28, 28), 255, np.uint8))[:2000], "damaged"),
        ("script.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "Only .png, .jpg, .jpeg, .webp allowed"),
        ("heavy.png", bytes(9 * 2**20), "exceed the maximum allowed size of 8"),
    ],
    ids=["huge", "text", "empty", "blank", "torn", "svg", "heavy"],
)
def test_files_that_lie_get_one_sentence(image: Page, studio: Studio, name: str, content: bytes, sentence: str) -> None:
    send(image, name, content)
    expect(image.get_by_test_id("toast-body")).to_have_count(1)
    expect(image.get_by_test_id("toast-body")).to_contain_text(re.compile(sentence, re.IGNORECASE))
    assert "Traceback" not in image.get_by_test_id("toast-body").inner_text()
    image.get_by_test_id("toast-close").click()
    send(image, "good.png", photo(studio.examples[7, 2]))
    expect(reading(image, "What the model sees")).to_have_text(re.compile("^reads 7, "))


def test_an_empty_pad_gets_one_sentence(image: Page) -> None:
    image.locator("#image-source").get_by_role("button", name="Clear").click()
    expect(image.locator("#image-inside")).to_contain_text("There is no picture yet")
    image.locator("#image-go").click()
    toast = image.get_by_test_id("toast-body")
    expect(toast).to_contain_text("There is no picture yet: draw one, take a test image or upload a photo.")
    expect(toast).to_have_count(1)


def test_a_result_goes_on(image: Page) -> None:
    final = result(image)
    way(image, "Mask")
    image.locator("#image-back").click()
    expect(image.locator("#image-source .ink")).to_be_visible()
    image.wait_for_function(
        "old => !document.querySelector('#image-inside img').src.endsWith(old)", arg=_png(pad(image) * 0)
    )
    expect(reading(image, "What the model sees")).to_have_text(re.compile("^reads 8, "))
    becomes(image, lambda: pad(image), final)
    image.locator("#image-compare").click()
    expect(image.get_by_role("tab", name="VAE")).to_have_attribute("aria-selected", "true")
    source = image.locator("#vae-panes").get_by_alt_text("The original")
    expect(source).to_be_visible()
    encoded = _png(final)
    image.wait_for_function("png => document.querySelector('#vae-panes img').src.endsWith(png)", arg=encoded)


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_accessible_at_every_width_in_both_themes(
    page: Page, app_url: str, errors: list[str], theme: str, width: int
) -> None:
    hosts: set[str] = set()
    page.on("request", lambda request: hosts.add(request.url.split("/")[2]) if "://" in request.url else None)
    page.set_viewport_size({"width": width, "height": 844})
    visit(page, app_url, theme)
    for name in ("Pick", "Upload", "Mask", "Draw"):
        way(page, name)
        page.wait_for_timeout(200)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        results = Axe().run(page, context={"exclude": [["footer"]]}, options=WCAG)  # the footer is Gradio's own
        assert results.violations_count == 0, results.generate_report()
    assert hosts == {app_url.split("/")[2]}


def test_a_test_image_is_left_as_it_is_and_a_drawing_is_not(studio: Studio) -> None:
    for picture in studio.examples.reshape(-1, 28, 28):
        assert (seen(picture, True) == picture).all()
    small = np.zeros((28, 28), np.uint8)
    small[4:12, 5:8] = 255
    centred = seen(small, True)
    assert np.ptp(np.argwhere(centred > 64), axis=0).max() + 1 == 20
    assert (seen(small, False) == small).all()


# ---------------------------------------------------------------- in colour


@pytest.fixture(scope="module")
def coloured(serve: Callable[..., str], words: Studio) -> str:
    """An app that begins with it."""
    shelf = Shelf(words, ["colour", "garments"], partial(tiny.studio, limits=words.limits))
    return serve(build_app(shelf), **launch_kwargs(words.limits))


@pytest.fixture
def paints(page: Page, coloured: str, errors: list[str]) -> Page:
    visit(page, coloured)
    return page


def colour(page: Page, name: str) -> None:
    page.locator("#image-source").get_by_role("radio", name=name, exact=True).check(force=True)


def sees(page: Page) -> np.ndarray:
    """What the model sees, in colour."""
    return inside(page, "What the model sees")


def test_opens_with_a_painted_3_in_its_own_colours(paints: Page, words: Studio) -> None:
    becomes(paints, lambda: rgb(paints.locator("#image-source .ink")), words.examples[3, COLUMN])
    expect(paints.locator("#image-target").get_by_role("textbox", name="What it shall show")).to_have_value(
        "a blue 3 on yellow paper"
    )
    expect(paints.locator("#image-go")).to_contain_text("Make it: a blue 3 on yellow paper · ")
    expect(reading(paints, "What the model sees")).to_have_text(
        "reads large thick red 3 on white, standing upright, in the middle"
    )
    expect(paints.locator("#image-centre")).to_be_hidden()
    expect(paints.locator("#image-compare")).to_be_hidden()  # without an autoencoder there is no such tab
    paints.set_viewport_size({"width": 1280, "height": 800})
    for part in ("#image-source .ink", "#image-target", "#image-strength", "#image-go", "#image-player canvas"):
        box = paints.locator(part).bounding_box()
        assert box["y"] + box["height"] <= 800, part


def test_draws_in_colour_on_coloured_paper_and_runs_a_sentence(paints: Page) -> None:
    source, target = paints.locator("#image-source"), paints.locator("#image-target").get_by_role("textbox")
    source.get_by_role("button", name="Clear").click()
    expect(paints.locator("#image-inside")).to_contain_text("There is no picture yet")
    colour(paints, "yellow")
    source.get_by_role("button", name="Paper in this colour").click()
    expect(reading(paints, "What the model sees")).to_have_text("reads only yellow paper")
    colour(paints, "purple")
    drag(paints, paints.locator("#image-source .ink"), (0.3, 0.2), (0.7, 0.2), (0.45, 0.8))
    expect(reading(paints, "What the model sees")).to_have_text(re.compile("^reads .*purple 7 on yellow"))
    drawn = rgb(source.locator(".ink"))
    becomes(paints, lambda: sees(paints), drawn)
    assert {tuple(COLOURS["yellow"]), tuple(COLOURS["purple"])} <= {*map(tuple, drawn.reshape(-1, 3).tolist())}
    target.fill("a crimson thik 7 <b>x</b>")
    expect(paints.locator("#image-go")).to_contain_text("Make it: a crimson thik 7 <b>x</b> · ")
    set_strength(paints, 1)
    expect(paints.locator("#image-strength")).to_contain_text("Runs 4 of 4 steps")
    turn(paints, 4)
    status = paints.locator("#image-status")
    expect(status).to_contain_text("It does not know “crimson”.")
    expect(status).to_contain_text("It does not know “thik”; did you mean thick or thin?")
    assert status.locator("b").count() == 0
    final = rgb(paints.locator("#image-player canvas"))
    assert final.shape == (32, 32, 3) and (final != drawn).any()
    paints.locator("#image-back").click()
    becomes(paints, lambda: rgb(source.locator(".ink")), final)
    target.fill("")
    expect(paints.locator("#image-go")).to_contain_text("Make it another picture · ")


def test_masks_the_paper_in_one_click(paints: Page, words: Studio) -> None:
    start = words.examples[3, COLUMN]
    way(paints, "Mask")
    paints.locator("#image-mask").get_by_role("button", name="All paper").click()
    strength = paints.locator("#image-strength")
    expect(strength).to_contain_text(re.compile(r"Only \d+ painted pixels may change."))
    masked = int(re.search(r"Only (\d+)", strength.inner_text())[1])
    set_strength(paints, 1)
    expect(strength).to_contain_text("Runs 4 of 4 steps")
    turn(paints, 4)
    expect(paints.locator("#image-status")).to_contain_text(f"{1024 - masked} pixels are yours, unchanged.")
    final = rgb(paints.locator("#image-player canvas"))
    ink = np.abs(start.astype(int) - COLOURS["red"]).max(2) < 30
    assert 100 < ink.sum() <= 1024 - masked < 400
    assert (final[ink] == start[ink]).all() and (final != start).any(2).sum() > 0.9 * masked
    # Another prompt, the same picture: the mask stays. Another picture: it is gone.
    paints.locator("#image-target").get_by_label("an orange 8").check(force=True)
    expect(paints.locator("#image-go")).to_contain_text("Make it: an orange 8")
    expect(strength).to_contain_text(f"Only {masked} painted pixels may change.")
    way(paints, "Pick")
    expect(paints.locator("#image-tests canvas")).to_have_count(10)
    paints.locator("#image-tests").get_by_label("6").check(force=True)
    becomes(paints, lambda: sees(paints), words.examples[6, COLUMN])
    expect(strength).not_to_contain_text("painted pixels")


def test_stops_in_colour(paints: Page, words: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    denoise = words.pipeline.denoiser.forward
    monkeypatch.setattr(words.pipeline.denoiser, "forward", lambda *given: time.sleep(0.02) or denoise(*given))
    stops_midway(paints, 250)


def test_takes_a_coloured_upload_as_it_is(paints: Page, words: Studio) -> None:
    way(paints, "Upload")
    expect(paints.locator("#image-tab")).to_contain_text("It is cut to a square and brought to 32 × 32 pixels.")
    wide = np.full((96, 120, 3), 128, np.uint8)
    wide[:, 12:108] = words.examples[7, 3].repeat(3, 0).repeat(3, 1)
    file = BytesIO()
    Image.fromarray(wide).save(file, "PNG")
    send(paints, "wide.png", file.getvalue())
    becomes(paints, lambda: sees(paints), words.examples[7, 3])


def test_other_shapes_come_and_go_with_their_models(paints: Page, words: Studio, still: Callable[[], None]) -> None:
    """With the tab in view all the time, and a mask painted before."""
    way(paints, "Mask")
    paints.locator("#image-mask").get_by_role("button", name="All ink").click()
    expect(paints.locator("#image-strength")).to_contain_text("painted pixels")
    way(paints, "Draw")
    for name, promise, shape in (
        ("garments", "Turn it into a bag", (28, 28)), ("colour", "Turn it into a red fox", (32, 32, 3)),
        ("garments", "Turn it into a bag", (28, 28)), ("sentences", "Make it: a blue 3 on yellow paper", (32, 32, 3)),
    ):  # fmt: skip
        paints.locator("#model input").click()
        paints.get_by_role("option", name=name, exact=True).click()
        expect(paints.locator("#image-go")).to_contain_text(promise)
        expect(paints.locator("#image-source .palette")).to_be_visible(visible=len(shape) == 3)
        still()
        expect(paints.locator("#image-go")).to_contain_text(promise)
        expect(paints.locator("#image-strength")).not_to_contain_text("painted pixels")
        assert sees(paints).shape == shape
        assert rgb(paints.locator("#image-source .ink")).shape[:2] == shape[:2]
    expect(paints.get_by_test_id("toast-body")).to_have_count(0)
    becomes(paints, lambda: sees(paints), words.examples[3, COLUMN])
    paints.locator("#image-go").click()
    expect(paints.locator("#image-status")).not_to_contain_text("Made when")


def test_a_coloured_picture_comes_from_generate(paints: Page, words: Studio) -> None:
    paints.get_by_role("tab", name="Generate").click()
    paints.locator("#generate-grid .cell").nth(4).click()
    paints.locator("#generate-change").click()
    expect(paints.locator("#image-source .ink")).to_be_visible()
    becomes(paints, lambda: rgb(paints.locator("#image-source .ink")), words.opening.pictures[4])
    becomes(paints, lambda: sees(paints), words.opening.pictures[4])


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_accessible_in_colour(page: Page, coloured: str, errors: list[str], theme: str, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 844})
    visit(page, coloured, theme)
    for name in ("Pick", "Upload", "Mask", "Draw"):
        way(page, name)
        page.wait_for_timeout(200)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        results = Axe().run(page, context={"exclude": [["footer"]]}, options=WCAG)  # the footer is Gradio's own
        assert results.violations_count == 0, results.generate_report()
    if width == 390:  # a finger's width for each: WCAG 2.2 asks for 24 pixels
        for swatch in page.locator("#image-source .palette label").all():
            box = swatch.bounding_box()
            assert box["width"] >= 28 and box["height"] >= 44
