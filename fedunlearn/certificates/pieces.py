"""What the page of a certificate is put together from: its look, and the pieces of every section."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from fedunlearn.html.markup import Markup, join, tag

STYLE = """
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);font:15.5px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,
  "Helvetica Neue",Arial,sans-serif}
main{max-width:820px;margin:28px auto;padding:38px 46px 30px;background:var(--card);border-radius:10px;
  box-shadow:0 0 0 1px var(--grid)}
.good{--level:var(--good)}.fair{--level:var(--fair)}.poor{--level:var(--poor)}.unknown{--level:var(--muted)}
header{border-top:6px solid var(--level);padding-top:16px}
header p{margin:0;color:var(--muted)}
header p.caveat{color:var(--ink);font-weight:600;margin:0 0 6px}
h1{font-size:1.9rem;line-height:1.2;margin:4px 0 8px;color:var(--level)}
h2{font-size:1.08rem;margin:30px 0 6px;padding-bottom:4px;border-bottom:1px solid var(--grid)}
p{margin:7px 0;max-width:78ch}
.meaning p{font-size:1.06rem}
.note{color:var(--muted);font-size:.92rem}
.warning{border:2px solid var(--poor);border-radius:6px;padding:8px 14px;margin:16px 0 0;font-weight:600}
dl{display:grid;grid-template-columns:minmax(9em,auto) 1fr;gap:4px 20px;margin:10px 0}
dt{color:var(--muted)}dd{margin:0;overflow-wrap:anywhere}
table{border-collapse:collapse;width:100%;font-size:.92rem;font-variant-numeric:tabular-nums;margin:10px 0}
th,td{text-align:left;vertical-align:top;padding:5px 14px 5px 0;border-bottom:1px solid var(--grid)}
th{color:var(--muted);font-weight:600}
td.number,th.number{text-align:right}
code{font:.8em ui-monospace,SFMono-Regular,Menlo,Consolas,"Liberation Mono",monospace;overflow-wrap:anywhere}
ul{padding-left:1.2em;margin:8px 0}li{margin:5px 0;max-width:78ch}
.why{color:var(--muted)}
footer{margin-top:30px;padding-top:10px;border-top:1px solid var(--grid);color:var(--muted);font-size:.88rem}
@media(max-width:640px){main{margin:0;padding:20px 16px;border-radius:0}}
@media print{body{background:#fff;font-size:10.5pt}main{box-shadow:none;margin:0;padding:0;max-width:none}
  h2{break-after:avoid}tr,dl,li{break-inside:avoid}}
@page{size:A4;margin:18mm 16mm}
"""


def section(title: str, *parts: Markup) -> Markup:
    """Return a part of the page under a heading."""
    return tag("section", tag("h2", title), *parts)


def definitions(facts: Mapping[str, str]) -> Markup:
    """Return what is called what, as two columns."""
    return tag("dl", *(join(tag("dt", name), tag("dd", value)) for name, value in facts.items()))


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Markup:
    """Return a table."""
    body = [tag("tr", *(tag("td", cell) for cell in row)) for row in rows]
    return tag("table", tag("thead", tag("tr", *(tag("th", cell) for cell in head))), tag("tbody", *body))


def bullets(lines: Iterable[str]) -> Markup:
    """Return a list; nothing of nothing."""
    items = [tag("li", line) for line in lines]
    return tag("ul", *items) if items else Markup("")


def why(reason: str | None) -> Markup:
    """Return what stands where a value is missing."""
    return tag("span", f"– ({reason or 'not known'})", class_="why")


def number(value: float | None, reason: str | None) -> Markup:
    """Return a measured value, or why there is none."""
    return why(reason) if value is None else join(f"{value:.2f}")


def clock_time(text: str) -> str:
    """Return an instant of a certificate as people write it."""
    return text.replace("T", " ").removesuffix("Z")
