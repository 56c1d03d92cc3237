"""What `python -m diffusion info` prints: the checkpoints at hand, or one of them in figures."""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from diffusion import checkpoints, export, stable_diffusion
from diffusion.autoencoder import Autoencoder
from diffusion.classifier import Classifier
from diffusion.clip import CLIPText
from diffusion.commands import MODEL
from diffusion.config import parse
from diffusion.pipeline import ModelConfig, Pipeline

OURS = "our own"


def info(args: argparse.Namespace) -> None:
    """The checkpoints at hand, or one of them in figures; it may be a Stable Diffusion that others have trained."""
    if args.checkpoint is None:
        names = checkpoints.names()
        for name, kind in names.items():
            print(f"{name:<24}{kind}")
        if not names:
            print(f"no checkpoints yet: train one, e.g. python train.py checkpoints/{MODEL}/recipe.yaml")
        return
    checkpoint = stable_diffusion.read(args.checkpoint, device="meta")  # of others' models the shapes, not the numbers
    print(json.dumps(checkpoint.config, indent=2, ensure_ascii=False))
    layout = _layout(checkpoint.folder, args.checkpoint)
    print(f"layout        {layout}")
    if checkpoint.config.get("kind") == "classifier":
        classifier = Classifier.load(args.checkpoint)
        size = (1, classifier.config.channels, classifier.config.image_size, classifier.config.image_size)
        _print_parameters({"classifier": classifier})
        _print_flops(classifier, torch.zeros(size))
    elif checkpoint.config.get("kind") == "autoencoder":
        autoencoder = Autoencoder.load(args.checkpoint)
        _print_parameters(dict(autoencoder.codec.named_children()))
        print(f"state         {' x '.join(map(str, autoencoder.codec.latent_shape))}")
        print(f"fingerprint   {export.fingerprint(autoencoder)}")
    else:
        _print_model(checkpoint, args.checkpoint)
    _print_ignored(checkpoint.ignored)
    if layout == OURS:
        print(f"on disk       {(checkpoint.folder / checkpoints.WEIGHTS).stat().st_size / 1e6:.2f} MB")
        metrics = checkpoint.folder / "metrics.json"
        print(metrics.read_text(encoding="utf-8") if metrics.is_file() else "not measured yet: see `evaluate --write`")


def _print_model(checkpoint: checkpoints.Checkpoint, reference: str) -> None:
    """A whole model, ours or others', counted without a multiplication; others' without their weights in memory."""
    config = parse(ModelConfig, checkpoint.config, str(checkpoint.folder / checkpoints.CONFIG))
    with torch.device("meta"):
        pipeline = Pipeline(config)
    checkpoints.load_into(pipeline, checkpoint.tensors, reference)
    parts, conditioner = dict(pipeline.named_children()), pipeline.conditioner
    if isinstance(conditioner, CLIPText):
        parts["conditioner"] = conditioner.text_model
    _print_parameters(parts)
    fingerprint = "" if pipeline.device.type == "meta" else export.fingerprint(pipeline)
    shape = pipeline.codec.latent_shape
    inputs = torch.zeros(1, *shape), torch.ones(1), conditioner([""])
    _print_flops(pipeline.denoiser.network.to("meta"), *(x.to("meta") for x in inputs))
    print(f"state         {' x '.join(map(str, shape))}")
    if fingerprint:
        print(f"fingerprint   {fingerprint}")


def _print_ignored(ignored: Mapping[str, str]) -> None:
    """The tensors of a file that no picture needs, by the reason why."""
    for reason in dict.fromkeys(ignored.values()):
        names = [name for name, why in ignored.items() if why == reason]
        more = f" and {len(names) - 1:,} more" if len(names) > 1 else ""
        print(f"ignored       {names[0]}{more}: {reason}")


def _layout(folder: Path, reference: str) -> str:
    """Whose model it is, by how it is stored."""
    if checkpoints.local(reference).is_file():
        return "one file of Stable Diffusion, as its authors lay it out"
    return "Stable Diffusion as diffusers lays it out" if (folder / stable_diffusion.INDEX).is_file() else OURS


def _print_parameters(parts: dict[str, torch.nn.Module]) -> None:
    counts = {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}
    listed = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    print(f"parameters    {sum(counts.values()):,} ({listed})")


def _print_flops(network: torch.nn.Module, *inputs: Tensor) -> None:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        network(*inputs)
    print(f"network call  {counter.get_total_flops() / 1e6:,.1f} MFLOP an image, a multiply-add counted as two")
