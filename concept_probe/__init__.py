"""Find a concept inside a generative model, remove it, and audit what is left of it.

>>> import concept_probe as cp
>>> subject = cp.load("emoji")
>>> report = cp.audit(subject, cp.erase("uce", subject, cp.concept("camel")), cp.concept("camel"))

The names stand in `__init__.pyi`, once, for editors, type checkers and Python alike. What a name stands for is loaded
when it is first asked for: importing the package loads neither diffusers nor transformers nor plotly.
"""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

__version__ = "0.1.0"


def _homes() -> dict[str, str]:
    """Each name of the stub, and the module to import it from."""
    stub = ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8"))
    imports = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
    return {alias.name: str(node.module) for node in imports for alias in node.names}


_HOMES = _homes()
__all__ = ["__version__", *sorted(_HOMES)]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> object:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if home == __name__:  # a room
        return importlib.import_module(f"{__name__}.{name}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
