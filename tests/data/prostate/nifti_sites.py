"""Small NIfTI volumes in the public layout, in any orientation, and the numbers that they must be read as."""

import nibabel as nib
import numpy as np
from nibabel.orientations import axcodes2ornt, inv_ornt_aff, ornt_transform

SITES = ("BIDMC", "HK", "I2CVB", "ISBI", "ISBI_1.5", "UCL")
RELEASE = ("BIDMC", "HK", "I2CVB", "RUNMC", "BMC", "UCL")
"""Folders of the same sites in the data set's own archive."""
HOSPITALS = ("BIDMC", "HK", "HCRUDB", "RUNMC", "BMC", "UCL")
SHAPE = (20, 24, 7)  # right, front, head
SPACING = (0.5, 0.8, 3.0)


def volume(seed, shape=SHAPE):
    """Return intensities (RAS axes), and labels 0 to 2 with prostate in some slices."""
    rng = np.random.default_rng(seed)
    scan = rng.integers(0, 900, shape).astype(np.int16)
    scan[tuple(rng.integers(0, shape))] = 30_000  # one hot voxel, for the 99th percentile to clip
    labels = np.zeros(shape, dtype=np.uint8)
    width, depth, height = shape
    bottom = 1 + seed % 2
    labels[width // 4 : width // 2, depth // 3 : 2 * depth // 3, bottom : height - 1] = 1
    labels[width // 3 : width // 2, depth // 2 : 2 * depth // 3, bottom + 1 : height - 2] = 2
    return scan, labels


def write(path, values, *, axes="RAS", spacing=SPACING, origin=(-10.0, 5.0, 70.0), oblique=0.0):
    """Write RAS `values` to a file whose axes run as `axes` says; the voxels stay where they are in space."""
    affine = np.diag([*spacing, 1.0])
    turn = np.eye(4)
    cosine, sine = np.cos(oblique), np.sin(oblique)
    turn[1:3, 1:3] = [[cosine, -sine], [sine, cosine]]
    affine = turn @ affine
    affine[:3, 3] = origin
    change = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(axes))
    stored = nib.apply_orientation(values, change)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(stored, affine @ inv_ornt_aff(change, values.shape)), path)


def write_case(
    folder, number, *, seed=None, mask="_segmentation", end=".nii.gz", axes="RAS", shape=SHAPE, **placed
):
    """Write one case; return its scan and labels in RAS axes."""
    scan, labels = volume(number if seed is None else seed, shape)
    write(folder / f"Case{number:02d}{end}", scan, axes=axes, **placed)
    write(folder / f"Case{number:02d}{mask}{end}", labels, axes=axes, **placed)
    return scan, labels


def write_sites(root, cases=5, folders=SITES, **how):
    """Write a set of sites with `cases` cases each, all volumes different."""
    for number, name in enumerate(folders):
        for case in range(cases):
            write_case(root / name, case, seed=10 * number + case, **how)
    return root
