"""The square around a face that a network reads."""

import numpy as np
from numpy.typing import NDArray

from pipeline.data.pictures import as_face

MARGIN = 1.2
"""Side of the crop as a share of the box's longer side. FER2013's faces are cut so: a median
tile's side is 1.17 of the box that the detector finds in it (docs/predict.md)."""
UP = 0.05
"""Shift of the crop upwards, as a share of the box's longer side, measured in the same way."""


def crop(
    picture: NDArray[np.uint8],
    box: NDArray[np.floating],
    margin: float = MARGIN,
    up: float = UP,
) -> NDArray[np.uint8]:
    """Grey levels (48, 48) of the face in `box` (left, top, right, bottom, …) of (H, W, 3).

    Beyond the picture its edge is repeated.
    """
    left, top, right, bottom = (float(edge) for edge in box[:4])
    longer = max(right - left, bottom - top)
    side = max(1, round(margin * longer))
    first_row = round((top + bottom) / 2 - up * longer - side / 2)
    first_column = round((left + right) / 2 - side / 2)
    rows = np.clip(np.arange(first_row, first_row + side), 0, picture.shape[0] - 1)
    columns = np.clip(np.arange(first_column, first_column + side), 0, picture.shape[1] - 1)
    return as_face(picture[np.ix_(rows, columns)])
