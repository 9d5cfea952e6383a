"""The six sites: what each one's scanner makes of the same anatomy.

Sites and their order, which of them image with an endorectal coil, in-plane spacing and slice thickness follow
the published description of the public six-site data (Liu et al., "MS-Net", IEEE TMI 2020) roughly. Contrasts
are invented and drawn further apart than those of six T2 protocols: HK's is weighted like T1 and UCL's fat is
suppressed, so that a network which never saw such a site fails there, as a forgotten site should show.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from fedunlearn.data.phantom.anatomy import Tissue

Contrast = dict[Tissue, float]


@dataclass(frozen=True)
class Coil:
    """A receive coil: how much brighter the image is near it.

    Attributes
    ----------
    kind : "endorectal" | "surface"
        Beside the gland, in the rectum; or in front of and behind the body.
    gain : float
        The signal at the coil is 1 + gain times that far away.
    reach : float
        mm from the coil at which half of the gain is left.
    """

    kind: Literal["endorectal", "surface"]
    gain: float
    reach: float


@dataclass(frozen=True)
class SiteProtocol:
    """How one site scans and files.

    Attributes
    ----------
    name : str
        Of the site's folder.
    matrix : tuple of float
        Columns (left to right) and rows (front to back), in units of the set's ``size``.
    field_of_view : tuple of float
        Along the two, mm; every case differs by some percent.
    thickness, height : float
        From slice to slice, and of the whole stack of slices: mm.
    axes : str
        Where the axes of the stored array point, in NIfTI's letters: "LPS" runs left, back, head.
    oblique : float
        Degrees by which the slices are tilted in the scanner.
    contrast : dict
        Signal of each tissue, 0 to 1, before the coil.
    coil : Coil
    noise : float
        Standard deviation of the noise in either channel, in units of the signal.
    scale : float
        The value stored for a signal of 1.
    dtype : str
        Stored type.
    zones : bool
        Masks tell the peripheral zone (1) from the central gland (2), instead of calling all of it 1.
    mask : str
        What the name of a mask has after the name of its case.
    """

    name: str
    matrix: tuple[float, float]
    field_of_view: tuple[float, float]
    thickness: float
    height: float
    axes: str
    oblique: float
    contrast: Contrast
    coil: Coil
    noise: float
    scale: float
    dtype: Literal["int16", "uint16", "float32"]
    zones: bool = False
    mask: str = "_segmentation"


def _contrast(
    *, fat: float, muscle: float, marrow: float, fluid: float, zone: float, core: float
) -> Contrast:
    """Return the signal of every tissue from those that set a protocol apart."""
    return {
        Tissue.AIR: 0.0,
        Tissue.FAT: fat,
        Tissue.MUSCLE: muscle,
        Tissue.MARROW: marrow,
        Tissue.CORTICAL_BONE: 0.04,
        Tissue.URINE: fluid,
        Tissue.BLADDER_WALL: 1.2 * muscle,
        Tissue.RECTAL_WALL: 1.6 * muscle,
        Tissue.RECTAL_LUMEN: 0.05,
        Tissue.VESICLE: 0.5 * (fluid + zone),
        Tissue.PERIPHERAL_ZONE: zone,
        Tissue.CENTRAL_GLAND: core,
        Tissue.CAPSULE: 0.9 * muscle,
    }


SITES = (
    SiteProtocol(
        name="BIDMC",
        matrix=(1.0, 1.0),
        field_of_view=(140, 140),
        thickness=2.2,
        height=80,
        axes="LPS",
        oblique=0,
        contrast=_contrast(fat=0.55, muscle=0.2, marrow=0.45, fluid=0.8, zone=0.5, core=0.26),
        coil=Coil("endorectal", gain=5.0, reach=24),
        noise=0.03,
        scale=900,
        dtype="int16",
    ),
    SiteProtocol(
        name="HK",
        matrix=(0.8, 0.8),
        field_of_view=(165, 165),
        thickness=3.6,
        height=83,
        axes="RAS",
        oblique=6,
        contrast=_contrast(fat=0.95, muscle=0.42, marrow=0.8, fluid=0.22, zone=0.3, core=0.36),
        coil=Coil("endorectal", gain=1.0, reach=30),
        noise=0.03,
        scale=420,
        dtype="uint16",
    ),
    SiteProtocol(
        name="I2CVB",
        matrix=(0.95, 0.8),
        field_of_view=(202, 170),
        thickness=2.0,
        height=78,
        axes="LAS",
        oblique=0,
        contrast=_contrast(fat=0.6, muscle=0.12, marrow=0.45, fluid=1.0, zone=0.85, core=0.42),
        coil=Coil("surface", gain=0.5, reach=70),
        noise=0.04,
        scale=310,
        dtype="int16",
    ),
    SiteProtocol(
        name="ISBI",
        matrix=(0.9, 0.9),
        field_of_view=(186, 186),
        thickness=4.0,
        height=84,
        axes="PLS",
        oblique=-4,
        contrast=_contrast(fat=0.54, muscle=0.18, marrow=0.46, fluid=0.95, zone=0.8, core=0.42),
        coil=Coil("surface", gain=0.5, reach=60),
        noise=0.025,
        scale=1400,
        dtype="int16",
        zones=True,
        mask="_Segmentation",
    ),
    SiteProtocol(
        name="ISBI_1.5",
        matrix=(0.85, 0.85),
        field_of_view=(136, 136),
        thickness=3.0,
        height=81,
        axes="LPI",
        oblique=0,
        contrast=_contrast(fat=0.8, muscle=0.25, marrow=0.55, fluid=0.85, zone=0.6, core=0.42),
        coil=Coil("endorectal", gain=2.2, reach=35),
        noise=0.04,
        scale=2600,
        dtype="int16",
        zones=True,
        mask="_Segmentation",
    ),
    SiteProtocol(
        name="UCL",
        matrix=(0.75, 0.7),
        field_of_view=(158, 147),
        thickness=3.3,
        height=80,
        axes="RPS",
        oblique=8,
        contrast=_contrast(fat=0.28, muscle=0.22, marrow=0.22, fluid=0.95, zone=0.7, core=0.46),
        coil=Coil("surface", gain=0.3, reach=80),
        noise=0.04,
        scale=1.0,
        dtype="float32",
    ),
)
"""The sites, in the order of clients."""
