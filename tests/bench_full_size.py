"""Stable Diffusion 1.5 at full size, random weights: this engine beside diffusers. python tests/bench_full_size.py

Each side runs in a process of its own, so that its peak of memory is its own, in turn and as often as is asked for.
Prints a line for each, and ratios. Takes 3 GB on disk for its time, and without a GPU some minutes.
"""

import argparse
import gc
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

PROMPT, NEGATIVE, GUIDANCE = "a thick red 7 on blue paper", "thick", 7.5
FIGURES = ("load s", "s a step", "decode s", "memory MB")


def ours(folder: str, device: str, steps: int) -> dict[str, float]:
    """Loads, runs the steps, decodes."""
    from transformers import CLIPTextModel, CLIPTokenizer  # noqa: F401  takes seconds, on both sides

    from diffusion.pipeline import Pipeline
    from diffusion.request import Request

    dtype = torch.float32 if device == "cpu" else torch.float16
    seconds, pipeline = timed(lambda: Pipeline.load(folder, device=device, dtype=dtype))
    request = Request(PROMPT, NEGATIVE, sampler="ddim", steps=steps, guidance=GUIDANCE)
    run = pipeline.generate(request)
    next(run)
    taken = [timed(lambda: next(run)) for _ in range(steps)]
    decoding, _ = timed(lambda: pipeline.images(taken[-1][1], request))
    return figures(seconds, [each for each, _ in taken], decoding, device)


def theirs(folder: str, device: str, steps: int) -> dict[str, float]:
    """The same by diffusers."""
    import diffusers
    from transformers import CLIPTextModel, CLIPTokenizer  # noqa: F401

    dtype = torch.float32 if device == "cpu" else torch.float16

    def load() -> Any:
        pipeline = diffusers.StableDiffusionPipeline.from_pretrained(folder, variant="fp16", dtype=dtype)
        return pipeline.to(device)

    seconds, pipeline = timed(load)
    marks: list[float] = []

    def mark(pipeline: Any, step: int, t: Any, given: dict[str, Any]) -> dict[str, Any]:
        synchronize(device)
        marks.append(time.perf_counter())
        return given

    latents = pipeline(
        PROMPT, negative_prompt=NEGATIVE, num_inference_steps=steps, guidance_scale=GUIDANCE, output_type="latent",
        callback_on_step_end=mark,
    ).images  # fmt: skip
    taken = [after - before for before, after in pairwise(marks)]
    with torch.no_grad():
        scaled = latents / pipeline.vae.config.scaling_factor
        decoding, _ = timed(lambda: pipeline.vae.decode(scaled).sample)
    return figures(seconds, taken, decoding, device)


SIDES = {"ours": ours, "diffusers": theirs}


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds that some work takes, and what it gives."""
    gc.collect()
    began = time.perf_counter()
    result = work()
    synchronize("cuda" if torch.cuda.is_available() else "cpu")
    return time.perf_counter() - began, result


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def figures(load: float, steps: list[float], decode: float, device: str) -> dict[str, float]:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if device == "cuda":
        peak = torch.cuda.max_memory_allocated() / 2**20
    return dict(zip(FIGURES, (load, median(steps[1:] or steps), decode, peak), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda"))
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.side:
        print(json.dumps(SIDES[args.side](args.folder, args.device, args.steps)))
        return
    with tempfile.TemporaryDirectory() as folder:
        make = [sys.executable, "-c", f"import bench_full_size; bench_full_size.write({folder!r})"]
        subprocess.run(make, check=True, cwd=Path(__file__).parent)
        os.sync()  # what is still being written to the disk would slow down who comes first
        found: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
        for _ in range(args.rounds):
            for side in SIDES:
                command = [sys.executable, __file__, "--side", side, "--folder", f"{folder}/model"]
                command += ["--device", args.device, "--steps", str(args.steps)]
                out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
                found[side].append(json.loads(out.splitlines()[-1]))
                print(f"{side:10}", *(f"{name} {value:9.2f}" for name, value in found[side][-1].items()), flush=True)
    best = {side: {name: min(one[name] for one in rounds) for name in FIGURES} for side, rounds in found.items()}
    print("ratio     ", *(f"{name} {best['ours'][name] / best['diffusers'][name]:9.2f}" for name in FIGURES))


def write(folder: str) -> None:
    """The model, half precision, in the layout of diffusers."""
    import diffusers
    from test_clip import write_tokenizer
    from theirs import BETAS, full_size

    words = Path(folder) / "words"
    write_tokenizer(words)
    scheduler = diffusers.DDIMScheduler(**BETAS, steps_offset=1, clip_sample=False, set_alpha_to_one=True)
    model = full_size(words, scheduler)
    model.to(dtype=torch.float16).save_pretrained(Path(folder) / "model", variant="fp16")


if __name__ == "__main__":
    main()
