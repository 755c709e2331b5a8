"""Find a concept inside a generative model, remove it, and audit what is left of it.

>>> import concept_probe as cp
>>> subject = cp.load("emoji")
>>> report = cp.audit(subject, cp.erase("uce", subject, cp.concept("camel")), cp.concept("camel"))
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING

__version__ = "0.1.0"

# Where each public name lives; its module is loaded when the name is first asked for, so that
# importing the package loads neither diffusers nor transformers nor plotly.
_HOMES = {
    "Site": "types", "Prompt": "types", "Query": "types", "Splits": "types", "Concept": "types", "Moment": "types",
    "Codes": "types", "Codec": "types", "Score": "types", "Subspace": "types", "Finding": "types", "Curve": "types",
    "Verdict": "types", "Picture": "types", "TraceMap": "types", "Report": "types", "Sampling": "types",
    "Trial": "types", "Recogniser": "types", "Catalogue": "types", "UnknownName": "registry",
    "load": "families", "Subject": "families",
    "concept": "concepts", "prompts": "concepts", "load_concept": "concepts", "save_concept": "concepts",
    "tap": "activations", "capture": "activations", "Activations": "activations", "Live": "activations",
    "Prefetched": "activations", "prefetch": "activations", "estimate_capture": "activations", "estimate_training": "learn",
    "Sae": "learn", "train_sae": "learn", "load_sae": "learn", "save_sae": "learn", "evaluate_sae": "learn",
    "load_saes": "learn", "push_to_hub": "learn", "feature_density": "learn", "decoder_neighbours": "learn",
    "stability": "learn", "splitting": "find", "absorption": "find", "catalogue": "find", "to_browser": "report",
    "find_features": "find", "find_vectors": "find", "difference_of_means": "find", "leace": "find",
    "fit_probe": "find", "probe_auroc": "find",
    "choose_features": "erasers", "choose_vectors": "erasers",
    "erase": "erasers", "ERASERS": "erasers", "Edit": "erasers", "Intervention": "erasers",
    "ATTACKS": "attacks", "Budget": "attacks", "Attempt": "attacks",
    "audit": "auditing", "recogniser": "detect",
    "to_json": "report", "from_json": "report", "to_html": "report", "to_markdown": "report",
}  # fmt: skip
_ROOMS = ("figures", "report", "testbed", "families", "learn", "find", "detect", "attacks", "types", "registry")

__all__ = ["__version__", *sorted(_HOMES)]  # pyright: ignore[reportUnsupportedDunderAll]

if TYPE_CHECKING:
    from concept_probe.activations import Activations, Live, Prefetched, capture, estimate_capture, prefetch, tap
    from concept_probe.attacks import ATTACKS, Attempt, Budget
    from concept_probe.auditing import audit
    from concept_probe.concepts.embedded import concept, prompts
    from concept_probe.concepts.files import load_concept, save_concept
    from concept_probe.detect import recogniser
    from concept_probe.erasers import ERASERS, Edit, Intervention, choose_features, choose_vectors, erase
    from concept_probe.families import Subject, load
    from concept_probe.find import (
        absorption,
        catalogue,
        difference_of_means,
        find_features,
        find_vectors,
        fit_probe,
        leace,
        probe_auroc,
        splitting,
    )
    from concept_probe.learn import (
        Sae,
        decoder_neighbours,
        estimate_training,
        evaluate_sae,
        feature_density,
        load_sae,
        load_saes,
        push_to_hub,
        save_sae,
        stability,
        train_sae,
    )
    from concept_probe.registry import UnknownName
    from concept_probe.report import (
        from_json,
        to_browser,
        to_html,
        to_json,
        to_markdown,
    )
    from concept_probe.types import (
        Catalogue,
        Codec,
        Codes,
        Concept,
        Curve,
        Finding,
        Moment,
        Picture,
        Prompt,
        Query,
        Recogniser,
        Report,
        Sampling,
        Score,
        Site,
        Splits,
        Subspace,
        TraceMap,
        Trial,
        Verdict,
    )


class _Package(ModuleType):
    """Rooms and verbs share names (`capture`, `erase`, `audit`): on the package, the name is the verb.

    Python binds a subpackage to its parent's attribute once it is imported, whoever imported it;
    without this, `cp.erase` would be a function or a module depending on what ran before.
    """

    def __setattr__(self, name: str, value: object) -> None:
        if isinstance(value, ModuleType) and _HOMES.get(name) == name:
            value = getattr(value, name)
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


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
