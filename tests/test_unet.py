"""The U-Net against diffusers', weight for weight, and the options that diffusers does not have."""

from dataclasses import fields, replace

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import Tensor

from diffusion.config import dump, parse
from diffusion.unet import FourierTime, SinusoidalTime, UNet, UNetConfig

CONFIGS = {
    "default": UNetConfig(),
    "two layers": UNetConfig(layers_per_block=2),
    "attention at one level": UNetConfig(attention=(False, True)),
    "no attention in the middle": UNetConfig(mid_attention=False, transformer_layers=2),
    "no attention at all": UNetConfig(attention=(False, False), mid_attention=False, attention_head_dim=48),
    "one level": UNetConfig(sample_size=5, block_out_channels=(32,), attention=(True,)),
    "fourier": UNetConfig(time_embedding="fourier"),
    "pixels": UNetConfig(
        sample_size=32, in_channels=1, out_channels=1, block_out_channels=(16, 32, 64), attention=(False, False, True)
    ),
    "like Stable Diffusion": UNetConfig(
        sample_size=16,
        block_out_channels=(32, 64, 128, 128),
        layers_per_block=2,
        attention=(True, True, True, False),
        attention_heads=8,
        cross_attention_dim=96,
        norm_num_groups=32,
    ),
}


def reference(config: UNetConfig) -> UNet2DConditionModel:
    """Diffusers' network of the same shape; its attention_head_dim means the number of heads."""
    fourier = {"time_embedding_type": "fourier", "time_embedding_dim": 4 * config.block_out_channels[0]}
    return UNet2DConditionModel(
        sample_size=config.sample_size,
        in_channels=config.in_channels,
        out_channels=config.out_channels,
        block_out_channels=config.block_out_channels,
        layers_per_block=config.layers_per_block,
        down_block_types=tuple("CrossAttnDownBlock2D" if a else "DownBlock2D" for a in config.attention),
        up_block_types=tuple("CrossAttnUpBlock2D" if a else "UpBlock2D" for a in reversed(config.attention)),
        mid_block_type="UNetMidBlock2DCrossAttn" if config.mid_attention else "UNetMidBlock2D",
        transformer_layers_per_block=config.transformer_layers,
        attention_head_dim=tuple(config.heads(c) for c in config.block_out_channels),
        cross_attention_dim=config.cross_attention_dim or 8,
        norm_num_groups=config.norm_num_groups,
        **(fourier | {"flip_sin_to_cos": False} if config.time_embedding == "fourier" else {}),
    ).eval()


def randomize(module: torch.nn.Module) -> None:
    """Shake every weight, so that no norm is the identity and no bias is zero."""
    generator = torch.Generator().manual_seed(0)
    for p in module.parameters():
        p.data += 0.05 * torch.randn(p.shape, generator=generator)


def inputs(config: UNetConfig, length: int = 1, batch: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    shape = (batch, config.in_channels, config.sample_size, config.sample_size)
    x = torch.randn(shape, generator=generator)
    context = torch.randn(batch, length, config.cross_attention_dim or 8, generator=generator)
    return x, torch.tensor([3.0, 871.0])[:batch], context


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_equals_diffusers(name: str):
    torch.manual_seed(0)
    config = CONFIGS[name]
    theirs, ours = reference(config), UNet(config)
    randomize(theirs)
    ours.load_state_dict(theirs.state_dict(), strict=True)
    unit = 1e-3 if config.time_embedding == "fourier" else 1
    for length in (1, 77):
        x, steps, context = inputs(config, length)
        for t in (steps * unit, (steps + 0.37) * unit):
            expected = theirs(x, t, context).sample
            assert (ours(x, t, context) - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_stable_diffusion_has_its_size():
    """The 859 520 964 parameters in 686 tensors of Stable Diffusion 1.5."""
    config = UNetConfig(
        sample_size=64,
        block_out_channels=(320, 640, 1280, 1280),
        layers_per_block=2,
        attention=(True, True, True, False),
        attention_heads=8,
        cross_attention_dim=768,
        norm_num_groups=32,
    )
    with torch.device("meta"):
        tensors = UNet(config).state_dict().values()
    assert (len(tensors), sum(x.numel() for x in tensors)) == (686, 859_520_964)


@torch.no_grad()
def test_channels_last_and_a_shared_scalar_time_change_nothing():
    config = UNetConfig()
    ours = UNet(config).eval()
    x, _, context = inputs(config)
    expected = ours(x, torch.full((2,), 41.5), context)
    torch.testing.assert_close(ours(x, torch.tensor(41.5), context), expected)
    ours, x = ours.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    y = ours(x, torch.full((2,), 41.5), context)
    torch.testing.assert_close(y, expected, atol=1e-5, rtol=1e-4)
    assert y.is_contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def test_without_context_it_is_the_network_whose_cross_attention_is_silent():
    config = UNetConfig(cross_attention_dim=None)
    theirs, ours = reference(config), UNet(config)
    randomize(theirs)
    for name, p in theirs.named_parameters():
        if "attn2.to_out" in name:
            p.zero_()
    keys = {k: v for k, v in theirs.state_dict().items() if "attn2" not in k and "transformer_blocks.0.norm2" not in k}
    ours.load_state_dict(keys, strict=True)
    x, t, context = inputs(config)
    expected = theirs(x, t, context).sample
    assert (ours(x, t) - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_a_missing_context_is_an_error():
    x, t, _ = inputs(UNetConfig())
    with pytest.raises(ValueError, match=r"needs a context \(B, L, 64\)"):
        UNet(UNetConfig())(x, t)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"skips": "add"},
        {"skips": "add", "layers_per_block": 2, "attention": (False, True)},
        {"skips": "add", "sample_size": 16, "block_out_channels": (32, 96, 64), "attention": (True, False, True)},
        {"time_embedding": "fourier", "skips": "add"},
        {"cross_attention_dim": None},
        {"in_channels": 1, "out_channels": 3},
    ],
    ids=str,
)
def test_every_parameter_learns(changes: dict):
    config = replace(UNetConfig(), **changes)
    network = UNet(config)
    x, t, context = inputs(config, length=3)
    # Without a context the transformers attend to the image alone, so none may be needed.
    y = network(x, t / 1000, context if config.cross_attention_dim else None)
    assert y.shape == (2, config.out_channels, config.sample_size, config.sample_size)
    y.square().sum().backward()
    still = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()]
    assert still == []


def test_added_skips_are_really_added():
    config = UNetConfig(skips="add")
    network = UNet(config)
    assert [r.norm1.num_channels for b in network.up_blocks for r in b.resnets] == [128, 64, 64, 64]
    assert [r.norm1.num_channels for b in UNet(UNetConfig()).up_blocks for r in b.resnets] == [256, 192, 192, 128]


def test_sinusoidal_features():
    """Ho et al. 2020: dim / 2 wavelengths from 2 pi to nearly 2 pi * 10^4, cosines first."""
    t = torch.tensor([0.0, 1.0, 12.5])
    features = SinusoidalTime(8)(t)
    w = torch.tensor([1, 0.1, 0.01, 0.001])
    torch.testing.assert_close(features, torch.cat([torch.cos(t[:, None] * w), torch.sin(t[:, None] * w)], 1))


def test_fourier_features_survive_half_precision():
    features = FourierTime(512, scale=30.0)
    assert 25 < features.weight.std() < 35
    assert "weight" in features.state_dict() and not list(features.parameters())
    for dtype in (torch.float16, torch.bfloat16):
        torch.testing.assert_close(features.weight.to(dtype).float(), features.weight, rtol=0, atol=1e-6)
    t = torch.tensor([0.25])
    phase = 2 * torch.pi * t[:, None] * features.weight
    torch.testing.assert_close(features(t), torch.cat([phase.sin(), phase.cos()], 1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sample_size": 7}, "sample_size = 7 cannot be halved 1 times; try 6 or 8"),
        (
            {"sample_size": 28, "block_out_channels": (32, 32, 64, 64), "attention": (True,) * 4},
            "sample_size = 28 cannot be halved 3 times; try 24 or 32",
        ),
        ({"sample_size": 1}, "try 2"),
        ({"sample_size": 0}, "sample_size must be positive, but it is 0"),
        ({"layers_per_block": 0}, "layers_per_block must be positive, but it is 0"),
        ({"attention_heads": -1}, "attention_heads must be positive, but it is -1"),
        ({"norm_num_groups": 24}, "multiples of norm_num_groups = 24, but 64 is not"),
        ({"attention_head_dim": 48}, "multiples of attention_head_dim = 48, but 64 is not"),
        (
            {"attention_head_dim": 24, "block_out_channels": (32, 96), "norm_num_groups": 8, "skips": "add"}
            | {"attention": (False, True)},
            "multiples of attention_head_dim = 24, but 32 is not",
        ),
        ({"attention_heads": 5}, "multiples of attention_heads = 5, but 64 is not"),
        ({"block_out_channels": (15, 30), "norm_num_groups": 5}, "start with an even width, not 15"),
        ({"attention": (True,)}, "one entry for each of the 2 block_out_channels, but has 1"),
        ({"block_out_channels": (), "attention": ()}, "at least one width"),
    ],
    ids=str,
)
def test_config_errors_say_what_would_work(changes: dict, message: str):
    with pytest.raises(ValueError, match=message):
        replace(UNetConfig(), **changes)


def test_config_round_trip():
    config = CONFIGS["like Stable Diffusion"]
    assert parse(UNetConfig, dump(config), "here") == config
    assert {f.name for f in fields(config)} == set(dump(config))
    with pytest.raises(ValueError, match="skips"):
        parse(UNetConfig, {"skips": "multiply"}, "here")
