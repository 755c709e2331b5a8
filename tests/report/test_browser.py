"""The page of features: everything is inside, and what is said is what was found."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from concept_probe import report as room
from concept_probe.report import to_browser
from concept_probe.types import Catalogue, Example, FeatureEntry, Score


def catalogue() -> Catalogue:
    score = Score("AUROC of the preferred label", 0.91, 0.83, 0.97, 60, "", "higher", 0.61)
    text = Example(
        "a <b>cat</b> & dog", 4.0, (("a ", 0.0), ("<b>cat</b> ", 4.0), ("&", 1.0), ("⟨end⟩", 2.0)), (), b"\x89PNGx"
    )
    patch = Example("the sun", 2.0, (), ((0.0, 2.0), (0.5, 0.0)), None)
    entries = (
        FeatureEntry(7, 0.01, 4.0, "cat", score, (("cat", 0.8), ("sofa", 0.2)), (text,)),
        FeatureEntry(12, 0.2, 2.0, "sun", None, (), (patch,)),
        FeatureEntry(3, 0.0, 0.0, "", None, (), ()),
    )  # fmt: skip
    frequencies = tuple([0.0] * 7 + [0.01] + [0.003] * 4 + [0.2])
    return Catalogue("emoji", "text_encoder/a:out", 13, entries, frequencies, 40, 900, "asked for", 0.35, {"seed": "0"})


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.cards: list[dict[str, str | None]] = []
        self.marked: list[str] = []
        self.sources: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.sources += [v for k, v in attrs if k in ("src", "href") and v]
        if tag == "article":
            self.cards.append(found)
        if tag not in ("meta", "input", "img", "rect", "wbr", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in ("rect",):
            assert self.open.pop() == tag

    def handle_data(self, data):
        if "mark" in self.open:
            self.marked.append(data)


def test_nothing_is_fetched_and_every_tag_is_closed():
    text = to_browser(catalogue())
    page = Page(text)
    assert page.open == [] and page.sources and all(s.startswith("data:") for s in page.sources)
    assert not re.search(r"https?://|@import|url\(", text)


def test_cards_hold_what_is_sorted_and_searched_by():
    cards = Page(to_browser(catalogue())).cards
    assert [c["id"] for c in cards] == ["feature-7", "feature-12", "feature-3"]
    assert [float(c["data-selectivity"] or 0) for c in cards] == [0.91, -1, -1]
    assert [float(c["data-frequency"] or 0) for c in cards] == [0.01, 0.2, 0.0]
    assert "a <b>cat</b> & dog" in (cards[0]["data-words"] or "") and "sofa" in (cards[0]["data-words"] or "")


def test_what_fires_is_marked_by_how_strongly_and_what_does_not_is_not():
    text = to_browser(catalogue())
    page = Page(text)
    assert page.marked == ["<b>cat</b>", "&", "end"]
    assert [float(a) for a in re.findall(r'<mark style="--a:([\d.]+)">', text)] == [1.0, 0.25, 0.5]
    assert re.findall(r'<i style="--a:([\d.]+)"></i>', text) == ["1.00", "0.25"]


def test_prompts_can_not_break_out_of_the_page():
    text = to_browser(catalogue())
    assert text.count("<b>cat</b>") == 1  # "prefers cat": what the prompt has of it is escaped
    assert text.count("&lt;b&gt;cat&lt;/b&gt;") >= 2


def test_intervals_controls_and_weak_names_are_shown():
    text = to_browser(catalogue())
    assert "AUROC 0.91, 95 % interval 0.83 to 0.97, n 60, shuffled labels 0.61" in text
    assert 'class="weak">sofa' in text and 'class="weak">cat' not in text
    assert "stay under 0.35" in text and "7 never do" in text and "fires on none of the prompts" in text


@pytest.mark.skipif(shutil.which("node") is None, reason="node runs the page's script")
@pytest.mark.parametrize(
    ("search", "key", "shown"),
    [
        ("", "order", [7, 12, 3]),
        ("", "frequency", [12, 7, 3]),
        ("", "index", [3, 7, 12]),
        ("", "selectivity", [7, 12, 3]),
        ("cat dog", "order", [7]),
        ("SUN", "order", [12]),
        ("7", "order", [7]),
        ("nothing", "order", []),
    ],
)
def test_the_script_searches_and_sorts(search, key, shown, tmp_path):
    """The script as it is shipped, against a stand-in for the few parts of a document that it uses."""
    cards = [
        {name.removeprefix("data-"): value for name, value in card.items() if name.startswith("data-")}
        for card in Page(to_browser(catalogue())).cards
    ]
    script = (Path(room.__file__).parent / "feature_browser.js").read_text(encoding="utf-8")
    stand_in = f"""
    const cards_ = {json.dumps(cards)}.map(dataset => ({{dataset, hidden: false}}));
    const order = [];
    const parts = {{
      cards: {{append: card => order.push(card)}}, count: {{}},
      search: {{value: {json.dumps(search)}, addEventListener() {{}}}},
      sort: {{value: {json.dumps(key)}, addEventListener() {{}}}},
    }};
    globalThis.document = {{querySelectorAll: () => cards_, getElementById: id => parts[id], addEventListener() {{}}}};
    """
    tell = "console.log(JSON.stringify([order.filter(c => !c.hidden).map(c => +c.dataset.index), parts.count.textContent]));"
    path = tmp_path / "page.js"
    path.write_text(stand_in + script + tell, encoding="utf-8")
    done = subprocess.run(["node", str(path)], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [shown, f"{len(shown)} of 3"]
