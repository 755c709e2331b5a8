"""The JSON is the source: exact both ways. The HTML stands alone."""

import io
import json
import math
import re
from dataclasses import replace
from unittest.mock import patch

import pytest
from rich.console import Console

from concept_probe.cli import reports
from concept_probe.report import from_json, headline, to_html, to_json, to_markdown
from tests.report.one_of_each import report


def test_json_round_trip_is_exact():
    first = to_json(report())
    again = from_json(first)
    assert to_json(again) == first
    assert again.pictures == report().pictures
    assert math.isnan(again.findings[2].after)
    assert again.verdict == report().verdict


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda d: d.pop("verdict"), "lacks verdict"),
        (lambda d: d.update(schema="x"), "schema is 'x'"),
        (lambda d: d["findings"][0].update(n="many"), r"findings\[0\]"),
        (lambda d: d["verdict"].update(name="fine"), "one of"),
        (lambda d: d.update(extra=1), "extra"),
    ],
)
def test_what_is_no_report_is_refused_with_its_place(damage, said):
    data = json.loads(to_json(report()))
    damage(data)
    with pytest.raises(ValueError, match=said):
        from_json(json.dumps(data))


def test_truncated_json_is_refused():
    with pytest.raises(ValueError, match="not JSON"):
        from_json(to_json(report())[:500])


@pytest.mark.parametrize(("needed", "said"), [(131, "about 131"), (1000, "about 1000"), (56240, "more than 1,000")])
def test_a_figure_that_nobody_can_plan_with_is_not_shown(needed, said):
    """Beside a threshold the figure is as large as chance makes it; the JSON keeps it, the pages do not show it."""
    undecided = replace(report(), verdict=replace(report().verdict, name="undecided", samples_needed=needed))
    for shown in (to_markdown(undecided), to_html(undecided)):
        line = next(x for x in shown.splitlines() if "Answers needed for a decision" in x)
        assert said in line and "56240" not in line and "56,240" not in line
    console = Console(width=200, record=True, file=io.StringIO())
    with patch.object(reports, "out", console):
        reports.print_verdict(undecided, None)
    assert f"answers needed for a decision: {said}" in console.export_text()
    assert from_json(to_json(undecided)).verdict.samples_needed == needed


@pytest.fixture(scope="module")
def page():
    return to_html(report())


def test_the_page_asks_nothing_of_the_network(page):
    own = re.sub(r"<script>.*?</script>", "", page, flags=re.S)  # the drawing library names addresses it does not ask
    assert page.count("<script>") == 2
    assert not re.search(r'(src|href)\s*=\s*"(https?:)?//', own)
    assert not re.search(r"<link|@import|url\(", own)


def test_the_page_opens_with_the_verdict_and_shows_everything(page):
    body = page[page.index("<body") : page.index("<script")]
    assert body.index("suppressed") < body.index("Findings")
    for text in (
        "Relearning brings it back &amp; more.", "uce &lt;baked&gt;", "Quantisation was not tried.", "sha256 &lt;abc&gt;",
        "uncalibrated", "0.62", "120",
    ):  # fmt: skip
        assert text in body, text
    assert body.count("<img ") == 9


def test_the_page_explains_its_words(page):
    body = page[page.index("<body") : page.index("<script")]
    assert "What each metric is" not in body, "no metric of this made-up report is known"
    real = replace(report(), findings=tuple(replace(f, metric="detection rate") for f in report().findings))
    for text in (to_html(real), to_markdown(real)):
        assert "Share of pictures, or texts, that show the concept." in text
        assert "the same measurement where the answer is known" in text
    assert "prompts that name the concept" in body and "what attacks made" not in body
    assert body.count('data-head="Control"') == len(report().findings), "narrow screens name every cell"


def test_maps_of_rates_share_one_scale():
    from concept_probe.report.audit_html import _scale

    rates = replace(report().traces[0], unit="rate")
    assert _scale(rates) == {"low": 0.0, "high": 1.0} and _scale(report().traces[0]) == {}


def test_a_report_without_extras_still_renders():
    bare = replace(report(), findings=(), indices={}, curves=(), traces=(), pictures=(), not_measured=(), provenance={})
    assert "suppressed" in to_html(bare)
    assert "suppressed" in to_markdown(bare)


def test_markdown_names_every_finding():
    text = to_markdown(report())
    for word in ("suppressed", "detection", "neighbours", "95 % interval", "gradient steps", "What was not measured"):
        assert word in text


def test_the_headline_says_that_thresholds_are_uncalibrated():
    assert headline(report()) == "camel in emoji, uce <baked>: suppressed (uncalibrated)"


def test_show_is_what_a_notebook_renders():
    shown = report().show()
    html = shown._repr_html_()  # pyright: ignore[reportAttributeAccessIssue]
    assert "suppressed" in html and "Quantisation was not tried." in html
    assert repr(shown).startswith(headline(report()))
