"""Where an audit looks inside a subject."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from concept_probe.erasers.erasure.provenance import content_hash
from concept_probe.types import Site, Subspace, evenly_with_ends

if TYPE_CHECKING:
    from concept_probe.families import Subject

TEXT_SITES, INNER_SITES, STEPS = 4, 3, 4
"""Layers of each text encoder, blocks of the denoiser, and denoising steps that are read, at most."""


@dataclass(frozen=True)
class Places:
    """Sites, steps and features that are looked at in every arm."""

    text: tuple[Site, ...]
    """Text-encoder sites, read at the end token by encoding alone."""
    inner: tuple[Site, ...]
    """Sites of the denoiser, read per step as means over patches (or over tokens)."""
    steps: tuple[int, ...]
    features: tuple[Subspace, ...] = field(default=(), compare=False)
    """Found features of sparse autoencoders whose firing is watched."""

    def key(self) -> str:
        """The same for the same places, and for features that are the same to the byte."""
        sites = [[str(site) for site in of] for of in (self.text, self.inner)]
        return f"{sites} {self.steps} {[(str(f.site), f.features, content_hash(f)) for f in self.features]}"


def places_in(subject: Subject, passes: int, found: Sequence[Subspace] = ()) -> Places:
    """Some layers of each text encoder and what the denoiser reads of them, some blocks of the denoiser, and features.

    Blocks are read in some of the `passes` of the denoiser, evenly apart, first and last included.
    """
    roles = subject.roles()
    layers: dict[str, list[Site]] = {}
    for site in text_stream(subject):
        layers.setdefault(site.component, []).append(site)
    chosen = [s for of in layers.values() for s in evenly_with_ends(of, TEXT_SITES)]
    chosen += [s for s in (subject.sites("text_out") if "text_out" in roles else ()) if s not in chosen]
    blocks = evenly_with_ends(subject.sites("block_out") if "block_out" in roles else (), INNER_SITES)
    watched = tuple(f for f in found if f.codec is not None and f.features)
    return Places(tuple(chosen), tuple(blocks), tuple(evenly_with_ends(range(passes), STEPS)), watched)


def text_stream(subject: Subject) -> tuple[Site, ...]:
    """The sites of text that are met layer by layer: those of text encoders, or of a language model."""
    roles = subject.roles()
    return next((subject.sites(role) for role in ("text_stream", "resid") if role in roles), ())
