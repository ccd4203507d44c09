"""Predictions of networks for a few faces, printed and not recorded."""

import numpy as np
from rich.console import Console
from rich.table import Column, Table

from pipeline.data import CLASSES, pictures, sample
from pipeline.errors import one_line
from pipeline.networks import files
from pipeline.percent import percent
from pipeline.runs import addresses
from pipeline.settings import PredictSettings


def predict(settings: PredictSettings) -> None:
    images, names = _faces(settings.images)
    table = Table(Column("drawn as" if settings.images == "sample" else "face", overflow="fold"))
    probabilities = []
    for run in map(str.strip, settings.runs.split(",")):
        file, _ = addresses.model_file(run)
        probabilities.append(files.predict(files.load(file), images))
        table.add_column(run, overflow="fold")
    for row, name in enumerate(names):
        best = [(CLASSES[a[row].argmax()], a[row].max()) for a in probabilities]
        table.add_row(name, *(f"{word} {percent(share, 0)}" for word, share in best))
    Console(markup=False, emoji=False, highlight=False).print(table)


def _faces(faces: str) -> tuple[np.ndarray, list[str]]:
    """Faces (n, 48, 48, 1), of a picture or drawn for each class, and their names."""
    if faces != "sample":
        return pictures.read_picture(faces)[np.newaxis, ..., np.newaxis], [one_line(faces)]
    # Seed 0 draws the faces that the demo's network is trained on.
    images, labels = sample.draw(count=70, seed=1)
    first = [int(np.argmax(labels == code)) for code in range(len(CLASSES))]
    return images[first][..., np.newaxis], list(CLASSES)
