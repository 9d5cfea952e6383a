"""The colours: legible on the card, and told apart by the colour-blind."""

from itertools import combinations

import numpy as np
import pytest

from fedunlearn.html.palette import SCHEMES, Look, looks
from fedunlearn.report.legend import key, legend, shapes

VISIONS = {  # Machado, Oliveira, Fernandes 2009, severity 1, on linear RGB
    "normal": np.eye(3),
    "protan": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deutan": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
}
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
LINES = [name for name in SCHEMES if name in ("original", "retrain", "natural") or name.startswith("method")]


def linear(colour: str) -> np.ndarray:
    channels = np.array([int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)])
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def lab(rgb: np.ndarray) -> np.ndarray:
    xyz = XYZ @ rgb / np.array([0.9505, 1, 1.089])
    f = np.where(xyz > 0.008856, np.cbrt(np.clip(xyz, 0, None)), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


@pytest.mark.parametrize("vision", VISIONS)
@pytest.mark.parametrize("scheme", [0, 1])
def test_any_two_lines_are_told_apart(scheme, vision):
    seen = {name: lab(np.clip(VISIONS[vision] @ linear(SCHEMES[name][scheme]), 0, 1)) for name in LINES}
    for one, other in combinations(LINES, 2):
        assert np.linalg.norm(seen[one] - seen[other]) > 23, (one, other)


@pytest.mark.parametrize("scheme", [0, 1])
def test_contrast_to_the_card(scheme):
    """WCAG: 3 for graphics and large text, 4.5 for text."""
    card = XYZ[1] @ linear(SCHEMES["card"][scheme])
    for name, pair in SCHEMES.items():
        if name in ("bg", "card", "grid"):
            continue
        light, dark = sorted((XYZ[1] @ linear(pair[scheme]), card), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= (3.0 if name in LINES else 4.5), name


def test_methods_differ_by_more_than_colour():
    methods = ["natural", *(f"puf-{scale}" for scale in range(15))]
    chosen = looks(methods)
    drawn = [(look.colour, look.marker) for look in chosen.values()]
    assert len(set(drawn)) == len(drawn), "by colour and marker, also where dashes cannot be seen"
    assert len({(look.marker, look.dashes) for look in list(chosen.values())[3:]}) == 15, "without colours"
    assert looks([*reversed(methods), *methods])["natural"] == chosen["natural"]


def test_those_of_one_colour_differ_in_marker_and_dashes():
    chosen = list(looks([f"puf-{scale}" for scale in range(15)]).values())[2:]
    for colour in {look.colour for look in chosen}:
        alike = [look for look in chosen if look.colour == colour]
        assert len(alike) == len({look.marker for look in alike}) == len({look.dashes for look in alike}) == 3


def test_every_method_has_a_key_of_its_own():
    methods = [f"puf-{scale}" for scale in range(20)]
    chosen = looks(methods)
    assert len({key(look) for look in chosen.values()}) == len(chosen) == 22
    shown = legend(methods, chosen)
    assert all(key(chosen[label]) in shown for label in methods)
    assert len({shapes(Look("method0", look.marker)) for look in chosen.values()}) == 11 + 2
