"""The autoencoder against diffusers', and both codecs' padding, masks and scale."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL

from diffusion import autoencoder
from diffusion.autoencoder import VAE, Gaussian, Pixels, PixelsConfig, VAEConfig
from diffusion.config import dump, parse

CONFIGS = {
    "default": VAEConfig(),
    "two layers": VAEConfig(layers_per_block=2, block_out_channels=(16, 32)),
    "color": VAEConfig(
        image_size=24, sample_size=24, channels=3, latent_channels=3, block_out_channels=(8, 16, 16, 24)
    ),
    "one level": VAEConfig(image_size=9, sample_size=10, block_out_channels=(16,)),
}


def reference(config: VAEConfig) -> AutoencoderKL:
    levels = len(config.block_out_channels)
    return AutoencoderKL(
        in_channels=config.channels,
        out_channels=config.channels,
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=config.block_out_channels,
        layers_per_block=config.layers_per_block,
        latent_channels=config.latent_channels,
        norm_num_groups=config.norm_num_groups,
        sample_size=config.sample_size,
    ).eval()


def images(config: VAEConfig | PixelsConfig, batch: int = 2) -> torch.Tensor:
    shape = (batch, config.channels, config.image_size, config.image_size)
    return 2 * torch.rand(shape, generator=torch.Generator().manual_seed(1)) - 1


def close(ours: torch.Tensor, theirs: torch.Tensor) -> bool:
    return bool((ours - theirs).abs().max() <= 1e-5 * theirs.abs().max())


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_equals_diffusers(name: str):
    torch.manual_seed(0)
    config = CONFIGS[name]
    theirs, ours = reference(config), VAE(config)
    generator = torch.Generator().manual_seed(0)
    for p in theirs.parameters():
        p += 0.05 * torch.randn(p.shape, generator=generator)
    ours.load_state_dict(theirs.state_dict(), strict=True)

    border = config.sample_size - config.image_size
    low, high = border // 2, border - border // 2
    x = images(config)
    padded = F.pad(x, (low, high, low, high), value=-1)
    expected, posterior = theirs.encode(padded).latent_dist, ours.posterior(x)
    assert close(posterior.mean, expected.mean)
    assert close(posterior.logvar, expected.logvar)
    assert close(ours.encode(x), expected.mean)

    z = torch.randn(2, *ours.latent_shape, generator=generator)
    decoded = theirs.decode(z).sample[..., low : low + config.image_size, low : low + config.image_size]
    assert ours.decode(z).shape == (2, *ours.image_shape)
    assert close(ours.decode(z), decoded)


@pytest.mark.parametrize("cells", [(14, 22), (8, 8), (6, 17)])
@torch.no_grad()
def test_tiles_are_diffusers(cells: tuple[int, int], monkeypatch):
    """Tiles of 8 x 8 cells, a quarter over the next; the last of a row may be narrower than that quarter."""
    config = VAEConfig(image_size=32, sample_size=32, channels=3, block_out_channels=(8, 8, 8), norm_num_groups=4)
    theirs, ours = reference(config), VAE(config)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    z = torch.randn(2, 4, *cells, generator=torch.Generator().manual_seed(0))
    whole = ours.decode(z)
    monkeypatch.setattr(autoencoder, "LARGEST", 0)
    theirs.enable_tiling()
    assert close(ours.decode(z), theirs.tiled_decode(z).sample)
    assert ours.decode(z).shape == whole.shape and not close(ours.decode(z), whole)


@torch.no_grad()
def test_large_pictures_are_coded_one_by_one(monkeypatch):
    config = CONFIGS["color"]
    vae, x = VAE(config), images(config, 3)
    z, widths = vae.encode(x), []
    decoded = vae.decode(z)
    for part in (vae.encoder, vae.decoder):
        part.register_forward_pre_hook(lambda module, inputs: widths.append(len(inputs[0])))
    monkeypatch.setattr(autoencoder, "AT_ONCE", config.sample_size**2)
    assert close(vae.encode(x), z) and close(vae.decode(z), decoded)
    assert widths == [1] * 6


def test_stable_diffusion_has_its_size():
    """The 83 653 863 parameters of Stable Diffusion 1.5's autoencoder."""
    widths = (128, 256, 512, 512)
    config = VAEConfig("vae", 512, 512, 3, 4, widths, layers_per_block=2, norm_num_groups=32, scaling_factor=0.18215)
    with torch.device("meta"):
        vae = VAE(config)
    assert sum(p.numel() for p in vae.parameters()) == 83_653_863
    assert vae.latent_shape == (4, 64, 64)


@torch.no_grad()
def test_the_scale_lives_in_encode_and_decode():
    plain = VAE(VAEConfig())
    scaled = VAE(VAEConfig(scaling_factor=0.25))
    scaled.load_state_dict(plain.state_dict())
    x = images(plain.config)
    z = plain.encode(x)
    torch.testing.assert_close(scaled.encode(x), 0.25 * z)
    torch.testing.assert_close(scaled.decode(0.25 * z), plain.decode(z))
    torch.testing.assert_close(scaled.posterior(x).mean, plain.posterior(x).mean)


def test_every_parameter_learns():
    vae = VAE(VAEConfig())
    posterior = vae.posterior(images(vae.config))
    z = posterior.sample(torch.randn_like(posterior.mean))
    (vae.decode(z).square().sum() + posterior.kl().sum()).backward()
    assert [name for name, p in vae.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_posterior_against_torch_distributions():
    generator = torch.Generator().manual_seed(0)
    mean, logvar = torch.randn(2, 3, 4, 8, 8, generator=generator)
    posterior = Gaussian(mean, logvar)
    q = torch.distributions.Normal(mean, (logvar / 2).exp())
    expected = torch.distributions.kl_divergence(q, torch.distributions.Normal(0.0, 1.0)).sum((1, 2, 3))
    torch.testing.assert_close(posterior.kl(), expected)
    torch.testing.assert_close(posterior.sample(torch.zeros_like(mean)), mean)
    torch.testing.assert_close(posterior.sample(torch.ones_like(mean)), mean + q.scale)
    assert (Gaussian(torch.zeros(2, 4, 8, 8), torch.zeros(2, 4, 8, 8)).kl() == 0).all()


@torch.no_grad()
def test_the_variance_is_bounded():
    vae = VAE(VAEConfig())
    vae.quant_conv.bias[4:] = 1000
    assert (vae.posterior(images(vae.config)).logvar == 20).all()
    vae.quant_conv.bias[4:] = -1000
    assert (vae.posterior(images(vae.config)).logvar == -30).all()


@pytest.mark.parametrize(("image_size", "sample_size"), [(28, 32), (27, 32), (32, 32), (3, 4)])
def test_pixels_return_exactly(image_size: int, sample_size: int):
    pixels = Pixels(PixelsConfig(image_size=image_size, sample_size=sample_size, channels=3))
    x = images(pixels.config)
    z = pixels.encode(x)
    assert pixels.image_shape == x.shape[1:] and pixels.latent_shape == z.shape[1:] == (3, sample_size, sample_size)
    assert torch.equal(pixels.decode(z), x)
    assert (z == -1).sum() == z.numel() - x.numel()


def test_pixels_in_the_range_of_their_schedule():
    pixels = Pixels(PixelsConfig(range=(0, 1)))
    x = torch.tensor([-1.0, 0.0, 1.0, 1.0]).repeat(196).view(1, 1, 28, 28)
    z = pixels.encode(x)
    assert pixels.bounds == (0, 1) and z.unique().tolist() == [0, 0.5, 1] and (z[..., :2] == 0).all()
    assert torch.equal(pixels.decode(z), x)
    with pytest.raises(ValueError, match="range must rise from black to white, but it is 1 to 0"):
        PixelsConfig(range=(1, 0))


def test_pixel_mask_is_the_mask():
    pixels = Pixels(PixelsConfig())
    mask = torch.zeros(1, 1, 28, 28)
    mask[..., 5, 9] = 1
    cells = pixels.latent_mask(mask)
    assert cells.dtype == torch.bool and cells.shape == (1, 1, 32, 32)
    assert cells.nonzero().tolist() == [[0, 0, 7, 11]]


@pytest.mark.parametrize(
    ("row", "column", "cell"), [(0, 0, [0, 0]), (1, 2, [0, 1]), (2, 1, [1, 0]), (27, 27, [7, 7]), (13, 14, [3, 4])]
)
def test_latent_mask_takes_every_cell_over_a_masked_pixel(row: int, column: int, cell: list[int]):
    vae = VAE(VAEConfig())
    mask = torch.zeros(1, 1, 28, 28, dtype=torch.bool)
    mask[..., row, column] = True
    cells = vae.latent_mask(mask)
    assert cells.dtype == torch.bool and cells.shape == (1, 1, 8, 8)
    assert cells[0, 0].nonzero().tolist() == [cell]
    assert vae.latent_mask(torch.ones_like(mask)).all() and not vae.latent_mask(torch.zeros_like(mask)).any()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sample_size": 30}, "sample_size = 30 cannot be halved 2 times; try 28 or 32"),
        ({"image_size": 40}, "image_size must be at most sample_size = 32, but it is 40"),
        ({"norm_num_groups": 12}, "multiples of norm_num_groups = 12, but 16 is not"),
        ({"latent_channels": 0}, "latent_channels must be positive, but it is 0"),
        ({"scaling_factor": -1.0}, "scaling_factor must be positive, but it is -1.0"),
        ({"block_out_channels": ()}, "at least one width"),
    ],
    ids=str,
)
def test_config_errors_say_what_would_work(changes: dict, message: str):
    with pytest.raises(ValueError, match=message):
        replace(VAEConfig(), **changes)
    if "image_size" in changes:
        with pytest.raises(ValueError, match=message):
            PixelsConfig(**changes)


def test_config_round_trip():
    for config in (VAEConfig(scaling_factor=0.18215), PixelsConfig(channels=3)):
        assert parse(type(config), dump(config), "here") == config
