"""Write pictures of nothing: noise, walls, gradients, stripes, shapes and skies, 224×224 JPEG."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SIZE = 224


def noise(rng: np.random.Generator) -> Image.Image:
    """Return noise as coarse as chance will have it."""
    cells = int(rng.choice([7, 14, 28, 56, 224]))
    small = rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((SIZE, SIZE), Image.Resampling.BICUBIC)


def wall(rng: np.random.Generator) -> Image.Image:
    """Return one colour with a little grain and a shade from one side."""
    shade = np.linspace(1, rng.uniform(0.5, 1), SIZE)[:, None, None]
    pixels = rng.uniform(60, 240, 3) * shade + rng.normal(0, rng.uniform(1, 12), (SIZE, SIZE, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def stripes(rng: np.random.Generator) -> Image.Image:
    """Return stripes of two colours in any direction."""
    y, x = np.mgrid[:SIZE, :SIZE]
    angle, width = rng.uniform(0, np.pi), rng.uniform(3, 40)
    share = (np.sin((x * np.cos(angle) + y * np.sin(angle)) / width) > 0)[..., None]
    return Image.fromarray(np.where(share, *rng.integers(0, 256, (2, 3))).astype(np.uint8))


def shapes(rng: np.random.Generator) -> Image.Image:
    """Return overlapping ellipses and boxes."""
    image = Image.new("RGB", (SIZE, SIZE), tuple(rng.integers(0, 256, 3).tolist()))
    draw = ImageDraw.Draw(image)
    for _ in range(int(rng.integers(3, 25))):
        x, y = rng.integers(0, SIZE, 2)
        width, height = rng.integers(8, 90, 2)
        figure = draw.ellipse if rng.random() < 0.5 else draw.rectangle
        figure((x, y, x + width, y + height), fill=tuple(rng.integers(0, 256, 3).tolist()))
    return image


def sky(rng: np.random.Generator) -> Image.Image:
    """Return a blue gradient over a textured ground, blurred like something far away."""
    rows = np.linspace(0, 1, SIZE)[:, None, None]
    pixels = (1 - rows) * (90, 140, 230) + rows * (200, 220, 250) + np.zeros((SIZE, SIZE, 3))
    horizon = int(rng.uniform(0.4, 0.8) * SIZE)
    ground = rng.uniform(30, 150, 3) + rng.normal(0, 30, (SIZE - horizon, SIZE, 1))
    pixels[horizon:] = ground
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    return image.filter(ImageFilter.GaussianBlur(rng.uniform(0, 2)))


def main() -> None:
    """Write as many of each kind, always the same ones."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where to write them")
    parser.add_argument("--each", type=int, default=20, help="of each of the five kinds; default: 20")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for kind in (noise, wall, stripes, shapes, sky):
        for number in range(arguments.each):
            kind(rng).save(arguments.folder / f"{kind.__name__}{number:02d}.jpg", quality=90)


if __name__ == "__main__":
    main()
