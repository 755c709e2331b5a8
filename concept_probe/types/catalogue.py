"""What a feature browser shows: features of one autoencoder, and the prompts on which they fire."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from concept_probe.types.evidence import Score


@dataclass(frozen=True)
class Example:
    """A prompt on which a feature fires, and where."""

    prompt: str
    firing: float
    """The largest value of the feature in this prompt."""
    tokens: tuple[tuple[str, float], ...] = ()
    """Pieces of the prompt as they are read, each with the feature's value there; empty at sites of a picture."""
    patches: tuple[tuple[float, ...], ...] = ()
    """At sites of a picture: the feature's mean value over denoising steps at each row and column."""
    png: bytes | None = field(default=None, repr=False)
    """What the subject draws for the prompt; None where it was not asked to."""


@dataclass(frozen=True)
class FeatureEntry:
    """One feature."""

    index: int
    frequency: float
    """Share of rows on which it fires."""
    strongest: float
    """Its largest value on any row."""
    prefers: str
    """The label whose prompts it fires on most, chosen on one half of the prompts; empty without labels."""
    selectivity: Score | None
    """AUROC of that label against all others on the other half of the prompts."""
    names: tuple[tuple[str, float], ...]
    """Labels whose mean activation lies in the direction that the feature writes, with the cosine; nearest first."""
    examples: tuple[Example, ...]
    """Strongest first."""


@dataclass(frozen=True)
class Catalogue:
    """Features of one autoencoder, chosen and described on a list of prompts."""

    subject: str
    site: str
    width: int
    """Features of the autoencoder, f."""
    features: tuple[FeatureEntry, ...]
    frequencies: tuple[float, ...]
    """Of all f features, the share of rows on which each fires."""
    prompts: int
    rows: int
    chosen_by: str
    """In words, why these features are here."""
    names_control: float | None = None
    """Cosine with its nearest name that 97.5 % of random directions stay under; None without names."""
    provenance: Mapping[str, str] = field(default_factory=dict)
