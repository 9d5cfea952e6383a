"""A slow, obvious reader of NIfTI volumes, from the standard's tables alone: what the library's is held against.

Fields are unpacked one by one, voxels are scaled and put in their place by loops over axes; no nibabel.
Standard: https://nifti.nimh.nih.gov/nifti-1/documentation/nifti1diagrams_v2.pdf and nifti2.h.
"""

import gzip
import math
import struct
import zlib

import numpy as np

FIELDS = {  # name → (offset, struct letter, how many) of version 1 and of version 2
    1: {
        "dim": (40, "h", 8),
        "datatype": (70, "h", 1),
        "pixdim": (76, "f", 8),
        "vox_offset": (108, "f", 1),
        "slope": (112, "f", 1),
        "inter": (116, "f", 1),
        "units": (123, "B", 1),
        "qform_code": (252, "h", 1),
        "sform_code": (254, "h", 1),
        "quatern": (256, "f", 3),
        "qoffset": (268, "f", 3),
        "srow": (280, "f", 12),
    },
    2: {
        "dim": (16, "q", 8),
        "datatype": (12, "h", 1),
        "pixdim": (104, "d", 8),
        "vox_offset": (168, "q", 1),
        "slope": (176, "d", 1),
        "inter": (184, "d", 1),
        "units": (500, "i", 1),
        "qform_code": (344, "i", 1),
        "sform_code": (348, "i", 1),
        "quatern": (352, "d", 3),
        "qoffset": (376, "d", 3),
        "srow": (400, "d", 12),
    },
}
TYPES = {
    2: "u1",
    4: "i2",
    8: "i4",
    16: "f4",
    64: "f8",
    256: "i1",
    512: "u2",
    768: "u4",
    1024: "i8",
    1280: "u8",
}
MILLIMETRES = {0: 1.0, 1: 1000.0, 2: 1.0, 3: 0.001}


class UnreadableError(Exception):
    """The bytes are no volume of three axes with real numbers and a size."""


def plain(content):
    try:
        return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    except (OSError, EOFError, zlib.error) as error:
        raise UnreadableError("gzip") from error


def header(raw):
    """Return version, byte order and the fields of a header."""
    for version, size in ((1, 348), (2, 540)):
        for order in "<>":
            if len(raw) >= size + 4 and struct.unpack_from(f"{order}i", raw)[0] == size:
                read = {
                    name: struct.unpack_from(f"{order}{many}{letter}", raw, offset)
                    for name, (offset, letter, many) in FIELDS[version].items()
                }
                return version, order, read
    raise UnreadableError("no header")


def voxels(raw, version, order, read):
    """Return the scaled voxels in the order of the file, float64."""
    axes, *shape = read["dim"]
    if axes != 3 or min(shape[:3]) < 1:
        raise UnreadableError("axes")
    if read["datatype"][0] not in TYPES:
        raise UnreadableError("type")
    kind = np.dtype(order + TYPES[read["datatype"][0]])
    begin = read["vox_offset"][0]
    least = {1: 352, 2: 544}[version]
    if not math.isfinite(begin) or int(begin) < least:
        raise UnreadableError("offset")
    if int(begin) + math.prod(shape[:3]) * kind.itemsize != len(raw):
        raise UnreadableError("length")
    values = np.frombuffer(raw, kind, offset=int(begin)).reshape(shape[:3], order="F")
    slope, inter = read["slope"][0], read["inter"][0]
    if math.isfinite(slope) and slope != 0:
        if not math.isfinite(inter):
            raise UnreadableError("intercept")
        if (slope, inter) != (1, 0):
            with np.errstate(all="ignore"):
                return values.astype(np.float64) * slope + inter
    return values.astype(np.float64)


def by_quaternion(read):
    """Return the affine of method 2 of the standard; without a code method 1: axes to the left, front and head."""
    sides = [abs(side) for side in read["pixdim"][1:4]]
    if not all(math.isfinite(side) and side > 0 for side in sides):
        raise UnreadableError("pixdim")
    affine = np.eye(4)
    if not read["qform_code"][0]:
        affine[:3, :3] = np.diag([-sides[0], sides[1], sides[2]])
        centre = (np.array(read["dim"][1:4]) - 1) / 2
        affine[:3, 3] = -affine[:3, :3] @ centre
        return affine
    b, c, d = read["quatern"]
    rest = 1 - (b * b + c * c + d * d)
    if not rest > -1e-6:
        raise UnreadableError("quaternion")
    a = math.sqrt(max(rest, 0))
    if a < 1e-7:
        norm = math.sqrt(b * b + c * c + d * d)
        a, b, c, d = 0, b / norm, c / norm, d / norm
    turn = np.array(
        [
            [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
            [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
            [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
        ]
    )
    handed = -1 if read["pixdim"][0] == -1 else 1
    affine[:3, :3] = turn @ np.diag([sides[0], sides[1], sides[2] * handed])
    affine[:3, 3] = read["qoffset"]
    return affine


def affine_of(read):
    """Return the affine in millimetres, and whether the header says where the volume lies."""
    placed = bool(read["sform_code"][0] or read["qform_code"][0])
    affine = np.vstack([np.reshape(read["srow"], (3, 4)), [0, 0, 0, 1]]) if read["sform_code"][0] else None
    affine = by_quaternion(read) if affine is None else affine
    if not np.isfinite(affine).all():
        raise UnreadableError("affine")
    unit = read["units"][0] & 7
    if unit not in MILLIMETRES:
        raise UnreadableError("unit")
    identity = np.array_equal(affine, np.eye(4))
    return np.diag([MILLIMETRES[unit]] * 3 + [1.0]) @ affine, placed and not identity


def volume(content):
    """Return voxels in the order of the file, the affine in mm, and whether the header says where they lie."""
    raw = plain(content)
    version, order, read = header(raw)
    values = voxels(raw, version, order, read)
    try:
        affine, placed = affine_of(read)
    except UnreadableError:
        if read["sform_code"][0] or read["qform_code"][0]:
            raise
        affine, placed = None, False
    return values, affine, placed


def case(scan, mask):
    """Return intensities and labels as (head, back, left), both float64, and mm along rows and columns.

    Axes are found by the largest part of their direction, the largest of all first.
    """
    values, affine, _ = volume(scan)
    labels, its, placed = volume(mask)
    if affine is None:
        raise UnreadableError("no size")
    its = its if placed else affine
    sides = np.linalg.norm(affine[:3, :3], axis=0)
    axes = axis_order(affine)
    back, left = sides[axes[1]], sides[axes[0]]
    return seen(values, affine), seen(labels, its), (back, left)


def axis_order(affine):
    """Return which stored axis runs left-right, which back-front and which feet-head."""
    parts = np.abs(affine[:3, :3]) / np.linalg.norm(affine[:3, :3], axis=0)
    found = [None, None, None]
    for _ in range(3):
        world, stored = np.unravel_index(np.argmax(parts), (3, 3))
        found[world] = int(stored)
        parts[world, :] = -1
        parts[:, stored] = -1
    return found


def seen(values, affine):
    axes = axis_order(affine)
    for world, stored in enumerate(axes):
        forwards = affine[world, stored] > 0
        if forwards == (world in (0, 1)):  # to the right and to the front are turned to left and back
            values = np.flip(values, axis=stored)
    return values.transpose(axes[2], axes[1], axes[0])
