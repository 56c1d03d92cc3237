"""Training: it learns, it stops and resumes without a trace, and it says in one sentence what is wrong."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import pytest
import torch
import yaml
from hub_server import TOKEN, HubServer, Repo
from PIL import Image
from safetensors.torch import load_file

import train
from diffusion import checkpoints, data, training
from diffusion.autoencoder import Autoencoder
from diffusion.classifier import Classifier
from diffusion.denoiser import Denoiser
from diffusion.model_card import card, write_card
from diffusion.pipeline import Pipeline
from diffusion.recipe import read_recipe
from diffusion.request import Request

ROOT = Path(__file__).parent.parent
DATA = ROOT / "tests" / "data"
STEPS = {"batch": 8, "learning_rate": 3e-3, "warmup": 5, "sample_every": 24, "save_every": 7}
LATENT = {
    "name": "tiny",
    "title": "A tiny model",
    "description": "It tests the training.",
    "model": {
        "codec": {"kind": "vae", "latent_channels": 2, "block_out_channels": [8, 8, 8], "norm_num_groups": 4},
        "conditioner": {"dim": 8},
        "network": {
            "in_channels": 2,
            "out_channels": 2,
            "block_out_channels": [16, 16],
            "attention": [False, True],
            "attention_head_dim": 8,
            "cross_attention_dim": 8,
            "norm_num_groups": 4,
        },
        "schedule": {"kind": "edm", "sigma_data": 1.0},
        "defaults": {"steps": 4},
    },
    "vae": {"steps": 48, "kl_weight": 1e-3, **STEPS},
    "denoiser": {"steps": 48, "label_dropout": 0.2, **STEPS},
}
PIXELS = {
    "name": "pixels",
    "model": LATENT["model"]
    | {
        "codec": {"kind": "pixels"},
        "network": LATENT["model"]["network"] | {"sample_size": 32, "in_channels": 1, "out_channels": 1},
    },
    "denoiser": {"steps": 3, "batch": 4, "warmup": 1},
}
COLOUR = PIXELS | {
    "model": PIXELS["model"]
    | {
        "codec": {"kind": "pixels", "image_size": 16, "sample_size": 16, "channels": 3},
        "network": PIXELS["model"]["network"] | {"sample_size": 16, "in_channels": 3, "out_channels": 3},
    },
    "denoiser": {"steps": 8, "mirror": True, "batch": 4, "warmup": 1, "save_every": 3, "sample_every": 6},
}
CLASSIFIER = {"name": "judge", "model": {"width": 4}, "classifier": {"steps": 48, **STEPS}}
ALONE = {
    "name": "alone",
    "title": "Only the autoencoder",
    "model": {"codec": LATENT["model"]["codec"], "beside": "tiny"},
    "vae": LATENT["vae"],
}


def write_recipe(folder: Path, recipe: dict) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder / "recipe.yaml"


def run(recipe: Path, output: Path, *flags: str) -> int:
    return train.main([str(recipe), "--data-dir", str(DATA), "--output", str(output), "--device", "cpu", *flags])


def new_run(tmp_path: Path, recipe: dict = LATENT, **overrides: object) -> training.Run:
    typed, _ = read_recipe(write_recipe(tmp_path, recipe), overrides)
    return training.Run(typed, data.load("mnist", "train", DATA, download=False), torch.device("cpu"))


def position(state: Path) -> tuple[str, int]:
    content = state.read_bytes()  # at one moment: a run may be replacing the file
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return header["__metadata__"]["stage"], int(header["__metadata__"]["step"])


def assert_same_state(a: Path, b: Path) -> None:
    ours, theirs = load_file(a), load_file(b)
    assert ours.keys() == theirs.keys()
    assert position(a) == position(b)
    for name in ours:
        assert ours[name].numpy().tobytes() == theirs[name].numpy().tobytes(), name


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)  # as the subprocesses run: sums depend on how they are shared out
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> dict[str, Path]:
    """The output folders of three uninterrupted runs."""
    folders = {}
    for recipe in (LATENT, CLASSIFIER, ALONE):
        base = tmp_path_factory.mktemp(recipe["name"])
        assert run(write_recipe(base / "recipe", recipe), base / "out") == 0
        folders[recipe["name"]] = base / "out"
    return folders


# ---------------------------------------------------------------- what a run makes


def test_training_lowers_every_loss(finished):
    for folder in finished.values():
        for name, losses in load_file(folder / train.STATE).items():
            if name.startswith("losses."):
                assert losses[-15:].mean() < 0.9 * losses[:15].mean(), name


def test_the_folder_is_a_checkpoint_that_generates(finished):
    folder = finished["tiny"]
    assert {path.name for path in folder.iterdir()} == {*checkpoints.FILES, "training.json", train.STATE} - {
        "metrics.json"
    }
    pipeline = Pipeline.load(folder)
    *_, last = pipeline.generate(Request(prompt="3", count=2, steps=2, guidance=2.0))
    assert pipeline.decode(last.x0).shape == (2, 1, 28, 28)
    assert pipeline.decode(last.x0).isfinite().all()
    assert Classifier.load(finished["judge"])(torch.zeros(1, 1, 28, 28)).shape == (1, 10)


def test_an_autoencoder_alone_is_that_of_the_model_whose_recipe_it_shares(finished):
    """Same start, same batches, same noise: to change one setting is to compare nothing but that."""
    folder, whole = finished["alone"], checkpoints.read(finished["tiny"])
    autoencoder = Autoencoder.load(folder)
    assert checkpoints.read(folder).config["kind"] == checkpoints.names(folder.parent)["out"] == "autoencoder"
    assert (autoencoder.config.name, autoencoder.config.data, autoencoder.config.beside) == ("alone", "mnist", "tiny")
    assert autoencoder.config.codec.scaling_factor == whole.config["codec"]["scaling_factor"] != 1
    for name, tensor in checkpoints.read(folder).tensors.items():
        assert torch.equal(tensor, whole.tensors[name]), name
    image = data.to_unit(data.load("mnist", "train", DATA).images[:2])
    assert torch.equal(autoencoder.reconstruct(image), Pipeline.load(finished["tiny"]).reconstruct(image))
    text = (folder / "README.md").read_text(encoding="utf-8")
    for expected in ("image-feature-extraction", "# Only the autoencoder", 'Autoencoder.load("alone")', "with tiny."):
        assert expected in text
    assert (folder / "samples.png").is_file()


def test_a_finished_autoencoder_is_not_overwritten_and_other_weights_are_another_recipe(finished, tmp_path, capsys):
    path, output = write_recipe(tmp_path / "recipe", ALONE), finished["alone"]
    assert run(path, output) == 2
    assert "go on with --resume, or give another --output" in capsys.readouterr().err
    assert run(path, output, "--resume") == 0
    assert "alone is finished" in capsys.readouterr().out
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / train.STATE).write_bytes((output / train.STATE).read_bytes())
    assert run(path, tmp_path / "out", "--resume", "--set", "vae.kl_weight=1e-8") == 2
    assert "vae.kl_weight is 1e-08 but was 0.001" in capsys.readouterr().err
    assert run(path, tmp_path / "dry", "--dry-run") == 0
    printed = capsys.readouterr().out
    assert "vae: 48 steps" in printed and "codec: " in printed


def test_the_latent_scale_is_measured_and_stored(finished):
    pipeline = Pipeline.load(finished["tiny"])
    assert pipeline.config.codec.scaling_factor != 1
    latents = pipeline.codec.encode(data.to_unit(data.load("mnist", "train", DATA).images))
    assert latents.std().item() == pytest.approx(1, abs=0.01)  # float16 weights


def test_the_published_weights_are_the_average(finished):
    state = load_file(finished["tiny"] / train.STATE)
    published = checkpoints.read(finished["tiny"]).tensors
    name = "denoiser.network.conv_in.weight"
    assert torch.equal(published[name], state[f"average.{name}"].half().float())
    assert not torch.equal(state[f"average.{name}"], state[f"weights.{name}"])


def test_the_recipe_as_run_is_published_with_its_changes(tmp_path):
    recipe = write_recipe(tmp_path / "recipe", CLASSIFIER)
    assert run(recipe, tmp_path / "out", "--set", "classifier.steps=2", "classifier.warmup=0", "seed=5") == 0
    again, _ = read_recipe(tmp_path / "out" / "recipe.yaml", {})
    assert (again.classifier.steps, again.seed, again.classifier.batch) == (2, 5, 8)


def test_the_card_tells_what_was_done_and_takes_up_metrics(finished, tmp_path):
    text = (finished["tiny"] / "README.md").read_text(encoding="utf-8")
    _, front, body = text.split("---\n", 2)
    assert yaml.safe_load(front)["license"] == "apache-2.0"
    assert yaml.safe_load(front)["datasets"] == ["ylecun/mnist"]
    for expected in (
        "# A tiny model",
        "It tests the training.",
        "600 pictures",
        "| vae | 48 | 384 |",
        "Not measured yet",
    ):
        assert expected in body
    assert str(finished["tiny"]) not in text
    for name in ("config.json", "recipe.yaml", "training.json"):
        (tmp_path / name).write_bytes((finished["tiny"] / name).read_bytes())
    measured = {"count": 100, "test_count": 300, "sampler": "heun", "steps": 9, "guidance": 1.5, "seed": 0}
    measured |= {"accuracy": 0.987, "test_accuracy": 0.99, "frechet": 12.5, "frechet_floor": 1.0}
    (tmp_path / "metrics.json").write_text(json.dumps(measured))
    write_card(tmp_path)
    text = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert "| recognised as prompted by the classifier | 98.70% | 99.00% |" in text
    assert "Not measured yet" not in text


def test_reports_carry_the_loss_by_noise_level(tmp_path):
    run = new_run(tmp_path, **{"vae.steps": 5, "denoiser.steps": 40, "denoiser.sample_every": 50})
    *_, last = run.train()
    assert len(last.levels) == 8
    assert all(level.low < level.high for level in last.levels)
    mean = run.losses["denoiser"].mean().item()
    assert sum(level.loss for level in last.levels) / 8 == pytest.approx(mean, rel=1e-5)


# ---------------------------------------------------------------- stopping and resuming


@pytest.mark.parametrize(
    ("recipe", "stage"), [(LATENT, "vae"), (LATENT, "denoiser"), (CLASSIFIER, "classifier"), (ALONE, "vae")]
)
def test_a_killed_run_resumes_bit_for_bit(recipe, stage, finished, tmp_path):
    path, output = write_recipe(tmp_path / "recipe", recipe), tmp_path / "out"
    flags = ["--data-dir", str(DATA), "--output", str(output), "--device", "cpu", "--threads", "1"]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "train.py"), str(path), *flags],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    wanted, state = random.randrange(1, 29), output / train.STATE
    while process.poll() is None:
        if state.exists() and position(state)[0] == stage and position(state)[1] >= wanted:
            process.kill()
            break
        time.sleep(0.001)
    assert process.wait() < 0, "the run must be killed before it ends"
    assert run(path, output, "--resume") == 0
    assert_same_state(state, finished[recipe["name"]] / train.STATE)
    weights = [checkpoints.read(folder).tensors for folder in (output, finished[recipe["name"]])]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[1])


def test_a_run_interrupted_between_stages_resumes_bit_for_bit(finished, tmp_path):
    first = new_run(tmp_path)
    for progress in first.train():
        if progress.step == progress.steps:
            first.save(tmp_path / train.STATE)
            break
    assert position(tmp_path / train.STATE) == ("vae", 48)
    assert run(tmp_path / "recipe.yaml", tmp_path, "--resume") == 0
    assert_same_state(tmp_path / train.STATE, finished["tiny"] / train.STATE)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_finishes_the_step_saves_and_says_so(number, finished, tmp_path, monkeypatch, capsys):
    steps = training.Run.train

    def interrupted(self):
        for progress in steps(self):
            if (progress.stage, progress.step) == ("denoiser", 10):
                signal.raise_signal(number)
            yield progress

    path, output = write_recipe(tmp_path / "recipe", LATENT), tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(training.Run, "train", interrupted)
        assert run(path, output) == 128 + number
    assert "Stopped at denoiser step 10; the state is saved" in capsys.readouterr().out
    assert position(output / train.STATE) == ("denoiser", 10)
    assert run(path, output) == 2
    assert "go on with --resume, or give another --output" in capsys.readouterr().err
    assert run(path, output, "--resume", "--set", "denoiser.save_every=50", "title=other") == 0
    assert_same_state(output / train.STATE, finished["tiny"] / train.STATE)


def test_a_save_that_fails_keeps_the_old_state(tmp_path, monkeypatch):
    run = new_run(tmp_path, CLASSIFIER)
    steps = run.train()
    next(steps)
    run.save(tmp_path / train.STATE)
    before = (tmp_path / train.STATE).read_bytes()
    next(steps)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        run.save(tmp_path / train.STATE)
    assert (tmp_path / train.STATE).read_bytes() == before


def test_resume_without_a_state_starts_afresh_and_a_finished_run_says_so(tmp_path, capsys):
    path, output = write_recipe(tmp_path / "recipe", CLASSIFIER), tmp_path / "out"
    short = ["--set", "classifier.steps=6"]
    assert run(path, output, "--resume", *short) == 0
    assert "judge starts afresh" in capsys.readouterr().out
    written = (output / checkpoints.WEIGHTS).stat().st_mtime_ns
    assert run(path, output, "--resume", *short) == 0
    assert "judge is finished" in capsys.readouterr().out
    assert run(path, output, *short) == 2
    (output / train.STATE).unlink()
    assert run(path, output, *short) == 2
    assert "holds a trained model: give another --output" in capsys.readouterr().err
    assert (output / checkpoints.WEIGHTS).stat().st_mtime_ns == written


def test_a_state_of_another_recipe_is_refused(tmp_path, capsys):
    path = write_recipe(tmp_path, CLASSIFIER)
    first = new_run(tmp_path, CLASSIFIER)
    next(first.train())
    first.save(tmp_path / train.STATE)
    assert run(path, tmp_path, "--resume", "--set", "classifier.batch=16") == 2
    assert "classifier.batch is 16 but was 8" in capsys.readouterr().err
    assert run(path, tmp_path, "--resume", "--set", "data=fashion-mnist") == 2


def test_a_damaged_state_is_named(tmp_path, capsys):
    path = write_recipe(tmp_path, CLASSIFIER)
    first = new_run(tmp_path, CLASSIFIER)
    next(first.train())
    first.save(tmp_path / train.STATE)
    content = (tmp_path / train.STATE).read_bytes()
    (tmp_path / train.STATE).write_bytes(content[: len(content) // 2])
    assert run(path, tmp_path, "--resume") == 2
    assert "training state is damaged" in capsys.readouterr().err


# ---------------------------------------------------------------- what is wrong, in one sentence


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("denoiser.lr=1", "unknown key 'denoiser.lr'; the keys here are steps, batch, learning_rate"),
        ("color=red", "unknown key 'color'; the keys here are name, title"),
        ("denoiser.steps=0", "'denoiser.steps'"),
        ("denoiser.steps=many", "'denoiser.steps'"),
        ("denoiser.ema=1.5", "'denoiser.ema'"),
        ("vae.precision=int8", "'auto', 'fp32' or 'bf16'"),
        ("vae.learning_rate=.nan", "'vae.learning_rate'"),
        ("denoiser.warmup=500", "'denoiser.warmup' is 500, more than its 48 steps"),
        ("model.network.depth=3", "unknown key 'network.depth'"),
        ("model.name=x", "leave out 'model.name'"),
        ("model.network.sample_size=16", "does not fit the codec's states of 2 x 8 x 8"),
        ("data=cifar", "unknown data set 'cifar'; the choices are mnist, fashion-mnist, folder, idx, celeba"),
        ("name.first=x", "cannot set 'name.first', because 'name' is not a section"),
        ("classifier.steps=5", "a classifier is a model of its own"),
        ("vae=null", "add a vae stage"),
    ],
)
def test_a_wrong_setting_is_one_sentence(change, sentence, tmp_path, capsys):
    model = {} if change.startswith("classifier") else LATENT["model"]
    path = write_recipe(tmp_path, LATENT | {"model": model})
    assert run(path, tmp_path / "out", "--set", change) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_read_is_named(tmp_path, capsys):
    assert run(tmp_path / "none.yaml", tmp_path) == 2
    assert "none.yaml" in capsys.readouterr().err
    (tmp_path / "bad.yaml").write_text("a: [1")
    assert run(tmp_path / "bad.yaml", tmp_path) == 2
    assert "not YAML" in capsys.readouterr().err
    assert run(write_recipe(tmp_path, CLASSIFIER), tmp_path / "out", "--threads", "0") == 2
    assert "--threads must be 1 or more" in capsys.readouterr().err


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_state(tmp_path, capsys, monkeypatch):
    loss = Classifier.loss
    calls = []

    def breaking(self, *arguments):
        calls.append(1)
        return loss(self, *arguments) * (float("nan") if len(calls) == 12 else 1)

    monkeypatch.setattr(Classifier, "loss", breaking)
    assert run(write_recipe(tmp_path / "recipe", CLASSIFIER), tmp_path / "out") == 1
    assert "Training stopped at classifier step 12, learning rate 0.00" in capsys.readouterr().err
    assert position(tmp_path / "out" / train.STATE) == ("classifier", 7)
    assert all(
        t.isfinite().all() for n, t in load_file(tmp_path / "out" / train.STATE).items() if n.startswith("weights")
    )


def test_a_dry_run_trains_nothing(tmp_path, capsys):
    assert run(write_recipe(tmp_path / "recipe", LATENT), tmp_path / "out", "--dry-run") == 0
    said = capsys.readouterr().out
    for expected in (
        "600 images of 1 x 28 x 28 in 10 classes",
        "3 (60)",
        "codec: ",
        "denoiser: 48 steps, about",
        "minutes",
    ):
        assert expected in said
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["batch.png"]
    assert Image.open(tmp_path / "out" / "batch.png").width % (16 * 28) == 0


# ---------------------------------------------------------------- parts


def test_randomness_is_a_function_of_seed_stage_and_step():
    draws = [
        torch.rand(4, generator=training.generator(*key))
        for key in [(0, "vae", 3)] * 2 + [(1, "vae", 3), (0, "vae", 4), (0, "denoiser", 3)]
    ]
    assert torch.equal(draws[0], draws[1])
    assert len({tuple(draw.tolist()) for draw in draws}) == 4


def test_the_learning_rate_warms_up_and_falls_to_zero(tmp_path):
    stage = new_run(tmp_path, CLASSIFIER, **{"classifier.steps": 100, "classifier.warmup": 10}).recipe.classifier
    rates = [training.learning_rate(stage, step) for step in range(100)]
    assert rates[0] == pytest.approx(stage.learning_rate / 10)
    assert max(rates) == rates[9] == rates[10] == stage.learning_rate
    assert all(a > b for a, b in pairwise(rates[10:]))
    assert rates[-1] < 1e-3 * stage.learning_rate


def test_pixel_models_train_without_a_vae(tmp_path):
    steps = list(new_run(tmp_path, PIXELS).train())
    assert [progress.step for progress in steps] == [1, 2, 3]


def test_an_encoded_picture_and_its_mirror_image_are_what_the_codec_makes_of_them(tmp_path):
    run = new_run(tmp_path, **{"denoiser.mirror": True})
    count, index, source = len(run.data), torch.tensor([3, 5]), torch.Generator()
    x = data.to_unit(run.data.images[index])
    with torch.no_grad():
        upright, turned = run.model.codec.encode(x), run.model.codec.encode(x.flip(-1))
    assert torch.allclose(run.states(index, source)[0], upright, atol=1e-6)
    assert torch.allclose(run.states(index + count, source)[0], turned, atol=1e-6)
    assert run.latents().shape == (2 * count, 2, 8, 8)
    assert torch.allclose(run.latents()[index + count], turned, atol=1e-6)
    assert new_run(tmp_path).latents().shape == (count, 2, 8, 8)


@pytest.mark.parametrize("recipe", [LATENT, PIXELS], ids=["latent", "pixels"])
@pytest.mark.parametrize("mirror", [False, True])
def test_mirroring_turns_half_of_the_pictures_and_changes_no_other_draw(recipe, mirror, tmp_path, monkeypatch):
    """What the denoiser is given at a step, beside the pictures themselves: which of them are turned."""
    seen = {}

    def loss(self, x0, sigma, eps, context):
        seen[mirrored] = (x0, sigma, eps, context)
        return x0.flatten(1).mean(1)

    monkeypatch.setattr(Denoiser, "loss", loss)
    index = torch.arange(600)
    for mirrored in (False, mirror):
        run = new_run(tmp_path, recipe, **{"denoiser.mirror": mirrored})
        run._enter("denoiser")
        training.denoiser_objective(run)(index, training.generator(0, "denoiser", 0))
    x0, *rest = seen[False]
    assert torch.allclose(x0, run.states(index, torch.Generator())[0], atol=1e-6)
    assert all(torch.equal(a, b) for a, b in zip(rest, seen[mirror][1:], strict=True))
    with torch.no_grad():
        other = run.model.codec.encode(run.data.batch(index + 600)[0])
    turned = torch.isclose(seen[mirror][0], other, atol=1e-6).flatten(1).all(1)
    upright = torch.isclose(seen[mirror][0], x0, atol=1e-6).flatten(1).all(1)
    assert (turned | upright).all()
    assert (240 < turned.sum() < 360) if mirror else upright.all()


# ---------------------------------------------------------------- data of one's own


@pytest.fixture
def photos(tmp_path) -> Path:
    """Twelve photographs of two kinds, of different sizes."""
    for i in range(12):
        folder = tmp_path / "photos" / ("sky" if i % 2 else "green field")
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (20 + i, 40 - i), (20, 40, 200) if i % 2 else (30, 180, 20)).save(folder / f"{i}.jpg")
    return tmp_path / "photos"


def test_a_folder_of_pictures_is_shown_trained_on_resumed_and_sampled(photos, tmp_path, monkeypatch, capsys):
    path = write_recipe(tmp_path / "recipe", COLOUR)
    flags = ["--data-dir", str(photos), "--device", "cpu", "--threads", "1", "--set", "data=folder", "name=mine"]
    found = "12 pictures, from 20 x 40 to 30 x 30, RGB; cut to their centre squares; resized to 16 x 16"

    assert train.main([str(path), *flags, "--output", str(tmp_path / "dry"), "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert found in said
    assert "folder: 12 images of 3 x 16 x 16 in 2 classes\n  green field (6), sky (6)\n" in said
    assert Image.open(tmp_path / "dry" / "batch.png").mode == "RGB"

    assert train.main([str(path), *flags, "--output", str(tmp_path / "whole")]) == 0
    steps = training.Run.train

    def interrupted(self):
        for progress in steps(self):
            if progress.step == 5:
                signal.raise_signal(signal.SIGTERM)
            yield progress

    with monkeypatch.context() as patch:
        patch.setattr(training.Run, "train", interrupted)
        assert train.main([str(path), *flags, "--output", str(tmp_path / "out")]) == 128 + signal.SIGTERM
    assert position(tmp_path / "out" / train.STATE) == ("denoiser", 5)
    (photos / "sky" / "1.jpg").rename(tmp_path / "1.jpg")
    assert train.main([str(path), *flags, "--output", str(tmp_path / "out"), "--resume"]) == 2
    assert "images is 11 but was 12" in capsys.readouterr().err
    (tmp_path / "1.jpg").rename(photos / "sky" / "1.jpg")
    assert train.main([str(path), *flags, "--output", str(tmp_path / "out"), "--resume"]) == 0
    assert_same_state(tmp_path / "out" / train.STATE, tmp_path / "whole" / train.STATE)

    config = json.loads((tmp_path / "out" / "config.json").read_text(encoding="utf-8"))
    assert (config["name"], config["data"], config["classes"]) == ("mine", "folder", ["green field", "sky"])
    assert (tmp_path / "out" / "samples.png").exists()
    assert str(tmp_path) not in "".join(f.read_text("utf-8") for f in (tmp_path / "out").iterdir() if f.suffix != ".png"
                                        and f.suffix != ".safetensors")  # fmt: skip
    again, _ = read_recipe(tmp_path / "out" / "recipe.yaml", {})
    assert (again.data, again.name) == ("folder", "mine")
    for used in photos.rglob("*.jpg"):
        used.unlink()
    pipeline = Pipeline.load(tmp_path / "out")
    *_, last = pipeline.generate(Request(prompt="green field", count=2, steps=2))
    assert pipeline.decode(last.x0).shape == (2, 3, 16, 16)


def test_pictures_without_classes_train_a_model_without_prompts(photos, tmp_path, capsys):
    for path in photos.rglob("*.jpg"):
        path.rename(photos / path.name)
    for folder in ("sky", "green field"):
        (photos / folder).rmdir()
    path = write_recipe(tmp_path / "recipe", COLOUR)
    flags = ["--data-dir", str(photos), "--output", str(tmp_path / "out"), "--device", "cpu", "--set", "data=folder"]
    assert train.main([str(path), *flags]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "'model.conditioner={kind: none}' model.network.cross_attention_dim=null" in said
    flags += ["model.conditioner={kind: none}", "model.network.cross_attention_dim=null"]
    assert train.main([str(path), *flags, "--dry-run"]) == 0
    assert "folder: 12 images of 3 x 16 x 16 without classes\n" in capsys.readouterr().out
    assert train.main([str(path), *flags]) == 0
    pipeline = Pipeline.load(tmp_path / "out")
    assert pipeline.config.classes == ()
    *_, last = pipeline.generate(Request(count=2, steps=2))
    assert pipeline.decode(last.x0).shape == (2, 3, 16, 16)


def test_a_vae_learns_from_three_grey_pictures(tmp_path, capsys):
    for i in range(3):
        (tmp_path / "grey").mkdir(exist_ok=True)
        Image.new("L", (28, 28), 80 * i).save(tmp_path / "grey" / f"{i}.png")
    model = LATENT["model"] | {"conditioner": {"kind": "none"}}
    model["network"] = model["network"] | {"cross_attention_dim": None}
    short = {"steps": 2, "batch": 8, "warmup": 1}
    recipe = {"name": "few", "data": "folder", "model": model, "vae": short, "denoiser": short | {"mirror": True}}
    path = write_recipe(tmp_path / "recipe", recipe)
    flags = ["--data-dir", str(tmp_path / "grey"), "--output", str(tmp_path / "out"), "--device", "cpu"]
    assert train.main([str(path), *flags]) == 0
    assert "3 pictures, 28 x 28, grey\n" in capsys.readouterr().out


def test_a_dataset_of_many_classes_is_pictured_by_the_first_twenty(tmp_path):
    run = new_run(tmp_path, PIXELS)
    labels = torch.arange(30).repeat(20)
    run = training.Run(
        run.recipe, data.ImageData(run.data.images, labels, tuple(f"c{i}" for i in range(30))), run.device
    )
    run._enter("denoiser")
    assert run.samples().shape == (4, 20, 1, 28, 28)


# ---------------------------------------------------------------- the Hub


def test_a_finished_checkpoint_is_uploaded_without_its_state(finished, tmp_path, monkeypatch, capsys):
    recipe = finished["judge"] / "recipe.yaml"
    with HubServer({"someone/judge": Repo()}) as hub:
        hub.use(monkeypatch, tmp_path, TOKEN)
        assert run(recipe, finished["judge"], "--resume", "--push-to-hub", "someone/judge") == 0
        assert set(hub.repos["someone/judge"].files) == {
            "config.json",
            "model.safetensors",
            "recipe.yaml",
            "README.md",
            "training.json",
        }
        assert "someone/judge" in capsys.readouterr().out
        hub.use(monkeypatch, tmp_path / "stranger")
        monkeypatch.delenv("HF_TOKEN", raising=False)
        assert run(recipe, finished["judge"], "--resume", "--push-to-hub", "someone/judge") == 1
        assert "hf auth login" in capsys.readouterr().err
        assert run(recipe, finished["judge"], "--resume", "--push-to-hub", "a/b/c") == 2
        assert "give owner/name" in capsys.readouterr().err
    hub.use(monkeypatch, tmp_path, TOKEN)
    assert run(recipe, finished["judge"], "--resume", "--push-to-hub", "someone/judge") == 1
    assert "out of reach" in capsys.readouterr().err


def test_the_card_of_a_model_of_sentences_says_how_it_obeys():
    folder = ROOT / "checkpoints" / "words-latent"
    parts = [json.loads((folder / f"{name}.json").read_text()) for name in ("config", "training", "metrics")]
    parts.insert(1, yaml.safe_load((folder / "recipe.yaml").read_text()))
    text = card(*parts)
    assert text == (folder / "README.md").read_text()
    for score in parts[-1]["obedience"]["scores"]:
        row = f"| {score['guidance']:g} | {score['kind']} | {100 * score['shares']['digit']:.1f} |"
        assert row in text
    assert "pipeline_tag: text-to-image" in text and 'prompt="a thick red 7"' in text
    assert "sentences of 73 known words" in text
