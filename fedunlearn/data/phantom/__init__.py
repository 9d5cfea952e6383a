"""Prostate MRI without patients: six sites' worth of made-up pelves, in the layout of the public data.

`write_phantoms` is the way in: a patient (`anatomy`, of solids in `shapes`) is scanned (`scan`) by the protocol
of one of six `sites` and filed (`writer`).
"""

from fedunlearn.data.phantom.sites import SITES, SiteProtocol
from fedunlearn.data.phantom.writer import write_phantoms

__all__ = ["SITES", "SiteProtocol", "write_phantoms"]
