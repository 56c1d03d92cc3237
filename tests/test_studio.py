"""A model in the app: examples in its own shape, and pictures from outside brought into it."""

from collections.abc import Callable
from functools import cache
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

from diffusion import export, reading
from diffusion.classifier import Classifier
from diffusion.data import load
from diffusion.export import to_image, to_pictures
from diffusion.painting import Painter
from diffusion.ui.studio import EXAMPLES, Limits, Studio

DATA = Path(__file__).parent / "data"
EACH = 20  # pictures of a class on a sheet
SEED = 32120  # of the painted ones: with it those that tabs open with are large and plain
Open = Callable[[str], Studio]


@pytest.fixture(scope="module")
def opened() -> Open:
    return cache(lambda name: tiny.studio(name, Limits()))


def squares(name: str, side: int) -> np.ndarray:
    """A sheet as (class, number, side, side, ...)."""
    sheet = np.asarray(Image.open(EXAMPLES / f"{name}.png"))
    return sheet.reshape(10, side, EACH, side, *sheet.shape[2:]).swapaxes(1, 2)


def first(name: str, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The first test images of each class, and their labels."""
    test = load(name, "test", DATA, download=False)
    index = torch.cat([(test.labels == label).nonzero()[:count, 0] for label in range(10)])
    return test.images[index], test.labels[index]


@pytest.mark.parametrize(("name", "count"), [("mnist", EACH), ("fashion-mnist", 10)])
def test_a_sheet_holds_the_first_test_images_of_each_class(name: str, count: int) -> None:
    images, _ = first(name, count)
    assert np.array_equal(squares(name, 28)[:, :count].reshape(-1, 28, 28), images[:, 0].numpy())


def test_the_painted_sheet_is_painted_from_the_same_digits() -> None:
    """To a level: another machine may round otherwise."""
    images, labels = first("mnist", EACH)
    painted, descriptions = Painter(images, labels).batch(
        torch.arange(len(labels)), torch.Generator().manual_seed(SEED)
    )
    sheet = squares("painted-mnist", 32).reshape(-1, 32, 32, 3)
    assert np.abs(to_pictures(painted).astype(int) - sheet).max() <= 1
    seen = reading.read(torch.stack([to_image(picture) for picture in sheet]), Classifier.of("mnist"))
    right = reading.agreement(seen, descriptions)
    assert right["digit"].float().mean() > 0.9 and right["ink"].all() and right["paper"].all()
    varied = [
        {getattr(one, name) for one in descriptions} for name in ("ink", "paper", "stroke", "lean", "size", "place")
    ]
    assert [len(values) for values in varied] == [9, 9, 3, 3, 3, 9]


@pytest.mark.parametrize(
    ("name", "kinds", "shape"),
    [
        ("sentences", tuple("0123456789"), (10, EACH, 32, 32, 3)),
        ("garments", tiny.GARMENTS, (10, EACH, 28, 28)),
        ("plain", tiny.DIGITS, (10, EACH, 28, 28)),
        ("colour", ("cat", "red fox"), (2, 2, 32, 32, 3)),
    ],
)
def test_examples_have_the_models_own_shape(opened: Open, name: str, kinds: tuple, shape: tuple) -> None:
    studio = opened(name)
    assert studio.kinds == kinds and studio.examples.shape == shape and studio.examples.dtype == np.uint8
    assert studio.shape == shape[2:] and studio.nth(shape[1] + 1).shape == (shape[0], *shape[2:])
    assert np.array_equal(studio.example(kinds[1], 1), studio.examples[1, 1])


def test_examples_are_the_sheets_pixels_and_else_what_was_made(opened: Open) -> None:
    assert np.array_equal(opened("sentences").examples, squares("painted-mnist", 32))
    assert np.array_equal(opened("garments").examples, squares("fashion-mnist", 28))
    colour = opened("colour")
    for nth, (prompt, picture) in enumerate(zip(colour.opening.request.prompts, colour.opening.pictures, strict=True)):
        assert np.array_equal(colour.example(prompt, nth // 2), picture)


def file(picture: Image.Image) -> Image.Image:
    """A picture as it comes back from a PNG."""
    saved = BytesIO()
    picture.save(saved, "PNG")
    return export.read_picture(saved.getvalue())


def test_pictures_from_outside_are_taken_in_the_models_shape_and_colours(opened: Open) -> None:
    painted = opened("sentences").example("7", 3)
    large = Image.fromarray(painted.repeat(5, 0).repeat(5, 1))
    wide = Image.new("RGB", (200, 160), "red")
    wide.paste(large, (20, 0))
    for studio in (opened("sentences"), opened("colour")):
        for as_is in (False, True):
            for picture in (large, wide, large.convert("RGBA")):
                assert np.array_equal(studio.taken(file(picture), as_is), painted)
    grey = opened("garments").taken(file(large))
    assert grey.shape == (28, 28) and grey.dtype == np.uint8


def test_what_is_transparent_shows_its_paper(opened: Open) -> None:
    """Red is a dark drawing, on white; what is half transparent lies half over it."""
    drawing = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    drawing.paste((200, 0, 0, 255), (8, 8, 24, 20))
    drawing.paste((200, 0, 0, 128), (8, 20, 24, 24))
    taken = opened("sentences").taken(file(drawing))
    assert taken.shape == (32, 32, 3)
    assert (taken[0, 0] == 255).all() and (taken[10, 10] == (200, 0, 0)).all()
    assert np.abs(taken[22, 10].astype(int) - (227, 127, 127)).max() <= 1


def test_a_digit_is_centred_only_where_the_model_has_mnists_form(opened: Open) -> None:
    page = Image.new("L", (120, 90), 230)
    page.paste(20, (20, 20, 26, 60))
    centred = opened("plain").taken(file(page))
    assert opened("plain").centred and np.ptp(np.argwhere(centred > 64), axis=0).max() + 1 == 20
    assert not opened("sentences").centred and opened("sentences").taken(file(page))[0, 0].tolist() == [230] * 3
