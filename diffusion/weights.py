"""What safetensors files hold: shapes and words, of which only the head is read, and tensors."""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

Shapes = dict[str, tuple[int, ...]]


def read_tensors(
    path: Path,
    names: Collection[str] | None = None,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> dict[str, Tensor]:
    """A safetensors file's tensors, or those of these names, one after the other; ValueError if it is damaged.

    device: where they go; dtype: of the floating ones, the others stay as they are.
    """
    with _opened(path) as file:
        read = ((name, file.get_tensor(name)) for name in (file.keys() if names is None else names))
        return {name: _copied(tensor, device, dtype) for name, tensor in read}


def read_shapes(path: Path) -> Shapes:
    """The shapes of a safetensors file's tensors by name, for which only its head is read; ValueError if damaged."""
    with _opened(path) as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118


def read_metadata(path: Path) -> dict[str, str]:
    """What a safetensors file says of itself; ValueError if it is damaged."""
    with _opened(path) as file:
        return file.metadata() or {}


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except SafetensorError as error:
        with path.open("rb") as file:
            pointer = file.read(20) == b"version https://git-"
        fault = "is a Git LFS pointer: run `git lfs pull`" if pointer else f"is cut short or damaged ({error})"
        raise ValueError(f"{path} ({path.stat().st_size:,} bytes) {fault}, or copy or download it again.") from None


def _copied(tensor: Tensor, device: torch.device | str, dtype: torch.dtype) -> Tensor:
    """Its own memory, not the file's, which may be replaced while the tensor is in use."""
    return tensor.to(device, dtype if tensor.is_floating_point() else tensor.dtype, copy=True)
