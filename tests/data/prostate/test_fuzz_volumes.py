"""Random damage to cases: each is read as the standard's tables say, or refused in one line that names its file.

``FEDUNLEARN_FUZZ=5000 pytest tests/data/prostate/test_fuzz_volumes.py`` tries more than the usual number.
"""

import os
import time
from collections import Counter

import numpy as np
import pytest

from fedunlearn.data.prostate import ProstateSettings, prostate_mri
from fedunlearn.data.prostate.labels import MOST_LABELS, MOST_SHARE, WHOLE
from fedunlearn.data.prostate.nifti import LARGEST, SMALLEST
from fedunlearn.data.prostate.volumes import read_volume
from fedunlearn.errors import ConfigError
from tests.data.prostate.mutations import forms, mutate
from tests.oracles import nifti_by_struct as oracle

TRIES = int(os.environ.get("FEDUNLEARN_FUZZ", "600"))
SEED = 13


@pytest.fixture(scope="module")
def cases():
    return forms()


def check_against_the_oracle(content, paths):
    """Hold what was accepted against the slow reader; what that one cannot read must not be accepted."""
    read = read_volume(*content, *paths)
    scan, labels, spacing = oracle.case(*content)
    _, affine, _ = oracle.volume(content[0])
    _, its, placed = oracle.volume(content[1])
    sides = np.linalg.norm(affine[:3, :3], axis=0)
    assert sides.min() >= SMALLEST and sides.max() <= LARGEST
    if placed:
        assert scan.shape == labels.shape
        last = np.array(oracle.volume(content[0])[0].shape) - 1
        if np.allclose(its, affine, atol=1e-3):
            assert np.abs((its - affine) @ [*last, 1]).max() <= sides.min() / 2
    assert np.isfinite(scan).all()
    assert np.abs(labels - np.rint(labels)).max() <= WHOLE
    found = np.unique(np.rint(labels[np.rint(labels) > 0]))
    assert 1 <= len(found) <= MOST_LABELS
    assert (np.rint(labels) > 0).mean() <= MOST_SHARE
    expected = scan.astype(np.float32)
    if abs(scan.min()) > 16 * np.ptp(scan):
        expected = (scan - scan.min()).astype(np.float32)
    parts = np.sort(np.abs(affine[:3, :3]) / sides, axis=0)
    if (parts[-1] < 0.8).any():  # so oblique that axes have no one order
        assert np.array_equal(np.sort(read.intensities.ravel()), np.sort(expected.ravel()))
        assert read.mask.sum() == (np.rint(labels) > 0).sum()
        return
    assert np.array_equal(read.intensities, expected)
    assert np.array_equal(read.mask, np.rint(labels) > 0)
    assert read.spacing == pytest.approx(spacing, rel=1e-5)


def tried(number, seed, cases, folder):
    """Load one damaged case; return what came of it."""
    content, done = mutate(number, seed, cases)
    paths = [folder / "HK" / name for name in ("Case00.nii.gz", "Case00_segmentation.nii.gz")]
    for path, written in zip(paths, content, strict=True):
        path.write_bytes(written)
    began = time.process_time()
    try:
        prostate_mri(ProstateSettings(str(folder), 16))
    except ConfigError as error:
        text = str(error)
        assert "\n" not in text and len(text) < 700
        assert any(text.startswith(f"{path}: ") for path in paths)
        outcome = "refused"
    else:
        check_against_the_oracle(content, paths)
        outcome = "read"
    assert time.process_time() - began < 5
    return outcome, done


def test_every_form_is_read_as_it_is(cases, tmp_path):
    paths = tmp_path / "scan", tmp_path / "mask"
    for content in cases.values():
        check_against_the_oracle(content, paths)


def test_damaged_cases_are_read_rightly_or_refused_in_one_line(cases, tmp_path, capfd):
    (tmp_path / "HK").mkdir()
    outcomes: Counter[tuple[str, str]] = Counter()
    for number in range(TRIES):
        try:
            outcome, done = tried(number, SEED, cases, tmp_path)
        except Exception as error:
            _, done = mutate(number, SEED, cases)
            raise AssertionError(f"mutation {number} of seed {SEED}: {done}") from error
        outcomes[done.split(": ")[1], outcome] += 1
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", "")
    kinds = {kind for kind, _ in outcomes}
    for kind in ("cut", "longer", "exchanged"):
        assert outcomes[kind, "refused"] and not outcomes[kind, "read"], outcomes
    for kind in ("harmless", "voxels", "field", "same field twice"):
        assert outcomes[kind, "read"], outcomes
    assert len(kinds) == 11
    assert sum(outcomes.values()) == TRIES


@pytest.mark.parametrize("number", range(40))
def test_fields_that_say_nothing_of_voxels_change_nothing(number, cases, tmp_path):
    from tests.data.prostate.mutations import DAMAGE

    rng = np.random.default_rng(number)
    name = sorted(set(cases) - {"second"})[number % 6]
    files = [bytearray(content) for content in cases[name]]
    DAMAGE["harmless"](rng, files, number % 2, cases)
    assert [bytes(f) for f in files] != list(cases[name])
    paths = tmp_path / "scan", tmp_path / "mask"
    one, other = read_volume(*cases[name], *paths), read_volume(*map(bytes, files), *paths)
    assert np.array_equal(one.intensities, other.intensities)
    assert np.array_equal(one.mask, other.mask)
    assert one.spacing == other.spacing
