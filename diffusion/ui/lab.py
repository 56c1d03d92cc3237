"""The tabs by name, for what goes from one to another, and what all of them do when another checkpoint is chosen."""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import gradio as gr

if TYPE_CHECKING:
    from diffusion.ui.studio import Studio
    from diffusion.ui.tabs import compare, denoise, generate, image, noise, prompt, vae


@dataclass(frozen=True)
class Lab:
    """The menu of checkpoints and the app's tabs; each holds the components that its own `build` made.

    Who changes the model sets `shown`, by a queued event, and the tabs follow.
    """

    model: gr.Dropdown
    about: gr.HTML
    shown: gr.State  # the name of the model that the tabs show
    pending: gr.State  # (the Generate tab's settings to come with that model, whether to make them), or None
    tabs: gr.Tabs
    generate: generate.Handles
    denoise: denoise.Handles
    prompt: prompt.Handles
    image: image.Handles
    vae: vae.Handles
    noise: noise.Handles
    compare: compare.Handles


def following(own: Any, studio: Studio) -> list[gr.components.Component]:
    """The components of a tab that depend on the model, in an order that is the same for every model."""
    return [attrgetter(name)(own) for name in sorted(own.shown(studio))]


def updates(own: Any, studio: Studio) -> list[Any]:
    """What a handler returns so that these components show a model."""
    return [_update(attrgetter(name)(own), properties) for name, properties in sorted(own.shown(studio).items())]


def _update(component: gr.components.Component, properties: dict[str, Any]) -> Any:
    """What sets these properties: plain where it is the value alone, which is the only way for a state.

    A widget that is not on the page, in a tab unopened or a column hidden, would lose the properties that are not told.
    """
    own = getattr(component, "props", {})
    return properties["value"] if not own and properties.keys() == {"value"} else gr.update(**own | properties)


def about(studio: Studio) -> str:
    """A line on a model for the menu."""
    config, shape = studio.pipeline.config, " × ".join(map(str, studio.pipeline.codec.latent_shape))
    space = f"latents of {shape}" if studio.latent else f"pixels, {shape}"
    prompts = "prompts in words" if studio.sentences else f"{len(studio.classes) or 'no'} prompts"
    millions = sum(p.numel() for p in studio.pipeline.parameters()) / 1e6
    return (
        f"<p>Diffuses {space}; {config.schedule.kind} schedule, predicts {config.prediction}; {prompts}; "
        f"{millions:.1f} M parameters.</p>"
    )
