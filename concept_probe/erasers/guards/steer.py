"""Concept Steerers: subtract, place by place, what a concept's own text writes in features (arXiv 2501.19066)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from concept_probe.activations import read_states
from concept_probe.erasers.eraser import Eraser
from concept_probe.erasers.erasure.intervention import Change, Intervention
from concept_probe.erasers.guards.autoencoders import codecs_of
from concept_probe.erasers.guards.naming import text_naming
from concept_probe.erasers.needs import Needs
from concept_probe.erasers.published import Published
from concept_probe.families import DiffusionSubject
from concept_probe.types import BOS, Codes, Concept, Moment, Prompt, Site, SparseCoder, Subspace


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
        {"strength": 0.5, "all_features": True, "bos": True, "mirror": True},
        apart="the autoencoder is over the tenth layer; a strength of 0.5 is that of one of the experiments",
    )
    text: str | None = None
    """The concept's text; None: the first name in its target prompts (fit split)."""
    strength: float = 1.0
    """λ: factor on what is subtracted."""
    all_features: bool = False
    """Whether every feature counts that the text reads above 0, as published, and not only those that the autoencoder lets
    fire, of a TopK one the k largest."""
    bos: bool = False
    """Whether the beginning token is moved too, as published; it is the same for every prompt."""
    mirror: bool = False
    """Whether the empty prompt of guidance is led the other way, as published, so that guidance leads away twice."""

    def make(self, subject: DiffusionSubject, concept: Concept, found: tuple[Subspace, ...]) -> Intervention:
        """`found`: Subspaces with an autoencoder over a text site. ValueError for two at one."""
        text = text_naming(concept, None, self.name).split(", ")[0] if self.text is None else self.text
        codecs = codecs_of(found, self.name)
        written = read_states(subject, [Prompt(text)], list(codecs))
        actions: dict[Site, Change] = {}
        for site, codec in codecs.items():
            codes = self._codes(codec, written[site][0])
            vectors = codes.in_row_units(codes.dense(codec.width) @ codec.decoder.detach().to(codes.values))
            component = list(subject.text.encoders).index(site.component)
            kinds = subject.tokenise([Prompt(text)]).kinds_of[component][0].to(vectors.device)
            if not self.bos:
                vectors[kinds == BOS] = 0
            actions[site] = _action(vectors, -1.0 if self.mirror else 0.0)
        return self.guard(concept, actions, options={"text": text})

    def _codes(self, codec: SparseCoder, x: Tensor) -> Codes:
        """Codes of rows (t, d) as the autoencoder gives them, or of all features that read above 0."""
        codes = codec.encode(x)
        if not self.all_features:
            return codes
        read = getattr(codec, "pre_activations", None)
        if read is None:
            raise ValueError(
                f"steer: all_features needs what each feature reads, and a {type(codec).__name__} over {codec.site} says only "
                "which fire; leave all_features out"
            )
        values = read(x).relu()
        return Codes(values, torch.arange(codec.width, device=values.device).expand_as(values), codes.units)


def _action(vectors: Tensor, of_empty: float) -> Change:
    """Subtract `vectors` (t, d) from conditional rows, and `of_empty` times as much from the empty prompt of guidance."""

    def change(x: Tensor, moment: Moment) -> Tensor | None:
        shares = {"cond": 1.0, "uncond": of_empty}
        share = torch.tensor([shares.get(branch, 0.0) for branch in moment.branches], device=x.device)
        if not share.any():
            return None
        return -vectors.to(x) * share[:, None, None].to(x)

    return change
