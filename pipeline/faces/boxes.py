"""Boxes of faces from the outputs of a single-shot detector.

The constants are the parameters of MediaPipe's graphs face_detection_short_range.pbtxt and
face_detection_full_range.pbtxt (SsdAnchorsCalculator, TensorsToDetectionsCalculator,
NonMaxSuppressionCalculator).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

COORDINATES = 16
"""Numbers a box: centre x and y, width, height, and six points of the face, which are not used."""
LARGEST_LOGIT = 100.0
OVERLAP = 0.3
"""Intersection over union above which two boxes are of the same face."""


@dataclass(frozen=True)
class Geometry:
    """Input side of a detector in pixels, and the grids of its anchors as (stride, anchors)."""

    side: int
    grids: Sequence[tuple[int, int]]

    def anchors(self) -> NDArray[np.float32]:
        """Centres (N, 2) of the anchors as shares of the side, x and y, in the outputs' order."""
        centres = []
        for stride, count in self.grids:
            steps = (np.arange(self.side // stride, dtype=np.float32) + 0.5) * stride / self.side
            y, x = np.meshgrid(steps, steps, indexing="ij")
            centres.append(np.repeat(np.stack([x, y], axis=-1).reshape(-1, 2), count, axis=0))
        return np.concatenate(centres)


# Short range: four layers of strides 8, 16, 16, 16 with two anchors each; those of the same
# stride share a grid. Full range: one layer, one anchor.
GEOMETRIES = {"full": Geometry(192, [(4, 1)]), "short": Geometry(128, [(8, 2), (16, 6)])}


def decode(
    numbers: NDArray[np.float32], logits: NDArray[np.float32], geometry: Geometry, least: float
) -> NDArray[np.float32]:
    """Boxes (N, 5): left, top, right, bottom as shares of the input's side, and score.

    `numbers` (A, 16) and `logits` (A,) are the outputs for A anchors. Only scores of `least` or
    more count. Of boxes of one face the mean remains, weighted by score.
    """
    logits = np.clip(logits.reshape(-1).astype(np.float64), -LARGEST_LOGIT, LARGEST_LOGIT)
    scores = 1 / (1 + np.exp(-logits))
    likely = scores >= least
    boxes = numbers.reshape(-1, COORDINATES)[likely, :4] / geometry.side
    centres, sizes = boxes[:, :2] + geometry.anchors()[likely], boxes[:, 2:]
    corners = np.concatenate([centres - sizes / 2, centres + sizes / 2], axis=1)
    return merge(np.column_stack([corners, scores[likely]]))


def merge(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Weighted non-maximum suppression of boxes (N, 5), of which the best first remain."""
    rest = boxes[np.argsort(-boxes[:, 4], kind="stable")]
    kept = []
    while len(rest):
        same = overlap(rest[0], rest) > OVERLAP
        same[0] = True  # a box without an area has no overlap with itself
        group, rest = rest[same], rest[~same]
        corners = np.average(group[:, :4], axis=0, weights=group[:, 4])
        kept.append(np.append(corners, group[0, 4]))
    return np.array(kept, np.float32).reshape(-1, 5)


def overlap(box: NDArray[np.float32], boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Intersection over union of `box` with each of `boxes` (N, 5)."""
    low, high = np.maximum(box[:2], boxes[:, :2]), np.minimum(box[2:4], boxes[:, 2:4])
    shared = np.prod(np.clip(high - low, 0, None), axis=1)
    areas = np.prod(np.clip(boxes[:, 2:4] - boxes[:, :2], 0, None), axis=1)
    union = np.prod(np.clip(box[2:4] - box[:2], 0, None)) + areas - shared
    return np.asarray(shared / np.maximum(union, np.finfo(np.float32).tiny), np.float32)
