"""The engine at the command line: python -m diffusion generate | reconstruct | evaluate | info."""

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

import torch

from diffusion import __version__
from diffusion.commands import FRAMES, MODEL, Fetching, generate, reconstruct
from diffusion.download import watched
from diffusion.info import info
from diffusion.measure import COUNT, LATENT_COUNT, PROMPT_COUNT, SWEEP_COUNT, evaluate
from diffusion.samplers import SAMPLERS


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns 0, 2 after an error that it explained in one sentence, or 130 when interrupted."""
    args = _parser().parse_args(arguments)
    try:
        with watched(Fetching()):
            args.run(args)
    except torch.OutOfMemoryError:
        return _fail(f"the memory of {args.device} is too small for this batch: choose a smaller --batch.")
    except (ValueError, OSError) as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        print("stopped; nothing more was written.", file=sys.stderr)
        return 130
    return 0


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One sentence instead of argparse's page of usage."""
        sys.exit(_fail(f"{message.rstrip('.')}; see {self.prog} --help."))


def _fail(message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return 2


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="python -m diffusion", description="Generate, reconstruct and measure at the command line.")
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="command")
    for function in (generate, reconstruct, evaluate, info):
        command = commands.add_parser(function.__name__, help=function.__doc__, description=function.__doc__)
        command.set_defaults(run=function)
        ARGUMENTS[function.__name__](command)
    return parser


def _generate_arguments(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--out", required=True, metavar="FILE", help=".png: one picture of all, with the settings inside; "
        ".gif .webp .mp4: the run as a film; .npz: the arrays `images` and `labels`")  # fmt: skip
    add("--checkpoint", metavar="NAME", help=f"a name under checkpoints/, a folder or owner/name on the Hub ({MODEL})")
    add("--prompt", metavar="TEXT", help='what to draw, for digits one of 0 to 9; "all": as many of each class; '
        'default "": whatever the model likes')  # fmt: skip
    add("--negative", metavar="TEXT", help="what to steer away from instead of from the unconditional picture")
    add("--count", type=int, metavar="N", help="how many pictures (16; 1 where they are large); many run in batches")
    add("--size", type=int, nargs=2, metavar=("HEIGHT", "WIDTH"), help="of the pictures, in pixels (the model's own)")
    add("--seed", type=int, metavar="S", help="picture i starts from the noise of seed S + i, whatever the batch (0)")
    add("--like", metavar="PNG", help="repeat the settings inside a PNG made here; flags beside it override them")
    _sampling_arguments(command)
    add("--interval", type=float, nargs=2, metavar=("LO", "HI"), help="guide only at noise levels from LO to HI: "
        "guidance at the highest costs variety, at the lowest it changes nothing (all)")  # fmt: skip
    add("--image", metavar="FILE", help="start from this picture; a photographed digit is cut out and centred")
    add("--strength", type=float, metavar="0..1", help="how much of the picture is forgotten: the share of the "
        "steps, the last ones, that is run on it; 0 reconstructs it, 1 forgets it (0.6; 1 with --mask)")  # fmt: skip
    add("--mask", metavar="FILE", help="white where the picture is to be made anew; the rest stays, pixel for pixel")
    add("--as-is", action="store_true", help="only resize the picture, do not look for a digit in it")
    add("--frames", choices=tuple(FRAMES), default="noisy", help="a film's frames: the noisy state of each step, "
        "or the clean picture predicted from it (noisy)")  # fmt: skip
    add("--fps", type=float, default=8.0, metavar="N", help="a film's frames a second (8)")
    add("--hold", type=float, default=2.0, metavar="SECONDS", help="how much longer a film shows its end (2)")


def _reconstruct_arguments(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--out", required=True, metavar="FILE", help="a .png: original, reconstruction, difference from top to bottom")
    add("--checkpoint", default=MODEL, metavar="NAME", help=f"a name, folder or Hub id ({MODEL})")
    add("--image", metavar="FILE", help="one picture of your own instead of test images")
    add("--as-is", action="store_true", help="only resize the picture, do not look for a digit in it")
    add("--count", type=int, default=10, metavar="N", help="how many test images, 1 to 100 (10)")
    _data_argument(command)
    _device_argument(command)


def _evaluate_arguments(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("checkpoint", metavar="CHECKPOINT", help="a name, folder or Hub id, of a model, an autoencoder or a classifier")
    what = command.add_mutually_exclusive_group()
    what.add_argument("--sweep", action="store_true", help="measure several samplers at equal numbers of network calls")
    what.add_argument("--likelihood", type=int, metavar="N", help="measure the bits per dimension of N test images, "
        "for models of pixels; minutes for every hundred")  # fmt: skip
    add("--count", type=int, metavar="N", help=f"images to generate, equally many a class ({COUNT}; for each row of a "
        f"sweep {SWEEP_COUNT}; of prompts, for models that read sentences, {PROMPT_COUNT}; for an autoencoder test "
        f"images, {LATENT_COUNT})")  # fmt: skip
    add("--samplers", metavar="A,B", help="those of a sweep (all that differ)")
    add("--calls", metavar="N,M", help="the budgets of a sweep, 2 to 1000 network calls each (10,20,50,250)")
    add("--unprompted", action="store_true", help="the likelihood without prompts (that of each image given its class)")
    add("--seed", type=int, default=0, metavar="S", help="image i depends on seed S + i alone (0)")
    _sampling_arguments(command)
    add("--classifier", metavar="NAME", help="the measuring instrument (the data set's own, e.g. mnist-classifier)")
    add("--json", metavar="FILE", help="write the figures there")
    add("--neighbours", metavar="FILE", help="a .png: samples over the training images most like them")
    add("--write", action="store_true", help="write metrics.json and the model card into the checkpoint's folder; "
        "what else was measured of the same weights stays")  # fmt: skip
    _data_argument(command)


def _info_arguments(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("checkpoint", nargs="?", metavar="CHECKPOINT", help="a name, folder or Hub id, or a file of Stable Diffusion; "
        "without it, list those under checkpoints/")  # fmt: skip


def _sampling_arguments(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--sampler", metavar="NAME", help=f"{', '.join(SAMPLERS)} (what suits the model)")
    add("--steps", type=int, metavar="N", help="noise levels to go through, 1 to 1000 (what suits the model)")
    add("--guidance", type=float, metavar="W", help="classifier-free guidance, 0 to 100: 1 is none, more is "
        "more typical and less varied (what suits the model)")  # fmt: skip
    add(
        "--batch",
        type=int,
        metavar="N",
        help="pictures at a time; changes memory and speed, the pictures only by rounding",
    )
    _device_argument(command)


def _device_argument(command: argparse.ArgumentParser) -> None:
    command.add_argument("--device", default="cpu", metavar="NAME", help="cpu, cuda or mps (cpu)")


def _data_argument(command: argparse.ArgumentParser) -> None:
    command.add_argument("--data-dir", metavar="FOLDER", help="where the data sets are, or are downloaded to (data)")


ARGUMENTS = {
    "generate": _generate_arguments,
    "reconstruct": _reconstruct_arguments,
    "evaluate": _evaluate_arguments,
    "info": _info_arguments,
}

if __name__ == "__main__":
    sys.exit(main())
