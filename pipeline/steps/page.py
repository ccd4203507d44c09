"""The page for a browser: its files written into a folder, or served on this computer."""

import contextlib
import itertools
from pathlib import Path
from typing import Any

from pipeline import paths
from pipeline.browser import server, site
from pipeline.browser.site import Content, Network
from pipeline.errors import note
from pipeline.exported import network as onnx_network
from pipeline.faces import boxes, crop, detector
from pipeline.reports.model_card import NOT_FOR
from pipeline.runs import signals
from pipeline.settings import PageSettings, PredictSettings
from pipeline.steps.predict import SMALL

KINDS: tuple[detector.Which, ...] = ("full", "short")
"""Detectors in the order in which they are asked."""
SHIPPED = Path("models/compact-votes-int8.onnx")
OFFERED = 10
"""Most recorded exports that are offered, the newest."""


def page(settings: PageSettings) -> None:
    """Write the files, or serve them until Ctrl-C. Raises InputError for what is missing."""
    files = site_files(settings)
    if settings.out is not None:
        folder = Path(settings.out)
        site.write(files, folder)
        print(f"{len(files)} files in {folder}: a web server can publish them (docs/page.md)")
        return
    with server.Server(files, settings.port) as serving:
        print(f"the page is at {serving.address}; Ctrl-C ends this", flush=True)
        with contextlib.suppress(KeyboardInterrupt), signals.handled():  # the usual end
            serving.serve_forever()


def site_files(settings: PageSettings) -> dict[str, Content]:
    """The page's files by name, with the networks that the settings name. Raises InputError."""
    networks = _given(settings.networks) if settings.networks else _known()
    found: dict[str, Path] = {which: detector.onnx_file(which) for which in KINDS}
    return site.files(networks, found, _about())


def _about() -> dict[str, Any]:
    """What the page is told of Python's constants."""
    return {
        "detectors": [
            {
                "file": f"detectors/{which}.onnx",
                "side": boxes.GEOMETRIES[which].side,
                "grids": list(boxes.GEOMETRIES[which].grids),
                "least": detector.LEAST_SCORES[which],
            }
            for which in KINDS
        ],
        "overlap": boxes.OVERLAP,
        "crop": {"margin": crop.MARGIN, "up": crop.UP, "close": SMALL},
        "unsure": PredictSettings.unsure,
        "limits": " ".join(NOT_FOR.split()),
    }


def _given(addresses: str) -> list[Network]:
    found = []
    for address in paths.several(addresses):
        file = paths.find_file(address, ".onnx file")
        found.append(_offered(file, file.stem))
    return found


def _known() -> list[Network]:
    """The shipped network, then those that `export` has recorded, the newest first."""
    from pipeline.runs import exports  # imports MLflow

    shipped = [_offered(paths.find(str(SHIPPED)), SHIPPED.stem)]
    recorded = list(itertools.islice(exports.files(), OFFERED + 1))
    if len(recorded) > OFFERED:
        note(f"the newest {OFFERED} recorded exports are offered; for others give --networks")
    return shipped + [_offered(file, name) for file, name in recorded[:OFFERED]]


def _offered(file: Path, name: str) -> Network:
    """A network with its classes, after a trial of the file."""
    return Network(file, name, onnx_network.load(file).classes)
