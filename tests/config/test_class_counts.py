"""Classes that an experiment names: of no source may there be fewer."""

import pytest

from fedunlearn import config, plugins
from fedunlearn.config import DataConfig
from fedunlearn.errors import ConfigError

TEXT = """
name = "classes"
data = DATA
federation.num-clients = 4
model.name = "mlp"
train = {rounds = 2, lr = 0.1}
method = [{name = "natural"}]
"""
OF_EACH = {
    "mnist5k": '{source = "mnist5k"}',
    "digits": '{source = "digits"}',
    "cifar10": '{source = "cifar10", directory = "d"}',
    "cifar100": '{source = "cifar100", directory = "d"}',
    "synthetic-images": '{source = "synthetic-images", num-classes = 4}',
}
LAST = {"mnist5k": 9, "digits": 9, "cifar10": 9, "cifar100": 99, "synthetic-images": 3}


@pytest.mark.parametrize("source", list(OF_EACH))
@pytest.mark.parametrize("entry", ["target", "forget"])
def test_a_class_that_there_is_not_is_refused_with_key_value_and_range(source, entry):
    text = TEXT.replace("DATA", OF_EACH[source]) + f"[[{entry}]]\nclients = [0]\nclasses = [0, LAST]\n"
    text += "at-round = 1\n" * (entry == "forget")
    last = LAST[source]
    config.loads(text.replace("LAST", str(last)))
    with pytest.raises(ConfigError) as error:
        config.loads(text.replace("LAST", str(last + 1)), "x.toml")
    assert str(error.value) == (
        f"{entry}[1].classes = [0, {last + 1}] (x.toml): there is no class {last + 1}; "
        f'data.source = "{source}" has {last + 1} classes, counted from 0'
    )


def test_of_every_source_the_number_is_known_or_it_has_masks():
    masks = {"prostate-mri": {"directory": "d"}, "prostate-phantom": {}}
    assert set(OF_EACH) == set(plugins.names("data")) - set(masks)
    assert all(DataConfig.of(source=source, **keys).classes is None for source, keys in masks.items())


def test_as_many_as_the_data_have():
    for keys in (
        {"source": "mnist5k"},
        {"source": "digits"},
        {"source": "synthetic-images", "num_classes": 7, "image_size": 4, "num_train": 20, "num_test": 10},
    ):
        data = DataConfig.of(**keys)
        loaded = plugins.call("data", data.source, settings=data.source_settings)
        assert data.classes == len(loaded.class_names)
