"""How good a model is, in numbers: `evaluate` asks all of `distances` and a classifier about one model."""

import math
from collections.abc import Generator
from dataclasses import asdict, dataclass

import torch
from torch import Tensor
from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

from diffusion.classifier import Classifier
from diffusion.data import ImageData, to_uint8, to_unit
from diffusion.distances import CHUNK, density_coverage, frechet, kernel_distance, nearest, precision_recall
from diffusion.pipeline import Pipeline
from diffusion.request import Request
from diffusion.yardstick import Progress, check, draw, finite, pick, read_real, recognised


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
    """What `evaluate` found; accuracies, confidences, precision, recall and coverage are shares in [0, 1].

    The test_ values and the floors are what as many real test images score, the mark for generated ones to reach. The
    real_ values put as many training images in the place of the generated ones, beside the same test images.
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
    kernel: float  # generated against as many training images; lower by some 1 / count where classes are shared equally
    kernel_floor: float
    density: float
    real_density: float
    coverage: float
    real_coverage: float
    precision: float
    real_precision: float
    recall: float
    real_recall: float
    nearest: float  # the median distance to the nearest training image, in pixel values from 0 to 1
    test_nearest: float
    psnr: float | None  # dB, of reconstructed test images; None, as are the next two, where nothing is lost
    ssim: float | None
    reconstruction_accuracy: float | None
    calls: float  # network calls per image, each on both prompts under guidance
    seconds: float  # spent generating

    @property
    def frechet_ratio(self) -> float:
        """How many times as far from the training images as the test images are."""
        return self.frechet / self.frechet_floor if self.frechet_floor else math.inf

    def to_dict(self) -> dict[str, str | int | float | None]:
        """Return all fields and the ratio as JSON can hold them: None stands for what is infinite or does not apply."""
        return finite(asdict(self) | {"frechet_ratio": self.frechet_ratio})

    def table(self) -> str:
        """Return the report as lines of plain text."""
        accuracy = "no prompts" if self.accuracy is None else f"{self.accuracy:.2%}"
        rows = [
            ("", "generated", "real"),
            ("recognised as prompted", accuracy, f"{self.test_accuracy:.2%}"),
            ("mean confidence", f"{self.confidence:.2%}", f"{self.test_confidence:.2%}"),
            ("Frechet distance to training images", f"{self.frechet:.4g}", f"{self.frechet_floor:.4g}"),
            ("  times that of real images", f"{self.frechet_ratio:.2f}", ""),
            ("kernel distance to training images", f"{self.kernel:.3g}", f"{self.kernel_floor:.3g}"),
            ("density", f"{self.density:.3f}", f"{self.real_density:.3f}"),
            ("coverage", f"{self.coverage:.3f}", f"{self.real_coverage:.3f}"),
            ("precision", f"{self.precision:.3f}", f"{self.real_precision:.3f}"),
            ("recall", f"{self.recall:.3f}", f"{self.real_recall:.3f}"),
            ("distance to nearest training image", f"{self.nearest:.3f}", f"{self.test_nearest:.3f}"),
        ]
        if self.psnr is not None:
            rows += [
                ("", "reconstructed", ""),
                ("PSNR", f"{self.psnr:.2f} dB", ""),
                ("SSIM", f"{self.ssim:.4f}", ""),
                ("still recognised", f"{self.reconstruction_accuracy:.2%}", f"{self.test_accuracy:.2%}"),
            ]
        rows += [
            ("", "cost", ""),
            ("network calls per image", f"{self.calls:g}", ""),
            ("seconds per 100 images", f"{100 * self.seconds / self.count:.2f}", ""),
        ]
        settings = f"{self.sampler}, {self.steps} steps, guidance {self.guidance:g}, seed {self.seed}"
        title = f"{self.model}: {self.count} generated and {self.test_count} real images ({settings})"
        return "\n".join([title, *(f"{name:<37}{value:>14}{real:>12}".rstrip() for name, value, real in rows)])


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
) -> Generator[tuple[float, float], None, Report]:
    """Measure a model with a classifier: yields (images done, images to do) and returns the Report.

    Generates `count` images, equally many of each class, and compares them with all training images and with
    min(count, all) test images drawn by the seed, equally many of each class too where the model has classes; these it
    also reconstructs. Image i depends on seed + i alone.

    Raises ValueError for too few images, and for models, classifiers and data sets that do not fit each other.
    """
    check(pipeline, classifier, test_data, count, batch)
    settings = Request(sampler=sampler, steps=steps, guidance=guidance, seed=seed)
    tested = min(count, len(test_data.images))
    progress = Progress(len(train_data.images) + 3 * tested + 2 * count)
    yield progress.after(0)
    real = yield from read_real(pipeline, classifier, train_data, test_data, count, seed, progress)
    rebuilt = yield from _reconstruct(pipeline, real.images, batch, progress)
    samples = yield from draw(pipeline, settings, count, batch, progress)
    made = classifier.read(samples.images)
    nearest_made = yield from _nearest_distance(samples.images, train_data.images, progress)
    nearest_real = yield from _nearest_distance(real.images, train_data.images, progress)

    peer = real.train[pick(train_data.labels, count, seed, balanced=bool(pipeline.config.classes))]
    density, coverage = density_coverage(real.test.features, made.features)
    real_density, real_coverage = density_coverage(real.test.features, peer)
    precision, recall = precision_recall(real.test.features, made.features)
    real_precision, real_recall = precision_recall(real.test.features, peer)
    lossless = torch.equal(to_uint8(rebuilt), real.images)
    return Report(
        model=pipeline.config.name,
        count=count,
        test_count=tested,
        sampler=sampler,
        steps=steps,
        guidance=guidance,
        seed=seed,
        accuracy=recognised(pipeline, classifier, made),
        test_accuracy=real.test.accuracy(real.labels),
        confidence=made.confidence(),
        test_confidence=real.test.confidence(),
        frechet=frechet(made.features, real.train),
        frechet_floor=frechet(real.test.features, real.train),
        kernel=kernel_distance(made.features, peer),
        kernel_floor=kernel_distance(real.test.features, peer),
        density=density,
        real_density=real_density,
        coverage=coverage,
        real_coverage=real_coverage,
        precision=precision,
        real_precision=real_precision,
        recall=recall,
        real_recall=real_recall,
        nearest=nearest_made,
        test_nearest=nearest_real,
        psnr=None if lossless else psnr(rebuilt, to_unit(real.images)),
        ssim=None if lossless else ssim(rebuilt, to_unit(real.images)),
        reconstruction_accuracy=None if lossless else classifier.accuracy(to_uint8(rebuilt), real.labels),
        calls=samples.calls,
        seconds=samples.seconds,
    )


def _reconstruct(
    pipeline: Pipeline, images: Tensor, batch: int, progress: Progress
) -> Generator[tuple[float, float], None, Tensor]:
    rebuilt = []
    for part in images.split(batch):
        rebuilt.append(pipeline.reconstruct(to_unit(part)).cpu())
        yield progress.after(len(part))
    return torch.cat(rebuilt)


def _nearest_distance(images: Tensor, among: Tensor, progress: Progress) -> Generator[tuple[float, float], None, float]:
    """The median distance of the images to the most similar one `among`."""
    distances = []
    for part in images.split(CHUNK):
        distances.append(nearest(part, among)[1])
        yield progress.after(len(part))
    return torch.cat(distances).median().item()
