"""Classes that an experiment names: of no source may there be fewer."""

import pytest

from fedunlearn import config
from fedunlearn.config import SEGMENTED, DataConfig
from fedunlearn.config.checks import num_classes
from fedunlearn.data import SOURCES, digits, mnist5k, synthetic_images
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
    assert set(OF_EACH) == set(SOURCES) - set(SEGMENTED)
    assert all(num_classes(DataConfig(source=source)) is None for source in SEGMENTED)


def test_as_many_as_the_data_have():
    synthetic = synthetic_images(
        num_classes=7, image_size=4, channels=1, num_train=20, num_test=10, difficulty=0.5
    )
    assert num_classes(DataConfig(source="mnist5k")) == len(mnist5k().class_names)
    assert num_classes(DataConfig(source="digits")) == len(digits().class_names)
    assert num_classes(DataConfig(source="synthetic-images", num_classes=7)) == len(synthetic.class_names)
