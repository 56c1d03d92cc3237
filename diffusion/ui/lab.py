"""The tabs by name, for what goes from one to another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import gradio as gr

if TYPE_CHECKING:
    from diffusion.ui.tabs import denoise, generate, image, vae


@dataclass(frozen=True)
class Lab:
    """The app's tabs; each holds the components that its own `build` made."""

    tabs: gr.Tabs
    generate: generate.Handles
    denoise: denoise.Handles
    image: image.Handles
    vae: vae.Handles
