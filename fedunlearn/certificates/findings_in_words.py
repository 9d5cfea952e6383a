"""Findings in few words: rounds as ranges, and what holds of many branches in one line."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from fedunlearn.certificates.findings import Finding

NAMED = 3
"""So many of the branches that a line is about are named."""


def ranges(rounds: Iterable[int]) -> str:
    """Return rounds as "1 to 40, 42, 44 to 119"."""
    spans: list[list[int]] = []
    for round in sorted(set(rounds)):
        if spans and round == spans[-1][1] + 1:
            spans[-1][1] = round
        else:
            spans.append([round, round])
    return ", ".join(f"{first} to {last}" if last > first else str(first) for first, last in spans)


def counted(branches: Sequence[str]) -> str:
    """Return branches as "natural-0-s0", or as "16 branches (original-s0, retrain-0-s0, natural-0-s0 and others)"."""
    if len(branches) == 1:
        return branches[0]
    others = " and others" if len(branches) > NAMED else ""
    return f"{len(branches)} branches ({', '.join(branches[:NAMED])}{others})"


def folded(findings: Mapping[str, Iterable[Finding]]) -> list[Finding]:
    """Return the findings of each branch, those that say the same of several as one.

    What is not as it should be is never folded: each has its own line, with its branch.

    Parameters
    ----------
    findings
        Branch → what was found of it, in texts such as "trail of BRANCH: there is none".
    """
    lines: list[tuple[bool | None, str, str, list[str]]] = []
    said: dict[tuple[bool | None, str, str], list[str]] = {}
    for branch, found in findings.items():
        for finding in found:
            what, of, words = finding.text.partition(f" of {branch}: ")
            if finding.holds is False or not of:
                lines.append((finding.holds, finding.text, "", [branch]))
            elif branches := said.get((finding.holds, what, words)):
                branches.append(branch)
            else:
                said[finding.holds, what, words] = branches = [branch]
                lines.append((finding.holds, what, words, branches))
    return [
        Finding(holds, f"{what} of {counted(branches)}: {words}" if words else what)
        for holds, what, words, branches in lines
    ]
