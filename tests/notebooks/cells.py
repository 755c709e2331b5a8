"""What every notebook keeps: cells of calls, stored without outputs."""

from __future__ import annotations

import ast
import json
from pathlib import Path

LOGIC = (ast.FunctionDef, ast.ClassDef, ast.Lambda, ast.For, ast.While, ast.If, ast.IfExp, ast.Try)


def code_cells(notebook: Path) -> list[dict]:
    return [cell for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]


def holds_calls_alone(notebook: Path) -> None:
    """At most ten cells of code, no logic, no outputs."""
    cells = code_cells(notebook)
    assert len(cells) <= 10 and not [cell for cell in cells if cell["outputs"]]
    found = [type(n).__name__ for c in cells for n in ast.walk(ast.parse("".join(c["source"]))) if isinstance(n, LOGIC)]
    assert found == []
