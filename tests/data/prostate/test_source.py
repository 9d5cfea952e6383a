"""The whole of loading prostate MRI: one site a client, nobody on two sides, every row its slice."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch

from fedunlearn import plugins
from fedunlearn.config import DataConfig
from fedunlearn.data import load_federated, prostate
from fedunlearn.data.holdings import holdings
from fedunlearn.errors import ConfigError
from tests.data.prostate.loading import CASES, SIZE, error, load
from tests.data.prostate.nifti_sites import HOSPITALS, RELEASE, SHAPE, SITES, SPACING, volume, write_sites
from tests.oracles import slices_by_loops as oracle


def of_split(data, split):
    return getattr(data, f"{split}_images"), getattr(data, f"{split}_labels"), data.slices[split]


def test_shapes_types_and_names(sites):
    data = load(sites)
    assert (data.task, data.origin, data.notes) == ("segmentation", "", ())
    assert data.class_names == ("background", "prostate")
    assert data.client_names == SITES
    assert (data.num_classes, data.in_channels, data.image_size) == (2, 3, SIZE)
    for split in ("train", "validation", "test"):
        images, masks, index = of_split(data, split)
        assert images.shape == (len(index), 3, SIZE, SIZE)
        assert masks.shape == (len(index), SIZE, SIZE)
        assert (images.dtype, masks.dtype) == (torch.float32, torch.uint8)
        assert 0 <= images.min() < 0.2
        assert 0.8 < images.max() <= 1
        assert set(masks.unique().tolist()) == {0, 1}
        assert masks.flatten(1).any(dim=1).all(), "only slices with prostate"
        for whole in (index.site, index.case, index.slice):
            assert whole.dtype == np.int64
        assert index.spacing.dtype == np.float32


def test_every_row_of_every_split_is_its_slice_by_the_loops(sites):
    data = load(sites)
    expected = {}
    for site in range(6):
        for case in range(CASES):
            heights, images, masks = oracle.slices(*volume(10 * site + case), SIZE)
            for height, image, mask in zip(heights, images, masks, strict=True):
                expected[site, case, int(height)] = image, mask
    seen = []
    for split in ("train", "validation", "test"):
        images, masks, index = of_split(data, split)
        for row, key in enumerate(
            zip(index.site.tolist(), index.case.tolist(), index.slice.tolist(), strict=True)
        ):
            np.testing.assert_allclose(images[row].numpy(), expected[key][0], rtol=0, atol=0.5 / 255 + 1e-5)
            assert np.array_equal(masks[row].numpy(), expected[key][1])
            seen.append(key)
        resized = [SPACING[1] * SHAPE[1] / SIZE, SPACING[0] * SHAPE[0] / SIZE]
        np.testing.assert_allclose(index.spacing, np.tile(resized, (len(index), 1)), rtol=1e-6)
    assert sorted(seen) == sorted(expected), "every slice with prostate is in one split, once"


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_no_case_is_in_two_splits_and_every_site_is_in_each(sites, seed):
    data = load(sites, seed=seed)
    owners = {
        split: set(zip(i.site.tolist(), i.case.tolist(), strict=True)) for split, i in data.slices.items()
    }
    assert {split: len(cases) for split, cases in owners.items()} == {"train": 18, "validation": 6, "test": 6}
    assert len(set.union(*owners.values())) == 6 * CASES
    for cases in owners.values():
        assert {site for site, _ in cases} == set(range(6))


def test_a_site_is_a_client_and_rows_lie_client_by_client(sites):
    data = load(sites)
    index = data.slices["train"]
    assert len(data.clients) == 6
    for site, rows in enumerate(data.clients):
        assert (index.site[rows] == site).all()
        assert data.client(site)[0].shape[0] == len(rows) > 0
    assert data.clients.rows.tolist() == list(range(len(index)))
    assert (np.diff(data.source_rows) > 0).all()
    order = np.lexsort((index.slice, index.case, index.site))
    assert order.tolist() == list(range(len(index)))
    assert data.indices_of([1, 4]).tolist() == sorted(np.flatnonzero(np.isin(index.site, [1, 4])).tolist())


def test_the_seed_moves_validation_but_not_the_test_set(sites):
    one, again, two = load(sites), load(sites), load(sites, seed=2)
    assert one.content_hash == again.content_hash
    assert torch.equal(one.test_images, two.test_images)
    assert not torch.equal(one.validation_images, two.validation_images)


@pytest.mark.parametrize("folders", [RELEASE, HOSPITALS])
@pytest.mark.parametrize(("mask", "end"), [("_Segmentation", ".nii"), ("_segmentation", ".nii.gz")])
def test_both_naming_schemes_are_the_same_data(tmp_path, sites, folders, mask, end):
    other = write_sites(tmp_path / "other", CASES, folders, mask=mask, end=end)
    assert load(other).content_hash == load(sites).content_hash


@pytest.mark.parametrize("axes", ["LPS", "SAR"])
def test_the_order_in_which_voxels_are_stored_does_not_matter(tmp_path, sites, axes):
    turned = write_sites(tmp_path / "turned", CASES, axes=axes)
    assert load(turned).content_hash == load(sites).content_hash


def test_sites_of_different_shape_and_spacing_meet_in_one_size(tmp_path):
    write_sites(tmp_path / "set", 3, ("HK",), shape=(31, 18, 5), spacing=(0.4, 0.9, 2.0))
    write_sites(tmp_path / "set", 3, ("UCL",), shape=(12, 40, 6), spacing=(1.0, 0.3, 4.0), axes="LPS")
    data = load(tmp_path / "set", num_clients=2)
    assert data.client_names == ("HK", "UCL")
    spacing = {site: data.slices["test"].spacing[data.slices["test"].site == site][0] for site in (0, 1)}
    assert spacing[0].tolist() == pytest.approx([0.9 * 18 / SIZE, 0.4 * 31 / SIZE])
    assert spacing[1].tolist() == pytest.approx([0.3 * 40 / SIZE, 1.0 * 12 / SIZE])


def test_the_number_of_clients_must_be_that_of_the_sites(own):
    shutil.rmtree(own / "I2CVB")
    assert load(own, num_clients=5).client_names == ("BIDMC", "HK", "ISBI", "ISBI_1.5", "UCL")
    assert error(own) == (
        "federation.num-clients = 6: there are 5 sites (BIDMC, HK, ISBI, ISBI_1.5, UCL) and each is one client; "
        "set it to 5"
    )
    (own / "I2CVB_old").mkdir()
    (own / "siemens").mkdir()
    assert error(own).endswith("; set it to 5; there is no site named I2CVB_old or siemens")


def test_sites_belong_to_data_that_have_some():
    with pytest.raises(ConfigError, match=r"data\.partition = 'site': requires"):
        load_federated(DataConfig.of(source="digits", partition="site"), 6, seed=1)


def test_double_precision_never_went_through_single(sites):
    single, double = load(sites), load(sites, dtype=torch.float64)
    assert double.train_images.dtype == torch.float64
    assert torch.equal(double.train_images * 255, (double.train_images * 255).round())
    assert not torch.equal(double.train_images, single.train_images.double())
    torch.testing.assert_close(double.train_images.float(), single.train_images)


def test_holdings_have_a_column_of_slices_and_the_names_of_sites(sites):
    data = load(sites)
    found = json.loads(json.dumps(holdings(data)))
    sizes = [len(rows) for rows in data.clients]
    assert found["classes"] == ["slices"]
    assert found["client_names"] == list(SITES)
    assert found["counts"] == [[size] for size in sizes]
    assert found["sizes"]["total"] == len(data.train_labels)
    assert found["classes_held"] == {"least": 1, "median": 1, "most": 1, "total": 6}
    assert "origin" not in found
    assert data.counts([4, 1]).tolist() == [[sizes[4]], [sizes[1]]]


def test_phantoms_are_called_phantoms_and_are_otherwise_the_same_data(own):
    plain = load(own)
    (own / "PHANTOM.json").write_text("{}")
    data = load(own)
    assert data.origin == holdings(data)["origin"] == "phantom"
    assert data.content_hash == plain.content_hash


@pytest.mark.parametrize("split", ["train", "validation", "test"])
@pytest.mark.parametrize("field", ["site", "case", "slice", "spacing"])
def test_the_content_hash_covers_where_slices_are_from(sites, split, field):
    data = load(sites)
    index = data.slices[split]
    changed = getattr(index, field).copy()
    changed.ravel()[-1] += 1
    slices = {**data.slices, split: dataclasses.replace(index, **{field: changed})}
    assert dataclasses.replace(data, slices=slices).content_hash != data.content_hash


def test_the_content_hash_covers_names_and_task_but_no_words(sites):
    data = load(sites)
    for change in (
        {"client_names": (*SITES[:-1], "else")},
        {"task": "classification"},
        {"class_names": ("a", "b")},
    ):
        assert dataclasses.replace(data, **change).content_hash != data.content_hash
    for change in ({"origin": "phantom"}, {"notes": ("something",)}):
        assert dataclasses.replace(data, **change).content_hash == data.content_hash


def test_loading_leaves_the_global_generators_alone(sites):
    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()
    load(sites)
    assert torch.equal(torch_before, torch.get_rng_state())
    assert np.array_equal(numpy_before, np.random.get_state()[1])


def test_the_source_is_registered():
    assert prostate.prostate_mri.__doc__.startswith("Prostate MRI of up to six sites")
    assert "site" in plugins.names("partitions")
