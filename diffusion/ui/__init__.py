"""The app: build_app(shelf) draws it, launch_kwargs(limits) says how it is served."""

from typing import Any

import gradio as gr

from diffusion.ui import api, links, menu
from diffusion.ui.easel import Easel
from diffusion.ui.guard import GuardedBlocks, app_kwargs
from diffusion.ui.lab import Lab
from diffusion.ui.shelf import Shelf
from diffusion.ui.studio import Limits
from diffusion.ui.tabs import compare, denoise, generate, image, noise, prompt, stable, vae
from diffusion.ui.theme import CSS, studio_theme

TABS = generate, denoise, prompt, image, vae, noise, compare

HERO = """
<h1>Diffusion Lab</h1>
<p>Pictures made from noise by a small neural network, every step in view.
Nothing here is recorded: each one is computed when you ask.</p>
"""


def build_app(shelf: Shelf, easel: Easel | None = None) -> gr.Blocks:
    """The whole app on a shelf of models and perhaps a large one of others, queued and ready to launch."""
    with GuardedBlocks(title="Diffusion Lab", analytics_enabled=False, delete_cache=(600, 3600)) as demo:
        gr.HTML(HERO, elem_classes="lab-hero")
        chosen = menu.build(shelf)
        with gr.Tabs(elem_id="tabs", overflow_behavior="wrap") as tabs:
            lab = Lab(*chosen, tabs, *(tab.build(shelf) for tab in TABS))
            large = stable.build(easel, shelf.limits)
        # Wired only now: "send to" needs its targets.
        for part in (menu, *TABS, links):
            part.wire(shelf, lab)
        stable.wire(easel, large)
        api.register(shelf)
    return demo.queue(max_size=shelf.limits.queue, default_concurrency_limit=4, api_open=False)


def launch_kwargs(limits: Limits) -> dict[str, Any]:
    """What every launch of the app shares, so that tests and hosts serve the same app."""
    return {
        "theme": studio_theme(),
        "css_paths": [CSS],
        "footer_links": ["api", "settings"],
        "run_history": False,
        "ssr_mode": False,
        "show_error": False,  # what is meant for visitors is a gr.Error, and that is always shown
        "enable_monitoring": False,
        "max_file_size": f"{limits.upload}mb",
        "state_session_capacity": 200,
        "app_kwargs": app_kwargs(limits),
    }
