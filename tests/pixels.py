"""What tests of pages share: a line of text may be there before the pixels that came with it."""

from collections.abc import Callable

import numpy as np
from playwright.sync_api import Page


def becomes(page: Page, read: Callable[[], np.ndarray], wanted: np.ndarray) -> None:
    """Asserts that what `read` finds on the page comes to be these pixels, all of them, within five seconds."""
    for _ in range(50):
        if np.array_equal(read(), wanted):
            return
        page.wait_for_timeout(100)
    np.testing.assert_array_equal(read(), wanted)
