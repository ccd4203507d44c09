"""Frames a second and latency of the page in a headless Chromium, with a fake camera.

    python -m benchmarks.browser --picture PHOTOGRAPH --networks A.onnx,B.onnx

The camera shows the picture, fitted into 640x480 and swaying, at 30 frames a second. Figures of
the page itself are read from it; processor time is that of all of Chromium's processes.
"""

import os
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import psutil
from PIL import Image, ImageOps
from rich.console import Console
from rich.table import Table

from benchmarks import processor, run
from pipeline.browser.server import Server
from pipeline.settings import PageSettings
from pipeline.steps.page import site_files
from tests.browser import Browser, fake_camera, write_video

SIZE = 640, 480


@dataclass(frozen=True)
class Options:
    picture: Path
    """A photograph of faces, which the camera shows."""
    networks: str = "models/compact-votes-int8.onnx"
    """.onnx files with commas between."""
    seconds: float = 20
    """Time for each network, after the first five."""


def measure(options: Options) -> None:
    files = site_files(PageSettings(networks=options.networks))
    table = Table("network", "status", "frames/s, latency", "CPU ms/frame", "load")
    with tempfile.TemporaryDirectory() as scratch, Server(files, port=0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        video = Path(scratch) / "camera.y4m"
        write_video(ImageOps.pad(Image.open(options.picture).convert("RGB"), SIZE), video)
        with Browser(Path(scratch) / "profile", *fake_camera(video)) as browser:
            browser.open(server.address, width=1000)
            status = "document.getElementById('status').textContent"
            browser.wait_for(f"{status} === 'Ready.'", seconds=300)
            browser.value("camera.click()")
            for index, name in enumerate(options.networks.split(",")):
                browser.value(f"network.selectedIndex = {index}; network.onchange()")
                time.sleep(5)
                cpu = _cpu_seconds()
                frames = browser.value(_COUNT_FRAMES % (1000 * options.seconds))
                cpu = _cpu_seconds() - cpu
                table.add_row(
                    Path(name).stem, browser.value(status), browser.value("speed.textContent"),
                    f"{1000 * cpu / max(frames, 1):.0f}", f"{os.getloadavg()[0]:.1f}",
                )  # fmt: skip
        server.shutdown()
    Console().print(table)
    print(processor())


_COUNT_FRAMES = """new Promise(done => {
  let frames = 0;
  const seen = new MutationObserver(() => frames++);
  seen.observe(speed, {childList: true});
  setTimeout(() => { seen.disconnect(); done(frames); }, %d);
})"""
"""Number of frames that were read: the page shows its speed after each."""


def _cpu_seconds() -> float:
    """Processor time of the children of this process, which are Chromium's."""
    total = 0.0
    for child in psutil.Process().children(recursive=True):
        try:
            times = child.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system
    return total


if __name__ == "__main__":
    run(measure, Options)
