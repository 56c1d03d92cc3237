"""Requests in, pictures out: codec, conditioner, denoiser and sampler joined by composition."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from diffusion import __version__, checkpoints, stable_diffusion
from diffusion.autoencoder import VAE, Pixels, PixelsConfig, VAEConfig
from diffusion.clip import CLIPConfig, CLIPText
from diffusion.conditioning import Text, TextConfig, Unconditional, UnconditionalConfig, Words, WordsConfig
from diffusion.config import BY_KIND, STRICT, dump, parse
from diffusion.denoiser import Denoiser
from diffusion.guidance import clip, guide, inpaint
from diffusion.noise import Between, Noise
from diffusion.request import Request
from diffusion.samplers import SAMPLERS, Step
from diffusion.schedules import EDM, GRIDS, TABLE_GRIDS, AnySchedule, Discrete
from diffusion.unet import UNet, UNetConfig

CODECS = {"vae": VAE, "pixels": Pixels}
CONDITIONERS = {"words": Words, "text": Text, "clip": CLIPText, "none": Unconditional}


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
    conditioner: Annotated[WordsConfig | TextConfig | CLIPConfig | UnconditionalConfig, BY_KIND] = field(
        default_factory=WordsConfig
    )
    network: UNetConfig = field(default_factory=UNetConfig)
    schedule: AnySchedule = field(default_factory=EDM)
    prediction: Literal["eps", "x0", "score", "v", "edm", "flow"] = "edm"
    grid: Literal["karras", "uniform_time", "leading", "trailing"] = "karras"
    data: str = "mnist"
    classes: tuple[str, ...] = ()
    defaults: Defaults = field(default_factory=Defaults)
    engine: str = __version__

    __pydantic_config__ = STRICT


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
        if self.config.grid in TABLE_GRIDS and not isinstance(self.config.schedule, Discrete):
            raise ValueError(
                f"The grid {self.config.grid} needs whole timesteps: a linear, scaled_linear or cosine schedule."
            )
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
    def load(
        cls,
        reference: str | Path,
        raw: bool = False,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
    ) -> "Pipeline":
        """Opens a checkpoint: a name under checkpoints/, a folder, or a Hub id owner/name[@revision].

        Of Stable Diffusion 1 and 2 it may be a model in the layout of diffusers, or a .safetensors file in the original
        layout. raw: of such a file that has its network twice, not the one that was averaged over the training.

        device, dtype: of the network and the codec; without a dtype Stable Diffusion on a GPU is float16, all else
        float32. Each of its tensors goes there as it is read, and main memory never holds them all besides. A frozen
        text model stays in main memory, float32: it runs once a request, and a GPU's memory is better used.

        Raises:
            ValueError: one sentence on what is wrong with the reference or the checkpoint.
        """
        checkpoint = stable_diffusion.read(reference, raw, device, dtype)
        config = parse(ModelConfig, checkpoint.config, str(checkpoint.folder / "config.json"))
        with torch.device("meta"):  # without memory or random numbers, since every tensor is replaced
            pipeline = cls(config)
        checkpoints.load_into(pipeline, checkpoint.tensors, str(reference))
        for part in (pipeline.denoiser, pipeline.codec):
            part.to(device, dtype)
        if [*pipeline.conditioner.parameters()]:  # of which a frozen text model has none
            pipeline.conditioner.to(device)
        return pipeline.eval()

    def save(self, folder: str | Path) -> None:
        """Writes config.json and model.safetensors (float16)."""
        checkpoints.write(Path(folder), dump(self.config), self.state_dict())

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def grid(self, steps: int) -> Tensor:
        """The model's noise levels for this many steps, float64 (steps + 1,), from sigma_max to 0."""
        return {**GRIDS, **TABLE_GRIDS}[self.config.grid](self.config.schedule, steps)

    @torch.no_grad()
    def generate(self, request: Request) -> Iterator[Step]:
        """Yields the start as Step 0, then each step of the sampler; close the iterator to cancel.

        From noise, image to image and inpainting are one process: they differ in what is known and in the level that it
        is noised to. A turn changes what is asked for between two steps, so the state there is the same without it.

        Raises:
            ValueError: a prompt or an image does not fit the model.
        """
        noise, context, later = self._asked(request)
        negative = self._read(request.negatives)
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
            if request.turn is not None and step.index == request.turn.step:
                context.copy_(later)
            yield step

    def _asked(self, request: Request) -> tuple[Noise | Between, Tensor, Tensor]:
        """The noise of each image, what it is asked for (B, L, D), and what from the turn on."""
        noise, context = Noise(request.seeds), self._read(request.prompts)
        if request.travel is not None:
            travel = request.travel
            shares = torch.tensor(travel.shares).view(-1, 1, 1)
            context = context.lerp(self._read([travel.prompt] * request.count), shares.to(context))
            noise = Between(noise, Noise([travel.seed] * request.count), travel.shares)
        later = context if request.turn is None else self._read(request.turn.prompts)
        return noise, context, later

    def _read(self, prompts: Sequence[str]) -> Tensor:
        """Prompts as tokens (B, L, D) where the network is; a frozen text model may be elsewhere."""
        return self.conditioner(prompts).to(self.device)

    def _known(self, request: Request) -> tuple[Tensor, Tensor]:
        """The clean states that a run starts from (count, ...), without an image the data's mean, and the bool hole."""
        shape = self.shape(request)
        if request.image is None:
            known = torch.zeros(request.count, *self.codec.latent_of(*shape[1:]), device=self.device)
            return known, torch.ones(1, dtype=torch.bool, device=self.device)
        known = self.codec.encode(self._fit(request.image, request.count, shape))
        if request.mask is None:
            return known, torch.ones(1, dtype=torch.bool, device=self.device)
        return known, self.codec.latent_mask(self._fit_mask(request.mask, shape))

    def shape(self, request: Request) -> tuple[int, int, int]:
        """What a request's pictures are, (C, H, W): of its size, else of the model's.

        Raises:
            ValueError: codec and network cannot halve pictures of this size as often as they do.
        """
        channels, *size = self.codec.image_shape
        size, margin = request.size or size, self.codec.margin
        for side in size:
            if (side + margin) % self.unit:
                below = (side + margin) // self.unit * self.unit - margin
                near = " or ".join(str(near) for near in (below, below + self.unit) if near > 0)
                raise ValueError(f"This model's pictures cannot be {side} pixels high or wide: take {near}.")
        return channels, *size

    @property
    def unit(self) -> int:
        """Pixels between one possible height or width of a picture and the next."""
        return self.codec.factor * 2 ** (len(self.config.network.block_out_channels) - 1)

    def _fit(self, images: Tensor, count: int, shape: tuple[int, int, int]) -> Tensor:
        images = images if images.ndim == 4 else images.unsqueeze(0)
        if images.shape[1:] != shape or len(images) not in (1, count):
            wanted = " x ".join(map(str, shape))
            raise ValueError(f"The model takes images of {wanted}, one or {count} of them, not {tuple(images.shape)}.")
        return images.to(self.device, torch.float32).expand(count, *shape)

    def _fit_mask(self, mask: Tensor, shape: tuple[int, int, int]) -> Tensor:
        _, height, width = shape
        if mask.shape != (1, height, width):
            raise ValueError(f"The mask must be 1 x {height} x {width}, not {tuple(mask.shape)}.")
        return (mask > 0.5).unsqueeze(0).to(self.device)

    @torch.no_grad()
    def images(self, step: Step, request: Request) -> Tensor:
        """A step's predicted pictures (count, C, H, W) in [-1, 1]; known pixels are the request's own, bit for bit."""
        # Where no noise is left the state is the picture: methods of several steps end beside their last prediction.
        pictures = self.decode(step.x if (step.sigma == 0).all() else step.x0)
        if not pictures.isfinite().all():
            precision = str(next(self.denoiser.parameters()).dtype).removeprefix("torch.")
            raise ValueError(f"The run ended in values that are no numbers: {precision} is too coarse for this model.")
        if request.mask is None:
            return pictures
        shape = self.shape(request)
        known = self._fit(request.image, request.count, shape)
        return torch.where(self._fit_mask(request.mask, shape), pictures, known)

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
        return self.decode(self.codec.encode(self._fit(images, len(images), self.codec.image_shape)))


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
