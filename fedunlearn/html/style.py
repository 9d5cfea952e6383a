"""The page's CSS: one column of cards, system fonts, both colour schemes, fit for a phone and for paper."""

from fedunlearn.html.palette import css_variables

_RULES = """
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;scroll-behavior:smooth}
body{margin:0;background:var(--bg);color:var(--ink);line-height:1.5;font-size:16px;
  font-family:system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
main,header,nav,footer{max-width:1120px;margin:0 auto;padding:0 20px}
header{padding-top:34px}
h1{font-size:1.05rem;font-weight:600;margin:0;color:var(--muted)}
h1 b{color:var(--ink)}
h2{font-size:1.3rem;margin:46px 0 6px;line-height:1.25}
h3{font-size:1rem;margin:0}
p{margin:6px 0;max-width:76ch}
a{color:inherit}
code,pre{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,"Liberation Mono",monospace;font-size:.86em}
.facts,.lead,.note,footer,figcaption,caption{color:var(--muted)}
.facts{font-size:.92rem;margin-top:4px;max-width:none}
.note,figcaption,caption{font-size:.88rem}
nav{display:flex;flex-wrap:wrap;gap:2px 18px;font-size:.92rem;padding-top:14px}
nav a{color:var(--muted);text-decoration:none;border-bottom:1px solid transparent}
nav a:hover{color:var(--ink);border-color:var(--ink)}
.verdict{font-size:clamp(1.45rem,3.6vw,2.1rem);line-height:1.2;font-weight:700;letter-spacing:-.01em;
  margin:22px 0 8px;max-width:30ch;text-wrap:balance}
.verdict.good::before,.verdict.fair::before,.verdict.poor::before{content:"";display:block;width:52px;height:5px;
  border-radius:3px;margin-bottom:14px;background:var(--level)}
.good{--level:var(--good)}.fair{--level:var(--fair)}.poor{--level:var(--poor)}.unknown,.baseline{--level:var(--muted)}
.lead{font-size:1.06rem;max-width:70ch}
.caution{border-left:4px solid var(--fair);background:var(--card);padding:10px 14px;border-radius:0 8px 8px 0}
.grid{display:grid;gap:16px;margin:16px 0;grid-template-columns:repeat(auto-fit,minmax(min(100%,330px),1fr))}
.card,figure,.scroll,pre{background:var(--card);border-radius:12px;box-shadow:0 0 0 1px var(--grid)}
.card{padding:16px 18px}
.card h3{display:flex;align-items:center;gap:9px;overflow-wrap:anywhere}
.big{font-size:2.3rem;font-weight:700;line-height:1.1;margin:10px 0 0;font-variant-numeric:tabular-nums}
.big small{display:block;font-size:.88rem;font-weight:400;color:var(--muted);line-height:1.4;margin-top:3px}
.level{color:var(--level);font-weight:600;margin:12px 0 6px;line-height:1.35}
.meter{position:relative;height:10px;border-radius:5px;background:var(--grid);margin:14px 0 4px}
.meter i{position:absolute;top:0;height:100%;border-radius:5px 0 0 5px;background:var(--ink);opacity:.22}
.meter b{position:absolute;top:-4px;width:18px;height:18px;margin-left:-9px;border-radius:50%;
  background:var(--c);border:3px solid var(--card)}
.meter s{position:absolute;top:-4px;width:2px;height:18px;background:var(--ink)}
.ends{display:flex;justify-content:space-between;font-size:.8rem;color:var(--muted)}
dl{display:grid;grid-template-columns:auto 1fr;gap:3px 14px;margin:12px 0 0;font-size:.92rem}
dt{color:var(--muted)}dd{margin:0;text-align:right;font-variant-numeric:tabular-nums}
figure{margin:0;padding:14px 14px 12px}
figcaption{padding:4px 4px 0}
.plot{display:block;width:100%;height:auto;stroke-linejoin:round;font-family:inherit}
.plot text{font-family:inherit}
.plot [data-mark^="gap"]:hover{opacity:.75}
.legend{display:flex;flex-wrap:wrap;gap:4px 20px;font-size:.9rem;margin:10px 0;padding:0;list-style:none}
.legend li{display:flex;align-items:center;gap:8px}
.key{width:26px;height:14px;flex:none}
.panel{margin-top:22px}
.panel h3{margin:0 0 2px}
details{margin:12px 0}
summary{cursor:pointer;font-weight:600;padding:6px 0}
.scroll{overflow-x:auto;margin:12px 0;padding:4px 14px 8px}
table{border-collapse:separate;border-spacing:0;width:100%;font-size:.9rem;font-variant-numeric:tabular-nums}
caption{text-align:left;padding:8px 0}
th,td{padding:7px 12px 7px 0;text-align:right;vertical-align:top;border-bottom:1px solid var(--grid)}
th{font-weight:600;color:var(--muted);vertical-align:bottom}
tbody th{color:var(--ink);vertical-align:top}
tr:last-child>*{border-bottom:0}
th.text,td.text{text-align:left}
td small,th small{display:block;color:var(--muted);font-weight:400;font-size:.8rem;white-space:nowrap}
th.group{padding-top:16px;color:var(--ink)}
.scroll tr>:first-child{position:sticky;left:0;background:var(--card)}
.within{color:var(--good);font-weight:600}
.wide td,.wide tbody th{white-space:nowrap}
.wide thead th{min-width:5.2em;max-width:9em}
#partition figure{max-width:760px}
.null{color:var(--muted);text-decoration:none;cursor:help}
pre{padding:16px 18px;overflow-x:auto;line-height:1.45;margin:12px 0}
footer{font-size:.85rem;padding-top:40px;padding-bottom:40px}
@media(max-width:560px){main,header,nav,footer{padding-left:14px;padding-right:14px}figure{padding:10px 6px}}
@media print{body{background:#fff}.card,figure,.scroll{break-inside:avoid}nav{display:none}}
"""


_CAVEAT = """.caveat{display:inline-block;margin:10px 0 2px;padding:3px 12px;border:1px solid var(--fair);
  border-left-width:5px;border-radius:4px;color:var(--fair);font-weight:600}
"""
_PICTURES = """.strip{display:flex;flex-wrap:wrap;gap:14px 26px;align-items:flex-start;margin:10px 0 0}
.strip>div:not(.shots){display:flex;flex-direction:column;gap:14px}
.shots{display:flex;flex-wrap:wrap;gap:14px}
.shots figure{padding:0;border:0;background:none;box-shadow:none;width:192px;max-width:44vw}
.shots img{display:block;width:100%;height:auto;border-radius:4px}
.shots figcaption{padding:5px 0 0;line-height:1.35}
.shots b{display:block;color:var(--ink);font-weight:600}
.inks{display:flex;flex-wrap:wrap;gap:4px 20px;font-size:.9rem;margin:10px 0;padding:0;list-style:none}
.inks li{display:flex;align-items:center;gap:8px}
.inks i{width:22px;height:14px;border-radius:3px;flex:none;background:#4a4a4a}
"""


def stylesheet(*, caveat: bool = False, pictures: bool = False) -> str:
    """Return the whole style sheet; with what a page with a caveat, or one with pictures, needs besides."""
    return css_variables() + _RULES + _CAVEAT * caveat + _PICTURES * pictures
