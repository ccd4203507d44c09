"""Pictures of the README, in light and dark, taken with Chromium.

    make pictures

writes `page` (drawn faces in the page that reads expressions), `study` (the newest study of this
folder) and `trainings` (its trainings in MLflow) as `NAME-light.png` and `NAME-dark.png`, and
`annotated.jpg` (drawn faces as `predict` marks them) into docs/images. Needs requirements-test.txt
and requirements-faces.txt.
"""

import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
import numpy as np
from mlflow import MlflowClient
from PIL import Image

from pipeline.browser.server import Server
from pipeline.data import CLASSES, sample
from pipeline.runs import experiment
from pipeline.runs.queries import use_store
from pipeline.settings import PageSettings, PredictSettings
from pipeline.steps.page import site_files
from pipeline.steps.predict import predict
from tests.browser import Browser

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"
THEMES = ("light", "dark")
SIDE = 240
"""Of a drawn face, in pixels."""
SIZE = (1280, 778)
"""Width and height in pixels: the study's first two plots end there."""
SCALE = 1.5
"""Dots of a picture for each pixel of the study's and MLflow's pages."""

_MLFLOW = """
localStorage.setItem("_mlflow_dark_mode_toggle_enabled", "{dark}");
localStorage.setItem("databricks-dark-mode-pref", "{theme}");
localStorage.setItem("mlflow.assistant.fab.autoOpenedOnFirstLoad_v1", "true");
localStorage.setItem("mlflow.assistant.panelOpen_v1", "false");
"""
"""MLflow's theme, and its assistant closed, before its page is loaded."""
_TABLE = "/[1-9][0-9]* matching run/.test(document.body ? document.body.innerText : '')"
_STATUS = "document.getElementById('status').textContent"


def main() -> None:
    use_store()
    site = Server(site_files(PageSettings(networks="models/compact-votes-int8.onnx")), port=0)
    threading.Thread(target=site.serve_forever, daemon=True).start()
    with mlflow_pages() as port, tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        study = newest_study(Path(scratch))
        faces = Path(scratch) / "faces.png"
        drawn_faces().save(faces)
        predict(PredictSettings(str(faces), annotate=scratch))
        shutil.copyfile(f"{faces}.jpg", IMAGES / "annotated.jpg")
        for theme in THEMES:
            with Browser(Path(scratch) / theme) as browser:
                media = [{"name": "prefers-color-scheme", "value": theme}]
                browser.call("Emulation.setEmulatedMedia", features=media)
                browser.call("Emulation.setScrollbarsHidden", hidden=True)
                browser.open(site.address, width=1120, height=640)
                browser.wait_for(f"{_STATUS} === 'Ready.'")
                browser.choose("#file", faces)
                browser.wait_for(f"/face.?:/.test({_STATUS})")
                browser.screenshot(IMAGES / f"page-{theme}.png")

                browser.open(study, *SIZE, scale=SCALE)
                browser.screenshot(IMAGES / f"study-{theme}.png", whole=False)

                settings = _MLFLOW.format(theme=theme, dark=str(theme == "dark").lower())
                browser.call("Page.addScriptToEvaluateOnNewDocument", source=settings)
                browser.open(experiment.view_address(port=port), *SIZE, scale=SCALE)
                browser.wait_for(_TABLE)
                time.sleep(3)  # for what is still moving
                browser.screenshot(IMAGES / f"trainings-{theme}.png", whole=False)


def drawn_faces() -> Image.Image:
    """A drawn face of each class but disgust, in two rows, of a seed whose faces are found."""
    drawn, labels = sample.draw(count=28, seed=59)
    picture = Image.new("RGB", (3 * SIDE, 2 * SIDE))
    shown = [code for code, name in enumerate(CLASSES) if name != "disgust"]
    for place, code in enumerate(shown):
        face = Image.fromarray(drawn[np.argmax(labels == code)])
        tile = face.resize((SIDE, SIDE), Image.Resampling.BICUBIC)
        picture.paste(tile, (place % 3 * SIDE, place // 3 * SIDE))
    return picture


def newest_study(folder: Path) -> Path:
    """The page of the newest study that has ended, copied there. Ends the program without one."""
    client = MlflowClient()
    ids = [found.experiment_id for found in client.search_experiments()]
    ended = "tags.step = 'study' and attributes.status = 'FINISHED'"
    runs = client.search_runs(ids, ended, order_by=["attributes.start_time DESC"])
    if not runs:
        sys.exit("error: no study on record; python -m search.optuna_study makes one")
    name = {"run_id": runs[0].info.run_id, "artifact_path": "study.html"}
    return Path(mlflow.artifacts.download_artifacts(**name, dst_path=str(folder)))


@contextmanager
def mlflow_pages() -> Iterator[int]:
    """MLflow's pages on a free port of this computer."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    command = ["mlflow", "ui", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    server = subprocess.Popen(
        [sys.executable, "-m", *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        while not answers(port):
            if server.poll() is not None:
                sys.exit("error: mlflow ui has ended by itself")
            time.sleep(0.5)
        yield port
    finally:
        server.terminate()
        server.wait()


def answers(port: int) -> bool:
    """Whether a server listens on a port of this computer."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


if __name__ == "__main__":
    main()
