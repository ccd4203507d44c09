"""Copies of pictures with the boxes of faces, and what a network reads in them."""

from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from pipeline.faces.answers import Answer
from pipeline.faces.shots import Shot

COLOUR, UNSURE, INK = "#ffd54a", "#d0d0d0", "black"
SMALLEST_LETTERS = 12
LETTERS = 32
"""Height of the letters as a share of the picture's longer side: one in so many."""


def annotated(shot: Shot, answers: Sequence[Answer]) -> Image.Image:
    """The picture with a box for each answer, in grey where it is unsure."""
    picture = Image.fromarray(shot.pixels)
    pen = ImageDraw.Draw(picture)
    size = max(SMALLEST_LETTERS, max(picture.size) // LETTERS)
    font = ImageFont.load_default(size)
    for answer in answers:
        colour = UNSURE if answer.unsure else COLOUR
        left, top, width, height = answer.box or (0, 0, *picture.size)
        right, bottom = left + width - 1, top + height - 1
        pen.rectangle((left, top, right, bottom), outline=colour, width=max(2, size // 8))
        # Above the box, or in it where the picture ends.
        _, _, length, _ = pen.textbbox((0, 0), answer.words, font=font)
        at = max(0, min(left, picture.width - int(length) - 4)), max(0, top - size - 6)
        pen.rectangle((*at, at[0] + length + 4, at[1] + size + 5), fill=colour)
        pen.text((at[0] + 2, at[1] + 1), answer.words, fill=INK, font=font)
    return picture


class Folder:
    """A folder of annotated pictures, made as they come; a name that was used gets a number."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.used: set[str] = set()
        folder.mkdir(parents=True, exist_ok=True)

    def save(self, shot: Shot, answers: Sequence[Answer]) -> None:
        name = Path(shot.file).name
        if shot.frame is not None:
            name += f"-{shot.frame:06}"
        free, number = name, 1
        while free in self.used:
            number += 1
            free = f"{name}-{number}"
        self.used.add(free)
        annotated(shot, answers).save(self.folder / f"{free}.jpg", quality=90)
