"""Training loops as generators, stopped and resumed anywhere without a trace.

All that is random at a step (the batch, the noise, the dropped prompts) is a function of (seed, stage, step). A run's
state is therefore its weights, their average, the optimizer's moments and where it stands, and a resumed run repeats
an uninterrupted one bit for bit.
"""

import copy
import hashlib
import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from diffusion import checkpoints
from diffusion.autoencoder import Autoencoder, AutoencoderConfig
from diffusion.classifier import Classifier, ClassifierConfig
from diffusion.config import dump
from diffusion.data import Examples, batch_indices
from diffusion.pipeline import ModelConfig, Pipeline, with_codec_scale
from diffusion.recipe import Recipe, Stage, differences, identity, model_config
from diffusion.request import Request

LEVELS = 8  # rows of the loss-by-noise-level table
COLUMNS = 20  # classes that the sample pictures show at most
MEASURED = 4096  # pictures that the latents' spread is measured on where no two batches are alike
MODELS = {ModelConfig: Pipeline, AutoencoderConfig: Autoencoder, ClassifierConfig: Classifier}
"""What is built from each kind of configuration."""


class Level(NamedTuple):
    """The mean loss over noise levels from `low` to `high`, an equal share of training for each Level."""

    low: float
    high: float
    loss: float


@dataclass(frozen=True)
class Progress:
    """A training step just made; `levels` only where a report is due (every sample_every steps, and at the end)."""

    stage: str
    step: int  # steps made, from 1
    steps: int
    loss: float
    learning_rate: float
    images_per_second: float
    levels: tuple[Level, ...] = ()


class Run:
    """A recipe in training.

    `model` always holds the averaged weights, which are what is sampled and published; the optimizer moves a copy of
    the part that the stage trains.
    """

    def __init__(self, recipe: Recipe, data: Examples, device: torch.device) -> None:
        self.recipe, self.data, self.device = recipe, data, device
        self._encoded: Tensor | None = None
        config = model_config(recipe, data.classes)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            self.model = MODELS[type(config)](config)
        self.model.to(device).eval().requires_grad_(False)
        self.losses = {name: torch.full((stage.steps,), math.nan) for name, stage in recipe.stages.items()}
        self.seconds = dict.fromkeys(recipe.stages, 0.0)
        self._enter(next(iter(recipe.stages)))

    @property
    def finished(self) -> bool:
        """Whether the last stage has made its last step."""
        last, stage = list(self.recipe.stages.items())[-1]
        return self.stage == last and self.step == stage.steps

    @property
    def prompted(self) -> bool:
        """Whether the model reads prompts at all."""
        return self.model.conditioner.dim is not None

    def _enter(self, stage: str) -> None:
        self.stage, self.step, settings = stage, 0, self.recipe.stages[stage]
        averaged = _part(self.model, stage)
        self.live = copy.deepcopy(averaged).train().requires_grad_(True)
        self.optimizer = torch.optim.AdamW(
            self.live.parameters(), betas=settings.betas, weight_decay=settings.weight_decay, fused=True
        )
        # As AdamW would at its first step; here already, so that a saved state has a place to go.
        for p in self.live.parameters():
            moments = {"exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
            self.optimizer.state[p] = {"step": torch.zeros((), device=p.device), **moments}
        pairs = list(zip(averaged.state_dict().values(), self.live.state_dict().values(), strict=True))
        self._averages = [pair for pair in pairs if pair[0].is_floating_point()]
        self._counters = [pair for pair in pairs if not pair[0].is_floating_point()]

    def train(self) -> Iterator[Progress]:
        """Train from where the run stands to the end of the recipe, one Progress after each step.

        Raises FloatingPointError when a loss or gradient is not finite; the step is not made.
        """
        stages = list(self.recipe.stages)
        for stage in stages[stages.index(self.stage) :]:
            if stage != self.stage:
                self._enter(stage)
            yield from self._steps()
            if stage == "vae":
                self._set_latent_scale(1 / self.latents().std().item())

    def _steps(self) -> Iterator[Progress]:
        settings, seed = self.recipe.stages[self.stage], self.recipe.seed
        bf16 = settings.precision == "bf16" or (settings.precision == "auto" and self.device.type == "cuda")
        parameters = list(self.live.parameters())
        objective = OBJECTIVES[self.stage](self)
        recent, count = torch.zeros(settings.batch, device=self.device), 0
        first, before = self.step, self.seconds[self.stage]
        while self.step < settings.steps:
            began = time.perf_counter()
            index = batch_indices(len(self.data), settings.batch, seed, self.step)
            with torch.autocast(self.device.type, torch.bfloat16, enabled=bf16):
                losses = objective(index, generator(seed, self.stage, self.step))
            self.optimizer.zero_grad()
            losses.mean().backward()
            norm = nn.utils.clip_grad_norm_(parameters, settings.clip)
            recent, count = recent + losses.detach(), count + 1
            rate = learning_rate(settings, self.step)
            loss, norm = torch.stack([losses.detach().mean(), norm]).tolist()  # the only wait for the device in a step
            if not (math.isfinite(loss) and math.isfinite(norm)):
                raise FloatingPointError(
                    f"Training stopped at {self.stage} step {self.step + 1}, learning rate {rate:.3g}: the loss is"
                    f" {loss:.3g}, the gradient's norm {norm:.3g}; try a lower learning_rate or precision fp32."
                )
            self.optimizer.param_groups[0]["lr"] = rate
            self.optimizer.step()
            self._average(settings.ema)
            self.losses[self.stage][self.step] = loss
            self.step += 1
            self.seconds[self.stage] += time.perf_counter() - began
            speed = (self.step - first) * settings.batch / (self.seconds[self.stage] - before)
            levels: tuple[Level, ...] = ()
            if self.stage == "denoiser" and (self.step % settings.sample_every == 0 or self.step == settings.steps):
                levels = self._levels(recent / count)
                recent, count = torch.zeros_like(recent), 0
            yield Progress(self.stage, self.step, settings.steps, loss, rate, speed, levels)

    def _average(self, decay: float) -> None:
        """Let early averages forget the random start: beta = min(decay, (1 + n) / (10 + n))."""
        beta = min(decay, (1 + self.step) / (10 + self.step))
        averaged, live = zip(*self._averages, strict=True)
        torch._foreach_lerp_(averaged, live, 1 - beta)
        for ours, theirs in self._counters:
            ours.copy_(theirs)

    def _levels(self, losses: Tensor) -> tuple[Level, ...]:
        """Batch position i always trains in the i-th stratum of noise levels, so losses (B,) are in order of sigma."""
        groups = losses.tensor_split(min(LEVELS, len(losses)))
        edges = self.model.config.schedule.sample(torch.linspace(0, 1, len(groups) + 1, dtype=torch.float64)).tolist()
        means = [group.mean().item() for group in groups]
        return tuple(Level(low, high, mean) for low, high, mean in zip(edges, edges[1:], means, strict=False))

    @torch.no_grad()
    def states(self, index: Tensor, source: torch.Generator) -> tuple[Tensor, list[str]]:
        """Training pictures (B,) as states (B, C, h, w), and their prompts; latents that stay the same are kept."""
        images, prompts = self.data.batch(index, source)
        if "vae" in self.recipe.stages and self.data.fixed:
            return self.latents()[index.to(self.device)], prompts
        return self.model.codec.encode(images.to(self.device)), prompts

    @torch.no_grad()
    def latents(self) -> Tensor:
        """All training pictures as states, once: the codec no longer changes. With mirror, then all of them turned.

        Where no two batches are alike, those of one large batch.
        """
        if self._encoded is None:
            source, mirror = (
                generator(self.recipe.seed, "latents", 0),
                self.recipe.denoiser and self.recipe.denoiser.mirror,
            )
            count = len(self.data) * (2 if mirror else 1) if self.data.fixed else min(len(self.data), MEASURED)
            parts = (self.data.batch(part, source)[0] for part in torch.arange(count).split(500))
            self._encoded = torch.cat([self.model.codec.encode(part.to(self.device)) for part in parts])
        return self._encoded

    def _set_latent_scale(self, scale: float) -> None:
        self.model.config = with_codec_scale(self.model.config, scale)
        self.model.codec.config = self.model.config.codec
        if self._encoded is not None:
            self._encoded = self._encoded * scale

    @torch.no_grad()
    def samples(self) -> Tensor | None:
        """What the model can do by now, always from the same noise: (rows, columns, C, H, W) in [-1, 1].

        vae: training images, and below each its reconstruction. denoiser: one column a prompt, the first 20 of them.
        classifier: None.
        """
        if self.stage == "classifier":
            return None
        if self.stage == "vae":
            index = batch_indices(len(self.data), 20, self.recipe.seed, 0)
            originals = self.data.batch(index, generator(self.recipe.seed, "samples", 0))[0].to(self.device)
            originals = originals.unflatten(0, (2, -1))
            rebuilt = torch.stack([self.model.reconstruct(row) for row in originals])
            return torch.stack([originals, rebuilt], 1).flatten(0, 1)
        rows = 4
        prompts = (self.data.prompts[:COLUMNS] if self.prompted else ("",) * 10) * rows
        request = Request(prompts, count=len(prompts), **dump(self.model.config.defaults))
        *_, last = self.model.generate(request)
        return self.model.images(last, request).unflatten(0, (rows, -1))

    def parameters(self) -> dict[str, int]:
        """How many parameters each part of the model has."""
        parts = {"classifier": self.model} if isinstance(self.model, Classifier) else dict(self.model.named_children())
        return {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}

    def record(self) -> dict[str, Any]:
        """What a model card tells of the training, ready for JSON; loss curves as the means of up to 50 stretches."""
        stages = {}
        for name, stage in self.recipe.stages.items():
            parts = self.losses[name].split(math.ceil(stage.steps / 50))
            ends = torch.tensor([len(part) for part in parts]).cumsum(0).tolist()
            curve = [[step, float(f"{part.mean().item():.4g}")] for step, part in zip(ends, parts, strict=True)]
            images = stage.steps * stage.batch
            stages[name] = {
                "steps": stage.steps,
                "images": images,
                "seconds": round(self.seconds[name], 1),
                "losses": curve,
            }
        return {
            "title": self.recipe.title or self.recipe.name,
            "description": self.recipe.description,
            "data": {"name": self.recipe.data, "images": len(self.data)},
            "parameters": self.parameters(),
            "stages": stages,
        }

    def export(self, folder: Path) -> None:
        """Write config.json and model.safetensors, the averaged weights in float16."""
        checkpoints.write(folder, dump(self.model.config), self.model.state_dict())

    def save(self, path: Path) -> None:
        """Write the state as one safetensors file; at every moment the old file or the new one is there, whole."""
        metadata = {
            "stage": self.stage,
            "step": str(self.step),
            "recipe": json.dumps(identity(self.recipe, self.data)),
            "codec": json.dumps(dump(self.model.config.codec)) if "vae" in self.recipe.stages else "",
            "seconds": json.dumps(self.seconds),
        }
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self._tensors().items()}
        checkpoints.replace_file(path, safetensors.torch.save(tensors, metadata))

    def restore(self, path: Path) -> None:
        """Continue from a saved state.

        Raises ValueError when the file is damaged or belongs to a recipe that would give other weights.
        """
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                metadata = file.metadata()
                there, here = json.loads(metadata["recipe"]), identity(self.recipe, self.data)
                if changes := differences(there, here):
                    raise ValueError(
                        f"{path}: it belongs to another recipe ({changes}); go back, or give another --output."
                    )
                self._enter(metadata["stage"])
                self.step = int(metadata["step"])
                self.seconds = json.loads(metadata["seconds"])
                for name, tensor in self._tensors().items():
                    tensor.copy_(file.get_tensor(name))
        except (safetensors.SafetensorError, KeyError, TypeError, json.JSONDecodeError, RuntimeError, OSError) as error:
            raise ValueError(f"{path}: this training state is damaged ({error}); delete it to start afresh.") from None
        if metadata["codec"]:
            scale = json.loads(metadata["codec"]).get("scaling_factor")
            if scale is not None:
                self._set_latent_scale(scale)

    def _tensors(self) -> dict[str, Tensor]:
        """Every tensor of the state by name; writing into them is restoring."""
        tensors = {f"average.{name}": tensor for name, tensor in self.model.state_dict().items()}
        tensors |= {f"weights.{name}": tensor for name, tensor in self.live.state_dict().items()}
        for name, parameter in self.live.named_parameters():
            tensors |= {f"{kind}.{name}": tensor for kind, tensor in self.optimizer.state[parameter].items()}
        return tensors | {f"losses.{stage}": losses for stage, losses in self.losses.items()}


def generator(seed: int, stage: str, step: int) -> torch.Generator:
    """The source of all that is random in one training step."""
    digest = hashlib.sha256(f"{seed} {stage} {step}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)


def learning_rate(stage: Stage, step: int) -> float:
    """A linear warm-up, then half a cosine to zero (Loshchilov & Hutter 2017, Eq. 5)."""
    if step < stage.warmup:
        return stage.learning_rate * (step + 1) / stage.warmup
    share = (step - stage.warmup) / max(1, stage.steps - stage.warmup)
    return stage.learning_rate * (1 + math.cos(math.pi * share)) / 2


Objective = Callable[[Tensor, torch.Generator], Tensor]  # image indices (B,) and randomness -> losses (B,)


def vae_objective(run: Run) -> Objective:
    """The negative evidence lower bound (Kingma & Welling 2014, Eq. 10), scaled to the mean squared error of a pixel.

    The squared error and not L1: it is the likelihood of a Gaussian decoder, which gives kl_weight a meaning, and it is
    what PSNR measures; the pictures are too small to blur.
    """
    vae, weight = run.live["codec"], run.recipe.vae.kl_weight

    def losses(index: Tensor, source: torch.Generator) -> Tensor:
        x = run.data.batch(index, source)[0].to(run.device)
        posterior = vae.posterior(x)
        noise = torch.randn(posterior.mean.shape, generator=source).to(run.device)
        error = (vae.decode(posterior.sample(noise)) - x).square().flatten(1).mean(1)
        return error + weight * posterior.kl() / x[0].numel()

    return losses


def denoiser_objective(run: Run) -> Objective:
    """The denoiser's loss at stratified noise levels, with some prompts dropped (Ho & Salimans 2022, Algorithm 1).

    It trains on posterior means, not samples: they are what `encode` gives for image-to-image, their spread is what the
    latent scale measures, and the decoder has learnt from samples to forgive errors around them.
    """
    schedule, dropout, mirror = run.model.config.schedule, run.recipe.denoiser.label_dropout, run.recipe.denoiser.mirror
    conditioner, denoiser = run.live["conditioner"], run.live["denoiser"]

    def losses(index: Tensor, source: torch.Generator) -> Tensor:
        dropped = torch.rand(len(index), generator=source) < dropout
        u = torch.arange(len(index)) + torch.rand(len(index), generator=source, dtype=torch.float64)
        sigma = schedule.sample(u / len(index)).float().to(run.device)
        eps = torch.randn(len(index), *run.model.codec.latent_shape, generator=source).to(run.device)
        if mirror:
            index = index + len(run.data) * torch.randint(2, index.shape, generator=source)
        x0, prompts = run.states(index, source)
        prompts = ["" if drop or not run.prompted else prompt for drop, prompt in zip(dropped, prompts, strict=True)]
        return denoiser.loss(x0, sigma, eps, conditioner(prompts))

    return losses


def classifier_objective(run: Run) -> Objective:
    """The classifier's own loss."""
    classifier, labels, mirror = run.live["classifier"], run.data.labels.to(run.device), run.recipe.classifier.mirror

    def losses(index: Tensor, source: torch.Generator) -> Tensor:
        x = run.data.batch(index, source)[0].to(run.device)
        return classifier.loss(x, labels[index.to(run.device)], source, mirror)

    return losses


OBJECTIVES = {"vae": vae_objective, "denoiser": denoiser_objective, "classifier": classifier_objective}


def _part(model: nn.Module, stage: str) -> nn.ModuleDict:
    """What a stage trains."""
    if stage == "classifier":
        return nn.ModuleDict({"classifier": model})
    names = {"vae": ["codec"], "denoiser": ["conditioner", "denoiser"]}[stage]
    return nn.ModuleDict({name: getattr(model, name) for name in names})


def estimate(recipe: Recipe, data: Examples, device: torch.device) -> dict[str, float]:
    """Seconds that the steps of each stage will take, from three timed steps of a run that is thrown away."""
    short = replace(recipe, **{name: replace(stage, steps=4) for name, stage in recipe.stages.items()})
    run = Run(short, data.few(), device)
    seconds = {}
    for name, stage in recipe.stages.items():
        run._enter(name)
        steps = run._steps()
        next(steps)  # the first step also allocates
        before = run.seconds[name]
        for _ in steps:
            pass
        seconds[name] = (run.seconds[name] - before) / 3 * stage.steps
    return seconds
