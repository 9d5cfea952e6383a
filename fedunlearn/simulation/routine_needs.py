"""Whether the clients of an experiment can run its local routines: their data, part by part, and its model.

What is wrong is said before anything runs. At home a routine would refuse the same, and the request would fail.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from fedunlearn.config import Experiment
from fedunlearn.config.toml_tree import Origin
from fedunlearn.data import FederatedData
from fedunlearn.errors import ConfigError, UserError
from fedunlearn.federation.hosted_routine import Chosen, alternatives
from fedunlearn.models.flat import FlatModel
from fedunlearn.parts import Assignment
from fedunlearn.simulation.branches import moments
from fedunlearn.unlearning.linear_head import check_last_layer
from fedunlearn.unlearning.needs import Needs, check_model

Labels = npt.NDArray[np.int64]


def check_models(experiment: Experiment, data: FederatedData, model: FlatModel) -> None:
    """Refuse an experiment one of whose routines cannot work on its model.

    Parameters
    ----------
    data
        Of any of its seeds.
    model
        As it is built for these data; it stays as it is.

    Raises
    ------
    ConfigError
        With one line that names the routine and what is wrong.
    """
    image = data.train_images[:1]
    seen: set[tuple[bool, str]] = set()
    for path, chosen, needs in _chosen(experiment):
        if (needs.statistics, needs.last_layer) in seen:
            continue
        seen.add((needs.statistics, needs.last_layer))
        try:
            check_model(chosen.name, needs, model, image)
            check_last_layer(chosen.name, needs, model, image)
        except UserError as error:
            raise _refused(experiment, path, chosen, str(error)) from None


def check_needs(experiment: Experiment, seed: int, data: FederatedData) -> None:
    """Refuse an experiment some of whose clients cannot run a routine when they are asked to.

    Of a live federation nobody knows before what it is asked.

    Parameters
    ----------
    seed
        One of the experiment's, of the data.
    data
        All clients', with the parts that are forgotten.

    Raises
    ------
    ConfigError
        With one line that names the routine, the client, what it is to forget and the remedy.
    """
    for path, chosen, needs in _chosen(experiment):
        for why in _objections(experiment, seed, data, chosen, needs):
            raise _refused(experiment, path, chosen, why)


def _chosen(experiment: Experiment) -> Iterator[tuple[str, Chosen, Needs]]:
    for index, method in enumerate(experiment.methods, start=1):
        if (chosen := Chosen.by(method)) is not None:
            yield f"method[{index}].routine", chosen, chosen.method.needs(chosen.settings)


def _refused(experiment: Experiment, path: str, chosen: Chosen, why: str) -> ConfigError:
    name = chosen.name
    return Origin(f"experiment {experiment.name}").error(path, name, why.removeprefix(f"{name}: "))


def _objections(
    experiment: Experiment, seed: int, data: FederatedData, chosen: Chosen, needs: Needs
) -> Iterator[str]:
    classes_alone = chosen.method.forgets == ("class",)
    if not (needs.retained or needs.retained_of_forgotten_classes or classes_alone):
        return
    earlier: set[int] = set()
    dropped: set[int] = set()  # classes, of filters, which stay
    for moment in moments(experiment, seed):
        if experiment.branching:
            earlier, dropped = set(), set()
        numbers = tuple(sorted({k for request in moment.requests for k in request.clients}))
        without = data.parts.without((), numbers, (), earlier)
        assignments = data.parts.assignments(numbers, without)
        for number in numbers:
            assignment = assignments.get(number, Assignment(number))
            forget, retain = _labels(data, assignment), _labels(data, assignment.rest)
            if not len(forget):
                continue  # nobody runs anything
            what = f"{assignment} (seed {seed})"
            if needs.retained and not len(retain):
                yield (
                    f"needs retained examples, and forgetting {what} leaves none; forget less, or use a routine "
                    f"that needs none, {alternatives(experiment)}"
                )
            if needs.retained_of_forgotten_classes and (len(retain) < 2 or not np.isin(retain, forget).any()):
                yield (
                    "needs several retained examples, one of them of a forgotten class, and forgetting "
                    f"{what} leaves none; forget fewer samples, or use settings that need none"
                )
            if classes_alone:
                dropped = (
                    {*dropped, *forget.tolist()}
                    if chosen.method.returns == "filter"
                    else set(forget.tolist())
                )
                if len(dropped) == data.num_classes:
                    yield f"forgets classes, and forgetting {what} leaves none; keep at least one"
        earlier.update(numbers)


def _labels(data: FederatedData, assignment: Assignment) -> Labels:
    """Return the classes of the rows that a client works with; of masks, zeros."""
    labels = data.client(assignment.client)[1]
    own = np.zeros(len(labels), dtype=np.int64) if data.task == "segmentation" else labels.cpu().numpy()
    return own[assignment.rows(own, data.seed)]
