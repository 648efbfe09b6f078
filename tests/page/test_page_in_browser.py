"""The page in a real browser: a sample is given, switched, corrupted and compared with the predictor.

The picture in the README is made by ``make page-picture``, which sets PAGE_PICTURE to the file to write.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from PIL import Image

import robusttune
from robusttune.data.sources import Shapes
from robusttune.inference import Prediction, Predictor

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
PICTURE = os.environ.get("PAGE_PICTURE")  # file to write
PATIENCE = 180  # seconds; a busy machine is slow
TEXT = "a large red circle"
WAIT = 0.4  # seconds, longer than the page waits for further changes

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None or DRIVER is None, reason="needs chromium and chromium-driver"),
]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    own = {"run_root": tmp_path_factory.mktemp("runs"), "data.cache.folder": None, "trainer.precision": "32-true"}
    small = {} if PICTURE else {"trainer.max_epochs": 1, "data.source.train": 1000}
    return robusttune.fit("demo", own | small).folder


@contextmanager
def serving(run: Path, log: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Start the command, and return its process and the address that it has printed."""
    command = [sys.executable, "-m", "robusttune", "demo", f"--ckpt_path={run}", "--port=0"]
    with (
        log.open("w") as errors,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True) as started,
    ):
        assert started.stdout is not None
        try:
            line = started.stdout.readline()
            found = re.fullmatch(r"the page is at (http://127\.0\.0\.1:\d+/) \(Ctrl-C ends it\)\n", line)
            assert found is not None, line + log.read_text()
            yield started, found[1]
        finally:
            started.kill()


@pytest.fixture(scope="module")
def address(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with serving(run, tmp_path_factory.mktemp("log") / "stderr") as (_, address):
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER or ""
    flags = ("headless", "no-sandbox", "disable-gpu", "disable-dev-shm-usage", "disable-background-networking")
    for flag in (*flags, "hide-scrollbars", "window-size=1240,1040"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.set_page_load_timeout(PATIENCE)
    yield driver
    driver.quit()


class Visitor:
    """What a visitor does on the page, and sees."""

    def __init__(self, browser: Any, address: str) -> None:
        self.browser = browser
        browser.get(address)
        self.wait()

    def find(self, selector: str) -> Any:
        return self.browser.find_element("css selector", selector)

    def wait(self) -> str:
        """Wait until the page has an answer, and return its state, ``ready`` or ``error``."""
        end = time.monotonic() + PATIENCE
        time.sleep(WAIT)
        while (state := self.find("body").get_attribute("data-state")) == "busy":
            assert time.monotonic() < end, "the page has no answer"
            time.sleep(0.1)
        return str(state)

    def upload(self, path: Path) -> str:
        self.find("#file").send_keys(str(path))
        return self.wait()

    def write(self, text: str) -> str:
        self.find("#text").clear()
        self.find("#text").send_keys(text)
        return self.wait()

    def choose(self, name: str, value: str) -> str:
        self.find(f"input[name={name}][value={value}] + span").click()
        return self.wait()

    def probabilities(self, condition: str) -> dict[str, float]:
        """Return the listed classes of a condition with their probabilities."""
        rows = self.browser.find_elements("css selector", f"[data-condition={condition}] .row")
        return {row.get_attribute("data-name"): float(row.get_attribute("data-probability")) for row in rows}

    def text_of(self, selector: str) -> str:
        return str(self.find(selector).text)


@pytest.fixture
def visitor(browser: Any, address: str) -> Iterator[Visitor]:
    """Return a visitor; at the end, check that the page has asked this machine alone, and broke no rule of its own."""
    yield Visitor(browser, address)
    entries = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [entry["params"]["request"]["url"] for entry in entries if entry["method"] == "Network.requestWillBeSent"]
    assert len(asked) > 5
    assert {urlsplit(url).hostname for url in asked if not url.startswith("data:")} == {"127.0.0.1"}
    problems = [entry["message"] for entry in browser.get_log("browser")]
    assert [problem for problem in problems if "status of 422" not in problem] == []


@pytest.fixture(scope="module")
def model(run: Path) -> Predictor:
    return robusttune.load(run)


@pytest.fixture
def scene(tmp_path: Path) -> Path:
    Shapes(test=8).draw("test", 5).save(tmp_path / "scene.png")
    return tmp_path / "scene.png"


def one(model: Predictor, **given: Any) -> Prediction:
    found = model.predict(**given)
    assert isinstance(found, Prediction)
    return found


def test_a_visitor_gives_a_sample_and_switches_the_image_off(visitor: Visitor, model: Predictor, scene: Path) -> None:
    assert visitor.upload(scene) == "ready"
    assert visitor.write(TEXT) == "ready"
    given = {
        "complete": one(model, image=scene, text=TEXT),
        "no_image": one(model, text=TEXT),
        "no_text": one(model, image=scene),
    }
    for condition, expected in given.items():
        found = visitor.probabilities(condition)
        assert len(found) == 5
        assert next(iter(found)) == expected.label
        assert found == pytest.approx({name: expected.probabilities[name] for name in found}, abs=1e-5)
    assert visitor.text_of("#label") == f"{given['complete'].label} {100 * given['complete'].probability:.1f} %"
    assert visitor.choose("image_mode", "remove") == "ready"
    assert visitor.text_of("#label") == f"{given['no_image'].label} {100 * given['no_image'].probability:.1f} %"
    assert visitor.text_of("#basis") == "from the text alone"
    assert visitor.text_of("article.current h3") == "Without the image"
    assert visitor.choose("text_mode", "remove") == "ready"
    assert "how frequent the classes were in training" in visitor.text_of("#basis")


def test_noise_changes_what_the_model_gets(visitor: Visitor, scene: Path) -> None:
    visitor.upload(scene)
    visitor.write(TEXT)
    clean, picture = visitor.probabilities("no_text"), visitor.find("#picture").get_attribute("src")
    assert visitor.choose("image_mode", "noise") == "ready"
    assert visitor.probabilities("no_text") != clean
    assert visitor.find("#picture").get_attribute("src") != picture
    assert visitor.choose("text_mode", "noise") == "ready"
    assert visitor.text_of("#read").startswith("The model reads: ")
    assert visitor.choose("image_mode", "keep") == "ready"
    assert visitor.probabilities("no_text") == clean


def test_examples_are_a_click_away(visitor: Visitor, model: Predictor) -> None:
    buttons = visitor.browser.find_elements("css selector", ".example")
    assert len(buttons) == 12
    for number in (7, 3):
        visitor.browser.execute_script("arguments[0].click()", buttons[number])
        assert visitor.wait() == "ready"
        assert visitor.find("#text").get_attribute("value") == buttons[number].text
        assert visitor.text_of("#known").startswith("Label in the data: ")
    found = visitor.probabilities("no_image")
    expected = one(model, text=buttons[3].text).probabilities
    assert found == pytest.approx({name: expected[name] for name in found}, abs=1e-5)


def test_hostile_files_get_a_sentence_and_the_page_lives_on(visitor: Visitor, scene: Path, tmp_path: Path) -> None:
    def large(path: Path) -> None:
        with path.open("wb") as file:
            file.truncate(100 * 1024**2)

    files: dict[str, tuple[Callable[[Path], Any], str]] = {
        "a.svg": (lambda path: path.write_text("<svg xmlns='http://www.w3.org/2000/svg'/>"), "its format is SVG"),
        "b.jpg": (lambda path: path.write_bytes(scene.read_bytes()[:200]), "b.jpg cannot be read as an image"),
        "c.png": (lambda path: path.write_text("<script>alert(1)</script>"), "its format is not known"),
        "d.png": (large, "d.png has 100 MB, more than the 10 MB that this page takes"),
        "<img src=x onerror=alert(1)>.png": (lambda path: path.write_text("x"), "cannot be read as an image"),
    }
    for name, (write, words) in files.items():
        write(tmp_path / name)
        assert visitor.upload(tmp_path / name) == "error"
        assert words in visitor.text_of("#error")
    assert visitor.upload(scene) == "ready"
    visitor.browser.execute_script("arguments[0].value = 'a'.repeat(20000)", visitor.find("#text"))
    visitor.find("#text").send_keys("b")
    assert visitor.wait() == "error"
    assert "20001 characters" in visitor.text_of("#error")
    assert visitor.write(TEXT) == "ready"
    assert not visitor.find("#error").is_displayed()


def test_a_narrow_window_has_everything_in_one_column(visitor: Visitor) -> None:
    size = visitor.browser.get_window_size()
    try:
        visitor.browser.set_window_size(500, 900)
        assert visitor.browser.execute_script("return document.documentElement.scrollWidth <= window.innerWidth")
        lefts = {visitor.find(name).rect["x"] for name in ("#image-panel", "#text-panel", ".headline")}
        assert len(lefts) == 1
    finally:
        visitor.browser.set_window_size(size["width"], size["height"])


def test_the_picture_of_the_readme(visitor: Visitor, tmp_path: Path) -> None:
    """Show an example whose text is noisy, so that the conditions differ."""
    visitor.browser.set_window_size(1240, 1150)
    visitor.choose("text_mode", "noise")
    path = Path(PICTURE or tmp_path / "page.png")
    visitor.browser.save_screenshot(str(path))
    first = visitor.find(".example").rect
    with Image.open(path) as picture:  # The first row of examples is enough.
        shown = picture.convert("RGB").crop((0, 0, picture.width, int(first["y"] + first["height"]) + 8))
        # The default method would give up rare colours, such as those of the examples.
        palette = shown.quantize(method=Image.Quantize.MAXCOVERAGE, kmeans=4, dither=Image.Dither.NONE)
        palette.save(path, optimize=True)
    assert path.stat().st_size < 150_000


def test_ctrl_c_ends_it(run: Path, tmp_path: Path) -> None:
    with serving(run, tmp_path / "stderr") as (started, _):
        started.send_signal(signal.SIGINT)
        output, _ = started.communicate(timeout=PATIENCE)
        assert (started.returncode, output) == (0, "the page is closed\n")
