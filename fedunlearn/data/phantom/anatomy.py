"""A male pelvis around its prostate, drawn anew for every case, and the map of its tissues.

Sizes are of textbook order (a gland of 20 to 70 ml; bladder, rectum, levator ani, obturator muscles, pubic and
hip bones where they lie at its height), the shapes are crude: this is made for networks to find a gland in,
not for anyone to learn anatomy from.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from fedunlearn.data.phantom.shapes import ALONG, Ellipsoid, Gland, Points, turned


class Tissue(IntEnum):
    """What a voxel can consist of."""

    AIR = 0
    FAT = 1
    MUSCLE = 2
    MARROW = 3
    CORTICAL_BONE = 4
    URINE = 5
    BLADDER_WALL = 6
    RECTAL_WALL = 7
    RECTAL_LUMEN = 8
    VESICLE = 9
    PERIPHERAL_ZONE = 10
    CENTRAL_GLAND = 11
    CAPSULE = 12


CAPSULE_MM = 1.4
"""Thickness of the dark line around the gland, outside of what masks call prostate."""


@dataclass(frozen=True)
class Anatomy:
    """One patient.

    Attributes
    ----------
    around, over : tuple of (Tissue, Ellipsoid)
        Organs in the order in which they are laid down, each over those before it: `around` before the gland,
        `over` after it, so that a full rectum dents it.
    gland : Gland
    roll, tilt : float
        Degrees by which the patient lies turned in the axial and in the sagittal plane.
    coil : tuple of float
        x and y in mm, in the patient's coordinates, of where an endorectal coil would lie: in the rectum, at
        its front wall.
    """

    around: tuple[tuple[Tissue, Ellipsoid], ...]
    gland: Gland
    over: tuple[tuple[Tissue, Ellipsoid], ...]
    roll: float
    tilt: float
    coil: tuple[float, float]

    def lying(self, points: Points) -> Points:
        """Return `points` (mm) of the scanner in the coordinates of the patient who lies turned in it."""
        x, y = turned(points[0], points[1], self.roll)
        y, z = turned(y, points[2], self.tilt)
        return x, y, z


def draw_anatomy(rng: np.random.Generator, *, balloon: bool = False) -> Anatomy:
    """Draw a patient; with a `balloon` the rectum is wide and the gland pressed flat, by an endorectal coil.

    The number of draws is the same for every patient, with a balloon or without.
    """

    def between(low: float, high: float) -> float:
        return float(rng.uniform(low, high))

    gland = _draw_gland(rng, flattened=0.85 if balloon else 1.0)
    x, y, z = gland.centre
    wide, deep, high = gland.semi_axes
    lumen = between(8, 13)
    lumen = lumen + 8 if balloon else lumen
    wall = 2.0 if balloon else 3.5
    back = y - deep * gland.flat
    across, along = lumen + wall, (lumen + wall) * between(0.85, 1.0)
    rectum = Ellipsoid(
        (x + between(-4, 4), back + between(1.0, 3.0) - along, z),  # dents the gland by 1 to 3 mm
        (across, along, ALONG),
        lean=between(-0.15, 0.05),
    )
    bladder_high = between(14, 26)
    bladder = Ellipsoid(
        (x + between(-4, 4), y + between(2, 10), z + 0.7 * high + bladder_high),
        (between(26, 40), between(20, 30), bladder_high),
        power=2.3,
    )
    vesicle = Ellipsoid(
        (x + between(11, 15), back + 5, z + 0.95 * high), (between(10, 15), between(4, 6), 8), turn=-15
    )
    around = (
        *_body(rng),
        *_muscles_and_bones(rng),
        *_both(Tissue.MUSCLE, Ellipsoid((x + wide + between(4, 6), y - 4, z - 8), (4, 24, 26), turn=8)),
        (Tissue.BLADDER_WALL, bladder),
        (Tissue.URINE, bladder.shrunk(between(2.5, 4))),
        *_both(Tissue.VESICLE, vesicle),
    )
    return Anatomy(
        around=around,
        gland=gland,
        over=((Tissue.RECTAL_WALL, rectum), (Tissue.RECTAL_LUMEN, rectum.shrunk(wall))),
        roll=between(-6, 6),
        tilt=between(-10, 10),
        coil=(rectum.centre[0], back - wall),
    )


def _draw_gland(rng: np.random.Generator, *, flattened: float) -> Gland:
    wide, deep, high = rng.uniform((21, 15, 17), (29, 21, 24))
    x, y, z = rng.uniform((-5, -4, -3), (5, 8, 3))
    core = rng.uniform(0.62, 0.82)
    waves = zip(rng.uniform(0, 0.05, 3), rng.uniform(-np.pi, np.pi, 3), strict=True)
    return Gland(
        centre=(float(x), float(y), float(z)),
        semi_axes=(float(wide), float(deep * flattened), float(high)),
        flat=float(rng.uniform(0.7, 0.95)),
        taper=float(rng.uniform(0.2, 0.45)),
        waves=tuple((float(amplitude), float(phase)) for amplitude, phase in waves),
        core_centre=(float(rng.uniform(-0.06, 0.06)), 0.22, 0.12),
        core_semi_axes=(float(core), float(core), float(core + 0.06)),
    )


def _body(rng: np.random.Generator) -> tuple[tuple[Tissue, Ellipsoid], ...]:
    """Return the outline of the body: fat, in which everything else lies."""
    wide, deep = rng.uniform((170, 100), (205, 130))
    return ((Tissue.FAT, Ellipsoid((0, 8, 0), (float(wide), float(deep), ALONG), power=2.4)),)


def _muscles_and_bones(rng: np.random.Generator) -> tuple[tuple[Tissue, Ellipsoid], ...]:
    """Return the two sides of the pelvis, with a size of the whole drawn for the patient."""
    size = float(rng.uniform(0.93, 1.07))

    def solid(x: float, y: float, z: float, a: float, b: float, c: float, turn: float = 0) -> Ellipsoid:
        return Ellipsoid((size * x, size * y, z), (size * a, size * b, c), turn=turn, power=2.0)

    return (
        *_both(Tissue.MUSCLE, solid(64, -66, 0, 50, 22, 200, turn=-28)),  # gluteus maximus
        *_both(Tissue.MUSCLE, solid(72, 50, 0, 30, 19, 200, turn=-30)),  # iliopsoas, pectineus
        *_both(Tissue.MUSCLE, solid(45, 2, 0, 8.5, 32, 90, turn=12)),  # obturator internus
        *_bones(solid(62, -12, 10, 10, 27, 90, turn=14), rind=2.0),  # acetabulum, ischium
        *_bones(solid(90, 6, 14, 25, 25, 42), rind=2.5),  # femoral head
        *_bones(solid(21, 50, -14, 20, 8, 30, turn=-24), rind=2.0),  # pubis
        (Tissue.MUSCLE, solid(0, 54, -14, 4, 11, 30)),  # symphysis
        (Tissue.CORTICAL_BONE, solid(0, -78, 12, 15, 9, 60)),  # coccyx
        (Tissue.MARROW, solid(0, -78, 12, 13, 7, 58)),
    )


def _both(tissue: Tissue, right: Ellipsoid) -> tuple[tuple[Tissue, Ellipsoid], ...]:
    return (tissue, right), (tissue, right.mirrored())


def _bones(right: Ellipsoid, *, rind: float) -> tuple[tuple[Tissue, Ellipsoid], ...]:
    marrow = right.shrunk(rind)
    return (*_both(Tissue.CORTICAL_BONE, right), *_both(Tissue.MARROW, marrow))


def tissue_map(anatomy: Anatomy, lying: Points) -> npt.NDArray[np.uint8]:
    """Return the `Tissue` at the points `lying` (mm, in the patient's coordinates), uint8, broadcast shape."""
    tissues = np.full(np.broadcast_shapes(*(u.shape for u in lying)), Tissue.AIR, dtype=np.uint8)
    for tissue, solid in anatomy.around:
        tissues[solid.holds(lying)] = tissue
    for zone in anatomy.gland.grown(CAPSULE_MM).zones(lying):
        tissues[zone] = Tissue.CAPSULE
    peripheral, central = anatomy.gland.zones(lying)
    tissues[peripheral] = Tissue.PERIPHERAL_ZONE
    tissues[central] = Tissue.CENTRAL_GLAND
    for tissue, solid in anatomy.over:
        tissues[solid.holds(lying)] = tissue
    return tissues
