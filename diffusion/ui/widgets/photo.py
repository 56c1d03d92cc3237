"""Photo: a picture of the visitor's own, read as carefully as every other file from outside."""

import gradio as gr
from gradio.data_classes import ImageData
from PIL import Image

from diffusion import export


class Photo(gr.Image):
    """An image field whose value is an upright RGB picture, or None; what cannot be read is refused in a sentence."""

    is_template = True  # the page draws it as what it extends

    def preprocess(self, payload: ImageData | None) -> Image.Image | None:
        """The picture as `export.read_picture` reads it; gr.Error where that refuses it."""
        try:
            return None if payload is None else export.read_picture(payload.path or "")
        except ValueError as error:
            raise gr.Error(str(error), title="That does not work", print_exception=False) from None
