"""Images on web servers and in buckets: what is fetched, and what is said of what cannot be."""

from __future__ import annotations

import base64
import io
import json
import multiprocessing
import pickle
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import torch
from fakes import grouped, tiny_image_encoder, tiny_text_encoder, write_table
from PIL import Image

from robusttune.data import ImageTextDataModule, remote
from robusttune.data.images import UnreadableImageError
from robusttune.data.remote import Remote
from robusttune.data.sources import Table
from robusttune.data.stored_images import StoredImages
from robusttune.data.verify import verify
from robusttune.errors import RobustTuneError
from robusttune.paths import cache_home
from robusttune.types import Encoded


def png(colour: str = "red") -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (40, 30), colour).save(content, "PNG")
    return content.getvalue()


class Handler(BaseHTTPRequestHandler):
    """A server of images with all that servers do wrong; the path says what it does."""

    server: Site

    def do_GET(self) -> None:
        self.server.requests.append(self.path)
        self.server.headers.append(dict(self.headers))
        name = urlsplit(self.path).path.strip("/")
        getattr(self, name.partition("/")[0], self.absent)(name)

    def respond(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for key, value in ({"Content_Length": str(len(body)), "Content_Type": "image/png"} | headers).items():
            self.send_header(key.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def absent(self, name: str) -> None:
        self.respond(404)

    def image(self, name: str) -> None:
        self.respond(200, png(name.split("/")[1].removesuffix(".png")))

    def moved(self, name: str) -> None:
        self.respond(302, Location=f"/{name.removeprefix('moved/')}?token=secret")

    def circle(self, name: str) -> None:
        self.respond(302, Location="/circle")

    def away(self, name: str) -> None:
        self.respond(302, Location="file:///etc/passwd")

    def forever(self, name: str) -> None:
        self.respond(302, Location=f"/forever/{len(self.server.requests)}")

    def page(self, name: str) -> None:
        self.respond(200, b"<!DOCTYPE html><html>please log in</html>", Content_Type="text/html; charset=utf-8")

    def huge(self, name: str) -> None:
        self.respond(200, b"", Content_Length="10000000000")

    def endless(self, name: str) -> None:
        self.send_response(200)
        self.end_headers()
        with_end = time.monotonic() + 20
        while time.monotonic() < with_end:
            self.wfile.write(bytes(1 << 16))

    def truncated(self, name: str) -> None:
        self.respond(200, png()[:60], Content_Length=str(len(png())))

    def cut(self, name: str) -> None:
        self.respond(200, png()[:60])

    def empty(self, name: str) -> None:
        self.respond(200)

    def silent(self, name: str) -> None:
        self.server.released.wait(20)

    def dripping(self, name: str) -> None:
        self.send_response(200)
        self.end_headers()
        for byte in png():
            if self.server.released.wait(0.05):
                return
            self.wfile.write(bytes([byte]))

    def headers_byte_by_byte(self, name: str) -> None:
        """Send an endless header, until the client gives up."""
        with suppress(OSError):
            self.wfile.write(b"HTTP/1.0 200 OK\r\nX-Slow: ")
            while not self.server.released.wait(0.05):
                self.wfile.write(b"x")
        self.server.left.set()

    def busy(self, name: str) -> None:
        if self.server.requests.count(self.path) < 3:
            self.respond(503)
        else:
            self.respond(200, png())

    def hangs(self, name: str) -> None:
        """Send half of an image, and wait."""
        self.send_response(200)
        self.send_header("Content-Length", str(len(png())))
        self.end_headers()
        self.wfile.write(png()[:50])
        self.server.released.wait(20)

    def log_message(self, format: str, *args: Any) -> None:
        """Be quiet."""


class Site(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, handler: type[BaseHTTPRequestHandler] = Handler) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.requests: list[str] = []
        self.headers: list[dict[str, str]] = []
        self.released = threading.Event()
        self.left = threading.Event()  # set when a client has left a slow handler
        self.url = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Be quiet: clients that give up close the connection."""


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    monkeypatch.setattr(remote, "WAIT", 0.01)
    site = Site()
    threading.Thread(target=site.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield site
    site.released.set()
    site.shutdown()
    site.server_close()


def kept() -> list[Path]:
    """Return the files in the cache folder of images, but not the notes on URLs."""
    return [path for path in (cache_home() / "images").rglob("*") if path.is_file() and "urls" not in path.parts]


def test_an_image_is_fetched_once(site: Site) -> None:
    url = f"{site.url}/image/lime.png"
    for reader in (StoredImages(), pickle.loads(pickle.dumps(StoredImages())), StoredImages()):
        assert reader.read(url).getpixel((0, 0)) == (0, 255, 0)
        assert reader.content(url) == png("lime")
    assert site.requests == ["/image/lime.png"]
    other = StoredImages().digests([f"{site.url}/moved/image/lime.png", url])
    assert len({*other.values()}) == 1
    assert len(kept()) == 1  # by its content


@pytest.mark.parametrize(
    ("what", "problem", "requests"),
    [
        ("gone.png", "the server answers 404 Not Found", 1),
        ("circle", "the server redirects more than 5 times, or in a circle", None),
        ("forever", "the server redirects more than 5 times, or in a circle", 6),
        ("away", "the server redirects to something other than a web server", 1),
        ("page", r"the server sent a web page \(HTML\) instead", 1),
        ("huge", "it has 10,000.0 MB, more than data.source.remote.max_megabytes 1", 1),
        ("endless", "it has more than data.source.remote.max_megabytes 1", 1),
        ("truncated", r"the server sent 60 of \d+ bytes", 2),
        ("cut", "truncated", 1),
        ("empty", "it is empty", 1),
        ("silent", "no answer within 0.3 seconds", 2),
        ("dripping", "no answer within 0.3 seconds", 2),
    ],
)
def test_what_cannot_be_fetched_is_said_and_not_tried_again(
    site: Site, what: str, problem: str, requests: int | None
) -> None:
    reader = StoredImages(Remote(timeout=0.3, tries=2, max_megabytes=1))
    url = f"{site.url.replace('//', '//me:secret@')}/{what}?key=secret"
    for again in (reader, pickle.loads(pickle.dumps(reader))):
        with pytest.raises(UnreadableImageError, match=problem) as caught:
            again.read(url)
        assert str(caught.value).startswith(f"{site.url}/{what} cannot be read as an image (")
        assert "secret" not in str(caught.value)
    assert requests is None or len(site.requests) == requests
    assert not kept()
    notes = [path for path in cache_home().rglob("*") if path.is_file()]
    assert all("secret" not in path.read_text() for path in notes)
    made = len(site.requests)
    with pytest.raises(UnreadableImageError):  # the next run tries again
        StoredImages(Remote(timeout=0.3, tries=1, max_megabytes=1)).read(url)
    assert len(site.requests) > made


def test_a_busy_server_is_asked_again(site: Site) -> None:
    assert StoredImages().read(f"{site.url}/busy").size == (40, 30)
    assert len(site.requests) == 3


def test_no_server_at_all(site: Site) -> None:
    with pytest.raises(UnreadableImageError, match="Connection refused"):
        StoredImages(Remote(tries=1)).read("http://127.0.0.1:9/a.png")
    with pytest.raises(UnreadableImageError, match="its URL is not valid"):
        StoredImages().read("http://127.0.0.1:port/a.png")


def test_a_server_that_sends_its_headers_byte_by_byte_is_left(site: Site) -> None:
    """In time, and without a connection that stays open; also after a redirect."""
    start = time.monotonic()
    with pytest.raises(UnreadableImageError, match="no answer within 0.4 seconds"):
        StoredImages(Remote(timeout=0.4, tries=1)).read(f"{site.url}/moved/headers_byte_by_byte")
    assert time.monotonic() - start < 5
    assert site.left.wait(10)


def test_passwords_go_to_their_own_server_alone(site: Site) -> None:
    other = Site()
    threading.Thread(target=other.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    Handler.elsewhere = lambda self, name: self.respond(302, Location=f"{other.url}/image/red.png")  # type: ignore[attr-defined]
    StoredImages().read(f"{site.url.replace('//', '//me:secret@')}/elsewhere")
    assert site.headers[0]["Authorization"].startswith("Basic ")
    assert "Authorization" not in other.headers[0]
    other.shutdown()
    other.server_close()


def read_one(url: str) -> tuple[int, int]:
    return StoredImages().read(url).size


def test_several_processes_fetch_the_same_image(site: Site) -> None:
    with multiprocessing.get_context("fork").Pool(4) as pool:
        assert pool.map(read_one, [f"{site.url}/image/blue.png"] * 8, chunksize=1) == [(40, 30)] * 8
    assert [path.read_bytes() for path in kept()] == [png("blue")]


def test_a_process_that_is_killed_leaves_nothing_half(site: Site) -> None:
    process = multiprocessing.get_context("fork").Process(target=read_one, args=(f"{site.url}/hangs",))
    process.start()
    while not site.requests:
        time.sleep(0.02)
    time.sleep(0.1)
    process.kill()
    process.join()
    assert not kept()


class Bucket(Handler):
    """A stand-in for S3: it reads objects of the bucket ``photos``."""

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        self.server.requests.append(self.path)
        parts = urlsplit(self.path)
        bucket, _, key = parts.path.strip("/").partition("/")
        if bucket != "photos":
            self.fail(404, "NoSuchBucket", "The specified bucket does not exist")
        elif key == "private.png":
            self.fail(403, "AccessDenied", "Access Denied")
        elif key == "slow.png":
            self.server.released.wait(20)
        elif key == "huge.png":
            self.respond(200, b"", Content_Length="10000000000", ETag='"0"')
        elif key != "red.png":
            self.fail(404, "NoSuchKey", "The specified key does not exist.")
        else:
            body = b"" if self.command == "HEAD" else png()  # HTTP allows no body there
            about = {"ETag": '"0"', "Last_Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}
            self.respond(200, body, Content_Length=str(len(png())), **about)

    def fail(self, status: int, code: str, message: str) -> None:
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
        self.respond(status, b"" if self.command == "HEAD" else body.encode(), Content_Type="application/xml")


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    pytest.importorskip("s3fs").S3FileSystem.clear_instance_cache()  # an earlier one knows another address
    site = Site(Bucket)
    for name, value in {
        "AWS_ENDPOINT_URL": site.url,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    threading.Thread(target=site.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield site
    site.released.set()
    site.shutdown()
    site.server_close()


def test_images_in_a_bucket(bucket: Site, tmp_path: Path) -> None:
    path = write_table(tmp_path, "train", [{"image": "s3://photos/red.png", "text": "t", "label": "x"}])
    source = Table(train=str(path))
    records = source.read("train")
    assert records is not None
    name = records["image"][0].as_py()
    assert source.images.read(name).getpixel((0, 0)) == (255, 0, 0)
    with multiprocessing.get_context("fork").Pool(1) as pool:  # loader workers are forked
        assert pool.map(read_one, ["s3://photos/red.png"]) == [(40, 30)]


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("s3://photos/gone.png", "it does not exist"),
        ("s3://nowhere/red.png", "no such bucket|it does not exist"),
        ("s3://photos/private.png", "access is denied: check the credentials"),
        ("s3://photos/huge.png", "it has 10,000.0 MB, more than data.source.remote.max_megabytes 50"),
        ("s3://photos/slow.png", "no answer within 2 seconds"),
    ],
)
def test_what_cannot_be_fetched_from_a_bucket_is_said(bucket: Site, url: str, problem: str) -> None:
    with pytest.raises(UnreadableImageError, match=rf"^{url} cannot be read as an image \(({problem})\)$"):
        StoredImages(Remote(timeout=2 if "slow" in url else 60, tries=1)).read(url)


def table(folder: Path, site: Site, cells: list[str]) -> Table:
    colours = ["red", "blue"]
    rows = [{"image": cell, "text": "t", "label": colours[n % 2]} for n, cell in enumerate(cells)]
    train, val, test = (str(write_table(folder, split, rows)) for split in ("train", "val", "test"))
    return Table(train=train, val=val, test=test)


@pytest.mark.parametrize("unreadable", ["absent", "error"])
def test_batches_of_images_on_a_server(site: Site, tmp_path: Path, text_folder: Path, unreadable: Any) -> None:
    cells = [f"{site.url}/image/red.png", f"{site.url}/image/blue.png", f"{site.url}/gone.png"]
    encoders = tiny_image_encoder(), tiny_text_encoder(text_folder)
    data = ImageTextDataModule(table(tmp_path, site, cells), *encoders, unreadable=unreadable, **grouped(workers=2))
    data.setup("test")
    batch = next(iter(data.test_dataloader()))
    assert batch.image_present.tolist() == [True, True, False]
    assert "404" in batch.unreadable[0]
    if unreadable == "error":
        with pytest.raises(RobustTuneError, match="1 of 3 image files cannot be read: .*404 Not Found.*set data.unre"):
            data.on_before_batch_transfer(batch, 0)


def test_features_are_shared_wherever_an_image_is(site: Site, tmp_path: Path, text_folder: Path) -> None:
    """The same two images as files, on a server, as bytes and as base64: features are computed once."""
    for colour in ("red", "blue"):
        (tmp_path / f"{colour}.png").write_bytes(png(colour))
    layouts = {
        "files": ["red.png", "blue.png"],
        "urls": [f"{site.url}/image/red.png", f"{site.url}/moved/image/blue.png"],
        "texts": [base64.b64encode(png(colour)).decode() for colour in ("red", "blue")],
    }
    encoders = {"image_encoder": tiny_image_encoder().load(), "text_encoder": tiny_text_encoder(text_folder).load()}
    shards, pooled = [], []
    for name, cells in layouts.items():
        (tmp_path / name).mkdir()
        cells = [str(tmp_path / cell) if name == "files" else cell for cell in cells]
        data = ImageTextDataModule(
            table(tmp_path / name, site, cells),
            tiny_image_encoder(),
            tiny_text_encoder(text_folder),
            **grouped(workers=0, folder=str(tmp_path / "cache"), dtype="float32"),
        )
        data.setup("test")
        data.fill_cache("test", encoders)
        shards.append({*tmp_path.glob("cache/images-*/*/*.safetensors")})
        inputs = next(iter(data.test_dataloader())).images["clean"]
        assert isinstance(inputs, Encoded)
        pooled.append(inputs.pooled)
    assert len(shards[0]) > 0
    assert shards[0] == shards[1] == shards[2]
    assert torch.equal(pooled[0], pooled[1])
    assert torch.equal(pooled[0], pooled[2])


def test_dead_links_are_absent_in_the_cache(site: Site, tmp_path: Path, text_folder: Path) -> None:
    encoders = {"image_encoder": tiny_image_encoder().load(), "text_encoder": tiny_text_encoder(text_folder).load()}
    data = ImageTextDataModule(
        table(tmp_path, site, [f"{site.url}/image/red.png", f"{site.url}/gone.png"]),
        tiny_image_encoder(),
        tiny_text_encoder(text_folder),
        unreadable="absent",
        **grouped(workers=0, folder=str(tmp_path / "cache")),
    )
    data.setup("test")
    data.fill_cache("test", encoders)
    batch = next(iter(data.test_dataloader()))
    assert batch.image_present.tolist() == [True, False]
    assert sorted(site.requests) == ["/gone.png", "/image/red.png"]  # each once


def test_verify_reads_images_on_a_server(site: Site, tmp_path: Path, text_folder: Path) -> None:
    (tmp_path / "red.png").write_bytes(png("red"))
    cells = [f"{site.url}/image/red.png", "red.png", f"{site.url}/page?key=secret"]
    encoders = tiny_image_encoder(), tiny_text_encoder(text_folder)
    data = ImageTextDataModule(table(tmp_path, site, cells), *encoders, **grouped(workers=0))
    found = verify(data, None, threads=2, watch=lambda looks, total: looks)
    assert any("1 of 3 images unreadable" in problem and "web page" in problem for problem in found.problems), found
    assert "secret" not in json.dumps(found.__dict__)


def test_a_url_as_the_folder_of_images(site: Site, tmp_path: Path) -> None:
    path = write_table(tmp_path, "train", [{"image": "red.png", "text": "t", "label": "x"}])
    source = Table(train=str(path), image_root=f"{site.url}/image/")
    records = source.read("train")
    assert records is not None
    assert source.images.read(records["image"][0].as_py()).getpixel((0, 0)) == (255, 0, 0)
    for cell in ("../secret.png", "/etc/0.png"):
        write_table(tmp_path, "train", [{"image": cell, "text": "t", "label": "x"}])
        with pytest.raises(RobustTuneError, match="1 name an image outside of the folder of images"):
            source.read("train")


@pytest.mark.parametrize("name", ["timeout", "tries", "max_megabytes"])
def test_limits_are_above_0(name: str) -> None:
    with pytest.raises(RobustTuneError, match=f"data.source.remote.{name} is 0: give more than 0"):
        Remote(**{name: 0})
