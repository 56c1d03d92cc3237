"""Downloads from a local Hub, followed: what is told of them, and how they end when nobody wants them any more."""

import os
import shutil
import threading
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from hub_server import HubServer, Repo

from diffusion.checkpoints import find
from diffusion.download import Download, watched

ID = "owner/painter"
SIZES = {"model_index.json": 100, "unet/model.safetensors": 4000, "vae/model.safetensors": 1000}
FILES, TOTAL = [*SIZES], sum(SIZES.values())


class Stopped(BaseException):
    """What a watcher raises, like KeyboardInterrupt no Exception."""


@pytest.fixture
def hub(tmp_path, monkeypatch):
    with HubServer() as server:
        server.repos[ID] = Repo({name: os.urandom(size) for name, size in SIZES.items()})
        server.use(monkeypatch, tmp_path / "home")
        monkeypatch.setattr("time.sleep", lambda _: None)
        monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 64)
        yield server
        join()


def join() -> None:
    """Waits for the library's threads."""
    for thread in threading.enumerate():
        if thread.name.startswith("ThreadPoolExecutor"):
            thread.join(20)
            assert not thread.is_alive()


def fetch(files: list[str] = FILES) -> Path:
    return find(ID, files, files, "model")


def content(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES}


def test_how_much_is_told_before_it_starts_as_it_comes_and_at_the_end(hub, tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(9999, 0, 7777))
    told, threads = [], set()
    hub.hold = threading.Event()

    def tell(download: Download) -> None:
        if not told:
            assert not any(" /objects/" in request or " /owner/" in request for request in hub.requests)
        told.append(download)
        threads.add(threading.get_ident())
        if download.done >= TOTAL / 3:  # the server goes on only after some of a file was told
            hub.hold.set()

    with watched(tell):
        folder = fetch()
    assert content(folder) == hub.repos[ID].files
    assert told[0] == Download(ID, tmp_path / "home" / "hub", 0, TOTAL, 7777)
    assert told[-1].done == TOTAL and any(0 < download.done < TOTAL for download in told)
    done = [download.done for download in told]
    assert done == sorted(done)
    assert {(download.name, download.total, download.free) for download in told} == {(ID, TOTAL, 7777)}
    assert threads == {threading.get_ident()}


def test_what_is_here_already_is_not_told(hub):
    told = []
    fetch(FILES[:2])
    with watched(told.append):
        fetch()
        assert {download.total for download in told} == {SIZES[FILES[2]]} and told[-1].done == SIZES[FILES[2]]
        told.clear()
        fetch()
    assert told == []


def test_a_cut_connection_counts_nothing_twice(hub):
    told = []
    hub.drop = 3
    with watched(told.append):
        assert content(fetch()) == hub.repos[ID].files
    assert hub.drop == 0 and max(download.done for download in told) == TOTAL


def test_a_failure_says_what_it_says_unwatched(hub):
    hub.truncate = 100
    with watched(lambda download: None), pytest.raises(ValueError, match=r"^'owner/painter' arrived incomplete and"):
        fetch()


@pytest.mark.parametrize("moment", ["before", "amid"])
def test_a_watcher_that_raises_ends_the_download(hub, moment):
    """Its exception comes out as it was; what had come whole stays, the rest is fetched when it is wanted again."""
    from huggingface_hub import try_to_load_from_cache

    stop = Stopped()
    hub.hold = threading.Event()

    def tell(download: Download) -> None:
        if moment == "before" or download.done > SIZES[FILES[0]]:
            raise stop

    with watched(tell), pytest.raises(Stopped) as caught:
        fetch()
    assert caught.value is stop
    hub.hold.set()
    join()
    here = [name for name in FILES if isinstance(try_to_load_from_cache(ID, name), str)]
    assert here == ([] if moment == "before" else FILES[:1])
    assert bool([request for request in hub.requests if "/objects/" in request]) == (moment == "amid")
    told = []
    with watched(told.append):
        assert content(fetch()) == hub.repos[ID].files
    assert told[0].total == TOTAL - sum(SIZES[name] for name in here)


def test_the_librarys_bars_are_drawn_where_nobody_follows(hub, capfd, monkeypatch):
    monkeypatch.setenv("TQDM_POSITION", "-1")  # as on a terminal
    with watched(lambda download: None):
        fetch(FILES[:1])
    assert capfd.readouterr().err == ""
    fetch()
    assert "Fetching 3 files" in capfd.readouterr().err


def test_each_context_has_its_own_watcher(hub):
    """Threads that follow nothing tell nothing to those that do."""
    outer, inner = [], []
    with watched(outer.append):
        other = threading.Thread(target=fetch, args=(FILES[:1],))
        other.start()
        other.join()
        assert outer == []
        with watched(inner.append):
            fetch(FILES[:2])
        assert inner and outer == []
        fetch()
    assert outer[-1].total == SIZES[FILES[2]]


@pytest.fixture
def store(hub, tmp_path, monkeypatch):
    """The large files in a store of the library's native transfer, on this disk instead of behind the Hub."""
    hf_xet = pytest.importorskip("hf_xet")
    address = f"local://{tmp_path / 'store'}"
    with hf_xet.XetSession().new_upload_commit(endpoint=address) as commit:
        kept = {name: commit.start_upload_bytes(data) for name, data in hub.repos[ID].files.items()}
    hub.store = address, {name: file.result().xet_info.hash for name, file in kept.items()}
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", False)


def test_the_native_transfer_is_told_too(hub, store):
    told = []
    with watched(told.append):
        assert content(fetch()) == hub.repos[ID].files
    assert not [request for request in hub.requests if "/objects/" in request]
    assert (told[0].done, told[-1].done, told[-1].total) == (0, TOTAL, TOTAL)


@pytest.mark.parametrize("moment", ["connecting", "connected"])
def test_a_watcher_that_raises_ends_the_native_transfer(hub, store, monkeypatch, moment):
    """An exception alone would not: the transfer takes no notice of it."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.utils import _xet

    begun, stopped = threading.Event(), threading.Event()

    def late(call: Callable[..., object]) -> Callable[..., object]:
        """The same when the download has been stopped."""

        def called(**options: object) -> object:
            begun.set()
            assert stopped.wait(10)
            return call(**options)

        return called

    def session() -> SimpleNamespace:
        return SimpleNamespace(new_file_download_group=late(get().new_file_download_group))

    def tell(download: Download) -> None:
        if begun.is_set():
            raise Stopped

    get, connect = _xet.get_xet_session, _xet.refresh_xet_connection_info
    with monkeypatch.context() as patch:
        if moment == "connecting":
            patch.setattr(_xet, "refresh_xet_connection_info", late(connect))
        else:
            patch.setattr(_xet, "get_xet_session", session)
        with watched(tell), pytest.raises(Stopped):
            fetch(FILES[1:])
        stopped.set()
        join()
    assert begun.is_set() and not [name for name in FILES if isinstance(try_to_load_from_cache(ID, name), str)]
    assert content(fetch()) == hub.repos[ID].files
