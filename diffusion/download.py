"""Downloads by huggingface_hub, followed by whoever asked for them: how much of how much, told while it comes."""

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TICK = 0.1
"""Seconds between two reports."""


@dataclass(frozen=True)
class Download:
    """The model's id, the folder that it is fetched to, and bytes: there already, in all, and free on that disk."""

    name: str
    folder: Path
    done: int
    total: int
    free: int


_watcher: ContextVar[Callable[[Download], None] | None] = ContextVar("watcher", default=None)


@contextmanager
def watched(tell: Callable[[Download], None]) -> Iterator[None]:
    """Whatever is fetched inside is told: before the first byte, every TICK, and at the end of each of its parts.

    `tell` is called in the thread that asked for the model. If it raises, that ends the download, and comes out of the
    call that asked; files that had arrived whole stay. Without a watcher huggingface_hub draws its own bars.

    A generator must not yield inside: its next step may be taken in another context.
    """
    token = _watcher.set(tell)
    try:
        yield
    finally:
        _watcher.reset(token)


def follow(load: Callable[[type | None], Path], name: str, folder: Path, total: int) -> Path:
    """What `load` returns, told to the watcher, if there is one, while it fetches `total` bytes into `folder`.

    load: gets a class for huggingface_hub's progress bars, None for its own. Raises what it or the watcher raises.
    """
    tell = _watcher.get()
    if tell is None:
        return load(None)

    def report(done: int) -> None:
        tell(Download(name, folder, min(done, total), total, free(folder)))

    report(0)
    meter = _Meter()
    pool = ThreadPoolExecutor(1)
    running = pool.submit(load, meter.bar())
    try:
        while not wait([running], TICK).done:
            report(meter.done)
    except BaseException:
        meter.stop()
        raise
    finally:
        pool.shutdown(wait=False)  # a dead connection takes long to be given up
    loaded = running.result()
    report(total)
    return loaded


def free(folder: Path) -> int:
    """Free bytes on the disk that holds a folder, or will hold it."""
    return shutil.disk_usage(next(path for path in (folder, *folder.parents) if path.exists())).free


class _Meter:
    """Counts what one download has fetched, and can stop it."""

    def __init__(self) -> None:
        self.bars: list[Any] = []
        self.stopped = False

    @property
    def done(self) -> int:
        """Bytes that came, or that were put together from what came: whichever the library is further with."""
        return max((int(bar.n) for bar in self.bars), default=0)

    def stop(self) -> None:
        """Ends the library's threads, each where it next counts bytes or begins with a file."""
        self.stopped = True
        # Its native transfer takes no notice of an exception; this is what the library itself does on Ctrl-C. Other
        # native transfers of this process end with it, and fail with a sentence that says so.
        with suppress(ImportError):
            from huggingface_hub.utils._xet import abort_xet_session

            abort_xet_session()

    def check(self) -> None:
        """InterruptedError once it is to stop."""
        if self.stopped:
            raise InterruptedError("stopped by whoever followed it")

    def bar(self) -> type:
        """A class to stand in for the library's progress bars; it draws nothing."""
        from huggingface_hub.utils import tqdm

        meter = self

        class Bar(tqdm):
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                super().__init__(*args, **kwargs | {"disable": True})
                if kwargs.get("unit") == "B":  # the others count files
                    meter.bars.append(self)

            def refresh(self, *args: Any, **kwargs: Any) -> None:
                meter.check()

            def update(self, n: float | None = 1) -> None:
                meter.check()
                with self.get_lock():
                    self.n += n or 0

        return Bar
