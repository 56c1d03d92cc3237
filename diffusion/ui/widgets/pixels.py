"""Pictures as base64 bytes: a 28 x 28 picture travels as 1 KB of JSON, without a file or a request of its own."""

import base64
import binascii
from importlib.resources import files
from typing import Any

import gradio as gr
import numpy as np

MAX_SIDE = 1024  # of a picture from a browser


def asset(*names: str) -> str:
    """The widgets' scripts or styles of these names, joined; each widget is its own file on top of the shared one."""
    return "\n".join((files(__package__) / name).read_text(encoding="utf-8") for name in names)


def encode(pixels: np.ndarray) -> str:
    """A uint8 array of any shape as base64; ValueError for another type, because silent casts wrap around."""
    pixels = np.asarray(pixels)
    if pixels.dtype != np.uint8:
        raise ValueError(f"Pictures must be uint8 arrays with values from 0 to 255; got {pixels.dtype}.")
    return base64.b64encode(np.ascontiguousarray(pixels).tobytes()).decode("ascii")


def decode(text: object, shape: tuple[int, ...], what: str) -> np.ndarray:
    """The uint8 array of this shape in a browser's base64; gr.Error names `what` where it is anything else."""
    raw = _bytes(text)
    if len(raw) != np.prod(shape):
        size = " x ".join(str(n) for n in shape)
        raise gr.Error(f"{what} must be {size} bytes in base64.", print_exception=False)
    return np.frombuffer(raw, np.uint8).reshape(shape).copy()


def pack(picture: np.ndarray, what: str = "A picture") -> dict[str, Any]:
    """A picture, uint8 (H, W) or (H, W, 3), as {w, h, px}; ValueError names `what` for any other array."""
    picture = np.asarray(picture)
    if picture.ndim not in (2, 3) or picture.shape[2:] not in ((), (3,)) or 0 in picture.shape:
        raise ValueError(f"{what} must have shape (H, W) or (H, W, 3); got {picture.shape}.")
    return {"w": picture.shape[1], "h": picture.shape[0], "px": encode(picture)}


def unpack(payload: object, what: str) -> np.ndarray:
    """The picture, uint8 (H, W) or (H, W, 3), in a browser's {w, h, px}; gr.Error names `what` for anything else.

    It may be of any model: while a page turns to another, it still sends pictures of the one before.
    """
    height, width, text = (payload.get(name) if isinstance(payload, dict) else None for name in ("h", "w", "px"))
    if any(type(side) is not int or not 1 <= side <= MAX_SIDE for side in (height, width)):
        raise gr.Error(f"{what} must have sides w and h from 1 to {MAX_SIDE} pixels.", print_exception=False)
    colour = len(_bytes(text)) == 3 * height * width
    return decode(text, (height, width, 3) if colour else (height, width), what)


def planes(images: np.ndarray, what: str) -> np.ndarray:
    """Pictures as a uint8 array (N, H, W) or (N, H, W, 3); ValueError names `what` and the shape it has."""
    images = np.asarray(images)
    if images.ndim == 4 and images.shape[-1] == 1:
        images = images[..., 0]
    if images.ndim not in (3, 4) or (images.ndim == 4 and images.shape[-1] != 3) or 0 in images.shape:
        raise ValueError(f"{what} must have shape (N, H, W) or (N, H, W, 3); got {tuple(images.shape)}.")
    return images


def _bytes(text: object) -> bytes:
    """What base64 stands for, nothing where it is none."""
    try:
        return base64.b64decode(text, validate=True) if isinstance(text, str) else b""
    except (binascii.Error, ValueError):
        return b""
