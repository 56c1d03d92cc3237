"""What was measured of a checkpoint, as sections of its model card."""

from typing import Any

from diffusion.captions import CHOICES

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


def sections(metrics: dict[str, Any] | None, name: str) -> str:
    """What metrics.json holds of the checkpoint `name`, None where there is none yet, as Markdown."""
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
    scores = found["scores"]
    names = [name for name in (*CHOICES, "all") if any(name in score["shares"] for score in scores)]
    text = (
        f"Measured by `{command} --write`, in the pixels: {scores[0]['count']:,} prompts of each kind, worded as"
        f" captions are, {found['sampler']}, {found['steps']} steps, seed {found['seed']}. Shares of the pictures that"
        " show what was asked for, in per cent; held-out prompts ask for combinations never painted in training; open"
        " ones leave an attribute open, and steered ones are the same with a negative prompt that names a value of it."
    )
    rows = [f"| guidance | prompts | {' | '.join(names)} |", "|---" * (len(names) + 2) + "|"]
    for score in scores:
        shares = [f"{100 * score['shares'][name]:.1f}" if name in score["shares"] else "" for name in names]
        rows.append(f"| {score['guidance']:g} | {score['kind']} | {' | '.join(shares)} |")
    return [text, "\n".join(rows), *_avoided(found["avoided"]), *_combinations(found["combinations"])]


def _avoided(found: list[dict[str, Any]]) -> list[str]:
    """How much less often a value shows where a negative prompt steers away from it, at each guidance."""
    if not found:
        return []
    names = list(found[0]["without"])
    table = [f"| guidance | {' | '.join(names)} | together less by |", "|---" * (len(names) + 2) + "|"]
    for part in found:
        cells = [f"{100 * part['without'][name]:.1f} to {100 * part['given'][name]:.1f}" for name in names]
        table.append(f"| {part['guidance']:g} | {' | '.join(cells)} | {100 * part['reduction']:.1f} |")
    return [
        "How often the value shows that negative prompts name, without and with them, in per cent:",
        "\n".join(table),
    ]


def _combinations(found: list[dict[str, Any]]) -> list[str]:
    """How often each held-out combination shows, at each guidance."""
    columns = dict.fromkeys(f"{part['guidance']:g}" for part in found)
    rows: dict[str, list[str]] = {}
    for part in found:
        alike = "" if part["trained"] is None else f" ({100 * part['trained']:.1f})"
        rows.setdefault(part["said"], []).append(f"{100 * part['share']:.1f}{alike}")
    if not rows:
        return []
    table = [f"| held out | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
    table += [f"| {said} | {' | '.join(cells)} |" for said, cells in rows.items()]
    return [
        "How often each held-out combination shows where it is asked for, in per cent, at each guidance; in brackets, "
        "trained combinations of the same attributes.",
        "\n".join(table),
    ]


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
