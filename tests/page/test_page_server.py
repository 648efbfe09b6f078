"""The server of the page: what it answers, what it refuses, and that it lives on."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from io import BytesIO
from typing import Any

import pytest
from aiohttp import ClientResponse, FormData
from aiohttp.test_utils import TestClient, TestServer
from PIL import Image

from robusttune.commands import demo
from robusttune.data.sources import World
from robusttune.encoders import CLIPImageEncoder, CLIPTextEncoder
from robusttune.errors import RobustTuneError
from robusttune.inference import Prediction, Predictor
from robusttune.models.zero_shot import ZeroShotClassifier
from robusttune.page.examples import load_examples
from robusttune.page.sample import UPLOAD_BYTES
from robusttune.page.server import Page, application, serve
from robusttune.types import Facts

CLIP: dict[str, Any] = {"name": "robusttune:demo_clip", "first_layer": 2}
Client = Any
HOSTILE_CLASS = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def page() -> Page:
    facts = Facts(["red circle", "blue square", HOSTILE_CLASS], [0.5, 0.3, 0.2], multilabel=False)
    model = Predictor([ZeroShotClassifier(CLIPImageEncoder(**CLIP), CLIPTextEncoder(**CLIP), facts).eval()])
    return Page(model, "zero-shot", load_examples(None, World(part="base").class_names))


def talk(page: Page, *calls: Callable[[Client], Awaitable[Any]], host: str = "127.0.0.1") -> list[Any]:
    """Serve the page, and return what each call of a client returns."""

    async def run() -> list[Any]:
        async with TestClient(TestServer(application(page, host))) as client:
            return [await call(client) for call in calls]

    return asyncio.run(run())


def get(path: str, **options: Any) -> Callable[[Client], Awaitable[tuple[ClientResponse, bytes]]]:
    async def call(client: Client) -> tuple[ClientResponse, bytes]:
        response = await client.get(path, **options)
        return response, await response.read()

    return call


def post(data: Any, **options: Any) -> Callable[[Client], Awaitable[tuple[int, dict[str, Any]]]]:
    async def call(client: Client) -> tuple[int, dict[str, Any]]:
        response = await client.post("/predict", data=data, **options)
        return response.status, await response.json()

    return call


def form(image: bytes | None = None, **fields: str) -> FormData:
    made = FormData(fields)
    if image is not None:
        made.add_field("image", image, filename="photo.png", content_type="image/png")
    return made


def png() -> bytes:
    content = BytesIO()
    Image.new("RGB", (64, 48), "red").save(content, "PNG")
    return content.getvalue()


def test_a_sample_is_predicted(page: Page) -> None:
    ((status, found),) = talk(page, post(form(png(), text="a red circle")))
    expected = page.model.predict(image=png(), text="a red circle")
    assert isinstance(expected, Prediction)
    assert status == 200
    assert dict(found["conditions"]["complete"]["top"]) == pytest.approx(expected.probabilities, abs=1e-5)
    assert found["used"] == ["image", "text"]


def test_everything_that_the_page_loads_is_served(page: Page) -> None:
    (answer, html), (_, about), (picture, content), *others = talk(
        page, get("/"), get("/about"), get("/examples/3"), *map(get, ("/style.css", "/script.js", "/favicon.ico"))
    )
    assert answer.status == 200
    assert b"http://" not in html
    assert b"https://" not in html
    assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    found = json.loads(about)
    assert found["classes"] == 3
    assert len(found["examples"]) == len(page.examples)
    assert {"gaussian", "occlusion"} <= {*found["noise"]["image"]}
    assert (picture.headers["Content-Type"], content) == ("image/png", page.examples[3].image)
    assert all(response.status == 200 and body for response, body in others)


def test_unknown_addresses_are_not_found(page: Page) -> None:
    for response, _ in talk(page, get("/examples/99"), get("/examples/../server.py"), get("/static/page.html")):
        assert response.status == 404


def test_it_answers_after_hostile_requests(page: Page) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(UPLOAD_BYTES // 2**20 + 2):
            yield bytes(2**20)

    *refused, (status, found) = talk(
        page,
        post(form(b"<svg/>")),
        post(form(png()[:60])),
        post(form(text="a" * 20_000)),
        post(form(text="a", image_mode="x")),
        post(b"no form", headers={"Content-Type": "multipart/form-data"}),
        post(b"no form", headers={"Content-Type": "multipart/form-data; boundary=x"}),
        post(
            b"--x\r\nContent-Disposition: form-data\r\n\r\n",
            headers={"Content-Type": "multipart/form-data; boundary=x"},
        ),
        post(endless(), headers={"Content-Type": "application/x-www-form-urlencoded"}),
        post(form(text="a red circle")),
    )
    for number, (refusal, answer) in enumerate(refused):
        assert refusal == 422, (number, answer)
        assert len(answer["error"].splitlines()) == 1
    assert refused[-1][1]["error"] == "the upload has more than 10 MB: give a smaller image"
    assert (status, found["used"]) == (200, ["text"])


def test_a_large_upload_is_refused_before_it_is_read(page: Page) -> None:
    async def claim(client: Client) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", client.port)
        length = b"Content-Length: 104857600\r\nContent-Type: multipart/form-data; boundary=x\r\n\r\n"
        writer.write(b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1\r\n" + length)
        answer = await reader.readuntil(b"}")
        writer.close()
        return answer

    (answer,) = talk(page, claim)
    assert b"the upload has more than 10 MB" in answer


def test_other_sites_are_refused(page: Page) -> None:
    """A site that gives its name the address 127.0.0.1 cannot read the page; one that posts to it is not answered."""
    (rebound, _), (odd, _), (status, _), (own, _), (ipv6, _) = talk(
        page,
        get("/about", headers={"Host": "evil.example"}),
        get("/about", headers={"Host": "[127.0.0.1"}),
        post(form(text="a"), headers={"Sec-Fetch-Site": "cross-site"}),
        get("/about", headers={"Host": "localhost:7860"}),
        get("/about", headers={"Host": "[::1]:7860"}),
    )
    assert (rebound.status, status) == (403, 403)
    assert odd.status in (400, 403)  # aiohttp may refuse it itself
    assert (own.status, ipv6.status) == (200, 200)
    ((opened, _),) = talk(page, get("/about", headers={"Host": "gpu7.example"}), host="0.0.0.0")
    assert opened.status == 200


def test_an_error_of_the_model_is_a_sentence(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(page.model, "predict", fail)
    ((status, found),) = talk(page, post(form(text="a")))
    assert status == 500
    assert found == {"error": "this did not work: the reason is in the terminal of the server"}


def test_many_at_once(page: Page) -> None:
    async def many(client: Client) -> list[tuple[int, dict[str, Any]]]:
        return await asyncio.gather(*(post(form(png(), text=f"a red circle {n}"))(client) for n in range(12)))

    (found,) = talk(page, many)
    assert [status for status, _ in found] == [200] * 12
    assert [answer["text"] for _, answer in found] == [f"a red circle {n}" for n in range(12)]


@pytest.mark.parametrize(
    ("port", "reason"),
    [(None, "Address already in use"), (70_000, r"bind\(\): port must be 0-65535")],
    ids=["in use", "no port"],
)
def test_an_address_that_cannot_be_used(page: Page, port: int | None, reason: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1] if port is None else port
        with pytest.raises(RobustTuneError, match=rf"port {number} \({reason}\): give another --host or --port$"):
            asyncio.run(serve(application(page, "127.0.0.1"), "127.0.0.1", number, print))


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "find_spec", lambda name: None)
    with pytest.raises(RobustTuneError, match=r"pip install 'robusttune\[demo\]'"):
        demo.run(["--ckpt_path", "runs/demo/0"])
