"""What `python -m diffusion` does: generate and reconstruct; info and evaluate are in `info` and `measure`."""

import argparse
import os
import sys
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from diffusion import checkpoints, data, export
from diffusion.conditioning import unread
from diffusion.download import Download
from diffusion.pipeline import Pipeline, choose_device
from diffusion.request import MAX_COUNT, Request, check_number
from diffusion.samplers import SAMPLERS

MODEL = "mnist-latent"
MAX_IMAGES = 1_000_000
FRAMES = {"noisy": 0, "clean": 1}  # the two halves of Pipeline.preview
Shape = tuple[int, int, int]
BATCH_PIXELS = 100_000  # a batch of 127 digits, or one large picture


def generate(args: argparse.Namespace) -> None:
    """Pictures from a prompt, as a PNG that remembers its settings, a film of the run, or arrays."""
    out = writable(args.out, (".png", ".npz", *export.FILMS))
    like = export.read_settings(args.like) if args.like else {}
    pipeline = open_pipeline(args, args.checkpoint or _checkpoint_of(like))
    values = _values(args, pipeline, like)
    shape = pipeline.shape(export.request_from({"size": values.get("size")}))
    image, mask = _start(args, pipeline, shape)
    requests = _requests(values, image, mask, batch_size(*shape[1:]) if args.batch is None else args.batch)
    first, count, classes = requests[0], values["count"], pipeline.config.classes
    columns = export.default_columns(count, len(classes) if isinstance(values["prompt"], list) else 1)
    film, png = out.suffix.lower() in export.FILMS, out.suffix.lower() == ".png"
    if film:
        export.check_film(out, args.fps, args.hold)
    if film or png:
        # A film is made of one run, and a PNG's settings are one request.
        _check_picture(out, count, first.count if film else MAX_COUNT, shape[1:], columns)
    settings = export.settings(first, pipeline)
    _note_differences(like, settings)
    for sentence in unread(pipeline.conditioner, [text for request in requests for text in request.texts]):
        print(f"note: {sentence}", file=sys.stderr)
    began = time.perf_counter()
    pictures, frames, calls = _run(pipeline, requests, columns, args.frames if film else None)
    seconds = time.perf_counter() - began
    if film:
        export.save_film(out, frames, args.fps, args.hold)
    elif png:
        whole = export.request_from(values, image, mask)
        export.save_png(out, pictures, export.settings(whole, pipeline, settings["weights"]), columns)
    else:
        export.save_npz(out, pictures, _labels(requests, classes))
    print(
        f"{out}: {_pictures(count)}, {first.sampler}, {first.steps} steps, guidance {first.guidance:g}, "
        f"seeds {first.seed} to {first.seed + count - 1}; {calls} network calls each, {seconds:.1f} s"
    )


def reconstruct(args: argparse.Namespace) -> None:
    """What the autoencoder alone does to pictures: original over reconstruction over difference."""
    from diffusion.evaluation import psnr, ssim  # torchmetrics takes seconds to import

    out = writable(args.out, (".png",))
    check_number("count", args.count, 1, 100, whole=True)
    pipeline = open_pipeline(args, args.checkpoint)
    if args.image:
        images = export.to_image(_read(args.image, pipeline, pipeline.codec.image_shape, args.as_is))[None]
    else:
        shape = pipeline.codec.image_shape
        images = data.to_unit(data.load(pipeline.config.data, "test", args.data_dir, shape=shape).images[: args.count])
    export.check_grid(3 * len(images), pipeline.codec.image_shape[1:], len(images))
    rebuilt = pipeline.reconstruct(images).cpu()
    difference = (images - rebuilt).abs() - 1  # black where nothing was lost
    picture = export.grid(export.to_pictures(torch.cat([images, rebuilt, difference])), len(images))
    Image.fromarray(export.enlarge(picture, export.view_scale(picture))).save(out)
    print(f"{out}: {_pictures(len(images))}, PSNR {psnr(rebuilt, images):.2f} dB, SSIM {ssim(rebuilt, images):.4f}")


# ---------------------------------------------------------------- what generate is made of


def _checkpoint_of(like: dict[str, Any]) -> str:
    """Only what lies here already: a picture from elsewhere is not to choose what is downloaded."""
    name = str(like.get("checkpoint", MODEL))
    if name != MODEL and name not in checkpoints.names():
        raise ValueError(f"the picture was made with '{name[:80]}', which is not here: name it with --checkpoint.")
    return name


def _check_picture(out: Path, count: int, most: int, size: tuple[int, int], columns: int) -> None:
    if count > most:
        raise ValueError(f"{out.suffix} holds at most {most} pictures here: make fewer, or write .npz.")
    export.check_grid(count, size, columns)


def _note_differences(like: dict[str, Any], ours: dict[str, Any]) -> None:
    for name in ("weights", "image", "mask"):
        if like.get(name) not in (None, ours[name]):
            print(f"note: the {name} that made the picture differ from these, so will the result.", file=sys.stderr)


def _values(args: argparse.Namespace, pipeline: Pipeline, like: dict[str, Any]) -> dict[str, Any]:
    """The request as plain values: the flags given, else those of --like, else what suits the model."""
    best = pipeline.config.defaults
    strength = 0.6 if args.image and not args.mask else 1.0
    count = 16 if batch_size(*pipeline.codec.image_shape[1:]) >= 16 else 1
    values = {"prompt": "", "negative": "", "count": count, "seed": 0, "strength": strength}
    values |= {"interval": None, "size": None}
    values |= {"sampler": best.sampler, "steps": best.steps, "guidance": best.guidance}
    names = {field.name for field in fields(Request)}
    values |= {name: value for name, value in like.items() if name in names}
    values |= {name: value for name, value in vars(args).items() if name in set(values) and value is not None}
    check_number("count", values["count"], 1, MAX_IMAGES, whole=True)
    if args.prompt == "all":
        values["prompt"] = _every_class(values["count"], pipeline.config.classes)
    return {name: value for name, value in values.items() if value is not None}


def _every_class(count: int, classes: tuple[str, ...]) -> list[str]:
    if not classes:
        raise ValueError("--prompt all needs a model with classes, and this one has none.")
    share, rest = divmod(count, len(classes))
    if rest:
        nearest = " or ".join(str(n * len(classes)) for n in (share, share + 1) if n)
        raise ValueError(f"{count} pictures cannot be shared equally among {len(classes)} classes: use {nearest}.")
    return list(classes) * share


def _requests(values: dict[str, Any], image: Tensor | None, mask: Tensor | None, batch: int) -> list[Request]:
    """One request a batch, all checked before the first one runs; image i keeps its seed, prompt and strength."""
    check_number("batch", batch, 1, MAX_COUNT, whole=True)
    check_number("seed", values["seed"], 0, 2**63, whole=True)
    count, requests = values["count"], []
    each = {name: values[name] for name in ("prompt", "strength") if isinstance(values[name], list)}
    for name, items in each.items():
        if len(items) != count:
            raise ValueError(f"--like brings {len(items)} values of {name} for {count} pictures: give --{name} anew.")
    for start in range(0, count, batch):
        part = {name: items[start : start + batch] for name, items in each.items()}
        part |= {"count": min(batch, count - start), "seed": values["seed"] + start}
        requests.append(export.request_from({**values, **part}, image, mask))
    return requests


def _run(
    pipeline: Pipeline, requests: list[Request], columns: int, show: str | None
) -> tuple[np.ndarray, list[np.ndarray], int]:
    """The pictures of all requests, the frames of a film where one of FRAMES is named, and the network calls."""
    pictures, frames = [], []
    own_pace = SAMPLERS[requests[0].sampler].calls_per_step == 0
    total = None if own_pace else len(requests) * max(map(requests[0].steps_run, requests[0].strengths))
    with tqdm(total=total, unit="step", file=sys.stderr, disable=None) as bar:  # None: silent where nobody watches
        for request in requests:
            for step in pipeline.generate(request):
                if show:
                    frames.append(export.grid(export.to_pictures(pipeline.preview(step)[FRAMES[show]]), columns))
                bar.update(step.index > 0)
            pictures.append(export.to_pictures(pipeline.images(step, request)))
    if show:
        frames[-1] = export.grid(pictures[-1], columns)  # a film ends with the very pictures
    return np.concatenate(pictures), frames, step.calls


def _labels(requests: list[Request], classes: tuple[str, ...]) -> np.ndarray | None:
    prompts = [prompt for request in requests for prompt in request.prompts]
    return np.array([classes.index(prompt) for prompt in prompts]) if set(prompts) <= set(classes) else None


def _start(args: argparse.Namespace, pipeline: Pipeline, shape: Shape) -> tuple[Tensor | None, Tensor | None]:
    """The start image (C, H, W) and the mask (1, H, W), as far as they were given."""
    # A mask is drawn on the picture as it is; a digit that was cut out and centred would no longer lie under it.
    image = export.to_image(_read(args.image, pipeline, shape, args.as_is or bool(args.mask))) if args.image else None
    mask = export.to_mask(export.read_picture(args.mask), shape) if args.mask else None
    return image, mask


def _read(path: str, pipeline: Pipeline, shape: Shape, as_is: bool) -> np.ndarray:
    """A picture file in a shape (C, H, W); brought into MNIST's form for a model of MNIST."""
    picture = export.read_picture(path)
    if pipeline.config.data == "mnist" and not as_is and shape == pipeline.codec.image_shape:
        return export.to_digit(picture)
    return export.fit(picture, shape)


# ---------------------------------------------------------------- what all commands are made of


class Fetching:
    """Says on stderr what is fetched from the Hub, how much and where to, before it starts; then draws a bar."""

    def __init__(self) -> None:
        self.bar: tqdm | None = None

    def __call__(self, now: Download) -> None:
        """To be told by `download.watched`."""
        if self.bar is None:
            total, free = (f"{tqdm.format_sizeof(size)}B" for size in (now.total, now.free))
            print(f"fetching {total} of '{now.name}' to {now.folder}, where {free} are free", file=sys.stderr)
            self.bar = tqdm(total=now.total, unit="B", unit_scale=True, file=sys.stderr, disable=None)
        self.bar.update(now.done - self.bar.n)
        if now.done == now.total:
            self.bar.close()
            self.bar = None


def writable(name: str, suffixes: tuple[str, ...]) -> Path:
    """An output path that will work, checked before hours of work go into it."""
    path = Path(name)
    if path.suffix.lower() not in suffixes:
        raise ValueError(f"'{name}' should end with {' or '.join(suffixes)}: the suffix chooses what is written.")
    if not path.parent.is_dir():
        raise ValueError(f"the folder '{path.parent}' does not exist: make it first, or write somewhere else.")
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ValueError(f"'{name}' cannot be written: choose another name or folder.")
    return path


def open_pipeline(args: argparse.Namespace, reference: str) -> Pipeline:
    """The model of this reference on the device that --device names."""
    device = choose_device(args.device)  # before anything is loaded
    return Pipeline.load(reference, device=device)


def _pictures(count: int) -> str:
    return "1 picture" if count == 1 else f"{count} pictures"


def batch_size(height: int, width: int) -> int:
    """How many pictures at a time, unless --batch says so."""
    return max(1, BATCH_PIXELS // (height * width))
