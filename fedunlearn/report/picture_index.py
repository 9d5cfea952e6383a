"""``pictures/index.json``: which pictures a run has drawn, and of what."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedunlearn.errors import RunError
from fedunlearn.report.json_file import read_json

FOLDER = "pictures"
INDEX = "index.json"


@dataclass(frozen=True)
class Picture:
    """One picture: a test slice with its true outline and, of a model, what that took for prostate.

    Attributes
    ----------
    seed, target, request
        The target set, or a timeline's moment and request.
    forget
        The clients to forget.
    client, site, case, slice
        Whose slice it is: of one of them, by number and name, and where in that site's data.
    label, at, round
        The model, as in a scorecard row; ``truth``, without moment and round, where no model is shown.
    dice
        Of this slice, mean over prostate and background, percent; None without a model, or not measurable.
    path
        The PNG file.
    """

    seed: int
    target: int
    request: str
    forget: tuple[int, ...]
    client: int
    site: str
    case: int
    slice: int
    label: str
    at: str
    round: int | None
    dice: float | None
    path: Path


def read_pictures(directory: Path) -> tuple[Picture, ...]:
    """Return a run's pictures in the order drawn; none without an index, and none whose file is gone.

    Raises
    ------
    RunError
        When the index is not what it should be, with its path.
    """
    index = directory / FOLDER / INDEX
    if not index.exists():
        return ()
    try:
        found = tuple(_pictures(read_json(index), index.parent))
    except (KeyError, TypeError, AttributeError) as error:
        raise RunError(f"{index}: is not a list of pictures ({error!r}); delete it or rerun") from error
    return tuple(picture for picture in found if picture.path.is_file())


def _pictures(entries: Iterable[Mapping[str, Any]], folder: Path) -> Iterable[Picture]:
    for entry in entries:
        yield Picture(
            seed=entry["seed"],
            target=entry["target"],
            request=entry["request"],
            forget=tuple(entry["forget"]),
            client=entry["client"],
            site=entry["client_name"],
            case=entry["case"],
            slice=entry["slice"],
            label=entry["label"],
            at=entry["at"],
            round=entry["round"],
            dice=entry["dice"],
            path=folder / Path(entry["file"]).name,  # never outside the folder
        )
