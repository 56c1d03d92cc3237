"""The public endpoints, typed and documented, for gradio_client and plain HTTP; the tabs' own are private.

Each that computes is a generator, for Gradio can stop nothing else: it yields the calls so far, and last its answer.
"""

import inspect
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, get_args

import gradio as gr
from gradio_client.utils import is_file_obj_with_meta
from PIL import Image
from torch import Tensor

from diffusion import __version__
from diffusion.conditioning import unread
from diffusion.evaluation import psnr, ssim
from diffusion.export import (
    enlarge,
    read_picture,
    save_png,
    settings,
    to_image,
    to_mask,
    to_pictures,
    view_scale,
)  # fmt: skip
from diffusion.request import Request
from diffusion.samplers import SAMPLERS
from diffusion.ui.controls import ENGINE, request
from diffusion.ui.errors import polite
from diffusion.ui.readings import Reading, Seen
from diffusion.ui.shelf import Shelf
from diffusion.ui.studio import Result, Studio, paced

Answer = tuple[gr.FileData, dict]  # a PNG, and what there is to say about it


def register(shelf: Shelf) -> None:
    """Publishes generate, image_to_image, reconstruct and info; to be called inside the Blocks."""
    sampler, steps, guidance = shelf.default.defaults.values()
    prompt, checkpoint = (*shelf.default.classes[-1:], "")[0], shelf.default.name

    def generate(
        prompt: str = prompt,
        negative: str = "",
        count: int = 1,
        steps: int = steps,
        sampler: str = sampler,
        guidance: float = guidance,
        seed: int = 0,
        checkpoint: str = checkpoint,
    ) -> Iterator[Answer]:
        """Makes pictures from noise.

        Args:
            prompt: what to draw: the name of a class or a sentence, see info, or nothing for any.
            negative: what to steer away from: likewise.
            count: how many pictures.
            steps: how many levels of noise to walk down.
            sampler: how to walk; info lists the names.
            guidance: how hard to insist on the prompt, 0 to 100; 1 means none.
            seed: picture i is made from seed + i.
            checkpoint: which model; info lists the names.

        Returns:
            A PNG of all pictures with its settings inside, and a JSON of what is read in each, the settings,
            network calls and seconds.
        """
        yield from _make(shelf[checkpoint], request(prompt, count, sampler, steps, guidance, seed, negative=negative))

    def image_to_image(
        image: gr.FileData,
        prompt: str = prompt,
        strength: float = 0.6,
        mask: gr.FileData | None = None,
        negative: str = "",
        count: int = 1,
        steps: int = steps,
        sampler: str = sampler,
        guidance: float = guidance,
        seed: int = 0,
        as_is: bool = False,
        checkpoint: str = checkpoint,
    ) -> Iterator[Answer]:
        """Adds noise to a picture and makes another of it.

        Args:
            image: a PNG, JPEG or WebP to start from; a digit is cut out and centred first.
            prompt: what it shall become: the name of a class or a sentence, see info, or nothing for any.
            strength: how much of the way down from pure noise is walked, 0 to 1; 0 only reconstructs.
            mask: a picture, bright where the image is made anew; the image is then taken as it is. None: everywhere.
            negative: what to steer away from: likewise.
            count: how many pictures.
            steps: how many levels of noise the whole way has.
            sampler: how to walk; info lists the names.
            guidance: how hard to insist on the prompt, 0 to 100; 1 means none.
            seed: picture i is made from seed + i.
            as_is: take the image as it is: only cut square and resized.
            checkpoint: which model; info lists the names.

        Returns:
            A PNG of all pictures with its settings inside, and a JSON of what is read in each, the settings,
            network calls and seconds.
        """
        studio = shelf[checkpoint]
        shape = studio.pipeline.codec.image_shape
        hole = None if mask is None else to_mask(_read("mask", mask), shape)
        start = _image(studio, image, _flag("as_is", as_is) or hole is not None)
        more = {"negative": negative, "image": start, "strength": strength, "mask": hole}
        yield from _make(studio, request(prompt, count, sampler, steps, guidance, seed, **more))

    def reconstruct(image: gr.FileData, as_is: bool = False, checkpoint: str = checkpoint) -> Iterator[Answer]:
        """Sends a picture through the autoencoder and back: the best that any picture made here could look.

        Args:
            image: a PNG, JPEG or WebP; a digit is cut out and centred first.
            as_is: take the image as it is: only cut square and resized.
            checkpoint: which model; info lists the names.

        Returns:
            A PNG of the reconstruction, and a JSON of what is read in picture and reconstruction, PSNR (dB),
            SSIM and seconds.
        """
        studio = shelf[checkpoint]
        original = _image(studio, image, _flag("as_is", as_is))[None]
        began = time.monotonic()
        rebuilt = studio.pipeline.reconstruct(original).cpu()
        decibels = psnr(rebuilt, original)
        facts = {
            "original": _said(studio.read(original)[0]),
            "reconstruction": _said(studio.read(rebuilt)[0]),
            "psnr": round(decibels, 3) if math.isfinite(decibels) else None,  # JSON has no number for a perfect copy
            "ssim": round(ssim(rebuilt, original), 5),
            "seconds": round(time.monotonic() - began, 3),
            "model": studio.about,
        }
        with TemporaryDirectory() as folder:
            path = Path(folder) / "reconstruction.png"
            picture = to_pictures(rebuilt)[0]
            Image.fromarray(enlarge(picture, view_scale(picture))).save(path)
            yield _file(path), facts

    def info(checkpoint: str = checkpoint) -> dict:
        """What there is to ask for.

        Args:
            checkpoint: which model.

        Returns:
            A JSON of all checkpoints; of this one its weights, classes or examples of the sentences that it reads, and
            defaults; of the samplers, and of the limits of one request.
        """
        studio = shelf[checkpoint]
        return {
            "checkpoints": list(shelf.names),
            "checkpoint": studio.name,
            "weights": studio.weights,
            "device": studio.pipeline.device.type,
            "engine": __version__,
            "classes": list(studio.classes),
            "sentences": list(studio.suggestions) if studio.sentences else [],
            "image_shape": list(studio.pipeline.codec.image_shape),
            "defaults": studio.defaults,
            "samplers": {name: {"title": kind.title, "note": kind.note} for name, kind in SAMPLERS.items()},
            "limits": asdict(studio.limits),
        }

    for endpoint in (generate, image_to_image, reconstruct):
        gr.api(_typed(polite(endpoint)), api_name=endpoint.__name__, **ENGINE)
    gr.api(polite(info), api_name="info")


def _make(studio: Studio, wanted: Request) -> Iterator[Answer]:
    began = time.monotonic()
    steps = studio.run(wanted)
    try:
        for step, due in paced(steps):
            if due:
                yield None, {"calls": step.calls}
    finally:
        steps.close()
    result = studio.result(wanted, step, time.monotonic() - began)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "pictures.png"
        recorded = settings(wanted, studio.pipeline)
        save_png(path, result.pictures, recorded)
        yield _file(path), _facts(studio, result, recorded)


def _facts(studio: Studio, result: Result, recorded: dict[str, Any]) -> dict[str, Any]:
    wanted = result.request
    return {
        "readings": [_said(reading) for reading in result.readings],
        "unread": unread(studio.pipeline.conditioner, wanted.texts),
        "settings": recorded,
        "calls": result.calls,
        "seconds": round(result.seconds, 3),
    }


def _said(reading: Reading | Seen | None) -> dict[str, Any] | None:
    if isinstance(reading, Seen):
        return {"label": reading.label, "attributes": reading.description.said()}
    return reading and {"label": reading.label, "confidence": round(reading.confidence, 4)}


def _file(path: Path) -> dict[str, Any]:
    """A file as Gradio's endpoints give it; Gradio copies it into its own cache before the generator goes on."""
    return gr.FileData(path=str(path), orig_name=path.name, mime_type="image/png").model_dump()


def _read(name: str, file: object) -> Image.Image:
    """The picture that was uploaded; Gradio has made sure that such a file lies among the uploads."""
    if not isinstance(file, dict) or not isinstance(file.get("meta"), dict) or not is_file_obj_with_meta(file):
        raise ValueError(f"{name} must be a picture file: upload it, as gradio_client.handle_file does.")
    return read_picture(file["path"])


def _image(studio: Studio, file: object, as_is: bool) -> Tensor:
    """An uploaded picture (C, H, W) in [-1, 1], brought into MNIST's form for a model of MNIST."""
    return to_image(studio.taken(_read("image", file), as_is))


def _flag(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{name} must be true or false.")
    return value


def _typed(endpoint: Callable[..., Iterator[Answer]]) -> Callable[..., Iterator[Answer]]:
    """The endpoint as gr.api understands it, which takes a generator's return type for the type of what it yields."""
    signature = inspect.signature(endpoint)
    (answer,) = get_args(signature.return_annotation)
    endpoint.__signature__ = signature.replace(return_annotation=answer)
    return endpoint
