"""Models from a local Hub: fetched once, verified and found again, from mirrors too; every failure has its sentence."""

import errno
import os
import re
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from hub_server import TOKEN, HubServer, Repo, sha256
from test_checkpoints import CONFIG_VALUES, fails, files, tensors

from diffusion import checkpoints
from diffusion import hub as hub_module
from diffusion.checkpoints import CONFIG, WEIGHTS, find, listing, read, write

ROOT = Path(__file__).parent.parent
ID = "owner/digits"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "one", CONFIG_VALUES, tensors())
    return tmp_path / "one"


@pytest.fixture
def hub(folder, tmp_path, monkeypatch):
    with HubServer() as server:
        server.repos[ID] = Repo(
            {**files(folder), "README.md": b"# Digits", "training.pt": b"pickle", "other/model.safetensors": b"x"}
        )
        server.use(monkeypatch, tmp_path / "home")
        yield server


def test_a_hub_id_is_downloaded_once(hub, capfd):
    checkpoint = read(ID)
    assert checkpoint.config == CONFIG_VALUES
    assert torch.equal(checkpoint.tensors["a.weight"], tensors()["a.weight"].half().float())
    assert sorted(os.listdir(checkpoint.folder)) == ["README.md", CONFIG, WEIGHTS]
    assert not [request for request in hub.requests if "training.pt" in request or "other" in request]

    hub.requests.clear()
    capfd.readouterr()
    assert read(ID).folder == checkpoint.folder
    assert hub.requests == [f"GET /api/models/{ID}"]
    assert capfd.readouterr().err == ""


def test_the_cache_stays_the_librarys_own(hub):
    from huggingface_hub import constants, scan_cache_dir

    read(ID)
    report = scan_cache_dir(constants.HF_HUB_CACHE)
    assert [repo.repo_id for repo in report.repos] == [ID]
    assert not report.warnings


def test_revisions(hub, tmp_path):
    old = hub.repos[ID].refs["main"]
    write(tmp_path / "new", {"name": "new"}, {})
    new = hub.repos[ID].commit(files(tmp_path / "new"))
    hub.repos[ID].refs |= {"v1": old, "pr/1": old}
    assert read(ID).config == {"name": "new"}
    for revision in (old, "v1", "pr/1"):
        assert read(f"{ID}@{revision}").config["name"] == "one"
    assert read(f"{ID}@main").folder.name == new
    assert read(f"{ID}@{old}").folder.name == old
    fails(f"{ID}@v9", "no branch, tag or commit 'v9'", f"{hub.url}/{ID}/commits/main")


def test_a_new_commit_is_seen(hub, tmp_path):
    read(ID)
    write(tmp_path / "new", {"name": "new"}, {"x": torch.ones(3)})
    hub.repos[ID].commit(files(tmp_path / "new"))
    assert read(ID).config == {"name": "new"}


def test_a_cached_checkpoint_survives_the_hub(hub, monkeypatch):
    first = read(ID)
    hub.status = 503
    assert read(ID).folder == first.folder
    hub.status, repo = None, hub.repos.pop(ID)
    assert read(ID).folder == first.folder
    assert repo.refs["main"] == first.folder.name
    hub.stop()
    assert read(ID).folder == first.folder
    assert read(f"{ID}@{first.folder.name}").folder == first.folder
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert read(ID).folder == first.folder
    fails("owner/other", "not in the cache", "HF_HUB_OFFLINE")


def run(code: str, **environment: str) -> str:
    """What a fresh Python prints."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout


def test_in_a_fresh_process(hub, folder, tmp_path):
    """The environment's variables move the checkpoints and the Hub; local reading needs no Hub library."""
    code = f"""
import sys
from diffusion.checkpoints import names, read
print(names(), read("one").config["name"], "huggingface_hub" in sys.modules)
first = read({ID!r})
from huggingface_hub import constants
constants.HF_HUB_OFFLINE = True
print(first.config["name"], read({ID!r}).folder == first.folder)
"""
    environment = hub.environment(tmp_path / "fresh", DIFFUSION_CHECKPOINTS=str(folder.parent))
    assert run(code, **environment) == "{'one': 'toy'} one False\none True\n"


def test_unreachable(hub):
    hub.stop()
    fails(ID, f"connection to {hub.url}/{ID} failed", "not in the cache")


def test_not_found(hub):
    fails("owner/nothing", "No folder 'owner/nothing' here, no such model", "spelling", "hf auth login")
    fails("owner/a--b", "owner/a--b")
    for name in (WEIGHTS, CONFIG):
        hub.repos[ID].commit({path: data for path, data in hub.repos[ID].files.items() if path != name})
        fails(ID, f"'{ID}' on the Hub", "pickle (training.pt)" if name == WEIGHTS else f"has no {name}")
        assert hub.count("HEAD") == 0


@pytest.mark.parametrize(("lock", "parts"), [("gated", ["is gated", "accept"]), ("private", ["private"])])
def test_gated_and_private(hub, monkeypatch, lock, parts):
    setattr(hub.repos[ID], lock, True)
    fails(ID, *parts, "hf auth login")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert read(ID).config == CONFIG_VALUES


@pytest.mark.parametrize(
    ("status", "parts"),
    [(429, ["too busy", "few minutes"]), (503, ["too busy"]), (401, ["token", "hf auth login"]), (403, ["token"])],
)
def test_refusals(hub, status, parts):
    hub.status = status
    fails(ID, *parts)


def test_a_dropped_download_is_resumed(hub, monkeypatch):
    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 64)
    hub.drop = 1
    assert read(ID).config == CONFIG_VALUES
    kept = len(hub.repos[ID].files[WEIGHTS]) // 2 // 64 * 64
    assert [r.partition(" bytes=")[2] for r in hub.requests if r.startswith("GET /objects")] == ["", f"{kept}-"]


def test_a_truncated_download(hub, folder):
    hub.truncate = 100
    fails(ID, "incomplete", "try again")
    hub.truncate = None
    assert read(ID).config == CONFIG_VALUES


def test_wrong_bytes_are_removed(hub, tmp_path):
    hub.corrupt = True
    fails(ID, WEIGHTS, "other hash", "removed", "try again")
    assert not [path for path in (tmp_path / "home").rglob("*") if path.name == WEIGHTS]
    hub.corrupt = False
    assert read(ID).config == CONFIG_VALUES


def test_weights_are_hashed_once_and_again_when_they_change(hub, monkeypatch):
    weights = read(ID).folder / WEIGHTS
    with monkeypatch.context() as patch:
        patch.setattr(hub_module, "hashlib", None)
        read(ID)
    blob = weights.resolve()
    data = blob.read_bytes()
    blob.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    os.utime(blob, ns=(1, 1))
    hub.stop()
    fails(ID, "other hash")
    fails(ID, "connection")


def test_small_weights_outside_lfs(hub, monkeypatch):
    monkeypatch.setattr("hub_server.LARGE", ())
    weights = read(ID).folder / WEIGHTS
    assert len(os.readlink(weights).rpartition("/")[2]) == 40
    monkeypatch.setattr(hub_module, "hashlib", None)
    read(ID)


def test_a_full_disk(hub, monkeypatch, tmp_path):
    size = sum(len(data) for name, data in hub.repos[ID].files.items() if name in checkpoints.FILES)
    usage = namedtuple("usage", "total used free")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage(10, 5, size - 1))
        fails(ID, f"{size:,} bytes", f"{size - 1:,} are free", "HF_HOME")
    assert not any(request.startswith("HEAD") for request in hub.requests)

    def fill(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("huggingface_hub.file_download.http_get", fill)
        fails(ID, "filled up before", "bytes are free")
    assert read(ID).config == CONFIG_VALUES


def test_a_pushed_checkpoint_comes_back(hub, folder, monkeypatch):
    """The server's writing half, as the trainer uses it."""
    from huggingface_hub import HfApi

    with pytest.raises(OSError, match="401"):
        HfApi().create_repo("owner/pushed")
    api = HfApi(token=TOKEN)
    api.create_repo("owner/pushed", private=True, exist_ok=True)
    api.create_repo("owner/pushed", private=True, exist_ok=True)
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Digits\n")
    commit = api.upload_folder(repo_id="owner/pushed", folder_path=folder)
    assert hub.repos["owner/pushed"].files == files(folder)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert read(f"owner/pushed@{commit.oid}").config == CONFIG_VALUES


# Models of several files in subfolders --------------------------------------------------------------------------------

MODEL = "owner/painter"
SMALL = ("model_index.json", "unet/config.json", "vae/config.json")
LARGE = ("unet/diffusion_pytorch_model.safetensors", "vae/diffusion_pytorch_model.safetensors")
SIZES = {LARGE[0]: 4000, LARGE[1]: 1000}


def painter() -> Repo:
    """The layout of diffusers, of bytes that mean nothing, beside files that nobody asks for."""
    content = {name: name.encode() for name in SMALL} | {name: os.urandom(size) for name, size in SIZES.items()}
    return Repo({**content, "unet/diffusion_pytorch_model.bin": b"pickle", "safety_checker/config.json": b"{}"})


def find_painter(name: str = MODEL) -> Path:
    """Its small files first, then its weights, as they are asked for to open one."""
    find(name, SMALL, SMALL, "model")
    return find(name, LARGE, LARGE, "model")


def objects(hub: HubServer) -> dict[str, list[int]]:
    """The large files that the Hub was asked for, by their hashes, each with the bytes that it was asked from."""
    found = {}
    for request in hub.requests:
        if asked := re.fullmatch(r"GET /objects/(\w+)(?: bytes=(\d+)-)?", request):
            found.setdefault(asked[1], []).append(int(asked[2] or 0))
    return found


@pytest.fixture
def model(hub, monkeypatch):
    hub.repos[MODEL] = painter()
    monkeypatch.setattr("time.sleep", lambda _: None)
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 64)
    return hub.repos[MODEL]


def assert_whole(folder: Path, repo: Repo) -> None:
    assert {name: (folder / name).read_bytes() for name in (*SMALL, *LARGE)} == {
        name: repo.files[name] for name in (*SMALL, *LARGE)
    }


def test_what_is_asked_for_comes_and_no_more(hub, model):
    assert listing(MODEL) == set(model.files)
    folder = find_painter()
    assert_whole(folder, model)
    assert hub_module.files_in(folder) == {*SMALL, *LARGE}
    hub.requests.clear()
    assert find_painter() == folder
    assert set(hub.requests) == {f"GET /api/models/{MODEL}"}
    hub.stop()
    assert find_painter() == folder
    assert listing(MODEL) == {*SMALL, *LARGE}


def test_a_cut_connection_is_taken_up_where_it_was_cut(hub, model):
    hub.drop = 3
    assert_whole(find_painter(), model)
    assert len(objects(hub)) == 2 and sum(map(len, objects(hub).values())) == 2 + 3
    for starts in objects(hub).values():
        assert starts[0] == 0 and starts == sorted(set(starts))


def test_files_that_came_whole_are_not_fetched_again(hub, model):
    """Also after one of them, whose connection was cut for good, did not."""
    hub.drop = 100
    with pytest.raises(ValueError, match=r"^The connection to .* failed and 'owner/painter' is not in the cache"):
        find_painter()
    hub.drop = 0
    find(MODEL, LARGE[1:], LARGE[1:], "model")
    hub.requests.clear()
    assert_whole(find_painter(), model)
    assert objects(hub) == {sha256(model.files[LARGE[0]]): [0]}


def test_each_of_the_weights_is_verified(hub, model):
    find(MODEL, LARGE[:1], LARGE[:1], "model")
    hub.corrupt = True
    with pytest.raises(ValueError, match=rf"^'owner/painter': {LARGE[1]} is not what the Hub announced"):
        find_painter()
    hub.corrupt = False
    assert_whole(find_painter(), model)


def test_the_disk_must_hold_what_is_not_here_yet(hub, model, monkeypatch):
    usage = namedtuple("usage", "total used free")
    find(MODEL, LARGE[:1], LARGE[:1], "model")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(9000, 0, SIZES[LARGE[1]] - 1))
    with pytest.raises(ValueError, match=r"^'owner/painter' needs 1,000 bytes, 999 are free at .*: make room"):
        find(MODEL, LARGE, LARGE, "model")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(9000, 0, SIZES[LARGE[1]]))
    folder = find(MODEL, LARGE, LARGE, "model")
    assert {name: (folder / name).stat().st_size for name in LARGE} == SIZES


def test_what_is_lacking_is_said_before_anything_is_fetched(hub, model):
    del model.files[LARGE[1]]
    model.commit(model.files)
    with pytest.raises(ValueError, match=r"^'owner/painter' on the Hub has no vae/.*; a model is a folder with unet"):
        find(MODEL, LARGE, LARGE, "model")
    del model.files[LARGE[0]]
    model.commit(model.files)
    with pytest.raises(ValueError, match=r"has only a pickle \(unet/diffusion_pytorch_model\.bin\), which can run"):
        find(MODEL, LARGE, LARGE, "model")
    assert not objects(hub)


# Mirrors --------------------------------------------------------------------------------------------------------------

OLD, NEW, LAST = "runwayml/stable-diffusion-v1-5", *hub_module.MIRRORS["runwayml/stable-diffusion-v1-5"]


def asked(hub: HubServer) -> list[str]:
    """The models that the Hub was asked for, in order, each once."""
    found = [request.split("/api/models/")[1] for request in hub.requests if "/api/models/" in request]
    return list(dict.fromkeys("/".join(name.split("/")[:2]) for name in found))


@pytest.fixture
def moved(hub, model, caplog):
    hub_module._note.cache_clear()
    hub.repos |= {NEW: hub.repos.pop(MODEL), LAST: painter()}
    return hub.repos[NEW]


def test_a_model_that_is_gone_comes_from_its_mirror_and_that_is_said_once(hub, moved, caplog):
    assert listing(OLD) == set(moved.files)
    folder = find_painter(OLD)
    assert_whole(folder, moved)
    assert folder == find_painter(NEW)
    assert caplog.messages == [f"'{OLD}' is no longer on the Hub; '{NEW}' has a copy, which is used instead."]
    assert asked(hub) == [OLD, NEW]
    hub.stop()
    assert find_painter(OLD) == folder and listing(OLD) == {*SMALL, *LARGE}


def test_mirrors_are_tried_in_order(hub, moved, caplog):
    del hub.repos[NEW]
    assert_whole(find_painter(OLD), hub.repos[LAST])
    assert asked(hub) == [OLD, NEW, LAST]
    assert LAST in caplog.text and NEW not in caplog.text.replace(LAST, "")


def test_a_revision_is_that_of_the_mirror(hub, moved):
    moved.refs["v1"] = moved.refs["main"]
    assert_whole(find_painter(f"{OLD}@v1"), moved)
    fails(f"{OLD}@v2", f"'{NEW}' has no branch, tag or commit 'v2'")


def test_where_all_are_gone_the_one_asked_for_is_named(hub, moved):
    del hub.repos[NEW], hub.repos[LAST]
    fails(OLD, f"No folder '{OLD}' here, no such model on the Hub")
    assert asked(hub) == [OLD, NEW, LAST]


def test_a_copy_under_the_old_name_is_as_good(hub, moved, caplog):
    hub.repos[OLD] = painter()
    folder, repo = find_painter(OLD), hub.repos.pop(OLD)
    hub.requests.clear()
    assert find_painter(OLD) == folder
    assert_whole(folder, repo)
    assert asked(hub) == [OLD] and not caplog.messages
    hub.stop()
    assert find_painter(OLD) == folder


@pytest.mark.parametrize("fault", ["busy", "gated", "offline", "unreachable"])
def test_only_what_is_gone_is_looked_for_elsewhere(hub, moved, monkeypatch, fault):
    if fault == "busy":
        hub.status = 503
    elif fault == "gated":
        hub.repos[OLD] = painter()
        hub.repos[OLD].gated = True
    elif fault == "offline":
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    else:
        hub.stop()
    with pytest.raises(ValueError, match={"busy": "too busy", "gated": "is gated"}.get(fault, "not in the cache")):
        find_painter(OLD)
    assert asked(hub) == {"busy": [OLD], "gated": [OLD]}.get(fault, [])


def test_mirrors_are_hub_ids_and_no_model_is_its_own():
    for old, new in hub_module.MIRRORS.items():
        assert new and old not in new
        assert all(hub_module.ID.fullmatch(name)["revision"] is None for name in (old, *new))
        assert not hub_module.MIRRORS.keys() & set(new)
