"""docs/experiment-file.md names every key there is, with the default it has, and no other."""

import re
import types
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from fedunlearn import config, plugins
from fedunlearn.config.components import keys_of, settings_fields

PAGE = (Path(__file__).parents[2] / "docs" / "experiment-file.md").read_text()
SECTIONS: dict[str, type] = {
    "data": config.DataConfig,
    "federation": config.FederationConfig,
    "model": config.ModelConfig,
    "train": config.TrainConfig,
    "method": config.MethodConfig,
    "target": config.TargetConfig,
    "forget": config.ForgetConfig,
    "requests": config.RequestsConfig,
    "recover": config.RecoverConfig,
    "floor": config.FloorConfig,
    "guard": config.GuardConfig,
    "retention": config.RetentionConfig,
    "engine": config.EngineConfig,
    "engine.ray": config.RayConfig,
    "measures": config.MeasuresConfig,
}


def key(field: Field[Any]) -> str:
    return str(field.metadata.get("key", field.name.replace("_", "-")))


def documented() -> dict[str, dict[str, str]]:
    """Return section → key → default, as the page's table has them; the top level is the section ''.

    A section is also a key, without a default, of the one around it.
    """
    found: dict[str, dict[str, str]] = {"": {}}
    section = ""
    for line in PAGE.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if heading := re.fullmatch(r"\*\*`\[+([a-z.]+)\]+`\*\*", cells[0]):
            section = heading[1]
            outer, _, name = section.rpartition(".")
            found[outer][name] = ""
            found[section] = {}
        elif len(cells) == 3 and (names := re.findall(r"`([a-z-]+)`", cells[0])):
            defaults = cells[1].split(", ") if len(names) > 1 else [cells[1]]
            found[section] |= dict(zip(names, defaults * (len(names) // len(defaults)), strict=True))
    return found


def tables(section: str) -> list[Any]:
    """Return the dataclasses whose keys stand in a section: its own, and the settings of what it can name."""
    own: Any = SECTIONS[section]
    beside = {
        plugins.settings_type(of.kind, name): None
        for of in settings_fields(own).values()
        for name in plugins.KINDS[of.kind].built_in
    }
    return [own, *beside]


@pytest.mark.parametrize("section", SECTIONS)
def test_every_key_of_a_section(section: str) -> None:
    assert set(documented()[section]) == {name for table in tables(section) for name in keys_of(table)}


def test_every_key_of_the_top_level_and_every_section() -> None:
    page = documented()
    assert set(page[""]) == {key(f) for f in fields(config.Experiment)}
    assert set(page) == {"", *SECTIONS, "smoke"}


@pytest.mark.parametrize("section", SECTIONS)
def test_every_default(section: str) -> None:
    own, *components = tables(section)
    for table in (own, *components):
        for name, field in keys_of(table).items():
            if (section, name) in OF_ANOTHER:
                continue
            shown = documented()[section][name].strip("`")
            # What is not given may still have a value: EngineConfig.given_workers is None, but workers is 1.
            attribute = field.name.removeprefix("given_")
            value = field.default if attribute == field.name else getattr(table(), attribute)
            if field.default is MISSING:
                assert shown == ("required" if table is own else ""), name
            elif value is None or is_dataclass(value):
                assert shown == "", name
            else:
                plain = (
                    {True: "true", False: "false"}.get(value, str(value))
                    if isinstance(value, bool)
                    else str(value)
                )
                plain = str(list(value)) if isinstance(value, tuple) else plain
                assert shown.strip('"') == plain, name


OF_ANOTHER = {("method", "scale"), ("method", "label")}
"""Keys whose default depends on another key."""


def choices(annotation: Any) -> list[str]:
    """Return the strings that a Literal somewhere in an annotation allows."""
    found = [a for a in get_args(annotation) if isinstance(a, str)]
    for inner in get_args(annotation):
        if not isinstance(inner, str | types.NoneType):
            found += choices(inner)
    return found


@pytest.mark.parametrize("section", SECTIONS)
def test_every_choice(section: str) -> None:
    for table in tables(section):
        hints = get_type_hints(table, include_extras=False)
        for name, field in keys_of(table).items():
            for choice in choices(hints[field.name]):
                assert f'"{choice}"' in PAGE, f"{section}.{name} may be {choice}"


@pytest.mark.parametrize("kind", ["strategies", "models", "data", "partitions", "augmentations"])
def test_everything_that_can_be_named(kind: str) -> None:
    for name in plugins.KINDS[kind].built_in:
        assert f'"{name}"' in PAGE or name == "retrain", f"{kind}: {name}"
