"""The model card of a checkpoint, README.md, written from the files beside it."""

import json
import math
from pathlib import Path
from typing import Any

import yaml

from diffusion.checkpoints import replace_file

BARS = "▁▂▃▄▅▆▇█"
LICENCE = "apache-2.0"
MEASURES = (
    ("recognised as prompted by the classifier", "{:.2%}", "accuracy", "test_accuracy"),
    ("the classifier's mean confidence", "{:.2%}", "confidence", "test_confidence"),
    ("Fréchet distance to the training pictures, in the classifier's features", "{:.4g}", "frechet", "frechet_floor"),
    ("density (Naeem et al. 2020)", "{:.3f}", "density", ""),
    ("coverage (Naeem et al. 2020)", "{:.3f}", "coverage", ""),
    ("PSNR of the autoencoder in dB", "{:.2f}", "psnr", ""),
    ("SSIM of the autoencoder", "{:.4f}", "ssim", ""),
    ("recognised after the autoencoder", "{:.2%}", "reconstruction_accuracy", "test_accuracy"),
    ("network calls a picture", "{:g}", "calls", ""),
)
"""A row of the metrics table: what it says, how, and its keys in metrics.json for the model and for real pictures."""


def write_card(folder: str | Path) -> None:
    """Write README.md from config.json, recipe.yaml, training.json and, once it exists, metrics.json.

    Raises ValueError when one of the first three is missing or not readable.
    """
    folder = Path(folder)
    config, training = _read(folder / "config.json"), _read(folder / "training.json")
    metrics = _read(folder / "metrics.json") if (folder / "metrics.json").exists() else None
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8"))
    replace_file(folder / "README.md", card(config, recipe, training, metrics).encode())


def card(
    config: dict[str, Any], recipe: dict[str, Any], training: dict[str, Any], metrics: dict[str, Any] | None
) -> str:
    """The card's text: front matter for the Hugging Face Hub, then what the model is, its making and its measure."""
    classifier = "classifier" in training["stages"]
    front = {
        "license": LICENCE,
        "library_name": "diffusion-lab",
        "pipeline_tag": "image-classification" if classifier else "unconditional-image-generation",
        "datasets": [
            {"mnist": "ylecun/mnist", "fashion-mnist": "zalando-datasets/fashion_mnist"}[training["data"]["name"]]
        ],
        "tags": ["pytorch", "safetensors", *([] if classifier else ["diffusion", "class-conditional"])],
    }
    name = recipe["name"]
    sections = [
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---",
        f"# {training['title']}",
        training["description"],
        "" if classifier else "![Samples, one column a class](samples.png)",
        "## Use",
        _use(name, config, classifier),
        "## The model",
        _model(config, training, classifier),
        "## Training",
        _training(name, training),
        "## Metrics",
        _metrics(metrics, name),
        "## Limits",
        _limits(training, classifier),
        "## Licence",
        "Weights and code: Apache-2.0. The data set has its own terms.",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _use(name: str, config: dict[str, Any], classifier: bool) -> str:
    if classifier:
        lines = [
            "from diffusion.classifier import Classifier",
            "",
            f'logits = Classifier.load("{name}")(images)  # images (B, C, H, W) in [-1, 1]',
        ]
    else:
        best = config["defaults"]
        settings = f'sampler="{best["sampler"]}", steps={best["steps"]}, guidance={best["guidance"]}'
        lines = [
            "from diffusion.pipeline import Pipeline, Request",
            "",
            f'pipeline = Pipeline.load("{name}")',
            f'request = Request(prompt="{config["classes"][0]}", count=4, {settings})',
            "*_, last = pipeline.generate(request)",
            "images = pipeline.images(last, request)  # (4, C, H, W) in [-1, 1]",
        ]
    return "\n".join(["```python", *lines, "```"])


def _model(config: dict[str, Any], training: dict[str, Any], classifier: bool) -> str:
    total = sum(training["parameters"].values())
    parts = ", ".join(f"{name} {count:,}" for name, count in training["parameters"].items())
    size = f"{total:,} parameters ({parts}); stored as float16, averaged over the training (EMA)."
    if classifier:
        side = config["image_size"]
        return f"{size} It reads pictures of {config['channels']} x {side} x {side} in [-1, 1]."
    codec = config["codec"]
    return "\n".join(
        [
            "| | |",
            "|---|---|",
            f"| pictures | {codec['channels']} x {codec['image_size']} x {codec['image_size']}, in [-1, 1] |",
            f"| codec | {codec['kind']}"
            + (f", latent scale {codec['scaling_factor']:.4g} |" if codec["kind"] == "vae" else " |"),
            f"| network | U-Net, channels {config['network']['block_out_channels']}, cross-attention to the prompt |",
            f"| schedule | {config['schedule']['kind']}, predicting {config['prediction']}, grid {config['grid']} |",
            f'| prompts | {", ".join(config["classes"])}; "" is unconditional |',
            f"| sampled best with | {config['defaults']['sampler']}, {config['defaults']['steps']} steps, "
            f"guidance {config['defaults']['guidance']} |",
            f"| size | {size} |",
        ]
    )


def _training(name: str, training: dict[str, Any]) -> str:
    minutes = sum(stage["seconds"] for stage in training["stages"].values()) / 60
    lines = [
        f"The training split of {training['data']['name']}, {training['data']['images']:,} pictures, by `recipe.yaml`,"
        " which holds every setting:",
        f"```\npython train.py checkpoints/{name}/recipe.yaml --output runs/{name}\n```",
        f"{minutes:.3g} minutes of training steps on {training['hardware']}, PyTorch {training['torch']},"
        f" {training['date']}. The same recipe on the same machine and number of threads gives the same weights.",
        "| stage | steps | images seen | minutes | loss, from start to end | |\n|---|---|---|---|---|---|\n"
        + "\n".join(_stage_row(name, stage) for name, stage in training["stages"].items()),
        "The loss is the mean over each fiftieth of a stage; `training.json` has the figures.",
    ]
    return "\n\n".join(lines)


def _stage_row(name: str, stage: dict[str, Any]) -> str:
    curve = [loss for _, loss in stage["losses"]]
    at = [curve[round(share * (len(curve) - 1))] for share in (0, 0.25, 0.5, 0.75, 1)]
    figures = ", ".join(f"{loss:.3g}" for loss in at)
    minutes = f"{stage['seconds'] / 60:.1f}"
    return f"| {name} | {stage['steps']:,} | {stage['images']:,} | {minutes} | {figures} | {_spark(curve)} |"


def _spark(values: list[float], width: int = 20) -> str:
    """A curve in block characters, log-scaled: losses fall by powers."""
    picked = [math.log(max(values[round(i * (len(values) - 1) / (width - 1))], 1e-12)) for i in range(width)]
    low, high = min(picked), max(picked)
    return "".join(BARS[round((value - low) / max(high - low, 1e-12) * (len(BARS) - 1))] for value in picked)


def _metrics(metrics: dict[str, Any] | None, name: str) -> str:
    command = f"python -m diffusion evaluate {name} --write"
    if metrics is None:
        return f"Not measured yet: `{command}` measures the model and fills in this section."
    how = f"`{command}`, on {metrics['test_count']:,} test pictures"
    if "frechet" in metrics:
        how += (
            f" and {metrics['count']:,} generated ones ({metrics['sampler']}, {metrics['steps']} steps, "
            f"guidance {metrics['guidance']:g}, seed {metrics['seed']})"
        )
    if "frechet" not in metrics:
        return f"It recognises {metrics['test_accuracy']:.2%} of the test pictures, measured by {how}."
    return "\n".join([f"Measured by {how}.", "", "| | model | real pictures |", "|---|---|---|", *_rows(metrics)])


def _rows(metrics: dict[str, Any]) -> list[str]:
    rows = []
    for text, form, ours, real in MEASURES:
        values = [metrics.get(key) for key in (ours, real)]
        if values != [None, None]:
            rows.append(f"| {text} | " + " | ".join("" if v is None else form.format(v) for v in values) + " |")
    return rows


def _limits(training: dict[str, Any], classifier: bool) -> str:
    data = training["data"]["name"]
    if classifier:
        return f"An instrument for {data}: it gives every picture one of its classes, even one that shows none."
    return (
        f"It knows {data} and nothing else: small pictures of the classes above, with the style and the biases of that"
        " collection. It is made for learning how diffusion works, not for data augmentation and not for decisions."
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is needed for the model card and cannot be read ({error}).") from None
