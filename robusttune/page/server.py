"""The web server of the page: three files, the examples, and the predictions."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from contextlib import suppress
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from robusttune.corruption.noise import IMAGE_NOISE, SEVERITIES, TEXT_NOISE
from robusttune.data.images import UnreadableImageError
from robusttune.errors import RobustTuneError
from robusttune.inference import Predictor
from robusttune.page.comparison import compare
from robusttune.page.examples import Example
from robusttune.page.sample import TEXT_CHARACTERS, UPLOAD_BYTES, read_sample

log = logging.getLogger(__name__)

LOOPBACK = ("127.0.0.1", "localhost", "::1")
AT_ONCE = 2  # number of samples that are read and predicted at the same time, which bounds the memory
FORM_BYTES = 64 * 1024  # beyond the image: a text, in up to four bytes a character, and switches
FILES = {"/": "page.html", "/style.css": "style.css", "/script.js": "script.js", "/favicon.ico": "icon.svg"}
TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}
HEADERS = {
    # The browser loads nothing from elsewhere, runs no script from a text, and shows the page in no other site.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Page:
    """The page of one model.

    Args:
        model: Model.
        name: Name of the model on the page.
        examples: Samples to try.

    Example:
        >>> from robusttune.page.server import Page, application
        >>> model = robusttune.load("runs/demo/0")  # doctest: +SKIP
        >>> application(Page(model, "demo", []), "127.0.0.1")  # doctest: +SKIP
    """

    def __init__(self, model: Predictor, name: str, examples: list[Example]) -> None:
        self.model = model
        self.name = name
        self.examples = examples
        encoders = model.classifiers[0].encoder_settings
        self.encoders = list(dict.fromkeys(settings.name for settings in encoders.values()))
        self.preprocessing = encoders["image_encoder"].preprocessing()  # type: ignore[attr-defined]
        self.limit = asyncio.Semaphore(AT_ONCE)

    async def file(self, request: web.Request) -> web.Response:
        """Return one of the files of the page."""
        name = FILES[request.path]
        body = files("robusttune.page").joinpath("static", name).read_bytes()
        return web.Response(body=body, content_type=TYPES[name.rpartition(".")[2]], charset="utf-8")

    async def about(self, request: web.Request) -> web.Response:
        """Return what the page has to know: the model, the kinds of noise, the limits and the examples."""
        del request
        examples = [
            {"image": each.image is not None, "text": each.text, "labels": each.labels} for each in self.examples
        ]
        about: dict[str, Any] = {
            "name": self.name,
            "classes": len(self.model.classes),
            "encoders": self.encoders,
            "multilabel": self.model.facts.multilabel,
            "threshold": self.model.threshold,
            "noise": {"image": [*IMAGE_NOISE], "text": [*TEXT_NOISE]},
            "severities": [*SEVERITIES],
            "limits": {"bytes": UPLOAD_BYTES, "characters": TEXT_CHARACTERS},
            "examples": examples,
        }
        return web.json_response(about)

    async def example(self, request: web.Request) -> web.Response:
        """Return the image of an example."""
        number = int(request.match_info["number"])
        found = self.examples[number] if number < len(self.examples) else None
        if found is None or found.image is None:
            raise web.HTTPNotFound
        return web.Response(body=found.image, content_type=found.content_type)

    async def predict(self, request: web.Request) -> web.Response:
        """Return the predictions for an uploaded sample, see `compare`."""
        if (request.content_length or 0) > UPLOAD_BYTES + FORM_BYTES:  # before anything of it is read
            raise _too_large()
        async with self.limit:
            form = await _form(request)
            return web.json_response(await asyncio.to_thread(self._predict, form))

    def _predict(self, form: dict[str, Any]) -> dict[str, Any]:
        upload = form.pop("image", None)
        content, name = None, "the image"
        if isinstance(upload, web.FileField):
            content, name = upload.file.read(), (upload.filename or name)[:80]
        fields = {key: value for key, value in form.items() if isinstance(value, str)}
        texts = (each.text for each in self.examples if each.text and each.text.strip() != fields.get("text", ""))
        return compare(self.model, read_sample(content, name, fields, self.preprocessing, next(texts, None)))


def application(page: Page, host: str) -> web.Application:
    """Return the web application of a page.

    Args:
        page: Page.
        host: Address at which it will listen. At a loopback address, it answers only requests that name one: a foreign
            site could otherwise give its own name this address, and read the page in the visitor's browser.
    """
    app = web.Application(middlewares=[_guard(host)], client_max_size=UPLOAD_BYTES + FORM_BYTES)
    app.add_routes([web.get(path, page.file) for path in FILES])
    app.add_routes([web.get("/about", page.about), web.get(r"/examples/{number:\d{1,4}}", page.example)])
    app.add_routes([web.post("/predict", page.predict)])
    return app


async def serve(app: web.Application, host: str, port: int, started: Callable[[int], None]) -> None:
    """Serve an application until the task is cancelled.

    Args:
        app: Application.
        host: Address to listen at.
        port: Port to listen at, or 0 for a free one.
        started: Function that is called with the port once the server listens.

    Raises:
        RobustTuneError: The address cannot be used.
    """
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except (OSError, OverflowError) as error:
            number = getattr(error, "errno", None) or 0  # asyncio adds the address to strerror
            reason = os.strerror(number) if number > 0 else getattr(error, "strerror", None) or str(error).rstrip(".")
            raise RobustTuneError(
                f"the page cannot listen at {host}, port {port} ({reason}): give another --host or --port"
            ) from None
        started(runner.addresses[0][1])
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


async def _form(request: web.Request) -> dict[str, Any]:
    """Return the fields of a request.

    Raises:
        RobustTuneError: The request is larger than an upload may be, or no form.
    """
    try:
        return dict(await request.post())
    except web.HTTPRequestEntityTooLarge:
        raise _too_large() from None
    except Exception as error:  # The parser of forms raises ValueError, AssertionError, RuntimeError, LookupError, ...
        raise RobustTuneError(f"the upload is not a form ({type(error).__name__}): use the page") from None


def _too_large() -> RobustTuneError:
    return RobustTuneError(f"the upload has more than {UPLOAD_BYTES // 1024**2} MB: give a smaller image")


def _guard(host: str) -> Any:
    """Return a middleware that turns errors into sentences, sets the headers, and refuses requests of other sites."""

    @web.middleware
    async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            _refuse_foreign(request, host)
            response = await handler(request)
        except (RobustTuneError, UnreadableImageError) as error:
            response = _sentence(str(error), 422)
        except web.HTTPException as error:
            response = _sentence(error.reason, error.status)
        except Exception:
            log.exception("the page could not answer a request")
            response = _sentence("this did not work: the reason is in the terminal of the server", 500)
        response.headers.update(HEADERS)
        return response

    return guard


def _refuse_foreign(request: web.Request, host: str) -> None:
    """Raise an error for a request that a page of another site has made."""
    named = None
    with suppress(ValueError):
        named = urlsplit(f"//{request.host}").hostname
    if host in LOOPBACK and named not in LOOPBACK:
        raise web.HTTPForbidden(reason="the page is open to this machine only")
    if request.headers.get("Sec-Fetch-Site", "none") == "cross-site" and request.method != "GET":
        raise web.HTTPForbidden(reason="another site has made this request")


def _sentence(sentence: str, status: int) -> web.Response:
    return web.json_response({"error": sentence}, status=status)
