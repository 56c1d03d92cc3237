"""A real browser for the app: Chromium, found on this machine, driven without any network."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import BrowserType, Page, expect
from ports import free_port

from diffusion.ui.studio import EXAMPLES

FLAGS = [
    "--no-sandbox",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


# Generous, for a first page load on a busy machine; nothing waits that long where all is well.
PATIENCE = 60_000
expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="session")
def browser_type_launch_args(browser_type_launch_args: dict, browser_type: BrowserType) -> dict:
    """How Chromium is started; a machine without one fails here and says how to get it."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), browser_type.executable_path)
    if not Path(found).exists():
        pytest.fail(
            "The browser tests need Chromium: run `apt-get install chromium` or `playwright install chromium`, "
            "or set CHROMIUM to its executable.",
            pytrace=False,
        )
    return {**browser_type_launch_args, "executable_path": found, "args": FLAGS}


@pytest.fixture(scope="session")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., str]]:
    """Launches a Blocks with the launch arguments given, and returns its address; closed when the session ends."""
    running: list[gr.Blocks] = []
    os.environ.setdefault("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("gradio")))

    def launch(demo: gr.Blocks, **arguments: Any) -> str:
        running.append(demo)
        local = {"prevent_thread_lock": True, "quiet": True, "server_name": "127.0.0.1", "share": False}
        local["server_port"] = free_port()
        return demo.launch(**{**arguments, **local})[1].rstrip("/")

    yield launch
    for demo in running:
        demo.close()


@pytest.fixture(scope="session")
def examples() -> np.ndarray:
    """The app's test pictures of digits, uint8 (class, number, H, W)."""
    return np.asarray(Image.open(EXAMPLES / "mnist.png")).reshape(10, 28, 20, 28).swapaxes(1, 2)


@pytest.fixture
def errors(page: Page) -> Iterator[list[str]]:
    """What went wrong in the page; a test that uses this fails where anything did."""
    found: list[str] = []
    page.set_default_timeout(PATIENCE)
    page.on("pageerror", lambda error: found.append(str(error)))
    page.on("console", lambda message: found.append(message.text) if "js_on_load" in message.text else None)
    yield found
    assert not found, found


@pytest.fixture
def still(page: Page) -> Callable[[], None]:
    """Waits until the page has made no request for 0.3 seconds, heartbeats of the open stream aside."""
    last = [0.0]
    page.on("request", lambda _: last.__setitem__(0, time.monotonic()))

    def wait() -> None:
        while time.monotonic() - last[0] < 0.3:
            page.wait_for_timeout(50)

    return wait


@pytest.fixture
def posts(page: Page) -> Callable[[], list[str]]:
    """Begins to list what the page asks of the app; the stream of answers to what it asked before may open late."""

    def listen() -> list[str]:
        asked: list[str] = []
        page.on("request", lambda request: asked.append(request.url) if request.method == "POST" else None)
        return asked

    return listen
