"""Solids in millimetres: what the phantom's organs are cut from.

Coordinates are of the patient: x to the right, y to the front (anterior), z to the head (superior).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Bools = npt.NDArray[np.bool_]
Points = tuple[Floats, Floats, Floats]
"""x, y and z in mm, three arrays that broadcast to one shape."""

ALONG = 1e4
"""Semi-axis, in mm, of what runs through every volume: body, rectum."""


def turned(u: Floats, v: Floats, degrees: float) -> tuple[Floats, Floats]:
    """Return the coordinates (u, v) in axes that are turned by `degrees`, counter-clockwise."""
    cosine, sine = np.float32(np.cos(np.deg2rad(degrees))), np.float32(np.sin(np.deg2rad(degrees)))
    return cosine * u + sine * v, cosine * v - sine * u


@dataclass(frozen=True)
class Ellipsoid:
    """The points where |x/a|^p + |y/b|^p + |z/c|^p ≤ 1, around a centre, turned and leaning.

    Attributes
    ----------
    centre, semi_axes : tuple of float
        mm, along x, y, z.
    turn : float
        Degrees in the axial plane, counter-clockwise seen from the head.
    lean : float
        mm in y per mm in z: how far the axis of a tube leans to the front on its way to the head.
    power : float
        p: 2 is an ellipsoid, more is boxier.
    """

    centre: tuple[float, float, float]
    semi_axes: tuple[float, float, float]
    turn: float = 0.0
    lean: float = 0.0
    power: float = 2.0

    def level(self, points: Points) -> Floats:
        """Return the left side of the inequality at `points`, in their broadcast shape."""
        z = points[2] - np.float32(self.centre[2])
        x, y = turned(
            points[0] - np.float32(self.centre[0]),
            points[1] - np.float32(self.centre[1]) - np.float32(self.lean) * z,
            self.turn,
        )
        if self.power == 2.0:  # without the general power, which is ten times slower
            total = sum((u / np.float32(a)) ** 2 for u, a in zip((x, y, z), self.semi_axes, strict=True))
        else:
            power = np.float32(self.power)
            total = sum(
                np.abs(u / np.float32(a)) ** power for u, a in zip((x, y, z), self.semi_axes, strict=True)
            )
        return np.asarray(total, dtype=np.float32)

    def holds(self, points: Points) -> Bools:
        """Say which of `points` lie inside."""
        return self.level(points) <= 1

    def shrunk(self, by: float) -> Ellipsoid:
        """Return this solid without a rind of `by` mm, at least 0.1 mm thick."""
        a, b, c = (max(axis - by, 0.1) for axis in self.semi_axes)
        return replace(self, semi_axes=(a, b, c))

    def mirrored(self) -> Ellipsoid:
        """Return this solid's twin on the other side of the body."""
        x, y, z = self.centre
        return replace(self, centre=(-x, y, z), turn=-self.turn)


@dataclass(frozen=True)
class Gland:
    """The prostate: an ellipsoid with a flat back, a narrow apex and a wavy outline, and a core inside.

    Attributes
    ----------
    centre, semi_axes : tuple of float
        mm, along x, y, z.
    flat : float
        The semi-axis to the back is so many times the one to the front.
    taper : float
        Share of its width and depth that the gland loses from its middle to the apex.
    waves : tuple of (float, float)
        Amplitude and phase (radians) of the outline's waves in the axial plane: the first has two periods
        round the gland, the next three, and so on.
    core_centre, core_semi_axes : tuple of float
        Of the central gland, in units of the gland's own semi-axes.
    """

    centre: tuple[float, float, float]
    semi_axes: tuple[float, float, float]
    flat: float
    taper: float
    waves: tuple[tuple[float, float], ...]
    core_centre: tuple[float, float, float]
    core_semi_axes: tuple[float, float, float]

    def zones(self, points: Points) -> tuple[Bools, Bools]:
        """Return where the peripheral zone and where the central gland is: disjoint, together the gland."""
        x, y, z = (
            (u - np.float32(c)) / np.float32(a)
            for u, c, a in zip(points, self.centre, self.semi_axes, strict=True)
        )
        core = Ellipsoid(self.core_centre, self.core_semi_axes).holds((x, y, z))
        width = 1 - np.float32(self.taper) * np.clip(-z, 0, 1)
        x, y = x / width, np.where(y < 0, y / np.float32(self.flat), y) / width
        angle = np.arctan2(y, x)
        radius = np.ones_like(angle)
        for periods, (amplitude, phase) in enumerate(self.waves, start=2):
            radius += np.float32(amplitude) * np.cos(periods * angle + np.float32(phase))
        gland = (x**2 + y**2) / radius**2 + z**2 <= 1
        return gland & ~core, gland & core

    def grown(self, by: float) -> Gland:
        """Return this gland with a rind of about `by` mm."""
        a, b, c = (axis + by for axis in self.semi_axes)
        return replace(self, semi_axes=(a, b, c))
