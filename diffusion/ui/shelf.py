"""The checkpoints that the app offers: one menu, and event handlers that work on the one chosen there."""

import inspect
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial, wraps
from typing import Any

from diffusion import checkpoints
from diffusion.ui.errors import polite
from diffusion.ui.studio import Limits, Studio


class Shelf:
    """Studios by the names of their checkpoints; each is opened when somebody first asks for it, and stays open."""

    def __init__(self, first: Studio, others: Sequence[str] = (), open: Callable[[str], Studio] = Studio.load) -> None:
        """first: the one that the app begins with; others: names that `open` knows."""
        self.default, self.limits, self._open = first, first.limits, open
        self.names = first.name, *(name for name in others if name != first.name)
        self._studios = {first.name: first}
        self._lock = threading.Lock()

    @classmethod
    def load(cls, first: str, device: str, limits: Limits) -> "Shelf":
        """The checkpoint `first` (a name, a folder or a Hub id), and every other model under checkpoints/."""
        engine = threading.Lock()
        open = partial(Studio.load, device=device, limits=limits, engine=engine)
        return cls(open(first), [name for name, kind in checkpoints.names().items() if kind == "model"], open)

    def __getitem__(self, name: object) -> Studio:
        """
        Raises:
            ValueError: no such checkpoint is offered here, or it cannot be opened.
        """
        if name not in self.names:
            raise ValueError(f"No checkpoint {str(name)[:40]!r} here; the choices are {', '.join(self.names)}.")
        with self._lock:
            if name not in self._studios:
                self._studios[name] = self._open(name)
                self._studios[name].name = name  # its folder's, whatever its config says
            return self._studios[name]

    def on(self, handler: Callable[..., Any]) -> Callable[..., Any]:
        """handler(studio, ...) as the handler of an event whose first input is the menu, polite about what is wrong."""
        if inspect.isgeneratorfunction(inspect.unwrap(handler)):

            @polite
            @wraps(handler)
            def chosen(name: str, *inputs: Any) -> Iterator[Any]:
                yield from handler(self[name], *inputs)

            return chosen

        @polite
        @wraps(handler)
        def chosen(name: str, *inputs: Any) -> Any:
            return handler(self[name], *inputs)

        return chosen
