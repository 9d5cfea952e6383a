"""One slice as a small PNG: grey image, true outline, prediction as a translucent fill with its own outline."""

import io

import numpy as np
import numpy.typing as npt
from PIL import Image

Mask = npt.NDArray[np.bool_]

SIDE = 192
"""Pixels of a picture's longer side, at most."""
TRUTH = (255, 194, 10)
PREDICTION = (0, 158, 255)
"""Yellow and blue, which every common colour blindness tells apart; and only the second is filled."""
OPACITY = 0.38
LINE = 2
"""Pixels that an outline is thick."""

_GREYS = 64
_OUTLINE, _TRUE_OUTLINE = 2 * _GREYS, 2 * _GREYS + 1
"""Places in the palette: plain greys, tinted greys, then the two outlines."""


def overlay(image: npt.NDArray[np.floating], truth: Mask, prediction: Mask | None) -> bytes:
    """Return the picture as a PNG of a fixed palette: the same arrays give the same bytes.

    Parameters
    ----------
    image
        Intensities, (height, width); drawn from its least (black) to its greatest (white).
    truth, prediction
        Pixels that are prostate, (height, width); None for the picture of the truth alone.
    """
    places = _grey_levels(_fitted(image))
    if prediction is not None:
        predicted = _fitted_mask(prediction)
        places[predicted] += _GREYS
        places[outline(predicted, LINE)] = _OUTLINE
    places[outline(_fitted_mask(truth), LINE)] = _TRUE_OUTLINE  # last: on top
    picture = Image.fromarray(places)
    picture.putpalette(_palette())
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()


def outline(mask: Mask, thickness: int = 1) -> Mask:
    """Return the mask's own pixels that have one of their four neighbours outside it, or outside the image.

    With more than one pixel of thickness also those that would be next, were these taken away.
    """
    inside = mask
    for _ in range(thickness):
        padded = np.pad(inside, 1)
        inside = inside & padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~inside


def _fitted(image: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """Return the image no larger than SIDE: averaged down, or each pixel a square of so many as fit."""
    longer = max(image.shape)
    if longer > SIDE:
        height, width = (max(1, round(size * SIDE / longer)) for size in image.shape)
        shrunk = Image.fromarray(np.asarray(image, np.float32)).resize((width, height), Image.Resampling.BOX)
        return np.asarray(shrunk, np.float32)
    times = SIDE // longer
    return np.asarray(image, np.float32).repeat(times, axis=0).repeat(times, axis=1)


def _fitted_mask(mask: Mask) -> Mask:
    return np.asarray(_fitted(mask.astype(np.float32)) >= 0.5)


def _grey_levels(image: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    low, high = float(image.min()), float(image.max())
    share = (image - low) / (high - low) if high > low else np.zeros_like(image)
    return np.round(share * (_GREYS - 1)).astype(np.uint8)


def _palette() -> bytes:
    greys = np.linspace(0, 255, _GREYS)[:, None].repeat(3, axis=1)
    tinted = (1 - OPACITY) * greys + OPACITY * np.array(PREDICTION)
    colours = np.concatenate([greys, tinted, [PREDICTION, TRUTH]])
    return np.round(colours).astype(np.uint8).tobytes()
