"""Pictures of the page for the README: drawn faces, in light and dark.

    python -m scripts.page_pictures

writes `page_light.png` and `page_dark.png` into docs/images. Needs Chromium and
requirements-test.txt.
"""

import tempfile
import threading
from pathlib import Path

from PIL import Image

from pipeline.browser.server import Server
from pipeline.data import sample
from pipeline.settings import PageSettings
from pipeline.steps.page import site_files
from tests.browser import Browser

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"
SIDE = 240
"""Of a face in the picture, in pixels."""
STATUS = "document.getElementById('status').textContent"


def faces() -> Image.Image:
    """Six drawn faces in two rows."""
    drawn, _ = sample.draw(count=7, seed=1)
    picture = Image.new("RGB", (3 * SIDE, 2 * SIDE))
    for place, face in enumerate(drawn[1:]):
        tile = Image.fromarray(face).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        picture.paste(tile, (place % 3 * SIDE, place // 3 * SIDE))
    return picture


def main() -> None:
    files = site_files(PageSettings(networks="models/compact-int8.onnx"))
    with tempfile.TemporaryDirectory() as scratch, Server(files, port=0) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        faces().save(Path(scratch) / "faces.png")
        with Browser(Path(scratch) / "profile") as browser:
            for theme in ("light", "dark"):
                media = [{"name": "prefers-color-scheme", "value": theme}]
                browser.call("Emulation.setEmulatedMedia", features=media)
                browser.open(server.address, width=1120, height=640)
                browser.wait_for(f"{STATUS} === 'Ready.'", seconds=300)
                browser.choose("#file", Path(scratch) / "faces.png")
                browser.wait_for(f"/face.?:/.test({STATUS})")
                browser.screenshot(IMAGES / f"page_{theme}.png")
        server.shutdown()


if __name__ == "__main__":
    main()
