"""The VAE tab in a real browser: what it shows is what the engine computes."""

import base64
import io
import re
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pair
import pytest
import tiny
import torch
import yaml
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from diffusion.evaluation import psnr, ssim
from diffusion.export import enlarge, read_picture, to_digit, to_image, to_pictures
from diffusion.noise import Noise
from diffusion.pipeline import Pipeline
from diffusion.ui import build_app, latents, launch_kwargs, variational
from diffusion.ui.shelf import Shelf
from diffusion.ui.studio import Studio
from diffusion.ui.tabs import vae
from diffusion.ui.widgets import tile

WCAG = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}


@pytest.fixture(scope="module")
def pipeline() -> Pipeline:
    """The model that the app runs, loaded once more."""
    return Pipeline.load("mnist-latent")


@pytest.fixture
def app(page: Page, app_url: str, errors: list[str]) -> Page:
    """A fresh page on the tab."""
    visit(page, app_url)
    return page


def visit(page: Page, address: str, theme: str = "light") -> None:
    page.goto(f"{address}/?__theme={theme}")
    page.get_by_role("tab", name="VAE").click()
    expect(page.locator("#vae-walk [data-done='1']")).to_have_attribute("data-frames", str(latents.POINTS))
    expect(page.locator("#vae-noise [data-done='1']")).to_be_visible()


def shown(page: Page, alt: str) -> np.ndarray:
    """The picture of this name among the panes."""
    source = page.locator("#vae-panes").get_by_alt_text(alt, exact=True).get_attribute("src")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(source.removeprefix("data:image/png;base64,")))))


def settled(page: Page, picture: np.ndarray) -> None:
    """Waits until the tab shows what became of a picture."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    source = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    expect(page.get_by_alt_text("The original", exact=True)).to_have_attribute("src", source)


def pick(page: Page, which: str, digit: str) -> None:
    page.locator(f"#vae-{which}").get_by_role("radio", name=digit).check(force=True)


def pane(player: Locator, index: int) -> np.ndarray:
    """What a player's pane shows, (H, W)."""
    canvas = player.locator("canvas").nth(index)
    flat = canvas.evaluate("c => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]")
    return np.array(flat, np.uint8).reshape(*canvas.evaluate("c => [c.height, c.width]"), 4)[..., 0]


def there_and_back(pipeline: Pipeline, picture: np.ndarray) -> tuple[torch.Tensor, torch.Tensor, np.ndarray]:
    """A picture as an image, reconstructed, and that as a picture again."""
    image = to_image(picture)[None]
    rebuilt = pipeline.reconstruct(image)
    return image, rebuilt, to_pictures(rebuilt)[0]


def agrees(page: Page, pipeline: Pipeline, picture: np.ndarray) -> None:
    """Everything that is shown of a picture is what the engine makes of it."""
    settled(page, picture)
    image, rebuilt, restored = there_and_back(pipeline, picture)
    assert np.array_equal(shown(page, "The original"), picture)
    assert np.array_equal(shown(page, "The reconstruction"), restored)
    difference = np.abs(picture.astype(int) - restored)
    assert np.array_equal(shown(page, "The absolute difference"), np.minimum(latents.GAIN * difference, 255))
    with torch.no_grad():
        z = pipeline.codec.encode(image)[0].numpy()
    for channel, (values, colours) in enumerate(zip(z, latents.coloured(z), strict=True), 1):
        assert np.array_equal(shown(page, f"Latent channel {channel}"), colours)
        text = f"{values.min():.1f} to {values.max():.1f}".replace("-", "−")
        expect(page.locator(".maps p").nth(channel - 1)).to_have_text(text)
    facts = page.locator("#vae-facts")
    expect(facts).to_contain_text("784 → 256")
    expect(facts).to_contain_text("784 → 1024")
    expect(facts).to_contain_text(f"{psnr(rebuilt, image):.2f} dB")
    expect(facts).to_contain_text(f"{ssim(rebuilt, image):.4f}")


def test_opens_with_a_picture_that_was_already_through(app: Page, pipeline: Pipeline, examples: np.ndarray) -> None:
    agrees(app, pipeline, examples[vae.FIRST])
    for status in ("#vae-status", "#vae-noise-status"):
        expect(app.locator(status)).to_contain_text("Made when the model was opened.")
        expect(app.locator(status)).to_contain_text("mnist-latent (")
    expect(app.locator("#vae-reason tbody tr")).to_have_count(4)


def test_numbers_of_a_picked_digit_are_the_engines(app: Page, pipeline: Pipeline, examples: np.ndarray) -> None:
    pick(app, "picker", "7")
    agrees(app, pipeline, examples[7, 0])
    expect(app.locator("#vae-status")).not_to_contain_text("opened")
    app.get_by_role("button", name="Another like it").click()
    agrees(app, pipeline, examples[7, 1])
    app.get_by_role("button", name="Another like it").press("Enter")
    agrees(app, pipeline, examples[7, 2])
    group = app.get_by_role("group", name="Test image")
    group.get_by_role("radio", name="7").focus()
    app.keyboard.press("ArrowRight")
    agrees(app, pipeline, examples[8, 0])


def test_the_walk_is_smooth_and_needs_no_server(
    app: Page, pipeline: Pipeline, examples: np.ndarray, still: Callable[[], None], posts: Callable[[], list[str]]
) -> None:
    walk, first, second = app.locator("#vae-walk"), examples[vae.FIRST], examples[vae.SECOND]
    still()
    requests = posts()
    scrub = walk.get_by_role("slider")
    scrub.press("Home")
    left, right = [], []
    for _ in range(latents.POINTS):
        left.append(pane(walk, 0).astype(int))
        right.append(pane(walk, 1).astype(int))
        scrub.press("ArrowRight")
    expect(walk.locator(".position")).to_have_text(f"{latents.POINTS} / {latents.POINTS}")
    app.wait_for_timeout(300)
    assert requests == []
    # A batch of thirty-three rounds differently from a batch of one, by less than one grey level.
    assert np.abs(left[0] - there_and_back(pipeline, first)[2]).max() <= 1
    assert np.abs(left[-1] - there_and_back(pipeline, second)[2]).max() <= 1
    assert np.array_equal(right[0], first)
    assert np.array_equal(right[-1], second)
    steps = [np.abs(b - a).mean() for a, b in pairwise(left)]
    assert max(steps) < np.abs(left[-1] - left[0]).mean() / 5
    assert min(steps) > 0


def test_the_walk_follows_both_pictures(app: Page, pipeline: Pipeline, examples: np.ndarray) -> None:
    walk = app.locator("#vae-walk")
    pick(app, "goal", "1")
    wait_for_pane(app, walk, 1, examples[1, 1])
    app.get_by_role("button", name="Another to walk to").click()
    wait_for_pane(app, walk, 1, examples[1, 2], "End")
    pick(app, "picker", "0")
    wait_for_pane(app, walk, 1, examples[0, 0], "Home")
    assert np.abs(pane(walk, 0).astype(int) - there_and_back(pipeline, examples[0, 0])[2]).max() <= 1


def wait_for_pane(page: Page, player: Locator, index: int, picture: np.ndarray, key: str = "End") -> None:
    """Waits for a new film whose first or last frame is this picture."""
    for _ in range(200):
        player.get_by_role("slider").press(key)
        if np.array_equal(pane(player, index), picture):
            return
        page.wait_for_timeout(50)
    pytest.fail("The player never showed the picture.")


def choose(page: Page, path: Path) -> None:
    with page.expect_file_chooser() as chooser:
        page.get_by_role("button", name="Your own picture").click()
    chooser.value.set_files(path)


def test_an_uploaded_drawing_becomes_a_digit(
    app: Page, pipeline: Pipeline, examples: np.ndarray, tmp_path: Path
) -> None:
    paper = np.full((400, 300), 255, np.uint8)
    paper[60:256, 50:246] -= enlarge(examples[5, 3], 7)
    Image.fromarray(paper).save(tmp_path / "five.png")
    choose(app, tmp_path / "five.png")
    agrees(app, pipeline, to_digit(read_picture(tmp_path / "five.png")))


def blank(path: Path) -> None:
    Image.new("L", (64, 64), "white").save(path, "PNG")


def cut(path: Path) -> None:
    buffer = io.BytesIO()
    Image.effect_noise((200, 200), 80).save(buffer, "PNG")
    path.write_bytes(buffer.getvalue()[:3000])


def huge(path: Path) -> None:
    Image.new("1", (6000, 6000)).save(path, "PNG")


HOSTILE = {
    "blank.png": (blank, "no ink stands out"),
    "cut.png": (cut, "the picture is damaged"),
    "huge.png": (huge, "larger than 4096 x 4096"),
    "text.png": (lambda path: path.write_text("<script>alert(1)</script>"), "not a picture that can be read"),
    "empty.jpg": (lambda path: path.write_bytes(b""), "not a picture that can be read"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_that_is_no_digit_is_refused_in_a_sentence(
    app: Page, examples: np.ndarray, tmp_path: Path, name: str
) -> None:
    make, sentence = HOSTILE[name]
    make(tmp_path / name)
    choose(app, tmp_path / name)
    expect(app.locator(".toast-body")).to_contain_text(sentence)
    settled(app, examples[vae.FIRST])


def test_noise_leaves_for_pictures(app: Page, pipeline: Pipeline) -> None:
    noise = app.locator("#vae-noise")
    before = pane(noise, 0)
    app.get_by_role("button", name="Other noise").click()
    status = app.locator("#vae-noise-status")
    expect(status).not_to_contain_text("opened")
    expect(status).to_contain_text(re.compile(r"Seeds \d+ to \d+, no prompt; .* calls in"))
    seed = int(re.search(r"Seeds (\d+)", status.inner_text())[1])
    steps = pipeline.config.defaults.steps
    expect(noise.locator("[data-done='1']")).to_have_attribute("data-frames", str(steps + 1))
    expect(noise.locator(".position")).to_have_text(f"{steps} / {steps}")
    plain = to_pictures(pipeline.decode(Noise(range(seed, seed + latents.DRAWS))(torch.empty(4, 4, 8, 8))))
    assert np.abs(pane(noise, 0).astype(int) - tile(plain, 2)).max() <= 1
    assert not np.array_equal(pane(noise, 0), before)
    lost = [int(found) for found in re.findall(r"(\d+)% of the latent", noise.locator(".caption").inner_text())]
    noise.get_by_role("slider").press("Home")
    # The denoiser starts at the noise itself, which the round trip loses, and ends nearer to what the encoder makes.
    assert np.abs(pane(noise, 1).astype(int) - pane(noise, 0)).mean() < 1
    lost += [int(found) for found in re.findall(r"(\d+)% of the latent", noise.locator(".caption").inner_text())]
    assert lost[0] < lost[1]


@pytest.fixture(scope="module")
def painter() -> Studio:
    """A model of painted pictures, not trained."""
    return pair.own()


@pytest.fixture(scope="module")
def lesson(
    painter: Studio, serve: Callable[..., str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, torch.nn.Module]]:
    """The address of an app whose model has a counterpart, and that counterpart's codec."""
    folder = tmp_path_factory.mktemp("checkpoints")
    other = pair.write(folder, "other")
    pair.measured(folder, "other")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(variational, "counterpart", partial(variational.counterpart, under=folder))
        shelf = Shelf(painter, ["plain"], partial(tiny.studio, limits=painter.limits))
        yield serve(build_app(shelf), **launch_kwargs(shelf.limits)), other.codec


def test_two_autoencoders_side_by_side(
    page: Page, errors: list[str], painter: Studio, lesson: tuple[str, torch.nn.Module]
) -> None:
    address, other = lesson
    codecs = painter.pipeline.codec, other
    visit(page, address)
    first = painter.nth(vae.FIRST[1])[vae.FIRST[0]]
    line, rising = page.locator("#vae-why-between"), page.locator("#vae-why-noised")
    for player in (line, rising):
        expect(player.locator("[data-done='1']")).to_have_attribute("data-frames", str(variational.POINTS))
        player.get_by_role("slider").press("Home")
        assert [label.strip() for label in player.locator(".panes").inner_text().splitlines() if label.strip()] == [
            *variational.titles(pair.SURVEY)
        ]

    def drawn(picture: np.ndarray, codec: torch.nn.Module) -> np.ndarray:
        with torch.no_grad():
            return to_pictures(codec.decode(codec.encode(to_image(picture)[None])))[0, ..., 0].astype(int)

    for index, codec in enumerate(codecs):
        assert np.abs(pane(line, index) - drawn(first, codec)).max() <= 1
        assert np.abs(pane(rising, index) - drawn(first, codec)).max() <= 1
    third = painter.nth(vae.SECOND[1])[3]
    pick(page, "goal", painter.kinds[3])
    expected = drawn(third, other)
    for _ in range(200):
        line.get_by_role("slider").press("End")
        if np.abs(pane(line, 1) - expected).max() <= 1:
            break
        page.wait_for_timeout(50)
    assert np.abs(pane(line, 0) - drawn(third, codecs[0])).max() <= 1
    assert np.abs(pane(line, 1) - expected).max() <= 1
    expect(page.locator("#vae-why-table tbody tr")).to_have_count(10)
    expect(page.locator("#vae-why")).to_contain_text("16% of the pairs")


def test_a_model_without_counterpart_has_no_lesson(
    page: Page, errors: list[str], app_url: str, lesson: tuple[str, torch.nn.Module]
) -> None:
    visit(page, app_url)
    expect(page.locator("#vae-why")).to_be_hidden()
    visit(page, lesson[0])
    expect(page.locator("#vae-why")).to_be_visible()
    page.locator("#model input").click()
    page.get_by_role("option", name="plain", exact=True).click()
    expect(page.locator("#vae-absent")).to_contain_text("plain has no autoencoder")
    expect(page.locator("#vae-why")).to_be_hidden()


@pytest.mark.parametrize(("width", "theme"), [(1280, "light"), (390, "dark")])
def test_the_lesson_is_accessible_and_fits(
    page: Page, errors: list[str], lesson: tuple[str, torch.nn.Module], width: int, theme: str
) -> None:
    page.set_viewport_size({"width": width, "height": 844})
    visit(page, lesson[0], theme)
    expect(page.locator("#vae-why-noised [data-done='1']")).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    results = Axe().run(page, context={"include": [["#vae-why"]]}, options=WCAG)
    assert results.violations_count == 0, results.generate_report()


def test_the_explanation_states_the_recipe(app: Page) -> None:
    recipe = yaml.safe_load((Path(__file__).parents[2] / "checkpoints/mnist-latent/recipe.yaml").read_text("utf-8"))
    app.get_by_role("button", name="How the autoencoder works").click()
    expect(app.locator(".katex-display").first).to_be_visible()
    formula = app.locator(".katex annotation", has_text=f"\\beta = {recipe['vae']['kl_weight']:g}")
    expect(formula).to_have_count(1)
    assert app.locator(".katex-error").count() == 0


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_accessible_at_every_width_in_both_themes(page: Page, app_url: str, errors: list[str], theme: str, width: int):
    page.set_viewport_size({"width": width, "height": 844})
    visit(page, app_url, theme)
    page.get_by_role("button", name="How the autoencoder works").click()
    expect(page.locator(".katex-display").first).to_be_visible()
    page.wait_for_timeout(300)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    results = Axe().run(page, context={"exclude": [["footer"]]}, options=WCAG)  # the footer is Gradio's own
    assert results.violations_count == 0, results.generate_report()


def test_the_arc_keeps_its_length() -> None:
    angle, t = torch.tensor(1.4), torch.linspace(0, 1, 9)
    a, b = torch.tensor([2.0, 0.0]), 2 * torch.stack([angle.cos(), angle.sin()])
    arc = latents.slerp_weights(angle, t) @ torch.stack([a, b])
    torch.testing.assert_close(arc.norm(dim=1), torch.full((9,), 2.0))
    torch.testing.assert_close(torch.atan2(arc[:, 1], arc[:, 0]), t * angle)
    line = torch.stack([1 - t, t], 1)
    for degenerate in (torch.tensor(0.0), torch.tensor(torch.pi)):
        torch.testing.assert_close(latents.slerp_weights(degenerate, t), line)


def test_colours_tell_sign_and_size() -> None:
    colours = latents.coloured(np.array([-9.0, -latents.SCALE, 0.0, latents.SCALE / 2, 9.0]))
    assert colours.tolist() == [[*latents.BELOW], [*latents.BELOW], [0, 0, 0], [128, 75, 30], [*latents.ABOVE]]


def test_neighbours_are_told_from_noise() -> None:
    noise = torch.randn(100, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    assert latents.neighbours(noise) < 0.05
    smooth = torch.nn.functional.avg_pool2d(torch.nn.functional.pad(noise, (1, 1, 1, 1)), 3, 1)
    assert 0.6 < latents.neighbours(smooth) < 0.75
