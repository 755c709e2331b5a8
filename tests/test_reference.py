"""The generated reference holds what the code holds: every room, every exported name, every method of a registry."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path

import pytest

from concept_probe.attacks import ATTACKS
from concept_probe.detect import RECOGNISERS
from concept_probe.erasers import ERASERS
from concept_probe.families import FAMILIES

DOCS = Path(__file__).parents[1] / "docs"
PACKAGE = Path(__file__).parents[1] / "concept_probe"


@pytest.fixture(scope="module")
def generate():
    pytest.importorskip("griffe")
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before = list(sys.path)
    spec.loader.exec_module(module)
    sys.path[:] = before
    return module


@pytest.fixture(scope="module")
def pages(generate) -> dict[str, str]:
    return generate.pages()


@pytest.mark.slow
def test_every_room_has_a_page_and_every_sub_room_one_below(pages):
    rooms = [
        p.parent
        for p in PACKAGE.rglob("__init__.py")
        if p.parent != PACKAGE and "cli" not in p.relative_to(PACKAGE).parts
    ]
    shallow = [r.relative_to(PACKAGE) for r in rooms if len(r.relative_to(PACKAGE).parts) <= 2]
    assert not [str(r) for r in shallow if f"reference/{r.as_posix()}.md" not in pages]


@pytest.mark.parametrize(
    ("page", "registry"),
    [("erasers", ERASERS), ("attacks", ATTACKS), ("detect", RECOGNISERS), ("families", FAMILIES)],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_a_table_has_a_row_for_every_name_of_its_registry(pages, page: str, registry):
    rows = re.findall(r"^\| `([^`]+)` \|", pages[f"reference/{page}.md"], re.M)
    assert set(rows) >= set(registry)


def test_options_stand_with_their_defaults_and_their_meaning(pages):
    shown = pages["reference/erasers/closed_form.md"]
    assert re.search(r"^\| `lam` \| `float` \| `0.1` \| λ: .+ \|$", shown, re.M)


def test_no_page_is_left_to_be_written(pages):
    assert not [place for place, page in pages.items() if "TODO" in page]


def test_links_of_prose_into_the_reference_exist(pages):
    wrong = []
    for page in DOCS.rglob("*.md"):
        for place in re.findall(
            r"\]\((?:\.\./)*(reference/[\w/]+\.md)(?:#[\w-]*)?\)", page.read_text(encoding="utf-8")
        ):
            if place not in pages:
                wrong.append(f"{page.relative_to(DOCS)}: {place}")
    assert not wrong


def test_long_signatures_are_split_at_their_own_commas(generate):
    assert generate.entry.__module__ == "source_text"
    split = sys.modules["source_text"].split
    assert split("a: dict[str, int], b: str = ', ', *, c=(1, 2)") == [
        "a: dict[str, int]",
        "b: str = ', '",
        "*",
        "c=(1, 2)",
    ]
