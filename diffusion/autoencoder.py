"""Codecs between images and what is diffused: a variational autoencoder, named as in diffusers, and plain pixels."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from diffusion import __version__, checkpoints
from diffusion.config import STRICT, parse
from diffusion.unet import Attention, Block, ResnetBlock, check_levels, check_positive, named, upsample

AT_ONCE = 2**18
"""Pixels that are coded together at most: 334 digits, or one picture of 512 x 512."""

LARGEST = 2**20
"""Pixels of a picture that is decoded whole; one of more is decoded in tiles."""


@dataclass(frozen=True)
class VAEConfig:
    """The autoencoder's shape: images of image_size, padded to sample_size, halved once between levels."""

    __pydantic_config__ = STRICT
    kind: Literal["vae"] = "vae"
    image_size: int = 28
    sample_size: int = 32
    channels: int = 1
    latent_channels: int = 4
    block_out_channels: tuple[int, ...] = (16, 32, 64)
    layers_per_block: int = 1
    norm_num_groups: int = 8
    scaling_factor: float = 1.0  # 1 / std of the posterior means over the training data

    def __post_init__(self) -> None:
        check_positive(self)
        check_padding(self.image_size, self.sample_size)
        check_levels(self.sample_size, self.block_out_channels, self.norm_num_groups)


@dataclass(frozen=True)
class PixelsConfig:
    """Images of image_size, padded to sample_size; range: what black and white are to the diffusion."""

    __pydantic_config__ = STRICT
    kind: Literal["pixels"] = "pixels"
    image_size: int = 28
    sample_size: int = 32
    channels: int = 1
    range: tuple[float, float] = (-1.0, 1.0)

    def __post_init__(self) -> None:
        check_positive(self)
        check_padding(self.image_size, self.sample_size)
        low, high = self.range
        if not low < high:
            raise ValueError(f"range must rise from black to white, but it is {low:g} to {high:g}.")


@dataclass(frozen=True)
class AutoencoderConfig:
    """What config.json says of an autoencoder without a denoiser; beside: the model that it is to be compared with."""

    name: str
    kind: Literal["autoencoder"] = "autoencoder"
    codec: VAEConfig = field(default_factory=VAEConfig)
    data: str = "mnist"
    beside: str | None = None
    engine: str = __version__

    __pydantic_config__ = STRICT


def check_padding(image_size: int, sample_size: int) -> None:
    """Raise a ValueError unless images of image_size fit into a square of sample_size."""
    if image_size > sample_size:
        raise ValueError(f"image_size must be at most sample_size = {sample_size}, but it is {image_size}.")


def pad(images: Tensor, margin: int, value: float) -> Tensor:
    """Center (B, C, H, W) in (B, C, H + margin, W + margin)."""
    before, after = margin // 2, margin - margin // 2
    return F.pad(images, (before, after, before, after), value=value)


def crop(images: Tensor, margin: int) -> Tensor:
    """The inverse of pad: the middle of (B, C, H + margin, W + margin)."""
    before, (height, width) = margin // 2, (side - margin for side in images.shape[-2:])
    return images[..., before : before + height, before : before + width]


def at_once(shape: Sequence[int], factor: int = 1) -> int:
    """How many of a batch (B, C, h, w), each of whose cells stands for factor^2 pixels, are coded together."""
    return max(1, AT_ONCE // (shape[-2] * shape[-1] * factor**2))


def tiled(decode: Callable[[Tensor], Tensor], z: Tensor, cells: int) -> Tensor:
    """decode(z) from tiles of cells x cells, a quarter of each over the next, where the two are blended in a line.

    Norms and attention see one tile at a time, so that the picture is near the whole one's, not equal to it. The
    result is that of diffusers' AutoencoderKL.tiled_decode.
    """
    stride = cells - cells // 4
    tiles = [
        [decode(z[..., y : y + cells, x : x + cells]) for x in range(0, z.shape[-1], stride)]
        for y in range(0, z.shape[-2], stride)
    ]
    factor = tiles[0][0].shape[-1] // min(cells, z.shape[-1])
    step, overlap = stride * factor, (cells - stride) * factor

    def blended(before: Tensor | None, tile: Tensor, axis: int) -> Tensor:
        """A tile whose first pixels along an axis come out of the last of the one before."""
        if before is None:
            return tile
        extent = min(overlap, before.shape[axis], tile.shape[axis])
        share = torch.arange(extent).to(tile).div(extent).view(-1, *[1] * (-1 - axis))
        ours, rest = tile.split([extent, tile.shape[axis] - extent], axis)
        theirs = before.narrow(axis, before.shape[axis] - extent, extent)
        return torch.cat([theirs * (1 - share) + ours * share, rest], axis)

    rows, above = [], [None] * len(tiles[0])
    for row in tiles:
        left = None
        for x, tile in enumerate(row):
            row[x] = left = blended(left, blended(above[x], tile, -2), -1)
        above = row
        rows.append(torch.cat([tile[..., :step, :step] for tile in row], -1))
    return torch.cat(rows, -2)


class Gaussian(NamedTuple):
    """A diagonal Gaussian over latents, the encoder's q(z | x) (Kingma & Welling 2014, Eq. 9)."""

    mean: Tensor
    logvar: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        """z = mean + std * noise, with standard normal noise of the latent's shape."""
        return self.mean + torch.exp(0.5 * self.logvar) * noise

    def kl(self) -> Tensor:
        """KL(q || N(0, I)) of each image in nats, (B,) (Kingma & Welling 2014, appendix B)."""
        return 0.5 * (self.mean.square() + self.logvar.exp() - 1 - self.logvar).flatten(1).sum(1)


class CellAttention(Attention):
    """One head of self-attention over the cells of an image, around a residual."""

    def __init__(self, channels: int, groups: int):
        super().__init__(channels, channels, heads=1, bias=True)
        self.group_norm = nn.GroupNorm(groups, channels, eps=1e-6)

    def forward(self, x: Tensor, context: None = None) -> Tensor:
        h = super().forward(rearrange(self.group_norm(x), "b c h w -> b (h w) c"))
        return x + rearrange(h, "b (h w) c -> b c h w", h=x.shape[-2])


def resnet(inputs: int, outputs: int, config: VAEConfig) -> ResnetBlock:
    """A residual block as the autoencoder has it: no time embedding, and the smaller eps in its norms."""
    return ResnetBlock(inputs, outputs, config.norm_num_groups, eps=1e-6)


def middle(width: int, config: VAEConfig) -> Block:
    """The block between encoder and decoder's levels: two residual blocks around an attention."""
    return Block([resnet(width, width, config) for _ in range(2)], [CellAttention(width, config.norm_num_groups)])


def halve(channels: int) -> nn.Module:
    """Halve height and width by a strided convolution that pads below and to the right only."""
    return named(pad=nn.ZeroPad2d((0, 1, 0, 1)), conv=nn.Conv2d(channels, channels, 3, stride=2))


class Encoder(nn.Module):
    """Images to mean and logvar (Rombach et al. 2022, appendix G)."""

    def __init__(self, config: VAEConfig):
        super().__init__()
        widths = config.block_out_channels
        self.conv_in = nn.Conv2d(config.channels, widths[0], 3, padding=1)
        self.down_blocks = nn.ModuleList()
        for i, width in enumerate(widths):
            path = [widths[max(i - 1, 0)]] + [width] * config.layers_per_block
            resnets = [resnet(a, b, config) for a, b in pairwise(path)]
            self.down_blocks.append(Block(resnets, downsamplers=[halve(width)] if i < len(widths) - 1 else []))
        self.mid_block = middle(widths[-1], config)
        self.conv_norm_out = nn.GroupNorm(config.norm_num_groups, widths[-1], eps=1e-6)
        self.conv_out = nn.Conv2d(widths[-1], 2 * config.latent_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for block in self.down_blocks:
            x = block(x)
        return self.conv_out(F.silu(self.conv_norm_out(self.mid_block(x))))


class Decoder(nn.Module):
    """Latents to images (Rombach et al. 2022, appendix G)."""

    def __init__(self, config: VAEConfig):
        super().__init__()
        widths = config.block_out_channels[::-1]
        self.conv_in = nn.Conv2d(config.latent_channels, widths[0], 3, padding=1)
        self.mid_block = middle(widths[0], config)
        self.up_blocks = nn.ModuleList()
        for i, width in enumerate(widths):
            path = [widths[max(i - 1, 0)]] + [width] * (config.layers_per_block + 1)
            resnets = [resnet(a, b, config) for a, b in pairwise(path)]
            self.up_blocks.append(Block(resnets, upsamplers=[upsample(width)] if i < len(widths) - 1 else []))
        self.conv_norm_out = nn.GroupNorm(config.norm_num_groups, widths[-1], eps=1e-6)
        self.conv_out = nn.Conv2d(widths[-1], config.channels, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = self.mid_block(self.conv_in(z))
        for block in self.up_blocks:
            x = block(x)
        return self.conv_out(F.silu(self.conv_norm_out(x)))


class VAE(nn.Module):
    """The autoencoder of latent diffusion (Kingma & Welling 2014; Rombach et al. 2022, section 3.1)."""

    bounds = -math.inf, math.inf  # of a latent: none
    center, scale = 0.0, 1.0  # its mean and deviation, about

    def __init__(self, config: VAEConfig):
        super().__init__()
        self.config = config
        self.factor = 2 ** (len(config.block_out_channels) - 1)
        self.margin = config.sample_size - config.image_size
        cells = config.sample_size // self.factor
        self.image_shape = (config.channels, config.image_size, config.image_size)
        self.latent_shape = (config.latent_channels, cells, cells)
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        self.quant_conv = nn.Conv2d(2 * config.latent_channels, 2 * config.latent_channels, 1)
        self.post_quant_conv = nn.Conv2d(config.latent_channels, config.latent_channels, 1)

    def posterior(self, images: Tensor) -> Gaussian:
        """The unscaled q(z | x) of images (B, C, H, W) in [-1, 1]; few large ones at a time, to bound the memory."""
        padded = pad(images, self.margin, value=-1).to(self.quant_conv.weight.dtype)
        moments = torch.cat([self.quant_conv(self.encoder(few)) for few in padded.split(at_once(padded.shape))])
        mean, logvar = moments.to(images.dtype).chunk(2, dim=1)
        return Gaussian(mean, logvar.clamp(-30, 20))

    def encode(self, images: Tensor) -> Tensor:
        """The posterior mean times scaling_factor: (B, C, H, W) in [-1, 1] -> (B, latent_channels, h, w)."""
        return self.posterior(images).mean * self.config.scaling_factor

    def decode(self, z: Tensor) -> Tensor:
        """Scaled latents (B, latent_channels, h, w) -> images (B, C, H, W), not clamped to [-1, 1].

        To bound the memory, few large pictures are decoded at a time, and of one above LARGEST blended tiles.
        """
        unscaled = (z / self.config.scaling_factor).to(self.post_quant_conv.weight.dtype)
        area = unscaled[0, 0].numel() * self.factor**2
        decode = self._decode if area <= LARGEST else partial(tiled, self._decode, cells=self.latent_shape[-1])
        images = torch.cat([decode(few) for few in unscaled.split(at_once(unscaled.shape, self.factor))])
        return crop(images, self.margin).to(z.dtype)

    def _decode(self, z: Tensor) -> Tensor:
        return self.decoder(self.post_quant_conv(z))

    def latent_mask(self, mask: Tensor) -> Tensor:
        """The cells over any masked pixel: (B, 1, H, W), nonzero to repaint -> bool (B, 1, h, w)."""
        return F.max_pool2d(pad(mask.float(), self.margin, value=0), self.factor) > 0

    def latent_of(self, height: int, width: int) -> tuple[int, int, int]:
        """The shape of the latent of a picture whose padded sides the factor divides."""
        return (self.config.latent_channels, *((side + self.margin) // self.factor for side in (height, width)))


class Autoencoder(nn.Module):
    """A variational autoencoder that is a checkpoint of its own: to be looked at, not to diffuse with."""

    def __init__(self, config: AutoencoderConfig) -> None:
        super().__init__()
        self.config = config
        self.codec = VAE(config.codec)

    @classmethod
    def load(cls, reference: str | Path) -> "Autoencoder":
        """Read a trained autoencoder from a checkpoint name, folder or Hub id; it comes back in eval mode.

        Raises ValueError, one sentence on what is wrong with the reference or the checkpoint.
        """
        checkpoint = checkpoints.read(reference)
        autoencoder = cls(parse(AutoencoderConfig, checkpoint.config, str(checkpoint.folder / "config.json")))
        checkpoints.load_into(autoencoder, checkpoint.tensors, str(reference))
        return autoencoder.eval()

    @torch.no_grad()
    def reconstruct(self, images: Tensor) -> Tensor:
        """Pictures through encoder and decoder and back, (B, C, H, W) in [-1, 1]."""
        return self.codec.decode(self.codec.encode(images)).clamp(-1, 1)


class Pixels(nn.Module):
    """Diffusion in pixel space: pictures in the schedule's own range, padded so that the U-Net can halve."""

    def __init__(self, config: PixelsConfig):
        super().__init__()
        self.config = config
        self.bounds = low, high = config.range
        self.center, self.scale = (high + low) / 2, (high - low) / 2
        self.factor, self.margin = 1, config.sample_size - config.image_size
        self.image_shape = (config.channels, config.image_size, config.image_size)
        self.latent_shape = (config.channels, config.sample_size, config.sample_size)

    def encode(self, images: Tensor) -> Tensor:
        """(B, C, H, W) in [-1, 1] -> (B, C, H + margin, W + margin) in range, the border black."""
        return self.center + self.scale * pad(images, self.margin, value=-1)

    def decode(self, z: Tensor) -> Tensor:
        """The middle of z, (B, C, H, W) in [-1, 1]."""
        return (crop(z, self.margin) - self.center) / self.scale

    def latent_mask(self, mask: Tensor) -> Tensor:
        """The mask, padded: (B, 1, H, W), nonzero to repaint -> bool (B, 1, H + margin, W + margin)."""
        return pad(mask.float(), self.margin, value=0) > 0

    def latent_of(self, height: int, width: int) -> tuple[int, int, int]:
        """The shape of the state of a picture."""
        return (self.config.channels, height + self.margin, width + self.margin)
