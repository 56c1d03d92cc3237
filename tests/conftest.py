"""What the tests of the app share: one engine and one running app for the whole session, without any network."""

import os
from collections.abc import Iterator
from pathlib import Path

import gradio as gr
import pytest
from ports import free_port

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"  # two test processes side by side: threads of theirs would only wait for each other

import tiny

from diffusion.ui import build_app, launch_kwargs
from diffusion.ui.shelf import Shelf
from diffusion.ui.studio import Limits, Studio


@pytest.fixture(scope="session")
def shelf() -> Shelf:
    """The models that ship."""
    return Shelf.load("mnist-latent", "cpu", Limits())


@pytest.fixture(scope="session")
def studio(shelf: Shelf) -> Studio:
    """The one that the app begins with."""
    return shelf.default


@pytest.fixture(scope="session")
def words() -> Studio:
    """An untrained model of painted digits, 32 x 32 in colour, that reads sentences."""
    return tiny.studio("sentences", Limits())


@pytest.fixture(scope="session")
def garments() -> Studio:
    """An untrained model of garments, with classes."""
    return tiny.studio("garments", Limits())


@pytest.fixture(scope="session")
def foreign(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small Stable Diffusion with random weights, as diffusers writes it."""
    # Only here: what it is made with takes seconds to import.
    from test_clip import write_tokenizer
    from theirs import model

    write_tokenizer(words := tmp_path_factory.mktemp("words"))
    model(words).save_pretrained(folder := tmp_path_factory.mktemp("models") / "small-diffusion")
    return folder


@pytest.fixture(scope="session")
def demo(shelf: Shelf, tmp_path_factory: pytest.TempPathFactory) -> Iterator[gr.Blocks]:
    """The running app."""
    os.environ["GRADIO_TEMP_DIR"] = str(tmp_path_factory.mktemp("gradio"))
    demo = build_app(shelf)
    local = {"prevent_thread_lock": True, "quiet": True, "server_name": "127.0.0.1", "server_port": free_port()}
    demo.launch(**launch_kwargs(shelf.limits), **local)
    yield demo
    demo.close()


@pytest.fixture(scope="session")
def app_url(demo: gr.Blocks) -> str:
    """The address of the running app."""
    return demo.local_url.rstrip("/")
