"""Pictures of the README: the trainings of this folder's runs in MLflow, and its newest study.

    make pictures

opens both in a headless Chromium and writes `trainings` and `study` as `-light.png` and
`-dark.png` into docs/images.
"""

import base64
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import mlflow
from mlflow import MlflowClient

from pipeline.runs import experiment
from pipeline.runs.queries import use_store
from tests.browser import Browser

IMAGES = Path(__file__).resolve().parent.parent / "docs" / "images"
THEMES = ("light", "dark")
SIZE = (1280, 716)
"""Width and height in pixels: the study's first two plots end there."""
SCALE = 1.5
"""Dots of the picture for each pixel of the page."""
WAIT_S = 90

_SETTINGS = """
localStorage.setItem("_mlflow_dark_mode_toggle_enabled", "{dark}");
localStorage.setItem("databricks-dark-mode-pref", "{theme}");
localStorage.setItem("mlflow.assistant.fab.autoOpenedOnFirstLoad_v1", "true");
localStorage.setItem("mlflow.assistant.panelOpen_v1", "false");
"""
"""MLflow's theme, and its assistant closed, before the page is loaded."""
_TABLE = "/[1-9][0-9]* matching run/.test(document.body ? document.body.innerText : '')"


def main() -> None:
    use_store()
    study = newest_study()
    with served() as port, tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        for theme in THEMES:
            with Browser(Path(scratch) / theme) as browser:
                take(browser, "study", theme, study.as_uri(), "true")
                take(browser, "trainings", theme, experiment.view_address(port=port), _TABLE)


def newest_study() -> Path:
    """The page of the newest study that has ended. Ends the program if there is none."""
    client = MlflowClient()
    ids = [found.experiment_id for found in client.search_experiments()]
    ended = "tags.step = 'study' and attributes.status = 'FINISHED'"
    runs = client.search_runs(ids, ended, order_by=["attributes.start_time DESC"])
    if not runs:
        sys.exit("error: no study on record; python -m search.optuna_study makes one")
    scratch = tempfile.mkdtemp()
    return Path(
        mlflow.artifacts.download_artifacts(
            run_id=runs[0].info.run_id, artifact_path="study.html", dst_path=scratch
        )
    )


@contextmanager
def served() -> Iterator[int]:
    """MLflow's pages on a free port of this computer."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    command = ["mlflow", "ui", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    server = subprocess.Popen(
        [sys.executable, "-m", *command], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield port
    finally:
        server.terminate()
        server.wait()


def take(browser: Browser, name: str, theme: str, url: str, ready: str) -> None:
    """Write a picture of a page once the expression `ready` is true on it."""
    width, height = SIZE
    browser.call(
        "Emulation.setDeviceMetricsOverride",
        width=width, height=height, deviceScaleFactor=SCALE, mobile=False,
    )  # fmt: skip
    browser.call("Emulation.setScrollbarsHidden", hidden=True)
    browser.call(
        "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}]
    )
    settings = _SETTINGS.format(theme=theme, dark=str(theme == "dark").lower())
    browser.call("Page.addScriptToEvaluateOnNewDocument", source=settings)
    ends = time.monotonic() + WAIT_S
    browser.call("Page.navigate", url=url)
    while not browser.value(ready):
        if time.monotonic() > ends:
            sys.exit(f"error: {url} showed nothing within {WAIT_S} seconds")
        time.sleep(1)
    time.sleep(3)  # for what is still moving
    picture = browser.call("Page.captureScreenshot", format="png")["data"]
    file = IMAGES / f"{name}-{theme}.png"
    file.write_bytes(base64.b64decode(picture))
    print(file)


if __name__ == "__main__":
    main()
