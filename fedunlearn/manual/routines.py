"""docs/unlearning.md, from the routines."""

from __future__ import annotations

import inspect

from fedunlearn.manual.components import row, settings_of, text_of
from fedunlearn.unlearning import methods
from fedunlearn.unlearning.contract import Method
from fedunlearn.unlearning.needs import Needs

INTRODUCTION = """# Centralised unlearning methods, and clients that run them

A method takes a trained model, the examples to forget (F) and those to keep (R), and returns another model.
Alone, on pooled data, that is the setting of the papers; in a federation it is what a client can do by itself
with its own data, a *local routine*:

```toml
[[target]]
clients = [3]
samples = 0.5                     # half of client 3's data; or classes = [7], or both

[[method]]
name = "local-routine"
routine = "salun"                 # fedunlearn list routines
settings = {epochs = 5, lr = 0.01}
```

In the round after the request the clients concerned run the routine on the global model, with F what is to be
forgotten and R what else they have, and the server takes the result as the routine says (last column). Recovery
follows as with every method. With `federation.num-clients = 1` this is the centralised setting: the retrained model
then has as many epochs as the original. A client has no data but its own, so that nobody gives a routine held-out
examples: SCRUB's rewinding takes a part of R. A routine that diverges or raises an error has rows that say so; the
others go on. After an error `fedunlearn run` ends with exit code 1, and that branch is computed anew the next time.

| experiments | |
|---|---|
| `centralised/mnist5k-{random,random-half,class}.toml` | pooled: a tenth, a half, a class; every method |
| `centralised/cifar10-{random,random-half,class}.toml` | the same on CIFAR-10 with ResNet-18, as in the papers |
| `centralised/hosted-mnist5k.toml` | ten clients, two of whom forget half of their samples by themselves |
| `class-unlearning/{mnist5k,cifar10}.toml` | TRW and MPRU beside fine-tune, random-label and SalUn, class by class |

From Python, without a federation:

```python
from fedunlearn.unlearning import Examples, method

salun = method("salun")
forgotten = salun(
    model,
    Examples(images_f, labels_f),
    Examples(images_r, labels_r),
    settings=salun.settings(epochs=5),
    generator=torch.Generator().manual_seed(1),
)
```

`model` is a `fedunlearn.models.flat.FlatModel` around any `torch.nn.Module` all of whose parameters require a
gradient, and stays as it is. The one that comes back is in the same mode, training or evaluation, layer by layer.
The same generator gives the same bits, dropout included, and PyTorch's global generator stays where it was. Images
that are not finite, labels that are no classes of the model, models that a method cannot work on, misspelt settings,
and what is of another kind altogether (a module that is not wrapped, NumPy arrays, a tuple for `Examples`) are
refused in one line, a `fedunlearn.errors.UserError`. So is a result that is not finite: a method that diverges raises
that error and returns nothing. Beside the papers' code, run on the same model and batches:
[fidelity.md](fidelity.md). On tables and trees: [unlearning-tabular.md](unlearning-tabular.md).

## A method of your own

It is one file with a frozen dataclass of hyper-parameters, one function and one `Method`. Say `noise_repair.py`:

"""
OWN_METHOD = '''"""Noise-repair: noise on all weights, then training on the retained examples."""

from dataclasses import dataclass

import torch

from fedunlearn.config.conditions import Count, NonNegative, Rate
from fedunlearn.config.settings import Settings
from fedunlearn.unlearning import PLAIN, Method, Passes
from fedunlearn.unlearning.steps import Draws, Steps, num_batches, sgd


@dataclass(frozen=True)
class NoiseRepair(Settings):
    noise: NonNegative = 0.01
    epochs: Count = 2
    batch_size: Count = 64
    lr: Rate = 0.05


def unlearn(model, forget, retain, *, settings, generator, conditions=PLAIN):
    student = model.copy()  # the model that is given must stay as it is
    noise = torch.randn(student.num_parameters, generator=generator)
    student.vector.add_(settings.noise * noise.to(student.vector))
    total = settings.epochs * num_batches(retain, settings.batch_size, conditions.least_batch)
    steps = Steps(student, sgd(student, settings.lr), conditions, total)
    draws = Draws(generator, conditions)
    for _ in range(settings.epochs):
        for images, labels in draws.batches(retain, settings.batch_size):
            steps.take(conditions.loss(student.forward(images), labels))
    return student


METHOD = Method(
    name="noise-repair",
    settings=NoiseRepair,
    unlearn=unlearn,
    source="my paper",
    passes=lambda settings: Passes(forget=0, retain=settings.epochs),
)
'''
OWN_PROJECT = """[project]
name = "noise-repair"
version = "1.0"

[project.entry-points."fedunlearn.routines"]
noise-repair = "noise_repair:METHOD"

[build-system]
requires = ["setuptools>=64"]
build-backend = "setuptools.build_meta"

[tool.setuptools]
py-modules = ["noise_repair"]
"""
AFTER = """The model that `unlearn` is given must not be changed in place: change `model.copy()`, a `FlatModel`, and
return that. All its weights are one tensor, `vector`. What the annotations of its settings do not allow is refused
in one line, in an experiment file, in a sweep and in Python; `needs`, a function of the settings, tells what else it
cannot do without (`fedunlearn.unlearning.Needs`; default: retained examples). Dropout draws from the seed of
`generator`, and the model comes back in the mode it was given in, whatever the method does about either. A
`pyproject.toml` beside the file names the method under the entry point group `fedunlearn.routines`:

"""
MEASURES = """After `pip install -e .` it is found by its name, `routine = "noise-repair"`; `fedunlearn list routines`
shows it, or why it cannot be loaded. The cache of branches knows its source, its module with all that it imports of
its own package and of fedunlearn, and computes its branches anew when any of that has changed.

## What is measured

Of the literature's measures a scorecard has UA (100 − `forget_accuracy`), RA (`retain_accuracy`), TA
(`test_accuracy`), MIA-efficacy (100 − `mia_svc`), Average Gap (`average_gap`), ToW (`tug_of_war`) and seconds,
each beside a retrained model. Where F is whole classes (nobody retains an example of them) it also has test
accuracy on the classes that remain (`retain_test_accuracy`) and on the forgotten ones (`forget_test_accuracy`);
TA is then the former, in Average Gap and ToW as well, as is usual in class unlearning.
`fedunlearn compare --centralised RUN…` shows them in these terms, and so do `report.html` and `scorecard.md`. What
data augmentation does to them: [augmentation.md](augmentation.md). Defaults are the papers' or their code's. They
were chosen for other models and data, and untuned ones often forget little; `fedunlearn sweep` searches others. Both
are side by side in [unlearning-mnist5k.md](unlearning-mnist5k.md).

"""
HEADINGS = ("method", "from", "forgets", "needs", "passes over F, R", "result is taken as")


def page() -> str:
    """Return the whole page."""
    rows = [row(HEADINGS), row(["---"] * len(HEADINGS)), *map(_line, methods().values())]
    note = (
        "Passes are forward and backward, with the defaults; ½ is forward alone. What `neggrad-plus` sees of F\n"
        "beside R is counted as passes over R; `fisher-noise`: of ten classes. *R*: refuses to run without\n"
        "retained examples, as a client that leaves as a whole has none; `scrub` with `rewind` needs some of F's\n"
        "classes, and `mpru` with `learnt` any. *all data*: reads all of F and R, of a client all that it has.\n"
        "*statistics*: reads outputs or gradients in evaluation mode, for which BatchNorm must keep running\n"
        "statistics. *a linear head*: the model ends in a linear layer, *of its own*: which it runs once and\n"
        "whose weight it has for nothing else.\n"
        "\n"
    )
    own = f"```python\n{OWN_METHOD}```\n\n{AFTER}```toml\n{OWN_PROJECT}```\n\n"
    table = "\n".join(rows) + "\n\n" + note
    return INTRODUCTION + own + MEASURES + table + "\n".join(map(_section, methods().values()))


def _line(method: Method) -> str:
    needs = [word for word, so in _needs(method.needs(method.settings())) if so]
    passes = method.passes(method.settings())
    forgets = "classes" if method.forgets == ("class",) else "samples, classes"
    taken = method.hosted if method.returns == "model" else "replace; an output filter"
    cost = f"{passes.forget:g}, {passes.retain:g}"
    return row(
        [f"[`{method.name}`](#{method.name})", method.source, forgets, ", ".join(needs) or "–", cost, taken]
    )


def _needs(needs: Needs) -> tuple[tuple[str, bool], ...]:
    return (
        ("R", needs.retained),
        ("all data", needs.original_data),
        ("labels", needs.labels),
        ("statistics", needs.statistics),
        ("a linear head", needs.last_layer == "linear"),
        ("a linear head of its own", needs.last_layer == "own"),
    )


def _section(method: Method) -> str:
    text = text_of(inspect.getmodule(method.unlearn))
    settings = settings_of(method.settings)
    return f"## {method.name}\n\n{text}\n\nDefaults, and what else may be given: {settings}.\n"
