"""The reference has the code's signatures: every parameter of every name, in order, and plain defaults."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "docs" / "reference"
SHOWN = re.compile(r"^### `(\w+)`\n(?:(?!^### |```).*\n)*```python\n(\1\((?:(?!```).*\n)*?)```", re.M)
"""A heading, and a block below it that begins with that name."""


def signatures() -> list[tuple[str, str, str]]:
    """(place, name, signature as written) of everything that a page shows so; of several in a block the first.

    The place is the module that a heading above names, else the rooms in the page's title.
    """
    out = []
    for page in sorted(PAGES.glob("*.md")):
        text = page.read_text(encoding="utf-8")
        for found in SHOWN.finditer(text):
            above = re.findall(r"^## concept_probe\.([\w.]+)", text[: found.start()], re.M)
            first = re.split(r"\n(?=\w)", found[2])[0]
            title = text.partition("\n")[0].removeprefix("# ")
            out.append((above[-1] if above else title, found[1], first.strip()))
    return out


def thing(place: str, name: str) -> Callable:
    """The function or class of this name, in these modules before their rooms, and there before any other."""
    modules = [ROOT / "concept_probe" / part.replace(".", "/") for part in place.split(", ")]
    rooms = [ROOT / "concept_probe" / part.split(".")[0] for part in place.split(", ")]

    def far(file: Path) -> tuple[bool, bool]:
        return file.with_suffix("") not in modules, not any(room in file.parents for room in rooms)

    files = sorted(sorted((ROOT / "concept_probe").rglob("*.py")), key=far)
    for file in files:
        if re.search(rf"^(def|class) {name}\b", file.read_text(encoding="utf-8"), re.M):
            parts = file.relative_to(ROOT).with_suffix("").parts
            return getattr(importlib.import_module(".".join(parts)), name)
    raise LookupError(f"{place}: there is no {name}")


def stated(text: str) -> list[tuple[str, str | None]]:
    """Parameters of a written signature: name, and default as source text."""
    (made,) = ast.parse(f"def {text}: ...").body
    assert isinstance(made, ast.FunctionDef)
    a = made.args
    places = [*a.posonlyargs, *a.args]
    defaults = [None] * (len(places) - len(a.defaults)) + list(a.defaults)
    pairs = [*zip(places, defaults, strict=True), *zip(a.kwonlyargs, a.kw_defaults, strict=True)]
    return [(p.arg, None if d is None else ast.unparse(d)) for p, d in pairs]


def test_pages_show_signatures():
    assert len(signatures()) > 200


@pytest.mark.parametrize(("place", "name", "text"), signatures(), ids=lambda v: v if "(" not in v else "")
def test_a_signature_is_the_codes(place, name, text):
    own = {n: p.default for n, p in inspect.signature(thing(place, name)).parameters.items() if not n.startswith("_")}
    shown = dict(stated(text))
    assert list(shown) == list(own)
    assert [n for n, d in shown.items() if d is None] == [n for n, d in own.items() if d is inspect.Parameter.empty]
    plain = {n: d for n, d in shown.items() if d and re.fullmatch(r"-?\d[\d._e-]*|'.*'|True|False|None", d)}
    assert {n: ast.literal_eval(d) for n, d in plain.items()} == {n: own[n] for n in plain}
