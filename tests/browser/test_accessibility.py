"""Every tab for everybody: axe-core's rules, the keyboard, a phone's width, and nothing from any other host."""

from collections.abc import Callable, Iterator

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Locator, Page, expect

DESKTOP, PHONE = {"width": 1280, "height": 800}, {"width": 390, "height": 844}
TABS = ("generate", "denoise", "prompt", "image", "vae", "noise", "compare")
WCAG = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]}

Visit = Callable[..., None]


@pytest.fixture
def visit(page: Page, app_url: str, errors: list[str]) -> Iterator[Visit]:
    """Opens the app; whatever the page then asks another host for, or the browser refuses it, is an error."""
    own = (app_url, "data:", "blob:")
    page.on("request", lambda request: request.url.startswith(own) or errors.append(request.url))
    page.on("console", lambda message: errors.append(message.text) if "Content Security" in message.text else None)

    def visit(theme: str = "light", viewport: dict[str, int] = DESKTOP) -> None:
        page.set_viewport_size(viewport)
        page.goto(f"{app_url}/?__theme={theme}")
        expect(tab_buttons(page).first).to_be_visible()

    yield visit
    page.goto("about:blank")


def tab_buttons(page: Page) -> Locator:
    return page.locator("#tabs").get_by_role("tab")


def select(page: Page, index: int) -> Locator:
    """Shows the index-th tab and unfolds its explanations; the tab's panel."""
    button = tab_buttons(page).nth(index)
    button.click()
    expect(button).to_have_attribute("aria-selected", "true")
    panel = page.locator("#tabs > [role=tabpanel]:visible")
    expect(panel.locator("button.primary").first).to_be_visible()
    return panel


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing(page: Page, visit: Visit, theme: str, viewport: dict[str, int]) -> None:
    visit(theme, viewport)
    assert tab_buttons(page).count() == len(TABS) + 1  # the last needs a model of others: test_stable.py
    found = {}
    for index, name in enumerate(TABS):
        panel = select(page, index)
        for explanation in panel.locator(".explain button.label-wrap").all():
            explanation.click()
        page.wait_for_timeout(300)  # until it has unfolded: axe measures colours in mid-air too
        for violation in Axe().run(page, options=WCAG).response["violations"]:
            found[name, violation["id"]] = [node["html"][:160] for node in violation["nodes"]]
        wide = page.evaluate("document.documentElement.scrollWidth")
        if wide > viewport["width"]:
            found[name, "wider than the screen"] = wide
    assert not found


@pytest.mark.parametrize("name", TABS)
def test_the_keyboard_reaches_the_primary_action(page: Page, visit: Visit, name: str) -> None:
    visit()
    panel = select(page, TABS.index(name))
    primary = panel.locator("button.primary").first
    tab_buttons(page).nth(TABS.index(name)).focus()
    invisible = []
    for _ in range(100):
        page.keyboard.press("Tab")
        focused = page.evaluate(
            """() => {
                const e = document.activeElement, box = (e.closest('label') ?? e).getBoundingClientRect();
                return {html: e.outerHTML.slice(0, 120), seen: box.width > 1 && box.height > 1};
            }"""
        )
        if not focused["seen"]:
            invisible.append(focused["html"])
        if primary.evaluate("e => e === document.activeElement"):
            break
    else:
        pytest.fail(f"The primary action of {name} is not within a hundred tab stops.")
    assert not invisible, "The focus was where nothing is seen."
