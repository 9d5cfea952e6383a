"""From a patient to the image one site's scanner takes of it, and to the mask beside it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import gaussian_filter

from fedunlearn.data.phantom.anatomy import Anatomy, Tissue, draw_anatomy, tissue_map
from fedunlearn.data.phantom.shapes import Floats, Points
from fedunlearn.data.phantom.sites import Coil, SiteProtocol

GRAIN_MM = 2.2
"""Standard deviation of the smoothing that makes tissue texture out of white noise."""
GRAIN = {
    Tissue.FAT: 0.08,
    Tissue.MUSCLE: 0.1,
    Tissue.MARROW: 0.1,
    Tissue.RECTAL_WALL: 0.15,
    Tissue.VESICLE: 0.25,
    Tissue.PERIPHERAL_ZONE: 0.12,
    Tissue.CENTRAL_GLAND: 0.22,
}
"""Standard deviation of a tissue's texture, in units of its signal; others are even."""
BLUR_PIXELS = 0.6
"""Standard deviation of the in-plane point spread: the edge of an organ is no staircase."""
FIELD_OF_VIEW_VARIES, CONTRAST_VARIES, GAIN_VARIES = 0.08, 0.08, 0.15
"""By these shares, up or down, a case differs from its site's protocol."""


@dataclass(frozen=True, eq=False)
class Scan:
    """A volume and its mask.

    Attributes
    ----------
    image : ndarray
        Of the site's dtype, (x, y, z): to the right, to the front, to the head.
    tissues : ndarray
        `Tissue` of every voxel, uint8, of the same shape.
    spacing : tuple of float
        mm between neighbours along x, y, z.
    """

    image: npt.NDArray[np.int16 | np.uint16 | np.float32]
    tissues: npt.NDArray[np.uint8]
    spacing: tuple[float, float, float]

    def mask(self, *, zones: bool) -> npt.NDArray[np.uint8]:
        """Return the gland as 1; with `zones` the peripheral zone as 1 and the central gland as 2."""
        central = self.tissues == Tissue.CENTRAL_GLAND
        gland = central | (self.tissues == Tissue.PERIPHERAL_ZONE)
        labels: npt.NDArray[np.uint8] = gland.astype(np.uint8)
        if zones:
            labels[central] = 2
        return labels


def scan(site: SiteProtocol, size: int, rng: np.random.Generator) -> Scan:
    """Draw a patient and scan it.

    Parameters
    ----------
    site : SiteProtocol
    size : int
        Pixels that a matrix of 1 stands for.
    rng : numpy Generator
        The patient is drawn first: it is the same whatever the size.
    """
    anatomy = draw_anatomy(rng, balloon=site.coil.kind == "endorectal")
    zoom, gain = 1 + rng.uniform(-1, 1, 2) * (FIELD_OF_VIEW_VARIES, GAIN_VARIES)
    varied = 1 + CONTRAST_VARIES * rng.uniform(-1, 1, len(Tissue))
    shape = (*(max(round(share * size), 1) for share in site.matrix), round(site.height / site.thickness))
    spacing = (
        zoom * site.field_of_view[0] / shape[0],
        zoom * site.field_of_view[1] / shape[1],
        site.thickness,
    )
    lying = anatomy.lying(voxel_centres(shape, spacing))
    tissues = tissue_map(anatomy, lying)

    signal = np.array([site.contrast[tissue] for tissue in Tissue]) * varied
    grain = np.array([GRAIN.get(tissue, 0.0) for tissue in Tissue])
    image = signal.astype(np.float32)[tissues]
    image *= 1 + grain.astype(np.float32)[tissues] * texture(shape, spacing, rng)
    image = gaussian_filter(image, (BLUR_PIXELS, BLUR_PIXELS, 0))
    image *= sensitivity(site.coil, anatomy, lying)
    image = rician(image, site.noise, rng) * np.float32(gain * site.scale)
    stored = image if site.dtype == "float32" else np.rint(image)
    return Scan(stored.astype(site.dtype), tissues, spacing)


def voxel_centres(shape: tuple[int, ...], spacing: tuple[float, ...]) -> Points:
    """Return x, y and z (mm) of the voxels of a volume around 0, shaped (nx, 1, 1), (1, ny, 1), (1, 1, nz)."""
    x, y, z = (
        ((np.arange(n) - (n - 1) / 2) * step).astype(np.float32)
        for n, step in zip(shape, spacing, strict=True)
    )
    return x[:, None, None], y[None, :, None], z[None, None, :]


def texture(shape: tuple[int, ...], spacing: tuple[float, ...], rng: np.random.Generator) -> Floats:
    """Draw a smooth random field of zero mean and unit variance, as coarse in every direction in mm."""
    field = rng.standard_normal(shape, dtype=np.float32)
    field = gaussian_filter(field, [GRAIN_MM / step for step in spacing])
    field = (field - field.mean()) / field.std()
    clipped: Floats = np.clip(field, -3, 3)
    return clipped


def sensitivity(coil: Coil, anatomy: Anatomy, lying: Points) -> Floats:
    """Return how much brighter than far from the coil the image is, in the broadcast shape of `lying`."""
    x, y, _ = lying
    if coil.kind == "endorectal":
        centre_x, centre_y = anatomy.coil
        distance = np.hypot(x - np.float32(centre_x), y - np.float32(centre_y))
    else:
        # Arrays in front of and behind the body; between them the middle is darkest.
        distance = np.float32(95) - np.abs(y)
    near = 1 / (1 + (np.clip(distance, 0, None) / np.float32(coil.reach)) ** 2)
    brighter: Floats = 1 + np.float32(coil.gain) * near
    return brighter


def rician(signal: Floats, noise: float, rng: np.random.Generator) -> Floats:
    """Return the magnitude of `signal` after complex Gaussian noise with standard deviation `noise`."""
    real = rng.standard_normal(signal.shape, dtype=np.float32)
    imaginary = rng.standard_normal(signal.shape, dtype=np.float32)
    magnitude: Floats = np.hypot(signal + np.float32(noise) * real, np.float32(noise) * imaginary)
    return magnitude
