"""Picture files of any kind and size as one tensor: upright, their centre squares, brought to one shape."""

import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from einops import rearrange
from PIL import Image, ImageOps
from torch import Tensor

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
MAX_PIXELS = 2**26  # of one file: 64 megapixels
MAX_BYTES = 4 * 2**30  # of all pictures together, as they lie in memory
CHUNK = 1024  # files read at a time

Shape = tuple[int, int, int]


class Look(NamedTuple):
    """What a picture was before it was brought to its shape: width and height in pixels, grey or not."""

    width: int
    height: int
    grey: bool


def open_picture(path: Path) -> Image.Image:
    """One upright picture, grey (L) or RGB; what is transparent becomes white.

    Raises ValueError, one sentence that names the file, for what is no picture, damaged, animated or too large.
    """
    try:
        image = Image.open(path, formats=FORMATS)
    except Image.DecompressionBombError:
        raise ValueError(_too_large(path)) from None
    except (FileNotFoundError, PermissionError) as error:
        raise ValueError(f"{path} cannot be opened ({error.strerror}).") from None
    except Exception:  # decoders raise nearly anything when fed damaged bytes
        raise ValueError(f"{path} is no picture that can be read ({', '.join(FORMATS)}): move it elsewhere.") from None
    with image:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(_too_large(path))
        if getattr(image, "is_animated", False) and image.format != "MPO":  # a telephone's JPEG and its preview
            raise ValueError(f"{path} is animated: save one of its frames as a picture, or move it elsewhere.")
        if image.mode.startswith(("I", "F")):
            raise ValueError(f"{path} has more than 8 bits a channel: save it with 8, so that white is 255.")
        grey = image.mode in ("1", "L", "LA", "La")
        try:
            image.load()
            upright = ImageOps.exif_transpose(image)
            if upright.has_transparency_data:
                drawing = upright.convert("RGBA")
                upright = Image.alpha_composite(Image.new("RGBA", drawing.size, "white"), drawing)
            return upright.convert("L" if grey else "RGB")
        except Exception:
            raise ValueError(f"{path} is damaged: replace it, or move it elsewhere.") from None


def _too_large(path: Path) -> str:
    return f"{path} has more than {MAX_PIXELS // 2**20} megapixels: save it smaller, or move it elsewhere."


def fit(picture: Image.Image, shape: Shape, crop: int | None = None) -> np.ndarray:
    """The centre square of a picture, `crop` pixels wide where it is larger, as uint8 (C, H, W), H = W, C = 1 or 3.

    It shrinks by the mean over each new pixel's area and grows by bicubic interpolation; RGB becomes luma (BT.601).
    """
    channels, size, _ = shape
    side = min(*picture.size, crop or max(picture.size))
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    square = picture.convert("L" if channels == 1 else "RGB").crop((left, top, left + side, top + side))
    method = Image.Resampling.BOX if side >= size else Image.Resampling.BICUBIC
    pixels = np.asarray(square.resize((size, size), method))
    return pixels[None] if channels == 1 else rearrange(pixels, "h w c -> c h w")


def read_pictures(paths: Sequence[Path], shape: Shape, crop: int | None = None) -> tuple[Tensor, str]:
    """All files as uint8 (N, C, H, W), each as `fit` does it, and a line on what they were and what became of them.

    Raises ValueError as `open_picture` and `check_room` do.
    """
    check_room(len(paths), shape)

    def read(path: Path) -> tuple[np.ndarray, Look]:
        picture = open_picture(path)
        return fit(picture, shape, crop), Look(*picture.size, picture.mode == "L")

    images, looks = torch.empty(len(paths), *shape, dtype=torch.uint8), []
    with warnings.catch_warnings(), ThreadPoolExecutor(os.cpu_count()) as pool:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # MAX_PIXELS is lower
        for start in range(0, len(paths), CHUNK):
            pixels, seen = zip(*pool.map(read, paths[start : start + CHUNK]), strict=True)
            images[start : start + CHUNK] = torch.from_numpy(np.stack(pixels))
            looks += seen
    return images, describe(looks, shape, crop)


def resize(pictures: np.ndarray, shape: Shape) -> tuple[Tensor, str]:
    """Grey pictures (N, H, W) as uint8 of another shape, each as `fit` does it, and a line on both shapes.

    Raises ValueError as `check_room` does.
    """
    count, height, width = pictures.shape
    check_room(count, shape)
    said = describe([Look(width, height, grey=True)] * count, shape)
    if (1, height, width) == shape:
        return torch.from_numpy(np.array(pictures))[:, None], said
    images = torch.empty(count, *shape, dtype=torch.uint8)
    for image, picture in zip(images, pictures, strict=True):
        image.copy_(torch.from_numpy(np.array(fit(Image.fromarray(picture), shape))))
    return images, said


def check_room(count: int, shape: Shape) -> None:
    """Raises ValueError for shapes that pictures cannot have, and for more bytes of them than MAX_BYTES."""
    channels, height, width = shape
    if channels not in (1, 3) or height != width:
        raise ValueError(
            f"pictures become squares of 1 or 3 channels, grey or RGB, not {channels} x {height} x {width}: --set the"
            " model's channels to 1 or 3."
        )
    if (needed := count * channels * height * width) > MAX_BYTES:
        raise ValueError(
            f"{count:,} pictures of {channels} x {height} x {width} take {needed / 2**30:.1f} GiB, and no more than"
            f" {MAX_BYTES // 2**30} GiB are kept in memory: use fewer, or --set a smaller image_size."
        )


def describe(looks: Sequence[Look], shape: Shape, crop: int | None = None) -> str:
    """What pictures were, and what `fit` made of them, in words."""
    channels, size, _ = shape
    small, large = (by(looks, key=lambda look: (look.width * look.height, look)) for by in (min, max))
    greys = sum(look.grey for look in looks)
    colour = {0: "RGB", len(looks): "grey"}.get(greys, f"{greys:,} of them grey and {len(looks) - greys:,} RGB")
    sides = f"{small.width} x {small.height}"
    if small[:2] != large[:2]:
        sides = f"from {sides} to {large.width} x {large.height}"
    cut = any(set(look[:2]) != {crop or look.width} for look in looks)
    made = {
        "cut to their centre squares" + (f" of {crop}" if crop else ""): cut,
        f"resized to {size} x {size}": any(min(*look[:2], crop or look.width) != size for look in looks),
        "turned to grey": channels == 1 and greys < len(looks),
        "grey repeated as red, green and blue": channels == 3 and greys > 0,
    }
    return "; ".join([f"{len(looks):,} pictures, {sides}, {colour}", *(words for words, done in made.items() if done)])
