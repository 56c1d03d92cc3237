from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from diffusion import checkpoints
from diffusion.classifier import Classifier, ClassifierConfig, augment
from diffusion.config import dump, parse
from diffusion.data import load, to_unit

DATA = Path(__file__).parent / "data"


@pytest.fixture(scope="module")
def digits():
    return load("mnist", "train", DATA, download=False)


@pytest.fixture
def small():
    torch.manual_seed(0)
    return Classifier(ClassifierConfig(width=4)).eval()


def test_shapes_and_size():
    classifier = Classifier().eval()
    images = torch.zeros(2, 1, 28, 28)
    assert classifier(images).shape == (2, 10)
    assert classifier.features(images).shape == (2, 128)
    assert 0.4e6 < sum(p.numel() for p in classifier.parameters()) < 1.5e6


def test_color_images_of_other_sizes():
    classifier = Classifier(ClassifierConfig(image_size=32, channels=3, classes=("cat", "dog"), width=4))
    assert classifier(torch.zeros(2, 3, 32, 32)).shape == (2, 2)
    assert Classifier(ClassifierConfig(image_size=17, width=4))(torch.zeros(2, 1, 17, 17)).shape == (2, 10)


def test_logits_are_the_head_of_the_features(small, digits):
    images = to_unit(digits.images[:8])
    assert torch.equal(small(images), small.head(small.features(images)))


def test_reading_is_deterministic_and_independent_of_batches(small, digits):
    small.train()
    with_seven, whole = small.read(digits.images[:50], batch=7), small.read(digits.images[:50])
    assert small.training
    torch.testing.assert_close(with_seven.features, whole.features)
    assert torch.equal(small.read(digits.images[:50]).features, whole.features)
    torch.testing.assert_close(whole.probabilities.sum(1), torch.ones(50))
    assert not whole.features.requires_grad


def test_accuracy_and_confidence(small, digits):
    reading = small.read(digits.images[:40])
    answers = reading.probabilities.argmax(1)
    assert small.accuracy(digits.images[:40], answers) == 1
    assert small.accuracy(digits.images[:40], torch.where(torch.arange(40) < 10, answers, 9 - answers)) == 0.25
    assert reading.confidence() == pytest.approx(reading.probabilities.max(1).values.mean().item())


def test_loss_is_cross_entropy_of_augmented_images_with_smoothed_labels(small, digits):
    images, labels = to_unit(digits.images[:6]), digits.labels[:6]
    losses = small.loss(images, labels, torch.Generator().manual_seed(3))
    logits = small(augment(images, torch.Generator().manual_seed(3)))
    targets = 0.95 * F.one_hot(labels, 10) + 0.05 / 10
    torch.testing.assert_close(losses, -(targets * logits.log_softmax(1)).sum(1))


def test_augmentation_is_seeded_gentle_and_leaves_the_border_black(digits):
    images = to_unit(digits.images[:200])
    moved = augment(images, torch.Generator().manual_seed(0))
    assert moved.shape == images.shape
    assert torch.equal(moved, augment(images, torch.Generator().manual_seed(0)))
    assert not torch.equal(moved, augment(images, torch.Generator().manual_seed(1)))
    assert moved.min() >= -1 - 1e-6
    assert moved.max() <= 1 + 1e-6
    assert (moved - images).abs().flatten(1).amax(1).gt(0.1).all()
    ink, moved_ink = (images + 1).sum((1, 2, 3)), (moved + 1).sum((1, 2, 3))
    assert ((moved_ink / ink - 1).abs() < 0.5).all()
    assert augment(torch.full((4, 1, 28, 28), -1.0), torch.Generator()).eq(-1).all()
    assert abs((moved_ink / ink).mean().item() - 1) < 0.1


def test_augmentation_is_differently_drawn_for_each_image(digits):
    same = to_unit(digits.images[:1]).expand(5, -1, -1, -1)
    moved = augment(same, torch.Generator().manual_seed(0))
    assert all(not torch.equal(moved[0], other) for other in moved[1:])


def test_it_learns(digits):
    torch.manual_seed(0)
    classifier = Classifier(ClassifierConfig(width=4))
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=1e-2)
    generator = torch.Generator().manual_seed(0)
    for step in range(60):
        optimizer.param_groups[0]["lr"] = 1e-2 * (1 - step / 60)  # its end is then the same for any rounding
        index = torch.arange(step * 50, step * 50 + 50) % 600
        loss = classifier.loss(to_unit(digits.images[index]), digits.labels[index], generator).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    test = load("mnist", "test", DATA, download=False)
    assert classifier.accuracy(test.images, test.labels) > 0.8


def test_a_checkpoint_comes_back_in_eval_mode(tmp_path, small, digits):
    checkpoints.write(tmp_path / "judge", dump(small.config), small.state_dict(), dtype=torch.float32)
    loaded = Classifier.load(tmp_path / "judge")
    assert not loaded.training
    assert loaded.config == small.config
    assert torch.equal(loaded.read(digits.images[:9]).features, small.read(digits.images[:9]).features)


def test_errors_say_what_would_be_right(small):
    with pytest.raises(ValueError, match=r"shape \(1, 28, 28\), got \(1, 32, 32\)"):
        small(torch.zeros(2, 1, 32, 32))
    with pytest.raises(ValueError, match="image_size 8 is too small for the classifier; use 17 or more"):
        ClassifierConfig(image_size=8)
    with pytest.raises(ValueError, match="unknown key 'depth'; the keys here are kind, image_size"):
        parse(ClassifierConfig, {"depth": 3}, "config.json")
