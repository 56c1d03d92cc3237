"""app.py as people start it: flags, what it refuses, and that every way of starting it serves the same app."""

import os
import re
import runpy
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gradio as gr
import httpx
import pytest
from ports import free_port

from diffusion import checkpoints
from diffusion.ui.studio import Limits

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture
def main(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str]], int]:
    """app.main, imported while pytest's own flags are on the command line."""
    monkeypatch.setattr(sys, "argv", ["pytest", "-q", "--maxfail=1"])
    return runpy.run_path(str(ROOT / "app.py"), run_name="app")["main"]


def test_importing_starts_nothing(main: Callable) -> None:
    assert main.__globals__["demo"] is None


def test_help_names_every_flag_and_its_default(main: Callable, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    text = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert ended.value.code == 0
    for flag in (
        "--host",
        "--port",
        "--share",
        "--device",
        "--checkpoint",
        "--sd",
        *(f"--max-{n}" for n in vars(Limits())),
    ):
        assert flag in text
    for value in ("mnist-latent", *vars(Limits()).values()):
        assert f"(default: {value})" in text


def test_a_space_names_its_large_model_by_a_variable(main: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    parse = main.__globals__["parser"]
    assert parse().parse_args([]).sd is None
    monkeypatch.setenv("DIFFUSION_SD", "owner/model")
    assert parse().parse_args([]).sd == "owner/model"
    assert parse().parse_args(["--sd", "other/model"]).sd == "other/model"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--port", "99999"], "argument --port: must be a whole number from 1 to 65535, not '99999'"),
        (["--port", "0"], "must be a whole number from 1 to 65535"),
        (["--port", "http"], "must be a whole number from 1 to 65535"),
        (["--host", "no such host"], "argument --host: this machine cannot listen on 'no such host'"),
        (["--host", "8.8.8.8"], "this machine cannot listen on '8.8.8.8'"),
        (["--max-seconds", "nan"], "argument --max-seconds: must be a number from 1 to 1000000000, not 'nan'"),
        (["--max-seconds", "inf"], "must be a number from 1 to"),
        (["--max-count", "-3"], "must be a whole number from 1 to"),
        (["--max-work", "2.5"], "must be a whole number from 1 to"),
        (["--max-queue", ""], "must be a whole number from 1 to"),
        (["--checkpoint", "mnist-laten"], "mnist-laten"),
        (["--checkpoint", ""], ""),
        (["--device", "abacus"], "the device 'abacus' is not there: use cpu"),
        (["--nonsense"], "unrecognized arguments: --nonsense"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_is_one_sentence_and_exit_code_2(
    main: Callable, flags: list[str], words: str, capsys: pytest.CaptureFixture
) -> None:
    try:
        code = main(flags)
    except SystemExit as ended:
        code = ended.code
    complaint = capsys.readouterr().err.strip().splitlines()[-1]
    assert code == 2
    assert complaint.startswith("app.py: ") and words in complaint


def test_a_device_that_is_not_there(main: Callable, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    def missing(*_: Any, **__: Any) -> None:
        raise AssertionError("Torch not compiled with CUDA enabled")

    monkeypatch.setattr("torch.empty", missing)
    assert main(["--device", "cuda"]) == 2
    assert capsys.readouterr().err == (
        "app.py: the device 'cuda' is not there: use cpu, or cuda or mps on a machine that has it.\n"
    )


def test_the_config_is_plain_data(demo: gr.Blocks) -> None:
    """Gradio copies it for every visitor; an object in it would take along all that it knows, the model too."""

    def odd(value: Any, where: str) -> Iterator[str]:
        if isinstance(value, dict):
            for key, item in value.items():
                yield from odd(item, f"{where}.{key}")
        elif isinstance(value, list | tuple):
            for item in value:
                yield from odd(item, where)
        elif not isinstance(value, str | int | float | None) and not where.endswith("delete_callback"):
            yield f"{where}: {type(value)}"

    assert not list(odd(demo.config, "config"))


def start(command: list[str], port: int, **environment: str) -> tuple[subprocess.Popen, httpx.Response, str]:
    """A way to start the app, its first page, and what it printed till then."""
    everything = {"DIFFUSION_CHECKPOINTS": str(checkpoints.CHECKPOINTS), "PYTHONUNBUFFERED": "1", **environment}
    process = subprocess.Popen(
        [sys.executable, *command], cwd=ROOT, env={**os.environ, **everything}, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    printed = ""
    for line in process.stdout:
        printed += line
        if f":{port}" in line:
            break
    deadline = time.monotonic() + 60
    while True:
        try:
            return process, httpx.get(f"http://127.0.0.1:{port}/", timeout=60), printed
        except httpx.ConnectError:
            assert process.poll() is None and time.monotonic() < deadline, printed
            time.sleep(0.2)


@pytest.mark.parametrize(
    ("command", "environment", "host"),
    [
        (["app.py"], {}, "127.0.0.1"),
        (["app.py"], {"GRADIO_SERVER_NAME": "0.0.0.0", "SPACE_ID": "owner/lab", "SYSTEM": "spaces"}, "0.0.0.0"),
        (["-c", "from gradio.cli import cli; cli()", "app.py"], {}, "127.0.0.1"),
    ],
    ids=["python app.py", "a Space", "gradio app.py"],
)
def test_every_way_to_start_serves_the_same_app(
    command: list[str], environment: dict[str, str], host: str, app_url: str
) -> None:
    port = free_port()
    process, page, printed = start(command, port, GRADIO_SERVER_PORT=str(port), **environment)
    try:
        assert f"http://{host}:{port}" in printed
        assert page.status_code == 200 and "Diffusion Lab" in page.text
        assert "frame-ancestors 'self' https://huggingface.co" in page.headers["Content-Security-Policy"]
        theme = "/theme.css"
        assert httpx.get(f"http://127.0.0.1:{port}{theme}", timeout=60).text == httpx.get(app_url + theme).text
        assert "lab-hero" in page.text
    finally:
        os.killpg(process.pid, 15)
        process.wait(30)
