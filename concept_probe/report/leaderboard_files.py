"""A leaderboard as files."""

from __future__ import annotations

from pathlib import Path

from concept_probe.report.leaderboard import board_to_html, board_to_json, board_to_markdown
from concept_probe.storage import write_text
from concept_probe.types import Leaderboard


def write_board(folder: Path, board: Leaderboard) -> None:
    """Write `leaderboard.html`, `.md` and `.json` into `folder`, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, render in (("html", board_to_html), ("md", board_to_markdown), ("json", board_to_json)):
        write_text(folder / f"leaderboard.{name}", render(board))
