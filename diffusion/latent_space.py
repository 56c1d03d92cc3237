"""What the latents of an autoencoder are like, and what it draws from noisy ones, between two and from noise."""

from collections.abc import Generator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from diffusion.autoencoder import VAE, Gaussian
from diffusion.captions import Description
from diffusion.classifier import Classifier
from diffusion.data import Painted
from diffusion.evaluation import psnr
from diffusion.reading import agreement, lay_out, measure, read
from diffusion.yardstick import Progress

NOISE = (0.1, 0.3, 0.5)  # in deviations of the latents
BETWEEN = (0.25, 0.5, 0.75)  # of the way from one latent to the next
SURE = 0.8  # a classifier's confidence from which a digit is one
STRAY = 32.0  # levels of 255 from every mixture of paper and ink, beyond which a pixel has another colour
FEW = 0.05  # the share of pixels of another colour that a plain picture has less than
KEPT = ("digit", "ink", "paper")
CHUNK = 64  # pictures at a time


class Subject(NamedTuple):
    """An autoencoder of painted pictures by name, with the weight of the KL term that it was trained with."""

    name: str
    kl_weight: float
    codec: VAE


@dataclass(frozen=True)
class Space:
    """What was measured of one autoencoder's posterior means, as they are before any scaling; shares are in [0, 1].

    psnr: dB of reconstructions. kl: nats a picture. means, deviations: of each channel; deviation: of all numbers.
    width: of the encoder's Gaussians (root mean square), in deviations. kept: deviations of noise added -> the share of
    pictures whose digit, ink and paper are then read as they were painted. between: part of the way from one latent to
    another -> the share of plain pictures. drawn: that of Gaussian noise with each channel's own mean and deviation.
    """

    name: str
    kl_weight: float
    psnr: float
    kl: float
    means: tuple[float, ...]
    deviations: tuple[float, ...]
    deviation: float
    width: float
    kept: dict[str, float]
    between: dict[str, float]
    drawn: float

    def row(self) -> str:
        """The figures as lines."""
        kept, between = ({at: f"{share:.1%}" for at, share in part.items()} for part in (self.kept, self.between))
        return (
            f"{self.name}: KL weight {self.kl_weight:g}, {self.kl:.0f} nats a picture, PSNR {self.psnr:.2f} dB\n"
            f"  deviation {self.deviation:.3g}, the encoder's Gaussians {self.width:.2%} of it\n"
            f"  digit and colours kept under noise of {_listed(kept)}\n"
            f"  plain pictures between two, at {_listed(between)}; drawn from noise {self.drawn:.1%}"
        )


@dataclass(frozen=True)
class Survey:
    """Autoencoders measured on the same pictures, with the same noise; real: the share of those that are plain."""

    count: int
    seed: int
    real: float
    spaces: tuple[Space, ...]

    def to_dict(self) -> dict[str, Any]:
        """All fields as JSON can hold them."""
        return asdict(self)


def _listed(shares: dict[str, str]) -> str:
    return ", ".join(f"{at} {share}" for at, share in shares.items())


@torch.no_grad()
def survey(
    subjects: Sequence[Subject], painted: Painted, classifier: Classifier, *, count: int, seed: int = 0
) -> Generator[tuple[float, float] | Space, None, Survey]:
    """Measure autoencoders on the first `count` digits of a set, painted by chance; classifier: of such digits.

    Yields how far it is, and each Space once it is measured.
    Raises ValueError for fewer than two pictures or more than there are, and for autoencoders of other pictures.
    """
    if not 2 <= count <= len(painted):
        raise ValueError(f"a survey takes 2 to {len(painted)} pictures here, not {count}.")
    if len({subject.codec.latent_shape for subject in subjects}) != 1:
        raise ValueError("a survey compares autoencoders whose latents have one shape: give such.")
    if strange := next((subject for subject in subjects if subject.codec.image_shape != painted.shape), None):
        takes, wanted = (" x ".join(map(str, shape)) for shape in (strange.codec.image_shape, painted.shape))
        raise ValueError(f"painted pictures are {wanted}, but {strange.name} takes {takes}: give one that takes them.")
    source = torch.Generator().manual_seed(seed)
    images, descriptions = painted.painter.batch(torch.arange(count), source)
    noise = torch.randn(2, count, *subjects[0].codec.latent_shape, generator=source)
    passes = 3 + len(NOISE) + len(BETWEEN)  # over all pictures: encoding, decoding, and one for each share and draw
    progress = Progress((1 + len(subjects) * passes) * count)
    real = _share(plain(images, classifier))
    yield progress.after(count)
    spaces = []
    for subject in subjects:
        spaces.append((yield from _space(subject, images, descriptions, noise, classifier, progress)))
        yield spaces[-1]
    return Survey(count, seed, real, tuple(spaces))


def _space(
    subject: Subject,
    images: Tensor,
    descriptions: Sequence[Description],
    noise: Tensor,
    classifier: Classifier,
    progress: Progress,
) -> Generator[tuple[float, float], None, Space]:
    """One autoencoder's figures; noise: (2, N, *latent_shape), standard normal, to add to latents and to draw from."""
    name, kl_weight, codec = subject
    count, added, drawn = len(images), *noise
    each = [codec.posterior(part) for part in images.split(CHUNK)]
    posterior = Gaussian(*(torch.cat(part) for part in zip(*each, strict=True)))
    yield progress.after(count)
    z = posterior.mean
    deviation = z.std()
    means, deviations = z.mean((0, 2, 3)), z.std((0, 2, 3))

    def decode(z: Tensor) -> Tensor:
        parts = (z * codec.config.scaling_factor).split(CHUNK)
        return torch.cat([codec.decode(part).clamp(-1, 1) for part in parts])

    copies = decode(z)
    yield progress.after(count)
    kept, between = {}, {}
    for amount in NOISE:
        seen = agreement(read(decode(z + amount * deviation * added), classifier), descriptions)
        kept[f"{amount:g}"] = _share(torch.stack([seen[name] for name in KEPT]).all(0))
        yield progress.after(count)
    for part in BETWEEN:
        between[f"{part:g}"] = _share(plain(decode(z.lerp(z.roll(1, 0), part)), classifier))
        yield progress.after(count)
    random = means[:, None, None] + deviations[:, None, None] * drawn
    share = _share(plain(decode(random), classifier))
    yield progress.after(count)
    return Space(
        name,
        kl_weight,
        psnr(copies, images),
        posterior.kl().mean().item(),
        tuple(means.tolist()),
        tuple(deviations.tolist()),
        deviation.item(),
        (posterior.logvar.exp().mean().sqrt() / deviation).item(),
        kept,
        between,
        share,
    )


def _share(answers: Tensor) -> float:
    return answers.double().mean().item()


def plain(pictures: Tensor, classifier: Classifier) -> Tensor:
    """Whether pictures (B, 3, 32, 32) in [-1, 1] are of the kind that is painted, bool (B,): one sure digit in one ink.

    Sure is a classifier of MNIST's digits with SURE confidence; one ink is less than FEW of the pixels in any colour
    but mixtures of it with the paper.
    """
    return torch.cat([_plain(part, classifier) for part in pictures.split(CHUNK)])


@torch.no_grad()
def _plain(pictures: Tensor, classifier: Classifier) -> Tensor:
    seen = measure(pictures)
    sure = classifier(lay_out(seen.coverage)).softmax(1).amax(1) >= SURE
    return seen.drawn & sure & (stray(pictures, seen.paper, seen.ink) < FEW)


def stray(pictures: Tensor, paper: Tensor, ink: Tensor) -> Tensor:
    """The share (B,) of pixels in pictures (B, 3, H, W) in [-1, 1] that are farther than STRAY from any mixture.

    paper, ink: (B, 3), RGB from 0 to 255, between which mixtures lie on a line.
    """
    pixels = (pictures.clamp(-1, 1) + 1).flatten(2) * 127.5
    paper, way = paper[..., None], (ink - paper)[..., None]
    along = ((pixels - paper) * way).sum(1, keepdim=True) / way.square().sum(1, keepdim=True).clamp_min(1e-6)
    away = pixels - (paper + along.clamp(0, 1) * way)
    return (away.norm(dim=1) > STRAY).float().mean(1)
