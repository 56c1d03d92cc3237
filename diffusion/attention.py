"""What a network looks at while it works: the weights of its attention to the prompt, as maps over the picture."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from diffusion.unet import Attention, TransformerBlock, UNet


@contextmanager
def watch(network: UNet, count: int) -> Iterator[Callable[[], Tensor]]:
    """While this is open, attention to the prompt is recorded; what it yields gives the mean since it was last called.

    The maps are (count, L, S, S), S the network's sample_size: how much of each cell's attention goes to each of L
    tokens, 1 in all, averaged over heads, blocks and calls (Hertz et al. 2023, section 3.1; Tang et al. 2023, Eq. 4).
    Of a guided call's two halves it is the one with the prompt that counts. ValueError if nothing was recorded.
    """
    size = (network.config.sample_size,) * 2
    total, calls = torch.zeros(()), 0

    def record(attention: Attention, inputs: tuple[Tensor, Tensor]) -> None:
        nonlocal total, calls
        x, context = (tensor[-count:] for tensor in inputs)
        q, k = (
            rearrange(project(y), "b n (head d) -> b head n d", head=attention.heads).float()
            for project, y in ((attention.to_q, x), (attention.to_k, context))
        )
        weights = (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1).mean(1)  # (B, N, L)
        maps = rearrange(weights, "b (h w) l -> b l h w", h=round(weights.shape[1] ** 0.5))
        total, calls = total.to(maps) + F.interpolate(maps, size, mode="bilinear"), calls + 1

    def mean() -> Tensor:
        nonlocal total, calls
        if not calls:
            raise ValueError("The network has made no call with a prompt since the last maps.")
        maps, total, calls = total / calls, torch.zeros(()), 0
        return maps

    blocks = (module for module in network.modules() if isinstance(module, TransformerBlock))
    hooks = [block.attn2.register_forward_pre_hook(record) for block in blocks if block.attn2 is not None]
    try:
        yield mean
    finally:
        for hook in hooks:
            hook.remove()
