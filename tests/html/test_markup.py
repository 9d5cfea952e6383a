"""Markup: plain text is escaped, markup passes, and what is None or False leaves no attribute."""

from fedunlearn.html.markup import Markup, join, null, table, tag


def test_one_element_with_text_markup_and_attributes():
    made = tag("p", "a < b", tag("b", "!"), class_="note", title=None, hidden=False, data_at=3, open=True)
    assert made == '<p class="note" data-at="3" open>a &lt; b<b>!</b></p>'
    assert tag("img", src='"x"') == '<img src="&quot;x&quot;">'


def test_only_markup_passes_unescaped():
    assert join("<i>", Markup("<i>"), None) == "&lt;i&gt;<i>"
    assert null(None) == '<abbr title="not measured" class="null">–</abbr>'
    cell = tag("td", "2", class_="n")
    assert table(["a"], [["1"], [cell]]).count('<td class="n">2</td>') == 1
