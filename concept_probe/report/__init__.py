"""A report as JSON (the source), and as HTML and Markdown (renderings)."""

from concept_probe.report.html import show, to_html
from concept_probe.report.markdown import to_markdown
from concept_probe.report.source import from_json, to_json
from concept_probe.report.words import headline

__all__ = ["from_json", "headline", "show", "to_html", "to_json", "to_markdown"]
