"""Films as they are saved: the panes of a finished run, side by side in one file."""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from diffusion import export
from diffusion.ui.errors import polite

SIDE, GAP = 280, 8  # pixels in a saved film: of a pane, about, and between panes


@dataclass(frozen=True)
class Reel:
    """A finished film as it is saved: pane title -> uint8 (T, H, W) or (T, H, W, 3), and a name for its file."""

    panes: dict[str, np.ndarray]
    name: str


def download(elem_id: str) -> str:
    """The script that presses the hidden download button of this id."""
    return f"""() => {{
        const file = document.querySelector("#{elem_id}");
        (file.matches("a, button") ? file : file.querySelector("a, button")).click();
    }}"""


@polite
def save(suffix: str, reel: Reel | None, titles: Sequence[str]) -> Iterator[str]:
    """Writes the chosen panes as a film, hands over its path, and removes it once it is handed over."""
    if reel is None:
        raise ValueError("There is no finished film here to save: let a run come to its end.")
    if not titles:
        raise ValueError("Choose at least one of the panes to save.")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{reel.name}{suffix}"
        export.save_film(path, side_by_side([pane for title, pane in reel.panes.items() if title in titles]))
        yield str(path)


def side_by_side(panes: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Panes (T, H, W) or (T, H, W, 3), enlarged to about one size, as frames of one film."""
    enlarged = []
    for pane in panes:
        if max(other.ndim for other in panes) > pane.ndim:
            pane = np.stack([pane] * 3, -1)
        scale = max(1, SIDE // max(pane.shape[1:3]))
        enlarged.append(pane.repeat(scale, 1).repeat(scale, 2))
    height = max(pane.shape[1] for pane in enlarged)
    rest = [(0, 0)] * (enlarged[0].ndim - 3)
    framed = [
        np.pad(pane, [(0, 0), ((height - pane.shape[1]) // 2, (height - pane.shape[1] + 1) // 2), (0, GAP), *rest])
        for pane in enlarged
    ]
    return list(np.concatenate(framed, 2)[:, :, :-GAP])
