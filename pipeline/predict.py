"""What networks say of a few faces: drawn ones, or a picture of your own. It records nothing.

python -m pipeline.predict                                 models/compact.keras on drawn faces
python -m pipeline.predict --runs models/strong.keras,RUN_ID --faces face.png
"""

from typing import TYPE_CHECKING

from pipeline import command
from pipeline.settings import PredictSettings

if TYPE_CHECKING:
    import numpy as np


def predict(settings: PredictSettings) -> None:
    # Rooms are imported where they are needed: a mistyped parameter is answered without them.
    from rich.console import Console
    from rich.table import Column, Table

    from pipeline import networks, records
    from pipeline.dataset import CLASSES

    images, names = _faces(settings.faces)
    table = Table(Column("face", overflow="fold"))
    answers = []
    for run in map(str.strip, settings.runs.split(",")):
        file, _ = records.model_file(run)
        answers.append(networks.predict(networks.load(file), images))
        table.add_column(run, overflow="fold")
    for row, name in enumerate(names):
        best = [(CLASSES[a[row].argmax()], a[row].max()) for a in answers]
        table.add_row(name, *(f"{word} {share:.0%}" for word, share in best))
    Console().print(table)


def _faces(faces: str) -> "tuple[np.ndarray, list[str]]":
    """Faces (n, 48, 48, 1) of a picture, or a drawn one of each class, and what to call them."""
    import numpy as np

    from pipeline import sample, sources
    from pipeline.dataset import CLASSES

    if faces != "sample":
        return sources.read_picture(faces)[np.newaxis, ..., np.newaxis], [faces]
    # Another seed than the demo's network was trained on.
    images, labels = sample.draw(count=70, seed=1)
    first = [int(np.argmax(labels == code)) for code in range(len(CLASSES))]
    return images[first][..., np.newaxis], [f"drawn as {name}" for name in CLASSES]


if __name__ == "__main__":
    command.run(PredictSettings, predict)
