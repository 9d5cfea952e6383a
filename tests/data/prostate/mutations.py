"""Sound cases in many forms, and random damage to their two files; the same number gives the same bytes."""

import gzip
import struct

import nibabel as nib
import numpy as np

from tests.data.prostate.nifti_sites import SPACING, volume
from tests.oracles.nifti_by_struct import FIELDS

HARMLESS = {
    "descrip": (148, 80),
    "aux_file": (228, 24),
    "cal": (124, 8),
    "intent_name": (328, 16),
    "glmax": (140, 8),
}
"""Fields of a version 1 header that no reader of voxels may look at: offset and length."""

NUMBERS = {
    "b": [0, 1, -1, 127, -128],
    "B": [0, 1, 2, 3, 4, 10, 255],
    "h": [0, 1, 2, 3, 4, 5, 7, 16, 64, 128, 256, 512, 768, 1024, 1536, 2304, -1, -7, 32767, -32768],
    "i": [0, 1, 2, 3, -1, 2**31 - 1],
    "q": [0, 1, 2, 3, 4, 348, 352, 544, 560, -1, 2**40, 2**62],
    "f": [0, -0.0, 1, -1, 0.5, 2, 100, 351, 353, 352.5, 368, 1e-3, 1e3, 1e-30, 1e30, np.nan, np.inf, -np.inf],
    "d": [0, -0.0, 1, -1, 0.5, 2, 1e-3, 1e3, 1e-300, 1e300, np.nan, np.inf, -np.inf],
}


def forms():
    """Return name → (scan, mask): plain bytes of one sound case each."""
    found = {}
    for number, name in enumerate(("plain", "turned", "scaled", "swapped", "second", "quaternion", "micron")):
        scan, labels = volume(number)
        affine = np.diag([*SPACING, 1.0])
        affine[:3, 3] = (-10, 5, 70)
        if name == "turned":
            affine = affine @ np.diag([-1, -1, 1, 1.0])
        kind = nib.Nifti2Image if name == "second" else nib.Nifti1Image
        pair = []
        for values in (scan, labels):
            image = kind(values, affine * ([1000], [1000], [1000], [1]) if name == "micron" else affine)
            image.header.set_xyzt_units("micron" if name == "micron" else "mm")
            if name == "quaternion":
                image.set_qform(image.affine, code=1)
                image.set_sform(None, code=0)
            if name == "scaled":
                image.header.set_slope_inter(2.0, 0.0)
            if name == "swapped":
                image = kind(values, None, image.header.as_byteswapped(">"))
            pair.append(image.to_bytes())
        found[name] = tuple(pair)
    return found


def mutate(number, seed, cases):
    """Return the bytes of a damaged case's two files, and what was done in a few words."""
    rng = np.random.default_rng([seed, number])
    name = str(rng.choice(sorted(cases)))
    files = [bytearray(content) for content in cases[name]]
    which = int(rng.integers(2))
    kind = str(rng.choice(sorted(DAMAGE)))
    packed = [bool(rng.integers(2)) for _ in files]
    done = DAMAGE[kind](rng, files, which, cases)
    content = [
        gzip.compress(bytes(f), 1, mtime=0) if p else bytes(f) for f, p in zip(files, packed, strict=True)
    ]
    if rng.random() < 0.15:
        content[which] = _packed_damage(rng, content[which])
        done += ", then the file's own bytes"
    return content, f"{name}, {('scan', 'mask')[which]}: {kind}: {done}"


def _packed_damage(rng, content):
    if rng.random() < 0.5:
        return content[: int(rng.integers(len(content) + 1))]
    damaged = bytearray(content)
    damaged[int(rng.integers(len(damaged)))] ^= 1 << int(rng.integers(8))
    return bytes(damaged)


def _header_bytes(rng, files, which, cases):
    places = rng.integers(0, 352, int(rng.integers(1, 4))).tolist()
    for place in places:
        files[which][place] = int(rng.integers(256))
    return f"bytes {places}"


def _field(rng, files, which, cases):
    raw = files[which]
    version, order = (1, "<") if raw[:4] == (348).to_bytes(4, "little") else (2, "<")
    if raw[:4] == (348).to_bytes(4, "big"):
        version, order = 1, ">"
    field = str(rng.choice(sorted(FIELDS[version])))
    offset, letter, many = FIELDS[version][field]
    place = int(rng.integers(many))
    value = NUMBERS[letter][int(rng.integers(len(NUMBERS[letter])))]
    size = struct.calcsize(letter)
    struct.pack_into(order + letter, raw, offset + place * size, value)
    return f"{field}[{place}] = {value}"


def _both_fields(rng, files, which, cases):
    """Do the same to both headers, so that it is no disagreement of the two that is noticed."""
    done = ""
    state = rng.bit_generator.state
    for file in (0, 1):
        rng.bit_generator.state = state
        done = _field(rng, files, file, cases)
    return done


def _voxel_bytes(rng, files, which, cases):
    for place in rng.integers(352, len(files[which]), int(rng.integers(1, 9))).tolist():
        files[which][place] = int(rng.integers(256))
    return "bytes of voxels"


def _cut(rng, files, which, cases):
    end = int(rng.integers(len(files[which])))
    del files[which][end:]
    return f"cut at {end}"


def _longer(rng, files, which, cases):
    more = int(rng.integers(1, 2000))
    files[which] += bytes(more)
    return f"{more} bytes more"


def _other_file(rng, files, which, cases):
    other = cases[str(rng.choice(sorted(cases)))]
    files[which][:] = other[int(rng.integers(2))]
    return "another file in its place"


def _exchanged(rng, files, which, cases):
    files.reverse()
    return "scan and mask exchanged"


def _spliced(rng, files, which, cases):
    other = cases[str(rng.choice(sorted(cases)))][int(rng.integers(2))]
    files[which][:352] = other[:352]
    return "the header of another file"


def _shifted(rng, files, which, cases):
    place = int(rng.integers(300, len(files[which])))
    if rng.random() < 0.5:
        files[which].insert(place, 7)
    else:
        del files[which][place]
    return f"one byte more or less at {place}"


def _harmless(rng, files, which, cases):
    name = str(rng.choice(sorted(HARMLESS)))
    if files[which][:4] in ((348).to_bytes(4, "little"), (348).to_bytes(4, "big")):
        offset, length = HARMLESS[name]
        files[which][offset : offset + length] = rng.bytes(length)
    return name


DAMAGE = {
    "header bytes": _header_bytes,
    "field": _field,
    "same field twice": _both_fields,
    "voxels": _voxel_bytes,
    "cut": _cut,
    "longer": _longer,
    "other": _other_file,
    "exchanged": _exchanged,
    "spliced": _spliced,
    "shifted": _shifted,
    "harmless": _harmless,
}
