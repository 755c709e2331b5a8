"""Lists of names that published comparisons of erasers use; kits of them are built when they are asked for."""

from __future__ import annotations

from concept_probe.concepts.kits.build import Kit, new_kit
from concept_probe.concepts.kits.lexicon import Lexicon
from concept_probe.concepts.kits.names import STYLE_GROUPS
from concept_probe.concepts.kits.templates import KitKind
from concept_probe.registry import look_up

_IMAGENETTE = (
    "tench", "English springer", "cassette player", "chain saw", "church", "French horn", "garbage truck", "gas pump",
    "golf ball", "parachute",
)  # fmt: skip
_UNLEARN_CANVAS = (
    "architecture", "bear", "bird", "butterfly", "cat", "dog", "fish", "flame", "flower", "frog", "horse", "human",
    "jellyfish", "rabbit", "sandwich", "sea", "statue", "tower", "tree", "waterfall",
)  # fmt: skip
_PAINTERS = ("modern painters", "avant-garde painters", "old masters")
COLLECTIONS: dict[str, tuple[tuple[str, KitKind], ...]] = {
    "imagenette": tuple((name, "object") for name in _IMAGENETTE),
    "unlearncanvas": tuple((name, "object") for name in _UNLEARN_CANVAS),
    "artists": tuple((name, "style") for name in [n for group in _PAINTERS for n in STYLE_GROUPS[group]][:20]),
}
"""Names and their kinds: the ten classes of Imagenette, the twenty objects of UnlearnCanvas (arXiv 2402.11846; in the
singular), twenty painters."""


def collection(name: str, lexicon: Lexicon | None = None) -> dict[str, Kit]:
    """A kit of every name of a collection. LookupError for a collection that isn't there, and as `new_kit` has it."""
    names = look_up(COLLECTIONS, name, "collection of kits")
    return {each: new_kit(each, kind, lexicon=lexicon) for each, kind in names}
