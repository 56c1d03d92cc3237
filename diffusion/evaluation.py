"""How good a model is, in numbers: pure functions of tensors, and `evaluate`, which asks them all about one model."""

import math
import time
from collections.abc import Generator
from dataclasses import asdict, dataclass

import torch
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from diffusion.classifier import Classifier
from diffusion.data import ImageData, to_uint8, to_unit
from diffusion.pipeline import Pipeline, Request

CHUNK = 1000  # rows of a distance matrix held in memory at a time


def frechet(a: Tensor, b: Tensor) -> float:
    """Return the squared Frechet distance of Gaussians fitted to a (N, F) and b (M, F) (Heusel et al. 2017, Eq. 6).

    0 for equal moments. It grows as samples get fewer, so compare only distances of equally many.
    """
    if min(len(a), len(b)) < 2:
        raise ValueError(f"the Frechet distance needs two samples on either side, got {len(a)} and {len(b)}.")
    a, b = a.double(), b.double()
    values, vectors = torch.linalg.eigh(a.T.cov())
    root = vectors * values.clamp(min=0).sqrt()
    # cov(a) = root root^T, so cov(a) cov(b) has the eigenvalues of the symmetric root^T cov(b) root.
    product = torch.linalg.eigvalsh(root.T @ b.T.cov() @ root)
    shift = (a.mean(0) - b.mean(0)).square().sum()
    traces = a.var(0).sum() + b.var(0).sum() - 2 * product.clamp(min=0).sqrt().sum()
    return (shift + traces).clamp(min=0).item()


def density_coverage(real: Tensor, fake: Tensor, k: int = 5) -> tuple[float, float]:
    """Return density and coverage of fake features (M, F) among real ones (N, F) (Naeem et al. 2020, Section 3).

    Around each real sample lies a ball that reaches to its k-th neighbour. Density (about 1, may exceed it) is how
    crowded with fakes the balls are, coverage (0 to 1) the share of balls with a fake inside. N must be more than k.
    """
    if len(real) <= k:
        raise ValueError(f"density and coverage with k = {k} need more than {k} real samples, got {len(real)}.")
    real, fake = real.double(), fake.double()
    inside = covered = 0
    for part in real.split(CHUNK):
        radii = torch.cdist(part, real).kthvalue(k + 1, dim=1, keepdim=True).values  # the nearest is the sample itself
        balls = torch.cdist(part, fake) < radii
        inside += balls.sum().item()
        covered += balls.any(1).sum().item()
    return inside / (k * len(fake)), covered / len(real)


def nearest(images: Tensor, among: Tensor) -> tuple[Tensor, Tensor]:
    """Find the most similar of the uint8 images `among` (N, C, H, W) for each of the uint8 images (B, C, H, W).

    Returns indices (B,) and Euclidean distances (B,) over pixel values in [0, 1]; 0 is an exact copy.
    """
    queries = images.flatten(1).float()
    best, indices = torch.full((len(images),), math.inf), torch.zeros(len(images), dtype=torch.int64)
    for start in range(0, len(among), 10 * CHUNK):
        candidates = among[start : start + 10 * CHUNK].flatten(1).float()
        # |q|^2 is the same for all candidates, so it takes no part in the comparison.
        closest, at = (candidates.square().sum(1) - 2 * queries @ candidates.T).min(1)
        indices = torch.where(closest < best, start + at, indices)
        best = torch.minimum(best, closest)
    return indices, (queries - among[indices].flatten(1).float()).norm(dim=1) / 255


def psnr(images: Tensor, originals: Tensor) -> float:
    """Return the mean peak signal-to-noise ratio in dB of images (N, C, H, W) in [-1, 1] (range 2); inf for copies."""
    return peak_signal_noise_ratio(images, originals, data_range=2.0, dim=(1, 2, 3)).item()


def ssim(images: Tensor, originals: Tensor) -> float:
    """Return the mean structural similarity of images (N, C, H, W) in [-1, 1] (range 2) (Wang et al. 2004, Eq. 13)."""
    parts = zip(images.split(CHUNK), originals.split(CHUNK), strict=True)
    each = [structural_similarity_index_measure(a, b, data_range=2.0, reduction="none").view(-1) for a, b in parts]
    return torch.cat(each).mean().item()


@dataclass(frozen=True)
class Report:
    """What `evaluate` found; accuracies, confidences and coverage are shares in [0, 1].

    The test_ values and frechet_floor are what as many real test images score, the mark for generated ones to reach.
    """

    model: str
    count: int
    test_count: int
    sampler: str
    steps: int
    guidance: float
    seed: int
    accuracy: float | None  # None where the model has no prompts to be held to
    test_accuracy: float
    confidence: float
    test_confidence: float
    frechet: float  # generated against training images, in the classifier's features
    frechet_floor: float  # test against training images
    density: float
    coverage: float
    psnr: float  # dB, of reconstructed test images, as are the next two
    ssim: float
    reconstruction_accuracy: float
    calls: float  # network calls per image, each on both prompts under guidance
    seconds: float  # spent generating

    @property
    def frechet_ratio(self) -> float:
        """How many times as far from the training images as the test images are."""
        return self.frechet / self.frechet_floor if self.frechet_floor else math.inf

    def to_dict(self) -> dict[str, str | int | float | None]:
        """Return all fields and the ratio as JSON can hold them: None stands for what is infinite or does not apply."""
        values = asdict(self) | {"frechet_ratio": self.frechet_ratio}
        return {key: None if isinstance(v, float) and not math.isfinite(v) else v for key, v in values.items()}

    def table(self) -> str:
        """Return the report as lines of plain text."""
        accuracy = "no prompts" if self.accuracy is None else f"{self.accuracy:.2%}"
        rows = [
            ("", "generated", "real"),
            ("recognised as prompted", accuracy, f"{self.test_accuracy:.2%}"),
            ("mean confidence", f"{self.confidence:.2%}", f"{self.test_confidence:.2%}"),
            ("Frechet distance to training images", f"{self.frechet:.4g}", f"{self.frechet_floor:.4g}"),
            ("  times that of real images", f"{self.frechet_ratio:.2f}", ""),
            ("density", f"{self.density:.3f}", ""),
            ("coverage", f"{self.coverage:.3f}", ""),
            ("", "reconstructed", ""),
            ("PSNR", f"{self.psnr:.2f} dB", ""),
            ("SSIM", f"{self.ssim:.4f}", ""),
            ("still recognised", f"{self.reconstruction_accuracy:.2%}", f"{self.test_accuracy:.2%}"),
            ("", "cost", ""),
            ("network calls per image", f"{self.calls:g}", ""),
            ("seconds per 100 images", f"{100 * self.seconds / self.count:.2f}", ""),
        ]
        settings = f"{self.sampler}, {self.steps} steps, guidance {self.guidance:g}, seed {self.seed}"
        title = f"{self.model}: {self.count} generated and {self.test_count} real images ({settings})"
        return "\n".join([title, *(f"{name:<37}{value:>14}{real:>10}".rstrip() for name, value, real in rows)])


def evaluate(
    pipeline: Pipeline,
    classifier: Classifier,
    train_data: ImageData,
    test_data: ImageData,
    *,
    count: int,
    steps: int,
    sampler: str,
    guidance: float,
    seed: int,
    batch: int,
) -> Generator[tuple[int, int], None, Report]:
    """Measure a model with a classifier: yields (images done, images to do) and returns the Report.

    Generates `count` images, equally many of each class, and compares them with all training images and with
    min(count, all) test images drawn by the seed, which the model also reconstructs. Image i depends on seed + i alone.

    Raises ValueError for too few images, and for models, classifiers and data sets that do not fit each other.
    """
    if count < 2 or batch < 1:
        raise ValueError(f"an evaluation needs 2 images or more, in batches of 1 or more, got {count} and {batch}.")
    known, classes = classifier.config.classes, pipeline.config.classes
    for who, theirs in ((f"the model {pipeline.config.name}", classes), ("the data set", test_data.classes)):
        if not set(theirs) <= set(known):
            raise ValueError(f"{who} has the classes {', '.join(theirs)}, but the classifier knows {', '.join(known)}.")
    chosen = torch.randperm(len(test_data.images), generator=torch.Generator().manual_seed(seed))[:count]
    real, real_labels = test_data.images[chosen], _labels(test_data.classes, known)[test_data.labels[chosen]]
    done, total = 0, 2 * len(real) + count + len(train_data.images)
    yield done, total

    test = classifier.read(real)
    done += len(real)
    yield done, total

    rebuilt = []
    for part in real.split(batch):
        rebuilt.append(pipeline.reconstruct(to_unit(part)).cpu())
        done += len(part)
        yield done, total
    reconstructions, originals = torch.cat(rebuilt), to_unit(real)

    prompts = tuple(classes[i % len(classes)] if classes else "" for i in range(count))
    pictures, calls, seconds = [], 0, 0.0
    for start in range(0, count, batch):
        prompt, began = prompts[start : start + batch], time.perf_counter()
        request = Request(prompt, count=len(prompt), seed=seed + start, sampler=sampler, steps=steps, guidance=guidance)
        for step in pipeline.generate(request):
            last = step
        pictures.append(to_uint8(pipeline.images(last, request)).cpu())
        seconds += time.perf_counter() - began
        calls, done = calls + last.calls * len(prompt), done + len(prompt)
        yield done, total
    made = classifier.read(torch.cat(pictures))

    seen = []
    for part in train_data.images.split(CHUNK):
        seen.append(classifier.read(part).features)
        done += len(part)
        yield done, total
    train_features = torch.cat(seen)

    density, coverage = density_coverage(test.features, made.features)
    return Report(
        model=pipeline.config.name,
        count=count,
        test_count=len(real),
        sampler=sampler,
        steps=steps,
        guidance=guidance,
        seed=seed,
        accuracy=made.accuracy(_labels(prompts, known)) if classes else None,
        test_accuracy=test.accuracy(real_labels),
        confidence=made.confidence(),
        test_confidence=test.confidence(),
        frechet=frechet(made.features, train_features),
        frechet_floor=frechet(test.features, train_features),
        density=density,
        coverage=coverage,
        psnr=psnr(reconstructions, originals),
        ssim=ssim(reconstructions, originals),
        reconstruction_accuracy=classifier.accuracy(to_uint8(reconstructions), real_labels),
        calls=calls / count,
        seconds=seconds,
    )


def _labels(prompts: tuple[str, ...], classes: tuple[str, ...]) -> Tensor:
    return torch.tensor([classes.index(prompt) for prompt in prompts])
