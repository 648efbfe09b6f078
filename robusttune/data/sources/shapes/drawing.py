"""Drawing of scenes: anti-aliased shapes on paper or on a blackboard."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from robusttune.data.sources.shapes.factors import FACTORS, HIDDEN, INDEX
from robusttune.data.sources.shapes.world import Scene

SIDE = 64  # pixels; width and height of an image
CLUTTER = 5  # strokes at most
StyleName = Literal["paper", "blackboard"]


class Style(NamedTuple):
    """A style of drawing.

    Attributes:
        ground: Grey level of the background, 0 to 255.
        stroke: Grey level of clutter, relative to the background.
        pale: Fraction of white that is mixed into colours, in [0, 1].
        dark: Brightness of the dark parts of a texture, relative to its colour, in [0, 1].
        hollow: Fraction of the background that shows through inside an outline, in [0, 1]; 0 for a flat fill.
        grain: Standard deviation of the noise on each pixel, in grey levels.
    """

    ground: int
    stroke: int
    pale: float
    dark: float
    hollow: float
    grain: float


STYLES: dict[StyleName, Style] = {
    "paper": Style(ground=235, stroke=-30, pale=0.0, dark=0.45, hollow=0.0, grain=2.0),
    "blackboard": Style(ground=40, stroke=35, pale=0.35, dark=0.5, hollow=0.45, grain=6.0),
}
PALETTE = np.array(
    [
        (220, 45, 40),
        (242, 145, 30),
        (238, 215, 45),
        (45, 155, 60),
        (60, 200, 205),
        (45, 85, 210),
        (125, 50, 175),
        (245, 130, 190),
        (128, 128, 128),  # the neutral value of a hidden factor
    ],
    dtype=np.float32,
)
RADII = (6.5, 10.5, 8.5)  # pixels; the last is for a hidden size
SPACING = 2.5  # pixels between objects
# Centres of the objects, in units of their distance, by count: once, twice, thrice, hidden.
GROUPS = (
    ((0.0, 0.0),),
    ((-0.5, 0.0), (0.5, 0.0)),
    ((-0.5, -0.5), (0.5, -0.5), (0.0, 0.5)),
    ((-0.5, -0.5), (0.5, -0.5), (-0.5, 0.5), (0.5, 0.5)),
)
SHIFTS = ((-8, 0), (8, 0), (0, -8), (0, 8), (0, 0))  # pixels to the right and down; the last is for a hidden position
TILTS = (-8, -4, 0, 4, 8)  # degrees
ZOOM = 8  # factor of supersampling: shapes are drawn enlarged, then averaged


def draw(scene: Scene, style: StyleName, rng: np.random.Generator) -> Image.Image:
    """Draw the values that are visible in the image of a scene.

    Background, clutter, grain and small shifts are independent of the scene.

    Args:
        scene: Scene to draw; only ``scene.image`` is used.
        style: Name of the style in `STYLES`.
        rng: Random generator. Every call uses the same number of draws.

    Returns:
        RGB image of 64 x 64 pixels.

    Example:
        >>> draw(Scene(0, (0,) * 6, (0,) * 6), "paper", np.random.default_rng(0)).size
        (64, 64)
    """
    look = STYLES[style]
    numbers = rng.random(12 + 4 * CLUTTER)
    tint, tone, shift, (stretch, tilt, strokes, _) = numbers[:3], numbers[3:6], numbers[6:8], numbers[8:12]
    ground = (look.ground + 16 * (tint - 0.5)).astype(np.float32)
    pixels = np.broadcast_to(ground, (SIDE, SIDE, 3)).copy()
    _add_clutter(pixels, ground + look.stroke, int(strokes * (CLUTTER + 1)), numbers[12:].reshape(CLUTTER, 4))
    size, texture, colour, shape, count, position = (
        scene.image[INDEX[name]] for name in ("size", "texture", "colour", "shape", "count", "position")
    )
    radius = RADII[size] + round((stretch - 0.5) * 4) / 4
    alpha, shade = stamp(shape, texture, radius, TILTS[int(tilt * len(TILTS))], look)
    paint = PALETTE[colour] * (1 - look.pale) + 255 * look.pale + (12 * (tone - 0.5)).astype(np.float32)
    distance = 2 * radius + SPACING
    across, down = SIDE / 2 + np.array(SHIFTS[position]) + 3 * (shift - 0.5)
    for x, y in GROUPS[count]:
        _paste(pixels, alpha, shade[..., None] * paint, round(across + x * distance), round(down + y * distance))
    pixels += rng.standard_normal((SIDE, SIDE, 1), dtype=np.float32) * np.float32(look.grain)
    return Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8))


def stamp(shape: int, texture: int, radius: float, tilt: int, look: Style) -> tuple[np.ndarray, np.ndarray]:
    """Rasterise an object.

    Args:
        shape: Index of the shape's value, or `HIDDEN`.
        texture: Index of the texture's value, or `HIDDEN`.
        radius: Radius of the shape, in pixels.
        tilt: Rotation, in degrees.
        look: Style of drawing.

    Returns:
        Fraction of each pixel that the object covers, shape (n, n, 1), and brightness of its paint, shape (n, n); both
        float32 in [0, 1].

    Example:
        >>> [a.shape for a in stamp(0, 0, 6.5, 0, STYLES["paper"])]
        [(19, 19, 1), (19, 19)]
    """
    reach = math.ceil(radius * 1.2) + 1
    return _cover(shape, radius, reach, tilt, look.hollow), _shade(texture, reach, look.dark)


@lru_cache(maxsize=4096)
def _cover(shape: int, radius: float, reach: int, tilt: int, hollow: float) -> np.ndarray:
    """Return the opacity of a shape, (2 * reach + 1, 2 * reach + 1, 1), in [0, 1]."""
    n = 2 * reach + 1
    canvas = Image.new("L", (n * ZOOM,) * 2)
    _outline(ImageDraw.Draw(canvas), shape, radius * ZOOM, canvas.width / 2)
    fine = np.asarray(canvas.rotate(tilt, resample=Image.Resampling.BILINEAR), np.float32) / 255
    alpha: np.ndarray = fine.reshape(n, ZOOM, n, ZOOM).mean((1, 3))
    if hollow:
        inside = np.minimum.reduce([np.roll(alpha, step, axis) for step in (-2, 2) for axis in (0, 1)])
        alpha = alpha * (1 - hollow * inside)
    return alpha[..., None]


@lru_cache
def _shade(texture: int, reach: int, dark: float) -> np.ndarray:
    """Return the brightness of a texture, (2 * reach + 1, 2 * reach + 1): 1, or ``dark`` in its dark parts."""
    rows, columns = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    return np.where(_is_dark(texture, rows, columns), dark, 1.0).astype(np.float32)


def _outline(draw: ImageDraw.ImageDraw, shape: int, radius: float, centre: float) -> None:
    """Draw a filled shape around the centre of the canvas."""

    def polygon(points: list[tuple[float, float]]) -> None:
        """Draw a filled polygon, with points in units of the radius from the centre."""
        draw.polygon([(centre + radius * x, centre + radius * y) for x, y in points], fill=255)

    name = "hidden" if shape == HIDDEN else FACTORS[INDEX["shape"]].values[shape][0]
    if name == "circle":
        draw.ellipse([centre - radius, centre - radius, centre + radius, centre + radius], fill=255)
    elif name == "square":
        polygon([(-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)])
    elif name == "triangle":
        polygon([(0.0, -1.0), (1.0, 0.8), (-1.0, 0.8)])
    elif name == "star":
        spokes = [(k * math.pi / 5, 1.05 if k % 2 == 0 else 0.42) for k in range(10)]
        polygon([(reach * math.sin(angle), -reach * math.cos(angle)) for angle, reach in spokes])
    elif name == "cross":
        polygon([(-1.0, -0.36), (1.0, -0.36), (1.0, 0.36), (-1.0, 0.36)])
        polygon([(-0.36, -1.0), (0.36, -1.0), (0.36, 1.0), (-0.36, 1.0)])
    elif name == "heart":
        turns = [2 * math.pi * k / 60 for k in range(60)]
        rounded = [(13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)) for t in turns]
        polygon([(math.sin(t) ** 3, -y / 16 - 0.1) for t, y in zip(turns, rounded, strict=True)])
    else:  # Only a hidden shape is drawn as a bar.
        polygon([(-1.0, -0.3), (1.0, -0.3), (1.0, 0.3), (-1.0, 0.3)])


def _is_dark(texture: int, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Return a mask of the dark parts of a texture.

    Args:
        texture: Index of the texture's value, or `HIDDEN`.
        rows: Vertical distance of each pixel from the object's centre, shape (n, n).
        columns: Horizontal distance of each pixel from the object's centre, shape (n, n).
    """
    name = "hidden" if texture == HIDDEN else FACTORS[INDEX["texture"]].values[texture][0]
    patterns: dict[str, np.ndarray] = {
        "plain": np.zeros(rows.shape, dtype=bool),
        "striped": (rows // 2) % 2 == 0,
        "dotted": (rows % 4 < 2) & (columns % 4 < 2),
        "checked": ((rows // 3) + (columns // 3)) % 2 == 0,
        "hidden": columns >= 0,  # a dark half, which no other texture has
    }
    return patterns[name]


def _add_clutter(pixels: np.ndarray, paint: np.ndarray, strokes: int, numbers: np.ndarray) -> None:
    """Draw thin strokes at random places.

    Args:
        pixels: Image to draw on, shape (64, 64, 3), changed in place.
        paint: Colour of the strokes, shape (3,).
        strokes: Number of strokes.
        numbers: Start, angle and length of each stroke, shape (at least ``strokes``, 4), in [0, 1).
    """
    for x, y, angle, length in numbers[:strokes]:
        steps = np.arange(4 + 12 * length)
        columns = (SIDE * x + steps * math.cos(math.pi * angle)).astype(int) % SIDE
        rows = (SIDE * y + steps * math.sin(math.pi * angle)).astype(int) % SIDE
        pixels[rows, columns] = paint


def _paste(pixels: np.ndarray, alpha: np.ndarray, paint: np.ndarray, across: int, down: int) -> None:
    """Blend an object into the pixels, in place. Parts beyond the border are cropped.

    Args:
        pixels: Image to draw on, shape (64, 64, 3).
        alpha: Opacity of the object, shape (n, n, 1), in [0, 1].
        paint: Colours of the object, shape (n, n, 3).
        across: Column of the object's centre, in pixels.
        down: Row of the object's centre, in pixels.
    """
    reach = len(alpha) // 2
    top, left = down - reach, across - reach
    rows = slice(max(top, 0), min(top + len(alpha), SIDE))
    columns = slice(max(left, 0), min(left + len(alpha), SIDE))
    visible = (slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left))
    background = pixels[rows, columns]
    background += alpha[visible] * (paint[visible] - background)
