"""How far two sets of images lie apart: pure functions of their features, and of the pixels themselves."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

CHUNK = 1000  # rows of a distance matrix held in memory at a time
BALL, MANIFOLD = 5, 3  # the neighbour that a ball reaches to: of density and coverage, of precision and recall


def frechet(a: Tensor, b: Tensor) -> float:
    """Return the squared Frechet distance of Gaussians fitted to a (N, F) and b (M, F) (Heusel et al. 2017, Eq. 6).

    0 for equal moments. It grows as samples get fewer, so compare only distances of equally many.
    """
    _check_two("Frechet", a, b)
    a, b = a.double(), b.double()
    values, vectors = torch.linalg.eigh(a.T.cov())
    root = vectors * values.clamp(min=0).sqrt()
    # cov(a) = root root^T, so cov(a) cov(b) has the eigenvalues of the symmetric root^T cov(b) root.
    product = torch.linalg.eigvalsh(root.T @ b.T.cov() @ root)
    shift = (a.mean(0) - b.mean(0)).square().sum()
    traces = a.var(0).sum() + b.var(0).sum() - 2 * product.clamp(min=0).sqrt().sum()
    return (shift + traces).clamp(min=0).item()


def kernel_distance(a: Tensor, b: Tensor) -> float:
    """Return the squared maximum mean discrepancy of a (N, F) and b (M, F) under the kernel (x.y / F + 1)^3.

    The kernel inception distance (Binkowski et al. 2018, Section 4) by the unbiased estimate of Gretton et al. 2012,
    Lemma 6, over all pairs at once: subsets would only add noise. The mean over independent draws does not depend on
    how many there are; for equal distributions that is 0, and single estimates fall below.
    """
    _check_two("kernel", a, b)
    a, b = a.double(), b.double()
    return _kernel_within(a) + _kernel_within(b) - 2 * _kernel_sum(a, b) / (len(a) * len(b))


def _kernel_within(a: Tensor) -> float:
    """The mean kernel of two different samples."""
    alone = (a.square().sum(1) / a.shape[1] + 1).pow(3).sum().item()
    return (_kernel_sum(a, a) - alone) / (len(a) * (len(a) - 1))


def _kernel_sum(a: Tensor, b: Tensor) -> float:
    return sum((part @ b.T / a.shape[1] + 1).pow(3).sum().item() for part in a.split(CHUNK))


def _check_two(name: str, a: Tensor, b: Tensor) -> None:
    if min(len(a), len(b)) < 2:
        raise ValueError(f"the {name} distance needs two samples on either side, got {len(a)} and {len(b)}.")


def density_coverage(real: Tensor, fake: Tensor, k: int = BALL) -> tuple[float, float]:
    """Return density and coverage of fake features (M, F) among real ones (N, F) (Naeem et al. 2020, Section 3).

    Around each real sample lies a ball that reaches to its k-th neighbour. Density (about 1, may exceed it) is how
    crowded with fakes the balls are, coverage (0 to 1) the share of balls with a fake inside. N must be more than k.
    """
    if len(real) <= k:
        raise ValueError(f"density and coverage with k = {k} need more than {k} real samples, got {len(real)}.")
    inside = covered = 0
    for distances, radii in _balls(real, fake, k):
        balls = distances < radii
        inside += balls.sum().item()
        covered += balls.any(1).sum().item()
    return inside / (k * len(fake)), covered / len(real)


def precision_recall(real: Tensor, fake: Tensor, k: int = MANIFOLD) -> tuple[float, float]:
    """Return improved precision and recall of fakes (M, F) to reals (N, F) (Kynkaanniemi et al. 2019, Eq. 1 and 2).

    A manifold is all balls around a set's samples, each reaching to the k-th neighbour. Precision is the share of fakes
    on the real manifold, recall the share of reals on the fake one. N and M must be more than k.
    """
    if min(len(real), len(fake)) <= k:
        sizes = f"{len(real)} real and {len(fake)} fake"
        raise ValueError(f"precision and recall with k = {k} need more than {k} samples on either side, got {sizes}.")
    return _share_on_manifold(fake, real, k), _share_on_manifold(real, fake, k)


def _share_on_manifold(points: Tensor, centres: Tensor, k: int) -> float:
    on = torch.zeros(len(points), dtype=torch.bool)
    for distances, radii in _balls(centres, points, k):
        on |= (distances <= radii).any(0)
    return on.double().mean().item()


def _balls(centres: Tensor, points: Tensor, k: int) -> Iterator[tuple[Tensor, Tensor]]:
    """For each chunk of centres, the distances (B, M) to all points and (B, 1) to their own k-th neighbours."""
    centres, points = centres.double(), points.double()
    for part in centres.split(CHUNK):
        radii = torch.cdist(part, centres).kthvalue(k + 1, dim=1, keepdim=True).values  # the nearest is itself
        yield torch.cdist(part, points), radii


def nearest(images: Tensor, among: Tensor) -> tuple[Tensor, Tensor]:
    """Find the most similar of the uint8 images `among` (N, C, H, W) for each of the uint8 images (B, C, H, W).

    Returns indices (B,) and Euclidean distances (B,) over pixel values in [0, 1]; 0 is an exact copy.
    """
    found = [_nearest(part, among) for part in images.split(CHUNK)]
    indices, distances = (torch.cat(parts) for parts in zip(*found, strict=True))
    return indices, distances


def _nearest(images: Tensor, among: Tensor) -> tuple[Tensor, Tensor]:
    queries = images.flatten(1).float()
    best, indices = torch.full((len(images),), math.inf), torch.zeros(len(images), dtype=torch.int64)
    for start in range(0, len(among), 10 * CHUNK):
        candidates = among[start : start + 10 * CHUNK].flatten(1).float()
        # |q|^2 is the same for all candidates, so it takes no part in the comparison.
        closest, at = (candidates.square().sum(1) - 2 * queries @ candidates.T).min(1)
        indices = torch.where(closest < best, start + at, indices)
        best = torch.minimum(best, closest)
    return indices, (queries - among[indices].flatten(1).float()).norm(dim=1) / 255
