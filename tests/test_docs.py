"""The pages keep up with the code: error messages, links, and names of commands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.main import get_command

from concept_probe.cli import app

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def headings() -> list[str]:
    """Every message that the page on errors explains."""
    text = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    return [m for line in re.findall(r"^### (.+)$", text, re.M) for m in re.findall(r"`([^`]+)`", line)]


def messages() -> str:
    """The package's source with adjacent literals joined and what is filled in replaced by an ellipsis."""
    source = "\n".join(p.read_text(encoding="utf-8") for p in (ROOT / "concept_probe").rglob("*.py"))
    joined = re.sub(r'"\s*\n\s*f?"', "", source)
    return re.sub(r"\{[^{}]*\}", "...", joined)


@pytest.mark.parametrize("heading", headings())
def test_an_explained_message_is_one_that_the_code_prints(heading):
    code = messages()
    fixed = [part.strip(" ()") for part in re.split(r"\.\.\.|'[^']*'|, ", heading)]
    assert [part for part in fixed if len(part) > 3 and part not in code] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    targets = [t.split("#")[0] for t in re.findall(r"\]\(([^)\s]+)\)", text) if not re.match(r"\w+:", t)]
    made = ROOT / "docs" / "reference"  # by docs/generate.py; tests/test_reference.py looks there
    places = [(page.parent / t).resolve() for t in targets if t]
    assert [str(p) for p in places if not p.exists() and made not in p.parents] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_every_command_shown_has_its_verb_and_options(page):
    verbs = get_command(app).commands  # pyright: ignore[reportAttributeAccessIssue]
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    wrong = []
    for line in re.findall(r"(?<![\w-])concept-probe ([a-z][^\n`|>&#]*)", text):
        words = line.split()
        verb, rest = verbs.get(words[0]), words[1:]
        if hasattr(verb, "commands"):
            verb, rest = (verb.commands.get(rest[0]) if rest else None), rest[1:]
        known = {name for p in getattr(verb, "params", ()) for name in p.opts} | {"--help"}
        wrong += [line] if verb is None or any(w.startswith("-") and w.split("=")[0] not in known for w in rest) else []
    assert wrong == []
