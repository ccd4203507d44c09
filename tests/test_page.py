"""The page for a browser finds and reads faces as Python does, and asks only its own server."""

import json
import re
import signal
import socket
import struct
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from pipeline.browser import runtime, server
from pipeline.browser.server import Server
from pipeline.browser.site import Content
from pipeline.data import pictures, sample
from pipeline.errors import InputError
from pipeline.exported import network
from pipeline.faces import crop, detector
from tests.browser import Browser, fake_camera, write_video
from tests.commands import ROOT, until
from tests.conftest import Command, Start

NETWORK = ROOT / "models" / "compact-votes-int8.onnx"
TOLERANCE = 0.002
"""Largest difference of a probability from Python's: two builds of ONNX Runtime round apart."""
STATUS = "document.getElementById('status').textContent"
PROBLEM = "document.getElementById('problem').textContent"
METERS = "[...document.querySelectorAll('meter')].map(meter => meter.value)"


@contextmanager
def serving(files: dict[str, Content]) -> Iterator[str]:
    """The address of a server of `files`."""
    with Server(files, port=0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.address
        server.shutdown()


def photograph() -> Image.Image:
    """A picture (480, 640) of a small and a large drawn face, in colours."""
    faces, _ = sample.draw(count=7, seed=1)
    picture = Image.new("RGB", (640, 480), (200, 205, 190))
    for face, size, place in ((faces[3], 150, (60, 90)), (faces[5], 240, (340, 120))):
        grey = Image.fromarray(face).resize((size, size), Image.Resampling.BICUBIC)
        tinted = Image.merge(
            "RGB", [grey, grey.point(lambda v: v * 0.9), grey.point(lambda v: v * 0.8)]
        )
        picture.paste(tinted, place)
    return picture


def expected(picture: Image.Image, faces: int) -> list[float]:
    """Python's probabilities for the largest face; with 0 found faces, for the whole picture."""
    pixels = np.asarray(picture.convert("RGB"))
    boxes = detector.find(pixels)
    assert len(boxes) == faces
    largest = max(boxes, key=lambda box: (box[2] - box[0]) * (box[3] - box[1]), default=None)
    face = pictures.as_face(pixels) if largest is None else crop.crop(pixels, largest)
    [probabilities] = network.load(NETWORK).predict(face[None, ..., None])
    return [float(share) for share in probabilities]


@pytest.fixture
def needs_detector() -> None:
    if not detector.installed():
        pytest.skip("needs requirements-faces.txt")


@pytest.mark.slow
@pytest.mark.usefixtures("needs_detector")
def test_a_browser_reads_faces_as_python_does_and_asks_only_its_server(
    command: Command, tmp_path: Path
) -> None:
    (tmp_path / "lost.onnx").write_bytes(NETWORK.read_bytes())
    done = command("pipeline.page", out="public", networks=f"{NETWORK},lost.onnx")
    assert done.returncode == 0, done.stderr
    public = tmp_path / "public"
    files: dict[str, Content] = {
        str(file.relative_to(public)): file for file in public.rglob("*") if file.is_file()
    }
    assert {Path(name).suffix for name in files} <= server.TYPES.keys()
    del files["networks/1.onnx"]
    picture = photograph()
    picture.save(tmp_path / "faces.png")
    write_video(picture, tmp_path / "camera.y4m")
    close = Image.fromarray(sample.draw(count=7, seed=1)[0][3][22:46, 8:30])
    close.save(tmp_path / "close.png")
    (tmp_path / "words.png").write_text("no picture")

    camera = fake_camera(tmp_path / "camera.y4m")
    with serving(files) as address, Browser(tmp_path / "profile", *camera) as browser:
        browser.open(address, width=390)
        browser.wait_for(f"{STATUS} === 'Ready.'")
        browser.choose("#file", tmp_path / "faces.png")
        browser.wait_for(f"{STATUS}.startsWith('2 faces: ')")
        assert browser.value(METERS) == pytest.approx(expected(picture, 2), abs=TOLERANCE)
        assert browser.value("document.documentElement.scrollWidth") <= 390

        browser.choose("#file", tmp_path / "close.png")
        browser.wait_for(f"{STATUS}.startsWith('1 face: ')")
        assert browser.value(METERS) == pytest.approx(expected(close, 0), abs=TOLERANCE)

        browser.choose("#file", tmp_path / "words.png")
        browser.wait_for(f"{PROBLEM}.startsWith('words.png is not a picture')")
        browser.value("network.value = 'networks/1.onnx'; network.onchange()")
        assert browser.value(PROBLEM).startswith(
            "The network lost can't be loaded (networks/1.onnx"
        )
        assert browser.value("network.value") == "networks/0.onnx"
        assert browser.complaints() == []

        browser.value("camera.click()")
        browser.wait_for(f"{STATUS}.startsWith('2 faces: ')")
        browser.wait_for("/^[0-9.]+ frames.s; [0-9]+ ms/.test(speed.textContent)")
        assert sum(browser.value(METERS)) == pytest.approx(1, abs=0.01)
        browser.value("camera.click()")
        browser.wait_for(f"{STATUS} === 'The camera is off.'")

        hosts = {urlsplit(url).netloc for url in browser.requests()}
        assert hosts == {urlsplit(address).netloc}
        assert {url.rpartition("/")[2] for url in browser.requests()} >= {"worker.js", "full.onnx"}
        browser.value("fetch('http://127.0.0.1:9/').catch(() => 0)")
        assert any("Content Security Policy" in str(event) for event in browser.complaints())


@pytest.mark.slow
@pytest.mark.usefixtures("needs_detector")
def test_the_page_is_served_until_ctrl_c(start: Start) -> None:
    child = start("pipeline.page", networks=NETWORK, port=0)
    child.wait_for("Ctrl-C")
    address = re.findall(r"http://127\.0\.0\.1:\d+/", child.stdout)[0]
    with urllib.request.urlopen(f"{address}site.json", timeout=60) as answer:
        site = json.load(answer)
    assert site["networks"][0]["classes"] == list(network.load(NETWORK).classes)
    child.send(signal.SIGINT)
    assert child.end() == 0, child.stderr
    assert child.stderr == ""


@pytest.mark.parametrize(
    ("method", "path", "host", "status"),
    [
        ("GET", "", None, 200),
        ("GET", "index.html?a=1", None, 200),
        ("GET", "", "evil.example", 403),
        ("GET", "", "127.0.0.1:1", 403),
        ("POST", "", None, 501),
        ("GET", "../pyproject.toml", None, 404),
        ("GET", "%2e%2e/pyproject.toml", None, 404),
        ("GET", "/etc/passwd", None, 404),
    ],
)
def test_the_server_gives_its_files_to_this_computer(
    method: str, path: str, host: str | None, status: int
) -> None:
    with serving({"index.html": b"<!doctype html>"}) as address:
        given = {"Host": host} if host else {}
        request = urllib.request.Request(address + path, method=method, headers=given)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                found, headers = answer.status, answer.headers
        except urllib.error.HTTPError as error:
            found, headers = error.code, error.headers
    assert found == status
    if status == 200:
        assert headers["Content-Security-Policy"].startswith("default-src 'none'; ")
        assert headers["X-Content-Type-Options"] == "nosniff"


def test_a_browser_that_goes_away_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    with serving({"big.wasm": bytes(50_000_000)}) as address:
        place = urlsplit(address)
        with socket.create_connection((place.hostname, place.port)) as browser:
            browser.sendall(f"GET /big.wasm HTTP/1.1\r\nHost: {place.netloc}\r\n\r\n".encode())
            browser.recv(1000)
            reset = struct.pack("ii", 1, 0)  # closes the connection by a reset
            browser.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        until(lambda: "process_request" not in str(threading.enumerate()))
    assert capsys.readouterr().err == ""


def test_a_port_that_is_taken_is_one_line() -> None:
    with Server({}, port=0) as first, pytest.raises(InputError, match="give --port"):
        Server({}, port=first.server_port)


def test_another_runtime_than_the_pinned_one_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    name = f"{runtime.PACKAGE}/-/{runtime.PACKAGE}-{runtime.VERSION}.tgz"
    monkeypatch.setitem(server.TYPES, ".tgz", "application/gzip")
    with serving({name: b"another"}) as address:
        monkeypatch.setenv("npm_config_registry", address)
        with pytest.raises(InputError, match="is not the one that is expected"):
            runtime.files()
    with pytest.raises(InputError, match="can't be fetched"):
        runtime.files()
    folder = tmp_path / ".cache/emotion-search/page" / f"{runtime.PACKAGE}-{runtime.VERSION}"
    folder.mkdir()
    with pytest.raises(InputError, match="delete "):
        runtime.files()
