"""Slices of a volume by the slow and obvious way: voxel by voxel, in loops, from RAS arrays.

Resizing is written out as weighted sums: a triangle as wide as the larger of a source and a target pixel.
"""

import numpy as np


def as_seen(values, height):
    """Return one axial slice as a list of rows: front to back, each from the patient's right to the left."""
    width, depth, _ = values.shape
    return np.array(
        [
            [values[width - 1 - column, depth - 1 - row, height] for column in range(width)]
            for row in range(depth)
        ]
    )


def triangle_weights(length, size):
    """Return (size, length): what each source pixel adds to each target pixel."""
    weights = np.zeros((size, length))
    ratio = length / size
    reach = max(ratio, 1.0)
    for target in range(size):
        centre = (target + 0.5) * ratio
        for source in range(length):
            weights[target, source] = max(0.0, 1 - abs(source + 0.5 - centre) / reach)
        weights[target] /= weights[target].sum()
    return weights


def grey_levels(scan, height, size):
    """Return one slice in [0, 1] after clipping, scaling and resizing: (size, size)."""
    values = np.sort(scan.astype(np.float64).ravel())
    place = 0.99 * (len(values) - 1)
    below = int(place)
    high = values[below] + (place - below) * (values[below + 1] - values[below])
    low = values[0]
    plane = (np.minimum(as_seen(scan, height).astype(np.float64), high) - low) / (high - low)
    rows, columns = plane.shape
    return triangle_weights(rows, size) @ plane @ triangle_weights(columns, size).T


def mask(labels, height, size):
    """Return the resized mask of one slice: (size, size), 0 or 1."""
    plane = as_seen(labels, height)
    rows, columns = plane.shape
    picked = np.zeros((size, size), dtype=np.uint8)
    for row in range(size):
        for column in range(size):
            source = plane[int((row + 0.5) * rows / size), int((column + 0.5) * columns / size)]
            picked[row, column] = source > 0
    return picked


def slices(scan, labels, size):
    """Return (heights, images, masks): (n,), (n, 3, size, size), (n, size, size)."""
    top = scan.shape[2] - 1
    heights, images, masks = [], [], []
    for height in range(top + 1):
        shown = mask(labels, height, size)
        if shown.sum() == 0:
            continue
        heights.append(height)
        masks.append(shown)
        neighbours = (max(0, height - 1), height, min(top, height + 1))
        images.append(np.stack([grey_levels(scan, one, size) for one in neighbours]))
    return np.array(heights), np.array(images), np.array(masks)
