"""An oracle for `shapes`: it reads the factors of a scene from pixels and words and classifies by Bayes' rule.

It knows all distributions from which the scenes are drawn, so its accuracy is the Bayes accuracy.
"""

from __future__ import annotations

import itertools
import string
from functools import cache

import numpy as np
from PIL import Image
from scipy import ndimage

from robusttune.data.sources.shapes import FACTORS, HIDDEN, World
from robusttune.data.sources.shapes.drawing import PALETTE, RADII, SHIFTS, STYLES, TILTS, StyleName, stamp
from robusttune.data.sources.shapes.factors import INDEX

REACH = 15  # pixels from the centre of an object to the edge of its stamp
# Pairs to try one after the other: least contrast of an object, above that of the clutter, and the number of rows
# within an object that may be too dark to stand out.
THRESHOLDS: dict[StyleName, list[tuple[int, int]]] = {
    "paper": [(42, 0), (70, 0), (100, 0)],
    "blackboard": [(44, 2), (50, 2), (56, 0), (70, 0)],
}
Seen = tuple[int | None, ...]  # value of each factor in a modality; HIDDEN if it is hidden, None if it is unknown


def read_text(text: str) -> Seen:
    """Read the value of each factor from the words of a caption; a factor without a word is None."""
    meaning = {
        word: (number, value)
        for number, factor in enumerate(FACTORS)
        for value, words in [*enumerate(factor.values), (HIDDEN, factor.neutral)]
        for word in words
    }
    found = dict(meaning[word] for raw in text.split() if (word := raw.strip(string.punctuation)) in meaning)
    return tuple(found.get(number) for number in range(len(FACTORS)))


def read_image(image: Image.Image, style: StyleName = "paper") -> Seen:
    """Read the value of each factor from a drawing.

    The objects are segmented, and the largest one is compared with all stamps that can be drawn.

    Args:
        image: Drawing of 64 x 64 pixels.
        style: Style of the drawing.
    """
    pixels = np.asarray(image, dtype=np.float64)
    ground = np.median(pixels, axis=(0, 1))
    pieces, objects = _objects(np.abs(pixels - ground).max(2), style)
    boxes = [box for box in ndimage.find_objects(np.where(np.isin(pieces, objects), pieces, 0)) if box is not None]
    down, across = (
        (min(box[axis].start for box in boxes) + max(box[axis].stop for box in boxes) - 1) / 2 for axis in (0, 1)
    )
    position = int(np.argmin([np.hypot(across - 32 - x, down - 32 - y) for x, y in SHIFTS]))
    own = max(objects, key=lambda piece: (pieces == piece).sum())  # the image border may cut the other objects
    shape, texture, size, paint = _fit(pixels - ground, ndimage.binary_dilation(pieces == own), ground, style)
    pale = STYLES[style].pale
    colour = int(np.linalg.norm(PALETTE * (1 - pale) + 255 * pale - paint, axis=1).argmin())
    found = {
        "size": size,
        "texture": texture,
        "colour": HIDDEN if colour == len(PALETTE) - 1 else colour,
        "shape": shape,
        "count": HIDDEN if len(objects) == 4 else len(objects) - 1,
        "position": HIDDEN if position == len(SHIFTS) - 1 else position,
    }
    return tuple(found[factor.name] for factor in FACTORS)


def _objects(change: np.ndarray, style: StyleName) -> tuple[np.ndarray, list[int]]:
    """Segment the objects in a drawing.

    Args:
        change: Largest difference of each pixel to the background over the colour channels, shape (64, 64).
        style: Style of the drawing.

    Returns:
        Number of the connected component at each pixel, shape (64, 64), and the numbers that are objects.
    """
    for threshold, gap in THRESHOLDS[style]:
        mask = ndimage.binary_closing(
            change > threshold, np.ones((1 + gap, 1))
        )  # dark stripes look like the background
        pieces, number = ndimage.label(ndimage.binary_fill_holes(mask), np.ones((3, 3)))
        found = [piece for piece in range(1, number + 1) if (pieces == piece).sum() >= 14]
        boxes = [ndimage.find_objects(pieces)[piece - 1] for piece in found]
        if found and max(extent.stop - extent.start for box in boxes for extent in box) <= 25:
            break
    return pieces, found


def _fit(
    change: np.ndarray, mask: np.ndarray, ground: np.ndarray, style: StyleName
) -> tuple[int, int, int, np.ndarray]:
    """Find the shape, texture, size and RGB colour of an object by least squares over all stamps and small shifts.

    Args:
        change: Difference of each pixel to the background, shape (64, 64, 3).
        mask: Flag of each pixel that belongs to the object, shape (64, 64).
        ground: Colour of the background, shape (3,).
        style: Style of the drawing.
    """
    settings, alpha, painted = _stamps(style)
    rows, columns = np.nonzero(mask)
    middle = (rows.min() + rows.max()) // 2, (columns.min() + columns.max()) // 2
    near = [i for i, (*_, radius) in enumerate(settings) if abs(2 * radius - (np.ptp(columns) - 1)) < 6]
    alpha, painted = alpha[near], painted[near]
    only = np.where(mask[..., None], change, 0.0)
    padded = np.pad(only, ((REACH + 2,) * 2, (REACH + 2,) * 2, (0, 0)))
    shifts = [(2 + middle[0] + y, 2 + middle[1] + x) for y in range(-2, 3) for x in range(-2, 3)]
    window = 2 * REACH + 1
    patches = np.stack([padded[top : top + window, left : left + window].reshape(-1, 3) for top, left in shifts])
    flat = patches.transpose(1, 0, 2).reshape(window**2, -1).astype(np.float32)
    covered, shaded = ((stamps @ flat).reshape(len(near), len(patches), 3) for stamps in (alpha, painted))
    # The patch minus the background that shines through the stamp must equal the stamp times the colour.
    target = (patches**2).sum((1, 2)) + 2 * covered @ ground + ((alpha**2).sum(1) * (ground**2).sum())[:, None]
    along = shaded + (painted * alpha).sum(1)[:, None, None] * ground
    power = (painted**2).sum(1)[:, None]
    best, shift = np.unravel_index((target - (along**2).sum(2) / power).argmin(), target.shape)
    shape, texture, size, _ = settings[near[best]]
    return shape, texture, size, along[best, shift] / power[best]


@cache
def _stamps(style: StyleName) -> tuple[list[tuple[int, int, int, float]], np.ndarray, np.ndarray]:
    """Return all stamps that can be drawn in a style.

    Returns:
        The settings (shape, texture, size, radius) of each stamp; the opacity of its pixels, shape (stamps, pixels);
        and the opacity times the shade of its pixels, shape (stamps, pixels).
    """
    settings, alphas, painted = [], [], []
    values = [[*range(len(FACTORS[INDEX[name]].values)), HIDDEN] for name in ("shape", "texture", "size")]
    for (shape, texture, size), tilt in itertools.product(itertools.product(*values), TILTS):
        for stretch in (-0.5, -0.25, 0.0, 0.25, 0.5):
            alpha, shade = stamp(shape, texture, RADII[size] + stretch, tilt, STYLES[style])
            padding = REACH - len(alpha) // 2
            settings.append((shape, texture, size, RADII[size] + stretch))
            alphas.append(np.pad(alpha[..., 0], padding).reshape(-1))
            painted.append(np.pad(alpha[..., 0] * shade, padding).reshape(-1))
    return settings, np.array(alphas, np.float32), np.array(painted, np.float32)


def answer(world: World, image: Seen | None, text: Seen | None) -> int:
    """Return the class with the largest posterior probability.

    Args:
        world: World from which the scene was drawn.
        image: Factor values that the image shows; None if the image is missing.
        text: Factor values that the text names; None if the text is missing.
    """
    nothing: Seen = (None,) * len(FACTORS)
    weights = np.array(world.class_prior, dtype=np.float64)
    for which, name in enumerate(world.factors):
        number = INDEX[name]
        likely = [
            _likelihood(
                world, len(FACTORS[number].values), value, (image or nothing)[number], (text or nothing)[number]
            )
            for value in range(len(FACTORS[number].values))
        ]
        weights *= [likely[values[which]] for values in world.combinations]
    weights /= weights.sum()
    labelled = (1 - world.label_noise) * weights + world.label_noise * (1 - weights) / (len(weights) - 1)
    return int(labelled.argmax())


def _likelihood(world: World, count: int, value: int, image: int | None, text: int | None) -> float:
    """Return the likelihood of the observed values of a factor.

    Args:
        world: World from which the scene was drawn.
        count: Number of values that the factor can have.
        value: Assumed true value of the factor.
        image: Value in the image; None if it is unknown.
        text: Value in the text; None if it is unknown.
    """

    def shows(seen: int | None, hidden: bool) -> float:
        """Return the likelihood of an observation if the modality hides the factor, or if it shows it."""
        if seen is None:
            return 1.0
        if not hidden:
            return float(seen == value)
        return float(seen == HIDDEN) if world.hidden == "neutral" else float(seen != HIDDEN) / count

    sees = world.visibility
    return (
        sees.image * shows(image, False) * shows(text, True)
        + sees.text * shows(image, True) * shows(text, False)
        + sees.both * shows(image, False) * shows(text, False)
    )
