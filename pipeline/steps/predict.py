"""Predictions of networks for the faces in pictures and videos, not recorded.

Keras and MLflow are imported only for a network that is not an ONNX file.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import paths
from pipeline.data import CLASSES, SIDE, pictures, sample
from pipeline.errors import InputError, note, one_line
from pipeline.exported import network as onnx_network
from pipeline.faces import annotate, answers, crop, detector, shots
from pipeline.faces.answers import Answer
from pipeline.faces.shots import Shot
from pipeline.settings import PredictSettings

SAMPLE = "sample"
SMALL = 200
"""Longer side in pixels below which a picture without a found face is one, cut close."""
NAMED = 5
"""Files that could not be read which are named."""


@dataclass(frozen=True)
class Network:
    name: str
    classes: Sequence[str]
    predict: Callable[[NDArray[np.uint8]], NDArray[np.float32]]
    """Probabilities (N, classes) of faces (N, 48, 48, 1)."""


def check(settings: PredictSettings) -> None:
    """Raise InputError for what is missing, before anything slow is imported."""
    for address in paths.several(settings.runs):
        if address.endswith(".onnx"):
            paths.find_file(address)
        else:
            _addresses_of_runs().model_file(address)
    if settings.images != SAMPLE:
        shots.named(settings.images)
    if settings.out:
        _require_writable(Path(settings.out))


def _require_writable(out: Path) -> None:
    if not out.parent.is_dir():
        raise InputError(f"out={out}: no folder {out.parent}")
    if out.is_dir():
        raise InputError(f"out={out}: a folder; give a file")


def predict(settings: PredictSettings) -> None:
    """Print the answers. What can't be read is named in an InputError, after the others."""
    networks = [_network(address) for address in paths.several(settings.runs)]
    failed: list[InputError] = []
    if settings.images == SAMPLE:
        found = _drawn(networks, settings.unsure)
    else:
        found = _of_pictures(settings, networks, failed)
    _write(settings, found)
    if failed:
        raise _unread(failed)


def _addresses_of_runs() -> Any:
    from pipeline.runs import addresses  # imports MLflow

    return addresses


def _network(address: str) -> Network:
    """The network at an address; Raises InputError if there is none."""
    if address.endswith(".onnx"):
        return _computed_by_onnx(address, paths.find_file(address))
    addresses = _addresses_of_runs()
    file, trained_by = addresses.model_file(address)
    if exported := addresses.exported_file(trained_by):
        note(f"{address}: its export {exported.name} is used, without Keras")
        return _computed_by_onnx(address, exported)
    from pipeline.networks import files, learnt  # imports Keras

    model = files.load(file)
    return Network(address, learnt.classes(file), lambda faces: files.predict(model, faces))


def _computed_by_onnx(name: str, file: Path) -> Network:
    loaded = onnx_network.load(file)
    return Network(name, loaded.classes, loaded.predict)


def _drawn(networks: Sequence[Network], least: float) -> list[Answer]:
    """Answers for a drawn face of each class, by the class's name."""
    # Seed 0 draws the faces that the demo's network is trained on.
    images, labels = sample.draw(count=70, seed=1)
    first = [int(np.argmax(labels == code)) for code in range(len(CLASSES))]
    drawn = [Shot(name, images[row]) for name, row in zip(CLASSES, first, strict=True)]
    return [
        answer
        for shot in drawn
        for answer in _answers(shot, np.zeros((0, 5)), shot.pixels[np.newaxis], networks, least)
    ]


def _of_pictures(
    settings: PredictSettings, networks: Sequence[Network], failed: list[InputError]
) -> list[Answer]:
    """Answers for the faces in the pictures, in order; annotated copies are saved on the way."""
    finding = settings.find and detector.installed()
    if settings.find and not finding:
        note(f"each picture is taken as one face, cut close; to find faces: {detector.INSTALL}")
    folder = annotate.Folder(Path(settings.annotate)) if settings.annotate else None
    found: list[Answer] = []
    without = 0
    for shot in shots.read(shots.named(settings.images), settings.every, failed):
        boxes, faces = _faces(shot, finding)
        of_shot = list(_answers(shot, boxes, faces, networks, settings.unsure))
        without += not of_shot
        found += of_shot
        if folder:
            folder.save(shot, [answer for answer in of_shot if answer.network == networks[0].name])
    if without:
        note(f"no face was found in {without:,} of the pictures and frames")
    return found


def _faces(shot: Shot, finding: bool) -> tuple[NDArray[Any], NDArray[np.uint8]]:
    """Boxes (N, 5) and faces (N, 48, 48); a picture that is one face has no box."""
    boxes = detector.find(shot.pixels) if finding else np.zeros((0, 5))
    if len(boxes):
        return boxes, np.stack([crop.crop(shot.pixels, box) for box in boxes])
    if not finding or max(shot.pixels.shape) < SMALL:
        return boxes, pictures.as_face(shot.pixels)[np.newaxis]
    return boxes, np.zeros((0, SIDE, SIDE), np.uint8)


def _answers(
    shot: Shot,
    boxes: NDArray[Any],
    faces: NDArray[np.uint8],
    networks: Sequence[Network],
    least: float,
) -> Iterator[Answer]:
    probabilities = [network.predict(faces[..., np.newaxis]) for network in networks]
    for row in range(len(faces)):
        for network, rows in zip(networks, probabilities, strict=True):
            yield Answer(
                shot.file, shot.frame, shot.seconds, row + 1,
                _inside(boxes[row], shot.pixels.shape) if len(boxes) else None,
                float(boxes[row, 4]) if len(boxes) else None,
                network.name, dict(zip(network.classes, map(float, rows[row]), strict=True)), least,
            )  # fmt: skip


def _inside(box: NDArray[Any], shape: Sequence[int]) -> tuple[int, int, int, int]:
    """Left, top, width and height of the part of a box within a picture."""
    size = shape[1], shape[0]
    left, top = (int(np.clip(round(float(box[i])), 0, size[i] - 1)) for i in range(2))
    right, bottom = (int(np.clip(round(float(box[i + 2])), 1, size[i])) for i in range(2))
    return left, top, max(1, right - left), max(1, bottom - top)


def _write(settings: PredictSettings, found: Sequence[Answer]) -> None:
    title = "drawn as" if settings.images == SAMPLE else "file"
    if settings.out is None:
        answers.write(found, settings.format, sys.stdout, title)
        return
    with Path(settings.out).open("w", encoding="utf-8", errors="backslashreplace") as file:
        answers.write(found, settings.format, file, title)


def _unread(failed: Sequence[InputError]) -> InputError:
    """One error for all that could not be read."""
    if len(failed) == 1:
        return failed[0]
    first = "; ".join(one_line(str(error)) for error in failed[:NAMED])
    more = f"; and {len(failed) - NAMED:,} more" if len(failed) > NAMED else ""
    return InputError(f"{len(failed):,} files can't be read: {first}{more}")
