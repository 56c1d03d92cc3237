"""Pictures in and out of files: PNG that remembers its settings, films, arrays, and photographs of digits.

A picture is a uint8 array (H, W), grey, or (H, W, 3), RGB; pictures are such arrays stacked along a first axis.
"""

import hashlib
import json
import math
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from einops import rearrange
from PIL import Image, ImageFilter, ImageOps
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from diffusion import __version__
from diffusion.data import to_uint8, to_unit
from diffusion.pipeline import Pipeline
from diffusion.request import Request, Travel, Turn

KEY = "diffusion-lab"  # of the PNG text chunk
FORMAT = 1  # of what it says; raised when an older reader would misunderstand it
MAX_SIDE = 4096
MAX_BYTES = 8 * 2**20
VIEW_SIDE = 560  # small pictures are enlarged towards this: twenty screen pixels for each pixel of a digit
FILMS = (".gif", ".webp", ".mp4")


# ---------------------------------------------------------------- tensors, grids


def to_pictures(images: Tensor) -> np.ndarray:
    """Images (N, C, H, W) in [-1, 1] as uint8 (N, H, W) for one channel, (N, H, W, 3) for three."""
    pictures = to_uint8(images).cpu().numpy()
    return pictures[:, 0] if pictures.shape[1] == 1 else rearrange(pictures, "n c h w -> n h w c")


def to_image(picture: np.ndarray) -> Tensor:
    """A picture (H, W) or (H, W, 3) as a float32 image (C, H, W) in [-1, 1]."""
    channels_first = picture[None] if picture.ndim == 2 else rearrange(picture, "h w c -> c h w")
    return to_unit(torch.from_numpy(np.array(channels_first)))


def default_columns(count: int, classes: int = 1) -> int:
    """Columns that make a grid about square; with classes > 1 a multiple of it, so that each column holds one class."""
    return math.ceil(math.sqrt(count)) if classes == 1 else classes * max(1, round(math.sqrt(count) / classes))


def grid(images: np.ndarray, columns: int | None = None) -> np.ndarray:
    """Pictures (N, H, W) or (N, H, W, 3) as one, row by row without gaps; what is left of the last row is black."""
    columns = columns or default_columns(len(images))
    blanks = np.zeros((-len(images) % columns, *images.shape[1:]), np.uint8)
    return rearrange(np.concatenate([images, blanks]), "(r c) h w ... -> (r h) (c w) ...", c=columns)


def check_grid(count: int, size: tuple[int, int], columns: int) -> None:
    """Raises ValueError where a grid of `count` pictures of size (H, W) would pass MAX_SIDE, more than is read here."""
    height, width = size
    if max(width * columns, height * math.ceil(count / columns)) > MAX_SIDE:
        most = (MAX_SIDE // height) * (MAX_SIDE // width)
        raise ValueError(f"{count} pictures do not fit into one of {MAX_SIDE} x {MAX_SIDE}: at most {most} do.")


def view_scale(picture: np.ndarray) -> int:
    """The whole factor that brings the longer side near VIEW_SIDE, never below 1."""
    return max(1, VIEW_SIDE // max(picture.shape[:2]))


def enlarge(picture: np.ndarray, scale: int) -> np.ndarray:
    """Each pixel as a square of scale x scale: nearest neighbour, so that taking every scale-th pixel undoes it."""
    return picture.repeat(scale, 0).repeat(scale, 1)


# ---------------------------------------------------------------- PNG with settings


def fingerprint(pipeline: Pipeline) -> str:
    """The first 12 hex digits of the SHA-256 over a model's weights: names, sorted, each with its float32 values."""
    digest = hashlib.sha256()
    for name, tensor in sorted(pipeline.state_dict().items()):
        digest.update(name.encode() + _bytes(tensor.float()))
    return digest.hexdigest()[:12]


def settings(request: Request, pipeline: Pipeline, weights: str | None = None) -> dict[str, Any]:
    """What reproduces a run, as plain JSON: the request, the checkpoint, its weights and the engine.

    A start picture or mask is too large to carry and stands there as its fingerprint; a level without bound is null.
    weights: the model's fingerprint where it is known already, since that of a large one takes seconds.
    """
    scalars = {field.name: _plain(getattr(request, field.name)) for field in fields(request)}
    origin = {"checkpoint": pipeline.config.name, "weights": weights or fingerprint(pipeline), "engine": __version__}
    return {**origin, **scalars}


def request_from(settings: Mapping[str, Any], image: Tensor | None = None, mask: Tensor | None = None) -> Request:
    """The request that `settings` describes; a picture or mask it names must be given again.

    Raises ValueError for values out of range and for a picture or mask that is named but not given.
    """
    for name, given in (("image", image), ("mask", mask)):
        if settings.get(name) is not None and given is None:
            raise ValueError(
                f"these settings want the {name} {str(settings[name])[:12]}, which they do not carry: give it too."
            )
    names = {field.name for field in fields(Request)} - {"image", "mask"}
    values = {name: _typed(settings[name]) for name in names & set(settings)}
    try:
        for name, kind in (("turn", Turn), ("travel", Travel)):
            if values.get(name) is not None:
                values[name] = kind(**{key: _typed(value) for key, value in values[name].items()})
        return Request(**values, image=image, mask=mask)
    except (TypeError, AttributeError, OverflowError):  # raised where a value cannot even be compared with its range
        raise ValueError("the settings hold a value of the wrong kind: use the file as it was saved.") from None


def save_png(path: Path | str, images: np.ndarray, settings: Mapping[str, Any], columns: int | None = None) -> None:
    """One PNG of all pictures, enlarged, with the settings inside; `read_settings` and `read_images` undo it.

    Raises ValueError as `check_grid` does.
    """
    height, width = images.shape[1:3]
    check_grid(len(images), (height, width), columns or default_columns(len(images)))
    picture = grid(images, columns)
    scale = view_scale(picture)
    layout = {"count": len(images), "height": height, "width": width, "scale": scale}
    text = PngInfo()
    text.add_itxt(KEY, json.dumps({"format": FORMAT, "settings": dict(settings), "layout": layout}, allow_nan=False))
    Image.fromarray(enlarge(picture, scale)).save(path, "PNG", pnginfo=text)


def read_settings(source: Path | str | bytes) -> dict[str, Any]:
    """The settings inside a PNG of `save_png`.

    Raises ValueError, one sentence, for a file that is no picture, is too large, or carries none that can be read.
    """
    return _read_chunk(_open(source))["settings"]


def read_images(source: Path | str | bytes) -> np.ndarray:
    """The pictures inside a PNG of `save_png`, exactly as they were given to it: uint8 (N, H, W) or (N, H, W, 3).

    Raises ValueError as `read_settings` does, and where the picture was changed after it was saved.
    """
    image = _open(source)
    layout = _read_chunk(image).get("layout")
    names = ("count", "height", "width", "scale")
    sizes = [layout.get(name) if isinstance(layout, dict) else None for name in names]
    if not all(type(size) is int and size > 0 for size in sizes) or image.mode not in ("L", "RGB"):
        raise ValueError("the layout of this PNG is damaged: use the file as it was saved.")
    count, height, width, scale = sizes
    picture = np.asarray(image)
    rows, down = divmod(picture.shape[0], height * scale)
    columns, right = divmod(picture.shape[1], width * scale)
    if down or right or not 0 <= rows * columns - count < columns:
        raise ValueError("this PNG was cropped or resized after it was saved: use the file as it was saved.")
    small = picture[::scale, ::scale]
    return rearrange(small, "(r h) (c w) ... -> (r c) h w ...", r=rows, c=columns)[:count]


def _plain(value: Any) -> Any:
    if isinstance(value, Tensor):
        return hashlib.sha256(_bytes(value)).hexdigest()[:12]
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    return None if value == math.inf else value


def _typed(value: Any) -> Any:
    """What `_plain` was given: tuples, and in them null for a level without bound."""
    return tuple(math.inf if item is None else item for item in value) if isinstance(value, list) else value


def _bytes(tensor: Tensor) -> bytes:
    return tensor.detach().cpu().contiguous().numpy().tobytes()


def _read_chunk(image: Image.Image) -> dict[str, Any]:
    text = image.info.get(KEY)
    if not isinstance(text, str):
        raise ValueError(
            "this picture carries no settings: only PNG files saved here do, and programs that resave them drop them."
        )
    damaged = "the settings inside this picture are damaged: use the file as it was saved."
    try:
        chunk = json.loads(text, parse_constant=_reject)
    except (ValueError, RecursionError):
        raise ValueError(damaged) from None
    if not isinstance(chunk, dict) or type(chunk.get("format")) is not int:
        raise ValueError(damaged)
    if chunk["format"] != FORMAT:
        version = str(chunk["format"])[:20]
        raise ValueError(f"the settings inside are of format {version}; this version reads format {FORMAT}.")
    if not isinstance(chunk.get("settings"), dict):
        raise ValueError(damaged)
    return chunk


def _reject(constant: str) -> None:
    raise ValueError(f"{constant} is not a number")


# ---------------------------------------------------------------- films and arrays


def save_film(path: Path | str, frames: Sequence[np.ndarray], fps: float = 8.0, hold_last: float = 2.0) -> None:
    """Pictures of one size as a looping GIF, lossless WebP or MP4, by the suffix; the last stays hold_last seconds.

    Raises ValueError for an unknown suffix, a rate outside 0.1 to 50, no frames, or MP4 without ffmpeg.
    """
    path = Path(path)
    check_film(path, fps, hold_last)
    if not frames:
        raise ValueError("a film needs at least one frame.")
    enlarged = [enlarge(frame, view_scale(frame)) for frame in frames]
    if path.suffix.lower() == ".mp4":
        _save_mp4(path, enlarged, fps, hold_last)
        return
    milliseconds = [round(1000 / fps)] * (len(frames) - 1) + [round(1000 / fps + 1000 * hold_last)]
    first, *rest = [Image.fromarray(frame) for frame in enlarged]
    # Unoptimized: to leave out what did not change, Pillow would take one of a GIF's 256 greys for "transparent".
    exact = {"lossless": True} if path.suffix.lower() == ".webp" else {"optimize": False}
    first.save(path, save_all=True, append_images=rest, duration=milliseconds, loop=0, **exact)


def check_film(path: Path, fps: float, hold_last: float) -> None:
    """Raises ValueError where `save_film` cannot write such a film, before a run is made for it."""
    if path.suffix.lower() not in FILMS:
        raise ValueError(f"'{path.name}' is no film: the suffixes are {', '.join(FILMS)}.")
    if path.suffix.lower() == ".mp4" and shutil.which("ffmpeg") is None:
        raise ValueError("MP4 needs ffmpeg, which is not installed: save the film as .gif or .webp, or install ffmpeg.")
    if not 0.1 <= fps <= 50 or not 0 <= hold_last <= 60:
        raise ValueError(f"a film has 0.1 to 50 frames a second and holds 0 to 60 seconds, not {fps} and {hold_last}.")


def save_npz(path: Path | str, images: np.ndarray, labels: np.ndarray | None = None) -> None:
    """Arrays `images`, uint8 (N, H, W) or (N, H, W, 3), and where the prompts are classes `labels`, int64 (N,)."""
    labelled = {} if labels is None else {"labels": np.asarray(labels, np.int64)}
    with open(path, "wb") as file:  # given a name, numpy would add a suffix of its own
        np.savez_compressed(file, images=images, **labelled)


def _save_mp4(path: Path, frames: Sequence[np.ndarray], fps: float, hold_last: float) -> None:
    held = [*frames, *[frames[-1]] * round(hold_last * fps)]
    height, width = frames[0].shape[:2]
    raw = b"".join(np.asarray(Image.fromarray(frame).convert("RGB")).tobytes() for frame in held)
    read = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", str(fps), "-i", "-"]
    even = ["-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2", "-pix_fmt", "yuv420p"]  # what every player can show
    write = [*even, "-movflags", "+faststart", "-f", "mp4", f"file:{path}"]
    done = subprocess.run(["ffmpeg", "-y", "-loglevel", "error", *read, *write], input=raw, capture_output=True)
    if done.returncode != 0:
        lines = done.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise ValueError(f"ffmpeg could not write the film ({lines[-1]}): save it as .gif or .webp.")


# ---------------------------------------------------------------- pictures from outside


def read_picture(source: Path | str | bytes) -> Image.Image:
    """A PNG, JPEG or WebP as upright RGB: the first frame, sixteen bits brought to eight.

    What is transparent becomes black, or white behind a dark drawing, which black would swallow.
    Raises ValueError, one sentence, for anything else and for more than MAX_SIDE x MAX_SIDE pixels or MAX_BYTES bytes.
    """
    image = _open(source)
    if image.mode.startswith("I"):  # sixteen bits; Pillow's own conversion would clip them
        image = Image.fromarray((np.asarray(image).astype(np.int64) // 257).clip(0, 255).astype(np.uint8))
    if not image.has_transparency_data:
        return image.convert("RGB")
    drawing = image.convert("RGBA")
    few = np.asarray(drawing.resize((256, 256), Image.Resampling.BOX).convert("LA"), np.float32)
    grey, alpha = few[..., 0], few[..., 1]
    dark = (grey * alpha).sum() < 127.5 * alpha.sum()
    paper = Image.new("RGBA", drawing.size, "white" if dark else "black")
    return Image.alpha_composite(paper, drawing).convert("RGB")


def fit(picture: Image.Image, shape: tuple[int, int, int]) -> np.ndarray:
    """A picture cut around its centre and resized to (C, H, W): uint8 (H, W) for C = 1, else (H, W, 3)."""
    channels, height, width = shape
    # Averaging over boxes undoes `enlarge` exactly.
    method = Image.Resampling.BOX if min(picture.size) >= max(height, width) else Image.Resampling.BICUBIC
    return np.asarray(ImageOps.fit(picture.convert("L" if channels == 1 else "RGB"), (width, height), method))


def to_mask(picture: Image.Image, shape: tuple[int, int, int]) -> Tensor:
    """A drawn mask as bool (1, H, W), cut and resized as `fit` does: True, repaint, where it is brighter than half."""
    return torch.from_numpy(fit(picture, (1, *shape[1:])) > 127)[None]


def to_digit(picture: Image.Image, as_is: bool = False) -> np.ndarray:
    """A photographed or drawn digit in MNIST's form, white ink on black, uint8 (28, 28) (LeCun et al. 1998, III.A).

    The ink's bounding box is scaled into 20 x 20, its centre of mass laid on the centre; as_is only cuts and resizes.
    Raises ValueError where no ink stands out from the paper.
    """
    if as_is:
        return fit(picture, (1, 28, 28))
    ink = _crop(_thicken(_crop(_ink(picture))))
    size = [max(1, round(20 * side / max(ink.shape))) for side in ink.shape]
    small = np.asarray(Image.fromarray(ink).resize((size[1], size[0]), Image.Resampling.BICUBIC), np.float32)
    small = small * (255 / small.max())
    digit = np.zeros((28, 28), np.uint8)
    top, left = (_centred(small.sum(axis)) for axis in (1, 0))
    digit[top : top + size[0], left : left + size[1]] = small.round()
    return digit


def _open(source: Path | str | bytes) -> Image.Image:
    """Decodes a file that may be hostile: its length and the size its header claims come before any pixel is made."""
    if not isinstance(source, bytes):
        path = Path(source)
        if not path.is_file():
            raise ValueError(f"there is no file '{path}'.")
        with path.open("rb") as file:
            source = file.read(MAX_BYTES + 1)
    if len(source) > MAX_BYTES:
        raise ValueError(f"the file is larger than {MAX_BYTES // 2**20} MB: save the picture smaller.")
    bomb = f"the picture is larger than {MAX_SIDE} x {MAX_SIDE} pixels: save it smaller."
    try:
        image = Image.open(BytesIO(source), formats=("PNG", "JPEG", "WEBP"))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ValueError(bomb) from None
    except Exception:  # decoders raise nearly anything when fed damaged bytes
        raise ValueError("this is not a picture that can be read: PNG, JPEG and WebP can.") from None
    if max(image.size) > MAX_SIDE:
        raise ValueError(bomb)
    try:
        image.load()
        return ImageOps.exif_transpose(image)
    except Exception:
        raise ValueError("the picture is damaged: save it again.") from None


def _ink(picture: Image.Image) -> np.ndarray:
    """Uint8 ink, 255 the fullest, with the paper's brightness and shading taken away."""
    grey = picture.convert("L")
    grey.thumbnail((512, 512), Image.Resampling.BOX)
    brightness = np.asarray(grey, np.float32)
    paper, noise = _paper(brightness)
    above = brightness - paper
    ink = (above if above.max() > -above.min() else -above).clip(0)
    full = np.median(ink[ink >= ink.max() / 2])
    if full < 16 + noise:
        raise ValueError("no ink stands out from the paper: draw the digit darker or brighter than its background.")
    return (255 * (ink - noise) / (full - noise)).clip(0, 255).astype(np.uint8)


def _paper(brightness: np.ndarray) -> tuple[np.ndarray, float]:
    """The paper, as a plane through the border without what crosses it there, and thrice the spread around it."""
    y, x = np.mgrid[: brightness.shape[0], : brightness.shape[1]].astype(np.float32) / max(brightness.shape)
    plane = np.stack([np.ones_like(x), y, x], -1)
    border = np.ones(brightness.shape, bool)
    rim = 1 + min(brightness.shape) // 32
    border[rim:-rim, rim:-rim] = False
    keep = border
    for _ in range(4):
        level = plane @ np.linalg.lstsq(plane[keep], brightness[keep], rcond=None)[0]
        off = abs(brightness - level)
        keep = border & (off <= max(4.0, 2.5 * float(np.median(off[border]))))
    return level, 3 * float(off[keep].std())


def _crop(ink: np.ndarray) -> np.ndarray:
    rows, columns = (np.flatnonzero((ink > 64).any(axis)) for axis in (1, 0))
    return ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]


def _thicken(ink: np.ndarray) -> np.ndarray:
    """Widens thin strokes to a tenth of the digit, about MNIST's pen: thinner ones would fade at 20 x 20."""
    wanted = max(ink.shape) / 10
    ink = np.pad(ink, math.ceil(wanted))
    for _ in range(math.ceil(wanted / 2)):
        stroke = ink > 127
        inner = stroke[1:-1, 1:-1] & stroke[:-2, 1:-1] & stroke[2:, 1:-1] & stroke[1:-1, :-2] & stroke[1:-1, 2:]
        outline = stroke.sum() - inner.sum()
        if 2 * stroke.sum() >= wanted * outline:  # width = area / half the outline
            break
        ink = np.asarray(Image.fromarray(ink).filter(ImageFilter.MaxFilter(3)))
    return ink


def _centred(mass: np.ndarray) -> int:
    """Where a box must start for its centre of mass to lie on pixel 14 of 28, as in MNIST, and still fit."""
    centre = float(np.arange(len(mass)) @ mass / mass.sum())
    return min(max(round(14 - centre), 0), 28 - len(mass))
