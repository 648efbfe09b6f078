"""Scenes as pixels: anti-aliased shapes on paper or on a blackboard."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from robusttune.data.sources.shapes.factors import FACTORS, HIDDEN, INDEX
from robusttune.data.sources.shapes.world import Scene

SIDE = 64  # pixels
CLUTTER = 5  # strokes at most
StyleName = Literal["paper", "blackboard"]


class Style(NamedTuple):
    """How scenes are drawn.

    Attributes:
        ground: grey level of the background.
        stroke: grey level of clutter, relative to it.
        pale: share of white that is mixed into colours.
        dark: brightness of the dark parts of a texture, relative to its colour.
        hollow: how much of the ground shows inside an outline; 0 for a flat fill.
        grain: standard deviation of noise on each pixel, of 255.
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
        (128, 128, 128),  # hidden
    ],
    dtype=np.float32,
)
RADII = (6.5, 10.5, 8.5)  # pixels; the last is hidden
SPACING = 2.5  # pixels between objects
# Where the objects are, in units of their distance: once, twice, thrice, hidden.
GROUPS = (
    ((0.0, 0.0),),
    ((-0.5, 0.0), (0.5, 0.0)),
    ((-0.5, -0.5), (0.5, -0.5), (0.0, 0.5)),
    ((-0.5, -0.5), (0.5, -0.5), (-0.5, 0.5), (0.5, 0.5)),
)
SHIFTS = ((-8, 0), (8, 0), (0, -8), (0, 8), (0, 0))  # pixels to the right and down; the last is hidden
TILTS = (-8, -4, 0, 4, 8)  # degrees
ZOOM = 8  # shapes are drawn that much larger, then averaged


def draw(scene: Scene, style: StyleName, rng: np.random.Generator) -> Image.Image:
    """(64, 64) RGB of what the image shows. Ground, clutter, grain and small shifts are independent of the scene."""
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
    apart = 2 * radius + SPACING
    across, down = SIDE / 2 + np.array(SHIFTS[position]) + 3 * (shift - 0.5)
    for x, y in GROUPS[count]:
        _lay(pixels, alpha, shade[..., None] * paint, round(across + x * apart), round(down + y * apart))
    pixels += rng.standard_normal((SIDE, SIDE, 1), dtype=np.float32) * np.float32(look.grain)
    return Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8))


def stamp(shape: int, texture: int, radius: float, tilt: int, look: Style) -> tuple[np.ndarray, np.ndarray]:
    """How much of each pixel an object covers, (n, n, 1), and how bright its paint is there, (n, n); both in [0, 1]."""
    reach = math.ceil(radius * 1.2) + 1
    return _cover(shape, radius, reach, tilt, look.hollow), _shade(texture, reach, look.dark)


@lru_cache(maxsize=4096)
def _cover(shape: int, radius: float, reach: int, tilt: int, hollow: float) -> np.ndarray:
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
    rows, columns = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    return np.where(_is_dark(texture, rows, columns), dark, 1.0).astype(np.float32)


def _outline(draw: ImageDraw.ImageDraw, shape: int, radius: float, centre: float) -> None:
    """A filled shape about the centre of the canvas."""

    def polygon(points: list[tuple[float, float]]) -> None:
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
    else:  # a bar is drawn for nothing else
        polygon([(-1.0, -0.3), (1.0, -0.3), (1.0, 0.3), (-1.0, 0.3)])


def _is_dark(texture: int, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Where a texture is dark, by pixels from the object's centre."""
    name = "hidden" if texture == HIDDEN else FACTORS[INDEX["texture"]].values[texture][0]
    patterns: dict[str, np.ndarray] = {
        "plain": np.zeros(rows.shape, dtype=bool),
        "striped": (rows // 2) % 2 == 0,
        "dotted": (rows % 4 < 2) & (columns % 4 < 2),
        "checked": ((rows // 3) + (columns // 3)) % 2 == 0,
        "hidden": columns >= 0,  # a dark half, which nothing else has
    }
    return patterns[name]


def _add_clutter(pixels: np.ndarray, paint: np.ndarray, strokes: int, numbers: np.ndarray) -> None:
    """Thin strokes anywhere: (strokes, 4) numbers in [0, 1) say where they begin and how they go."""
    for x, y, angle, length in numbers[:strokes]:
        steps = np.arange(4 + 12 * length)
        columns = (SIDE * x + steps * math.cos(math.pi * angle)).astype(int) % SIDE
        rows = (SIDE * y + steps * math.sin(math.pi * angle)).astype(int) % SIDE
        pixels[rows, columns] = paint


def _lay(pixels: np.ndarray, alpha: np.ndarray, paint: np.ndarray, across: int, down: int) -> None:
    """Lay an object over the pixels, its centre there; what is beyond the border is lost."""
    reach = len(alpha) // 2
    top, left = down - reach, across - reach
    rows = slice(max(top, 0), min(top + len(alpha), SIDE))
    columns = slice(max(left, 0), min(left + len(alpha), SIDE))
    own = (slice(rows.start - top, rows.stop - top), slice(columns.start - left, columns.stop - left))
    under = pixels[rows, columns]
    under += alpha[own] * (paint[own] - under)
