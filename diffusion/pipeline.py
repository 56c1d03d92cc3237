"""Requests in, pictures out: codec, conditioner, denoiser and sampler joined by composition."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from diffusion import __version__, checkpoints
from diffusion.autoencoder import VAE, Pixels, PixelsConfig, VAEConfig
from diffusion.conditioning import Unconditional, UnconditionalConfig, Words, WordsConfig
from diffusion.config import BY_KIND, STRICT, dump, parse
from diffusion.denoiser import Denoiser
from diffusion.guidance import clip, guide, inpaint
from diffusion.noise import Noise
from diffusion.samplers import SAMPLERS, Step
from diffusion.schedules import EDM, GRIDS, AnySchedule
from diffusion.unet import UNet, UNetConfig

CODECS = {"vae": VAE, "pixels": Pixels}
CONDITIONERS = {"words": Words, "none": Unconditional}
MAX_COUNT, MAX_STEPS, MAX_GUIDANCE, MAX_SEED = 4096, 1000, 100.0, 2**63 - 2**32


@dataclass(frozen=True)
class Defaults:
    """What a model is best sampled with."""

    sampler: str = "dpmpp_2m"
    steps: int = 20
    guidance: float = 2.0

    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class ModelConfig:
    """Everything that a checkpoint's config.json says; from it alone the model is built."""

    name: str
    codec: Annotated[VAEConfig | PixelsConfig, BY_KIND] = field(default_factory=VAEConfig)
    conditioner: Annotated[WordsConfig | UnconditionalConfig, BY_KIND] = field(default_factory=WordsConfig)
    network: UNetConfig = field(default_factory=UNetConfig)
    schedule: AnySchedule = field(default_factory=EDM)
    prediction: Literal["eps", "x0", "score", "v", "edm", "flow"] = "edm"
    grid: Literal["karras", "uniform_time"] = "karras"
    data: str = "mnist"
    classes: tuple[str, ...] = ()
    defaults: Defaults = field(default_factory=Defaults)
    engine: str = __version__

    __pydantic_config__ = STRICT


@dataclass(frozen=True)
class Request:
    """What to make. Everything is checked here, wherever it came from: app, API, command line or a link.

    prompt: one for all images, or one per image; "" is the unconditional prompt.
    negative: what to steer away from; acts when guidance is not 1.
    count: images, 1 to 4096. seed: image i uses seed + i, whatever the batch; or one seed per image.
    sampler: a key of SAMPLERS. steps: 1 to 1000 intervals of the noise grid.
    guidance: 0 to 100; 1 means none. interval: the noise levels at which guidance acts, default all.
    image: a start (C, H, W) or (count, C, H, W) in [-1, 1], or None.
    strength: 0 to 1, one for all or one per image: the share of the grid's last steps that is run on `image`;
        0 is its plain reconstruction, 1 starts from sigma_max.
    mask: (1, H, W), True or 1 where the picture is to be made anew, or None for everywhere.
    """

    prompt: str | tuple[str, ...] = ""
    negative: str = ""
    count: int = 1
    seed: int | tuple[int, ...] = 0
    sampler: str = "dpmpp_2m"
    steps: int = 20
    guidance: float = 1.0
    interval: tuple[float, float] = (0.0, math.inf)
    image: Tensor | None = None
    strength: float | tuple[float, ...] = 1.0
    mask: Tensor | None = None

    def __post_init__(self) -> None:
        check_number("count", self.count, 1, MAX_COUNT, whole=True)
        for seed in self.seed if isinstance(self.seed, tuple) else (self.seed,):
            check_number("seed", seed, 0, MAX_SEED, whole=True)
        check_number("steps", self.steps, 1, MAX_STEPS, whole=True)
        check_number("guidance", self.guidance, 0, MAX_GUIDANCE)
        for strength in self.strengths:
            check_number("strength", strength, 0, 1)
        if not isinstance(self.sampler, str) or self.sampler not in SAMPLERS:
            raise ValueError(f"Unknown sampler {str(self.sampler)[:40]!r}; the choices are {', '.join(SAMPLERS)}.")
        if not isinstance(self.prompt, (str, tuple)) or not all(
            isinstance(p, str) for p in (*self.prompts, self.negative)
        ):
            raise ValueError("Prompts must be text: one for all images, or a tuple of one for each.")
        if not len(self.prompts) == len(self.strengths) == len(self.seeds) == self.count:
            raise ValueError(
                f"One prompt, seed and strength for all, or one for each of the {self.count} images, please."
            )
        if not isinstance(self.interval, tuple) or len(self.interval) != 2:
            raise ValueError("The guidance interval must be two noise levels, low and high.")
        check_number("the interval's low end", self.interval[0], 0, math.inf)
        check_number("the interval's high end", self.interval[1], self.interval[0], math.inf)
        if self.mask is not None and self.image is None:
            raise ValueError("A mask needs an image: it says which part of the image is made anew.")
        for tensor, name in ((self.image, "image"), (self.mask, "mask")):
            if tensor is not None and not (isinstance(tensor, Tensor) and tensor.isfinite().all()):
                raise ValueError(f"The {name} must be a tensor of finite numbers.")

    @property
    def prompts(self) -> tuple[str, ...]:
        return (self.prompt,) * self.count if isinstance(self.prompt, str) else self.prompt

    @property
    def strengths(self) -> tuple[float, ...]:
        return self.strength if isinstance(self.strength, tuple) else (self.strength,) * self.count

    @property
    def seeds(self) -> Sequence[int]:
        return self.seed if isinstance(self.seed, tuple) else range(self.seed, self.seed + self.count)

    def steps_run(self, strength: float) -> int:
        """How many of the grid's steps an image of this strength goes through."""
        return math.ceil(round(strength * self.steps, 9))  # 0.55 * 20 is a little more than 11


def check_number(name: str, value: object, low: float, high: float, *, whole: bool = False) -> None:
    """
    Raises:
        ValueError: `value` is not a finite number (a whole one, where asked for) from low to high.
    """
    kind = "a whole number" if whole else "a number"
    allowed = int if whole else (int, float)
    if isinstance(value, bool) or not isinstance(value, allowed) or not low <= value <= high:
        raise ValueError(f"{name} must be {kind} from {low:g} to {high:g}, not {str(value)[:40]}.")


class Pipeline(nn.Module):
    """A whole model: what turns prompts, noise and images into pictures."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.codec = CODECS[config.codec.kind](config.codec)
        self.conditioner = CONDITIONERS[config.conditioner.kind](config.conditioner)
        self.denoiser = Denoiser(UNet(config.network), config.schedule, config.prediction)
        self._check()

    def _check(self) -> None:
        """The parts must fit: a state is what the codec encodes to and what the network reads."""
        network, width = self.config.network, self.conditioner.dim
        wanted = (network.in_channels, network.sample_size, network.sample_size)
        if self.codec.latent_shape != wanted:
            raise ValueError(
                f"The codec's states are {self.codec.latent_shape}, the network's are {wanted}: make them equal."
            )
        if network.cross_attention_dim != width:
            raise ValueError(
                f"The conditioner's vectors have {width or 'no'} numbers, but the network's cross_attention_dim is "
                f"{network.cross_attention_dim or 'null'}: make it {width or 'null'}."
            )

    @classmethod
    def load(cls, reference: str | Path) -> "Pipeline":
        """Opens a checkpoint: a name under checkpoints/, a folder, or a Hub id owner/name[@revision].

        Raises:
            ValueError: one sentence on what is wrong with the reference or the checkpoint.
        """
        checkpoint = checkpoints.read(reference)
        pipeline = cls(parse(ModelConfig, checkpoint.config, str(checkpoint.folder / "config.json")))
        checkpoints.load_into(pipeline, checkpoint.tensors, str(reference))
        return pipeline.eval()

    def save(self, folder: str | Path) -> None:
        """Writes config.json and model.safetensors (float16)."""
        checkpoints.write(Path(folder), dump(self.config), self.state_dict())

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def grid(self, steps: int) -> Tensor:
        """The model's noise levels for this many steps, float64 (steps + 1,), from sigma_max to 0."""
        return GRIDS[self.config.grid](self.config.schedule, steps)

    @torch.no_grad()
    def generate(self, request: Request) -> Iterator[Step]:
        """Yields the start as Step 0, then each step of the sampler; close the iterator to cancel.

        From noise, image to image and inpainting are one process: they differ in what is known and in the level that it
        is noised to.

        Raises:
            ValueError: a prompt or an image does not fit the model.
        """
        noise = Noise(request.seeds)
        context = self.conditioner(request.prompts)
        negative = self.conditioner([request.negative] * request.count)
        known, hole = self._known(request)
        # The grid's last intervals, as many as the strongest image asks for; each image is held until its own start.
        grid = self.grid(request.steps)
        runs = [request.steps_run(strength) for strength in request.strengths]
        sigmas, start = grid[-1 - max(runs) :], grid[[-1 - run for run in runs]].to(self.device)
        eps = noise(known)
        x = known + sigmas[0] * eps
        denoise = guide(self.denoiser, context, negative, request.guidance, request.interval)
        denoise = clip(denoise, *self.codec.bounds)
        begun = start >= sigmas[0]
        denoise = inpaint(denoise, known, eps, hole, start, begun)
        yield Step(0, sigmas[0], x, known, 0)
        for step in SAMPLERS[request.sampler].run(denoise, x, sigmas, noise=noise):
            begun |= step.sigma.to(start) <= start
            yield step

    def _known(self, request: Request) -> tuple[Tensor, Tensor]:
        """The clean states that a run starts from (count, ...), without an image the data's mean, and the bool hole."""
        if request.image is None:
            known = torch.zeros(request.count, *self.codec.latent_shape, device=self.device)
            return known, torch.ones(1, dtype=torch.bool, device=self.device)
        known = self.codec.encode(self._fit(request.image, request.count))
        if request.mask is None:
            return known, torch.ones(1, dtype=torch.bool, device=self.device)
        return known, self.codec.latent_mask(self._fit_mask(request.mask))

    def _fit(self, images: Tensor, count: int) -> Tensor:
        images = images if images.ndim == 4 else images.unsqueeze(0)
        if images.shape[1:] != self.codec.image_shape or len(images) not in (1, count):
            wanted = " x ".join(map(str, self.codec.image_shape))
            raise ValueError(f"The model takes images of {wanted}, one or {count} of them, not {tuple(images.shape)}.")
        return images.to(self.device, torch.float32).expand(count, *self.codec.image_shape)

    def _fit_mask(self, mask: Tensor) -> Tensor:
        size = self.codec.image_shape[1:]
        if mask.shape != (1, *size):
            raise ValueError(f"The mask must be 1 x {size[0]} x {size[1]}, not {tuple(mask.shape)}.")
        return (mask > 0.5).unsqueeze(0).to(self.device)

    @torch.no_grad()
    def images(self, step: Step, request: Request) -> Tensor:
        """A step's predicted pictures (count, C, H, W) in [-1, 1]; known pixels are the request's own, bit for bit."""
        pictures = self.decode(step.x0)
        if request.mask is None:
            return pictures
        return torch.where(self._fit_mask(request.mask), pictures, self._fit(request.image, request.count))

    @torch.no_grad()
    def preview(self, step: Step) -> tuple[Tensor, Tensor]:
        """A step to look at: its noisy state, scaled back to the data's spread, and its predicted picture, decoded."""
        noisy, clean = self.decode(torch.cat([self._shown(step), step.x0])).chunk(2)
        return noisy, clean

    @torch.no_grad()
    def noisy(self, step: Step) -> Tensor:
        """The first half of `preview` alone, at half its cost."""
        return self.decode(self._shown(step))

    def spread(self, step: Step) -> Tensor:
        """A step's state x = x0 + sigma * eps, centred and divided by its deviation: (B, ...), about unit."""
        sigma = (step.sigma.to(step.x) / self.codec.scale).view(-1, *[1] * (step.x.ndim - 1))
        return (step.x - self.codec.center) / self.codec.scale * (1 + sigma**2).rsqrt()

    def _shown(self, step: Step) -> Tensor:
        """The same as a state, so that it can be decoded."""
        return self.codec.center + self.codec.scale * self.spread(step)

    @torch.no_grad()
    def decode(self, z: Tensor) -> Tensor:
        """States to pictures (B, C, H, W) in [-1, 1]."""
        return self.codec.decode(z).clamp(-1, 1)

    @torch.no_grad()
    def reconstruct(self, images: Tensor) -> Tensor:
        """Pictures through encoder and decoder and back, (B, C, H, W) in [-1, 1]."""
        return self.decode(self.codec.encode(self._fit(images, len(images))))


def choose_device(name: str | None = None) -> torch.device:
    """The device of this name; without one, the fastest of this machine.

    Raises:
        ValueError: PyTorch finds no such device here.
    """
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.empty(0, device=name).device
    except (RuntimeError, AssertionError):  # the latter from a build of PyTorch without CUDA
        device = None
    if device is None or device.type not in ("cpu", "cuda", "mps"):
        raise ValueError(f"the device '{name}' is not there: use cpu, or cuda or mps on a machine that has it.")
    return device


def with_codec_scale(config: ModelConfig, scaling_factor: float) -> ModelConfig:
    """The same model with the latent scale that training measured."""
    return replace(config, codec=replace(config.codec, scaling_factor=scaling_factor))
