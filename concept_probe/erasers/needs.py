"""What an eraser may need besides a subject and prompts, and how it is told apart."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from concept_probe.families import Subject
from concept_probe.find.layout import has_tokens
from concept_probe.types import Subspace

Found = Literal["nothing", "features", "text_features", "patch_features", "vectors", "columns", "directions"]
"""What an eraser works on besides prompts, see `MATERIAL`."""


@dataclass(frozen=True)
class Material:
    """One kind of what finders find."""

    what: str
    finder: str
    """Which finder makes it, and why it may have made none."""
    fits: Callable[[Subject, Subspace], bool]
    """(subject, subspace) -> whether it is of this kind."""


MATERIAL: Mapping[Found, Material] = {
    "features": Material(
        "features of a sparse autoencoder",
        "find_features makes them; it returns nothing where no feature is selective for the concept",
        lambda subject, space: space.codec is not None,
    ),
    "text_features": Material(
        "features of a sparse autoencoder over text tokens",
        "find_features makes them, of an autoencoder at a text site such as text_stream",
        lambda subject, space: (
            space.codec is not None and subject.is_text(space.site) and has_tokens(subject, space.site)
        ),
    ),
    "patch_features": Material(
        "features of a sparse autoencoder over patches",
        "find_features makes them, of an autoencoder at a site such as cross_out",
        lambda subject, space: space.codec is not None and not has_tokens(subject, space.site),
    ),
    "vectors": Material(
        "concept vectors in the weights",
        "find_vectors makes them; it returns nothing where no candidate is causal",
        lambda subject, space: space.space == "parameter",
    ),
    "columns": Material(
        "columns of a language model's down projections",
        "find_lm_columns makes them; it returns nothing where no columns are causal",
        lambda subject, space: space.space == "parameter" and space.site.item is not None,
    ),
    "directions": Material(
        "directions in activations",
        "difference_of_means, leace, rlace and repit make them",
        lambda subject, space: space.space == "activation" and space.codec is None,
    ),
}


@dataclass(frozen=True)
class Needs:
    """What has to be there before an eraser can start."""

    found: Found = "nothing"
    """What `found` must hold."""
    optional: bool = False
    """Whether it can find that by itself, so that `found` may be empty."""
    answers: bool = False
    """Whether fit prompts of the concept, of its lists `sources`, must have answers in words."""
    anchor: bool = False
    """Whether the concept must have anchor prompts; not where an option `guide` says what stands in for it."""
    examples: bool = False
    """Whether the concept must have example pictures."""

    def words(self) -> tuple[str, ...]:
        """What it can't start without, a word or two each."""
        found = () if self.found == "nothing" or self.optional else (self.found.replace("_", " "),)
        return (*found, *(name for name in ("answers", "anchor", "examples") if getattr(self, name)))


NOTHING = Needs()
