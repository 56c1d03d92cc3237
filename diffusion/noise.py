"""Random numbers that belong to an image, not to a batch."""

from collections.abc import Sequence

import torch
from torch import Tensor


class Noise:
    """Unit noise from one seeded CPU generator per image.

    Image i therefore gets the same numbers in any batch, on any device, streamed or not. Called with a state (B, ...),
    B the number of seeds, returns noise like it; each call goes on in the images' streams.
    """

    def __init__(self, seeds: Sequence[int]) -> None:
        self._generators = [torch.Generator().manual_seed(seed) for seed in seeds]

    def __call__(self, x: Tensor) -> Tensor:
        draws = [torch.randn(x.shape[1:], generator=generator) for generator in self._generators]
        return torch.stack(draws).to(x)
