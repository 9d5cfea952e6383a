"""Model outputs made to measure."""

import numpy as np
import torch
from hypothesis import strategies as st

from fedunlearn.evaluation import measures
from fedunlearn.evaluation.evidence import Evidence, Retrained
from fedunlearn.evaluation.metrics import BUILT_IN, computed
from fedunlearn.evaluation.outputs import SplitOutputs


def split(logits, labels, num_classes=None):
    """Outputs from lists; ``num_classes`` is needed only where there is no example."""
    rows = torch.tensor(logits, dtype=torch.float64).reshape(len(labels), num_classes or -1)
    return SplitOutputs(rows, torch.tensor(labels, dtype=torch.int64))


def two_class(margins, labels):
    """Outputs whose true class leads the other one by ``margins``: confidence 1 / (1 + exp(−margin))."""
    margins, labels = np.asarray(margins, dtype=float), np.asarray(labels)
    rows = np.where(np.arange(2) == labels[:, None], margins[:, None], 0.0)
    return SplitOutputs(torch.from_numpy(rows), torch.from_numpy(labels.astype(np.int64)))


@st.composite
def splits(draw, num_classes=3, least=1, most=12, labels=None):
    """Random outputs; coarse logits, so that ties come up. ``labels`` restricts which labels occur."""
    allowed = list(range(num_classes)) if labels is None else labels
    chosen = draw(st.lists(st.sampled_from(allowed), min_size=least, max_size=most))
    logit = st.sampled_from([-4.0, -1.5, 0.0, 0.5, 2.0, 6.0])
    rows = [draw(st.lists(logit, min_size=num_classes, max_size=num_classes)) for _ in chosen]
    return split(rows, chosen, num_classes)


def lists(outputs):
    """The logits and labels back as lists, for an oracle."""
    return outputs.logits.tolist(), outputs.labels.tolist()


OF_TWO_MODELS = tuple(name for name, metric in BUILT_IN.items() if "retrained" in metric.needs)
DISTANCES = tuple(name for name in OF_TWO_MODELS if name.endswith("_to_retrain"))


def measure(outputs, **given):
    """Every metric of one model alone."""
    metrics = computed(outputs.task).values()
    return measures.measure(Evidence(outputs, **given), [m for m in metrics if m.name not in OF_TWO_MODELS])


def to_retrain(outputs, retrained, vector, retrained_vector, pixel_kl=None):
    """The distances between two models."""
    nothing = np.arange(0)
    reference = Retrained(retrained, retrained_vector)
    evidence = Evidence(outputs, nothing, nothing, 1, weights=vector, retrained=reference, pixel_kl=pixel_kl)
    return measures.measure(evidence, [BUILT_IN[name] for name in DISTANCES])
