"""A headless Chromium, driven through a pipe: for tests that look at a page as a reader does."""

import base64
import itertools
import json
import math
import os
import shutil
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
from PIL import Image, ImageChops

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--remote-debugging-pipe",
)  # fmt: skip


FAKE_CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")


def fake_camera(video: Path) -> tuple[str, ...]:
    """Flags for a camera that shows a video again and again, to pages that need not ask for it."""
    return *FAKE_CAMERA, f"--use-file-for-fake-video-capture={video}"


def write_video(picture: Image.Image, file: Path, frames: int = 30) -> None:
    """Write a picture that sways by 8 pixels, once a second, as YUV4MPEG2 (.y4m)."""
    width, height = picture.size
    with file.open("wb") as out:
        out.write(f"YUV4MPEG2 W{width} H{height} F{frames}:1 Ip A1:1 C420jpeg\n".encode())
        for number in range(frames):
            shift = round(8 * math.sin(2 * math.pi * number / frames))
            luma, *colours = ImageChops.offset(picture, shift, 0).convert("YCbCr").split()
            halves = [colour.resize((width // 2, height // 2)) for colour in colours]
            out.write(b"FRAME\n" + b"".join(plane.tobytes() for plane in (luma, *halves)))


class Browser:
    """A tab of Chromium; `events` are the messages that it sent by itself (DevTools protocol).

    Those of the page's workers are among them. Skips the test where there is no Chromium.
    """

    def __init__(self, profile: Path, *flags: str) -> None:
        found = next((path for name in NAMES if (path := shutil.which(name))), None)
        if found is None:
            pytest.skip("needs Chromium")
        self.events: list[dict[str, Any]] = []
        self._numbers = itertools.count(1)
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        # Chromium reads from descriptor 3 and writes to 4; the shell puts the pipes there.
        command = f'exec "$@" 3<&{theirs_in} 4>&{theirs_out}'
        self._process = subprocess.Popen(
            ["bash", "-c", command, "bash", found, *FLAGS, *flags, f"--user-data-dir={profile}"],
            pass_fds=(theirs_in, theirs_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(theirs_in)
        os.close(theirs_out)
        self._out, self._in = os.fdopen(ours_out, "wb"), os.fdopen(ours_in, "rb")
        self._rest = b""
        self._tab: dict[str, str] = {}
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._tab = {"sessionId": attached["sessionId"]}
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        self.call(
            "Target.setAutoAttach", autoAttach=True, waitForDebuggerOnStart=True, flatten=True
        )

    def __enter__(self) -> "Browser":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._out.close()
        self._in.close()

    def call(self, method: str, **arguments: object) -> Any:
        """Call a method of the protocol and return its result. Raises AssertionError."""
        number = self._send(method, arguments, self._tab)
        while (answer := self._read()).get("id") != number:
            self._keep(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def _send(self, method: str, arguments: dict[str, Any], to: dict[str, str]) -> int:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": arguments} | to
        self._out.write(json.dumps(message).encode() + b"\0")
        self._out.flush()
        return number

    def _keep(self, answer: dict[str, Any]) -> None:
        """Keep an event; listen to a worker that has begun before it goes on."""
        if answer.get("method") == "Target.attachedToTarget" and self._tab:
            worker = {"sessionId": answer["params"]["sessionId"]}
            for method in ("Network.enable", "Runtime.enable", "Runtime.runIfWaitingForDebugger"):
                self._send(method, {}, worker)
        if "method" in answer:  # the rest are answers for which nobody waits
            self.events.append(answer)

    def open(self, page: Path | str, width: int, height: int = 900, scale: float = 1) -> None:
        """Open a file or an address in a window of that size and wait until it is loaded.

        `scale` is the number of dots for each pixel.
        """
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=scale, mobile=False,
        )  # fmt: skip
        self.events.clear()
        self.call("Page.navigate", url=page.as_uri() if isinstance(page, Path) else page)
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self._keep(self._read())

    def value(self, script: str) -> Any:
        """The value of a JavaScript expression on the page."""
        result = self.call(
            "Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait_for(self, script: str, seconds: float = 300) -> Any:
        """Wait until the value of an expression is true; the value."""
        deadline = time.monotonic() + seconds
        while not (found := self.value(script)):
            assert time.monotonic() < deadline, f"{script}: {self.value('document.body.innerText')}"
            time.sleep(0.1)
        return found

    def choose(self, selector: str, file: Path) -> None:
        """Choose a file in an <input type="file">, as its dialog does."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(file)])

    def screenshot(self, file: Path, *, whole: bool = True) -> None:
        """Write a PNG of the whole page, or of the window."""
        taken = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        file.write_bytes(base64.b64decode(taken["data"]))

    def hover(self, x: float, y: float) -> None:
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def requests(self) -> list[str]:
        """Addresses that the page has asked for."""
        sent = [e for e in self.events if e["method"] == "Network.requestWillBeSent"]
        return [event["params"]["request"]["url"] for event in sent]

    def complaints(self) -> list[dict[str, Any]]:
        """Exceptions and messages on the console."""
        kinds = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        return [event for event in self.events if event["method"] in kinds]

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            received = os.read(self._in.fileno(), 1 << 16)
            assert received, "Chromium has ended"
            self._rest += received
        message, _, self._rest = self._rest.partition(b"\0")
        return dict(json.loads(message))
