"""A report as JSON (the source), HTML and Markdown (renderings); a catalogue of features as HTML; a leaderboard as all three."""

from concept_probe.report.board import board_to_html, board_to_json, board_to_markdown
from concept_probe.report.browser import to_browser
from concept_probe.report.format import headline
from concept_probe.report.html import show, to_html
from concept_probe.report.markdown import to_markdown
from concept_probe.report.source import from_json, to_json

__all__ = [
    "board_to_html", "board_to_json", "board_to_markdown", "from_json", "headline", "show", "to_browser", "to_html",
    "to_json", "to_markdown",
]  # fmt: skip
