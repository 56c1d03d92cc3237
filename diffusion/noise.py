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


class Between:
    """Noise on the way from one image's to another's, each draw along the great circle that joins the two.

    share: of the way, 0 to 1, for each image; unit noise stays unit noise, which a straight line would shrink.
    """

    def __init__(self, start: Noise, end: Noise, shares: Sequence[float]) -> None:
        self._start, self._end, self._shares = start, end, torch.tensor(shares, dtype=torch.float64)

    def __call__(self, x: Tensor) -> Tensor:
        return slerp(self._start(x), self._end(x), self._shares.to(x))


def slerp(a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    """Spherical linear interpolation of states (B, ...) by share (B,) (Shoemake 1985, section 3.3)."""
    flat = a.flatten(1).double(), b.flatten(1).double()
    angle = torch.nn.functional.cosine_similarity(*flat).clamp(-1, 1).acos()
    share = share.double()
    # Near an angle of 0 the two are one, and a line between them is as good.
    line = angle.sin() < 1e-6
    sine = torch.where(line, 1.0, angle.sin())
    of_a = torch.where(line, 1 - share, ((1 - share) * angle).sin() / sine)
    of_b = torch.where(line, share, (share * angle).sin() / sine)
    shape = (-1, *[1] * (a.ndim - 1))
    return of_a.to(a).view(shape) * a + of_b.to(b).view(shape) * b
