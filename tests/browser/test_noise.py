"""The Noise tab in a real browser: what moves with the slider is what the engine computes."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from playwright.sync_api import Locator, Page, expect

from diffusion.data import to_uint8
from diffusion.export import fit, read_picture, to_image
from diffusion.noise import Noise
from diffusion.schedules import Discrete
from diffusion.ui.noising import SCHEDULES, lesson, tables
from diffusion.ui.tabs import noise

PATHS = {path.name: path for path in tables()}
LAST = 500  # of the slider


@pytest.fixture
def app(page: Page, app_url: str, errors: list[str]) -> Page:
    """A fresh page on the tab."""
    visit(page, app_url)
    return page


def visit(page: Page, app_url: str, theme: str = "light") -> None:
    page.goto(f"{app_url}/?__theme={theme}")
    page.get_by_role("tab", name="Noise", exact=True).click()
    expect(page.locator("#noise-bench .ladder button")).to_have_count(9)
    expect(page.locator("#noise-curves tbody tr")).to_have_count(len(SCHEDULES))
    expect(page.locator("#noise-plot [data-paths]")).to_have_attribute("data-paths", str(noise.PATHS))


def pixels(page: Page, name: str) -> np.ndarray:
    """What a canvas of the bench shows, (28, 28)."""
    script = "c => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data].filter((_, k) => k % 4 === 0)"
    return np.array(page.locator(f"#noise-bench {name}").evaluate(script)).reshape(28, 28)


def mixed(picture: np.ndarray, a: float, s: float, seed: int = noise.SEED) -> np.ndarray:
    """The engine's a x0 + s eps as a picture."""
    eps = Noise([seed])(torch.empty(1, *picture.shape))[0]
    return to_uint8(a * to_image(picture)[0] + s * eps).numpy().astype(int)


def numbers(page: Page) -> dict[str, float]:
    """The numbers of the level on show, by what stands above them."""
    terms, values = (page.locator(f"#noise-bench {tag}").all_inner_texts() for tag in ("dt", "dd"))
    return {term: number(value) for term, value in zip(terms, values, strict=True)}


def number(text: str) -> float:
    """A number as the page writes it."""
    raised = str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789")
    text = text.replace("−", "-").replace("∞", "inf")
    base, _, power = text.partition(" × 10")
    return float(base) * 10.0 ** int(power.translate(raised) or 0)


def choose(page: Page, schedule: str) -> None:
    page.locator("#noise-bench .schedules").get_by_role("radio", name=schedule, exact=True).check(force=True)


def slide(page: Page) -> Locator:
    return page.locator("#noise-bench").get_by_role("slider")


def agrees(page: Page, schedule: str, at: int, picture: np.ndarray) -> None:
    """All that is shown at a place of the slider is the engine's."""
    path = PATHS[schedule]
    t, a, s, sigma = (float(values[at]) for values in (path.t, path.a, path.s, path.sigma))
    snr = 1 / sigma**2 if sigma else np.inf
    with np.errstate(divide="ignore"):
        expected = [t, a, s, sigma, snr, np.log(snr)]
    assert list(numbers(page).values()) == pytest.approx(expected, rel=0.006, abs=6e-4 if at else 1e-9)
    assert np.abs(pixels(page, ".noised") - mixed(picture, a, s)).max() <= 1
    scale = 1 / np.hypot(1, sigma)
    assert np.abs(pixels(page, ".shared") - mixed(picture, scale, scale * sigma)).max() <= 1


def test_opens_half_noised(app: Page, examples: np.ndarray) -> None:
    picture = examples[noise.FIRST, noise.COLUMN]
    agrees(app, "Cosine", LAST // 2, picture)
    assert np.array_equal(pixels(app, ".clean"), picture)
    assert np.abs(pixels(app, ".noise") - mixed(picture, 0, 1)).max() <= 1


def test_dragging_the_slider_shows_at_once_what_the_engine_computes(
    app: Page, examples: np.ndarray, still: Callable[[], None], posts: Callable[[], list[str]]
) -> None:
    picture = examples[noise.FIRST, noise.COLUMN]
    still()
    requests = posts()
    box = slide(app).bounding_box()
    middle = box["y"] + box["height"] / 2
    app.mouse.move(box["x"] + box["width"] / 2, middle)
    app.mouse.down()
    seen = []
    for share in (0.6, 0.8, 0.3, 0.1):
        app.mouse.move(box["x"] + box["width"] * share, middle)
        at = int(slide(app).input_value())
        assert abs(at / LAST - share) < 0.03
        agrees(app, "Cosine", at, picture)
        seen.append(pixels(app, ".noised").tobytes())
    app.mouse.up()
    assert len(set(seen)) == 4
    for key, at in (("Home", 0), ("End", LAST), ("ArrowLeft", LAST - 1)):
        slide(app).press(key)
        agrees(app, "Cosine", at, picture)
    expect(slide(app)).to_have_attribute("aria-valuetext", re.compile(r"Cosine, t = 0\.998, σ = "))
    app.wait_for_timeout(300)
    assert requests == []


def test_another_schedule_keeps_the_noise_level(app: Page, examples: np.ndarray) -> None:
    picture, before = examples[noise.FIRST, noise.COLUMN], pixels(app, ".shared")
    sigma = PATHS["Cosine"].sigma[LAST // 2]
    for name, (schedule, _) in SCHEDULES.items():
        choose(app, name)
        level = torch.tensor(sigma, dtype=torch.float64)
        t, alpha = float(schedule.t(level)), float(schedule.alpha(level))
        t = t / (schedule.steps - 1) if isinstance(schedule, Discrete) else t
        assert list(numbers(app).values())[:4] == pytest.approx([t, alpha, alpha * sigma, sigma], rel=0.006, abs=6e-4)
        assert np.abs(pixels(app, ".shared") - before).max() <= 1
        assert np.abs(pixels(app, ".noised") - mixed(picture, alpha, alpha * sigma)).max() <= 1


def test_or_it_keeps_the_time(app: Page, examples: np.ndarray) -> None:
    picture = examples[noise.FIRST, noise.COLUMN]
    app.get_by_role("radio", name="the time t").check(force=True)
    for schedule in ("Linear", "VE", "Flow"):
        choose(app, schedule)
        agrees(app, schedule, LAST // 2, picture)
    expect(app.locator("#noise-curves .note")).to_contain_text("One time, six noise levels")
    times = app.locator("#noise-curves tbody tr td:nth-child(2)").all_inner_texts()
    assert times == ["0.500"] * 6
    found = [number(text) for text in app.locator("#noise-curves tbody tr td:last-child").all_inner_texts()]
    assert found == pytest.approx([float(path.sigma[LAST // 2]) for path in PATHS.values()], rel=0.006)


def test_a_schedule_that_ends_sooner_says_so_and_comes_back(app: Page) -> None:
    """VE ends at 9.85: further levels it does not reach, and the level is kept for those that do."""
    slide(app).press("End")
    choose(app, "VE")
    assert numbers(app)["t"] == 1
    expect(app.locator("#noise-curves .note")).to_contain_text("Not as far: Linear, Scaled linear, Cosine, VP, Flow")
    choose(app, "Cosine")
    expect(slide(app)).to_have_value(str(LAST))
    assert numbers(app)["σ = sₜ / aₜ"] == pytest.approx(float(PATHS["Cosine"].sigma[-1]), rel=0.03)


def test_the_ladder_and_the_charts_move_the_level(app: Page, examples: np.ndarray) -> None:
    picture = examples[noise.FIRST, noise.COLUMN]
    rungs = app.locator("#noise-bench .ladder button")
    rungs.nth(6).click()
    agrees(app, "Cosine", 375, picture)
    expect(rungs.nth(6)).to_have_attribute("aria-current", "true")
    rungs.nth(2).press("Enter")
    agrees(app, "Cosine", 125, picture)
    plot = app.locator("#noise-curves svg.plot").first
    box = plot.bounding_box()
    plot.hover(position={"x": box["width"] * 0.5, "y": box["height"] * 0.5})
    hint = app.locator("#noise-curves figcaption span").first
    expect(hint).to_have_text(re.compile(r", t 0\.4\d: "))
    name, t, sigma = re.fullmatch(r"(.+), t (.+): (.+)", hint.inner_text()).groups()
    assert number(sigma) == pytest.approx(np.interp(float(t), PATHS[name].t, PATHS[name].sigma), rel=0.03)
    expect(slide(app)).to_have_value("125")
    plot.click(position={"x": box["width"] - 8, "y": 40})
    assert int(slide(app).input_value()) > 495
    assert numbers(app)["t"] > 0.99


def test_the_curves_are_drawn_for_every_schedule(app: Page) -> None:
    curves = app.locator("#noise-curves .lines")
    expect(curves).to_have_count(4)
    drawn = curves.evaluate_all("all => all.map(g => [...g.children].filter(line => line.getAttribute('d')).length)")
    assert drawn == [6, 6, 6, 4]  # VE and Flow have no beta
    choose(app, "VP")
    expect(app.locator("#noise-curves .line.chosen.c4")).to_have_count(4)
    expect(app.locator("#noise-curves tr.chosen th")).to_have_text("VP")


def test_pictures_come_from_everywhere(app: Page, examples: np.ndarray, tmp_path: Path) -> None:
    tests = app.locator("#noise-tests")
    tests.get_by_role("radio", name="7").check(force=True)
    shows(app, examples[7, noise.COLUMN])
    app.locator("#noise-others").click()
    expect(tests.get_by_role("radio", checked=True)).to_have_count(0)
    tests.get_by_role("radio", name="7").check(force=True)
    shows(app, examples[7, noise.COLUMN + 1])
    Image.effect_noise((300, 200), 90).save(tmp_path / "photo.png")
    app.locator("#noise-ways").get_by_role("tab", name="Upload").click()
    upload(app, tmp_path / "photo.png")
    shows(app, fit(read_picture(tmp_path / "photo.png"), (1, 28, 28)))
    (tmp_path / "text.png").write_text("<script>alert(1)</script>")
    upload(app, tmp_path / "text.png")
    expect(app.locator(".toast-body")).to_contain_text("not a picture that can be read")
    app.locator("#noise-ways").get_by_role("tab", name="Draw").click()
    pad = app.locator("#noise-sketch .ink")
    pad.focus()
    app.keyboard.press("Space")
    expect(app.locator("#noise-sketch [data-painted]")).not_to_have_attribute("data-painted", "0")
    for _ in range(200):
        if (pixels(app, ".clean") > 0).sum() < 40:
            break
        app.wait_for_timeout(50)
    assert pixels(app, ".clean")[13:15, 13:15].max() > 127


def shows(page: Page, picture: np.ndarray) -> None:
    """Waits until the bench has this picture, and the state mixed from it."""
    for _ in range(200):
        if np.array_equal(pixels(page, ".clean"), picture):
            break
        page.wait_for_timeout(50)
    path = PATHS["Cosine"]
    expected = mixed(picture, float(path.a[LAST // 2]), float(path.s[LAST // 2]))
    assert np.abs(pixels(page, ".noised") - expected).max() <= 1


def upload(page: Page, path: Path) -> None:
    with page.expect_file_chooser() as chooser:
        page.locator("#noise-tab").get_by_role("button", name="Choose a picture").click()
    chooser.value.set_files(path)


def test_new_noise_is_other_noise_for_the_same_picture(app: Page) -> None:
    before, clean = pixels(app, ".noise"), pixels(app, ".clean")
    app.get_by_role("button", name="New noise").click()
    for _ in range(200):
        if not np.array_equal(pixels(app, ".noise"), before):
            break
        app.wait_for_timeout(50)
    assert not np.array_equal(pixels(app, ".noise"), before)
    assert np.array_equal(pixels(app, ".clean"), clean)


# A line


def distance(page: Page) -> Locator:
    return page.locator("#noise-facts dd").first


def test_few_steps_are_seen_as_a_number(app: Page) -> None:
    def measured(steps: int, strength: float = 1.0) -> str:
        facts = lesson(noise.TARGET, steps, noise.PATHS, strength, noise.LINE_SEED)[1]
        return re.search(r"<dd>([0-9.]+)</dd>", facts)[1]

    expect(distance(app)).to_have_text(measured(noise.STEPS))
    field = app.locator("#noise-steps").get_by_role("spinbutton")
    field.fill("6")
    field.press("Enter")
    expect(distance(app)).to_have_text(measured(6))
    assert float(measured(6)) > 4 * float(measured(noise.STEPS))
    expect(app.locator("#noise-plot [data-steps]")).to_have_attribute("data-steps", "6")
    strength = app.locator("#noise-strength").get_by_role("spinbutton")
    strength.fill("0")
    strength.press("Enter")
    expect(distance(app)).to_have_text(measured(6, 0.0))


def test_a_hostile_number_does_no_harm(app: Page) -> None:
    """The control brings it into its range, or the server refuses it in a sentence; the plot goes on working."""
    field, plot = app.locator("#noise-steps").get_by_role("spinbutton"), app.locator("#noise-plot [data-steps]")
    for value, good in (("-5", "9"), ("1e9", "10"), ("3.7", "11")):
        field.fill(value)
        field.press("Tab")
        app.wait_for_timeout(500)
        assert 4 <= int(plot.get_attribute("data-steps")) <= 250
        field.fill(good)
        field.press("Tab")
        expect(plot).to_have_attribute("data-steps", good)


def inked(page: Page) -> str:
    return page.locator("#noise-plot .plane").evaluate("c => c.toDataURL()")


def test_paths_are_played_and_scrubbed_both_ways(
    app: Page, still: Callable[[], None], posts: Callable[[], list[str]]
) -> None:
    plot = app.locator("#noise-plot")
    scrub, play = plot.get_by_role("slider"), plot.locator(".play")
    expect(scrub).to_have_value(str(noise.STEPS))  # whole at first: nothing moves unasked
    still()
    requests = posts()
    whole = inked(app)
    scrub.press("Home")
    expect(plot.locator(".position")).to_have_text("t 1.00 · σ 150")
    start = inked(app)
    assert start != whole
    play.click()
    expect(play).to_have_attribute("aria-label", "Pause")
    expect(play).to_have_attribute("aria-label", "Play")
    expect(scrub).to_have_value(str(noise.STEPS))
    assert inked(app) == whole
    plot.get_by_role("radio", name="Forward: data to noise").check(force=True)
    assert inked(app) != whole
    scrub.press("Home")
    expect(plot.locator(".position")).to_have_text("t 0.00 · σ 0")
    scrub.press("ArrowRight")
    expect(scrub).to_have_attribute("aria-valuetext", re.compile(rf"Step 1 of {noise.STEPS}, t = 0\.0"))
    app.wait_for_timeout(300)
    assert requests == []


def test_other_data_and_other_paths_are_drawn(app: Page) -> None:
    shown = inked(app)
    for act in (
        lambda: app.locator("#noise-target").get_by_role("radio", name="Two points").check(force=True),
        lambda: app.get_by_role("button", name="Other paths").click(),
    ):
        act()
        for _ in range(200):
            if inked(app) != shown:
                break
            app.wait_for_timeout(50)
        assert inked(app) != shown
        shown = inked(app)


# Everybody


def test_the_keyboard_alone_is_enough(app: Page) -> None:
    """From the slider: Tab to the schedules, arrows among them, Tab on to the ladder."""
    slide(app).focus()
    app.keyboard.press("Tab")
    app.keyboard.press("ArrowRight")
    assert app.locator("#noise-curves tr.chosen th").inner_text() == "VE"
    app.keyboard.press("Tab")
    app.keyboard.press("ArrowDown")
    expect(app.get_by_role("radio", name="the time t")).to_be_checked()
    app.keyboard.press("Tab")
    app.keyboard.press("Enter")
    expect(slide(app)).to_have_value("0")
