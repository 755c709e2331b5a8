"""Text of strangers is shown as it stands: on the terminal, in Markdown, on pages; errors and signals in one line."""

from __future__ import annotations

import html
import io
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.panel import Panel
from rich.table import Table

from concept_probe.cli.common import plain_errors
from concept_probe.cli.console import PlainConsole
from concept_probe.report.markdown import cell, escaped
from concept_probe.report.page import Charts, page

HOSTILE = ("[/]", "a[/b]", "acts[v2]", "[bold]x", ":smile:", "[link=http://x]y")


def shown(thing) -> str:
    file = io.StringIO()
    PlainConsole(file=file, width=120, force_terminal=True, color_system=None).print(thing)
    return file.getvalue()


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_is_read_as_markup(text):
    table = Table("head", title=text)
    table.add_row(text)
    assert text in shown(text) and shown(table).count(text) == 2 and text in shown(Panel(text))


def test_control_characters_are_written_out():
    said = shown("\x1b]0;owned\x07\x1b[2J\u202ecamel")
    assert "\x1b]0" not in said and "\\x1b]0;owned\\x07" in said and "\\u202ecamel" in said


@pytest.mark.parametrize(
    "text",
    ["[a](http://b)", "![a](b)", "<img src=x>", "# a", "> a", "- a", "* a", "*", "1. a", "**a**", "`a`", "[a]: http://b", "<http://a>",
     "http://a.b", "www.a.b", "a\n\n# b", "---", "\\<b>", "a | b", "a@b.c", "a &lt;b&gt; &#42;c&#42;", "ends in \\", "$x$"],
)  # fmt: skip
def test_markdown_of_strangers_makes_no_element(text):
    markdown = pytest.importorskip("markdown_it").MarkdownIt("commonmark", {"linkify": False})
    made = markdown.render(escaped(text))
    assert re.fullmatch(r"<p>[^<]*</p>\n", made), made
    assert html.unescape(made) == f"<p>{' '.join(text.split())}</p>\n", "and it reads as it was written"
    assert html.unescape(markdown.render(f"a: {escaped(text)}. b")) == f"<p>a: {' '.join(text.split())}. b</p>\n"
    assert "http://" not in escaped(text) and not re.search(r"(?<!\\)\|", cell(text))


def test_pages_fetch_nothing_even_if_told_to():
    made = page("\x1b[2Jtitle", "<p>body\x07</p>", Charts())
    assert "default-src 'none'" in made and "\x1b" not in made and "\x07" not in made


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ImportError("no bitsandbytes; pip install it"), "error: no bitsandbytes; pip install it\n"),
        (OverflowError("too large"), "OverflowError: too large; CONCEPT_PROBE_DEBUG=1 shows where"),
        (AttributeError("x"), "AttributeError: x; CONCEPT_PROBE_DEBUG=1"),
        (KeyError("x"), "KeyError: 'x'; CONCEPT_PROBE_DEBUG=1"),
        (ZeroDivisionError(), "ZeroDivisionError: no more was said"),
        (OSError(28, "No space left on device", "f"), "the disk is full"),
        (ValueError("two\nlines"), "error: two lines\n"),
    ],
)
def test_every_error_is_one_line(error, said, capsys, monkeypatch):
    import typer

    monkeypatch.delenv("CONCEPT_PROBE_DEBUG", raising=False)
    with pytest.raises(typer.Exit) as left, plain_errors():
        raise error
    told = capsys.readouterr().err
    assert left.value.exit_code == 2 and said in told and told.count("\n") == 1


def test_the_traceback_is_there_for_the_asking(monkeypatch):
    monkeypatch.setenv("CONCEPT_PROBE_DEBUG", "1")
    with pytest.raises(AttributeError), plain_errors():
        raise AttributeError("x")


@pytest.mark.parametrize("after", [0.15, 0.8])
@pytest.mark.parametrize(("which", "code", "word"), [("SIGINT", 130, "interrupted"), ("SIGTERM", 143, "terminated")])
@pytest.mark.slow
def test_a_signal_is_answered_in_one_line_while_libraries_are_imported(after, which, code, word):
    begin = "import signal, time; from concept_probe.__main__ import main; print('up', flush=True); main()"
    done = subprocess.Popen(
        [sys.executable, "-c", begin, "find", "camel", "--output", os.devnull + "/x"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.stdout is not None and done.stdout.readline() == "up\n"
    time.sleep(after)
    done.send_signal(getattr(signal, which))
    _, said = done.communicate(timeout=60)
    assert done.returncode == code and said.strip().startswith(word) and "Traceback" not in said, said
