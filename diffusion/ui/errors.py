"""The engine's errors as the app's: one sentence in a toast, never a traceback."""

import functools
import html
import inspect
from collections.abc import Callable
from typing import TypeVar

import gradio as gr

Handler = TypeVar("Handler", bound=Callable)


def polite(handler: Handler) -> Handler:
    """A handler whose ValueErrors, the engine's way to refuse, reach the visitor as their sentence."""
    if inspect.isgeneratorfunction(handler):

        @functools.wraps(handler)
        def generator(*args, **kwargs):
            try:
                yield from handler(*args, **kwargs)
            except ValueError as error:
                raise _shown(error) from None

        return generator

    @functools.wraps(handler)
    def function(*args, **kwargs):
        try:
            return handler(*args, **kwargs)
        except ValueError as error:
            raise _shown(error) from None

    return function


def _shown(error: ValueError) -> gr.Error:
    """Toasts are HTML, and a sentence may quote what a visitor typed: it is escaped."""
    return gr.Error(html.escape(str(error)), title="That does not work", print_exception=False)
