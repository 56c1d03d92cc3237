"""The menu of models in a real browser: every tab follows, and a link or a PNG brings its model along."""

import re
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import tiny
from playwright.sync_api import Page, Request, expect

from diffusion import export
from diffusion.data import Painted
from diffusion.ui import TABS, build_app, launch_kwargs
from diffusion.ui.shelf import Shelf
from diffusion.ui.studio import Studio


@pytest.fixture(scope="module")
def models(studio: Studio) -> Shelf:
    return Shelf(studio, tiny.NAMES, partial(tiny.studio, limits=studio.limits))


@pytest.fixture(scope="module")
def address(serve: Callable[..., str], models: Shelf) -> str:
    """The app with a trained model and four that are not."""
    return serve(build_app(models), **launch_kwargs(models.limits))


@pytest.fixture
def app(page: Page, address: str, errors: list[str]) -> Page:
    page.goto(f"{address}/?__theme=light")
    expect(page.locator("#generate-grid .cell")).to_have_count(20)
    return page


def choose(page: Page, name: str, asked: str | None = None) -> None:
    """A model from the menu; asked: the prompt that it opens with, and its picker comes to show."""
    page.locator("#model input").click()
    page.get_by_role("option", name=name, exact=True).click()
    expect(page.locator("#generate-status")).to_contain_text(f"{name} (")
    if asked is not None:
        expect(page.locator("#generate-picker input:checked")).to_have_value(asked)


def go(page: Page, tab: str) -> None:
    page.get_by_role("tab", name=tab, exact=True).click()


def test_a_choice_turns_each_tab_once(app: Page, still: Callable[[], None]) -> None:
    names = app.evaluate("Object.fromEntries(window.gradio_config.dependencies.map((d) => [d.id, d.api_name]))")
    turns: list[str] = []

    def heard(request: Request) -> None:
        if request.method == "POST" and "fn_index" in (request.post_data or ""):
            turns.append(names[str(request.post_data_json["fn_index"])])

    app.on("request", heard)
    for name, asked in (("garments", "dress"), ("sentences", None), ("garments", "dress")):
        turns.clear()
        choose(app, name, asked)
        still()
        told = Counter(turn for turn in turns if turn.endswith("_turn"))
        assert set(told.values()) == {1} and len(told) == len(TABS), told


def test_prompts_with_names_and_pictures(app: Page, models: Shelf) -> None:
    choose(app, "garments", "dress")
    picker = app.locator("#generate-picker")
    expect(picker.locator("legend")).to_have_text("Garment")
    expect(picker.locator("label")).to_have_text(["Any", "One of each", *models["garments"].classes])
    expect(picker.locator("canvas")).to_have_count(10)
    cells = app.locator("#generate-grid .cell canvas").evaluate_all("all => all.map(one => one.offsetWidth)")
    assert len({*cells}) == 1  # however long the names below them are
    expect(app.locator("#generate-negative").get_by_text("Negative garment")).to_be_visible()
    expect(app.locator("#generate-encode")).to_have_count(0)
    picker.get_by_label("ankle boot").check(force=True)
    app.locator("#generate-count input[type=number]").fill("3")
    app.keyboard.press("Tab")
    expect(app.locator("#generate-go")).to_contain_text("Make 3 garments")
    app.locator("#generate-go").click()
    expect(app.locator("#generate-status")).to_contain_text(
        re.compile(r"The classifier reads \d of 3 as an ankle boot")
    )
    expect(app.locator("#generate-status")).to_contain_text("4 network calls")


def test_without_prompts_there_is_nothing_to_ask_for(app: Page) -> None:
    choose(app, "plain")
    for control in ("picker", "negative", "guidance"):
        expect(app.locator(f"#generate-{control}")).to_be_hidden()
    app.locator("#generate-go").click()
    expect(app.locator("#generate-status")).to_contain_text("The classifier sees")
    expect(app.locator("#generate-status")).to_contain_text("4 network calls")
    go(app, "Denoise")
    expect(app.locator("#denoise-picker")).to_be_hidden()
    expect(app.locator("#denoise-player canvas")).to_have_count(2)  # pixels need no decoder
    app.locator("#denoise-go").click()
    expect(app.locator("#denoise-status")).to_contain_text(re.compile("DDIM, seed 10: 4 network calls in .* by plain"))
    go(app, "Image to image")
    expect(app.locator("#image-go")).to_contain_text("Make it another digit")
    app.locator("#image-go").click()
    expect(app.locator("#image-status")).not_to_contain_text("Made when")
    expect(app.locator("#image-status")).to_contain_text(re.compile("3 network calls, .* Weights plain"))
    go(app, "VAE")
    expect(app.locator("#vae-absent")).to_contain_text("plain has no autoencoder to take apart")
    expect(app.locator("#vae-room")).to_be_hidden()
    go(app, "Compare")
    expect(app.locator("#compare-table .cell[data-state=done]")).to_have_count(9)
    expect(app.locator("#compare-picker")).to_be_hidden()


def test_prompts_in_words(app: Page) -> None:
    choose(app, "sentences", Painted.prompts[3])
    picker, status = app.locator("#generate-picker"), app.locator("#generate-status")
    expect(app.locator("#model-about")).to_contain_text("prompts in words")
    sentence = picker.get_by_role("textbox", name="Prompt")
    expect(sentence).to_have_value(Painted.prompts[3])
    expect(picker.get_by_label(Painted.prompts[3], exact=True)).to_be_checked()
    picker.get_by_label("a thick red 7").check(force=True)
    expect(sentence).to_have_value("a thick red 7")
    sentence.fill("a crimson thik 7 <b>x</b>")
    expect(picker.locator("input:checked")).to_have_count(0)
    app.locator("#generate-count input[type=number]").fill("2")
    app.keyboard.press("Tab")
    expect(app.locator("#generate-go")).to_contain_text("Make 2 pictures")
    app.locator("#generate-go").click()
    expect(status).to_contain_text("It does not know “crimson”.")
    expect(status).to_contain_text("It does not know “thik”; did you mean thick or thin?")
    assert status.locator("b").count() == 0
    go(app, "Denoise")
    expect(app.locator("#denoise-picker").get_by_role("textbox", name="Prompt")).to_be_visible()
    go(app, "Compare")
    expect(app.locator("#compare-picker").get_by_label("All of these")).to_be_checked()


def test_own_pictures_that_no_classifier_reads(app: Page) -> None:
    choose(app, "colour", "red fox")
    expect(app.locator("#generate-status")).to_contain_text("4 pictures, which no classifier here can read.")
    expect(app.locator("#generate-picker label")).to_have_text(["Any", "One of each", "cat", "red fox"])
    app.locator("#generate-go").click()
    expect(app.locator("#generate-status")).to_contain_text("16 pictures, which no classifier here can read.")
    for tab, seen in (
        ("Denoise", "#denoise-player"), ("Noise", "#noise-bench"), ("Compare", "#compare-table .cell[data-state=done]"),
    ):  # fmt: skip
        go(app, tab)
        expect(app.locator(seen).first).to_be_visible()
    expect(app.locator("#compare-plot")).to_be_hidden()  # it would be of what is read
    go(app, "Image to image")
    expect(app.locator("#image-go")).to_contain_text("Turn it into a red fox")
    app.locator("#image-go").click()
    expect(app.locator("#image-status")).not_to_contain_text("Made when")


def test_and_back_again(app: Page, models: Shelf) -> None:
    """Also on a tab that was open all the time, and on those that were not."""
    go(app, "Denoise")
    app.locator("#model input").click()
    app.get_by_role("option", name="garments", exact=True).click()
    expect(app.locator("#denoise-picker legend")).to_have_text("Garment")
    app.locator("#model input").click()
    app.get_by_role("option", name="mnist-latent", exact=True).click()
    expect(app.locator("#denoise-picker legend")).to_have_text("Digit")
    expect(app.locator("#denoise-player canvas")).to_have_count(3)
    go(app, "VAE")
    expect(app.locator("#vae-room")).to_be_visible()
    expect(app.locator("#vae-facts")).to_contain_text("784 → 256")
    expect(app.locator("#vae-walk canvas")).to_have_count(2)
    go(app, "Image to image")
    expect(app.locator("#image-go")).to_contain_text("Turn it into an 8")


def test_a_link_brings_its_model(app: Page, address: str) -> None:
    choose(app, "garments", "dress")
    app.locator("#generate-picker").get_by_label("One of each").check(force=True)
    app.locator("#generate-count input[type=number]").fill("5")
    app.keyboard.press("Tab")
    app.locator("#generate-go").click()
    expect(app.locator("#generate-status")).to_contain_text("of 5 as the garments asked for")
    app.locator("#generate-copy").click()
    field = app.get_by_label("Opens with these pictures")
    expect(field).to_have_value(re.compile("checkpoint=garments&digit=each&"))
    app.goto(field.input_value())
    expect(app.locator("#generate-status")).to_contain_text("of 5 as the garments asked for")
    expect(app.locator("#model input")).to_have_value("garments")
    expect(app.locator("#generate-notice")).to_have_count(0)
    app.goto(f"{address}/?checkpoint=<b>&count=3&steps=2")
    expect(app.locator("#generate-notice li")).to_contain_text(["No checkpoint '<b>' here; the choices are"])
    expect(app.locator("#generate-status")).to_contain_text("mnist-latent")


def test_a_png_brings_its_model(app: Page, models: Shelf, tmp_path: Path) -> None:
    garments = models["garments"]
    result, path = garments.opening, tmp_path / "garments.png"
    export.save_png(path, result.pictures, export.settings(result.request, garments.pipeline))
    app.locator("#generate-drop input[type=file]").set_input_files(path)
    expect(app.locator("#generate-restored")).to_contain_text("Restored: 20 × one of each, DDIM, 4 steps")
    expect(app.locator("#model input")).to_have_value("garments")
    expect(app.locator("#generate-go")).to_contain_text("Make 20 garments")
    app.locator("#generate-go").click()
    expect(app.locator("#generate-status")).to_contain_text("seeds 7 to 26, garments")
