"""Augmentation of training faces: mirror, shift, zoom, rotate, cutout, mixup, and smaller images.

All random numbers come from NumPy. The geometric part is one compiled pass (numba) over uint8
faces; as layers of the network it would slow down every training step on a CPU.
"""

import numpy as np
from numpy.typing import NDArray

from pipeline.compiled import compiled
from pipeline.data import SIDE
from pipeline.settings import Hyperparameters

Images = NDArray[np.uint8]
Targets = NDArray[np.float32]


def is_plain(settings: Hyperparameters, side: int) -> bool:
    """Whether `augment` would leave faces unchanged."""
    return side == SIDE and not (
        settings.flip or settings.mixup or settings.cutout or _is_geometric(settings)
    )


def augment(
    images: Images,
    targets: Targets,
    mirrored: NDArray[np.bool_],
    settings: Hyperparameters,
    side: int,
    rng: np.random.Generator,
) -> tuple[Images, Targets]:
    """Augmented faces (n, side, side, 1), and their targets (n, classes), of (n, 48, 48, 1).

    `mirrored` (n,) marks the faces to mirror; everything else is drawn from `rng` by `settings`.
    Pixels outside a face repeat its nearest edge pixel.
    """
    count = len(images)
    if side != SIDE or _is_geometric(settings) or mirrored.any():
        faces = np.empty((count, side, side), np.uint8)
        _warp(np.ascontiguousarray(images[..., 0]), _placements(mirrored, settings, rng), faces)
    else:
        faces = images[..., 0].copy()
    if settings.cutout:
        _blank(faces, settings.cutout * side / SIDE, rng)
    if settings.mixup:
        share = rng.beta(settings.mixup, settings.mixup, count).astype(np.float32)
        partner = rng.permutation(count)
        mixed = _mix(faces.astype(np.float32), share[:, None, None], partner)
        faces = np.rint(mixed).astype(np.uint8)
        targets = _mix(targets, share[:, None], partner)
    return faces[..., np.newaxis], targets


def _is_geometric(settings: Hyperparameters) -> bool:
    return bool(settings.shift or settings.zoom or settings.rotate)


def _placements(
    mirrored: NDArray[np.bool_], settings: Hyperparameters, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Affine transform of each face, from output to input pixels: 2x2 matrix and shift, (n, 6)."""
    count = len(mirrored)
    angle = np.deg2rad(rng.uniform(-settings.rotate, settings.rotate, count))
    scale = 1 + rng.uniform(-settings.zoom, settings.zoom, count)
    shift = rng.uniform(-settings.shift, settings.shift, (2, count))
    cos, sin = np.cos(angle) / scale, np.sin(angle) / scale
    sign = np.where(mirrored, -1, 1)
    return np.stack([cos, -sin * sign, sin, cos * sign, *shift], axis=1).astype(np.float32)


# With these types numba loads, or compiles, it as this module is imported: once for a search, whose
# trials' processes are forked afterwards.
@compiled("(uint8[:, :, ::1], float32[:, ::1], uint8[:, :, ::1])", nogil=True)
def _warp(images, placements, out):  # type: ignore[no-untyped-def]  # numba infers its types
    """Resample `images` by bilinear interpolation: each output pixel from four input pixels."""
    full, side = images.shape[1], out.shape[1]
    step, middle, last = full / side, (full - 1) / 2, full - 1
    for n in range(len(images)):
        yy, yx, xy, xx, move_y, move_x = placements[n]
        for row in range(side):
            v = (row + 0.5) * step - full / 2
            for column in range(side):
                u = (column + 0.5) * step - full / 2
                y = min(max(yy * v + yx * u + move_y + middle, 0.0), last)
                x = min(max(xy * v + xx * u + move_x + middle, 0.0), last)
                top, left = int(y), int(x)
                below, right = min(top + 1, last), min(left + 1, last)
                down, across = y - top, x - left
                upper = images[n, top, left] * (1 - across) + images[n, top, right] * across
                lower = images[n, below, left] * (1 - across) + images[n, below, right] * across
                out[n, row, column] = int(upper * (1 - down) + lower * down + 0.5)


def _blank(faces: Images, largest: float, rng: np.random.Generator) -> None:
    """Fill a square of each face, 0 to `largest` pixels wide, with the face's mean grey level."""
    count, side = faces.shape[:2]
    width = np.rint(rng.uniform(0, largest, count)).astype(int)
    top, left = (rng.uniform(0, 1, (2, count)) * (side - width + 1)).astype(int)
    for face, w, y, x in zip(faces, width, top, left, strict=True):
        if w:
            face[y : y + w, x : x + w] = round(face.mean())


def _mix(
    values: NDArray[np.float32], share: NDArray[np.float32], partner: NDArray[np.int64]
) -> NDArray[np.float32]:
    return share * values + (1 - share) * values[partner]
