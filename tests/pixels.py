"""What tests of pages share: pixels that are read, waited for and drawn."""

from collections.abc import Callable

import numpy as np
from playwright.sync_api import Locator, Page


def becomes(page: Page, read: Callable[[], np.ndarray], wanted: np.ndarray) -> None:
    """Asserts that what `read` finds comes to be these pixels, all of them, within five seconds: a line of text may be
    there before the pixels that came with it."""
    for _ in range(50):
        if np.array_equal(read(), wanted):
            return
        page.wait_for_timeout(100)
    np.testing.assert_array_equal(read(), wanted)


def rgb(canvas: Locator) -> np.ndarray:
    """What a canvas shows, (H, W, 3)."""
    flat = canvas.evaluate("c => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data]")
    return np.array(flat, np.uint8).reshape(*canvas.evaluate("c => [c.height, c.width]"), 4)[..., :3]


def drag(page: Page, pad: Locator, *points: tuple[float, float]) -> None:
    """A stroke with the mouse; points as shares of the pad's width and height."""
    pad.scroll_into_view_if_needed()
    box = pad.bounding_box()
    places = [(box["x"] + x * box["width"], box["y"] + y * box["height"]) for x, y in points]
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=5)
    page.mouse.up()
