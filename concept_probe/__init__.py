"""Find a concept inside a generative model, remove it, and audit what is left of it.

>>> import concept_probe as cp
>>> subject = cp.load("emoji")
>>> report = cp.audit(subject, cp.erase("uce", subject, cp.concept("camel")), cp.concept("camel"))
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

__version__ = "0.1.0"

# Where each public name lives; its module is loaded when the name is first asked for, so that
# importing the package loads neither diffusers nor transformers nor plotly.
_HOMES = {
    "Site": "types", "Prompt": "types", "Query": "types", "Splits": "types", "Concept": "types", "Moment": "types",
    "Codes": "types", "Codec": "types", "Score": "types", "Subspace": "types", "Finding": "types", "Curve": "types",
    "Verdict": "types", "Picture": "types", "TraceMap": "types", "Report": "types", "Sampling": "types",
    "Trial": "types", "Recogniser": "types", "UnknownName": "registry",
    "load": "families", "Subject": "families",
    "concept": "concepts", "prompts": "concepts", "load_concept": "concepts", "save_concept": "concepts",
    "tap": "capture", "capture": "capture", "Activations": "capture",
    "Sae": "learn", "train_sae": "learn", "load_sae": "learn", "save_sae": "learn", "evaluate_sae": "learn",
    "find_features": "find", "find_vectors": "find", "difference_of_means": "find", "leace": "find",
    "fit_probe": "find", "probe_auroc": "find",
    "erase": "erase", "ERASERS": "erase", "Edit": "erase", "Intervention": "erase",
    "ATTACKS": "attack", "Budget": "attack", "Attempt": "attack",
    "audit": "audit", "recogniser": "detect",
    "to_json": "report", "from_json": "report", "to_html": "report", "to_markdown": "report",
}  # fmt: skip
_ROOMS = ("figures", "report", "testbed", "families", "learn", "find", "detect", "attack", "types", "registry")

__all__ = ["__version__", *sorted(_HOMES)]  # pyright: ignore[reportUnsupportedDunderAll]

if TYPE_CHECKING:
    pass


def __getattr__(name: str) -> object:
    if name in _HOMES:
        value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = value
        return value
    if name in _ROOMS:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_ROOMS})
