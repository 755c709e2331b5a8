"""Examples of the pages are code that exists: imports, names of the package, options; the cheap ones are run."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import concept_probe as cp
from concept_probe.testing.concepts import tiny_concept, tiny_facts
from concept_probe.testing.models.diffusion import tiny_sd
from concept_probe.testing.models.language import tiny_llama
from concept_probe.types import KINDS

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])


def blocks(page: Path) -> list[str]:
    text = page.read_text(encoding="utf-8")
    return [textwrap.dedent(b) for b in re.findall(r"^ *```python\n(.*?)^ *```", text, re.S | re.M)]


EXAMPLES = [(page, i) for page in PAGES for i in range(len(blocks(page)))]


def parsed(block: str) -> ast.Module:
    """The block, where an ellipsis may stand for lines that are left out of a literal."""
    return ast.parse(re.sub(r"^(\s*)\.\.\.$(?=\n\s*[\"}])", r"\1", block, flags=re.M))


def thing(node: ast.AST, names: dict[str, Any]) -> Any:
    """What a name, or a chain of attributes of one, stands for; None where a block says no more of it."""
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Attribute):
        owner = thing(node.value, names)
        if not inspect.ismodule(owner) and not inspect.isclass(owner):
            return None
        assert hasattr(owner, node.attr), f"{ast.unparse(node)} does not exist"
        return getattr(owner, node.attr)
    return None


def imports(tree: ast.Module) -> Iterator[tuple[str, Any]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "concept_probe":
            for alias in node.names:
                yield alias.asname or alias.name, getattr(importlib.import_module(node.module), alias.name)


@pytest.mark.parametrize(
    ("page", "which"), EXAMPLES, ids=lambda v: v if isinstance(v, int) else str(v.relative_to(ROOT))
)
def test_what_an_example_calls_is_there_and_takes_what_it_is_given(page: Path, which: int):
    shown = [parsed(block) for block in blocks(page)[: which + 1]]
    names: dict[str, Any] = {"cp": cp}
    for tree in shown:
        names |= dict(imports(tree))
    for node in ast.walk(shown[-1]):
        if isinstance(node, ast.Attribute):
            thing(node, names)
        if isinstance(node, ast.Call):
            called = thing(node.func, names)
            if called is not None and callable(called):
                inspect.signature(called).bind_partial(
                    *node.args, **{k.arg: k.value for k in node.keywords if k.arg is not None}
                )


def diffusion() -> dict[str, Any]:
    subject, concept = tiny_sd(), tiny_concept()
    prompts = [p for kind in KINDS for p in getattr(concept, kind).fit]
    return {
        "cp": cp, "torch": torch, "subject": subject, "concept": concept, "prompts": prompts, "device": torch.device("cpu"),
        "site": subject.sites("text_stream")[0], "queries": [cp.Query(p) for p in prompts[:2]],
        "mlp_in": subject.sites("text_stream")[0], "mlp_out": subject.sites("text_stream")[1],
    }  # fmt: skip


def language() -> dict[str, Any]:
    return {"cp": cp, "smollm2": tiny_llama(), "concepts": (tiny_facts(), tiny_facts("tub", "low wall"))}


RUN: dict[tuple[str, tuple[int, ...]], Callable[[], dict[str, Any]]] = {
    ("docs/how-to/capture-activations.md", (0, 1, 2, 3, 4, 5, 8)): diffusion,
    ("docs/how-to/erase-several-concepts.md", (0,)): diffusion,
    ("docs/how-to/erase-several-concepts.md", (1, 2)): language,
    ("docs/how-to/add-an-eraser.md", (0,)): diffusion,
    ("README.md", (1,)): diffusion,
}
"""Blocks of a page, one after the other, in which models of the same kind stand for those that it names."""


@pytest.mark.slow
@pytest.mark.parametrize(("page", "chosen"), RUN, ids=lambda v: v if isinstance(v, str) else "")
def test_an_example_runs(page: str, chosen: tuple[int, ...], tmp_path, monkeypatch):
    names = RUN[page, chosen]()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(cp, "load", lambda *_: names["subject"])
    monkeypatch.setattr(cp, "prompts", lambda *_: names["prompts"])
    monkeypatch.setattr(cp, "concept", lambda name, *_: replace(names["concept"], name=name))
    written = blocks(ROOT / page)
    for i in chosen:
        exec(compile(written[i], f"{page}, block {i}", "exec"), names)
