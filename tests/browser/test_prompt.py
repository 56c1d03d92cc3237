"""The Prompt tab in a real browser: words and where they are looked at, the way to others, and a change of mind."""

import re
import time
from collections.abc import Callable
from functools import partial

import pytest
import tiny
from playwright.sync_api import Page, expect

from diffusion.ui import build_app, launch_kwargs
from diffusion.ui.shelf import Shelf
from diffusion.ui.studio import Studio


@pytest.fixture(scope="module")
def address(serve: Callable[..., str], words: Studio) -> str:
    """The app with it, a model of classes and one without prompts."""
    shelf = Shelf(words, ("garments", "plain"), partial(tiny.studio, limits=words.limits))
    return serve(build_app(shelf), **launch_kwargs(words.limits))


@pytest.fixture
def tab(page: Page, address: str, errors: list[str]) -> Page:
    page.goto(f"{address}/?__theme=light")
    page.get_by_role("tab", name="Prompt", exact=True).click()
    expect(page.locator("#prompt-grid .cell")).to_have_count(4)
    return page


def say(page: Page, text: str) -> None:
    page.locator("#prompt-picker textarea").fill(text)


def test_words_are_looked_at(tab: Page) -> None:
    expect(tab.locator("#prompt-film .pane")).to_have_count(8)
    say(tab, "a bleu 7 on <b>yelow</b> paper 🙂 שלום")
    tab.locator("#prompt-go").click()
    status = tab.locator("#prompt-status")
    expect(status).to_contain_text("It does not know “bleu”; did you mean blue?")
    expect(status).to_contain_text("It does not know “שלום”.")
    assert status.locator("b").count() == 0
    expect(tab.locator("#prompt-film .pane .name")).to_have_text(["Predicted picture", "“a”", "“7”", "“on”", "“paper”"])
    expect(tab.locator("#prompt-film .caption")).to_contain_text("Of what the network looked at:")
    picture = "document.querySelector('#prompt-film .pane canvas').toDataURL()"
    before = tab.evaluate(picture)
    tab.locator("#prompt-grid .cell").nth(2).click()
    tab.wait_for_function(f"before => {picture} !== before", arg=before)
    tab.locator("#prompt-film .scrub").evaluate("s => { s.value = 0; s.dispatchEvent(new Event('input')); }")
    expect(tab.locator("#prompt-film .caption")).to_contain_text("Step 1,")


def test_what_is_too_long_is_cut_and_said_to_be(tab: Page) -> None:
    say(tab, "a red 7 🙂" * 1200)
    expect(tab.locator("#prompt-picker .cut")).to_have_text("Cut after 1000 characters; there were 10800.")
    tab.locator("#prompt-go").click()
    expect(tab.locator("#prompt-status")).to_contain_text("It reads 23 words; past them were 7, a, red.")
    say(tab, "a red 7\u0000\u0007\u202e 8")
    expect(tab.locator("#prompt-picker .cut")).to_have_text("")
    tab.locator("#prompt-go").click()
    expect(tab.locator("#prompt-status")).to_contain_text("Measured in the pixels")
    expect(tab.locator(".toast-body")).to_have_count(0)


def test_examples_fill_the_prompt(tab: Page) -> None:
    tab.locator("#prompt-picker").get_by_label("a thick red 7").check(force=True)
    expect(tab.locator("#prompt-picker textarea")).to_have_value("a thick red 7")
    expect(tab.locator("#prompt-go")).to_contain_text("Make 4 pictures")


def test_the_way_to_another_prompt_is_a_film(tab: Page) -> None:
    tab.get_by_role("tab", name="Travel").click()
    tab.locator("#prompt-number input[type=number]").fill("5")
    tab.keyboard.press("Tab")
    tab.locator("#prompt-goal textarea").fill("a purple six")
    tab.locator("#prompt-travel").click()
    expect(tab.locator("#prompt-way-status")).to_contain_text("for all 5 pictures")
    expect(tab.locator("#prompt-strip .cell")).to_have_count(5)
    tops = tab.locator("#prompt-strip .cell").evaluate_all("cells => cells.map((cell) => cell.offsetTop)")
    assert len(set(tops)) == 1, "the way is not one row"
    expect(tab.locator("#prompt-way .position")).to_contain_text("/ 5")
    expect(tab.locator("#prompt-way .caption")).to_contain_text("of the way: reads as")


def test_both_branches_are_shown_side_by_side(tab: Page) -> None:
    tab.get_by_role("tab", name="Change of mind").click()
    tab.locator("#prompt-changed textarea").fill("a purple six")
    tab.locator("#prompt-after input[type=number]").fill("2")
    tab.keyboard.press("Tab")
    tab.locator("#prompt-part").click()
    expect(tab.locator("#prompt-fork-status")).to_contain_text("for both")
    expect(tab.locator("#prompt-fork .pane .name").nth(3)).to_have_text("Then: a purple six")
    pictures = tab.locator("#prompt-fork .pane canvas")

    def shown() -> list[str]:
        return pictures.evaluate_all("all => all.map(one => one.toDataURL())")

    assert len({*shown()}) == 2  # at the end a state is its picture
    tab.locator("#prompt-fork .scrub").evaluate("s => { s.value = 2; s.dispatchEvent(new Event('input')); }")
    expect(tab.locator("#prompt-fork .caption")).to_contain_text("one and the same state")
    noisy, kept, other_noisy, other = shown()
    assert (noisy, kept) == (other_noisy, other)


def test_one_step_leaves_no_room_for_a_change(tab: Page) -> None:
    tab.get_by_role("tab", name="Change of mind").click()
    tab.locator("#prompt-steps input[type=number]").fill("1")
    tab.keyboard.press("Tab")
    after = tab.locator("#prompt-after")
    expect(after.get_by_role("slider")).to_have_attribute("max", "2")
    expect(after.locator("input[type=number]")).to_have_value("1")
    tab.locator("#prompt-part").click()
    expect(tab.locator(".toast-body").first).to_contain_text("A change of mind takes 2 steps or more")


def test_a_run_can_be_stopped(tab: Page, words: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    denoise = words.pipeline.denoiser.forward
    monkeypatch.setattr(words.pipeline.denoiser, "forward", lambda *given: time.sleep(0.02) or denoise(*given))
    tab.locator("#prompt-steps input[type=number]").fill("250")
    tab.keyboard.press("Tab")
    tab.locator("#prompt-go").click()
    expect(tab.locator("#prompt-status")).to_contain_text("Step")
    tab.locator("#prompt-go-stop").click()
    expect(tab.locator("#prompt-status")).to_contain_text("Stopped.")


def test_other_models_have_what_they_can(tab: Page) -> None:
    def choose(name: str) -> None:
        tab.locator("#model input").click()
        tab.get_by_role("option", name=name, exact=True).click()

    choose("garments")
    expect(tab.locator("#prompt-picker legend")).to_have_text("Garment")
    expect(tab.get_by_role("tab", name="Travel")).to_have_attribute("aria-selected", "true")
    tab.locator("#prompt-goal").get_by_label("bag").check(force=True)
    tab.locator("#prompt-travel").click()
    expect(tab.locator("#prompt-way-status")).to_contain_text("for all 9 pictures")
    tab.get_by_role("tab", name="Word by word").click()
    expect(tab.locator("#prompt-single")).to_contain_text("reads a prompt as one token")
    expect(tab.locator("#prompt-go")).to_be_hidden()
    choose("plain")
    expect(tab.locator("#prompt-lead")).to_contain_text("trained without prompts")
    expect(tab.locator("#prompt-room")).to_be_hidden()
    choose("sentences")
    expect(tab.locator("#prompt-picker textarea")).to_be_visible()
    expect(tab.locator("#prompt-grid .cell")).to_have_count(4)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_phone_has_room_for_it(page: Page, address: str, theme: str) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    page.goto(f"{address}/?__theme={theme}")
    page.get_by_role("tab", name="Prompt", exact=True).click()
    for name in ("Travel", "Change of mind", "Word by word"):
        page.get_by_role("tab", name=name).click()
        expect(page.get_by_role("tab", name=name)).to_have_attribute("aria-selected", "true")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert re.match(r"Make 4 pictures · ", page.locator("#prompt-go").inner_text())
