"""Concept Steerers: subtract, place by place, what a concept's own text writes in features (arXiv 2501.19066)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from concept_probe.erasers.closed_form.value_offsets import streams_of
from concept_probe.erasers.erasure.intervention import Change, Intervention
from concept_probe.erasers.erasure.provenance import made_by
from concept_probe.erasers.guards.negative_prompt import named
from concept_probe.find.layout import has_tokens
from concept_probe.types import Codec, Concept, Moment, Prompt, Site, Subspace

if TYPE_CHECKING:
    from concept_probe.families import Subject


def codecs_of(found: Sequence[Subspace], subject: Subject, method: str) -> dict[Site, Codec]:
    """The autoencoders that `found` was found with, one per text site. ValueError where there is none, or two at one."""
    out: dict[Site, Codec] = {}
    for space in found:
        if space.codec is None or not (subject.is_text(space.site) and has_tokens(subject, space.site)):
            continue
        if out.setdefault(space.site, space.codec) is not space.codec:
            raise ValueError(f"{method}: two autoencoders at {space.site}: use one at a time")
    if not out:
        raise ValueError(
            f"{method} needs features of a sparse autoencoder over text tokens; {len(found)} subspaces were given, none "
            "with one. find_features makes them"
        )
    return out


@dataclass(frozen=True)
class Steer:
    """Turn the text states away from the features that the concept's name has at the same place.

    >>> guard = Steer(strength=0.8)(subject, concept, found)
    """

    name: ClassVar[str] = "steer"
    text: str | None = None
    """The concept's text; None: the first name in its target prompts (fit split)."""
    strength: float = 1.0
    """λ: factor on what is subtracted."""

    def __call__(self, subject: Subject, concept: Concept, found: Sequence[Subspace] = ()) -> Intervention:
        """`found`: Subspaces with an autoencoder over a text site. ValueError where there is none."""
        text = named(concept, self.text, self.name).split(", ")[0]
        codecs = codecs_of(found, subject, self.name)
        written = streams_of(subject, list(codecs), [Prompt(text)])
        actions: dict[Site, Change] = {}
        for site, codec in codecs.items():
            codes = codec.encode(written[site][0])
            vectors = codes.dense(codec.width) @ codec.decoder.detach().to(codes.values)
            vectors[0] = 0  # the beginning token is the same for every prompt
            actions[site] = _action(vectors)
        origin = made_by(self, subject, concept)
        origin["options"]["text"] = text
        return Intervention(self.name, concept.name, actions, self.strength, origin)


def _action(vectors: Tensor) -> Change:
    """Subtract `vectors` (t, d) from conditional rows; the empty prompt of guidance stays what it is."""

    def change(x: Tensor, moment: Moment) -> Tensor | None:
        asked = torch.tensor([branch == "cond" for branch in moment.branches], device=x.device)
        if not asked.any():
            return None
        return -vectors.to(x) * asked[:, None, None].to(x)

    return change
