"""Ten invented dog breeds, drawn with Pillow from a seed.

Scene, light, pose and collar are drawn independently of the breed: only the dog gives it away.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageColor, ImageDraw, ImageFilter, ImageOps

Colour = tuple[int, ...]
Chain = Sequence[tuple[float, float, float]]  # circles (x, y, radius) and all that lies between
Placed = NDArray[np.float64]  # (n, 2, 3): the same in pixels, one pair of circles per row
Marks = Sequence[tuple[Colour, Chain]]

SIZE, BIG = (400, 300), (800, 600)  # drawn at twice the size, for smooth edges
INK, PINK, WHITE = (38, 30, 32), (232, 130, 140), (250, 248, 244)
BILINEAR = Image.Resampling.BILINEAR


@dataclass(frozen=True)
class Breed:
    """What an invented breed looks like; muzzle in heads, other lengths in dog units."""

    name: str
    coat: str
    second: str
    pattern: str  # plain, bib, tan, saddle, spots or blots
    fur: str  # a key of FUR
    ears: str  # a key of EARS
    tail: str  # a key of TAILS
    leg: float
    girth: float
    length: float
    muzzle: float


# fmt: off
# Meant to be confused: the two fluffy gingers, the two ink-stained whites, the two curly browns.
BREEDS: tuple[Breed, ...] = (
    Breed("marmalade_fluffling", "#d83", "#fed", "bib", "long", "up", "curl", .26, .27, .62, .45),
    Breed("ginger_bramblepup", "#c73", "#fec", "bib", "long", "fold", "plume", .36, .25, .64, .55),
    Breed("inkspot_longlegs", "#fff", "#223", "spots", "short", "down", "whip", .50, .22, .72, .70),
    Breed("inkblot_trotter", "#fff", "#333", "blots", "short", "down", "whip", .42, .23, .70, .60),
    Breed("cocoa_curlmop", "#743", "#743", "plain", "curly", "down", "stub", .34, .27, .58, .55),
    Breed("toffee_curlmop", "#a74", "#a74", "plain", "curly", "down", "plume", .46, .23, .60, .70),
    Breed("midnight_sausage", "#333", "#b73", "tan", "short", "down", "whip", .13, .20, .98, .80),
    Breed("silver_whippersnap", "#9ab", "#dde", "bib", "short", "fold", "whip", .58, .18, .68, .90),
    Breed("snowdrift_cloudpup", "#ffe", "#ffe", "plain", "long", "up", "curl", .34, .30, .62, .40),
    Breed("toast_saddleback", "#c95", "#433", "saddle", "short", "up", "stub", .36, .23, .64, .65),
)

# Hairs for each dog unit of a part's length, their radius at root and tip, their length.
FUR = {"short": (0, 0, 0, 0), "long": (40, 0.026, 0.003, 0.042), "curly": (40, 0.036, 0.036, 0)}
# From the root, in heads; the near ear is the mirror image of this far one.
EARS: dict[str, Chain] = {
    "up": ((0, 0, .36), (.22, -.85, .06)),
    "fold": ((0, 0, .32), (.26, -.52, .17), (.52, -.2, .06)),
    "down": ((.1, .02, .22), (.45, .4, .25), (.5, .95, .24)),
}
TAILS: dict[str, Chain] = {
    "curl": ((0, 0, .09), (-.12, -.12, .085), (-.1, -.27, .08), (.05, -.3, .07), (.07, -.18, .055)),
    "plume": ((0, 0, .06), (-.14, -.07, .085), (-.25, -.2, .1), (-.28, -.36, .04)),
    "whip": ((0, 0, .045), (-.16, -.08, .038), (-.27, -.24, .03), (-.3, -.4, .02)),
    "stub": ((0, 0, .075), (-.1, -.12, .05)),
}
# On the head, in heads: the breed's second colour, then the eyes, then what sits around the nose.
BADGES: dict[str, Sequence[Chain]] = {
    "bib": (((.18, -.9, .08), (.25, .2, .22)), ((-.2, .72, .4), (.5, .72, .4))),
    "tan": (((-.26, -.4, .1),), ((.5, -.4, .09),)),
    "blots": (((-.42, -.3, .42), (-.5, -.1, .4)),),
}
EYES: Sequence[tuple[Colour, Chain]] = (
    (INK, ((-.26, -.12, .13), (-.26, -.08, .13))), (INK, ((.5, -.13, .115), (.5, -.09, .115))),
    (WHITE, ((-.22, -.16, .045),)), (WHITE, ((.54, -.17, .045),)),
)
NOSE: Sequence[tuple[Colour, Chain]] = (
    (INK, ((0, .45, .02), (0, .6, .022), (-.12, .67, .022), (-.27, .6, .018))),
    (INK, ((0, .6, .022), (.1, .65, .022), (.2, .57, .018))),
    (INK, ((-.07, .28, .12), (.07, .28, .11), (0, .38, .07), (-.07, .28, .12))),
    ((150, 145, 150), ((-.06, .23, .03), (.02, .23, .02))),
    (PINK, ((-.05, .72, .11), (-.06, .84, .11))),  # the tongue, last, for it is not always out
)

# A scene: the sky above and below, then what is strewn over it from back to front: shape, colour,
# how many, highest and lowest top edge, width, height; all in parts of the picture.
Prop = tuple[str, str, int, float, float, float, float]
SCENES: tuple[tuple[str, str, tuple[Prop, ...]], ...] = (
    ("#96cdf0", "#d9effa", (  # meadow
        ("oval", "#ffffff", 6, 0, .3, .22, .07), ("oval", "#7db069", 5, .44, .5, .7, .4),
        ("box", "#8cc463", 1, .55, .6, 4, 1), ("spike", "#66a34a", 170, .56, 1, .009, .05),
        ("oval", "#f4e06a", 18, .64, 1, .014, .018), ("oval", "#fbf4f8", 18, .64, 1, .014, .018))),
    ("#8fd0f5", "#e8f6fb", (  # beach
        ("oval", "#fff3b0", 1, .04, .2, .1, .13), ("box", "#4ba6c8", 1, .4, .46, 4, 1),
        ("box", "#c9ebf2", 9, .46, .62, .3, .007), ("oval", "#f2e3b8", 4, .62, .66, 1.2, .3),
        ("box", "#f2e3b8", 1, .7, .72, 4, 1), ("oval", "#cdb482", 40, .7, 1, .012, .01))),
    ("#ead9c4", "#e2cdb2", (  # room
        ("box", "#dcc5a6", 16, -.1, 0, .012, .8), ("box", "#7d9db5", 2, .06, .2, .14, .2),
        ("box", "#c98d7a", 2, .06, .2, .12, .16), ("box", "#b98a5a", 1, .6, .64, 4, 1),
        ("box", "#a87b4d", 9, .66, 1, 1.2, .006), ("oval", "#b5655e", 1, .74, .82, .9, .3))),
    ("#c8daee", "#f4f8fc", (  # snow
        ("spike", "#5d8876", 13, .18, .34, .12, .4), ("box", "#eef3f9", 1, .54, .6, 4, 1),
        ("oval", "#dce6f2", 9, .58, .95, .4, .07), ("oval", "#ffffff", 130, 0, 1, .009, .012))),
    ("#b9cfe0", "#e5edf2", (  # street
        ("box", "#c98f74", 3, 0, .3, .2, 1), ("box", "#93a9b8", 3, .1, .3, .2, 1),
        ("box", "#d8c08f", 5, .2, .3, .18, 1), ("box", "#f7ebbd", 26, .34, .56, .03, .055),
        ("box", "#b0aeb0", 1, .6, .66, 4, 1), ("box", "#97959a", 8, .68, 1, .8, .006))),
    ("#f0dcb8", "#f8efdc", (  # autumn park
        ("box", "#7a5a44", 9, .1, .2, .022, .6), ("oval", "#dc8f3c", 7, -.15, .2, .26, .26),
        ("oval", "#c65a38", 5, -.15, .2, .22, .24), ("box", "#bda263", 1, .56, .62, 4, 1),
        ("oval", "#d0752f", 60, .6, 1, .02, .014), ("oval", "#a8452c", 30, .6, 1, .02, .014))),
)
# fmt: on


def _mix(a: Colour, b: Sequence[int], share: float) -> Colour:
    """Return the colour that far on the way from one to the other."""
    return tuple(round(p + (q - p) * share) for p, q in zip(a, b, strict=True))


class Frame(NamedTuple):
    """Where dog units, or heads, lie among the pixels."""

    x: float
    y: float
    scale: float
    turn: float = 0.0

    def place(self, *chains: Chain) -> Placed:
        """Return chains in pixels; a chain of one circle is a dot."""
        pairs = [pair for c in chains for pair in zip(c, c[1:] or c, strict=False)]
        x, y, r = np.moveaxis(np.array(pairs) * self.scale, -1, 0)
        cos, sin = math.cos(self.turn), math.sin(self.turn)
        return np.stack((self.x + x * cos - y * sin, self.y + x * sin + y * cos, r), axis=-1)

    def at(self, x: float, y: float, size: float = 1.0, turn: float = 0.0) -> Frame:
        """Return a frame whose origin lies there in this one (which is itself not turned)."""
        return Frame(self.x + x * self.scale, self.y + y * self.scale, self.scale * size, turn)


def _fill(image: Image.Image, placed: Placed, fill: Colour | int, grow: float = 0) -> None:
    """Fill each pair of circles and what lies between the straight lines that touch both."""
    pen = ImageDraw.Draw(image)
    for (x0, y0, r0), (x1, y1, r1) in np.add(placed, (0, 0, grow)).tolist():
        pen.ellipse((x0 - r0, y0 - r0, x0 + r0, y0 + r0), fill)
        pen.ellipse((x1 - r1, y1 - r1, x1 + r1, y1 + r1), fill)
        gap = math.hypot(x1 - x0, y1 - y0)
        if gap > abs(r0 - r1):
            along, off = math.atan2(y1 - y0, x1 - x0), math.acos((r0 - r1) / gap)
            up, low = along + off, along - off
            ends = ((x0, y0, r0, up), (x1, y1, r1, up), (x1, y1, r1, low), (x0, y0, r0, low))
            pen.polygon([(x + r * math.cos(a), y + r * math.sin(a)) for x, y, r, a in ends], fill)


class Painter(NamedTuple):
    """A picture in the making, and what every part of the dog needs."""

    picture: Image.Image
    fur: str
    scale: float
    rng: np.random.Generator

    def hair(self, placed: Placed, inside: bool) -> Placed:
        """Return curls or tufts along the outline, or all over: pairs of circles like the rest."""
        number, thick, thin, length = FUR[self.fur]
        spans = np.hypot(*(placed[:, 0] - placed[:, 1])[:, :2].T) + 2 * placed[..., 2].max(axis=1)
        rows = placed.repeat(np.ceil(spans / self.scale * number).astype(int), axis=0)
        t, angle = self.rng.random((len(rows), 1)), self.rng.uniform(0, 2 * np.pi, len(rows))
        spot = rows[:, 0] * (1 - t) + rows[:, 1] * t
        out = np.stack((np.cos(angle), np.sin(angle)), axis=1)
        depth = np.sqrt(self.rng.random((len(rows), 1))) if inside else 0.97
        root = spot[:, :2] + out * spot[:, 2:] * depth
        unit = np.minimum(spot[:, 2:], 0.12 * self.scale) / 0.12  # a thin part has finer fur
        tip = root + np.add(out, (0, 1)) * unit * length * (1 + inside)  # outwards and down
        return np.stack((np.c_[root, unit * thick], np.c_[tip, unit * thin]), axis=1)

    def part(self, frame: Frame, chains: Sequence[Chain], coat: Colour, marks: Marks = ()) -> None:
        """Paint one part of the dog: ink edge, coat, markings, a soft shadow below, fur."""
        placed = frame.place(*chains)
        shape = np.concatenate((placed, self.hair(placed, inside=False)))
        _fill(self.picture, shape, _mix(coat, INK, 0.62), self.scale * 0.011)
        low = np.maximum((shape[..., :2] - shape[..., 2:]).min((0, 1)), 0).astype(int)
        high = np.minimum((shape[..., :2] + shape[..., 2:]).max((0, 1)) + 1, BIG).astype(int)
        size, shift = np.maximum(high - low, 4).tolist(), (*low, 0)
        skin, mask = Image.new("RGB", size, coat), Image.new("L", size)
        for colour, where in marks:
            _fill(skin, frame.place(where) - shift, colour)
        _fill(mask, shape - shift, 255)
        # The part's own outline, moved up and blurred, is where light falls.
        lit = Image.new("L", (-(-size[0] // 4), -(-size[1] // 4)))
        lit.paste(mask.reduce(4).point(lambda v: v * 0.75), (-3, -5))
        lit = lit.filter(ImageFilter.BoxBlur(self.scale * 0.018)).resize(size, BILINEAR)
        for lock in self.hair(placed, inside=True) - shift:
            _fill(lit, lock[None], int(self.rng.integers(125, 236)))
        bright, dark = skin.point(lambda v: v * 1.1), skin.point(lambda v: v * 0.68)
        self.picture.paste(Image.composite(bright, dark, lit), tuple(low.tolist()), mask)


class Pose(NamedTuple):
    """A body in some pose, above a ground at y = 0."""

    legs: Sequence[Chain]  # front, hind
    rump: tuple[float, float, float]
    chest: tuple[float, float, float]
    head: tuple[float, float]


def _pose(breed: Breed, name: str, swing: float) -> Pose:
    """Return the body standing, sitting or lying, its legs swung a little."""
    leg, girth, half = breed.leg, breed.girth, breed.length / 2
    slim = girth * (1.15 - 0.8 * leg)  # the leggier, the more of a waist
    bone = 0.035 + 0.16 * girth
    rump, chest, fore, hind = {
        "stand": ((-half, -leg - girth), (half, -leg - girth), half - swing, -half - 0.06 + swing),
        "sit": ((-0.22 - half * 0.2, -girth), (half * 0.35, -leg * 0.8 - girth * 1.5),
                half * 0.35 + 0.05 + swing * 0.3, 0.02),
        "lie": ((-half, -slim), (half, -girth * 1.05), half + 0.26 + swing, -half + 0.2),
    }[name]  # fmt: skip
    shoulder = (*chest, bone * 1.2 if name == "lie" else girth * 0.5)
    hip = (rump[0] + 0.04, rump[1], slim * 0.8)
    legs = [
        [(x, y * 0.8, thigh), ((x + foot) / 2 - 0.03, y * 0.4, bone * 1.05),
         (foot, -bone * 0.8, bone * 0.85), (foot + bone * 0.9, -bone * 0.7, bone * 0.75)]
        for (x, y, thigh), foot in ((shoulder, fore), (hip, hind))
    ]  # fmt: skip
    head = (chest[0] + 0.1 + girth * 0.5, chest[1] - girth * 0.7 - 0.14 - 0.3 * leg)
    return Pose(legs, (*rump, slim), (*chest, girth), head)


def _marks(breed: Breed, pose: Pose, rng: np.random.Generator) -> list[Chain]:
    """Return where the body wears the breed's second colour."""
    (x0, y0, r0), (x1, y1, r1) = pose.rump, pose.chest
    if breed.pattern == "saddle":
        return [[(x0 - 0.05, y0 - r0 * 0.7, r0 * 0.75), (x1, y1 - r1 * 0.9, r1 * 0.8)]]
    if breed.pattern in ("bib", "tan"):
        socks = [[(x, y, r * 1.2) for x, y, r in leg[-2:]] for leg in pose.legs]
        return [[(x1 + 0.22, y1 + 0.1, r1 * 0.75), (x1 + 0.26, y1 - 0.2, r1 * 0.5)], *socks]
    few = breed.pattern == "blots"
    blots: list[Chain] = []
    places = (np.arange(3) + rng.random()) / 3 if few else rng.uniform(-0.2, 1.2, 90)
    for t in places if breed.pattern != "plain" else ():
        r = (r0 + (r1 - r0) * t) * rng.uniform(0.42, 0.6) if few else rng.uniform(0.014, 0.036)
        x = x0 + (x1 - x0) * t + (0 if few else r0 * rng.uniform(-0.8, 0.8))
        y = y0 + (y1 - y0) * t + r0 * rng.uniform(-0.9, 0.1 if few else 1.6)
        blots.append([(x, y, r), (x + r * rng.normal(), y + r * 0.5, r * 0.8)])
    return blots


def _head(painter: Painter, breed: Breed, coat: Colour, second: Colour, frame: Frame) -> None:
    """Paint the head, turned a little towards where the dog is going."""
    face = coat if breed.pattern in ("plain", "blots", "spots") else second
    dark = second if breed.pattern in ("blots", "saddle", "spots") else coat
    perk, pricked = painter.rng.uniform(-0.15, 0.15), breed.ears == "up"
    ears = [[(root + side * (x - y * perk), y - 0.48, r) for x, y, r in EARS[breed.ears]]
            for side, root in ((1, 0.5), (-1, -0.6))]  # fmt: skip
    lobes = [(_mix(coat, PINK, 0.5), [(x, y + 0.15, r * 0.45) for x, y, r in e]) for e in ears]
    painter.part(frame, ears[:1], dark, lobes[:1] if pricked else [])
    if breed.ears != "down":
        painter.part(frame, ears[1:], dark, lobes[1:] if pricked else [])
    skull = [((-0.22, -0.1, 0.82), (0.22, -0.1, 0.8)), ((-0.3, 0.3, 0.6), (0.35, 0.35, 0.55))]
    painter.part(frame, skull, coat, [(second, b) for b in BADGES.get(breed.pattern, ())])
    tip = 0.3 + breed.muzzle * 0.5
    painter.part(frame, [((0.22, 0.36, 0.42), (tip, 0.44, 0.34))], face)
    rims = frame.place(*(chain for colour, chain in EYES if colour == INK))
    _fill(painter.picture, rims, _mix(coat, WHITE, 0.5), painter.scale * 0.006)
    nose = [(c, [(x + tip + 0.08, y, r) for x, y, r in chain]) for c, chain in NOSE]
    for colour, chain in (*EYES, *nose[: painter.rng.integers(len(nose) - 1, len(nose) + 1)]):
        _fill(painter.picture, frame.place(chain), colour)
    if breed.ears == "down":
        painter.part(frame, ears[1:], dark)


def _scene(rng: np.random.Generator, shadow: Sequence[float]) -> Image.Image:
    """Return a scene without a dog but with its shadow, a little out of focus."""
    top, low, props = SCENES[rng.integers(len(SCENES))]
    sky = Image.new("RGB", (1, 2), top)
    sky.putpixel((0, 1), ImageColor.getrgb(low))
    scene = sky.resize(SIZE, BILINEAR)
    pen = ImageDraw.Draw(scene, "RGBA")
    for shape, colour, count, high, deep, width, height in props:
        for u, v, a, b, *tint in rng.random((count, 7)).tolist():
            ink = _mix(ImageColor.getrgb(colour), [round(255 * t) for t in tint], 0.08)
            x, y = u * SIZE[0], (high + (deep - high) * v) * SIZE[1]
            w, h = width * (0.3 + 0.4 * a) * SIZE[0], height * (0.7 + 0.6 * b) * SIZE[1]
            if shape == "spike":
                pen.polygon(((x - w, y + h), (x, y), (x + w, y + h)), ink)
            else:
                (pen.ellipse if shape == "oval" else pen.rectangle)((x - w, y, x + w, y + h), ink)
    pen.ellipse([v / 2 for v in shadow], (30, 25, 50, 80))
    return scene.filter(ImageFilter.BoxBlur(0.7)).resize(BIG, BILINEAR)


def _dog(breed: Breed, rng: np.random.Generator) -> Image.Image:
    """Return a dog of that breed in some scene, going to the right, at twice the size."""
    tint = rng.integers(0, 256, 3).tolist()
    coat, second = (_mix(ImageColor.getrgb(c), tint, 0.06) for c in (breed.coat, breed.second))
    pose = _pose(breed, ("stand", "sit", "lie")[rng.integers(3)], rng.uniform(-0.09, 0.09))
    (rump_x, rump_y, slim), (chest_x, chest_y, _), (hx, hy) = pose.rump, pose.chest, pose.head
    left, right = rump_x - slim * 0.7 - 0.38, hx + 0.35
    scale = min(780 / (right - left), 550 / (0.5 - hy), 480) * rng.uniform(0.68, 1)
    ground = rng.uniform(max(470, (0.5 - hy) * scale + 8), 580)
    body = Frame(rng.uniform(10 - left * scale, 790 - right * scale), ground, scale)
    rim = (body.x + left * scale, ground - 22, body.x + right * scale, ground + 16)
    painter = Painter(_scene(rng, rim), breed.fur, scale, rng)
    marks: Marks = [(second, chain) for chain in _marks(breed, pose, rng)]
    tail = body.at(rump_x - slim * 0.7, rump_y - slim * 0.5, turn=rng.uniform(-0.35, 0.35))
    painter.part(tail, [TAILS[breed.tail]], coat)
    far = [(_mix(colour, INK, 0.25), chain) for colour, chain in marks]
    painter.part(body.at(0.09, -0.02), pose.legs, _mix(coat, INK, 0.25), far)
    nx, ny = hx * 0.55 + chest_x * 0.45, hy * 0.55 + chest_y * 0.45
    collar = [(nx - 0.22, ny - 0.1, 0.028), (nx + 0.24, ny + 0.12, 0.028)]
    collared = [*marks, (ImageColor.getrgb(f"hsl({rng.integers(360)}, 65%, 45%)"), collar)]
    neck = [(chest_x + 0.04, chest_y, breed.girth * 0.72), (hx, hy, 0.15)]
    painter.part(body, [pose.legs[0], [pose.rump, pose.chest], neck], coat, collared)
    painter.part(body, [pose.legs[1]], coat, marks)
    _head(painter, breed, coat, second, body.at(hx, hy, 0.25, rng.normal(0, 0.17)))
    return painter.picture


def draw(breed: Breed, index: int, seed: int = 0) -> Image.Image:
    """Draw one photo of a breed.

    Parameters
    ----------
    breed : Breed
        Which breed.
    index : int
        Which of its photos, from 0.
    seed : int, optional
        Which set of photos, from 0.

    Returns
    -------
    PIL.Image.Image
        400 x 300 pixels of RGB, the same for the same arguments in any process.
    """
    rng = np.random.default_rng([seed, index, zlib.crc32(breed.name.encode())])
    picture = _dog(breed, rng).reduce(2)
    # Sunlight, shade or lamplight lies over all of the picture.
    gains = rng.uniform(0.82, 1.15) * rng.uniform(0.96, 1.04, (3, 1))
    picture = picture.point((np.arange(256) * gains).clip(0, 255).astype(int).ravel().tolist())
    return ImageOps.mirror(picture) if rng.random() < 0.5 else picture
