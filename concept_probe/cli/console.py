"""The one place where text is printed: nothing in it is read as markup, and control characters are shown as such."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from concept_probe.types.plain_text import shown_plainly


class PlainConsole(Console):
    """A console to which every string is plain text: of messages, cells, titles and bars. Style comes from `Text`."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """As rich does, of `text` with its control characters written out."""
        return super().render_str(shown_plainly(text), **options)


err = PlainConsole(stderr=True)
out = PlainConsole()


def say(head: str, style: str, text: object) -> None:
    """One line on standard error: a styled word, and what it is about."""
    one_line = " ".join(shown_plainly(text).split())
    err.print(Text.assemble((f"{head}:", style), " ", one_line), soft_wrap=True)


def bold(text: object) -> Text:
    return Text(shown_plainly(text), style="bold")
