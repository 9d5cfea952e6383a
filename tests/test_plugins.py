"""A registered function gets what its signature names, from what is given first and the settings second."""

from types import SimpleNamespace

import pytest

from fedunlearn import plugins
from fedunlearn.errors import ConfigError


def area(width, height):
    """Width times height.

    More about it.
    """
    return width * height


def nameless(width):
    return width


REGISTRY = {"area": area, "nameless": nameless}


def call(name, config, **given):
    return plugins.call(REGISTRY, name, key="shape.name", config=config, **given)


def test_parameters_come_from_given_values_then_from_settings_and_the_rest_is_ignored():
    settings = SimpleNamespace(width=2, height=3, colour="red")
    assert call("area", settings) == 6
    assert call("area", settings, height=10, depth=7) == 20


def test_a_function_that_asks_for_what_nobody_has_is_a_programming_error():
    with pytest.raises(AttributeError, match="height"):
        call("area", SimpleNamespace(width=2))


def test_an_unknown_name_is_the_users_error():
    with pytest.raises(ConfigError) as caught:
        call("volume", SimpleNamespace())
    assert str(caught.value) == "shape.name = 'volume': must be one of area, nameless"


def test_descriptions_are_first_docstring_lines():
    assert plugins.describe(REGISTRY) == {"area": "Width times height.", "nameless": ""}
