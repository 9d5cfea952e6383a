"""Every word of a certificate's page, for every end: it stands there as agreed, and where it was agreed.

The pages are kept as text, an element a line, in ``tests/certificates/pages``. Whoever means to change their words
writes them anew, ``python -m tests.certificates.test_pages``, and reads what has changed.
"""

import re
import tempfile
from difflib import unified_diff
from pathlib import Path

import pytest

from fedunlearn.certificates import certificate
from fedunlearn.requests.transitions import ENDS
from tests.certificates.live_run import KEY, ended_run
from tests.report.parsed_page import Element, parse

PAGES = Path(__file__).with_name("pages")
CASES = {**{state: (state, True) for state in sorted(ENDS)}, "unsigned": ("forgotten", False)}


def lines_of(page: str) -> str:
    """Return a page's elements in order: what they are, and the text in them that is in no other."""
    root = parse(page)
    (body,) = root.all("body")
    return "\n".join(_line(element) for element in body.inside) + "\n"


def _line(element: Element) -> str:
    kind = element.tag + "".join(f".{name}" for name in element.attributes.get("class", "").split())
    return f"{kind} {element.text}" if not element.inside or element.tag in ("p", "li", "dd", "td") else kind


def written(folder: Path, case: str) -> str:
    """Return the page of a request that ended so, without what differs from run to run."""
    state, signed = CASES[case]
    overrides = ['retention.earlier="quarantine"'] if case == "forgotten-unrecovered" else []
    run, request = ended_run(folder / "run", state, *overrides)
    for stage in ("before", "unlearned", "ended") if state.startswith("forgotten") else ():
        run.measure(request, stage, {3: 81.25}, told=[3] if stage == "ended" else [])
    run.clerk(KEY if signed else None).attend(run.round)
    path = run.folder / "certificates" / f"{request}.json"
    software = certificate.read(path)["issuer"]["software"]
    run.ledger.close()
    text = lines_of(path.with_suffix(".html").read_text(encoding="utf-8"))
    text = (
        text.replace(request, "REQUEST")
        .replace(software, "SOFTWARE")
        .replace(str(folder.resolve()), "FOLDER")
    )
    return re.sub(r"[\w+/-]{80,}=*|\b[0-9a-f]{16,64}\b", "HASH", text)


@pytest.mark.parametrize("case", CASES)
def test_every_word_of_the_page_is_as_agreed(tmp_path: Path, case: str) -> None:
    kept = (PAGES / f"{case}.txt").read_text(encoding="utf-8")
    assert not list(unified_diff(kept.splitlines(), written(tmp_path, case).splitlines(), "kept", "written"))


if __name__ == "__main__":
    PAGES.mkdir(exist_ok=True)
    for each in CASES:
        with tempfile.TemporaryDirectory() as temporary:
            (PAGES / f"{each}.txt").write_text(written(Path(temporary), each), encoding="utf-8")
