"""What a .keras file of this project says about itself: classes, model card, training images.

A .keras file is a zip archive, and Keras ignores members that it does not know.
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipeline.data import CLASSES
from pipeline.data.classes import are_classes
from pipeline.errors import InputError, reason

CARD = "emotion-search/model_card.md"
FACES = "emotion-search/learnt_faces.npz"
CLASS_NAMES = "emotion-search/classes.json"
BYTES_EACH = 8
"""Of the hash of an image: among a million images a chance collision has a probability of 3e-8."""


@dataclass(frozen=True)
class Learnt:
    """The images that a network was trained on: sorted hashes (n,) uint64 of their pixels.

    `complete` is whether these are all, those of its initial weights included.
    """

    hashes: NDArray[np.uint64]
    complete: bool

    def unseen(self, images: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Mask (N,) of the images that are no pixel-identical copy of a training image."""
        return ~np.isin(hashes(images), self.hashes)

    def with_earlier(self, earlier: "Learnt | None") -> "Learnt":
        """These and the images of the initial weights; None if those are unknown."""
        if earlier is None:
            return Learnt(self.hashes, complete=False)
        both = np.union1d(self.hashes, earlier.hashes)
        return Learnt(both, complete=self.complete and earlier.complete)


def learnt_from(images: NDArray[np.uint8]) -> Learnt:
    """`Learnt` of the training images (N, 48, 48, 1)."""
    return Learnt(np.unique(hashes(images)), complete=True)


def hashes(images: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """Hash (N,) of each image's pixels, in the images' order."""
    pixels = np.ascontiguousarray(images).reshape(len(images), -1)
    digests = b"".join(
        hashlib.blake2b(row.tobytes(), digest_size=BYTES_EACH).digest() for row in pixels
    )
    return np.frombuffer(digests, np.dtype("<u8")).astype(np.uint64)


def add(file: Path, card: str, learnt: Learnt, classes: Sequence[str]) -> None:
    """Put the model card, the training images' hashes and the class names into a .keras file."""
    arrays = io.BytesIO()
    np.savez(arrays, allow_pickle=False, hashes=learnt.hashes, complete=np.array(learnt.complete))
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(CARD, card)
        archive.writestr(FACES, arrays.getvalue())
        archive.writestr(CLASS_NAMES, json.dumps(list(classes)))


def classes(file: Path) -> tuple[str, ...]:
    """Names of the classes whose probabilities a .keras file returns; FER2013's if it has none.

    Raises InputError if it has some that are damaged.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            names = json.loads(archive.read(CLASS_NAMES))
    except KeyError:  # of another program, or of an earlier version
        return CLASSES
    except Exception as error:  # zipfile raises a dozen types
        raise InputError(f"{file}: its class names can't be read ({reason(error)})") from error
    if not are_classes(names):
        raise InputError(f"{file}: its class names are damaged; train the network again")
    return tuple(names)


def read(file: Path) -> Learnt | None:
    """What a .keras file says of its training images; None if it says nothing, or is damaged."""
    try:
        with zipfile.ZipFile(file) as archive:
            content = archive.read(FACES)
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return Learnt(arrays["hashes"], complete=bool(arrays["complete"]))
    except Exception:  # zipfile, zlib and NumPy raise a dozen types
        return None
