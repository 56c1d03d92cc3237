"""Between the network and the app: refuses what no visitor of good will sends, and gives nothing away."""

import json
import logging
import re
from typing import Any

import gradio as gr
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from diffusion.ui.studio import Limits

log = logging.getLogger(__name__)

MAX_JSON = 2 * 2**20  # bytes; the largest that the app itself sends is a picture with its mask
FORM = 2**20  # bytes that the form around an uploaded file may take
ADDRESS = re.compile(r"\s*([a-z][a-z0-9+.-]+:|//)", re.IGNORECASE)
LOCAL = re.compile(r"(localhost|127\.\d+\.\d+\.\d+|\[::1\])(:\d+)?")

HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "strict-origin-when-cross-origin",
    # Gradio compiles its components' templates in the page: it cannot do without inline scripts and eval.
    "Content-Security-Policy": "; ".join(
        (
            "default-src 'self'",
            "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:",
            "style-src 'self' 'unsafe-inline'",
            "img-src 'self' data: blob:",
            "media-src 'self' data: blob:",
            "font-src 'self' data:",
            "connect-src 'self' data: blob:",
            "worker-src 'self' blob:",
            "object-src 'none'",
            "base-uri 'self'",
            "form-action 'self'",
            "frame-ancestors 'self' https://huggingface.co https://*.hf.space",
        )
    ),
}

UNKNOWN = "No endpoint here takes this request: the address ?view=api lists the endpoints and their parameters."
BROKEN = "Something went wrong here; the server's log says what."
UNFIT = "One of the inputs has a value that its control cannot have: reload the page and try again."


def app_kwargs(limits: Limits) -> dict[str, Any]:
    """For launch: the guard in front of every route, and one sentence for a body that its route cannot read."""
    return {
        "middleware": [Middleware(Guard, upload=limits.upload * 2**20 + FORM)],
        "exception_handlers": {RequestValidationError: _misshapen},
    }


class GuardedBlocks(gr.Blocks):
    """Blocks whose visitors read no exception but those written for them: the others are logged."""

    async def preprocess_data(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return await super().preprocess_data(*args, **kwargs)
        except gr.Error as error:  # a component's own sentence
            error.print_exception = False
            raise
        except Exception as error:
            log.warning("refused an input: %s", str(error)[:200])
            raise _error(UNFIT) from None

    async def process_api(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return await super().process_api(*args, **kwargs)
        except gr.Error:
            raise
        except Exception:
            log.exception("an event failed")
            raise _error(BROKEN) from None


class Guard:
    """ASGI middleware: bounded bodies, JSON that is an object, no file by foreign address, security headers."""

    def __init__(self, app: ASGIApp, upload: int) -> None:
        self.app, self.upload = app, upload

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def send_secured(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        try:
            await self.app(scope, await self._checked(scope, receive), send_secured)
        except Exception as error:
            if started:
                raise
            await _answer(scope, error)(scope, receive, send_secured)

    async def _checked(self, scope: Scope, receive: Receive) -> Receive:
        headers, path = Headers(scope=scope), scope["path"]
        if re.search(r"/(file|proxy)=\s*https?:", path, re.IGNORECASE):
            raise Refused(403, "Files of other servers are not fetched here.")
        if scope["method"] in ("GET", "HEAD", "OPTIONS"):
            return receive
        if headers.get("sec-fetch-site") == "cross-site" and LOCAL.fullmatch(headers.get("host", "")):
            raise Refused(403, "Another website may not use an app that runs on this machine.")
        if path.rstrip("/").endswith("/upload"):
            return _bounded(receive, headers, self.upload)
        body = await _read(_bounded(receive, headers, MAX_JSON))
        _check_json(body)
        return _replayed(body, receive)


class Refused(Exception):
    """A request that is answered with this status and sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


def _answer(scope: Scope, error: Exception) -> Response:
    if isinstance(error, Refused):
        return JSONResponse({"detail": str(error)}, error.status)
    log.error("%s %s failed", scope["method"], scope["path"], exc_info=error)
    # Nothing that a handler does arrives here: Gradio could not even find the event that a POST meant.
    status, sentence = (400, UNKNOWN) if scope["method"] == "POST" else (500, BROKEN)
    return JSONResponse({"detail": sentence}, status)


async def _misshapen(request: Request, error: RequestValidationError) -> JSONResponse:
    where = ".".join(map(str, error.errors()[0]["loc"]))
    return JSONResponse({"detail": f"This endpoint takes another body; what is wrong first is {where[:80]}."}, 422)


def _error(sentence: str) -> gr.Error:
    return gr.Error(sentence, title="That did not work", print_exception=False)


def _bounded(receive: Receive, headers: Headers, most: int) -> Receive:
    """`receive`, refusing a body of more than `most` bytes, whatever its length was said to be."""
    too_large = Refused(413, f"The request is too large: at most {most / 2**20:g} MB here.")
    if int(headers.get("content-length", "0")) > most:
        raise too_large
    size = 0

    async def bounded() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > most:
            raise too_large
        return message

    return bounded


async def _read(receive: Receive) -> bytes:
    body, more = bytearray(), True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return bytes(body)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """`receive` as if the body had not been read yet."""
    left = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return left.pop() if left else await receive()

    return replayed


def _check_json(body: bytes) -> None:
    if not body:
        return
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise Refused(400, "The body is not JSON that can be read.") from None
    if not isinstance(value, dict):
        raise Refused(400, "The body must be a JSON object.")
    if _names_address(value):
        raise Refused(400, "Files must be uploaded; addresses are not fetched here.")


def _names_address(value: Any) -> bool:
    """Whether a file in this JSON is one that the server would have to get from somewhere else."""
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, dict):
            path, url = item.get("path"), item.get("url")
            if isinstance(path, str) and ADDRESS.match(path):
                return True
            if isinstance(url, str) and url.lstrip()[:5].lower() == "data:":
                return True
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)
    return False
