"""Faces that `predict` finds, what its crop costs, and how often unsure answers are right.

    pip install -r requirements-faces.txt scikit-image
    npm pack @vladmandic/face-api@1.7.15                    # demo/sample1.jpg to sample6.jpg
    pip download --no-deps ultralytics insightface==2.1     # bus.jpg, zidane.jpg, t1.jpg
    python -m benchmarks.faces --photographs FOLDER_OF_THE_NINE --data INGEST_RUN_ID_OR_FOLDER

Only training and validation rows are read; of a dataset with votes their majority is the label.
Faces were counted by eye.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from benchmarks import processor
from pipeline.data import VALIDATION, dataset, pictures, votes
from pipeline.exported import network
from pipeline.faces import crop, detector
from pipeline.percent import percent
from pipeline.reports import calibration
from pipeline.runs import addresses

COUNTED = {
    "sample1.jpg": 3, "sample2.jpg": 3, "sample3.jpg": 3, "sample4.jpg": 4, "sample5.jpg": 5,
    "sample6.jpg": 4, "t1.jpg": 6, "zidane.jpg": 2, "bus.jpg": 2,
}  # fmt: skip
IN_SKIMAGE = {"astronaut": 1, "camera": 1}
WITHOUT = (
    "binary_blobs", "brick", "cat", "cell", "checkerboard", "clock", "coffee", "coins",
    "colorwheel", "grass", "gravel", "horse", "hubble_deep_field", "immunohistochemistry", "logo",
    "microaneurysms", "moon", "page", "text", "retina", "rocket", "shepp_logan_phantom",
)  # fmt: skip
"""Pictures of scikit-image without a face that its package brings, beside two of a motorcycle."""
SCALE, WIDTH, HEIGHT, GREY = 4, 640, 480, 128
MARGINS = (1.0, 1.2, 1.5)
THRESHOLDS = (0.3, 0.4, 0.5, 0.6, 0.7)


@dataclass(frozen=True)
class Benchmark:
    photographs: Path | None = None
    """Folder with the nine photographs."""
    data: str | None = None
    """A dataset folder or an ingest run's id; the network was not trained on its validation."""
    network: Path = Path("models/compact-votes-int8.onnx")


def main(benchmark: Benchmark) -> None:
    if benchmark.photographs:
        photographs(benchmark.photographs)
    if benchmark.data:
        loaded = network.load(benchmark.network)
        faces = dataset.load_without_test(addresses.dataset_folder(benchmark.data))
        faces = votes.for_training(faces, "auto")
        images, labels = faces.part(VALIDATION)
        unsure(loaded.predict(images), labels)
        on_canvas(loaded, images[..., 0], labels)
    print(processor())


def photographs(folder: Path) -> None:
    """Print how many of the faces are found, and the boxes in pictures without a face."""
    import skimage.data

    def colours(pixels: NDArray[Any]) -> NDArray[np.uint8]:
        if pixels.ndim == 2:
            pixels = np.stack([pixels] * 3, axis=-1)
        scale = 255 if pixels.dtype.kind in "bf" else 1
        return np.ascontiguousarray((pixels[..., :3] * scale).astype(np.uint8))

    shown = {name: getattr(skimage.data, name)() for name in (*IN_SKIMAGE, *WITHOUT)}
    shown["motorcycle_left"], shown["motorcycle_right"], _ = skimage.data.stereo_motorcycle()
    counts = {name: len(detector.find(colours(pixels))) for name, pixels in shown.items()}
    for name in COUNTED:
        content = pictures.read_content(folder / name)
        read = pictures.decode_colours(content, folder / name, must_be_one=True)
        assert read is not None
        counts[name] = len(detector.find(read))
    there = IN_SKIMAGE | COUNTED
    found = ", ".join(f"{name} {counts[name]} of {count}" for name, count in there.items())
    without = [counts[name] for name in shown if name not in IN_SKIMAGE]
    print(f"boxes for {sum(there.values())} faces: {sum(counts[n] for n in there)} ({found})")
    print(f"boxes in {len(without)} pictures without a face: {sum(without)}")


def unsure(probabilities: NDArray[np.float32], labels: NDArray[np.uint8]) -> None:
    """Print the accuracy of answers below and above a threshold."""
    best, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    right = best == labels
    error = calibration.reliability(labels, probabilities).error
    table = Table("unsure below", "unsure", "of these right", "of the others right")
    table.title = f"{len(labels):,} validation faces, calibration error {percent(error)}"
    for least in THRESHOLDS:
        below = confidence < least
        table.add_row(
            f"{least}", percent(below.mean()), percent(right[below].mean()),
            percent(right[~below].mean()),
        )  # fmt: skip
    Console().print(table)


def on_canvas(
    loaded: network.Network, images: NDArray[np.uint8], labels: NDArray[np.uint8]
) -> None:
    """Print the share of faces found on a grey canvas, and the accuracy by the crop's margin."""
    tight = loaded.predict(images[..., np.newaxis]).argmax(axis=1) == labels
    cropped: dict[float, list[NDArray[np.uint8]]] = {margin: [] for margin in MARGINS}
    sizes, found = [], []
    generator = np.random.default_rng(0)
    for number, image in enumerate(images):
        side = SCALE * image.shape[0]
        canvas = np.full((HEIGHT, WIDTH, 3), GREY, np.uint8)
        top, left = generator.integers(0, (HEIGHT - side, WIDTH - side))
        face = np.asarray(pictures.Image.fromarray(image).resize((side, side)))
        canvas[top : top + side, left : left + side] = face[..., np.newaxis]
        boxes = detector.find(canvas)
        if len(boxes):
            found.append(number)
            sizes.append(side / max(boxes[0, 2] - boxes[0, 0], boxes[0, 3] - boxes[0, 1]))
            for margin, crops in cropped.items():
                crops.append(crop.crop(canvas, boxes[0], margin))
    low, middle, high = np.quantile(sizes, (0.25, 0.5, 0.75))
    print(
        f"drawn {SCALE} times as large on {WIDTH}x{HEIGHT}: {percent(len(found) / len(images))} of "
        f"{len(images)} found; tile / box {low:.2f}, {middle:.2f}, {high:.2f} (quartiles)"
    )
    table = Table("margin", "accuracy of the found", "against tight crops", "standard error")
    for margin, crops in cropped.items():
        right = loaded.predict(np.stack(crops)[..., np.newaxis]).argmax(axis=1) == labels[found]
        change = right.astype(float) - tight[found]
        table.add_row(
            f"{margin}", percent(right.mean()), f"{100 * change.mean():+.1f} points",
            f"{100 * change.std() / math.sqrt(len(change)):.1f}",
        )  # fmt: skip
    Console().print(table)


if __name__ == "__main__":
    main(tyro.cli(Benchmark))
