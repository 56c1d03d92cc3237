"""The model card of a checkpoint, README.md, written from the files beside it."""

import json
import math
from pathlib import Path
from typing import Any

import yaml

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
MEASURES = (
    ("recognised as prompted by the classifier", "{:.2%}", "accuracy", "test_accuracy"),
    ("the classifier's mean confidence", "{:.2%}", "confidence", "test_confidence"),
    ("Fréchet distance to the training pictures, in the classifier's features", "{:.4g}", "frechet", "frechet_floor"),
    ("kernel distance to as many of them (Bińkowski et al. 2018)", "{:.3g}", "kernel", "kernel_floor"),
    ("density (Naeem et al. 2020)", "{:.3f}", "density", "real_density"),
    ("coverage (Naeem et al. 2020)", "{:.3f}", "coverage", "real_coverage"),
    ("precision (Kynkäänniemi et al. 2019)", "{:.3f}", "precision", "real_precision"),
    ("recall (Kynkäänniemi et al. 2019)", "{:.3f}", "recall", "real_recall"),
    ("median distance to the nearest training picture", "{:.3f}", "nearest", "test_nearest"),
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
        _metrics(metrics, name),
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


def _metrics(metrics: dict[str, Any] | None, name: str) -> str:
    command = f"python -m diffusion evaluate {name}"
    if metrics is None:
        return f"Not measured yet: `{command} --write` measures the model and fills in this section."
    parts = []
    if "frechet" in metrics:
        parts += [
            _headline(metrics, command),
            "\n".join(["| | model | real pictures |", "|---|---|---|", *_rows(metrics)]),
        ]
    elif "test_accuracy" in metrics:
        parts.append(
            f"It recognises {metrics['test_accuracy']:.2%} of the test pictures, measured by `{command} --write`, on "
            f"{metrics['test_count']:,} test pictures."
        )
    if "obedience" in metrics:
        parts += _obedience(metrics["obedience"], command)
    if "latents" in metrics:
        parts += _latents(metrics["latents"], command)
    if "likelihood" in metrics:
        parts.append(_likelihood(metrics["likelihood"], command))
    if "sweep" in metrics:
        parts += ["### Samplers", *_sweep(metrics["sweep"], command)]
    return "\n\n".join(parts)


def _obedience(found: dict[str, Any], command: str) -> list[str]:
    """How often what prompts ask for is read back, at each guidance."""
    first, avoided = found["scores"][0], {part["guidance"]: part["reduction"] for part in found["avoided"]}
    names = list(first["shares"])
    text = (
        f"Measured by `{command} --write`, in the pixels: {first['count']:,} prompts of each kind, worded as captions"
        f" are, {found['sampler']}, {found['steps']} steps, seed {found['seed']}. Shares of the pictures that"
        " show what was asked for, in per cent; held-out prompts ask for combinations never painted in training."
        " The last column is by how much less often a value shows where a negative prompt steers away from it."
    )
    rows = [f"| guidance | prompts | {' | '.join(names)} | less by |", "|---" * (len(names) + 3) + "|"]
    for score in found["scores"]:
        shares = " | ".join(f"{100 * score['shares'][name]:.1f}" for name in names)
        less = avoided.get(score["guidance"]) if score["kind"] == first["kind"] else None
        rows.append(
            f"| {score['guidance']:g} | {score['kind']} | {shares} | {'' if less is None else f'{100 * less:.1f}'} |"
        )
    return [text, "\n".join(rows)]


def _headline(metrics: dict[str, Any], command: str) -> str:
    settings = f"{metrics['sampler']}, {metrics['steps']} steps, guidance {metrics['guidance']:g}"
    text = (
        f"Measured by `{command} --write`, on {metrics['test_count']:,} test pictures and {metrics['count']:,} "
        f"generated ones ({settings}, seed {metrics['seed']})."
    )
    if "real_coverage" in metrics:
        text += (
            " Real pictures are test pictures against the training ones; for density, coverage, precision and recall,"
            " as many training pictures in the place of the generated ones."
        )
    return text


def _rows(metrics: dict[str, Any]) -> list[str]:
    """The rows that the model has a figure for."""
    rows = []
    for text, form, ours, real in MEASURES:
        if metrics.get(ours) is not None:
            values = [metrics.get(key) for key in (ours, real)]
            rows.append(f"| {text} | " + " | ".join("" if v is None else form.format(v) for v in values) + " |")
    return rows


def _latents(found: dict[str, Any], command: str) -> list[str]:
    """Autoencoders side by side: a table, and how to read it."""
    spaces = found["spaces"]
    rows = {
        "weight of the KL term": [f"{space['kl_weight']:g}" for space in spaces],
        "PSNR of reconstructions in dB": [f"{space['psnr']:.2f}" for space in spaces],
        "KL to N(0, I) in nats a picture": [f"{space['kl']:,.0f}" for space in spaces],
        "mean of each channel": [" ".join(f"{mean:.2f}" for mean in space["means"]) for space in spaces],
        "deviation of each channel": [" ".join(f"{each:.2f}" for each in space["deviations"]) for space in spaces],
        "deviation of all latents": [f"{space['deviation']:.3g}" for space in spaces],
        "width of the encoder's Gaussians, in deviations": [f"{space['width']:.4f}" for space in spaces],
    }
    for key, text in (("kept", "kept under noise of {} deviations"), ("between", "plain at {} of the way to another")):
        rows |= {text.format(at): [f"{space[key][at]:.1%}" for space in spaces] for at in spaces[0][key]}
    rows["plain, drawn from noise"] = [f"{space['drawn']:.1%}" for space in spaces]
    return [
        f"Measured by `{command} --count {found['count']} --write` on {found['count']:,} test pictures, seed "
        f"{found['seed']}, with the same noise for each autoencoder:",
        "\n".join(
            ["| |" + "".join(f" {space['name']} |" for space in spaces), "|---" * (1 + len(spaces)) + "|"]
            + [f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items()]
        ),
        "Kept: digit, ink and paper are read as they were painted. Plain: one digit that the classifier is sure of, in "
        f"one ink on one paper, which {found['real']:.1%} of the test pictures themselves are. The points between are "
        "on the straight line from one latent to that of another picture; the noise that pictures are drawn from has "
        "each channel's own mean and deviation.",
    ]


def _likelihood(found: dict[str, Any], command: str) -> str:
    given = " given its class" if found["prompted"] else ""
    flags = f"--likelihood {found['images']}{'' if found['prompted'] else ' --unprompted'}"
    return (
        f"A test picture{given} takes {found['bits_per_dim']:.3f} ± {found['standard_error']:.3f} bits per dimension "
        f"by the probability-flow ODE (Song et al. 2021): mean and standard error over {found['images']:,} pictures, "
        f"measured by `{command} {flags} --write`."
    )


def _sweep(found: dict[str, Any], command: str) -> list[str]:
    prompted = any(cell["accuracy"] is not None for cell in found["cells"])
    lines = ["| sampler | steps | network calls | pictures |" + " recognised |" * prompted + " confidence | Fréchet |"
             " times real | seconds a picture |", "|---" * (8 + prompted) + "|"]  # fmt: skip
    for cell in found["cells"]:
        ratio = "" if cell["frechet_ratio"] is None else f"{cell['frechet_ratio']:.2f}"
        lines.append(
            f"| {cell['sampler']} | {cell['steps'] or 'its own'} | {cell['calls']:.4g} | {cell['count']:,} |"
            + (f" {cell['accuracy']:.2%} |" if prompted else "")
            + f" {cell['confidence']:.2%} | {cell['frechet']:.4g} | {ratio} | {cell['seconds']:.4f} |"
        )
    lines.append(
        f"| real pictures | | | {found['count']:,} |"
        + (f" {found['test_accuracy']:.2%} |" if prompted else "")
        + f" {found['test_confidence']:.2%} | {found['frechet_floor']:.4g} | 1 | |"
    )
    flags = f"--samplers {','.join(found['samplers'])} --calls {','.join(map(str, found['budgets']))}"
    return [
        f"The same noise through every sampler, guidance {found['guidance']:g}, seed {found['seed']}: "
        f"`{command} --sweep {flags} --count {found['count']} --write`. Fréchet distances are to all training "
        "pictures, and grow as there are fewer: compare them with one another, not with those above.",
        "\n".join(lines),
    ]


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
