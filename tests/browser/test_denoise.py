"""The Denoise tab in a real browser: the film of a run, its formulas, its files."""

import re
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image, ImageSequence
from playwright.sync_api import Locator, Page, expect

from diffusion.ui.studio import Studio

WCAG = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}


@pytest.fixture
def denoise(page: Page, app_url: str, errors: list[str]) -> Page:
    """A fresh page on the tab, with the film that it opens with."""
    visit(page, app_url)
    return page


def visit(page: Page, address: str, theme: str = "light") -> None:
    page.goto(f"{address}/?__theme={theme}")
    page.get_by_role("tab", name="Denoise").click()
    expect(page.locator("#denoise-player [data-done='1']")).to_be_visible()


def run(page: Page, steps: int, sampler: str | None = None) -> None:
    """A run from start to finish."""
    page.locator("#denoise-steps").get_by_label("number input for Steps").fill(str(steps))
    page.keyboard.press("Tab")
    if sampler:
        page.locator("#denoise-sampler input").click()
        page.get_by_role("option", name=sampler, exact=True).click()
    page.locator("#denoise-go").click()
    expect(page.locator("#denoise-player [data-done='1']")).to_have_attribute("data-frames", str(steps + 1))
    expect(page.locator("#denoise-status")).not_to_contain_text("when the model was opened")


def scrubber(page: Page) -> Locator:
    return page.locator("#denoise-player").get_by_role("slider")


def pixels(page: Page, pane: int) -> np.ndarray:
    """What a pane shows, (H, W)."""
    canvas = page.locator("#denoise-player canvas").nth(pane)
    flat = canvas.evaluate("c => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]")
    return np.array(flat, np.uint8).reshape(*canvas.evaluate("c => [c.height, c.width]"), 4)[..., 0]


def film(page: Page, pane: int, frames: int) -> list[np.ndarray]:
    """A pane's frames, found by moving the slider."""
    scrubber(page).press("Home")
    found = []
    for _ in range(frames):
        found.append(pixels(page, pane))
        scrubber(page).press("ArrowRight")
    return found


def test_opens_with_a_film_that_was_made_when_the_model_was_opened(denoise: Page) -> None:
    player = denoise.locator("#denoise-player")
    expect(denoise.locator("#denoise-status")).to_contain_text(
        re.compile(r"Made when the model was opened. From step \d+ of 20 on, every prediction is read as \d\.")
    )
    expect(player.locator(".pane .name")).to_have_text(
        ["Noisy state, 4 × 8 × 8", "Noisy state, decoded", "Predicted picture"]
    )
    expect(player.locator(".formula")).to_contain_text("σ′ = 0: what is left is the prediction itself")
    assert pixels(denoise, 0).shape == (17, 17)
    # The state is noise free at the end: it is the prediction.
    assert np.abs(pixels(denoise, 1).astype(int) - pixels(denoise, 2)).max() <= 1


def test_runs_then_scrubs_without_the_server(
    denoise: Page, still: Callable[[], None], posts: Callable[[], list[str]]
) -> None:
    denoise.locator("#denoise-picker").get_by_label("4").check(force=True)
    run(denoise, 8, "DDIM")
    expect(denoise.locator("#denoise-status")).to_contain_text(
        re.compile(r"DDIM, seed 10: 8 network calls in .* on CPU")
    )
    still()
    requests = posts()
    player = denoise.locator("#denoise-player")
    scrubber(denoise).press("Home")
    expect(player.locator(".position")).to_have_text("0 / 8")
    expect(player.locator(".caption")).to_contain_text("pure noise, before any network call")
    expect(player.locator(".formula")).to_contain_text("x = σ ε")
    seen = {player.locator(".formula").inner_text()}
    calls = []
    for _ in range(8):
        scrubber(denoise).press("ArrowRight")
        seen.add(player.locator(".formula").inner_text())
        calls.append(re.search(r"(\d+) network call", player.locator(".caption").inner_text())[1])
    assert len(seen) == 9
    assert calls == [str(k) for k in range(1, 9)]
    expect(player.locator(".caption")).to_contain_text(re.compile(r"The prediction reads as \d, \d+ %"))
    expect(player.locator(".curves b")).to_have_text(["0", "∞"])
    denoise.wait_for_timeout(300)
    assert requests == []


def test_each_frame_has_its_numbers(denoise: Page) -> None:
    run(denoise, 5, "Euler")
    player = denoise.locator("#denoise-player")
    scrubber(denoise).press("Home")
    scrubber(denoise).press("ArrowRight")
    scrubber(denoise).press("ArrowRight")
    said = re.search(r"σ (\S+) → (\S+),\s+SNR (\S+),", player.locator(".caption").inner_text())
    s, s_next, snr = map(float, said.groups())
    assert snr == pytest.approx(s_next**-2, rel=0.02)
    x, x0 = re.search(r"x ← (\S+) x \+ (\S+) x₀$", player.locator(".formula").inner_text()).groups()
    assert float(x) == pytest.approx(s_next / s, rel=0.02)
    assert float(x) + float(x0) == pytest.approx(1, abs=0.002)


def test_plays_and_pauses_by_keyboard(denoise: Page) -> None:
    position = denoise.locator("#denoise-player .position")
    play = denoise.locator("#denoise-player .play")
    play.focus()
    denoise.keyboard.press("Space")
    expect(position).to_have_text(re.compile(r"^[1-9]\d? / 20"))
    denoise.keyboard.press("Enter")
    expect(play).to_have_attribute("aria-label", "Play")
    shown = position.inner_text()
    denoise.wait_for_timeout(400)
    expect(position).to_have_text(shown)
    denoise.keyboard.press("Tab")
    denoise.keyboard.press("End")
    expect(position).to_have_text("20 / 20")


@pytest.mark.parametrize(("suffix", "name"), [("gif", "GIF"), ("webp", "WebP")])
def test_saved_films_are_the_run(denoise: Page, tmp_path: Path, suffix: str, name: str) -> None:
    run(denoise, 6)
    noisy, clean = film(denoise, 1, 7), film(denoise, 2, 7)
    shown = [np.concatenate([a, b], 1) for a, b in zip(noisy, clean, strict=True)]
    with denoise.expect_download() as download:
        denoise.get_by_role("button", name=f"Save {name}").click()
    assert download.value.suggested_filename == f"denoise-any-seed-10.{suffix}"
    download.value.save_as(tmp_path / f"film.{suffix}")
    with Image.open(tmp_path / f"film.{suffix}") as file:
        saved, times = [], []
        for frame in ImageSequence.Iterator(file):
            saved.append(np.asarray(frame.convert("L")))
            times.append(frame.info["duration"])
    assert saved[0].shape == (280, 568)
    small = [np.concatenate([frame[5::10, 5:280:10], frame[5::10, 293::10]], 1) for frame in saved]
    # A frame equal to the one before it is not stored twice: that one is shown for longer.
    distinct = [b for a, b in zip([None, *shown[:-1]], shown, strict=True) if a is None or not np.array_equal(a, b)]
    assert len(small) == len(distinct)
    assert all(np.array_equal(a, b) for a, b in zip(small, distinct, strict=True))
    assert sum(times) == pytest.approx(7 * 125 + 2000, abs=70)
    assert times[-1] >= 2000


def test_saves_the_panes_that_are_chosen(denoise: Page, tmp_path: Path) -> None:
    panes = denoise.locator("#denoise-saved")
    panes.get_by_label("Noisy state, 4 × 8 × 8").check()
    with denoise.expect_download() as download:
        denoise.get_by_role("button", name="Save GIF").click()
    download.value.save_as(tmp_path / "film.gif")
    with Image.open(tmp_path / "film.gif") as file:
        assert file.size == (272 + 280 + 280 + 2 * 8, 280)
        assert 15 <= file.n_frames <= 21
    for box in panes.get_by_role("checkbox").all():
        box.uncheck()
    denoise.get_by_role("button", name="Save GIF").click()
    expect(denoise.locator(".toast-body")).to_contain_text("Choose at least one of the panes")


def test_stop_leaves_the_frames_so_far(denoise: Page, studio: Studio) -> None:
    denoise.locator("#denoise-steps").get_by_label("number input for Steps").fill("100")
    denoise.keyboard.press("Tab")
    position = denoise.locator("#denoise-player .position")
    slow = studio.pipeline.denoiser.register_forward_hook(lambda *_: time.sleep(0.05))  # so that there is time to stop
    try:
        denoise.locator("#denoise-go").click()
        expect(position).to_have_text(re.compile(r"^([3-9]|[1-5]\d) / 100"))
        denoise.locator("#denoise-stop").click()
        expect(denoise.locator("#denoise-status")).to_contain_text("Stopped.")
    finally:
        slow.remove()
    shown = position.inner_text()
    denoise.wait_for_timeout(500)
    expect(position).to_have_text(shown)
    assert int(shown.split()[0]) < 100
    scrubber(denoise).press("Home")
    expect(position).to_have_text("0 / 100")
    denoise.get_by_role("button", name="Save GIF").click()
    expect(denoise.locator(".toast-body")).to_contain_text("no finished film here")
    # The engine is free again.
    run(denoise, 3)


def test_a_seed_that_is_none_is_refused_in_words(denoise: Page) -> None:
    denoise.locator("#denoise-seed input").fill("")
    denoise.keyboard.press("Tab")
    denoise.locator("#denoise-go").click()
    expect(denoise.locator(".toast-body")).to_contain_text("seed must be")
    expect(denoise.locator("#denoise-status")).to_contain_text("Made when the model was opened")


def test_the_adaptive_sampler_takes_steps_of_its_own(denoise: Page) -> None:
    denoise.locator("#denoise-sampler input").click()
    denoise.get_by_role("option", name="Adaptive ODE", exact=True).click()
    denoise.locator("#denoise-go").click()
    expect(denoise.locator("#denoise-status")).to_contain_text("Adaptive ODE")
    scrubber(denoise).press("Home")
    scrubber(denoise).press("ArrowRight")
    expect(denoise.locator("#denoise-player .formula")).to_contain_text("tolerance 0.001")


def test_generate_shows_how_its_digit_was_made(page: Page, app_url: str, errors: list[str]) -> None:
    page.goto(app_url)
    page.locator("#generate-grid .cell").nth(4).click()
    page.get_by_role("button", name="See how it was made").click()
    expect(page.locator("#denoise-status")).to_contain_text("seed 11")  # the app's own digits have seeds from 7 on
    expect(page.locator("#denoise-picker").get_by_label("4")).to_be_checked()
    expect(page.locator("#denoise-player canvas").first).to_be_in_viewport()


@pytest.mark.parametrize(("width", "theme"), [(1280, "light"), (390, "dark")])
def test_accessible_wide_and_narrow_light_and_dark(page: Page, app_url: str, errors: list[str], width: int, theme: str):
    page.set_viewport_size({"width": width, "height": 844})
    visit(page, app_url, theme)
    page.get_by_role("button", name="What am I looking at?").click()
    expect(page.locator("#denoise .katex").first).to_be_visible()
    page.locator("#denoise-go").click()
    expect(page.locator("#denoise-status")).to_contain_text("seed 10")
    expect(page.locator("#denoise-player")).to_be_in_viewport()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    results = Axe().run(page, context={"exclude": [["footer"]]}, options=WCAG)  # the footer is Gradio's own
    assert results.violations_count == 0, results.generate_report()
