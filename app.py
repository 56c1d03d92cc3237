"""Diffusion Lab: python app.py, then open the address that it prints."""

import argparse
import os
import socket
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields

# The app itself sends nothing anywhere; Gradio would count launches.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio as gr

from diffusion.pipeline import choose_device
from diffusion.ui import build_app, launch_kwargs
from diffusion.ui.easel import Easel
from diffusion.ui.shelf import Shelf
from diffusion.ui.studio import Limits

demo: gr.Blocks | None = None
"""The running app; `gradio app.py` looks for it to build it anew when a file changes."""

LIMITS = {
    "count": "most images in one request",
    "steps": "most sampling steps",
    "work": "most network evaluations in one request: images x calls",
    "seconds": "longest run, in seconds",
    "queue": "most requests waiting",
    "upload": "largest upload, in megabytes",
}


def main(arguments: Sequence[str]) -> int:
    """Serves the app until it is stopped; returns 0, or 2 after an error that it explained in one sentence."""
    global demo
    options = parser().parse_args(arguments)
    try:
        limits = Limits(**{name: getattr(options, f"max_{name}") for name in LIMITS})
        device = choose_device(options.device)
        shelf = Shelf.load(options.checkpoint, device, limits)
        demo = build_app(shelf, Easel(options.sd, device, limits, shelf.default.engine) if options.sd else None)
        demo.launch(server_name=options.host, server_port=options.port, share=options.share, **launch_kwargs(limits))
    except (ValueError, OSError) as error:
        print(f"app.py: {error}", file=sys.stderr)
        return 2
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="app.py", description=__doc__)
    parser.add_argument(
        "--host", type=address, help="address to listen on, 0.0.0.0 for all (default: $GRADIO_SERVER_NAME or 127.0.0.1)"
    )
    parser.add_argument(
        "--port", type=within(int, 1, 65535), help="port to listen on (default: the first free one from 7860)"
    )
    parser.add_argument("--share", action="store_true", help="also make a public link, through Gradio's servers")
    parser.add_argument("--device", help="cpu, cuda or mps (default: the fastest there is)")
    parser.add_argument(
        "--checkpoint",
        default="mnist-latent",
        help="the model to begin with: a name under checkpoints/, a folder, or a Hub id owner/name[@revision] "
        "(default: %(default)s)",
    )
    parser.add_argument(
        "--sd",
        metavar="MODEL",
        default=os.environ.get("DIFFUSION_SD"),
        help="a model of Stable Diffusion 1 or 2 for the tab of that name: a Hub id owner/name[@revision], a folder in "
        "the layout of diffusers, or a .safetensors file (default: $DIFFUSION_SD, or none)",
    )
    for limit in fields(Limits):
        kind = within(type(limit.default), 1, 10**9)
        text = f"{LIMITS[limit.name]} (default: %(default)s)"
        parser.add_argument(f"--max-{limit.name}", type=kind, default=limit.default, metavar="N", help=text)
    return parser


def address(text: str) -> str:
    """What argparse calls to read --host: an address of this machine; on any other Gradio would try a hundred ports."""
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(text.strip("[]"), 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as listener:
            listener.bind(where)
    except (OSError, UnicodeError):
        raise argparse.ArgumentTypeError(f"this machine cannot listen on {text[:80]!r}, but on 127.0.0.1") from None
    return text


def within(kind: type, low: int, high: int) -> Callable[[str], float]:
    """What argparse calls to read a number from low to high."""

    def read(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            noun = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"must be {noun} from {low} to {high}, not {text[:40]!r}")
        return value

    return read


if __name__ == "__main__" and (code := main(sys.argv[1:])):
    sys.exit(code)
