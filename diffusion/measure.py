"""What `python -m diffusion evaluate` does: a model's headline figures, a sweep of its samplers, its likelihood."""

import argparse
import dataclasses
import json
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tqdm import tqdm

from diffusion import checkpoints, data, export
from diffusion.autoencoder import Autoencoder
from diffusion.classifier import INSTRUMENTS, Classifier
from diffusion.commands import MAX_IMAGES, batch_size, open_pipeline, writable
from diffusion.distances import nearest
from diffusion.pipeline import Pipeline
from diffusion.recipe import read_recipe
from diffusion.request import MAX_COUNT, Request, check_number
from diffusion.sweep import CALLS, HEADER, SWEPT, plan, sweep
from diffusion.yardstick import MIN_COUNT

COUNT, SWEEP_COUNT, PROMPT_COUNT, LATENT_COUNT = 10_000, 1000, 2000, 1000
FLAGS = {
    "model": ("count", "sampler", "steps", "guidance", "classifier", "neighbours", "batch"),
    "sweep": ("count", "samplers", "calls", "guidance", "classifier", "batch"),
    "likelihood": ("unprompted", "batch"),
    "prompts": ("count", "sampler", "steps", "guidance", "classifier", "batch"),
    "autoencoder": ("count", "classifier"),
    "classifier": (),
}
"""What can be measured, and the flags that have a say in it."""


def evaluate(args: argparse.Namespace) -> None:
    """Measures a model against its data set with a classifier, a classifier against the test images, or an autoencoder
    beside the model that it is to be compared with."""
    for path, suffix in ((args.json, ".json"), (args.neighbours, ".png")):
        if path:
            writable(path, (suffix,))
    checkpoint = checkpoints.read(args.checkpoint)
    if args.write and not (checkpoint.folder / "training.json").is_file():
        raise ValueError(f"--write needs the training.json that train.py leaves, and {checkpoint.folder} has none.")
    what = "sweep" if args.sweep else "model" if args.likelihood is None else "likelihood"
    if (kind := checkpoint.config.get("kind")) in ("autoencoder", "classifier"):
        if what != "model":
            article = "an" if kind == "autoencoder" else "a"
            raise ValueError(f"--{what} measures models, and {args.checkpoint} is {article} {kind}.")
        what = kind
    elif checkpoint.config.get("data") in data.PAINTED:
        if what != "model":
            raise ValueError(f"--{what} compares with a data set, and {args.checkpoint} is held to its prompts.")
        what = "prompts"
    _check_flags(args, what)
    metrics_file = checkpoint.folder / "metrics.json"
    kept = _kept(metrics_file) if args.write else {}
    metrics = MEASURES[what](args)
    if args.json:
        Path(args.json).write_text(_json(metrics), encoding="utf-8")
    if args.write:
        from diffusion.model_card import write_card

        if kept.get("weights", metrics.get("weights")) != metrics.get("weights"):
            kept = {}
            print(f"note: {metrics_file} held figures of other weights; they are gone.", file=sys.stderr)
        checkpoints.replace_file(metrics_file, _json(kept | metrics).encode())
        write_card(checkpoint.folder)
        print(f"{checkpoint.folder}: wrote metrics.json and README.md")


def _model(args: argparse.Namespace) -> dict[str, Any]:
    from diffusion.evaluation import evaluate as measure  # torchmetrics takes seconds to import

    count = _count(args, COUNT)
    pipeline, batch = _open(args)
    settings = _settings(args, pipeline)
    classifier = _classifier(args, pipeline)
    train, test = _data(args, pipeline, "train"), _data(args, pipeline, "test")
    steps = measure(pipeline, classifier, train, test, count=count, seed=args.seed, batch=batch, **settings)
    report = _watch(steps)
    print(report.table())
    if args.neighbours:
        classes = pipeline.config.classes or ("",)
        prompt = tuple(classes[i % len(classes)] for i in range(20))
        _save_neighbours(Path(args.neighbours), pipeline, train, Request(prompt, count=20, seed=args.seed, **settings))
    return {"weights": export.fingerprint(pipeline)} | report.to_dict()


def _sweep(args: argparse.Namespace) -> dict[str, Any]:
    samplers = SWEPT if args.samplers is None else [name.strip() for name in args.samplers.split(",")]
    calls = CALLS if args.calls is None else _numbers("calls", args.calls)
    plan(samplers, calls)  # says now what would be wrong after minutes
    count = _count(args, SWEEP_COUNT)
    pipeline, batch = _open(args)
    guidance = _settings(args, pipeline)["guidance"]
    classifier = _classifier(args, pipeline)
    train, test = _data(args, pipeline, "train"), _data(args, pipeline, "test")
    steps = sweep(
        pipeline,
        classifier,
        train,
        test,
        samplers=samplers,
        calls=calls,
        count=count,
        guidance=guidance,
        seed=args.seed,
        batch=batch,
    )
    print(f"{pipeline.config.name}: {count} images a row, guidance {guidance:g}, seed {args.seed}\n{HEADER}")
    result = _watch(steps, "call")
    print(result.real_row())
    return {"weights": export.fingerprint(pipeline), "sweep": result.to_dict()}


def _prompts(args: argparse.Namespace) -> dict[str, Any]:
    from diffusion.obedience import GUIDANCES, obedience

    count = _count(args, PROMPT_COUNT)
    pipeline, batch = _open(args)
    settings = _settings(args, pipeline)
    guidance = settings.pop("guidance")
    recipe = checkpoints.read(args.checkpoint).folder / "recipe.yaml"
    held_out = read_recipe(recipe, {})[0].held_out if recipe.is_file() else ()
    classifier = Classifier.load(args.classifier or INSTRUMENTS["mnist"]).to(args.device)
    found = _watch(
        obedience(
            pipeline,
            classifier,
            held_out=held_out,
            count=count,
            guidances=sorted({*GUIDANCES, guidance}) if args.guidance is None else (guidance,),
            seed=args.seed,
            batch=batch,
            **settings,
        )
    )
    return {"weights": export.fingerprint(pipeline), "obedience": found.to_dict()}


def _likelihood(args: argparse.Namespace) -> dict[str, Any]:
    from diffusion.likelihood import likelihood  # and so does scipy

    check_number("likelihood", args.likelihood, 2, MAX_IMAGES, whole=True)
    pipeline, batch = _open(args)
    Request(seed=args.seed)
    prompted = bool(pipeline.config.classes) and not args.unprompted
    test = _data(args, pipeline, "test")
    steps = likelihood(pipeline, test, count=args.likelihood, prompted=prompted, seed=args.seed, batch=batch)
    result = _watch(steps)
    print(f"{pipeline.config.name}: {result.line()}")
    return {"weights": export.fingerprint(pipeline), "likelihood": result.to_dict()}


def _autoencoder(args: argparse.Namespace) -> dict[str, Any]:
    from diffusion.latent_space import Subject, survey

    count = LATENT_COUNT if args.count is None else args.count
    check_number("count", count, 2, MAX_IMAGES, whole=True)
    own = Autoencoder.load(args.checkpoint)
    if own.config.beside is None or own.config.data not in data.PAINTED:
        raise ValueError(f"{args.checkpoint} is measured beside a model of painted pictures: name one in its recipe.")
    recipe = read_recipe(checkpoints.read(args.checkpoint).folder / "recipe.yaml", {})[0]
    other = read_recipe(checkpoints.read(own.config.beside).folder / "recipe.yaml", {})[0]
    subjects = (
        Subject(own.config.beside, other.vae.kl_weight, Pipeline.load(own.config.beside).codec),
        Subject(own.config.name, recipe.vae.kl_weight, own.codec),
    )
    test = data.load(data.PAINTED[own.config.data], "test", args.data_dir)
    few = dataclasses.replace(test, images=test.images[:count], labels=test.labels[:count])
    classifier = Classifier.load(args.classifier or INSTRUMENTS["mnist"])
    found = _watch(survey(subjects, data.Painted(few, recipe.held_out), classifier, count=count, seed=args.seed))
    return {"weights": export.fingerprint(own), "latents": found.to_dict()}


def _of_classifier(args: argparse.Namespace) -> dict[str, Any]:
    classifier = Classifier.load(args.checkpoint).to(args.device)
    name = next((name for name, source in data.DATASETS.items() if source.classes == classifier.config.classes), None)
    if name is None:
        raise ValueError(f"no data set here has the classes {', '.join(classifier.config.classes)}.")
    test = data.load(name, "test", args.data_dir)
    reading = classifier.read(test.images)
    metrics = {
        "data": name,
        "test_count": len(test.images),
        "test_accuracy": reading.accuracy(test.labels),
        "test_confidence": reading.confidence(),
    }
    print(f"{args.checkpoint}: recognises {metrics['test_accuracy']:.2%} of {len(test.images)} test images of {name}")
    return metrics


def _save_neighbours(path: Path, pipeline: Pipeline, train: data.ImageData, request: Request) -> None:
    """The first samples of the evaluation, each over the training image most like it: copies would show."""
    *_, last = pipeline.generate(request)
    samples = data.to_uint8(pipeline.images(last, request)).cpu()
    indices, distances = nearest(samples, train.images)
    pairs = zip(samples.split(10), train.images[indices].split(10), strict=True)
    both = torch.cat([row for pair in pairs for row in pair])
    picture = export.grid(export.to_pictures(data.to_unit(both)), 10)
    Image.fromarray(export.enlarge(picture, export.view_scale(picture))).save(path)
    print(f"{path}: {len(samples)} samples over the nearest training images, the closest {distances.min():.2f} away")


MEASURES = {
    "model": _model,
    "sweep": _sweep,
    "likelihood": _likelihood,
    "prompts": _prompts,
    "autoencoder": _autoencoder,
    "classifier": _of_classifier,
}


def _watch(steps: Generator[Any, None, Any], unit: str = "image") -> Any:
    """Runs a measurement to its end under a progress bar; rows of a table are printed as they come."""
    with tqdm(unit=unit, unit_scale=True, file=sys.stderr, disable=None) as bar:
        while True:
            try:
                event = next(steps)
            except StopIteration as finished:
                return finished.value
            if isinstance(event, tuple):
                done, bar.total = event
                bar.update(done - bar.n)
            else:
                bar.write(event.row())


def _count(args: argparse.Namespace, usual: int) -> int:
    count = usual if args.count is None else args.count
    check_number("count", count, MIN_COUNT, MAX_IMAGES, whole=True)
    return count


def _open(args: argparse.Namespace) -> tuple[Pipeline, int]:
    """The model and the batch size."""
    pipeline = open_pipeline(args, args.checkpoint)
    batch = batch_size(*pipeline.codec.image_shape[1:]) if args.batch is None else args.batch
    check_number("batch", batch, 1, MAX_COUNT, whole=True)
    return pipeline, batch


def _settings(args: argparse.Namespace, pipeline: Pipeline) -> dict[str, Any]:
    """Sampler, steps and guidance: the model's own where the command line does not say."""
    own = dataclasses.asdict(pipeline.config.defaults)
    settings = {name: own[name] if getattr(args, name) is None else getattr(args, name) for name in own}
    Request(seed=args.seed, **settings)  # which checks them
    return settings


def _data(args: argparse.Namespace, pipeline: Pipeline, split: str) -> data.ImageData:
    return data.load(pipeline.config.data, split, args.data_dir, shape=pipeline.codec.image_shape)


def _classifier(args: argparse.Namespace, pipeline: Pipeline) -> Classifier:
    named = Classifier.load(args.classifier) if args.classifier else Classifier.of(pipeline.config.data)
    return named.to(args.device)


def _check_flags(args: argparse.Namespace, what: str) -> None:
    for name in sorted({name for names in FLAGS.values() for name in names} - set(FLAGS[what])):
        if getattr(args, name) not in (None, False):
            fitting = " or ".join(f"a {other}" for other, names in FLAGS.items() if name in names)
            raise ValueError(f"--{name} says nothing about the {what}: it belongs to the measurement of {fitting}.")


def _numbers(name: str, text: str) -> list[int]:
    try:
        return [int(number) for number in text.split(",")]
    except ValueError:
        raise ValueError(f"--{name} takes whole numbers with commas between them, not '{text[:40]}'.") from None


def _kept(path: Path) -> dict[str, Any]:
    """What was measured before."""
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise ValueError(f"{path} cannot be read ({error}): delete it to measure anew.") from None


def _json(metrics: dict[str, Any]) -> str:
    return json.dumps(metrics, indent=2, allow_nan=False) + "\n"
