"""Train a checkpoint from its recipe: python train.py checkpoints/mnist-latent/recipe.yaml

Stop it with Ctrl-C whenever you like; --resume goes on as if nothing had happened.
--dry-run looks at recipe and data, estimates the time and trains nothing.
"""

import argparse
import json
import platform
import signal
import sys
import time
from pathlib import Path
from typing import Any

import torch
import yaml
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from diffusion import checkpoints, data, export, model_card, training
from diffusion.pipeline import choose_device
from diffusion.recipe import Recipe, image_shape, read_recipe

STATE = "state.safetensors"


def main(arguments: list[str]) -> int:
    """Run the script; returns 0, 2 for bad input, 1 for what failed on the way, 128 + n when signal n stopped it."""
    options = parse_arguments(arguments)
    output = options.output or options.recipe.parent
    try:
        recipe, mapping = read_recipe(options.recipe, dict(options.set))
        device = choose_device(options.device)
        use_threads(options.threads)
        if options.dry_run:
            dry_run(training.Run(recipe, pictures(recipe, options.data_dir), device), output)
            return 0
        if options.resume and is_finished(output):
            print(f"{recipe.name} is finished: see {output / 'README.md'}. A changed recipe needs another --output.")
        else:
            refuse_to_overwrite(output, options.resume)
            run = training.Run(recipe, pictures(recipe, options.data_dir), device)
            if options.resume:
                restore(run, output)
            if number := train(run, output):
                print(f"Stopped at {run.stage} step {run.step}; the state is saved, and --resume goes on from it.")
                return 128 + number
            publish(run, output, options.recipe, mapping if options.set else None)
            print(f"{recipe.name} is finished: see {output / 'README.md'}.")
        if options.push_to_hub:
            print(f"Uploaded to {push(output, options.push_to_hub)}.")
    except (ValueError, FloatingPointError, OSError) as error:
        print(f"train.py: {error}", file=sys.stderr)
        return 2 if isinstance(error, ValueError) else 1
    return 0


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", type=Path, help="a recipe.yaml")
    parser.add_argument("--data-dir", type=Path, help="where the data sets lie or are downloaded to (default: data);"
                        " with data folder, idx or celeba: where your own pictures lie")  # fmt: skip
    parser.add_argument("--output", type=Path, help="the folder to write to (default: the recipe's own)")
    parser.add_argument("--resume", action="store_true", help="go on from the state in the output folder")
    parser.add_argument("--set", type=setting, nargs="+", action="extend", default=[], metavar="section.key=value",
                        help="change settings of the recipe, e.g. denoiser.steps=5000 seed=1")  # fmt: skip
    parser.add_argument(
        "--dry-run", action="store_true", help="check recipe and data, estimate the time, train nothing"
    )
    parser.add_argument(
        "--push-to-hub", metavar="owner/name", help="upload the finished checkpoint to the Hugging Face Hub"
    )
    parser.add_argument("--device", choices=("cpu", "cuda", "mps"), help="default: the fastest there is")
    parser.add_argument("--threads", type=int, help="CPU threads to use (default: PyTorch's choice)")
    return parser.parse_args(arguments)


def setting(text: str) -> tuple[str, Any]:
    """One --set argument: a dotted key and a YAML value."""
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise argparse.ArgumentTypeError(f"{text!r} is not section.key=value")
    try:
        return key, yaml.safe_load(value)
    except yaml.YAMLError:
        raise argparse.ArgumentTypeError(f"the value in {text!r} is not YAML") from None


def use_threads(threads: int | None) -> None:
    """CPU threads as asked for, else PyTorch's choice."""
    if threads is None:
        return
    if threads < 1:
        raise ValueError(f"--threads must be 1 or more, not {threads}.")
    torch.set_num_threads(threads)


def pictures(recipe: Recipe, folder: Path | None) -> data.Examples:
    """The pictures to train on, in the shape that the model takes; says what they were before, if they were not."""
    if recipe.data in data.PAINTED:
        return data.Painted(data.load(data.PAINTED[recipe.data], "train", folder), recipe.held_out)
    read = data.load(recipe.data, "train", folder, shape=image_shape(recipe))
    if read.found:
        print(read.found)
    return read


def is_finished(output: Path) -> bool:
    """Whether the folder holds a whole checkpoint; the card is what is written last."""
    return (output / checkpoints.WEIGHTS).exists() and (output / "README.md").exists()


def refuse_to_overwrite(output: Path, resume: bool) -> None:
    """A training run never destroys another."""
    if (output / STATE).exists() and not resume:
        raise ValueError(f"{output} holds the state of a training: go on with --resume, or give another --output.")
    if (output / checkpoints.WEIGHTS).exists() and not (output / STATE).exists():
        raise ValueError(f"{output} holds a trained model: give another --output.")


def restore(run: training.Run, output: Path) -> None:
    """Continue from the state in the folder, if there is one."""
    if not (output / STATE).exists():
        print(f"There is no training state in {output}: {run.recipe.name} starts afresh.")
        return
    run.restore(output / STATE)
    print(f"Resuming at {run.stage} step {run.step} of {run.recipe.stages[run.stage].steps}.")


def train(run: training.Run, output: Path) -> int:
    """Train to the end, or until a signal; returns the signal's number, or 0."""
    signals: list[int] = []

    def stop(number: int, frame: object) -> None:
        signals.append(number)
        signal.signal(number, signal.SIG_DFL)  # a second Ctrl-C stops at once

    previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    output.mkdir(parents=True, exist_ok=True)
    pace = {"mininterval": 1 if sys.stderr.isatty() else 60, "dynamic_ncols": True}  # a log file needs few lines
    bar = tqdm(desc=run.stage, initial=run.step, total=run.recipe.stages[run.stage].steps, **pace)
    try:
        for progress in run.train():
            if bar.desc != progress.stage:
                bar.close()
                bar = tqdm(desc=progress.stage, total=progress.steps, **pace)
            bar.set_postfix_str(f"loss {progress.loss:.4f}, {progress.images_per_second:,.0f} images/s", refresh=False)
            bar.update()
            stage, done = run.recipe.stages[progress.stage], progress.step == progress.steps
            if done or signals or progress.step % stage.save_every == 0:
                run.save(output / STATE)
            if signals:
                break
            if done or progress.step % stage.sample_every == 0:
                report(progress, bar)
                if not run.finished:  # the last picture comes with the checkpoint
                    save_pictures(run.samples(), output / "samples.png")
    finally:
        bar.close()
        for number, handler in previous.items():
            signal.signal(number, handler)
    return signals[0] if signals else 0


def report(progress: training.Progress, bar: tqdm) -> None:
    """The loss by noise level: which part of the task is still being learnt."""
    lines = [f"  sigma {low:8.3f} to {high:8.3f}   loss {loss:.4f}" for low, high, loss in progress.levels]
    bar.write("\n".join([f"{progress.stage} step {progress.step}: loss {progress.loss:.4f}", *lines]))


def save_pictures(images: Tensor | None, path: Path) -> None:
    """Write images (rows, columns, C, H, W) in [-1, 1] as one PNG."""
    if images is not None:
        picture = export.grid(export.to_pictures(images.flatten(0, 1)), columns=images.shape[1])
        Image.fromarray(export.enlarge(picture, export.view_scale(picture))).save(path, optimize=True)


def publish(run: training.Run, output: Path, recipe: Path, changed: dict[str, Any] | None) -> None:
    """Write the checkpoint: weights and config, recipe as run, record of the training, pictures; last the card."""
    run.export(output)
    text = yaml.safe_dump(changed, sort_keys=False, allow_unicode=True).encode() if changed else recipe.read_bytes()
    checkpoints.replace_file(output / "recipe.yaml", text)
    record = run.record() | {
        "hardware": hardware(run.device),
        "torch": torch.__version__,
        "date": time.strftime("%Y-%m-%d"),
    }
    checkpoints.replace_file(output / "training.json", json.dumps(record, indent=2).encode())
    save_pictures(run.samples(), output / "samples.png")
    model_card.write_card(output)


def hardware(device: torch.device) -> str:
    """What trained the model, in words."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "mps":
        return "an Apple GPU"
    return (
        f"a CPU ({platform.machine()}, {torch.backends.cpu.get_cpu_capability()}), --threads {torch.get_num_threads()}"
    )


def dry_run(run: training.Run, output: Path) -> None:
    """Show what would be trained on what, and for how long."""
    print(f"{run.recipe.data}: {run.data}")
    output.mkdir(parents=True, exist_ok=True)
    index = data.batch_indices(len(run.data), 64, run.recipe.seed, 0)
    batch, _ = run.data.batch(index, training.generator(run.recipe.seed, run.stage, 0))
    save_pictures(batch.unflatten(0, (4, 16)), output / "batch.png")
    print(f"  the first batch is pictured in {output / 'batch.png'}")
    for name, parameters in run.parameters().items():
        print(f"{name}: {parameters:,} parameters")
    for stage, seconds in training.estimate(run.recipe, run.data, run.device).items():
        steps = run.recipe.stages[stage].steps
        print(f"{stage}: {steps:,} steps, about {seconds / 60:.1f} minutes on {run.device.type}")
    print("Nothing was trained.")


def push(folder: Path, repository: str) -> str:
    """Upload the published files of a checkpoint, never the training state, and return their address."""
    from huggingface_hub import HfApi, errors

    api, published = HfApi(), [*checkpoints.FILES]
    log_in = "run `hf auth login` with a token that may write, then this command with --resume."
    try:
        address = api.create_repo(repository, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder, allow_patterns=published, commit_message="Checkpoint")
    except errors.HFValidationError:
        raise ValueError(f"--push-to-hub {repository}: give owner/name, the Hub repository to write to.") from None
    except errors.LocalTokenNotFoundError:
        raise ConnectionError(f"Not logged in to the Hugging Face Hub: {log_in}") from None
    except errors.HfHubHTTPError as error:
        if error.response is not None and error.response.status_code in (401, 403):
            raise ConnectionError(f"The Hub does not let you write to {repository}: {log_in}") from None
        raise ConnectionError(f"The Hub refused the upload ({str(error).splitlines()[0]}).") from None
    except (errors.HTTPError, errors.OfflineModeIsEnabled) as error:
        raise ConnectionError(f"The Hub is out of reach ({error}): go online, then repeat with --resume.") from None
    return str(address)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
