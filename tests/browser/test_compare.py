"""The Compare tab in a real browser: it fills while one watches, stops, and is read by everybody."""

import re

import numpy as np
import pytest
from playwright.sync_api import Locator, Page, expect

from diffusion.ui.studio import Studio
from diffusion.ui.tabs import compare

WATCH = """() => {
    const seen = window.seen = [];
    const look = () => {
        const states = [...document.querySelectorAll('#compare-table .cell')].map((cell) => cell.dataset.state);
        const counts = ['done', 'running'].map((state) => states.filter((other) => other === state).length).join();
        if (seen.at(-1) !== counts) seen.push(counts);
    };
    new MutationObserver(look).observe(document.querySelector('#compare-table'), {subtree: true, attributes: true});
}"""


@pytest.fixture
def tab(page: Page, app_url: str, errors: list[str]) -> Page:
    """The tab in a fresh page, its opening table on show."""
    visit(page, app_url)
    return page


def visit(page: Page, app_url: str) -> None:
    page.goto(f"{app_url}/?__theme=light")
    page.get_by_role("tab", name="Compare", exact=True).click()
    expect(page.locator("#compare-table .cell[data-state=done]")).to_have_count(9)


def ask(page: Page, columns: str, count: int, rows: tuple[str, ...] = ()) -> None:
    """Moves the controls as a visitor would; rows are added to those that are there."""
    page.get_by_label("Columns").fill(columns)
    page.locator("#compare-count input[type=number]").fill(str(count))
    page.keyboard.press("Tab")
    for row in rows:
        page.locator("#compare-samplers input").click()
        page.get_by_role("option", name=row, exact=True).click()
        page.keyboard.press("Escape")


def cell(page: Page, row: int, column: int) -> Locator:
    return page.locator(f"#compare-table .cell[data-row='{row}'][data-column='{column}']")


def sheet(page: Page, row: int, column: int) -> np.ndarray:
    """The pictures in a cell, uint8 (10, 28, 28)."""
    script = """cell => {
        const sheet = cell.querySelector('canvas').getContext('2d').getImageData(0, 0, 144, 57);
        return [...sheet.data].filter((_, k) => k % 4 === 0);
    }"""
    pixels = np.array(cell(page, row, column).evaluate(script), np.uint8).reshape(57, 144)
    return np.stack([pixels[29 * r : 29 * r + 28, 29 * c : 29 * c + 28] for r in range(2) for c in range(5)])


def test_opens_with_a_table_that_was_computed(tab: Page, studio: Studio) -> None:
    contest = compare.shown(studio)["contest"]["value"]
    for done, score in zip(contest.cells, contest.scores, strict=True):
        row = contest.samplers.index(done.sampler)
        assert np.array_equal(sheet(tab, row, done.column), score.result.pictures)
        expect(cell(tab, row, done.column)).to_contain_text(f"{score.right} of 10")
        expect(cell(tab, row, done.column)).to_contain_text(f"{score.result.calls} calls")
    expect(tab.get_by_role("columnheader")).to_have_text(["Sampler", "4 calls", "8 calls", "12 calls"])
    expect(tab.get_by_role("rowheader")).to_contain_text(["DPM-Solver++ (2M)", "Euler-Maruyama", "Heun"])
    expect(tab.locator("#compare-status")).to_contain_text("Made when the model was opened: 9 cells of 10 pictures")
    expect(tab.locator("#compare-plot .plot .marker")).to_have_count(9)
    expect(tab.locator("#compare-grid .cell")).to_have_count(10)
    expect(tab.locator("#compare-table .best")).to_have_count(3)


def test_cells_appear_one_by_one_and_the_plot_has_them(tab: Page) -> None:
    ask(tab, "2, 4", 12, ("Adaptive ODE",))
    expect(tab.locator("#compare-go")).to_have_text(re.compile(r"Fill 7 cells · about [\d.]+ s"))
    tab.evaluate(WATCH)
    tab.locator("#compare-go").click()
    expect(tab.locator("#compare-status")).to_contain_text("Filling 7 cells.")
    expect(tab.locator("#compare-heading")).to_have_text("Choose a cell")
    expect(tab.locator("#compare-status")).to_contain_text("7 cells of 12 pictures")
    seen = tab.evaluate("window.seen")
    assert seen[-1] == "7,0" and len(seen) >= 5
    done = [int(counts.split(",")[0]) for counts in seen if counts != "9,0"]
    assert done == sorted(done)
    assert all(counts.endswith(",1") for counts in seen if counts.split(",")[0] in "123456" and counts != "9,0")
    expect(tab.locator("#compare-plot .plot .marker")).to_have_count(7)
    expect(tab.locator("#compare-plot .plot .line")).to_have_count(4)
    expect(tab.locator("#compare-table [data-row='3']")).to_have_count(1)  # which decides on its calls itself
    expect(tab.locator("#compare-grid .cell")).to_have_count(12)
    tab.locator("#compare-plot .plot .marker").nth(6).hover()
    expect(tab.locator("#compare-plot .hint")).to_contain_text(
        re.compile(r"Adaptive ODE, its own steps, \d+ calls: \d+ of")
    )


def test_stop_keeps_what_is_done_and_frees_the_engine(tab: Page, studio: Studio) -> None:
    ask(tab, "2, 100", 20)
    calls: list[int] = []
    hook = studio.pipeline.denoiser.register_forward_hook(lambda *_: calls.append(1))
    try:
        tab.locator("#compare-go").click()
        expect(tab.locator("#compare-status")).to_contain_text(re.compile("Cell 4: .*, 100 steps, step [1-9]"))
        tab.locator("#compare-stop").click()
        expect(tab.locator("#compare-status")).to_contain_text("Stopped.")
        expect(tab.locator("#compare-status")).to_contain_text("3 of 6 cells are filled")
        assert studio.engine.acquire(timeout=60)
        studio.engine.release()
        made = len(calls)
        tab.wait_for_timeout(1500)
        assert len(calls) == made < 100
    finally:
        hook.remove()
    expect(tab.locator("#compare-table [data-state=running]")).to_have_count(0)
    expect(tab.locator("#compare-table [data-state=done]")).to_have_count(3)
    cell(tab, 1, 0).click()
    expect(tab.locator("#compare-heading")).to_have_text("Euler-Maruyama, 2 steps")
    expect(tab.locator("#compare-grid .cell")).to_have_count(20)


def test_cells_are_chosen_by_keyboard(tab: Page) -> None:
    expect(cell(tab, 0, 0)).to_have_attribute("aria-pressed", "true")
    cell(tab, 0, 0).focus()
    for key in ("ArrowRight", "ArrowDown", "ArrowDown", "ArrowLeft", "ArrowRight"):
        tab.keyboard.press(key)
    expect(cell(tab, 2, 1)).to_be_focused()
    tab.keyboard.press("Enter")
    expect(tab.locator("#compare-heading")).to_have_text("Heun, 4 steps")
    expect(cell(tab, 2, 1)).to_have_attribute("aria-pressed", "true")
    expect(cell(tab, 0, 0)).to_have_attribute("aria-pressed", "false")
    assert tab.locator("#compare-table .cell[tabindex='0']").count() == 1


def test_what_cannot_be_is_said(tab: Page) -> None:
    ask(tab, "5, ten", 20)
    expect(tab.locator("#compare-go")).to_have_text("Compare")
    tab.locator("#compare-go").click()
    expect(tab.get_by_test_id("toast-text")).to_have_text(
        "Columns are whole numbers from 2 to 250, like 5, 10, 20, 50; not 'ten'."
    )
    expect(tab.locator("#compare-table [data-state=done]")).to_have_count(9)


def test_a_cells_settings_go_to_the_generate_tab(tab: Page) -> None:
    cell(tab, 2, 1).click()
    expect(tab.locator("#compare-heading")).to_have_text("Heun, 4 steps")
    tab.get_by_role("button", name="Use these settings in Generate").click()
    expect(tab.locator("#generate-sampler input")).to_have_value("Heun")
    expect(tab.locator("#generate-steps input[type=number]")).to_have_value("4")


def test_on_a_phone_the_samplers_names_stay_while_the_table_moves(page: Page, app_url: str) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    visit(page, app_url)
    frame, head = page.locator("#compare-table .frame"), page.get_by_role("rowheader").first
    assert frame.evaluate("frame => frame.scrollWidth > frame.clientWidth")
    before = head.bounding_box()["x"]
    frame.evaluate("frame => { frame.scrollLeft = 150; }")
    assert head.bounding_box()["x"] == pytest.approx(before, abs=1)
