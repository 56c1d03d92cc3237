"""Colours straight from latents, beside what the decoder makes of them."""

import torch
import torch.nn.functional as F
from einops import rearrange

from diffusion.autoencoder import VAE, VAEConfig
from diffusion.glance import Glance, waves
from diffusion.pipeline import Pipeline
from diffusion.request import Request


class Linear(VAE):
    """One whose latents are a linear function of each cell's mean colour, which can be found again exactly."""

    def __init__(self) -> None:
        super().__init__(VAEConfig(image_size=28, sample_size=32, channels=3, norm_num_groups=8))
        self.mix = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))

    def encode(self, images):
        padded = F.pad(images, (2, 2, 2, 2), value=-1)
        return torch.einsum("lc,bchw->blhw", self.mix, F.avg_pool2d(padded, self.factor)) + 0.5


def test_finds_a_linear_map_again():
    codec = Linear()
    pictures = waves(3, 3, 28) * 0.9
    seen = F.avg_pool2d(F.pad(pictures, (2, 2, 2, 2), value=-1), codec.factor)
    torch.testing.assert_close(Glance(codec)(codec.encode(pictures)), seen, rtol=0, atol=1e-4)


def test_waves_are_of_every_colour():
    pictures = waves(4, 3, 64)
    assert pictures.shape == (4, 3, 64, 64) and pictures.abs().max() <= 1
    values = rearrange(pictures, "b c h w -> c (b h w)")
    low, high = (values.quantile(q, dim=1) for q in (0.05, 0.95))
    assert (low < -0.7).all() and (high > 0.7).all()
    assert torch.corrcoef(values).triu(1).abs().max() < 0.3
    assert torch.equal(waves(4, 3, 64), pictures)


def test_shows_nearly_as_much_of_pictures_as_any_linear_map_can():
    """On a trained model's own pictures, which it has not seen, beside the map that is best for just these."""
    pipeline = Pipeline.load("words-latent")
    *_, end = pipeline.generate(Request(count=16, steps=10, seed=5))
    z, decoded = end.x0, F.avg_pool2d(pipeline.decode(end.x0), pipeline.codec.factor)
    cells = rearrange(torch.cat([z, torch.ones_like(z[:, :1])], 1), "b c h w -> (b h w) c")
    colours = rearrange(decoded, "b c h w -> (b h w) c")
    best = cells @ torch.linalg.lstsq(cells, colours).solution
    error = (Glance(pipeline.codec)(z) - decoded).square().mean()
    assert (best - colours).square().mean() < error < 0.5 * decoded.var()
    assert error < 1.5 * (best - colours).square().mean()
