"""What the drawing pads and pickers take from a page and send to it, in any size and colour."""

import gradio as gr
import numpy as np
import pytest

from diffusion.ui.widgets import DigitPicker, Masked, MaskPad, SketchPad
from diffusion.ui.widgets.pad import BLANK
from diffusion.ui.widgets.pixels import pack, unpack

SHAPES = [(28, 28), (32, 32, 3), (5, 9), (9, 5, 3)]


def noise(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_pictures_survive_the_pads_bit_for_bit(shape: tuple[int, ...]) -> None:
    """Whatever the pad's own shape: it may be of the model before."""
    picture, mask = noise(shape), noise(shape[:2], 1) > 99
    for pad in (SketchPad(), SketchPad(shape=shape)):
        assert np.array_equal(pad.preprocess(pad.postprocess(picture)), picture)
    masked = MaskPad().preprocess(MaskPad().postprocess(Masked(picture, mask)))
    assert np.array_equal(masked.picture, picture) and np.array_equal(masked.mask, mask)
    unpainted = MaskPad().preprocess(MaskPad().postprocess(picture))
    assert np.array_equal(unpainted.picture, picture) and not unpainted.mask.any()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_blank_paper_is_no_picture(shape: tuple[int, ...]) -> None:
    blank = (
        np.broadcast_to(np.array(BLANK[len(shape)], np.uint8), shape) if len(shape) == 3 else np.zeros(shape, np.uint8)
    )
    pad = SketchPad(shape=shape)
    assert pad.preprocess(pack(blank)) is None
    touched = blank.copy()
    touched.flat[7] ^= 1
    assert np.array_equal(pad.preprocess(pack(touched)), touched)
    for nothing in (None, "", {}):
        assert pad.preprocess(nothing) is None and MaskPad().preprocess(nothing) is None
    assert pad.postprocess(None) is None and MaskPad().postprocess(None) is None


GOOD = pack(noise((28, 28)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"px": "AAAA"}, "must be 28 x 28 bytes in base64"),
        ({"px": GOOD["px"][:-4]}, "must be 28 x 28 bytes in base64"),
        ({"px": pack(noise((28, 28, 3)))["px"][:-4]}, "must be 28 x 28 bytes in base64"),
        ({"px": None}, "must be 28 x 28 bytes in base64"),
        ({"px": "é" * 1048}, "must be 28 x 28 bytes in base64"),
        ({"w": 27}, "must be 28 x 27 bytes in base64"),
        ({"w": 0}, "must have sides w and h from 1 to 1024 pixels"),
        ({"h": -28}, "must have sides w and h from 1 to 1024 pixels"),
        ({"h": 10**9}, "must have sides w and h from 1 to 1024 pixels"),
        ({"h": 28.0}, "must have sides w and h from 1 to 1024 pixels"),
        ({"w": "28"}, "must have sides w and h from 1 to 1024 pixels"),
        ({"w": True}, "must have sides w and h from 1 to 1024 pixels"),
        ({"h": None}, "must have sides w and h from 1 to 1024 pixels"),
    ],
)
def test_what_is_no_picture_is_refused_in_a_sentence(change: dict, message: str) -> None:
    payload = GOOD | {"mask": GOOD["px"]}
    assert SketchPad().preprocess(payload) is not None and MaskPad().preprocess(payload) is not None
    with pytest.raises(gr.Error, match=f"^'?A sketch {message}"):
        SketchPad().preprocess(payload | change)
    with pytest.raises(gr.Error, match=f"^'?The picture {message}"):
        MaskPad().preprocess(payload | change)


@pytest.mark.parametrize("payload", [7, "AAAA", [1], True, [[0] * 28] * 28], ids=str)
def test_what_is_no_payload_is_refused_in_a_sentence(payload: object) -> None:
    for pad in (SketchPad(), MaskPad()):
        with pytest.raises(gr.Error, match="must have sides w and h"):
            pad.preprocess(payload)


@pytest.mark.parametrize("mask", [None, "", "AAAA", 3, pack(noise((28, 28, 3)))["px"]], ids=str)
def test_a_mask_has_a_byte_for_each_pixel_of_its_picture(mask: object) -> None:
    for shape in ((28, 28), (28, 28, 3)):
        with pytest.raises(gr.Error, match="The mask must be 28 x 28 bytes"):
            MaskPad().preprocess(pack(noise(shape)) | {"mask": mask})


def test_a_1_by_1_picture_is_told_from_a_coloured_one() -> None:
    assert unpack(pack(noise((1, 1))), "It").shape == (1, 1)
    assert unpack(pack(noise((1, 1, 3))), "It").shape == (1, 1, 3)


@pytest.mark.parametrize("shape", [(28,), (2, 28, 28, 3), (28, 28, 4), (28, 28, 1), (0, 28)], ids=str)
def test_other_arrays_are_no_pictures_for_a_pad(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"A sketch must have shape \(H, W\) or \(H, W, 3\); got"):
        SketchPad().postprocess(np.zeros(shape, np.uint8))
    with pytest.raises(ValueError, match=r"The picture must have shape \(H, W\) or \(H, W, 3\); got"):
        MaskPad().postprocess(np.zeros(shape, np.uint8))


def test_no_silent_casts() -> None:
    with pytest.raises(ValueError, match="must be uint8"):
        SketchPad().postprocess(np.zeros((28, 28)))
    with pytest.raises(ValueError, match=r"The mask must have the picture's size \(28, 28\); got \(28, 27\)"):
        MaskPad().postprocess(Masked(np.zeros((28, 28, 3), np.uint8), np.zeros((28, 27), bool)))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_pad_can_be_built_again_from_what_it_was_sent_as(shape: tuple[int, ...]) -> None:
    properties = SketchPad.showing(shape, None)
    again = SketchPad(**properties, label="x")
    assert again.props == {"shape": list(shape)} == SketchPad(**again.props).props


def test_a_picker_takes_thumbnails_of_any_shape() -> None:
    pictures = [noise((28, 28)), noise((32, 32, 3))]
    sent = DigitPicker.showing(["a", "b"], "a", thumbnails=pictures)["thumbnails"]
    assert all(
        np.array_equal(unpack(thumbnail, "It"), picture) for thumbnail, picture in zip(sent, pictures, strict=True)
    )
    assert DigitPicker(["a", "b"], thumbnails=sent).props["thumbnails"] == sent
    with pytest.raises(ValueError, match="uint8"):
        DigitPicker(["a"], thumbnails=[np.zeros((28, 28))])
