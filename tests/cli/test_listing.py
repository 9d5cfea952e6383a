"""``fedunlearn list``: everything there is to choose from is there, with a line that says what it is."""

import pytest

from fedunlearn import plugins
from fedunlearn.cli.listing import catalogue, plain
from fedunlearn.evaluation.metrics import BUILT_IN

EXPECTED = {
    "models": set(plugins.names("models")),
    "data": {
        *(f"source {name}" for name in plugins.names("data")),
        *(f"partition {name}" for name in plugins.names("partitions")),
        *(f"augmentation {name}" for name in plugins.names("augmentations")),
    },
    "strategies": set(plugins.names("strategies")),
    "metrics": set(BUILT_IN),
}


@pytest.mark.parametrize("what", EXPECTED)
def test_all_that_an_experiment_may_name_is_listed_once(what):
    names = [name for name, _ in catalogue(what)]
    assert set(names) == EXPECTED[what]
    assert len(names) == len(set(names)) >= 3


@pytest.mark.parametrize("what", EXPECTED)
def test_every_entry_has_a_line_of_its_own(what):
    texts = [text for _, text in catalogue(what)]
    for text in texts:
        assert len(text) > 10, text
        assert text == text.strip()
        assert "\n" not in text
    assert len(set(texts)) == len(texts)


@pytest.mark.parametrize("what", EXPECTED)
def test_lines_are_plain_text(what):
    assert not [text for _, text in catalogue(what) if "`" in text]


@pytest.mark.parametrize(
    ("marked", "text"),
    [
        ("leaves out ``excluded``, or `vit`", "leaves out excluded, or vit"),
        (":class:`Thing` and :py:func:`~some.module.function`", "Thing and function"),
        ("a label: :math:`n` times", "a label: n times"),
        ("{a: b}, one ` alone", "{a: b}, one ` alone"),
    ],
)
def test_markup_is_taken_off(marked, text):
    assert plain(marked) == text


def test_metrics_name_their_unit_and_what_is_better():
    lines = dict(catalogue("metrics"))
    assert lines["forget_accuracy"] == "Accuracy on the training data to forget (%; nearer to retrain's)"
