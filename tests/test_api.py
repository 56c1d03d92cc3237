"""The public API and the server around it, through gradio_client and through plain HTTP; mostly what must not work."""

import json
import math
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import gradio as gr
import httpx
import numpy as np
import pytest
import tiny
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image
from ports import free_port

from diffusion import export
from diffusion.export import to_image
from diffusion.request import Request
from diffusion.ui import build_app, launch_kwargs
from diffusion.ui.guard import BROKEN, MAX_JSON
from diffusion.ui.shelf import Shelf
from diffusion.ui.studio import Limits, Studio

Call = Callable[..., tuple[str, Any]]
NONSENSE = [None, math.nan, math.inf, -1, 1e9, True, "", "<b>x</b>", [], [None], {}, {"path": "/etc/passwd"}]


@pytest.fixture(scope="module")
def client(app_url: str, tmp_path_factory: pytest.TempPathFactory) -> Client:
    return Client(app_url, verbose=False, download_files=str(tmp_path_factory.mktemp("downloads")))


@pytest.fixture
def http(app_url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=app_url, timeout=60) as http:
        yield http


@pytest.fixture
def call(http: httpx.Client) -> Call:
    """Calls an endpoint as curl would: the name of the last event, and its data or the refusal's sentence."""

    def call(endpoint: str, **parameters: Any) -> tuple[str, Any]:
        answer = post(http, f"call/v2/{endpoint}", json.dumps(parameters))
        if answer.status_code != 200:
            return "refused", answer.json()["detail"]
        events = http.get(f"/gradio_api/call/{endpoint}/{answer.json()['event_id']}").text.strip().split("\n\n")
        event, data = events[-1].split("\n")
        return event.removeprefix("event: "), json.loads(data.removeprefix("data: "))

    return call


@pytest.fixture
def digit(studio: Studio) -> np.ndarray:
    """A real 3, uint8 (28, 28)."""
    return studio.examples[3, 0]


def post(http: httpx.Client, path: str, body: str | bytes, **headers: str) -> httpx.Response:
    return http.post(f"/gradio_api/{path}", content=body, headers={"Content-Type": "application/json", **headers})


def png(picture: np.ndarray) -> bytes:
    file = BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


def vast_png(side: int) -> bytes:
    """A grey PNG of side x side pixels in some kilobytes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    squeeze = zlib.compressobj(9)
    row = bytes(side + 1)
    pixels = b"".join(squeeze.compress(row) for _ in range(side)) + squeeze.flush()
    head = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def upload(http: httpx.Client, content: bytes, name: str = "digit.png") -> dict[str, Any]:
    (path,) = http.post("/gradio_api/upload", files={"files": (name, content)}).json()
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


def is_sentence(text: object) -> bool:
    """Whether a refusal says something, in words, and nothing about the server's insides."""
    leaks = ("Traceback", 'File "', "Error:", "object at 0x", "site-packages", "Exception")
    return isinstance(text, str) and 15 < len(text) < 400 and " " in text and not any(leak in text for leak in leaks)


def sentence_of(event: str, data: Any) -> str:
    """The sentence of a call that was refused."""
    assert event in ("error", "refused"), (event, data)
    sentence = data["error"] if event == "error" else data
    assert is_sentence(sentence), sentence
    return sentence


# ---------------------------------------------------------------- what works


def test_four_endpoints_are_public_and_documented(client: Client, http: httpx.Client) -> None:
    endpoints = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert set(endpoints) == {"/generate", "/image_to_image", "/reconstruct", "/info"}
    described = http.get("/gradio_api/info").json()["named_endpoints"]
    assert set(described) == set(endpoints)
    for name, endpoint in described.items():
        assert len(endpoint["description"]) > 20, name
        for parameter in endpoint["parameters"]:
            assert parameter["type"] and parameter.get("description", "described above"), (name, parameter)


def test_the_tabs_events_are_private(demo: gr.Blocks) -> None:
    public = [fn.api_name for fn in demo.fns.values() if fn.api_visibility != "private"]
    assert sorted(public) == ["generate", "image_to_image", "info", "reconstruct"]
    for fn in demo.fns.values():
        if fn.api_visibility == "private" and fn.fn is not None:
            assert fn.api_name and fn.api_name.startswith("_"), fn.api_name


def test_generate_gives_the_pictures_that_the_engine_makes(client: Client, studio: Studio) -> None:
    path, facts = client.predict(prompt="7", count=3, steps=4, guidance=3, seed=11, api_name="/generate")
    request = Request("7", count=3, steps=4, guidance=3, seed=11, sampler=studio.defaults["sampler"])
    expected = studio.finish(request)
    # Other batches round otherwise: a grey level is all that they may differ by.
    assert np.abs(export.read_images(path).astype(int) - expected.pictures).max() <= 1
    assert export.read_settings(path) == facts["settings"]
    assert export.request_from(facts["settings"]) == request
    assert [reading["label"] for reading in facts["readings"]] == [reading.label for reading in expected.readings]
    assert facts["calls"] == 4 and facts["seconds"] > 0


def test_generate_streams_the_calls_made_so_far(client: Client) -> None:
    job = client.submit(prompt="7", steps=30, sampler="heun", api_name="/generate")
    last = job.result()
    *progress, final = job.outputs()
    assert final == last
    calls = [facts["calls"] for picture, facts in progress if picture is None]
    assert calls == sorted(calls) and calls[0] == 0


def test_image_to_image_keeps_what_the_mask_does_not_cover(client: Client, digit: np.ndarray, tmp_path: Path) -> None:
    mask = np.zeros((28, 28), np.uint8)
    mask[:, 14:] = 255
    for name, picture in (("digit", digit), ("mask", mask)):
        (tmp_path / f"{name}.png").write_bytes(png(picture))
    image, hole = (handle_file(str(tmp_path / f"{name}.png")) for name in ("digit", "mask"))
    path, facts = client.predict(image=image, mask=hole, prompt="8", strength=1, steps=4, api_name="/image_to_image")
    (picture,) = export.read_images(path)
    assert (picture[:, :14] == digit[:, :14]).all() and (picture[:, 14:] != digit[:, 14:]).any()
    assert facts["settings"]["strength"] == 1 and facts["settings"]["mask"]


def test_image_to_image_in_colour_from_a_sentence(tmp_path: Path) -> None:
    """The pixels that a mask leaves out come back, a word that is not known costs nothing."""
    words = tiny.studio("sentences", Limits())
    start, hole = words.example("3", 0), np.zeros((32, 32), np.uint8)
    hole[:20] = 255
    for name, picture in (("start", start), ("hole", hole)):
        (tmp_path / f"{name}.png").write_bytes(png(picture))
    image, mask = (handle_file(str(tmp_path / f"{name}.png")) for name in ("start", "hole"))
    demo = build_app(Shelf(words))
    local = {"prevent_thread_lock": True, "quiet": True, "server_name": "127.0.0.1", "server_port": free_port()}
    demo.launch(**launch_kwargs(words.limits), **local)
    try:
        client = Client(demo.local_url, verbose=False, download_files=str(tmp_path))
        asked = {"image": image, "prompt": "a crimson 3 on yellow paper", "steps": 4, "api_name": "/image_to_image"}
        whole, facts = client.predict(strength=0, **asked)
        masked, more = client.predict(strength=1, mask=mask, count=2, **asked)
    finally:
        demo.close()
    assert np.array_equal(export.read_images(whole), start[None])  # pixels, and none of them denoised
    pictures = export.read_images(masked)
    assert pictures.shape == (2, 32, 32, 3)
    assert (pictures[:, 20:] == start[20:]).all() and (pictures[:, :20] != start[:20]).any((1, 2, 3)).all()
    assert facts["readings"][0]["attributes"] == words.read(to_image(start)[None])[0].description.said()
    assert more["settings"]["prompt"] == asked["prompt"] and len(more["readings"]) == 2


def test_reconstruct_says_what_was_lost(client: Client, digit: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "digit.png").write_bytes(png(digit))
    path, facts = client.predict(image=handle_file(str(tmp_path / "digit.png")), as_is=True, api_name="/reconstruct")
    rebuilt = np.asarray(Image.open(path))[::20, ::20]
    assert rebuilt.shape == (28, 28)
    assert facts["psnr"] > 15 and 0.5 < facts["ssim"] <= 1
    assert facts["original"]["label"] == facts["reconstruction"]["label"] == "3"


def test_info_lists_what_can_be_asked_for(client: Client, studio: Studio) -> None:
    facts = client.predict(api_name="/info")
    assert facts["classes"] == list("0123456789") and facts["weights"] == studio.weights
    assert facts["defaults"]["sampler"] in facts["samplers"] and facts["limits"]["count"] == studio.limits.count


def test_plain_http_with_an_uploaded_file_and_defaults(call: Call, http: httpx.Client, digit: np.ndarray) -> None:
    event, (picture, facts) = call("image_to_image", image=upload(http, png(digit)), steps=2)
    assert event == "complete" and len(facts["readings"]) == 1
    assert export.read_images(http.get(picture["url"]).content).shape == (1, 28, 28)


# ---------------------------------------------------------------- values that make no sense

BAD_VALUES = {
    "count": ([0, -1, 2.5, math.nan, math.inf, 10**9, 10**30, "3", None, [3], True], "count must be a"),
    "steps": ([0, -5, 1.5, math.nan, -math.inf, 10**9, "20", None, [20], False], "steps must be a"),
    "guidance": ([-1, 101, math.nan, math.inf, "2", None, [], True], "guidance must be a number from 0 to 100"),
    "seed": ([-1, 0.5, math.nan, 2**64, "0", None, {}], "seed must be a"),
    "sampler": (["", "eulr", None, 3, ["euler"], {}, math.nan, "x" * 10**6], "the choices are"),
    "prompt": (["ten", "<b>7</b>", None, 7, [], ["7"], {}, math.nan, "7" * 10**6, "\0", "\ud800"], ""),
    "negative": (["ten", None, 7, ["7"], True], ""),
}


@pytest.mark.parametrize("name", BAD_VALUES)
def test_a_bad_value_is_answered_by_one_sentence(call: Call, name: str) -> None:
    values, words = BAD_VALUES[name]
    for value in values:
        sentence = sentence_of(*call("generate", **{name: value}))
        assert words in sentence and sentence != BROKEN, value


def test_limits_hold(call: Call) -> None:
    assert "At most 64 images" in sentence_of(*call("generate", count=65))
    assert "At most 250 steps" in sentence_of(*call("generate", steps=251))
    sentence = sentence_of(*call("generate", count=64, steps=250, guidance=2))
    assert "32,000 network evaluations; at most 16,000" in sentence


def test_a_bad_strength_or_flag_is_answered_by_one_sentence(call: Call, http: httpx.Client, digit: np.ndarray) -> None:
    image = upload(http, png(digit))
    for value in (-0.1, 1.1, math.nan, math.inf, "1", None, [0.5], True):
        sentence = sentence_of(*call("image_to_image", image=image, strength=value))
        assert "strength must be a number from 0 to 1" in sentence
    for value in (None, 1, "yes", []):
        assert "as_is must be true or false" in sentence_of(*call("reconstruct", image=image, as_is=value))


def test_gradio_client_raises_the_sentence(client: Client) -> None:
    with pytest.raises(AppError, match="count must be a whole number from 1 to 4096, not 0"):
        client.predict(count=0, api_name="/generate")


# ---------------------------------------------------------------- files that are none


@pytest.mark.parametrize(
    ("content", "name", "words"),
    [
        (b"", "empty.png", "not a picture"),
        (b"I am a text", "text.png", "not a picture"),
        (b"\x89PNG\r\n\x1a\n" + bytes(100), "half.png", ""),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "drawing.svg", "not a picture"),
        (b"GIF89a" + bytes(100), "film.gif", "not a picture"),
        (bytes(8 * 2**20 + 1), "large.png", ""),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_file_that_is_no_picture(call: Call, http: httpx.Client, content: bytes, name: str, words: str) -> None:
    answer = http.post("/gradio_api/upload", files={"files": (name, content)})
    if answer.status_code != 200:
        assert answer.status_code == 413 and "maximum" in answer.text
        return
    file = {"path": answer.json()[0], "meta": {"_type": "gradio.FileData"}}
    assert words in sentence_of(*call("reconstruct", image=file))


def test_a_picture_of_20000_by_20000_is_refused_before_it_is_decoded(call: Call, http: httpx.Client) -> None:
    file = upload(http, vast_png(20_000))
    began = time.monotonic()
    assert "larger than 4096 x 4096" in sentence_of(*call("reconstruct", image=file))
    assert time.monotonic() - began < 5


def test_a_blank_picture_has_no_digit(call: Call, http: httpx.Client) -> None:
    assert "no ink" in sentence_of(*call("reconstruct", image=upload(http, png(np.zeros((60, 60), np.uint8)))))


@pytest.mark.parametrize("value", [None, "digit.png", 3, [], [[0] * 28] * 28, {}, {"path": "/etc/passwd"}, {"meta": 3}])
def test_what_is_no_file_is_answered_by_one_sentence(call: Call, value: Any) -> None:
    sentence_of(*call("reconstruct", image=value))


@pytest.mark.parametrize("path", ["/etc/passwd", "../../etc/passwd", "app.py", "/proc/self/environ", "", "\0"])
def test_files_of_the_server_are_not_read(call: Call, path: str) -> None:
    sentence = sentence_of(*call("reconstruct", image={"path": path, "meta": {"_type": "gradio.FileData"}}))
    assert "root:" not in sentence


@pytest.mark.parametrize(
    "path",
    ["http://127.0.0.1:9/x.png", "HTTPS://example.com/x.png", " http://example.com", "//example.com/x.png", "file:///etc/passwd",
     "data:image/png;base64,AAAA"],
)  # fmt: skip
def test_addresses_are_never_fetched(http: httpx.Client, path: str) -> None:
    file = {"path": path, "meta": {"_type": "gradio.FileData"}}
    for name, body in (("call/v2/reconstruct", {"image": file}), ("call/reconstruct", {"data": [[file], False]})):
        answer = post(http, name, json.dumps(body))
        assert (answer.status_code, answer.json()["detail"]) == (
            400,
            "Files must be uploaded; addresses are not fetched here.",
        )


@pytest.mark.parametrize("route", ["file=", "proxy="])
def test_the_server_is_no_proxy(http: httpx.Client, route: str) -> None:
    answer = http.get(f"/gradio_api/{route}https://example.com/x.png")
    assert (answer.status_code, answer.json()["detail"]) == (403, "Files of other servers are not fetched here.")


# ---------------------------------------------------------------- bodies that are none


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("{", 400),
        ("not json", 400),
        ("[1, 2]", 400),
        ("null", 400),
        (b"\xff\xfe", 400),
        ("[" * 100_000, 400),
        ('{"count": ' + "9" * 5000 + "}", 400),
        ('{"nobody": 1}', 400),
        ('{"prompt": "' + "x" * MAX_JSON + '"}', 413),
    ],
    ids=range(9),
)
def test_a_body_that_does_not_fit(http: httpx.Client, body: str | bytes, status: int) -> None:
    for route in ("call/v2/generate", "queue/join"):
        answer = post(http, route, body)
        assert answer.status_code == status or (route == "queue/join" and answer.status_code == 422)
        assert is_sentence(answer.json()["detail"])


@pytest.mark.parametrize(
    "route", ["call/v2/nobody", "call/nobody", "run/generate", "call/generate", "queue/join", "cancel"]
)
def test_a_request_for_nobody(http: httpx.Client, route: str) -> None:
    for body in ("{}", '{"data": 3}', '{"data": [], "fn_index": 10000, "session_hash": "x"}'):
        answer = post(http, route, body)
        if answer.status_code != 200:  # Gradio takes too few parameters for defaults
            assert 400 <= answer.status_code < 500 and is_sentence(answer.json()["detail"]), answer.text


def test_a_body_without_end_is_cut_off(http: httpx.Client) -> None:
    def endless() -> Iterator[bytes]:
        yield b'{"prompt": "'
        for _ in range(40):
            yield b"x" * 2**20

    for path in ("/gradio_api/call/v2/generate", "/gradio_api/upload"):
        try:
            headers = {"Content-Type": "multipart/form-data; boundary=x"} if path.endswith("upload") else {}
            answer = http.post(path, content=endless(), headers=headers)
            assert answer.status_code in (400, 413)
        except httpx.TransportError:
            pass  # cut off while it was still sending
    assert http.get("/gradio_api/info").status_code == 200


def test_many_files_are_no_way_around_the_limit(http: httpx.Client, studio: Studio) -> None:
    files = [("files", (f"{i}.png", bytes(2**20))) for i in range(studio.limits.upload + 2)]
    answer = http.post("/gradio_api/upload", files=files)
    assert answer.status_code == 413 and "too large" in answer.json()["detail"]


def test_the_queue_cannot_be_skipped(http: httpx.Client) -> None:
    answer = post(http, "run/generate", json.dumps({"data": ["7", "", 1, 1, "ddim", 1, 0]}))
    assert answer.status_code == 404 and "queue" in answer.json()["detail"]


def test_another_website_cannot_use_an_app_on_this_machine(http: httpx.Client) -> None:
    answer = post(http, "call/v2/info", "{}", **{"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 403 and "Another website" in answer.json()["detail"]
    assert post(http, "call/v2/info", "{}", **{"Sec-Fetch-Site": "same-origin"}).status_code == 200


@pytest.mark.parametrize("path", ["/", "/config", "/theme.css", "/gradio_api/info", "/nobody"])
def test_every_answer_carries_the_security_headers(http: httpx.Client, path: str) -> None:
    headers = http.get(path).headers
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "default-src 'self'" in headers["Content-Security-Policy"]
    assert "frame-ancestors 'self' https://huggingface.co" in headers["Content-Security-Policy"]


# ---------------------------------------------------------------- the tabs' own events, fed with nonsense


def test_no_private_event_breaks_on_nonsense(demo: gr.Blocks, http: httpx.Client, call: Call) -> None:
    waiting: dict[str, tuple] = {}
    failed = []
    for index, fn in demo.fns.items():
        if fn.fn is None or fn.api_visibility != "private" or fn.cancels or not fn.inputs:
            continue
        for value in NONSENSE:
            body = {"data": [value] * len(fn.inputs), "fn_index": index, "session_hash": "nonsense"}
            answer = post(http, "queue/join", json.dumps(body))
            if answer.status_code == 200:
                waiting[answer.json()["event_id"]] = (fn.api_name, value)
            elif not is_sentence(answer.json()["detail"]):
                failed.append((fn.api_name, value, answer.text))
        failed += speechless(http, "nonsense", waiting)
    assert not failed
    assert call("generate", steps=1)[0] == "complete"


def speechless(http: httpx.Client, session: str, waiting: dict[str, tuple]) -> Iterator[tuple]:
    """Which of these events failed without saying why, once all have ended."""
    if not waiting:
        return
    with http.stream("GET", "/gradio_api/queue/data", params={"session_hash": session}) as stream:
        for line in stream.iter_lines():
            message = json.loads(line.removeprefix("data:")) if line.startswith("data:") else {}
            if message.get("msg") != "process_completed":
                continue
            event, error = waiting.pop(message["event_id"]), message["output"].get("error")
            if not message["success"] and (not is_sentence(error) or error == BROKEN):
                yield *event, error
            if not waiting:
                return


# ---------------------------------------------------------------- one engine, one queue


@contextmanager
def counted(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """How many runs the engine has open, at each of its steps."""
    open_runs, seen = [], []
    generate = studio.pipeline.generate

    def watched(request: Request) -> Iterator:
        run = object()
        open_runs.append(run)
        try:
            for step in generate(request):
                seen.append(len(open_runs))
                yield step
        finally:
            open_runs.remove(run)

    monkeypatch.setattr(studio.pipeline, "generate", watched)
    yield seen
    assert not open_runs


def test_two_clients_never_overlap_in_the_engine(
    app_url: str, client: Client, studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Client(app_url, verbose=False, download_files=False)
    with counted(studio, monkeypatch) as seen:
        jobs = [c.submit(steps=10, seed=i, api_name="/generate") for i in range(3) for c in (client, other)]
        for job in jobs:
            job.result(timeout=60)
    assert len(seen) == 6 * 11 and set(seen) == {1}


def test_cancelling_frees_the_engine(client: Client, studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    with counted(studio, monkeypatch) as seen:
        job = client.submit(count=8, steps=250, api_name="/generate")
        wait_until(lambda: len(seen) > 3)
        job.cancel()
        wait_until(lambda: not studio.engine.locked())
        assert len(seen) < 240
        client.predict(steps=1, api_name="/generate")


def test_a_run_that_overlaps_waits_for_the_engine(studio: Studio) -> None:
    request, ends = Request("7", steps=2), []
    first = studio.run(request)
    next(first)
    second = threading.Thread(target=lambda: ends.append(studio.finish(request)))
    second.start()
    time.sleep(0.2)
    assert not ends
    first.close()
    second.join(30)
    assert len(ends) == 1


def test_a_full_queue_says_so(
    demo: gr.Blocks, studio: Studio, call: Call, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert demo._queue.max_size == studio.limits.queue
    monkeypatch.setattr(demo._queue, "max_size", 0)
    assert "Queue is full" in sentence_of(*call("generate"))
    with pytest.raises(Exception, match="Queue is full"):
        client.predict(api_name="/generate")


def test_an_unexpected_error_stays_in_the_log(
    call: Call, studio: Studio, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(studio.pipeline, "generate", lambda request: iter([1 / 0 for _ in "x"]))
    assert sentence_of(*call("generate")) == BROKEN
    assert "ZeroDivisionError" in caplog.text


def wait_until(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)
