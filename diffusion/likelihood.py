"""How probable a model finds real pictures, in bits per dimension, by the probability-flow ODE.

In the coordinate x = x0 + sigma * eps and with u = log sigma the ODE is dx/du = x - D(x, sigma). Along it log p changes
by minus the trace of the right side's Jacobian (Chen et al. 2018, Theorem 1), so with d dimensions and J = dD/dx

    log p(x_min) = log p(x_max) + d log(sigma_max / sigma_min) - integral of tr J du,

which is Eq. 39 of Song et al. 2021 (score SDE). The trace is estimated as v.Jv with a random v of signs (Hutchinson
1990; Eq. 40 there); the v stays the same along the way (Grathwohl et al. 2019). p(x_max) is N(0, sigma_max^2 I), which
`generate` starts from. For VE that is the paper's prior. Where the network sees x / sqrt(1 + sigma^2), as for VP and
DDPM, the paper's is N(0, (1 + sigma_max^2) I); at their sigma_max of 100 and more it gives the same bits/dim to 1e-5.
"""

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import asdict, dataclass
from functools import partial

import numpy as np
import torch
from scipy.integrate import RK45
from torch import Tensor

from diffusion.autoencoder import Pixels
from diffusion.data import ImageData, to_unit
from diffusion.pipeline import Pipeline
from diffusion.yardstick import pick

LEVELS = 256  # grey levels of an 8-bit picture
TOLERANCE = 1e-5  # relative and absolute, of the ODE solver (Song et al. 2021, Appendix D.2)


@dataclass(frozen=True)
class Likelihood:
    """What `likelihood` found; the error is the standard error of the mean over images, each with its own v."""

    bits_per_dim: float
    standard_error: float
    images: int
    prompted: bool  # of each picture given its class, or without
    seed: int
    calls: float  # evaluations of the ODE's right side, network and gradient, per image

    def to_dict(self) -> dict[str, float | int | bool]:
        """Return all fields."""
        return asdict(self)

    def line(self) -> str:
        """Return the result as a line of text."""
        given = "given their classes, " if self.prompted else ""
        return (
            f"{self.bits_per_dim:.4f} bits/dim, standard error {self.standard_error:.4f}, on {self.images} test images "
            f"({given}{self.calls:.4g} network evaluations each, seed {self.seed})"
        )


def likelihood(
    pipeline: Pipeline, data: ImageData, *, count: int, prompted: bool, seed: int, batch: int
) -> Generator[tuple[int, int], None, Likelihood]:
    """Measure the bits per dimension of `count` images drawn from `data`: yields (done, to do), in images.

    prompted: the likelihood of a picture given its class, which conditional models are trained for, or that under the
    unconditional prompt. Neither guidance nor clipping takes part: they belong to sampling, not to the model's density.

    Raises ValueError for a model of latents, whose density says nothing of pixels, and for counts that do not fit.
    """
    if not isinstance(pipeline.codec, Pixels):
        raise ValueError(
            f"{pipeline.config.name} diffuses latents: only a model of pixels has a likelihood of pictures."
        )
    if not 2 <= count <= len(data.images) or batch < 1:
        raise ValueError(
            f"a likelihood needs 2 to {len(data.images)} images, in batches of 1 or more, got {count} and {batch}."
        )
    chosen = pick(data.labels, count, seed, balanced=False)
    bits, done, calls = [], 0, 0
    for part in chosen.split(batch):
        yield done, count
        prompts = [data.classes[label] if prompted else "" for label in data.labels[part].tolist()]
        solve = _bits(pipeline, data.images[part], prompts, range(seed + done, seed + done + len(part)))
        while True:
            try:
                yield done + int(len(part) * next(solve)), count
            except StopIteration as finished:
                of_each, evaluations = finished.value
                break
        bits.append(of_each)
        done, calls = done + len(part), calls + evaluations * len(part)
    yield done, count
    each = torch.cat(bits)
    error = each.std().item() / math.sqrt(count)
    return Likelihood(each.mean().item(), error, count, prompted, seed, calls / count)


def _bits(
    pipeline: Pipeline, images: Tensor, prompts: list[str], seeds: Sequence[int]
) -> Generator[float, None, tuple[Tensor, int]]:
    """The bits per dimension of each image, whose dequantisation and v come from a generator of its own."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    x = dequantise(pipeline.codec, images.to(pipeline.device), generators)
    v = torch.stack([torch.randint(2, x.shape[1:], generator=generator) * 2.0 - 1 for generator in generators])
    with torch.no_grad():
        context = pipeline.conditioner(prompts)
    denoise, schedule = partial(pipeline.denoiser, context=context), pipeline.config.schedule
    log_p, evaluations = yield from log_density(denoise, x, v.to(x), schedule.sigma_min, schedule.sigma_max)
    return bits_per_dim(log_p, pipeline.codec), evaluations


def log_density(
    denoise: Callable[[Tensor, Tensor], Tensor],
    x: Tensor,
    v: Tensor,
    sigma_min: float,
    sigma_max: float,
    tolerance: float = TOLERANCE,
) -> Generator[float, None, tuple[Tensor, int]]:
    """Integrate the ODE from sigma_min to sigma_max: yields the share done, returns log p(x) (B,), float64, and calls.

    denoise: (x, sigma) -> x0, differentiable; x: states (B, ...) at sigma_min; v: signs like x, Hutchinson's.

    Raises ValueError where the solver cannot go on.
    """
    count, size = len(x), x.numel()

    def slope(u: float, state: np.ndarray) -> np.ndarray:
        at = torch.from_numpy(state[:size]).to(x.dtype).to(x.device).view(x.shape).requires_grad_()
        with torch.enable_grad():
            x0 = denoise(at, torch.tensor(math.exp(u), dtype=torch.float64))
            (vJ,) = torch.autograd.grad(x0, at, v)
        trace = (vJ * v).flatten(1).sum(1)
        return torch.cat([(at - x0).detach().flatten(), trace]).cpu().double().numpy()

    low, high = math.log(sigma_min), math.log(sigma_max)
    start = torch.cat([x.detach().flatten(), x.new_zeros(count)]).cpu().double().numpy()
    solver = RK45(slope, low, start, high, rtol=tolerance, atol=tolerance)
    while solver.status == "running":
        problem = solver.step()
        if problem:
            raise ValueError(f"the probability-flow ODE cannot be followed beyond sigma = {math.exp(solver.t):.3g}.")
        yield (solver.t - low) / (high - low)
    end, integral = torch.from_numpy(solver.y[:size]).view(count, -1), torch.from_numpy(solver.y[size:])
    d = end.shape[1]
    prior = -d / 2 * math.log(2 * math.pi * sigma_max**2) - end.square().sum(1) / (2 * sigma_max**2)
    return prior + d * (high - low) - integral, solver.nfev


def dequantise(codec: Pixels, images: Tensor, generators: list[torch.Generator]) -> Tensor:
    """Spread grey level k evenly over [k, k + 1) / 256 of the codec's range (Theis et al. 2016, Section 3.1).

    images: uint8 (B, C, H, W), with a generator each; returns their states. A padded border is spread like a black one.
    """
    low, high = codec.bounds
    levels = (codec.encode(to_unit(images)) - low) * (LEVELS - 1)
    uniform = torch.stack([torch.rand(codec.latent_shape, generator=generator) for generator in generators])
    return low + (levels + (high - low) * uniform.to(levels)) / LEVELS


def bits_per_dim(log_p: Tensor, codec: Pixels) -> Tensor:
    """Turn log densities of dequantised states into bits per dimension of 8-bit pictures, an upper bound in the mean.

    A grey level is a 256th of the range in each dimension of the state, so P(picture) is the density times (width /
    256)^d: 8 bits more than the density's for the range [0, 1], 7 for [-1, 1]. Where the codec pads, the border's bits
    are counted on top, as P(picture) is at least P(picture and border).
    """
    width = codec.bounds[1] - codec.bounds[0]
    d, pixels = math.prod(codec.latent_shape), math.prod(codec.image_shape)
    return (d * math.log2(LEVELS / width) - log_p / math.log(2)) / pixels
