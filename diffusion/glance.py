"""A glance at latents: colours straight from the numbers of each cell, where the decoder would take seconds."""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from diffusion.autoencoder import VAE, pad

SIDE = 128  # pixels of the pictures that the colours are learnt from
COUNT = 4  # of these pictures
WAVES = 6  # in each channel of each


class Glance:
    """Pictures as a linear function of a latent's cells, one pixel a cell: the best for what an autoencoder encodes."""

    def __init__(self, codec: VAE) -> None:
        """Takes a second or a few: the codec encodes waves in all colours, and least squares do the rest."""
        side = SIDE // codec.factor * codec.factor - codec.margin
        pictures = waves(COUNT, codec.image_shape[0], side).to(next(codec.parameters()).device)
        with torch.no_grad():
            z = codec.encode(pictures)
        colours = F.avg_pool2d(pad(pictures, codec.margin, value=-1), codec.factor)
        cells, colours = (rearrange(x, "b c h w -> (b h w) c").cpu().double() for x in (_with_one(z), colours))
        self._map = torch.linalg.lstsq(cells, colours).solution.float()

    def __call__(self, z: Tensor) -> Tensor:
        """Scaled latents (B, latent_channels, h, w) as pictures (B, C, h, w) in [-1, 1]."""
        return torch.einsum("bchw,cd->bdhw", _with_one(z), self._map.to(z.device)).clamp(-1, 1)


def waves(count: int, channels: int, side: int) -> Tensor:
    """Smooth pictures (count, channels, side, side) in [-1, 1] of every colour, the same ones each time."""
    generator = torch.Generator().manual_seed(0)
    frequency = torch.randn(2, count, channels, WAVES, generator=generator) * 8
    phase = torch.rand(count, channels, WAVES, generator=generator) * 2 * torch.pi
    y, x = torch.meshgrid(*[torch.linspace(0, 1, side)] * 2, indexing="ij")
    angle = frequency[0, ..., None, None] * y + frequency[1, ..., None, None] * x + phase[..., None, None]
    return angle.sin().sum(2).mul(3 * WAVES**-0.5).tanh()


def _with_one(z: Tensor) -> Tensor:
    return F.pad(z.float(), (0, 0, 0, 0, 0, 1), value=1)
