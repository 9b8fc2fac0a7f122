"""The page, as a person meets it: in headless Chromium, driven by the DevTools protocol."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from serving_helpers import make_model, picture, serving

from gdas_tf.export.inference import Classifier
from gdas_tf.export.serving.images import load_image
from gdas_tf.spaces.genotype import GENOTYPES

SHAPE = (8, 8, 3)
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
    "--window-size=1100,1500",
)

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")


class Page:
    """A tab of Chromium, with what its console and its network said."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._numbers = itertools.count(1)
        self.complaints: list[str] = []
        self.requested: list[str] = []
        for domain in ("Page", "Runtime", "Log", "Network", "DOM"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._connection.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._connection.recv(timeout=60))
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]
            self._note(message)

    def _note(self, message: dict[str, Any]) -> None:
        parameters = message.get("params", {})
        if message["method"] == "Runtime.exceptionThrown":
            self.complaints.append(parameters["exceptionDetails"]["text"])
        elif message["method"] == "Log.entryAdded":
            self.complaints.append(parameters["entry"]["text"])
        elif message["method"] == "Network.requestWillBeSent":
            self.requested.append(parameters["request"]["url"])

    def run(self, code: str) -> Any:
        """Returns the value of JavaScript."""
        return self.call("Runtime.evaluate", expression=code, returnByValue=True)["result"].get("value")

    def wait(self, code: str) -> Any:
        """Waits until JavaScript is true, and returns its value."""
        end = time.monotonic() + 60
        while not (value := self.run(code)):
            assert time.monotonic() < end, f"{code}: {self.run('document.body.innerText')}"
            time.sleep(0.05)
        return value

    def drop(self, path: Path) -> None:
        """Drags a file onto the page and lets it go."""
        data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", type=kind, x=200, y=250, data=data)

    def choose(self, path: Path) -> None:
        """Chooses a file as by the button."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector="#file")["nodeId"]
        self.call("DOM.setFileInputFiles", files=[str(path)], nodeId=node)

    def screenshot(self, name: str) -> None:
        """Writes a picture of the page to the folder in $GDAS_TF_SCREENSHOTS, if it is set."""
        if folder := os.environ.get("GDAS_TF_SCREENSHOTS"):
            data = self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
            Path(folder, f"{name}.png").write_bytes(base64.b64decode(data))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Opens pages in one Chromium."""
    from websockets.sync.client import connect

    profile = tmp_path_factory.mktemp("profile")
    process = subprocess.Popen(
        [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", "about:blank"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        told = profile / "DevToolsActivePort"
        end = time.monotonic() + 60
        while not (told.exists() and told.read_text().count("\n") >= 1):
            assert process.poll() is None and time.monotonic() < end, "Chromium did not start"
            time.sleep(0.05)
        port = told.read_text().split()[0]
        opened = contextlib.ExitStack()

        def open_page(url: str) -> Page:
            target = requests.put(f"http://127.0.0.1:{port}/json/new?about:blank").json()
            page = Page(opened.enter_context(connect(target["webSocketDebuggerUrl"], max_size=2**26)))
            page.call("Page.navigate", url=url)
            return page

        with opened:
            yield open_page
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    genotype = GENOTYPES["GDAS_V1"].to_json()
    metadata = {"genotype": genotype, "accuracy": 0.9712, "parameters": 3369934, "precision": "float32"}
    return make_model(tmp_path_factory.mktemp("page") / "net.onnx", SHAPE, metadata=metadata)


def bars(page: Page) -> list[list[str]]:
    page.wait("document.querySelectorAll('#bars li').length == 5")
    return page.run(
        "[...document.querySelectorAll('#bars li')].map(item => [item.querySelector('.label').textContent, "
        "item.querySelector('.value').textContent, item.querySelector('.bar').style.width])"
    )


def wanted_bars(model: Path, file: Path) -> list[tuple[str, str]]:
    classifier = Classifier.load(model)
    probabilities = classifier.classify(load_image(file.read_bytes(), classifier.image_shape)[None])[0]
    return [
        (classifier.class_names[index], f"{100 * probabilities[index]:.1f} %")
        for index in np.argsort(-probabilities)
    ]


def test_drop_a_picture(browser: Any, model: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first.png", tmp_path / "second.jpg"
    picture((8, 8), seed=3).save(first)
    picture((300, 200), seed=4).save(second, "JPEG")
    with serving(model) as server:
        page = browser(server.url)
        page.wait("document.readyState == 'complete' && !document.getElementById('content').hidden")
        assert "net" in page.run("document.title")
        figures = page.run("document.getElementById('figures').innerText")
        for text in ("97.12 %", "3,369,934", "8 × 8, colour", "float32"):
            assert text in figures
        for cell in ("normal", "reduction"):  # drawn, and really shown
            assert page.wait(f"document.getElementById('{cell}').naturalWidth") > 100
            page.wait(f"document.getElementById('{cell}').offsetWidth > 100")
        page.screenshot("empty")
        page.drop(first)
        found = bars(page)
        assert [tuple(item[:2]) for item in found] == wanted_bars(model, first)
        assert float(found[0][2].rstrip("%")) == pytest.approx(float(found[0][1].rstrip(" %")), abs=0.06)
        page.wait("document.getElementById('preview').naturalWidth == 8")
        assert "first.png" in page.wait("document.getElementById('timing').textContent")
        page.choose(second)
        page.wait("document.getElementById('timing').textContent.includes('second.jpg')")
        assert [tuple(item[:2]) for item in bars(page)] == wanted_bars(model, second)
        page.screenshot("classified")
        page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
        page.screenshot("dark")
        page.call("Emulation.setEmulatedMedia", features=[])
        fits(page, 390)
        fits(page, 320)
        page.screenshot("narrow")
        assert not page.complaints
        assert all(url.startswith((server.url, "blob:", "about:")) for url in page.requested), page.requested
        # What is wrong is said.
        broken = tmp_path / "broken.png"
        broken.write_bytes(first.read_bytes()[:60])
        page.choose(broken)
        page.wait("document.getElementById('message').textContent.includes('damaged or cut off')")
        assert page.run("document.querySelectorAll('#bars li').length") == 0


@pytest.mark.slow
def test_token_and_choice_of_models(browser: Any, model: Path, tmp_path: Path) -> None:
    other = make_model(tmp_path / "other.onnx", (6, 6, 1), seed=5)
    with serving(model, other, environment={"GDAS_TF_TOKEN": "s3cret"}) as server:
        page = browser(server.url)
        page.wait("document.getElementById('token-form') && !document.getElementById('token-form').hidden")
        assert page.run("document.getElementById('content').hidden")
        for token, condition in (
            ("wrong", "document.getElementById('token-message').textContent.includes('not accepted')"),
            ("s3cret", "!document.getElementById('content').hidden"),
        ):
            page.run(f"document.getElementById('token').value = '{token}'")
            page.run("document.querySelector('#token-form button').click()")
            page.wait(condition)
            page.screenshot(f"token-{token}")
        assert page.wait("document.getElementById('normal').naturalWidth") > 100
        page.run("document.getElementById('model').value = '1'")
        page.run("document.getElementById('model').dispatchEvent(new Event('change'))")
        assert "6 × 6, grey" in page.run("document.getElementById('figures').innerText")
        assert page.run("document.getElementById('cells').hidden")
        file = tmp_path / "grey.png"
        picture((6, 6), "L").save(file)
        page.drop(file)
        assert [tuple(item[:2]) for item in bars(page)] == wanted_bars(other, file)
        # Another model: what stands there is not its answer.
        left = page.run(
            "document.getElementById('model').value = '0';"
            "document.getElementById('model').dispatchEvent(new Event('change'));"
            "document.querySelectorAll('#bars li').length + document.getElementById('timing').textContent"
        )
        assert left == "0"
        assert [tuple(item[:2]) for item in bars(page)] == wanted_bars(model, file)
        fits(page, 320)


def fits(page: Page, width: int) -> None:
    """Makes the window so narrow: nothing may need scrolling to the side, or stick out."""
    page.call("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=True)
    assert page.run("document.documentElement.scrollWidth") <= width
    outside = page.run(
        "[...document.querySelectorAll('body *')].filter(item => item.id != 'file' && item.offsetWidth && "
        f"item.getBoundingClientRect().right > {width}).map(item => item.tagName + '#' + item.id)"
    )
    assert outside == []


@pytest.mark.slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(browser: Any, model: Path, tmp_path: Path, scheme: str) -> None:
    """Edges of what can be used, and bars, by WCAG 2: 3 to 1 at least; text 4.5 to 1."""
    file = tmp_path / "one.png"
    picture((8, 8)).save(file)
    with serving(model, make_model(tmp_path / "other.onnx", SHAPE)) as server:
        page = browser(server.url)
        page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        page.wait("document.readyState == 'complete' && !document.getElementById('content').hidden")
        page.drop(file)
        bars(page)
        page.run("document.getElementById('token-form').hidden = false")

        def style(selector: str, name: str) -> np.ndarray:
            code = f"getComputedStyle(document.querySelector('{selector}')).getPropertyValue('{name}')"
            return np.array([int(value) for value in re.findall(r"\d+", page.run(code))[:3]]) / 255

        def light(colour: np.ndarray) -> float:
            linear = np.where(colour <= 0.04045, colour / 12.92, ((colour + 0.055) / 1.055) ** 2.4)
            return float(linear @ (0.2126, 0.7152, 0.0722))

        def contrast(first: np.ndarray, second: np.ndarray) -> float:
            low, high = sorted((light(first), light(second)))
            return (high + 0.05) / (low + 0.05)

        ground, card = style("body", "background-color"), style(".card", "background-color")
        for selector, behind in (("#model", ground), ("#drop", card), ("#token", card), ("button", card)):
            assert contrast(style(selector, "border-top-color"), behind) >= 3, selector
        track = style(".track", "background-color")
        for selector in ("#bars li:first-child .bar", "#bars li:last-child .bar"):
            assert contrast(style(selector, "background-color"), track) >= 3, selector
        for selector in (".muted", "#drop", "#bars .label", "dt", "dd"):
            assert contrast(style(selector, "color"), card) >= 4.5, selector
