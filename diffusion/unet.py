"""The denoising network: one U-Net for digits and Stable Diffusion 1.x, its modules named as diffusers names them."""

import math
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from diffusion.config import STRICT

Modules = Iterable[nn.Module]


def check_positive(config: Any) -> None:
    """Raise a ValueError if a number of a config dataclass is zero or negative."""
    for name, value in vars(config).items():
        if type(value) in (int, float) and value <= 0:
            raise ValueError(f"{name} must be positive, but it is {value}.")


def check_levels(size: int, channels: tuple[int, ...], groups: int) -> None:
    """Raise a ValueError unless a square of `size` halves once between levels and every width splits into `groups`."""
    if not channels:
        raise ValueError("block_out_channels needs at least one width.")
    halvings = len(channels) - 1
    factor = 2**halvings
    if size % factor:
        works = " or ".join(str(n) for n in (size // factor * factor, (size // factor + 1) * factor) if n > 0)
        raise ValueError(f"sample_size = {size} cannot be halved {halvings} times; try {works}.")
    if odd := [c for c in channels if c < 1 or c % groups]:
        raise ValueError(f"block_out_channels must be multiples of norm_num_groups = {groups}, but {odd[0]} is not.")


@dataclass(frozen=True)
class UNetConfig:
    """The U-Net's shape; sizes are in cells, widths in channels, and ValueErrors name what would work."""

    __pydantic_config__ = STRICT
    sample_size: int = 8
    in_channels: int = 4
    out_channels: int = 4
    block_out_channels: tuple[int, ...] = (64, 128)
    layers_per_block: int = 1
    attention: tuple[bool, ...] = (True, True)
    mid_attention: bool = True
    transformer_layers: int = 1
    attention_head_dim: int = 32
    attention_heads: int | None = None  # a fixed number of heads instead of a fixed width, as in Stable Diffusion 1.x
    cross_attention_dim: int | None = 64  # None: the transformers see no context
    norm_num_groups: int = 16
    time_embedding: Literal["sinusoidal", "fourier"] = "sinusoidal"
    fourier_scale: float = 30.0
    skips: Literal["concat", "add"] = "concat"

    def __post_init__(self) -> None:
        check_positive(self)
        check_levels(self.sample_size, self.block_out_channels, self.norm_num_groups)
        if len(self.attention) != len(self.block_out_channels):
            raise ValueError(
                f"attention needs one entry for each of the {len(self.block_out_channels)} block_out_channels, "
                f"but has {len(self.attention)}."
            )
        if self.block_out_channels[0] % 2:
            raise ValueError(f"block_out_channels must start with an even width, not {self.block_out_channels[0]}.")
        name = "attention_head_dim" if self.attention_heads is None else "attention_heads"
        unit = getattr(self, name)
        if odd := sorted(c for c in self.attended() if c % unit):
            raise ValueError(f"block_out_channels must be multiples of {name} = {unit}, but {odd[0]} is not.")

    def attended(self) -> set[int]:
        """The widths at which there is attention."""
        widths = self.block_out_channels
        attended = {c for c, attention in zip(widths, self.attention, strict=True) if attention}
        if self.skips == "add":  # the last layer of a level then leads to the width of the level above
            attended |= {c for c, attention in zip(widths, self.attention[1:], strict=False) if attention}
        return attended | {widths[-1]} if self.mid_attention else attended

    def heads(self, channels: int) -> int:
        """Heads of an attention of this width."""
        return self.attention_heads or channels // self.attention_head_dim


def named(**modules: nn.Module) -> nn.Sequential:
    """A sequence of modules under names instead of numbers."""
    return nn.Sequential(OrderedDict(modules))


class SinusoidalTime(nn.Module):
    """Noise level as [cos(w t), sin(w t)] with w from 1 down to 1e-4 (Vaswani et al. 2017, section 3.5)."""

    def __init__(self, dim: int):
        super().__init__()
        self.dim = dim

    def forward(self, t: Tensor) -> Tensor:
        half = self.dim // 2
        w = torch.exp(-math.log(10_000) * torch.arange(half, dtype=torch.float32, device=t.device) / half)
        phase = t.float()[:, None] * w
        return torch.cat([phase.cos(), phase.sin()], dim=-1)


class FourierTime(nn.Module):
    """Noise level as [sin(2 pi W t), cos(2 pi W t)] for fixed random W (Song et al. 2021, appendix H)."""

    def __init__(self, dim: int, scale: float):
        super().__init__()
        # Rounded, so that half-precision checkpoints hold these frequencies exactly.
        self.register_buffer("weight", (scale * torch.randn(dim // 2)).bfloat16().float())

    def forward(self, t: Tensor) -> Tensor:
        phase = 2 * math.pi * t.float()[:, None] * self.weight.float()
        return torch.cat([phase.sin(), phase.cos()], dim=-1)


class ResnetBlock(nn.Module):
    """Two 3 x 3 convolutions around a residual, the noise level added between them (Ho et al. 2020, appendix B)."""

    def __init__(self, inputs: int, outputs: int, groups: int, eps: float, time_dim: int | None = None):
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, inputs, eps)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.time_emb_proj = nn.Linear(time_dim, outputs) if time_dim else None
        self.norm2 = nn.GroupNorm(groups, outputs, eps)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor, time: Tensor | None = None) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        if self.time_emb_proj is not None:
            h = h + self.time_emb_proj(F.silu(time))[:, :, None, None]
        return self.conv_shortcut(x) + self.conv2(F.silu(self.norm2(h)))


class Attention(nn.Module):
    """softmax(q k^T / sqrt(d)) v over heads, from x to the context or to itself (Vaswani et al. 2017, Eq. 1)."""

    def __init__(self, channels: int, context_dim: int, heads: int, bias: bool = False):
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(channels, channels, bias)
        self.to_k = nn.Linear(context_dim, channels, bias)
        self.to_v = nn.Linear(context_dim, channels, bias)
        self.to_out = nn.Sequential(nn.Linear(channels, channels))

    def forward(self, x: Tensor, context: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        """x (B, N, C), context (B, L, D) -> (B, N, C); mask (B, L): True for the tokens that are attended to."""
        context = x if context is None else context
        mask = None if mask is None else mask[:, None, None, :]  # one for all heads and queries
        qkv = self.to_q(x), self.to_k(context), self.to_v(context)
        q, k, v = (rearrange(y, "b n (head d) -> b head n d", head=self.heads) for y in qkv)
        return self.to_out(rearrange(F.scaled_dot_product_attention(q, k, v, mask), "b head n d -> b n (head d)"))


class GEGLU(nn.Module):
    """A linear layer gated by the GELU of another (Shazeer 2020, section 2)."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.proj = nn.Linear(inputs, 2 * outputs)

    def forward(self, x: Tensor) -> Tensor:
        h, gate = self.proj(x).chunk(2, dim=-1)
        return h * F.gelu(gate)


class TransformerBlock(nn.Module):
    """Self-attention, attention to the context, feed-forward, each residual (Rombach et al. 2022, appendix E)."""

    def __init__(self, channels: int, context_dim: int | None, heads: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(channels)
        self.attn1 = Attention(channels, channels, heads)
        self.norm2 = nn.LayerNorm(channels) if context_dim else None
        self.attn2 = Attention(channels, context_dim, heads) if context_dim else None
        self.norm3 = nn.LayerNorm(channels)
        # The identity keeps the place of diffusers' dropout, so that the linear layer is net.2 there and here.
        net = nn.Sequential(GEGLU(channels, 4 * channels), nn.Identity(), nn.Linear(4 * channels, channels))
        self.ff = named(net=net)

    def forward(self, x: Tensor, context: Tensor | None) -> Tensor:
        x = x + self.attn1(self.norm1(x))
        if self.attn2 is not None:
            x = x + self.attn2(self.norm2(x), context)
        return x + self.ff(self.norm3(x))


class SpatialTransformer(nn.Module):
    """Transformer blocks over the cells of an image, around a residual (Rombach et al. 2022, section 3.3)."""

    def __init__(self, channels: int, config: UNetConfig):
        super().__init__()
        self.norm = nn.GroupNorm(config.norm_num_groups, channels, eps=1e-6)
        self.proj_in = nn.Conv2d(channels, channels, 1)
        self.transformer_blocks = nn.ModuleList(
            TransformerBlock(channels, config.cross_attention_dim, config.heads(channels))
            for _ in range(config.transformer_layers)
        )
        self.proj_out = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor, context: Tensor | None) -> Tensor:
        h = rearrange(self.proj_in(self.norm(x)), "b c h w -> b (h w) c")
        for block in self.transformer_blocks:
            h = block(h, context)
        return x + self.proj_out(rearrange(h, "b (h w) c -> b c h w", h=x.shape[-2]))


class Block(nn.Module):
    """One level of a U-Net or autoencoder: residual blocks, each with the attention of its number, and a resize."""

    def __init__(
        self, resnets: Modules, attentions: Modules = (), downsamplers: Modules = (), upsamplers: Modules = ()
    ):
        super().__init__()
        self.resnets = nn.ModuleList(resnets)
        self.attentions = nn.ModuleList(attentions)
        self.downsamplers = nn.ModuleList(downsamplers)
        self.upsamplers = nn.ModuleList(upsamplers)

    def layer(self, j: int, x: Tensor, time: Tensor | None = None, context: Tensor | None = None) -> Tensor:
        x = self.resnets[j](x, time)
        return self.attentions[j](x, context) if j < len(self.attentions) else x

    def forward(self, x: Tensor, time: Tensor | None = None, context: Tensor | None = None) -> Tensor:
        for j in range(len(self.resnets)):
            x = self.layer(j, x, time, context)
        for resample in (*self.downsamplers, *self.upsamplers):
            x = resample(x)
        return x


def upsample(channels: int) -> nn.Module:
    """Double height and width: nearest neighbour, then a convolution (Odena et al. 2016)."""
    return named(nearest=nn.Upsample(scale_factor=2), conv=nn.Conv2d(channels, channels, 3, padding=1))


class UNet(nn.Module):
    """F(x, t, context), the denoising U-Net of Ho et al. 2020 with the transformers of Rombach et al. 2022."""

    def __init__(self, config: UNetConfig):
        super().__init__()
        self.config = config
        widths, layers = config.block_out_channels, config.layers_per_block
        fourier = config.time_embedding == "fourier"
        time_dim = 4 * widths[0]
        self.time_proj = FourierTime(time_dim, config.fourier_scale) if fourier else SinusoidalTime(widths[0])
        linear_1 = nn.Linear(time_dim if fourier else widths[0], time_dim)
        self.time_embedding = named(linear_1=linear_1, act=nn.SiLU(), linear_2=nn.Linear(time_dim, time_dim))

        def block(shapes: list[tuple[int, int]], attentions: int, **resample: list[nn.Module]) -> Block:
            resnets = [ResnetBlock(a, b, config.norm_num_groups, 1e-5, time_dim) for a, b in shapes]
            return Block(resnets, [SpatialTransformer(b, config) for _, b in shapes[:attentions]], **resample)

        self.conv_in = nn.Conv2d(config.in_channels, widths[0], 3, padding=1)
        skips = [widths[0]]  # the widths of the states that the way down leaves for the way up
        self.down_blocks = nn.ModuleList()
        for i, width in enumerate(widths):
            shapes = [(skips[-1], width)] + [(width, width)] * (layers - 1)
            halve = [named(conv=nn.Conv2d(width, width, 3, stride=2, padding=1))] if i < len(widths) - 1 else []
            self.down_blocks.append(block(shapes, layers * config.attention[i], downsamplers=halve))
            skips += [width] * (layers + len(halve))

        self.mid_block = block([(width, width)] * (1 + config.mid_attention), int(config.mid_attention))

        self.up_blocks = nn.ModuleList()
        for i in reversed(range(len(widths))):
            shapes = []
            for _ in range(layers + 1):
                skip = skips.pop()
                # A sum needs equal widths, so each block then leads to the width of the skip that follows.
                added = (skip, skips[-1] if skips else skip)
                shapes.append((width + skip, widths[i]) if config.skips == "concat" else added)
                width = shapes[-1][1]
            double = [upsample(width)] if i > 0 else []
            self.up_blocks.append(block(shapes, len(shapes) * config.attention[i], upsamplers=double))

        self.conv_norm_out = nn.GroupNorm(config.norm_num_groups, widths[0], eps=1e-5)
        self.conv_out = nn.Conv2d(widths[0], config.out_channels, 3, padding=1)

    def forward(self, x: Tensor, t: Tensor, context: Tensor | None = None) -> Tensor:
        """x (B, C, H, W), t (B,) or 0-d, fractions allowed, context (B, L, D) or None -> (B, C, H, W)."""
        if context is None and self.config.cross_attention_dim is not None:
            raise ValueError(f"This network needs a context (B, L, {self.config.cross_attention_dim}), but got none.")
        x = x.to(self.conv_in.weight.dtype)  # the network computes in its own precision, whatever the state's
        context = None if context is None else context.to(x.dtype)
        time = self.time_embedding(self.time_proj(t.expand(len(x))).to(x.dtype))
        x = self.conv_in(x)
        skips = [x]
        for block in self.down_blocks:
            for j in range(len(block.resnets)):
                x = block.layer(j, x, time, context)
                skips.append(x)
            for halve in block.downsamplers:
                x = halve(x)
                skips.append(x)
        x = self.mid_block(x, time, context)
        for block in self.up_blocks:
            for j in range(len(block.resnets)):
                skip = skips.pop()
                x = torch.cat([x, skip], dim=1) if self.config.skips == "concat" else x + skip
                x = block.layer(j, x, time, context)
            for double in block.upsamplers:
                x = double(x)
        return self.conv_out(F.silu(self.conv_norm_out(x)))
