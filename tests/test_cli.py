import json
import re
import runpy
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import tiny as untrained
import torch
from hub_server import HubServer, Repo
from PIL import Image

from diffusion import __main__ as cli
from diffusion import checkpoints, commands, data, export, info
from diffusion.autoencoder import PixelsConfig
from diffusion.classifier import Classifier, ClassifierConfig
from diffusion.conditioning import UnconditionalConfig, WordsConfig
from diffusion.config import dump
from diffusion.pipeline import Defaults, ModelConfig, Pipeline
from diffusion.request import Request
from diffusion.schedules import VE
from diffusion.unet import UNetConfig

DATA = Path(__file__).parent / "data"
DIGITS = tuple("0123456789")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A pixel model with random weights: it draws nothing, but each of its pictures is its own."""
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
    defaults = Defaults("euler", 3, 1.5)
    config = ModelConfig("tiny", PixelsConfig(), WordsConfig(dim=8), network, classes=DIGITS, defaults=defaults)
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("checkpoints") / "tiny"
    Pipeline(config).save(folder)
    return str(folder)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("checkpoints") / "classifier"
    model = Classifier(ClassifierConfig(width=4))
    checkpoints.write(folder, dump(model.config), model.state_dict())
    return str(folder)


@pytest.fixture
def digit(tmp_path):
    """A test image as a file, and its pixels."""
    pixels = data.load("mnist", "test", DATA, download=False).images[0, 0].numpy()
    Image.fromarray(pixels).save(tmp_path / "digit.png")
    return str(tmp_path / "digit.png"), pixels


def arrays(path):
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


# ---------------------------------------------------------------- generate


def test_a_png_remembers_how_to_make_it_again(tiny, tmp_path, capsys):
    first, again = tmp_path / "first.png", tmp_path / "again.png"
    flags = ["--checkpoint", tiny, "--prompt", "7", "--negative", "1", "--count", "3", "--steps", "2", "--seed", "5"]
    more = ["--guidance", "3", "--sampler", "ddpm", "--interval", "0.1", "inf"]
    assert cli.main(["generate", *flags, *more, "--out", str(first)]) == 0
    assert "3 pictures, ddpm, 2 steps, guidance 3, seeds 5 to 7; 2 network calls each" in capsys.readouterr().out
    settings = export.read_settings(first)
    assert export.request_from(settings) == Request("7", "1", 3, 5, "ddpm", 2, 3.0, (0.1, float("inf")))
    assert (settings["checkpoint"], settings["weights"]) == ("tiny", export.fingerprint(Pipeline.load(tiny)))

    assert cli.main(["generate", "--like", str(first), "--checkpoint", tiny, "--out", str(again)]) == 0
    assert capsys.readouterr().err == ""
    assert export.read_settings(again) == settings
    assert np.array_equal(export.read_images(again), export.read_images(first))

    assert cli.main(["generate", "--like", str(first), "--checkpoint", tiny, "--seed", "6", "--out", str(again)]) == 0
    shifted = export.read_images(again)
    assert np.array_equal(shifted[:2], export.read_images(first)[1:])  # image i is that of seed + i


def test_like_does_not_choose_what_is_downloaded(tiny, tmp_path, capsys):
    assert cli.main(["generate", "--checkpoint", tiny, "--count", "1", "--out", str(tmp_path / "a.png")]) == 0
    assert cli.main(["generate", "--like", str(tmp_path / "a.png"), "--out", str(tmp_path / "b.png")]) == 2
    assert "made with 'tiny', which is not here: name it with --checkpoint." in capsys.readouterr().err


def test_other_weights_are_noted(tiny, tmp_path, capsys):
    assert cli.main(["generate", "--checkpoint", tiny, "--count", "1", "--out", str(tmp_path / "a.png")]) == 0
    other = Pipeline.load(tiny)
    next(other.parameters()).data.add_(0.1)
    other.save(tmp_path / "other")
    flags = ["--like", str(tmp_path / "a.png"), "--checkpoint", str(tmp_path / "other")]
    assert cli.main(["generate", *flags, "--out", str(tmp_path / "b.png")]) == 0
    assert "note: the weights that made the picture differ" in capsys.readouterr().err


def test_the_checkpoint_says_how_it_is_best_sampled(tiny, tmp_path):
    assert cli.main(["generate", "--checkpoint", tiny, "--out", str(tmp_path / "a.png")]) == 0
    settings = export.read_settings(tmp_path / "a.png")
    assert [settings[name] for name in ("sampler", "steps", "guidance", "count", "seed")] == ["euler", 3, 1.5, 16, 0]


def test_arrays_do_not_depend_on_the_batch(tiny, tmp_path):
    for batch in ("3", "10"):
        flags = ["--checkpoint", tiny, "--prompt", "all", "--count", "10", "--steps", "2", "--batch", batch]
        assert cli.main(["generate", *flags, "--sampler", "ddpm", "--out", str(tmp_path / f"{batch}.npz")]) == 0
    three, ten = arrays(tmp_path / "3.npz"), arrays(tmp_path / "10.npz")
    assert three["images"].shape == (10, 28, 28) and three["images"].dtype == np.uint8
    assert three["labels"].tolist() == list(range(10)) and three["labels"].dtype == np.int64
    assert np.abs(three["images"].astype(int) - ten["images"]).max() <= 1


def test_labels_are_the_prompts_where_these_are_classes(tiny, tmp_path):
    for prompt, labels in (("7", [7, 7]), ("", None)):
        flags = ["--checkpoint", tiny, "--prompt", prompt, "--count", "2", "--steps", "1"]
        assert cli.main(["generate", *flags, "--out", str(tmp_path / "out.npz")]) == 0
        made = arrays(tmp_path / "out.npz")
        assert made["images"].shape == (2, 28, 28)
        assert (made["labels"].tolist() if "labels" in made else None) == labels


def test_every_class_has_its_column(tiny, tmp_path):
    flags = ["--checkpoint", tiny, "--prompt", "all", "--count", "20", "--steps", "1"]
    assert cli.main(["generate", *flags, "--out", str(tmp_path / "all.png")]) == 0
    assert Image.open(tmp_path / "all.png").size == (10 * 56, 2 * 56)
    assert export.read_settings(tmp_path / "all.png")["prompt"] == list(DIGITS) * 2


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_a_film_shows_the_start_and_every_step_of_the_run(suffix, tiny, tmp_path):
    flags = ["--checkpoint", tiny, "--count", "4", "--steps", "5", "--seed", "3", "--fps", "10", "--hold", "1"]
    film_path, arrays_path = tmp_path / f"run{suffix}", tmp_path / "run.npz"
    assert cli.main(["generate", *flags, "--out", str(film_path)]) == 0
    assert cli.main(["generate", *flags, "--out", str(arrays_path)]) == 0
    film = Image.open(film_path)
    assert film.n_frames == 6
    film.seek(5)
    last = np.asarray(film.convert("L"))[::10, ::10]
    assert film.info["duration"] == 1100
    assert np.array_equal(last, export.grid(arrays(arrays_path)["images"]))


def test_a_film_of_clean_frames_differs(tiny, tmp_path):
    flags = ["generate", "--checkpoint", tiny, "--count", "1", "--steps", "2"]
    for frames in ("noisy", "clean"):
        assert cli.main([*flags, "--frames", frames, "--out", str(tmp_path / f"{frames}.webp")]) == 0
    noisy, clean = (np.asarray(Image.open(tmp_path / f"{name}.webp").convert("L"), int) for name in ("noisy", "clean"))
    assert np.abs(noisy - clean).mean() > 20


def test_strength_zero_is_the_reconstruction_and_more_is_not(tiny, digit, tmp_path):
    path, pixels = digit
    flags = ["generate", "--checkpoint", tiny, "--image", path, "--as-is", "--count", "2", "--steps", "4"]
    assert cli.main([*flags, "--strength", "0", "--out", str(tmp_path / "0.npz")]) == 0
    assert cli.main([*flags, "--out", str(tmp_path / "1.png")]) == 0
    assert (arrays(tmp_path / "0.npz")["images"] == pixels).all()  # the codec of a pixel model is the identity
    assert export.read_settings(tmp_path / "1.png")["strength"] == 0.6
    assert (export.read_images(tmp_path / "1.png") != pixels).any()


def test_a_mask_keeps_the_rest_pixel_for_pixel(tiny, digit, tmp_path):
    path, pixels = digit
    mask = np.zeros((280, 280), np.uint8)
    mask[:, 140:] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    flags = ["--image", path, "--mask", str(tmp_path / "mask.png"), "--count", "2", "--steps", "2"]
    assert cli.main(["generate", "--checkpoint", tiny, *flags, "--out", str(tmp_path / "out.png")]) == 0
    made = export.read_images(tmp_path / "out.png")
    assert (made[:, :, :14] == pixels[:, :14]).all()
    assert (made[:, :, 14:] != pixels[:, 14:]).mean() > 0.5
    settings = export.read_settings(tmp_path / "out.png")
    assert settings["strength"] == 1.0 and settings["image"] and settings["mask"]


def test_a_photograph_is_brought_into_the_form_of_the_data(tiny, digit, tmp_path):
    _, pixels = digit
    paper = Image.new("L", (600, 400), "white")
    paper.paste(Image.fromarray(255 - pixels).resize((280, 280)), (300, 50))
    paper.save(tmp_path / "photo.jpg")
    flags = ["--image", str(tmp_path / "photo.jpg"), "--strength", "0", "--count", "1"]
    assert cli.main(["generate", "--checkpoint", tiny, *flags, "--out", str(tmp_path / "out.npz")]) == 0
    seen = export.to_digit(export.read_picture(tmp_path / "photo.jpg"))
    assert np.array_equal(arrays(tmp_path / "out.npz")["images"][0], seen)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--out", "out.jpg"], "'out.jpg' should end with .png or .npz or .gif or .webp or .mp4"),
        (["--out", "out"], "should end with"),
        (["--out", "nowhere/out.png"], "the folder 'nowhere' does not exist"),
        (["--out", "folder.png"], "'folder.png' cannot be written"),
        (["--out", "a.png", "--count", "0"], "count must be a whole number from 1 to"),
        (["--out", "a.npz", "--count", "1000001"], "count must be a whole number from 1 to"),
        (["--out", "a.png", "--count", "five"], "argument --count: invalid int value: 'five'"),
        (["--out", "a.png", "--count", "4097"], ".png holds at most 4096 pictures here"),
        (["--out", "a.gif", "--count", "4", "--batch", "3"], ".gif holds at most 3 pictures here"),
        (["--out", "a.gif", "--count", "1", "--fps", "nan"], "0.1 to 50 frames a second"),
        (["--out", "a.png", "--batch", "0"], "batch must be a whole number from 1 to"),
        (["--out", "a.png", "--steps", "0"], "steps must be a whole number from 1 to 1000"),
        (["--out", "a.png", "--steps", "1001"], "steps must be a whole number from 1 to 1000"),
        (["--out", "a.png", "--guidance", "nan"], "guidance must be a number from 0 to 100"),
        (["--out", "a.png", "--guidance", "inf"], "guidance must be a number from 0 to 100"),
        (["--out", "a.png", "--guidance", "-1"], "guidance must be a number from 0 to 100"),
        (["--out", "a.png", "--seed", "-1"], "seed must be a whole number from 0 to"),
        (["--out", "a.png", "--seed", str(2**64)], "seed must be a whole number from 0 to"),
        (["--out", "a.png", "--strength", "1.5"], "strength must be a number from 0 to 1"),
        (["--out", "a.png", "--interval", "3", "1"], "the interval's "),
        (["--out", "a.png", "--interval", "nan", "1"], "the interval's "),
        (["--out", "a.png", "--sampler", "magic"], "the choices are dpmpp_2m"),
        (["--out", "a.png", "--prompt", "cat"], "does not know the prompt"),
        (["--out", "a.png", "--prompt", "all", "--count", "15"], "shared equally among 10 classes: use 10 or 20"),
        (["--out", "a.png", "--prompt", "all", "--count", "3"], "shared equally among 10 classes: use 10."),
        (["--out", "a.png", "--mask", "black.png"], "A mask needs an image"),
        (["--out", "a.png", "--image", "none.png"], "there is no file 'none.png'"),
        (["--out", "a.png", "--image", "text.png"], "not a picture that can be read"),
        (["--out", "a.png", "--image", "black.png"], "no ink stands out from the paper"),
        (["--out", "a.png", "--like", "black.png"], "carries no settings"),
        (["--out", "a.png", "--device", "abacus"], "the device 'abacus' is not there"),
        (["--out", "a.png", "--device", "meta"], "the device 'meta' is not there"),
        (["--out", "a.png", "--checkpoint", "no such model"], "no such model"),
        ([], "the following arguments are required: --out"),
        (["--out", "a.png", "--fast"], "unrecognized arguments: --fast"),
    ],
)
def test_errors_are_one_sentence_before_any_work(flags, sentence, tiny, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "text.png").write_text("words")
    Image.new("L", (28, 28)).save("black.png")
    if "prompt" not in sentence:  # the vocabulary is asked by the run itself, before its first step
        monkeypatch.setattr(commands, "_run", lambda *_: pytest.fail("it ran"))
    flags = ["generate", "--checkpoint", tiny, *flags]
    if sentence.startswith(("argument", "the following", "unrecognized")):
        with pytest.raises(SystemExit) as caught:
            cli.main(flags)
        assert caught.value.code == 2
    else:
        assert cli.main(flags) == 2
    out, err = capsys.readouterr()
    assert out == "" and re.fullmatch(r"error: [^\n]*\.\n", err) and sentence in err
    assert not list(tmp_path.glob("a.*"))


def test_an_output_that_cannot_work_is_found_before_the_model_is_opened(capsys):
    assert cli.main(["generate", "--checkpoint", "no such model", "--out", "nowhere/out.png"]) == 2
    assert "the folder 'nowhere' does not exist" in capsys.readouterr().err


def test_an_interruption_is_no_crash(tiny, tmp_path, monkeypatch, capsys):
    def interrupted(self, request):
        raise KeyboardInterrupt

    monkeypatch.setattr(Pipeline, "generate", interrupted)
    assert cli.main(["generate", "--checkpoint", tiny, "--out", str(tmp_path / "a.png")]) == 130
    assert capsys.readouterr().err == "stopped; nothing more was written.\n"


# ---------------------------------------------------------------- reconstruct, evaluate, info


def test_reconstruct_stacks_original_reconstruction_and_difference(tiny, tmp_path, capsys):
    flags = ["--checkpoint", tiny, "--data-dir", str(DATA), "--count", "5", "--out", str(tmp_path / "out.png")]
    assert cli.main(["reconstruct", *flags]) == 0
    assert re.search(r"5 pictures, PSNR inf dB, SSIM 1.0000", capsys.readouterr().out)
    rows = np.asarray(Image.open(tmp_path / "out.png"))[::4, ::4].reshape(3, 28, 5, 28).swapaxes(1, 2)
    images = data.load("mnist", "test", DATA, download=False).images[:5, 0].numpy()
    assert np.array_equal(rows[0], images) and np.array_equal(rows[1], images) and not rows[2].any()


def test_reconstruct_takes_a_picture_of_ones_own(tiny, digit, tmp_path, capsys):
    path, pixels = digit
    flags = ["--checkpoint", tiny, "--image", path, "--as-is", "--out", str(tmp_path / "out.png")]
    assert cli.main(["reconstruct", *flags]) == 0
    assert "1 picture, PSNR" in capsys.readouterr().out
    picture = np.asarray(Image.open(tmp_path / "out.png"))
    scale = picture.shape[1] // 28
    assert np.array_equal(picture[: 28 * scale : scale, ::scale], pixels)


def test_evaluate_prints_writes_and_shows_neighbours(tiny, classifier, tmp_path, capsys):
    flags = ["--classifier", classifier, "--data-dir", str(DATA), "--count", "20", "--steps", "1", "--batch", "8"]
    files = ["--json", str(tmp_path / "m.json"), "--neighbours", str(tmp_path / "n.png")]
    assert cli.main(["evaluate", tiny, *flags, *files]) == 0
    out = capsys.readouterr().out
    assert out.startswith("tiny: 20 generated and 20 real images (euler, 1 steps, guidance 1.5, seed 0)")
    metrics = json.loads((tmp_path / "m.json").read_text())
    assert (metrics["count"], metrics["steps"], metrics["ssim"]) == (20, 1, None)
    neighbours = np.asarray(Image.open(tmp_path / "n.png"))[::2, ::2]  # drawn at twice the size
    train = data.load("mnist", "train", DATA, download=False).images[:, 0].numpy()
    assert neighbours.shape == (4 * 28, 10 * 28)
    for below in (neighbours[28:56, :28], neighbours[84:, -28:]):
        assert (train == below).all((1, 2)).any()


def as_trained(folder, name, stage):
    """The files that a training leaves beside the weights, as the model card wants them."""
    (folder / "recipe.yaml").write_text(f"name: {name}\n")
    losses = {"steps": 1, "images": 64, "seconds": 1.0, "losses": [[1, 2.0], [2, 1.0]]}
    training = {"title": "A model", "description": "It is tiny.", "parameters": {stage: 1}, "command": "train"}
    training |= {"data": {"name": "mnist", "images": 600}, "stages": {stage: losses}}
    training |= {"hardware": "a computer", "torch": "2", "date": "2025-01-01"}
    (folder / "training.json").write_text(json.dumps(training))


def test_evaluate_writes_metrics_and_card_into_the_checkpoint(classifier, tmp_path, capsys):
    folder = tmp_path / "mnist-classifier"
    model = Classifier.load(classifier)
    checkpoints.write(folder, dump(model.config), model.state_dict())
    flags = ["evaluate", str(folder), "--data-dir", str(DATA), "--write"]
    assert cli.main(flags) == 2
    assert "--write needs the training.json that train.py leaves" in capsys.readouterr().err
    as_trained(folder, "mnist-classifier", "classifier")
    assert cli.main(flags) == 0
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["test_count"] == 300 and 0 <= metrics["test_accuracy"] <= 1
    assert "on 300 test pictures" in (folder / "README.md").read_text()
    assert "test images of mnist" in capsys.readouterr().out


def test_a_model_that_reads_sentences_is_held_to_them(tmp_path, capsys):
    """By its recipe's held-out combinations too; what compares with a data set is refused in a sentence."""
    folder = tmp_path / "sentences"
    coloured = PixelsConfig(image_size=32, sample_size=32, channels=3)
    untrained.model((), coloured, "sentences", "painted-mnist", sentences=True).save(folder)
    shutil.copy(checkpoints.CHECKPOINTS / "words-latent" / "recipe.yaml", folder)
    flags = ["--count", "12", "--steps", "1", "--guidance", "2", "--json", str(tmp_path / "m.json")]
    assert cli.main(["evaluate", str(folder), *flags]) == 0
    found = json.loads((tmp_path / "m.json").read_text())["obedience"]
    assert [score["kind"] for score in found["scores"]] == ["trained", "held out", "open", "steered"]
    assert found["avoided"][0]["guidance"] == 2
    assert cli.main(["evaluate", str(folder), "--sweep"]) == 2
    assert "is held to its prompts" in capsys.readouterr().err


@pytest.mark.parametrize("classes", [DIGITS, ()], ids=["conditional", "unconditional"])
def test_what_is_measured_of_the_same_weights_is_kept_together(classes, classifier, tmp_path, capsys):
    """Headline, sweep and likelihood in any order; of other weights nothing stays. Models without prompts as well."""
    network = UNetConfig(
        sample_size=28,
        in_channels=1,
        out_channels=1,
        block_out_channels=(8,),
        attention=(False,),
        mid_attention=False,
        cross_attention_dim=8 if classes else None,
        norm_num_groups=4,
    )
    conditioner = WordsConfig(dim=8) if classes else UnconditionalConfig()
    schedule, best = VE(), Defaults("euler", 3, 1.0)
    parts = (PixelsConfig(sample_size=28), conditioner, network, schedule, "score")
    pipeline = Pipeline(ModelConfig("tiny", *parts, classes=classes, defaults=best))
    folder = tmp_path / "tiny"
    pipeline.save(folder)
    as_trained(folder, "tiny", "denoiser")
    flags = ["evaluate", str(folder), "--data-dir", str(DATA), "--write", "--batch", "8"]
    judged = [*flags, "--classifier", classifier, "--count", "8"]
    assert cli.main([*judged, "--sweep", "--samplers", "heun, ddim", "--calls", "2,4"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert [row.split()[:3] for row in rows[2:6]] == [
        ["heun", "1", "1"],
        ["heun", "2", "3"],
        ["ddim", "2", "2"],
        ["ddim", "4", "4"],
    ]
    first = json.loads((folder / "metrics.json").read_text())
    assert first.keys() == {"weights", "sweep"} and len(first["sweep"]["cells"]) == 4

    assert cli.main(judged) == 0
    second = json.loads((folder / "metrics.json").read_text())
    assert second["sweep"] == first["sweep"] and second["count"] == 8 and second["weights"] == first["weights"]
    assert (second["accuracy"] is None) == (not classes)

    assert cli.main([*flags, "--likelihood", "2"]) == 0
    assert re.search(r"tiny: -?[\d.]+ bits/dim, standard error", capsys.readouterr().out)
    third = json.loads((folder / "metrics.json").read_text())
    found = third.pop("likelihood")
    assert third == second
    assert found["images"] == 2 and found["standard_error"] > 0 and found["prompted"] == bool(classes)

    text = (folder / "README.md").read_text(encoding="utf-8")
    assert f"{found['bits_per_dim']:.3f} ± {found['standard_error']:.3f} bits per dimension" in text
    assert "--sweep --samplers heun,ddim --calls 2,4 --count 8 --write" in text
    assert f"| {second['coverage']:.3f} | {second['real_coverage']:.3f} |" in text
    for word in ("PSNR", "None", "nan"):
        assert word not in text
    for word in ("class-conditional", "recognised", 'prompt="0"', "one column a class", "cross-attention"):
        assert (word in text) == bool(classes), word
    tables = [line.count("|") for line in text.splitlines() if line.startswith("| ddim")]
    assert tables == [10 if classes else 9] * 2

    with torch.no_grad():
        next(pipeline.parameters()).add_(1)
    pipeline.save(folder)
    capsys.readouterr()
    assert cli.main(judged) == 0
    assert "held figures of other weights" in capsys.readouterr().err
    assert json.loads((folder / "metrics.json").read_text()).keys() == second.keys() - {"sweep"}


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--count", "5"], "count must be a whole number from 6 to"),
        (["--sweep", "--count", "5"], "count must be a whole number from 6 to"),
        (["--sweep", "--samplers", "magic"], "the choices are dpmpp_2m"),
        (["--sweep", "--calls", "1"], "calls must be a whole number from 2 to 1000"),
        (["--sweep", "--calls", "ten"], "--calls takes whole numbers with commas between them, not 'ten'"),
        (["--sweep", "--steps", "5"], "--steps says nothing about the sweep: it belongs to the measurement of a model"),
        (["--calls", "10"], "--calls says nothing about the model: it belongs to the measurement of a sweep"),
        (["--unprompted"], "--unprompted says nothing about the model: it belongs to the measurement of a likelihood"),
        (["--likelihood", "1"], "likelihood must be a whole number from 2 to"),
        (["--likelihood", "301"], "needs 2 to 300 images"),
        (["--likelihood", "2", "--guidance", "2"], "--guidance says nothing about the likelihood"),
        (["--steps", "0"], "steps must be a whole number from 1 to"),
        (["--batch", "0"], "batch must be a whole number from 1 to"),
        (["--sampler", "magic"], "the choices are dpmpp_2m"),
        (["--json", "out.txt"], "'out.txt' should end with .json"),
        (["--neighbours", "out.gif"], "'out.gif' should end with .png"),
        (["--classifier", "no such classifier"], "no such classifier"),
    ],
)
def test_evaluate_explains_what_is_wrong(flags, sentence, tiny, capsys):
    assert cli.main(["evaluate", tiny, "--data-dir", str(DATA), *flags]) == 2
    err = capsys.readouterr().err
    assert re.fullmatch(r"error: [^\n]*\.\n", err) and sentence in err


def test_a_sweep_and_a_likelihood_are_two_measurements(tiny, classifier, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["evaluate", tiny, "--sweep", "--likelihood", "5"])
    assert caught.value.code == 2 and "not allowed with argument" in capsys.readouterr().err
    assert cli.main(["evaluate", classifier, "--sweep"]) == 2
    assert "--sweep measures models, and" in capsys.readouterr().err


def test_info_lists_checkpoints_and_counts_one(tiny, classifier, monkeypatch, capsys):
    monkeypatch.setattr(checkpoints, "names", lambda: {"mnist-latent": "model", "mnist-classifier": "classifier"})
    assert cli.main(["info"]) == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        ["mnist-latent", "model"],
        ["mnist-classifier", "classifier"],
    ]
    for folder, model in ((tiny, Pipeline.load(tiny)), (classifier, Classifier.load(classifier))):
        assert cli.main(["info", folder]) == 0
        out = capsys.readouterr().out
        assert f"parameters    {sum(p.numel() for p in model.parameters()):,} (" in out
        assert float(re.search(r"network call  ([\d.,]+) MFLOP", out)[1].replace(",", "")) > 0
        assert "layout        our own\n" in out and "not measured yet" in out


@pytest.fixture(scope="module")
def painter(tmp_path_factory):
    """A small Stable Diffusion of random numbers: diffusers' folder, its authors' file, and diffusers' own object."""
    from test_clip import write_tokenizer
    from test_stable_diffusion import original_state, write_file
    from theirs import model

    place = tmp_path_factory.mktemp("others")
    write_tokenizer(place / "words")
    theirs = model(place / "words")
    theirs.save_pretrained(place / "painter")
    extra = {"model_ema.decay": torch.ones(()), "model_ema.num_updates": torch.ones(())}
    return place / "painter", write_file(place, {**original_state(theirs), **extra}), theirs


def counted(module):
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_info_counts_the_parts_of_others_models(kind, painter, capsys, monkeypatch):
    *places, theirs = painter
    place = places[kind == "file"]
    load_into, loaded = checkpoints.load_into, []

    def noted(module, tensors, where):
        loaded.extend(tensors.values())
        load_into(module, tensors, where)

    monkeypatch.setattr(checkpoints, "load_into", noted)
    assert cli.main(["info", str(place)]) == 0
    assert loaded and all(tensor.is_meta for tensor in loaded)  # network and autoencoder take no memory
    out = capsys.readouterr().out
    text, end = json.JSONDecoder().raw_decode(out)
    assert text["name"] == place.stem
    assert (text["codec"]["kind"], text["conditioner"]["kind"]) == ("vae", "clip")
    assert (text["schedule"]["kind"], text["prediction"]) == ("scaled_linear", "eps")
    assert text["network"]["block_out_channels"] == [32, 64] and text["defaults"]["guidance"] == 7.5
    parts = {"codec": theirs.vae, "conditioner": theirs.text_encoder, "denoiser": theirs.unet}
    listed = ", ".join(f"{name} {counted(part):,}" for name, part in parts.items())
    assert f"parameters    {sum(map(counted, parts.values())):,} ({listed})\n" in out[end:]
    layout = "as its authors lay it out" if kind == "file" else "as diffusers lays it out"
    assert layout in out[end:] and "state         4 x 8 x 8\n" in out[end:] and "measured" not in out
    ignored = re.findall(r"^ignored       (.*)$", out, re.MULTILINE)
    reasons = [
        "model_ema.decay and 1 more: how the average was taken",
        "cond_stage_model.transformer.text_model.embeddings.position_ids: 0, 1, 2, ...",
    ]
    assert sorted(ignored) == (sorted(reasons) if kind == "file" else [])


def test_info_says_what_is_wrong_with_others_models(painter, tmp_path, capsys):
    folder, file, _ = painter
    shutil.copytree(folder, changed := tmp_path / "painter")
    (changed / "unet" / "config.json").unlink()
    (tmp_path / "model.ckpt").write_bytes(b"pickle")
    (tmp_path / "cut.safetensors").write_bytes(file.read_bytes()[:1000])
    for place, sentence in (
        (changed, "has no unet/config.json; a model in the layout of diffusers"),
        (tmp_path / "model.ckpt", "is a pickle, which can run code"),
        (tmp_path / "cut.safetensors", "is cut short or damaged"),
    ):
        assert cli.main(["info", str(place)]) == 2
        out, err = capsys.readouterr()
        assert out == "" and re.fullmatch(r"error: [^\n]*\.\n", err) and sentence in err


def test_what_is_fetched_is_said_before_it_starts(painter, tmp_path, capsys, monkeypatch):
    """Models of others from the Hub as well; what is there already is not fetched, and nothing is said."""
    folder = painter[0]
    content = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with HubServer() as hub:
        hub.use(monkeypatch, tmp_path / "home")
        hub.repos["owner/painter"] = Repo(content)
        assert cli.main(["info", "owner/painter"]) == 0
        out, err = capsys.readouterr()
        assert '"reference": "owner/painter"' in out and "as diffusers lays it out" in out
        said = rf"fetching [\d.]+[kM]?B of 'owner/painter' to {tmp_path}/home/hub, where [\d.]+[GT]B are free"
        assert err and all(re.fullmatch(said, line) for line in err.splitlines())
        assert cli.main(["info", "owner/painter"]) == 0
        assert capsys.readouterr() == (out, "")


def test_flops_are_those_of_the_whole_network(tiny, capsys):
    """Of attention too, which is not counted where it is computed; against the sum over the layers."""
    assert cli.main(["info", tiny]) == 0
    said = float(re.search(r"network call  ([\d.,]+) MFLOP", capsys.readouterr().out)[1].replace(",", ""))
    pipeline, counts = Pipeline.load(tiny), []

    def count(layer, inputs, output):
        taps = layer.weight[0].numel() if isinstance(layer, (torch.nn.Linear, torch.nn.Conv2d)) else 0
        counts.append(2 * taps * output.numel())

    def count_attention(q, k, v, *rest, **more):
        counts.append(4 * q.numel() * k.shape[-2])
        return attention(q, k, v, *rest, **more)

    attention = torch.nn.functional.scaled_dot_product_attention
    for layer in pipeline.denoiser.network.modules():
        if not list(layer.children()):
            layer.register_forward_hook(count)
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(torch.nn.functional, "scaled_dot_product_attention", count_attention)
        pipeline.denoiser(torch.zeros(1, *pipeline.codec.latent_shape), torch.ones(1), pipeline.conditioner([""]))
    assert said == pytest.approx(sum(counts) / 1e6, abs=0.06)


def test_flops_count_a_multiply_add_as_two(capsys):
    info._print_flops(torch.nn.Linear(1000, 500, bias=False), torch.zeros(1, 1000))
    assert capsys.readouterr().out.startswith("network call  1.0 MFLOP")


@pytest.mark.parametrize("command", [[], ["generate"], ["reconstruct"], ["evaluate"], ["info"]])
def test_help_is_there(command, capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main([*command, "--help"])
    assert caught.value.code == 0 and "usage: python -m diffusion" in capsys.readouterr().out


def test_python_dash_m_runs_it(monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "diffusion.__main__")  # as in a fresh process
    monkeypatch.setattr(sys, "argv", ["diffusion", "info", "no such model"])
    with pytest.raises(SystemExit) as caught:
        runpy.run_module("diffusion", run_name="__main__")
    assert caught.value.code == 2 and "no such model" in capsys.readouterr().err


def test_an_autoencoder_is_measured_beside_its_model(tmp_path, capsys):
    """The one that ships, on few pictures; and it is neither swept nor held to prompts."""
    flags = ["--data-dir", str(DATA), "--count", "20", "--json", str(tmp_path / "a.json")]
    assert cli.main(["evaluate", "words-autoencoder", *flags]) == 0
    found = json.loads((tmp_path / "a.json").read_text())["latents"]
    assert "words-latent" in json.dumps(found) and "words-autoencoder" in json.dumps(found)
    assert cli.main(["info", "words-autoencoder"]) == 0
    assert "4 x 8 x 8" in capsys.readouterr().out
    assert cli.main(["evaluate", "words-autoencoder", "--sweep", "--data-dir", str(DATA)]) == 2
    assert "--sweep measures models, and words-autoencoder is an autoencoder." in capsys.readouterr().err


def test_words_that_a_model_passes_over_are_named(tmp_path, capsys):
    flags = ["--checkpoint", "words-latent", "--steps", "1", "--out", str(tmp_path / "nine.png")]
    assert cli.main(["generate", *flags, "--prompt", "a fat bleu nine", "--negative", "something"]) == 0
    said = capsys.readouterr().err
    assert "note: It does not know “bleu”; did you mean blue?" in said and "note: It does not know “something”" in said
    assert cli.main(["generate", *flags, "--prompt", "a fat blue nine"]) == 0
    assert "note" not in capsys.readouterr().err


# ---------------------------------------------------------------- pictures of other sizes


def test_pictures_of_another_size(tiny, tmp_path, capsys):
    """From noise and from a picture; a PNG remembers the size."""
    one, two = tmp_path / "one.png", tmp_path / "two.png"
    flags = ["--checkpoint", tiny, "--steps", "2"]
    assert cli.main(["generate", *flags, "--count", "2", "--size", "28", "44", "--out", str(one)]) == 0
    assert export.read_images(one).shape == (2, 28, 44)
    assert cli.main(["generate", "--checkpoint", tiny, "--like", str(one), "--out", str(two)]) == 0
    assert (export.read_images(two) == export.read_images(one)).all()
    image = ["--image", str(one), "--strength", "0", "--count", "1", "--size", "44", "28"]
    assert cli.main(["generate", *flags, *image, "--out", str(two)]) == 0
    assert export.read_images(two).shape == (1, 44, 28)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        (("29", "28"), "This model's pictures cannot be 29 pixels high or wide: take 28 or 30."),
        (("0", "28"), "height must be a whole number from 1 to 2048, not 0."),
        (("28", "99999"), "width must be a whole number from 1 to 2048, not 99999."),
    ],
)
def test_sizes_that_cannot_be(tiny, tmp_path, capsys, size, message):
    out = tmp_path / "x.png"
    assert cli.main(["generate", "--checkpoint", tiny, "--size", *size, "--image", str(out), "--out", str(out)]) == 2
    assert message in capsys.readouterr().err and not out.exists()


def test_one_large_picture_unless_more_are_asked_for(tmp_path, capsys):
    network = UNetConfig(
        sample_size=256, in_channels=1, out_channels=1, block_out_channels=(4, 4), attention=(False, False),
        mid_attention=False, cross_attention_dim=None, norm_num_groups=2,
    )  # fmt: skip
    codec, none = PixelsConfig(image_size=256, sample_size=256), UnconditionalConfig()
    Pipeline(ModelConfig("large", codec, none, network)).save(tmp_path / "large")
    out = tmp_path / "x.png"
    assert cli.main(["generate", "--checkpoint", str(tmp_path / "large"), "--steps", "1", "--out", str(out)]) == 0
    assert export.read_images(out).shape == (1, 256, 256)
