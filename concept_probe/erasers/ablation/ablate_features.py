"""Ablate the features of a sparse autoencoder while the subject runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from concept_probe.erasers.eraser import Eraser
from concept_probe.erasers.erasure.intervention import Change, Intervention
from concept_probe.erasers.needs import Needs
from concept_probe.families import Subject
from concept_probe.find.features.contrast import mean_firing
from concept_probe.find.layout import after_first, back, has_tokens, last, token_mask
from concept_probe.find.removals import removal_of
from concept_probe.types import TOKEN_KINDS, Codes, Concept, Moment, Site, SparseCoder, Subspace


@dataclass(frozen=True, eq=False)
class OnlyTypical:
    """What features are elsewhere, of which their mean firing on the concept is known alone."""

    firing: Tensor
    """(m,)"""

    def typical(self) -> Tensor:
        return self.firing

    def mean(self) -> Tensor:
        raise RuntimeError("ablate_features knows how features fire on the concept, and nothing of other prompts")

    spread = another = normal = mean


@dataclass(frozen=True)
class AblateFeatures(Eraser[Subject, Intervention]):
    """Where a feature of the concept fires, take out what it writes.

    In texts that are read forward the first token is left alone, as `find_features` leaves it out.

    >>> guard = AblateFeatures(strength=2.0, error="drop")(subject, concept, found)
    """

    name = "ablate_features"
    makes = "guard"
    on = "both"
    needs = Needs(found="features")
    aims = "prompts"
    origin = "ours"
    strength: float = 1.0
    """Factor on what is taken out; above 1 the feature is pushed below zero."""
    error: Literal["keep", "drop"] = "keep"
    """The part x - x̂ that the autoencoder does not explain: `keep` adds it back, so that only the
    features' own contribution changes; `drop` puts the edited reconstruction in place of rows where one
    of the features fires, and leaves all other rows alone."""
    tokens: tuple[str, ...] = TOKEN_KINDS
    """Kinds of token that are acted on, at sites that have tokens. `subject` alone relies on the prompt
    saying which of its words name the subject: a user or an attacker will not."""
    mode: Literal["zero", "clamp"] = "zero"
    """`zero` sets a firing feature to 0; `clamp` to `gamma` times its mean firing on the concept."""
    gamma: float = -1.0
    """For `clamp`: negative pushes away from the concept, as in SAeUron (arXiv 2501.18052)."""
    threshold: float = 0.0
    """A feature counts as firing above this share of its mean firing on the concept."""

    def make(self, subject: Subject, concept: Concept, found: tuple[Subspace, ...]) -> Intervention:
        """`found`: Subspaces of `find_features`, one or several per site. ValueError for two autoencoders at one site."""
        by_site: dict[Site, tuple[SparseCoder, list[int]]] = {}
        for space in found:
            assert space.codec is not None
            codec, features = by_site.setdefault(space.site, (space.codec, []))
            if codec is not space.codec:
                raise ValueError(f"two autoencoders at {space.site}: ablate the features of one at a time")
            features += [j for j in space.features if j not in features]
        actions = {}
        for site, (codec, features) in by_site.items():
            if not features:
                continue
            removal = removal_of(self.mode, gamma=self.gamma)
            typical = torch.zeros(len(features))
            if removal.reads == "own" or self.threshold > 0:
                typical = mean_firing(codec, subject, concept, features).float()
            tokens = self.tokens if has_tokens(subject, site) else TOKEN_KINDS
            goal = removal.coefficients(torch.zeros_like(typical), OnlyTypical(typical))
            actions[site] = self._action(codec, features, goal, typical * self.threshold, tokens)
        features = {str(site): list(map(int, chosen)) for site, (_, chosen) in by_site.items()}
        return self.guard(concept, actions, features=features)

    def _action(
        self, codec: SparseCoder, features: Sequence[int], goal: Tensor, floor: Tensor, tokens: Sequence[str]
    ) -> Change:
        place = torch.full((codec.width,), -1)
        place[list(features)] = torch.arange(len(features))
        rows = codec.decoder.detach()[list(features)]

        def change(x: Tensor, moment: Moment) -> Tensor | None:
            flat = last(x)
            codes = codec.encode(flat)
            spot = place.to(codes.indices.device)[codes.indices]
            ours = spot >= 0
            least = floor.to(codes.values)[spot.clamp_min(0)]
            fires = ours & (codes.values > least)
            for mask in (token_mask(x, moment, tokens), after_first(x, moment)):
                fires = fires if mask is None else fires & mask
            if not fires.any():
                return None
            target = goal.to(codes.values)[spot.clamp_min(0)]
            shift = torch.where(fires, target - codes.values, 0)
            if self.error == "keep":
                compact = Codes(shift, torch.where(ours, spot, len(features))).dense(len(features) + 1)[..., :-1]
                return back(codes.in_row_units(compact @ rows.to(compact)).to(x.dtype))
            edited = codec.decode(replace(codes, values=codes.values + shift)).to(x.dtype)
            return back(torch.where(fires.any(-1, keepdim=True), edited - flat, 0))

        return change
