"""Small damages to a TOML file, drawn by a seed: what editors, mail programs, disks and people do to one."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator

VALUES = (
    *(
        "0",
        "-1",
        "1",
        "2",
        "1.5",
        "-0.0",
        "1e308",
        "1e-320",
        "nan",
        "-inf",
        "true",
        "false",
        '""',
        '"x"',
        "[]",
        "{}",
    ),
    *(
        "[[]]",
        "[[], [0]]",
        "[0, 0]",
        "[-1]",
        "[1.5]",
        '["a"]',
        "[true]",
        "[[0], [1]]",
        "[{}]",
        "{a = 1}",
        '{"" = {}}',
    ),
    *(
        "2024-01-31",
        "10:30:00",
        "2024-01-31T10:30:00Z",
        "0x10",
        "1_000",
        "0b11",
        "'\\'",
        '"""\n"""',
        '"\\u0000"',
    ),
    *(str(2**31), str(2**40), str(2**63), str(-(2**64)), "9" * 400, "9" * 5000, "1e400", "0." + "1" * 5000),
    *(
        '"~nosuch/x"',
        '"~"',
        '"/"',
        '"../.."',
        '"a/b"',
        '"[bold]"',
        f'"{"n" * 300}"',
        '"é→\u2028"',
        '"none"',
        '"each"',
    ),
    *("[" * 40 + "]" * 40, "[" * 5000 + "]" * 5000, "{a = " * 40 + "1" + "}" * 40, "[" + "0, " * 2000 + "0]"),
    *("{draw = 2, size = 1}", "{draw = 1000000000, size = 2}", "{draw = 3, size = 500000}", "{draw = 0}"),
)
TEXTS = (
    "",
    "=",
    "[",
    "]",
    '"',
    "'''",
    "#",
    "\0",
    "\r",
    "\x7f",
    "\ufeff",
    "\u2028",
    "é",
    "[[method]]\n",
    "[smoke]\n",
    "a.b.c = 1\n",
)
DEEP = f"[{'.'.join(['a'] * 3000)}]\nb = 1\n"

Damage = Callable[[random.Random, str], str]


def mutants(text: str, seed: int, number: int) -> Iterator[bytes]:
    """Yield damaged copies of a file, the same for the same seed."""
    draw = random.Random(seed)
    for _ in range(number):
        found = text
        for _ in range(draw.choice((1, 1, 1, 2, 3))):
            found = draw.choice(DAMAGES)(draw, found)
        content = found.encode("utf-8", "surrogatepass")
        yield _bytes(draw, content) if draw.random() < 0.1 else content


def _value(draw: random.Random, text: str) -> str:
    places = [*re.finditer(r"(?m)(?<== ).+$", text)]
    if not places:
        return text
    place = draw.choice(places)
    return text[: place.start()] + draw.choice(VALUES) + text[place.end() :]


def _key(draw: random.Random, text: str) -> str:
    places = [*re.finditer(r"[a-z-]+(?= =)", text)]
    if not places:
        return text
    place, other = draw.choice(places), draw.choice(places)[0]
    changed = draw.choice(
        (other, place[0][1:], place[0] + "s", '""', f"{place[0]}.{other}", f'"{place[0]}\\n"')
    )
    return text[: place.start()] + changed + text[place.end() :]


def _line(draw: random.Random, text: str) -> str:
    lines = text.splitlines(keepends=True)
    if not lines:
        return text
    at, to = draw.randrange(len(lines)), draw.randrange(len(lines))
    change = draw.randrange(4)
    if change == 0:
        del lines[at]
    elif change == 1:
        lines.insert(to, lines[at])
    elif change == 2:
        lines[at], lines[to] = lines[to], lines[at]
    else:
        del lines[max(at, 1) :]
    return "".join(lines)


def _table(draw: random.Random, text: str) -> str:
    places = [*re.finditer(r"(?m)^\[+[^\]\n]+\]+$", text)]
    if not places:
        return text
    place = draw.choice(places)
    name = place[0].strip("[]")
    changed = draw.choice(
        (f"[{name}]", f"[[{name}]]", f"[smoke.{name}]", f"[{name}.{name}]", f"[{name}s]", "")
    )
    return text[: place.start()] + changed + text[place.end() :]


def _text(draw: random.Random, text: str) -> str:
    at = draw.randrange(len(text) + 1)
    return text[:at] + draw.choice(TEXTS) + text[at + draw.choice((0, 0, 1, 5)) :]


def _mild(draw: random.Random, text: str) -> str:
    """Change what a person might: a number by a little, a comment, an empty line, spaces."""
    numbers = [*re.finditer(r"(?m)(?<== )\d{1,18}(?=\s*$)", text)]
    change = draw.randrange(4)
    if change == 0 and numbers:
        place = draw.choice(numbers)
        return text[: place.start()] + str(int(place[0]) + draw.choice((-1, 1, 2))) + text[place.end() :]
    lines = text.splitlines(keepends=True)
    at = draw.randrange(len(lines) + 1)
    return "".join([*lines[:at], draw.choice(("\n", "# é → \U0001f642\n", "\t \n")), *lines[at:]])


def _end(draw: random.Random, text: str) -> str:
    return draw.choice((text + DEEP, "\ufeff" + text, text * 2, text[: draw.randrange(len(text) + 1)], ""))


def _bytes(draw: random.Random, content: bytes) -> bytes:
    at = draw.randrange(len(content) + 1)
    return draw.choice(
        (
            content[:at] + bytes([draw.randrange(256)]) + content[at + 1 :],
            content.decode("utf-8", "replace").encode("utf-16"),
            content + b"\0" * 100,
            content[:at] + b"\xff\xfe" + content[at:],
        )
    )


DAMAGES: tuple[Damage, ...] = (
    _value,
    _value,
    _value,
    _value,
    _key,
    _key,
    _line,
    _line,
    _table,
    _text,
    _end,
    *(_mild,) * 8,
)
