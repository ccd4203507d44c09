"""The built-in `sample` dataset: small grey faces drawn by the program, seven expressions.

It lets a fresh clone run the whole pipeline without a download:

    from pipeline.data.sample import draw
    images, labels = draw()          # 1,280 faces: (1280, 48, 48) and (1280,), both uint8

The faces have FER2013's format and class codes, but they are cartoons: a score on them says that
the pipeline works, and nothing about photographs.

What each expression does follows the action units (AU) of P. Ekman and W. V. Friesen, "Facial
Action Coding System" (1978), in the combinations usually given for the basic emotions:

    angry     AU4 brows lowered and knit, AU5+7 glare with tense lids, AU23 lips tightened
    disgust   AU9 nose wrinkled, AU10 upper lip raised, AU15 corners down, AU4+7 from squinting
    fear      AU1+2+4 brows raised and drawn together, AU5 eyes wide, AU20+25 lips stretched, parted
    happy     AU6 cheeks raised, AU12 lip corners pulled up, AU25 teeth showing
    sad       AU1+4 inner brows up, AU15 lip corners down, AU17 chin raised, lids drooping
    surprise  AU1+2 brows raised, AU5 eyes wide, AU26 jaw dropped, mouth round
    neutral   none

The corners of the angry and the frightened mouth are also drawn a little down, as cartoonists do.
"""

from dataclasses import astuple, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from pipeline.data import CLASSES

SIZE = 48
SUPERSAMPLING = 4
CANVAS = SIZE * SUPERSAMPLING
Images = NDArray[np.uint8]
Points = NDArray[np.float64]  # (n, 2) in face units: x right, y down, chin at y = 1


@dataclass(frozen=True)
class Expression:
    """How far each part of the face is from rest: 0 is relaxed, 1 or -1 is about the extreme.

    Rest is 0 everywhere, so a weaker expression is a product and a mixture is a sum.
    """

    brow_raise: float = 0.0  # + whole brow up (AU1+2), - down (AU4)
    brow_slant: float = 0.0  # + inner ends up (AU1), - inner ends down (AU4)
    brow_knit: float = 0.0  # inner ends drawn together (AU4)
    eyes: float = 0.0  # + wide (AU5), - narrowed (AU6, AU7)
    cheeks: float = 0.0  # cheeks pushed up under the eyes (AU6)
    nose: float = 0.0  # wrinkles on the bridge of the nose (AU9)
    upper_lip: float = 0.0  # middle of the upper lip raised (AU10)
    corners: float = 0.0  # + lip corners up (AU12), - down (AU15)
    jaw: float = 0.0  # how far the mouth is open (AU25, AU26)
    width: float = 0.0  # + mouth stretched (AU20), - rounded or tightened (AU23)
    teeth: float = 0.0  # share of the open mouth filled by teeth
    chin: float = 0.0  # chin boss pushed up (AU17)

    def __mul__(self, strength: float) -> "Expression":
        return Expression(*(value * strength for value in astuple(self)))

    def __add__(self, other: "Expression") -> "Expression":
        return Expression(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))


EXPRESSIONS: dict[str, Expression] = {
    "angry": Expression(
        brow_raise=-0.7, brow_slant=-1.0, brow_knit=1.0, eyes=-0.1, corners=-0.3, width=-0.3
    ),
    "disgust": Expression(
        brow_raise=-0.7, brow_slant=-0.4, brow_knit=0.5, eyes=-0.75, cheeks=0.4, nose=1.0,
        upper_lip=1.0, corners=-0.6, jaw=0.15, teeth=0.8,
    ),
    "fear": Expression(
        brow_raise=0.7, brow_slant=0.7, brow_knit=0.8, eyes=1.0, corners=-0.4, jaw=0.4, width=0.7,
        teeth=0.5,
    ),
    "happy": Expression(
        eyes=-0.35, cheeks=1.0, corners=1.0, jaw=0.35, width=0.6, teeth=0.8
    ),
    "sad": Expression(
        brow_raise=0.1, brow_slant=1.0, brow_knit=0.4, eyes=-0.4, corners=-0.9, width=-0.1, chin=1.0
    ),
    "surprise": Expression(brow_raise=1.2, eyes=0.9, jaw=1.0, width=-0.6, teeth=0.1),
    "neutral": Expression(),
}  # fmt: skip

# Labels are dealt from shuffled decks with these numbers of cards a class, so that the shares stay
# near balance whatever the count. Disgust is rare, as in FER2013.
DECK = {"angry": 10, "disgust": 5, "fear": 10, "happy": 12, "sad": 10, "surprise": 9, "neutral": 10}
AMBIGUOUS_SHARE = 0.06
"""Share of faces with nearly half of another expression mixed in, which may be the stronger one:
labels are not sure here, either."""


def draw(count: int = 1280, seed: int = 0) -> tuple[Images, NDArray[np.uint8]]:
    """Draw `count` labelled faces; the same `(count, seed)` gives the same bytes every time.

    Face i depends on `seed` and i only, so a smaller count gives the first faces of a larger one.
    The default is enough for the report's network to learn from, and takes about five seconds.
    Returns images, uint8 (count, 48, 48), 0 black to 255 white, and labels, uint8 (count,), the
    codes 0 to 6 in the order of `CLASSES`.
    """
    labels = _deal_labels(count, seed)
    images = np.empty((count, SIZE, SIZE), np.uint8)
    for i, label in enumerate(labels):
        images[i] = _draw_face(CLASSES[label], np.random.default_rng([seed, 1, i]))
    return images, labels


def _deal_labels(count: int, seed: int) -> NDArray[np.uint8]:
    deck = np.repeat(np.arange(len(CLASSES), dtype=np.uint8), [DECK[name] for name in CLASSES])
    decks = range(count // len(deck) + 1)
    dealt = [np.random.default_rng([seed, 0, i]).permutation(deck) for i in decks]
    return np.concatenate(dealt)[:count]


def _draw_face(name: str, rng: np.random.Generator) -> Images:
    expression = _pick_expression(name, rng)
    face = _Face(rng)
    face.draw_head()
    face.draw_nose(expression)
    face.draw_eyes(expression)
    face.draw_brows(expression)
    face.draw_mouth(expression)
    return _photograph(face.image, rng)


def _pick_expression(name: str, rng: np.random.Generator) -> Expression:
    """The table's expression at a random intensity, with every part a little off."""
    expression = EXPRESSIONS[name] * rng.uniform(0.8, 1.2)
    if rng.random() < AMBIGUOUS_SHARE:
        other = EXPRESSIONS[str(rng.choice(CLASSES))]
        expression = expression * 0.55 + other * 0.45
    wobble = Expression(*rng.normal(0.0, 0.12, len(astuple(expression))))
    return expression + wobble


class _Face:
    """One person in one pose, and the canvas that the parts of the face are drawn on."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.centre = CANVAS / 2 + rng.normal(0.0, 5.0, 2)
        self.scale = rng.uniform(80.0, 100.0)  # pixels in one face unit
        self.tilt = rng.normal(0.0, 0.1)
        self.yaw = rng.normal(0.0, 0.07)
        self.half_width = rng.uniform(0.70, 0.84)
        self.narrowing = rng.uniform(0.05, 0.3)  # of the head, towards the chin
        self.skin = rng.uniform(110.0, 225.0)
        self.hair = rng.uniform(10.0, 0.8 * self.skin)
        self.eye_x, self.eye_y = rng.uniform(0.30, 0.36), rng.normal(-0.16, 0.02)
        self.brow_y = self.eye_y - rng.uniform(0.20, 0.26)
        self.mouth_y = rng.normal(0.53, 0.025)
        self.image = Image.new("L", (CANVAS, CANVAS), int(rng.uniform(20, 235)))
        self.pen = ImageDraw.Draw(self.image)

    def place(self, points: Points, depth: float) -> list[float]:
        """Face units to canvas pixels, x and y in turn; `depth` is how far a part stands out, so
        moves with yaw."""
        x = points[:, 0] * (1 - 0.5 * abs(self.yaw) * depth) + self.yaw * depth
        y = points[:, 1]
        sin, cos = np.sin(self.tilt), np.cos(self.tilt)
        turned = np.stack([x * cos - y * sin, x * sin + y * cos], axis=1)
        pixels: list[float] = (self.centre + self.scale * turned).ravel().tolist()
        return pixels

    def fill(self, points: Points, tone: float, depth: float = 1.0) -> None:
        self.pen.polygon(self.place(points, depth), fill=int(tone))

    def stroke(self, points: Points, tone: float, width: float, depth: float = 1.0) -> None:
        pixels = max(1, round(width * self.scale))
        self.pen.line(self.place(points, depth), fill=int(tone), width=pixels, joint="curve")

    def crease(self, points: Points, strength: float, depth: float = 1.0) -> None:
        """A wrinkle, darker as its muscle pulls harder; none when the muscle is at rest."""
        if strength > 0.25:
            self.stroke(points, self.skin * (1 - 0.45 * min(strength, 1.0)), 0.028, depth)

    def outline(self, start: float, stop: float, grow: float = 1.0) -> Points:
        """Part of the head's outline; in turns, clockwise on the page from the right-hand ear."""
        angle = 2 * np.pi * np.linspace(start, stop, 40)
        x = self.half_width * np.cos(angle) * (1 - self.narrowing * np.clip(np.sin(angle), 0, 1))
        return grow * np.stack([x, np.sin(angle)], axis=1)

    def draw_head(self) -> None:
        bald, long_hair, beard = self.rng.random(3) < (0.15, 0.35, 0.2)
        if long_hair and not bald:
            self.fill(_ellipse(0, 0.2, self.half_width * 1.3, 1.3), self.hair, depth=0)
        neck = [(-0.4, 0.6), (0.4, 0.6), (0.45, 1.1), (1.3, 1.6), (-1.3, 1.6), (-0.45, 1.1)]
        self.fill(np.array(neck), 0.75 * self.skin, depth=0)
        for side in (-1, 1):
            self.fill(_ellipse(side * self.half_width, 0, 0.1, 0.2), 0.85 * self.skin, depth=0)
        if not bald:
            self.fill(self.outline(0.47, 1.03, grow=1.1), self.hair, depth=0)
        self.fill(self.outline(0, 1), self.skin, depth=0)
        if not bald:
            t = np.linspace(1, -1, 20)
            parting, height = self.rng.uniform(-0.3, 0.3), self.rng.uniform(-0.72, -0.58)
            hairline = height - 0.25 * (1 - (t - parting) ** 2) + 0.35 * np.abs(t) ** 3
            front = np.stack([self.half_width * t, hairline], axis=1)
            self.fill(np.concatenate([self.outline(0.53, 0.97), front]), self.hair, depth=0)
        if beard:
            top = np.array([(-0.5, 0.42), (0.0, 0.34), (0.5, 0.42)])
            tone = _blend(self.skin, self.hair, self.rng.uniform(0.3, 0.8))
            self.fill(np.concatenate([self.outline(0.03, 0.47), top]), tone, depth=0.3)

    def draw_nose(self, e: Expression) -> None:
        tip = 0.24 - 0.05 * max(e.nose, 0)
        bridge = np.array([(0.06, self.eye_y), (0.05, 0.0), (0.11, tip - 0.04), (0.1, tip)])
        self.stroke(bridge, 0.78 * self.skin, 0.03, depth=1.4)
        self.stroke(_curve(0, tip, 0.13, -0.06), 0.6 * self.skin, 0.045, depth=1.4)
        for y in (-0.12, -0.04, 0.04):
            self.crease(_curve(0, y, 0.12, 0.05), e.nose, depth=1.2)
        # The fold from nostril to mouth corner deepens in smiling (AU12) and disgust (AU9+10).
        fold = np.array([(0.16, tip - 0.05), (0.30, tip + 0.08), (0.40, self.mouth_y - 0.02)])
        for side in (-1, 1):
            self.crease(fold * (side, 1), max(0.3, e.cheeks, e.nose, e.upper_lip))

    def draw_brows(self, e: Expression) -> None:
        t = np.linspace(0, 1, 8)  # from the inner to the outer end
        x = _blend(0.17 - 0.06 * e.brow_knit, 0.52, t)
        y = self.brow_y - 0.1 * e.brow_raise + 0.2 * e.brow_slant * (t - 0.6)
        brow = np.stack([x, y - 0.05 * np.sin(np.pi * t)], axis=1)
        furrow = np.array([(0.05, self.brow_y - 0.06), (0.04, self.brow_y + 0.1)])
        for side in (-1, 1):
            self.stroke(brow * (side, 1), min(self.hair, 0.5 * self.skin), 0.07)
            self.crease(furrow * (side, 1), e.brow_knit)
        for rise in (0.24, 0.33):
            self.crease(_curve(0, self.brow_y - rise, 0.4, 0.03), 0.5 * e.brow_raise)

    def draw_eyes(self, e: Expression) -> None:
        opening = max(0.012, 0.1 * (1 + 0.8 * e.eyes))
        gaze = self.rng.normal(0, 0.03)
        for x in (-self.eye_x, self.eye_x):
            self.draw_eye(x, opening, gaze, e.cheeks)
        if self.rng.random() < 0.15:  # glasses
            self.stroke(_curve(0, self.eye_y, 0.09, 0.02), 30, 0.03)
            for x in (-self.eye_x, self.eye_x):
                self.stroke(_ellipse(x, self.eye_y + 0.03, 0.25, 0.2), 30, 0.03)

    def draw_eye(self, centre: float, opening: float, gaze: float, cheeks: float) -> None:
        t = np.linspace(-1, 1, 15)
        x = centre + 0.175 * t
        upper = self.eye_y - opening * (1 - t**2)
        lower = self.eye_y + opening * (0.75 - 0.4 * np.clip(cheeks, 0, 1)) * (1 - t**2)
        self.fill(_between(x, upper, lower), _blend(self.skin, 250, 0.75))
        iris = _ellipse(centre + gaze, self.eye_y - 0.01, 0.08, 0.09)
        # The lids cover what is outside the opening, which is most of the iris in narrow eyes.
        lids = np.interp(iris[:, 0], x, upper), np.interp(iris[:, 0], x, lower)
        iris[:, 1] = np.clip(iris[:, 1], *lids)
        self.fill(iris, 25)
        self.stroke(np.stack([x, upper], axis=1), 0.3 * self.skin, 0.03)
        self.stroke(np.stack([x, lower], axis=1), 0.7 * self.skin, 0.018)
        self.crease(_curve(centre, self.eye_y + 0.14, 0.16, -0.05), 0.6 * cheeks)

    def draw_mouth(self, e: Expression) -> None:
        t = np.linspace(-1, 1, 21)
        x = 0.32 * (1 + 0.4 * e.width) * t
        jaw = max(e.jaw, 0)
        # The corners move against the middle; at rest they are a little up, or the lips' thickness
        # makes every face look sour.
        line = self.mouth_y + 0.2 * (e.corners + 0.15) * (0.4 - t**2)
        upper = line - (0.06 * jaw + 0.09 * max(e.upper_lip, 0)) * (1 - t**2)
        # A stretched mouth opens as a slot, a rounded one as an oval.
        lower = line + 0.36 * jaw * (1 - t**4 if e.width > 0 else np.sqrt(1 - t**2))
        lip = 0.05 * (1 + 0.4 * min(e.width, 0)) * (1 - t**4)
        self.fill(_between(x, upper - 0.8 * lip, lower + 1.4 * lip), 0.62 * self.skin)
        self.fill(_between(x, upper, lower), 25)
        teeth = _blend(upper, lower, np.clip(e.teeth, 0, 1))
        self.fill(_between(x, upper, teeth), _blend(self.skin, 250, 0.8))
        self.stroke(np.stack([x, upper], axis=1), 0.3 * self.skin, 0.025)
        self.crease(_curve(0, self.mouth_y + 0.2, 0.14, 0.05), 0.7 * e.chin)


def _photograph(image: Image.Image, rng: np.random.Generator) -> Images:
    """Light from one side, a lens, a sensor: what stands between a face and its 48x48 pixels."""
    blurred = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 3.0)))
    pixels = np.asarray(blurred.reduce(SUPERSAMPLING), np.float64)
    y, x = np.mgrid[-1 : 1 : SIZE * 1j, -1 : 1 : SIZE * 1j]
    light = rng.uniform(0, 2 * np.pi)
    pixels *= 1 + rng.uniform(0, 0.4) * (np.cos(light) * x + np.sin(light) * y)
    pixels = 128 + (pixels - 128) * rng.uniform(0.7, 1.15) + rng.normal(0, 15)
    pixels += rng.normal(0, rng.uniform(1, 7), pixels.shape)
    return np.clip(pixels, 0, 255).astype(np.uint8)


def _curve(x: float, y: float, half: float, rise: float) -> Points:
    """A shallow arc around (x, y), its middle `rise` above its ends."""
    t = np.linspace(-1, 1, 9)
    return np.stack([x + half * t, y - rise * (1 - t**2)], axis=1)


def _ellipse(x: float, y: float, rx: float, ry: float) -> Points:
    angle = np.linspace(0, 2 * np.pi, 28)
    return np.stack([x + rx * np.cos(angle), y + ry * np.sin(angle)], axis=1)


def _between(x: Points, top: Points, bottom: Points) -> Points:
    """The closed shape between two curves over the same x."""
    return np.concatenate([np.stack([x, top], axis=1), np.stack([x, bottom], axis=1)[::-1]])


def _blend(a: Any, b: Any, share: Any) -> Any:
    return a + (b - a) * share
