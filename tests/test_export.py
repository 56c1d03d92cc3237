import json
import math
import struct
import subprocess
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFilter
from PIL.PngImagePlugin import PngInfo

from diffusion import data, export
from diffusion.autoencoder import PixelsConfig
from diffusion.conditioning import WordsConfig
from diffusion.pipeline import ModelConfig, Pipeline
from diffusion.request import Request, Travel, Turn
from diffusion.unet import UNetConfig

DATA = Path(__file__).parent / "data"
SETTINGS = {"checkpoint": "tiny", "prompt": ["7", "é"], "seed": 2**60, "guidance": 2.5, "image": None}


@pytest.fixture(scope="module")
def digits():
    return data.load("mnist", "test", DATA, download=False).images[:, 0].numpy()


@pytest.fixture(scope="module")
def pipeline():
    network = UNetConfig(
        sample_size=32,
        in_channels=1,
        out_channels=1,
        block_out_channels=(8, 8),
        attention=(False, False),
        mid_attention=True,
        attention_head_dim=8,
        cross_attention_dim=8,
        norm_num_groups=4,
    )
    config = ModelConfig("tiny", PixelsConfig(), WordsConfig(dim=8), network, classes=tuple("0123456789"))
    torch.manual_seed(0)
    return Pipeline(config).eval()


def random_pictures(*shape):
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def encoded(image, kind="PNG", **options):
    buffer = BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_with(text, key=export.KEY):
    info = PngInfo()
    info.add_itxt(key, text)
    return encoded(Image.new("L", (4, 4)), pnginfo=info)


def png_chunk(name, body):
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png_claiming(width, height, *extra):
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + header
        + b"".join(extra)
        + png_chunk(b"IDAT", zlib.compress(b"\0"))
        + png_chunk(b"IEND", b"")
    )


# ---------------------------------------------------------------- tensors, grids


def test_tensors_and_pictures_turn_into_each_other():
    for pictures in (random_pictures(5, 4, 6), random_pictures(5, 4, 6, 3)):
        images = torch.stack([export.to_image(picture) for picture in pictures])
        assert images.shape[1] == (1 if pictures.ndim == 3 else 3) and images.abs().max() <= 1
        assert np.array_equal(export.to_pictures(images), pictures)


def test_grid_goes_row_by_row_and_ends_in_black():
    pictures = np.arange(1, 6, dtype=np.uint8)[:, None, None] * np.ones((1, 2, 2), np.uint8)
    assert export.grid(pictures)[::2, ::2].tolist() == [[1, 2, 3], [4, 5, 0]]
    assert export.grid(pictures, columns=5)[::2, ::2].tolist() == [[1, 2, 3, 4, 5]]


@pytest.mark.parametrize(
    ("count", "classes", "columns"), [(1, 1, 1), (16, 1, 4), (17, 1, 5), (10, 10, 10), (100, 10, 10), (4000, 10, 60)]
)
def test_grids_are_about_square_with_classes_in_columns(count, classes, columns):
    assert export.default_columns(count, classes) == columns


# ---------------------------------------------------------------- PNG with settings


@pytest.mark.parametrize("shape", [(1, 28, 28), (5, 28, 28), (16, 32, 24), (3, 40, 40, 3), (1, 700, 600, 3)])
def test_png_gives_back_settings_and_pictures(shape, tmp_path):
    pictures, path = random_pictures(*shape), tmp_path / "out.png"
    export.save_png(path, pictures, SETTINGS)
    assert export.read_settings(path) == export.read_settings(path.read_bytes()) == SETTINGS
    assert np.array_equal(export.read_images(path), pictures)


def test_png_is_enlarged_for_the_eye(tmp_path):
    export.save_png(tmp_path / "one.png", random_pictures(1, 28, 28), SETTINGS)
    export.save_png(tmp_path / "row.png", random_pictures(10, 28, 28), SETTINGS, columns=10)
    assert Image.open(tmp_path / "one.png").size == (560, 560)
    assert Image.open(tmp_path / "row.png").size == (560, 56)
    assert np.array_equal(export.read_images(tmp_path / "row.png"), random_pictures(10, 28, 28))


def test_png_of_too_many_pictures_is_refused(tmp_path):
    with pytest.raises(ValueError, match="at most 21316 do"):
        export.save_png(tmp_path / "out.png", np.zeros((22000, 28, 28), np.uint8), SETTINGS)


@pytest.mark.parametrize(
    "request_",
    [
        Request(),
        Request("7", "3", 4, 2**62, "heun", 33, 3.5, (0.2, 5.0), strength=0.25),
        Request(("7", "", "1"), count=3, interval=(0.5, math.inf), strength=(0.0, 0.5, 1.0)),
        Request("7", count=2, steps=6, turn=Turn(3, ("8", ""))),
        Request("7", count=2, travel=Travel("8", 5, (0.0, 0.5))),
    ],
)
def test_settings_restore_the_request(request_, pipeline, tmp_path):
    export.save_png(tmp_path / "out.png", random_pictures(1, 28, 28), export.settings(request_, pipeline))
    restored = export.read_settings(tmp_path / "out.png")
    assert export.request_from(restored) == request_
    assert restored["checkpoint"] == "tiny" and len(restored["weights"]) == 12 and restored["engine"]


def test_settings_name_the_start_picture_but_do_not_carry_it(pipeline):
    image, mask = torch.linspace(-1, 1, 784).view(1, 28, 28), torch.ones(1, 28, 28, dtype=torch.bool)
    settings = json.loads(json.dumps(export.settings(Request(image=image, mask=mask), pipeline)))
    with pytest.raises(ValueError, match=f"want the image {settings['image']}, which they do not carry"):
        export.request_from(settings)
    with pytest.raises(ValueError, match="want the mask"):
        export.request_from(settings, image)
    again = export.request_from(settings, image, mask)
    assert export.settings(again, pipeline) == settings
    assert export.settings(Request(image=-image), pipeline)["image"] != settings["image"]


def test_fingerprint_follows_the_weights(pipeline, tmp_path):
    pipeline.save(tmp_path / "a")
    first = export.fingerprint(Pipeline.load(tmp_path / "a"))
    assert first == export.fingerprint(Pipeline.load(tmp_path / "a"))
    changed = Pipeline.load(tmp_path / "a")
    next(changed.parameters()).data.view(-1)[0] += 1
    assert export.fingerprint(changed) != first


@pytest.mark.parametrize(
    "changes",
    [
        {"count": "many"},
        {"count": 10**30},
        {"seed": -1},
        {"seed": 0.5},
        {"steps": True},
        {"guidance": None},
        {"guidance": 1e9},
        {"interval": 5},
        {"interval": ["a", "b"]},
        {"interval": [3, 1]},
        {"interval": [None, None, None]},
        {"prompt": 7},
        {"prompt": ["7", 7]},
        {"prompt": {"a": 1}},
        {"negative": ["7"]},
        {"sampler": "__init__"},
        {"sampler": []},
        {"strength": "0.5"},
        {"strength": [0.5, None]},
        {"turn": 3},
        {"turn": {"step": 3}},
        {"turn": {"step": 3, "prompts": "78"}},
        {"turn": {"step": 3, "prompts": ["7"]}},
        {"travel": {"prompt": "8", "seed": 1, "shares": [0, 2]}},
        {"travel": {"prompt": "8", "seed": 1, "shares": [0, 0], "speed": 1}},
    ],
)
def test_settings_of_the_wrong_kind_are_refused(changes):
    with pytest.raises(ValueError):
        export.request_from({"count": 2, **changes})


HOSTILE = {
    "nothing": (b"", "not a picture"),
    "text": (b"<svg onload='x'/>", "not a picture"),
    "a picture of another kind": (encoded(Image.new("L", (4, 4)), "GIF"), "not a picture"),
    "a tiff": (encoded(Image.new("L", (4, 4)), "TIFF"), "not a picture"),
    "only a signature": (b"\x89PNG\r\n\x1a\n", "not a picture"),
    "too many bytes": (b"\x89PNG\r\n\x1a\n" + bytes(export.MAX_BYTES), "larger than 8 MB"),
    "one row too many": (png_claiming(16, export.MAX_SIDE + 1), "larger than 4096 x 4096"),
    "a bomb": (png_claiming(60_000, 60_000), "larger than 4096 x 4096"),
    "pixels that are missing": (png_claiming(4000, 4000), "damaged"),
    "cut in half": (encoded(Image.fromarray(random_pictures(64, 64)))[:2000], "damaged"),
    "a text bomb": (
        png_claiming(4, 4, png_chunk(b"zTXt", b"diffusion-lab\0\0" + zlib.compress(bytes(2**24)))),
        "not a picture|damaged",
    ),
    "no settings": (encoded(Image.new("L", (4, 4))), "carries no settings"),
    "a JPEG": (encoded(Image.new("L", (4, 4)), "JPEG"), "carries no settings"),
    "another program's settings": (png_with('{"format": 1}', "parameters"), "carries no settings"),
    "no JSON": (png_with("{'format': 1}"), "are damaged"),
    "JSON of another kind": (png_with('["format", 1]'), "are damaged"),
    "no format": (png_with('{"settings": {}}'), "are damaged"),
    "no settings inside": (png_with('{"format": 1, "settings": 3}'), "are damaged"),
    "a deep nest": (png_with("[" * 100_000), "are damaged"),
    "not a number": (png_with('{"format": 1, "settings": {"guidance": NaN}}'), "are damaged"),
    "a number too long": (png_with('{"format": 1, "settings": {"seed": ' + "9" * 6000 + "}}"), "are damaged"),
    "a foreign version": (png_with('{"format": 2, "options": {}}'), "format 2; this version reads format 1"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_refused_in_one_sentence(name):
    content, sentence = HOSTILE[name]
    with pytest.raises(ValueError, match=sentence) as caught:
        export.read_settings(content)
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)


def test_files_that_are_no_files_are_refused(tmp_path):
    for path in (tmp_path, tmp_path / "missing.png", str(tmp_path / "missing.png")):
        with pytest.raises(ValueError, match="there is no file"):
            export.read_settings(path)


def test_a_cropped_png_keeps_its_settings_but_not_its_pictures(tmp_path):
    path = tmp_path / "out.png"
    export.save_png(path, random_pictures(4, 28, 28), SETTINGS)
    whole = Image.open(path)
    info = PngInfo()
    info.add_itxt(export.KEY, whole.info[export.KEY])
    cropped = encoded(whole.crop((0, 0, 500, 500)), pnginfo=info)
    assert export.read_settings(cropped) == SETTINGS
    with pytest.raises(ValueError, match="cropped or resized"):
        export.read_images(cropped)


@pytest.mark.parametrize("layout", [None, {}, {"count": 1, "height": 0, "width": 4, "scale": 1}, {"count": "1"}])
def test_a_damaged_layout_is_refused(layout):
    with pytest.raises(ValueError, match="layout of this PNG is damaged"):
        export.read_images(png_with(json.dumps({"format": 1, "settings": {}, "layout": layout})))


# ---------------------------------------------------------------- films and arrays


def frames_of(path):
    film = Image.open(path)
    frames = []
    for index in range(film.n_frames):
        film.seek(index)
        frames.append((np.asarray(film.convert("RGB")), film.info["duration"]))
    return frames


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".WEBP"])
@pytest.mark.parametrize("shape", [(6, 28, 28), (6, 28, 28, 3)])
def test_films_hold_every_frame_and_stay_on_the_last(suffix, shape, tmp_path):
    frames, path = list(random_pictures(*shape)), tmp_path / f"out{suffix}"
    export.save_film(path, frames, fps=10, hold_last=1.5)
    read = frames_of(path)
    assert [duration for _, duration in read] == [100] * 5 + [1600]
    exact = suffix != ".gif" or len(shape) == 3  # a GIF has 256 colours
    for frame, (shown, _) in zip(frames, read, strict=True):
        assert shown.shape == (560, 560, 3)
        rgb = frame if frame.ndim == 3 else np.stack([frame] * 3, -1)
        assert not exact or np.array_equal(shown[::20, ::20], rgb)


def test_films_are_refused_in_one_sentence(tmp_path):
    frames = list(random_pictures(2, 4, 4))
    with pytest.raises(ValueError, match=r"no film: the suffixes are .gif, .webp, .mp4"):
        export.save_film(tmp_path / "out.avi", frames)
    with pytest.raises(ValueError, match="at least one frame"):
        export.save_film(tmp_path / "out.gif", [])
    for rate in ({"fps": 0}, {"fps": math.nan}, {"fps": 1e6}, {"hold_last": -1}, {"hold_last": math.inf}):
        with pytest.raises(ValueError, match=r"0.1 to 50 frames a second"):
            export.save_film(tmp_path / "out.gif", frames, **rate)


def test_mp4_without_ffmpeg_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ValueError, match=r"needs ffmpeg, which is not installed: save the film as .gif"):
        export.save_film(tmp_path / "out.mp4", list(random_pictures(2, 4, 4)))


def test_mp4_hands_ffmpeg_the_raw_frames(tmp_path, monkeypatch):
    ran = []

    def program(command, input, capture_output):
        ran.append((command, np.frombuffer(input, np.uint8).reshape(-1, 560, 560, 3)))
        return subprocess.CompletedProcess(command, len(ran) - 1, b"", b"Unknown encoder\n")

    monkeypatch.setattr(export.shutil, "which", lambda name: name)
    monkeypatch.setattr(export.subprocess, "run", program)
    frames = random_pictures(3, 28, 28)
    export.save_film(tmp_path / "out.mp4", list(frames), fps=4, hold_last=0.5)
    [(command, raw)] = ran
    assert command[0] == "ffmpeg" and command[-1] == f"file:{tmp_path / 'out.mp4'}"
    assert command[command.index("-s") + 1] == "560x560" and command[command.index("-r") + 1] == "4"
    assert np.array_equal(raw[:, ::20, ::20, 1], frames[[0, 1, 2, 2, 2]])
    with pytest.raises(ValueError, match=r"could not write the film \(Unknown encoder\): save it as .gif"):
        export.save_film(tmp_path / "out.mp4", list(frames))


def test_npz_holds_images_and_labels(tmp_path):
    pictures = random_pictures(5, 28, 28)
    export.save_npz(tmp_path / "a.npz", pictures, [3, 1, 4, 1, 5])
    export.save_npz(tmp_path / "b.npz", pictures)
    with np.load(tmp_path / "a.npz", allow_pickle=False) as a, np.load(tmp_path / "b.npz", allow_pickle=False) as b:
        assert a["images"].dtype == np.uint8 and np.array_equal(a["images"], pictures)
        assert a["labels"].dtype == np.int64 and a["labels"].tolist() == [3, 1, 4, 1, 5]
        assert b.files == ["images"]


# ---------------------------------------------------------------- pictures from outside


def test_pictures_are_turned_upright_as_the_camera_says():
    upright = Image.fromarray(random_pictures(20, 10, 3))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera lay on its side: turn by 90 degrees clockwise
    turned = encoded(upright.transpose(Image.Transpose.ROTATE_90), exif=exif)
    assert np.array_equal(np.asarray(export.read_picture(turned)), np.asarray(upright))


@pytest.mark.parametrize(("ink", "paper"), [(255, 0), (180, 0), (0, 255), (60, 255)])
def test_transparency_becomes_paper_that_shows_the_drawing(ink, paper):
    drawing = Image.new("RGBA", (20, 20), (0, 0, 0, 0))
    drawing.paste((ink, ink, ink, 255), (5, 5, 10, 10))
    for content in (encoded(drawing), encoded(drawing, "WEBP", lossless=True), encoded(drawing.convert("LA"))):
        pixels = np.asarray(export.read_picture(content))
        assert pixels.shape == (20, 20, 3)
        assert (pixels[0, 0] == paper).all() and (pixels[7, 7] == ink).all()


def test_sixteen_bits_palettes_and_print_colours_are_read():
    deep = Image.fromarray(np.array([[0, 257 * 100, 65535]], np.uint16))
    assert np.asarray(export.read_picture(encoded(deep)))[0, :, 0].tolist() == [0, 100, 255]
    palette = Image.fromarray(random_pictures(8, 8)).convert("P")
    assert np.array_equal(np.asarray(export.read_picture(encoded(palette))), np.asarray(palette.convert("RGB")))
    print_colours = Image.new("CMYK", (8, 8), (0, 0, 0, 0))
    assert (np.asarray(export.read_picture(encoded(print_colours, "JPEG"))) > 250).all()
    black_and_white = Image.new("1", (8, 8), 1)
    assert (np.asarray(export.read_picture(encoded(black_and_white))) == 255).all()


def test_an_animation_gives_its_first_frame():
    first, second = Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue")
    for kind in ("PNG", "WEBP"):
        content = encoded(first, kind, save_all=True, append_images=[second], lossless=True)
        assert export.read_picture(content).getpixel((0, 0)) == (255, 0, 0)


@pytest.mark.parametrize("name", [name for name in HOSTILE if HOSTILE[name][1].startswith(("not", "larger", "dam"))])
def test_hostile_pictures_are_refused(name):
    content, sentence = HOSTILE[name]
    with pytest.raises(ValueError, match=sentence):
        export.read_picture(content)


def test_fit_cuts_the_middle_and_undoes_enlargement(digits):
    enlarged = Image.fromarray(export.enlarge(digits[0], 20))
    assert np.array_equal(export.fit(enlarged, (1, 28, 28)), digits[0])
    stripes = Image.new("RGB", (300, 100), "red")
    stripes.paste("blue", (100, 0, 200, 100))
    assert (export.fit(stripes, (3, 50, 50)) == (0, 0, 255)).all()
    assert export.fit(Image.new("L", (5, 5), 9), (3, 40, 30)).shape == (40, 30, 3)


def test_masks_are_white_where_something_is_to_happen():
    drawing = Image.new("L", (280, 280), 40)
    drawing.paste(200, (0, 0, 140, 280))
    mask = export.to_mask(drawing, (1, 28, 28))
    assert mask.shape == (1, 28, 28) and mask.dtype == torch.bool
    assert mask[0, :, :14].all() and not mask[0, :, 14:].any()


def difference(made, wanted):
    """Mean grey levels between pictures, at the best of the nine shifts by up to one pixel."""
    shifts = [np.roll(made, (dy, dx), (0, 1)) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    return min(np.abs(shifted.astype(int) - wanted).mean() for shifted in shifts)


def test_digits_of_mnist_are_in_the_form_of_mnist_already(digits):
    made = np.stack([export.to_digit(Image.fromarray(digit)) for digit in digits])
    assert made.dtype == np.uint8 and made.shape == digits.shape
    differences = [difference(a, b) for a, b in zip(made, digits, strict=True)]
    assert np.mean(differences) < 1 and max(differences) < 5
    assert np.mean([np.abs(a.astype(int) - b).mean() < 5 for a, b in zip(made, digits, strict=True)]) > 0.97


def test_a_photograph_becomes_a_digit(digits):
    """Dark ink somewhere on unevenly lit, noisy, grey paper, saved as JPEG."""
    rng, (y, x), differences = np.random.default_rng(0), np.mgrid[:800, :1000], []
    paper = 210 - 60 * x / 1000 - 40 * y / 800
    for digit in digits[::30]:
        ink = Image.new("L", (1000, 800))
        ink.paste(Image.fromarray(digit).resize((500, 500), Image.Resampling.BICUBIC), (350, 120))
        seen = paper * (1 - 0.7 * np.asarray(ink) / 255) + rng.normal(0, 6, paper.shape)
        photograph = encoded(Image.fromarray(seen.clip(0, 255).astype(np.uint8)), "JPEG", quality=80)
        made = export.to_digit(export.read_picture(photograph))
        differences.append(difference(made, digit))
        assert made[[0, 0, -1, -1], [0, -1, 0, -1]].max() < 8
    assert np.mean(differences) < 7  # one picture against another, or moved by two pixels, is at 20


@pytest.mark.parametrize("ink", ["black", "white", "darkred"])
def test_thin_strokes_grow_to_the_width_of_a_pen(ink):
    drawing = Image.new("RGB", (900, 700), "white" if ink != "white" else "navy")
    ImageDraw.Draw(drawing).line([(300, 100), (600, 100), (420, 620)], fill=ink, width=4)
    made = export.to_digit(drawing)
    assert made.max() == 255
    assert 1.5 < (made[14] / 255).sum() < 4
    rows, columns = np.nonzero(made > 64)
    assert rows.max() - rows.min() + 1 in (19, 20)
    assert abs((np.arange(28) @ made.sum(1)) / made.sum() - 14) <= 0.6
    assert abs((np.arange(28) @ made.sum(0)) / made.sum() - 14) <= 0.6
    assert columns.min() > 3


def test_paper_without_a_digit_is_refused():
    noise = Image.fromarray(random_pictures(300, 300) // 40 + 120).filter(ImageFilter.GaussianBlur(2))
    for paper in (Image.new("L", (200, 300), 255), Image.new("RGB", (1, 1)), noise):
        with pytest.raises(ValueError, match="no ink stands out from the paper"):
            export.to_digit(paper)


def test_any_shape_gives_a_digit_or_a_sentence():
    for size in ((1, 500), (500, 1), (2, 2), (3, 4000), (29, 27)):
        picture = Image.fromarray(random_pictures(size[1], size[0]))
        try:
            assert export.to_digit(picture).shape == (28, 28)
        except ValueError as error:
            assert "no ink" in str(error)


def test_as_is_only_resizes(digits):
    assert np.array_equal(export.to_digit(Image.fromarray(digits[3]), as_is=True), digits[3])
    assert (export.to_digit(Image.new("RGB", (90, 50), "white"), as_is=True) == 255).all()
