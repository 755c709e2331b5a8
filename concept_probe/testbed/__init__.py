"""The embedded models: small, real, and with known truth, and the recipes that made them.

A pipeline and its twin that was never taught some of it; facts that SmolLM2 knows, and invented ones that it can be
taught. Splits of a concept share no template. Every recipe goes on where it was stopped and ends in the same weights.
Nothing here knows the rest of the package but its types, registry and storage.
"""

from __future__ import annotations

from pathlib import Path

from concept_probe.registry import look_up

WEIGHTS = Path(__file__).parent / "weights"
EMBEDDED = {
    "emoji": "text-to-image pipeline that draws 126 objects in 4 icon styles",
    "emoji-untaught": "its twin, never taught 8 of the objects and 1 of the styles",
    "emoji-flow": "the same with a rectified-flow transformer of double- and single-stream blocks",
    "emoji-flow-untaught": "its twin, whose transformer was never taught the same of them",
}
LANGUAGE_MODELS = {"smollm2": "SmolLM2-135M-Instruct, a real language model; not shipped, see testbed.smollm2"}
TWINS = {"emoji": "emoji-untaught", "emoji-flow": "emoji-flow-untaught"}


def folder(name: str) -> Path:
    """The folder of a shipped pipeline."""
    look_up(EMBEDDED, name, "embedded model", "the list: concept_probe.testbed.EMBEDDED")
    return WEIGHTS / name
