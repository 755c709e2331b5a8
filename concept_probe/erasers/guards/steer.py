"""Concept Steerers: subtract, place by place, what a concept's own text writes in features (arXiv 2501.19066)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from concept_probe.activations import read_states
from concept_probe.erasers.eraser import Eraser, Needs
from concept_probe.erasers.erasure.intervention import Change, Intervention
from concept_probe.erasers.guards.autoencoders import codecs_of
from concept_probe.erasers.guards.naming import text_naming
from concept_probe.erasers.published import Published
from concept_probe.families import DiffusionSubject
from concept_probe.types import BOS, Concept, Moment, Prompt, Site, Subspace


@dataclass(frozen=True)
class Steer(Eraser[DiffusionSubject, Intervention]):
    """Turn the text states away from the features that the concept's name has at the same place.

    >>> guard = Steer(strength=0.8)(subject, concept, found)
    """

    name = "steer"
    makes = "guard"
    on = "pictures"
    needs = Needs(found="text_features")
    aims = "text"
    origin = "published"
    authors = Published(
        {"strength": 0.5},
        apart="the autoencoder is over the tenth layer; a strength of 0.5 is that of one of the experiments",
    )
    text: str | None = None
    """The concept's text; None: the first name in its target prompts (fit split)."""
    strength: float = 1.0
    """λ: factor on what is subtracted."""

    def make(self, subject: DiffusionSubject, concept: Concept, found: tuple[Subspace, ...]) -> Intervention:
        """`found`: Subspaces with an autoencoder over a text site. ValueError for two at one."""
        text = text_naming(concept, self.text, self.name).split(", ")[0]
        codecs = codecs_of(found, self.name)
        written = read_states(subject, [Prompt(text)], list(codecs))
        actions: dict[Site, Change] = {}
        for site, codec in codecs.items():
            codes = codec.encode(written[site][0])
            vectors = codes.in_row_units(codes.dense(codec.width) @ codec.decoder.detach().to(codes.values))
            component = list(subject.text.encoders).index(site.component)
            kinds = subject.tokenise([Prompt(text)]).kinds_of[component][0].to(vectors.device)
            vectors[kinds == BOS] = 0  # a beginning token is the same for every prompt
            actions[site] = _action(vectors)
        return self.guard(concept, actions, options={"text": text})


def _action(vectors: Tensor) -> Change:
    """Subtract `vectors` (t, d) from conditional rows; the empty prompt of guidance stays what it is."""

    def change(x: Tensor, moment: Moment) -> Tensor | None:
        asked = torch.tensor([branch == "cond" for branch in moment.branches], device=x.device)
        if not asked.any():
            return None
        return -vectors.to(x) * asked[:, None, None].to(x)

    return change
