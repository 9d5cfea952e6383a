"""Bad teacher: on F a student imitates a network that knows nothing, on a part of R the original model.

Formula: L = KL(p ‖ student), mean over one pass over F and ``retain_share`` of R shuffled together; p is the softmax
of a random network on F, and of θ_o on R. KL at temperature τ, times τ².

Source: Chundawat et al., "Can Bad Teaching Induce Forgetting? Unlearning in Deep Networks Using an Incompetent
Teacher", AAAI 2023; defaults as in the code (vikram2000b/bad-teaching-unlearning): Adam, 10⁻⁴, 1 epoch, 30 % of R.
Deviations: KL is summed over the classes and averaged over examples; the code averages over classes as well, a factor
that Adam does not see but for its ε. The code has no τ² (its τ is 1).
The random network has the same architecture, with weights from :func:`fedunlearn.models.initialise.initialise`
(purpose ``random-teacher``); models with layers that it does not know are refused. Which part of R is drawn once
(purpose ``retain-share``). Both teachers are in evaluation mode; the student's BatchNorm statistics see F and R.
Without R the student imitates the random network alone, and forgets all it is not reminded of later.
"""

from copy import deepcopy
from dataclasses import dataclass

import torch

from fedunlearn.config.conditions import Count, Fraction, Rate
from fedunlearn.config.settings import Settings
from fedunlearn.errors import UserError
from fedunlearn.models.flat import FlatModel
from fedunlearn.models.initialise import initialise
from fedunlearn.randomness import torch_generator
from fedunlearn.unlearning.contract import PLAIN, Conditions, Examples, Method, Passes
from fedunlearn.unlearning.distillation import divergence
from fedunlearn.unlearning.needs import Needs
from fedunlearn.unlearning.steps import Draws, Steps, adam, frozen, logits_of, num_batches


@dataclass(frozen=True)
class BadTeacher(Settings):
    """Hyper-parameters; ``retain_share`` is the part of R that is looked at."""

    epochs: Count = 1
    batch_size: Count = 256
    lr: Rate = 1e-4
    retain_share: Fraction = 0.3
    temperature: Rate = 1.0


def random_network(model: FlatModel, generator: torch.Generator) -> FlatModel:
    """Return a frozen model of the same architecture that has learned nothing.

    Raises
    ------
    UserError
        It has a layer whose weights we do not know how to draw.
    """
    module = deepcopy(model.module).cpu()  # where our generators are
    try:
        initialise(module, generator)
    except TypeError as error:
        raise UserError(f"bad-teacher: {error}") from error
    return frozen(FlatModel(module, dtype=model.vector.dtype, device=model.vector.device))


def part(examples: Examples, share: float, generator: torch.Generator) -> Examples:
    """Return a share of the examples, rounded down."""
    order = torch.randperm(examples.size, generator=generator)
    return examples.select(order[: int(share * examples.size)].to(examples.labels.device))


def unlearn(
    model: FlatModel,
    forget: Examples,
    retain: Examples,
    *,
    settings: BadTeacher,
    generator: torch.Generator,
    conditions: Conditions = PLAIN,
) -> FlatModel:
    """Return the student of both teachers."""
    seed = generator.initial_seed()
    good, bad = frozen(model), random_network(model, torch_generator(seed, "random-teacher"))
    kept = part(retain, settings.retain_share, torch_generator(seed, "retain-share"))
    # What an example is learned for stands in the place of its label: 1 to forget, 0 to keep.
    purpose = torch.cat([torch.ones_like(forget.labels), torch.zeros_like(kept.labels)])
    mixed = Examples(torch.cat([forget.images, kept.images]), purpose)
    student = model.copy()
    total = settings.epochs * num_batches(mixed, settings.batch_size, conditions.least_batch)
    steps, draws = Steps(student, adam(student, settings.lr), conditions, total), Draws(generator, conditions)
    for _ in range(settings.epochs):
        for images, forgotten in draws.batches(mixed, settings.batch_size):
            taught = torch.where(forgotten[:, None] == 1, logits_of(bad, images), logits_of(good, images))
            steps.take(divergence(student.forward(images), taught, settings.temperature))
    return student


METHOD = Method(
    name="bad-teacher",
    settings=BadTeacher,
    unlearn=unlearn,
    source="Chundawat et al., AAAI 2023",
    needs=lambda settings: Needs(retained=False, labels=False, statistics=True),
    passes=lambda settings: Passes(2 * settings.epochs, 2 * settings.epochs * settings.retain_share),
)
