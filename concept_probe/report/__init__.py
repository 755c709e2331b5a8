"""What was measured, as something to read: results become JSON, HTML and Markdown, and nothing is measured here.

Four results have renderings, a file each that says so in its name:

- the `Report` of an audit: `audit_json` is the source, exact both ways; `audit_html` (made of `audit_sections`),
  `audit_markdown` and `show` for notebooks are renderings of it;
- a `Leaderboard`: `leaderboard`, as JSON, HTML and Markdown;
- a `Catalogue` of features: `feature_browser`, as HTML;
- an `Attribution`: `attribution`, as JSON, exact both ways, and HTML.

Maps over a picture, which are plain tensors, become a page by `attention_page`.

The room knows types and figures, and no model: a report that was read from JSON renders as the one that was written. A
page is one file that opens offline: pictures, styles and scripts are inside, and nothing is fetched. `format` writes
numbers and names, `glossary` says what each metric means: a new metric gets its sentence there, and `page` is the frame
of every page with figures.
"""

from concept_probe.report.attention_page import MapSection, attention_to_html
from concept_probe.report.attribution import attribution_from_json, attribution_to_html, attribution_to_json
from concept_probe.report.audit_html import show, to_html
from concept_probe.report.audit_json import from_json, to_json
from concept_probe.report.audit_markdown import to_markdown
from concept_probe.report.feature_browser import to_browser
from concept_probe.report.format import headline
from concept_probe.report.leaderboard import board_to_html, board_to_json, board_to_markdown
from concept_probe.report.leaderboard_files import write_board

__all__ = [
    "MapSection", "attention_to_html", "attribution_from_json", "attribution_to_html", "attribution_to_json",
    "board_to_html", "board_to_json", "board_to_markdown", "from_json", "headline", "show", "to_browser", "to_html",
    "to_json", "to_markdown", "write_board",
]  # fmt: skip
