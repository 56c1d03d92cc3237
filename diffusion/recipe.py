"""Recipes: everything that it takes to train a checkpoint, as typed settings read from YAML."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
import yaml
from pydantic import Field

from diffusion.autoencoder import AutoencoderConfig
from diffusion.captions import VOCABULARY, Description
from diffusion.classifier import ClassifierConfig
from diffusion.config import STRICT, dump, parse
from diffusion.data import DATASETS, PAINTED, Examples, check_name
from diffusion.pictures import Shape
from diffusion.pipeline import CODECS, ModelConfig
from diffusion.words import split

Positive = Annotated[float, Field(gt=0)]
Weight = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
AnyConfig = ModelConfig | AutoencoderConfig | ClassifierConfig
UNREAD = ("one", "another")  # stands for classes that only the data knows, until it is read


@dataclass(frozen=True)
class Stage:
    """How one part of a model is trained: AdamW, a linear warm-up and a cosine to zero, an average of the weights.

    betas, weight_decay: AdamW's. clip: the gradient's largest norm. ema: the average's decay once warmed up.
    precision: auto is bf16 on CUDA and fp32 elsewhere, where bf16 gains nothing.
    sample_every, save_every: steps between reports with sample pictures, and between saved states.
    """

    steps: Count
    batch: Count = 256
    learning_rate: Positive = 1e-3
    warmup: Annotated[int, Field(ge=0)] = 200
    weight_decay: Weight = 0.0
    ema: Share = 0.999
    clip: Positive = 1.0
    betas: tuple[Share, Share] = (0.9, 0.99)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    sample_every: Count = 1000
    save_every: Count = 500

    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class VAEStage(Stage):
    """kl_weight: of the KL term against the squared error; 2 s^2 for a decoder whose Gaussian error has deviation s."""

    kl_weight: Weight = 1e-3


@dataclass(frozen=True)
class DenoiserStage(Stage):
    """label_dropout: the share of prompts replaced by "", which is what classifier-free guidance steers away from.

    mirror: whether a picture turned left to right, as half of them then are by chance, is as good as the picture.
    """

    label_dropout: Share = 0.1
    mirror: bool = False


@dataclass(frozen=True)
class ClassifierStage(Stage):
    """mirror: whether a picture turned left to right keeps its class."""

    mirror: bool = False


@dataclass(frozen=True)
class Recipe:
    """What recipe.yaml says.

    data: a key of DATASETS, OWN or PAINTED. held_out: combinations never painted, such as {digit: 7, ink: red}.
    model: the sections of ModelConfig; of ClassifierConfig for a classifier stage, of AutoencoderConfig for vae alone.
    vae, denoiser, classifier: the stages, run in this order; a stage that is left out is not run.
    """

    name: str
    title: str = ""
    description: str = ""
    seed: Annotated[int, Field(ge=0)] = 0
    data: str = "mnist"
    held_out: tuple[Description, ...] = ()
    model: dict[str, Any] = field(default_factory=dict)
    vae: VAEStage | None = None
    denoiser: DenoiserStage | None = None
    classifier: ClassifierStage | None = None

    __pydantic_config__ = STRICT

    @property
    def stages(self) -> dict[str, Stage]:
        """The stages of this recipe by name, in order."""
        stages = {"vae": self.vae, "denoiser": self.denoiser, "classifier": self.classifier}
        return {name: stage for name, stage in stages.items() if stage is not None}


def read_recipe(path: Path, overrides: Mapping[str, Any]) -> tuple[Recipe, dict[str, Any]]:
    """Read a YAML recipe, with dotted keys ("denoiser.steps") set to other values: typed, and as the plain mapping.

    Raises ValueError in one sentence that names the file, the key and the choices.
    """
    try:
        mapping = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path}: no recipe can be read there ({error.strerror}).") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not YAML ({' '.join(str(error).split())}).") from None
    if not isinstance(mapping, dict):
        raise ValueError(f"{path}: a recipe is a mapping of settings, not {type(mapping).__name__}.")
    for key, value in overrides.items():
        *sections, last = key.split(".")
        section = mapping
        for name in sections:
            section = section.setdefault(name, {}) if isinstance(section, dict) else None
        if not isinstance(section, dict):
            raise ValueError(f"{path}: cannot set '{key}', because '{'.'.join(sections)}' is not a section.")
        section[last] = value
    recipe = parse(Recipe, mapping, str(path))
    _check(recipe, str(path))
    return recipe, mapping


def model_config(recipe: Recipe, classes: Sequence[str], where: str = "recipe") -> AnyConfig:
    """The configuration of the model that a recipe trains on data of these classes.

    Raises ValueError in one sentence that begins with `where`.
    """
    conditioner = recipe.model.get("conditioner", {})
    kind = conditioner.get("kind", "words") if isinstance(conditioner, dict) else None
    classes = [] if kind == "none" else list(classes)
    known = {"name": recipe.name, "data": recipe.data} if recipe.classifier is None else {}
    alone = [*recipe.stages] == ["vae"]
    known |= {} if alone else {"classes": classes}
    if twice := sorted({*known, "engine"} & set(recipe.model)):
        raise ValueError(f"{where}: leave out 'model.{twice[0]}', it follows from the rest of the recipe.")
    if recipe.classifier:
        if len(classes) < 2:
            raise ValueError(f"{where}: a classifier needs two classes or more: one subfolder of pictures for each.")
        return parse(ClassifierConfig, recipe.model | known, f"{where}, model")
    if alone:
        return parse(AutoencoderConfig, recipe.model | known, f"{where}, model")
    if classes == [""]:
        raise ValueError(
            f"{where}: the pictures have no classes to be prompted by: sort them into one subfolder for each, or --set"
            " 'model.conditioner={kind: none}' model.network.cross_attention_dim=null for a model without prompts."
        )
    if kind == "words" and recipe.data in PAINTED:
        raise ValueError(f"{where}: the prompts of {recipe.data} are sentences: --set model.conditioner.kind=text.")
    sentences = VOCABULARY if recipe.data in PAINTED else sorted(set(split(" ".join(classes))))
    vocabularies = {"words": classes, "text": list(sentences)}
    if kind in vocabularies:
        known["conditioner"] = {"kind": kind, "vocabulary": vocabularies[kind], **conditioner}
    return parse(ModelConfig, recipe.model | known, f"{where}, model")


def _unread(recipe: Recipe, where: str = "recipe") -> AnyConfig:
    """The configuration as far as it is known before the data is read."""
    known = {name: source.classes for name, source in DATASETS.items()} | dict.fromkeys(PAINTED, ())
    return model_config(recipe, known.get(recipe.data, UNREAD), where)


def image_shape(recipe: Recipe) -> Shape:
    """(C, H, W) of the pictures that a recipe's model takes."""
    config = _unread(recipe)
    sizes = config if isinstance(config, ClassifierConfig) else config.codec
    return sizes.channels, sizes.image_size, sizes.image_size


def _check(recipe: Recipe, where: str) -> None:
    """What no single setting shows: whether stages and model fit together."""
    try:
        check_name(recipe.data)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None
    for entry in recipe.held_out:
        if len(entry.said()) < 2:
            raise ValueError(
                f"{where}: 'held_out': {entry.said()} would hold out a whole word; name two or more together."
            )
    if recipe.held_out and recipe.data not in PAINTED:
        raise ValueError(f"{where}: 'held_out' is for data that is painted: {', '.join(PAINTED)}.")
    stages, config = recipe.stages, _unread(recipe, where)
    if not stages:
        raise ValueError(f"{where}: there is nothing to train; add a stage: vae, denoiser or classifier.")
    if isinstance(config, ClassifierConfig) and len(stages) > 1:
        others = " and ".join(name for name in stages if name != "classifier")
        raise ValueError(f"{where}: a classifier is a model of its own; move {others} to another recipe.")
    if isinstance(config, ModelConfig):
        _check_parts(config, stages, where)
    for name, stage in stages.items():
        if stage.warmup > stage.steps:
            raise ValueError(f"{where}: '{name}.warmup' is {stage.warmup}, more than its {stage.steps} steps.")


def _check_parts(config: ModelConfig, stages: Mapping[str, Stage], where: str) -> None:
    """Whether codec, conditioner and network fit, as `Pipeline` demands; the sentence is what to --set instead."""
    if ("vae" in stages) != (config.codec.kind == "vae"):
        problem = "the vae stage has nothing to train" if "vae" in stages else "nothing trains the vae; add a vae stage"
        raise ValueError(f"{where}: {problem}, because model.codec.kind is {config.codec.kind}.")
    with torch.device("meta"):  # its shapes without its weights
        channels, size, _ = CODECS[config.codec.kind](config.codec).latent_shape
    width = getattr(config.conditioner, "dim", None)
    wanted = {"in_channels": channels, "out_channels": channels, "sample_size": size, "cross_attention_dim": width}
    if wrong := {key: value for key, value in wanted.items() if getattr(config.network, key) != value}:
        settings = " ".join(f"model.network.{key}={'null' if value is None else value}" for key, value in wrong.items())
        raise ValueError(
            f"{where}: the network does not fit the codec's states of {channels} x {size} x {size} and the prompts of"
            f" {width or 'no'} numbers: --set {settings}."
        )


def identity(recipe: Recipe, data: Examples) -> dict[str, Any]:
    """All that decides the weights, by dotted key: two runs with equal identities train alike on one machine."""
    plain = dump(recipe) | {"model": dump(model_config(recipe, data.classes))}
    for key in ("name", "title", "description", "held_out"):  # the last is in the digest
        del plain[key]
    for key in ("name", "engine", "defaults", "grid"):
        plain["model"].pop(key, None)
    for stage in recipe.stages:
        del plain[stage]["sample_every"], plain[stage]["save_every"]
        if plain[stage].get("mirror") is False:
            del plain[stage]["mirror"]  # as in states from before it was a setting
    return _flat(plain) | {"images": len(data), "digest of the images": data.digest}


def _flat(mapping: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in mapping.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def differences(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """Up to three settings in which two identities differ, in words; "" where they are equal."""
    changed = [key for key in sorted({*there, *here}) if there.get(key) != here.get(key)]
    return ", ".join(f"{key} is {here.get(key)!r} but was {there.get(key)!r}" for key in changed[:3])
