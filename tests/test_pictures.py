"""Picture files into tensors: which pixels come out, and which files are refused."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from diffusion import pictures
from diffusion.pictures import check_room, fit, open_picture, read_pictures, resize

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (48, 60, 3), np.uint8)


def saved(path, pixels=NOISE, **how):
    Image.fromarray(pixels).save(path, **how)
    return path


# ---------------------------------------------------------------- the pixels


def test_shrinking_is_the_mean_over_each_new_pixels_area_of_the_centre_square():
    square = NOISE[:, 6:54].astype(float)  # 48 x 48 out of 60 wide
    means = square.reshape(12, 4, 12, 4, 3).mean((1, 3)).transpose(2, 0, 1)
    assert abs(fit(Image.fromarray(NOISE), (3, 12, 12)) - means).max() <= 1  # rounded once across and once down


def test_a_crop_takes_the_middle_and_no_more_than_there_is():
    image = Image.fromarray(NOISE)
    assert np.array_equal(fit(image, (3, 20, 20), crop=20), NOISE[14:34, 20:40].transpose(2, 0, 1))
    assert np.array_equal(fit(image, (3, 48, 48), crop=500), NOISE[:, 6:54].transpose(2, 0, 1))


def test_an_odd_rest_moves_whole_pixels():
    assert np.array_equal(fit(Image.fromarray(NOISE[:47]), (3, 47, 47)), NOISE[:47, 6:53].transpose(2, 0, 1))


def test_growing_is_bicubic_as_torch_does_it():
    grey = NOISE[:16, :16, 0]
    ours = fit(Image.fromarray(grey), (1, 40, 40)).astype(float)
    theirs = F.interpolate(torch.from_numpy(grey)[None, None], (40, 40), mode="bicubic", antialias=True)[0].numpy()
    assert abs(ours - theirs).max() <= 1


def test_rgb_becomes_luma_and_grey_becomes_three_equal_channels():
    luma = (NOISE[:, 6:54] @ [0.299, 0.587, 0.114])[None]
    assert abs(fit(Image.fromarray(NOISE), (1, 48, 48)) - luma).max() <= 0.51
    grey = NOISE[:48, :48, 0]
    assert np.array_equal(fit(Image.fromarray(grey), (3, 48, 48)), np.stack([grey] * 3))


def test_arrays_of_the_right_shape_are_left_alone_and_others_are_resized_as_files_are(tmp_path):
    digits = RNG.integers(0, 256, (5, 28, 28), np.uint8)
    same, said = resize(digits, (1, 28, 28))
    assert np.array_equal(same[:, 0].numpy(), digits)
    assert said == "5 pictures, 28 x 28, grey"
    smaller, said = resize(digits, (3, 14, 14))
    paths = [saved(tmp_path / f"{i}.png", digit) for i, digit in enumerate(digits)]
    assert torch.equal(smaller, read_pictures(paths, (3, 14, 14))[0])
    assert said == "5 pictures, 28 x 28, grey; resized to 14 x 14; grey repeated as red, green and blue"


def test_files_come_in_their_order_with_a_line_on_what_they_were(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "CHUNK", 2)  # several chunks
    values = [10, 20, 30, 40, 50]
    sides = [(30, 20), (8, 8), (8, 8), (40, 40), (9, 8)]
    paths = [tmp_path / f"{value}.png" for value in values]
    for path, value, size in zip(paths, values, sides, strict=True):
        Image.new("L" if value == 20 else "RGB", size, value if value == 20 else (value,) * 3).save(path)
    images, said = read_pictures(paths, (1, 8, 8))
    assert images.dtype == torch.uint8
    assert torch.equal(images, torch.tensor(values, dtype=torch.uint8).view(5, 1, 1, 1).expand(5, 1, 8, 8))
    assert said == (
        "5 pictures, from 8 x 8 to 40 x 40, 1 of them grey and 4 RGB; cut to their centre squares; resized to 8 x 8;"
        " turned to grey"
    )


# ---------------------------------------------------------------- kinds of files


@pytest.mark.parametrize("suffix", ["png", "webp", "bmp", "tiff"])
def test_lossless_formats_keep_every_pixel(suffix, tmp_path):
    how = {"lossless": True} if suffix == "webp" else {}
    assert np.array_equal(open_picture(saved(tmp_path / f"a.{suffix}", **how)), NOISE)


def test_exif_orientation_is_respected(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was held a quarter turn: what is stored is to be turned clockwise
    image = open_picture(saved(tmp_path / "a.png", exif=exif))
    assert np.array_equal(image, np.rot90(NOISE, -1))


def test_the_transparent_becomes_white(tmp_path):
    clear = np.dstack([NOISE, np.zeros(NOISE.shape[:2], np.uint8)])
    clear[:10, ..., 3] = 255
    pixels = np.asarray(open_picture(saved(tmp_path / "a.png", clear)))
    assert np.array_equal(pixels[:10], NOISE[:10])
    assert (pixels[10:] == 255).all()
    palette = Image.fromarray(NOISE[..., 0] // 128).convert("P")
    palette.putpalette([0, 0, 0, 200, 0, 0])
    palette.save(tmp_path / "b.png", transparency=0)
    assert set(map(tuple, np.asarray(open_picture(tmp_path / "b.png")).reshape(-1, 3))) == {(255,) * 3, (200, 0, 0)}


def test_grey_is_known_from_the_file(tmp_path):
    for mode in ("L", "LA", "1"):
        Image.fromarray(NOISE).convert(mode).save(tmp_path / "grey.png")
        assert open_picture(tmp_path / "grey.png").mode == "L"
    for mode in ("RGB", "RGBA", "P"):
        Image.fromarray(NOISE).convert(mode).save(tmp_path / "colour.png")
        assert open_picture(tmp_path / "colour.png").mode == "RGB"
    Image.fromarray(NOISE).convert("CMYK").save(tmp_path / "print.jpg")
    assert open_picture(tmp_path / "print.jpg").mode == "RGB"


# ---------------------------------------------------------------- what is refused


def _text(path):
    path.write_text("my holiday pictures")


def _cut(path):
    saved(path)
    path.write_bytes(path.read_bytes()[:-2000])


def _animated(path):
    frames = [Image.fromarray(NOISE), Image.fromarray(255 - NOISE)]
    frames[0].save(path, "GIF", save_all=True, append_images=frames[1:])


def _deep(path):
    Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save(path)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (_text, "is no picture that can be read"),
        (lambda path: path.write_bytes(b""), "is no picture that can be read"),
        (_cut, "is damaged: replace it"),
        (_animated, "is animated: save one of its frames"),
        (_deep, "more than 8 bits a channel"),
        (lambda path: None, "cannot be opened"),
    ],
)
def test_a_file_that_is_no_ordinary_picture_is_refused_by_name(make, sentence, tmp_path):
    good, bad = saved(tmp_path / "good.png"), tmp_path / "bad.png"
    make(bad)
    with pytest.raises(ValueError, match=sentence) as error:
        read_pictures([good, bad, good], (3, 8, 8))
    assert str(bad) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("side", [8200, 10_000, 14_000])  # past our limit, Pillow's warning and Pillow's error
def test_a_huge_picture_is_refused_before_it_is_decoded(side, tmp_path, monkeypatch, recwarn):
    Image.new("1", (side, side)).save(tmp_path / "huge.png")
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("it was decoded"))
    with pytest.raises(ValueError, match=r"huge.png has more than 64 megapixels: save it smaller"):
        read_pictures([tmp_path / "huge.png"], (1, 8, 8))
    assert not recwarn.list


def test_more_than_fits_in_memory_is_refused_before_anything_is_read(tmp_path):
    with pytest.raises(ValueError, match=r"90,000 pictures of 3 x 128 x 128 take 4.1 GiB, and no more than 4 GiB"):
        read_pictures([tmp_path / "none.png"] * 90_000, (3, 128, 128))
    check_room(87_000, (3, 128, 128))
    for shape in ((4, 8, 8), (2, 8, 8)):
        with pytest.raises(ValueError, match=r"1 or 3 channels, grey or RGB, not . x 8 x 8: --set"):
            check_room(1, shape)
