"""The model card of a checkpoint, README.md, written from the files beside it."""

import json
import math
from pathlib import Path
from typing import Any

import yaml

from diffusion import figures
from diffusion.checkpoints import replace_file
from diffusion.data import Painted

BARS = "▁▂▃▄▅▆▇█"
LICENCE = "apache-2.0"
TASKS = {
    "model": "unconditional-image-generation",
    "autoencoder": "image-feature-extraction",
    "classifier": "image-classification",
}
"""The kinds of checkpoint, and what the Hugging Face Hub calls their tasks."""
HUB = {"mnist": "ylecun/mnist", "fashion-mnist": "zalando-datasets/fashion_mnist"}
"""What the Hugging Face Hub calls the data sets that it has."""
OWN = {"folder": "a folder of pictures", "idx": "pictures in IDX files", "celeba": "CelebA"}
"""What is read from --data-dir alone."""


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
    kind = config.get("kind", "model")
    kinds = ["class-conditional"] if kind == "model" and config["classes"] else []
    spoken = kind == "model" and _spoken(config)
    samples = {
        "model": f"![Samples{', one column a class' if kinds else ''}](samples.png)",
        "autoencoder": "![Training pictures, each row over its reconstruction](samples.png)",
    }
    front = {
        "license": LICENCE,
        "library_name": "diffusion-lab",
        "pipeline_tag": "text-to-image" if spoken else TASKS[kind],
        "datasets": [HUB[data] for data in (training["data"]["name"],) if data in HUB],
        "tags": ["pytorch", "safetensors", *(["diffusion", *kinds] if kind == "model" else [])],
    }
    name = recipe["name"]
    sections = [
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---",
        f"# {training['title']}",
        training["description"],
        samples.get(kind, ""),
        "## Use",
        _use(name, config, kind),
        "## The model",
        _model(config, training, kind),
        "## Training",
        _training(name, training),
        "## Metrics",
        figures.sections(metrics, name),
        "## Limits",
        _limits(config, training, kind),
        "## Licence",
        "Weights and code: Apache-2.0. The data set has its own terms.",
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _spoken(config: dict[str, Any]) -> bool:
    """Whether prompts are sentences."""
    return config["conditioner"]["kind"] in ("text", "clip")


def _use(name: str, config: dict[str, Any], kind: str) -> str:
    if kind == "classifier":
        lines = [
            "from diffusion.classifier import Classifier",
            "",
            f'logits = Classifier.load("{name}")(images)  # images (B, C, H, W) in [-1, 1]',
        ]
    elif kind == "autoencoder":
        lines = [
            "from diffusion.autoencoder import Autoencoder",
            "",
            f'codec = Autoencoder.load("{name}").codec',
            "latents = codec.encode(images)  # images (B, C, H, W) in [-1, 1]",
            "again = codec.decode(latents)",
        ]
    else:
        best = config["defaults"]
        example = config["classes"][0] if config["classes"] else Painted.prompts[0] if _spoken(config) else ""
        prompt = f'prompt="{example}", ' if example else ""
        settings = f'{prompt}count=4, sampler="{best["sampler"]}", steps={best["steps"]}, guidance={best["guidance"]}'
        lines = [
            "from diffusion.pipeline import Pipeline, Request",
            "",
            f'pipeline = Pipeline.load("{name}")',
            f"request = Request({settings})",
            "*_, last = pipeline.generate(request)",
            "images = pipeline.images(last, request)  # (4, C, H, W) in [-1, 1]",
        ]
    return "\n".join(["```python", *lines, "```"])


def _model(config: dict[str, Any], training: dict[str, Any], kind: str) -> str:
    total = sum(training["parameters"].values())
    parts = ", ".join(f"{name} {count:,}" for name, count in training["parameters"].items())
    size = f"{total:,} parameters ({parts}); stored as float16, averaged over the training (EMA)."
    sizes = config.get("codec", config)
    shape = f"{sizes['channels']} x {sizes['image_size']} x {sizes['image_size']}"
    if kind == "classifier":
        return f"{size} It reads pictures of {shape} in [-1, 1]."
    if kind == "autoencoder":
        return f"{size} Pictures of {shape} in [-1, 1]; latent scale {sizes['scaling_factor']:.4g}."
    codec, network, best = config["codec"], config["network"], config["defaults"]
    how = f", latent scale {codec['scaling_factor']:.4g}" if codec["kind"] == "vae" else ""
    if "range" in codec:
        how = ", in the range [{:g}, {:g}]".format(*codec["range"])
    sees = ", cross-attention to the prompt" if network["cross_attention_dim"] else ""
    guidance = f", guidance {best['guidance']}" if config["classes"] or _spoken(config) else ""
    prompts = ", ".join(config["classes"]) + '; "" is unconditional' if config["classes"] else "none"
    if _spoken(config):
        known = config["conditioner"].get("vocabulary")
        prompts = f"sentences of {len(known)} known words" if known else "sentences, read by CLIP"
    rows = [
        ("pictures", f"{shape}, in [-1, 1]"),
        ("codec", codec["kind"] + how),
        ("network", f"U-Net, channels {network['block_out_channels']}{sees}"),
        ("schedule", f"{config['schedule']['kind']}, predicting {config['prediction']}, grid {config['grid']}"),
        ("prompts", prompts),
        ("sampled best with", f"{best['sampler']}, {best['steps']} steps{guidance}"),
        ("size", size),
    ]
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {text} |" for name, text in rows)])


def _training(name: str, training: dict[str, Any]) -> str:
    minutes = sum(stage["seconds"] for stage in training["stages"].values()) / 60
    data = training["data"]["name"]
    where = " --data-dir FOLDER" if data in OWN else ""
    lines = [
        f"The training split of {OWN.get(data, data)}, {training['data']['images']:,} pictures, by `recipe.yaml`,"
        " which holds every setting:",
        f"```\npython train.py checkpoints/{name}/recipe.yaml{where} --output runs/{name}\n```",
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


def _limits(config: dict[str, Any], training: dict[str, Any], kind: str) -> str:
    data = OWN.get(training["data"]["name"], training["data"]["name"])
    if kind == "classifier":
        return f"An instrument for {data}: it gives every picture one of its classes, even one that shows none."
    if kind == "autoencoder":
        beside = f" It is there to be compared with {config['beside']}." if config["beside"] else ""
        return f"It knows {data} and nothing else, and has no denoiser: it makes no pictures of its own.{beside}"
    return (
        f"It knows {data} and nothing else: small pictures with the style and the biases of that collection. It is"
        " made for learning how diffusion works, not for data augmentation and not for decisions."
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} is needed for the model card and cannot be read ({error}).") from None
