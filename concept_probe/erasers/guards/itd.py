"""Interpret then deactivate: features that only the concept has, turned down where they matter (arXiv 2503.09446)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self

import torch
from jaxtyping import Float
from torch import Tensor

from concept_probe.arguments import Count
from concept_probe.erasers.eraser import Eraser
from concept_probe.erasers.erasure.intervention import Change, Intervention
from concept_probe.erasers.guards.autoencoders import codecs_of
from concept_probe.erasers.needs import Needs
from concept_probe.erasers.published import Published
from concept_probe.families import DiffusionSubject
from concept_probe.families.text.kinds import NAMED_KINDS
from concept_probe.find.features.contrast import prompt_firing
from concept_probe.find.layout import token_mask
from concept_probe.find.rows import concept_rows
from concept_probe.types import Concept, Moment, Site, SparseCoder, Subspace


def only_of(firing: Float[Tensor, "p f"], own: Tensor, top: int) -> list[int]:
    """Features among the `top` strongest of a prompt of the concept (`own`, bool (p,)), and of no other prompt."""
    best = firing.topk(min(top, firing.shape[1]), dim=1)
    of = [
        set(best.indices[i][best.values[i] > 0].tolist()) for i in range(len(firing))
    ]  # what doesn't fire belongs to nobody
    mine = set().union(*(s for s, o in zip(of, own.tolist(), strict=True) if o))
    return sorted(mine - set().union(*(s for s, o in zip(of, own.tolist(), strict=True) if not o)))


@dataclass(frozen=True)
class Itd(Eraser[DiffusionSubject, Intervention]):
    """Multiply the concept's own features, where leaving them out would change a token.

    >>> guard = Itd(top=16, factor=-4.0)(subject, concept, found)
    """

    name = "itd"
    makes = "guard"
    on = "pictures"
    needs = Needs(found="text_features")
    aims = "prompts"
    origin = "published"
    authors = Published({"factor": 0.0, "whole_prompt": True}, read_in="memory", apart="the threshold is set by hand")
    top: Count = 8
    """Strongest features of each prompt that count as its own."""
    factor: float = -2.0
    """What the concept's features are multiplied by: 0 leaves them out, below 0 turns them around."""
    threshold: float | None = None
    """τ: a token is edited where its edited reconstruction misses more than this share of |x|². None: what the
    share `quantile` of the tokens of other prompts (fit split) stay under."""
    quantile: float = 0.99
    """Share of the tokens of other prompts that stay as they are."""
    error: Literal["keep", "drop"] = "drop"
    """What the autoencoder does not explain: `drop`, as in the paper, puts the edited reconstruction in a token's
    place; `keep` changes the features' own contribution alone."""
    strength: float = 1.0
    """Factor on the change."""
    whole_prompt: bool = False
    """Whether the gate is of a prompt, as published: all tokens of one that misses more than τ, together, are edited."""

    @classmethod
    def tiny(cls) -> Self:
        return cls(quantile=0.0, top=8)

    def make(self, subject: DiffusionSubject, concept: Concept, found: tuple[Subspace, ...]) -> Intervention:
        """`found`: Subspaces with an autoencoder over a text site. ValueError where no feature is the concept's alone."""
        actions: dict[Site, Change] = {}
        features, thresholds = {}, {}
        for site, codec in codecs_of(found, self.name).items():
            rows = concept_rows(subject, concept, [site], "fit")[site]
            firing, own = prompt_firing(codec, rows, torch.arange(codec.width))
            chosen = only_of(firing, own, self.top)
            if not chosen:
                continue
            least = self.threshold
            if least is None:
                others = misses(codec, rows.x[~rows.concept], chosen, self.factor)
                if self.whole_prompt:
                    others = shares_of_prompts(others, rows.x[~rows.concept], rows.prompt[~rows.concept])
                least = float(others.quantile(self.quantile)) if len(others) < 2**24 else float(others.max())
            actions[site] = self._action(codec, chosen, least)
            features[str(site)], thresholds[str(site)] = chosen, least
        if not actions:
            raise ValueError(
                f"itd: every one of the {self.top} strongest features of {concept.name!r}'s prompts is one of another "
                "prompt's too; try a smaller `top`, or a wider autoencoder"
            )
        return self.guard(concept, actions, features=features, thresholds=thresholds)

    def _action(self, codec: SparseCoder, chosen: Sequence[int], least: float) -> Change:
        def change(x: Tensor, moment: Moment) -> Tensor | None:
            edited, plain, fires = reconstructed(codec, x, chosen, self.factor)
            words = token_mask(x, moment, NAMED_KINDS)
            sizes, missed = x.square().sum(-1), (x - edited).square().sum(-1)
            if self.whole_prompt:
                read = torch.ones_like(sizes, dtype=torch.bool) if words is None else words[..., 0]
                sizes, missed = (torch.where(read, y, 0).sum(-1, keepdim=True) for y in (sizes, missed))
                fires = (fires & read).any(-1, keepdim=True).expand(x.shape[:-1])
            share = missed / sizes.clamp_min(torch.finfo(x.dtype).tiny)
            here = (fires & (share > least)).unsqueeze(-1)
            here = here if words is None else here & words
            if not here.any():
                return None
            return torch.where(here, edited - (x if self.error == "drop" else plain), 0)

        return change


def reconstructed(
    codec: SparseCoder, x: Float[Tensor, "... d"], chosen: Sequence[int], factor: float
) -> tuple[Tensor, Tensor, Tensor]:
    """x̂ with the chosen features times `factor`, x̂ as it is, and which rows have one that fires (...)."""
    codes = codec.encode(x)
    ours = torch.isin(codes.indices, torch.tensor(list(chosen), device=codes.indices.device)) & (codes.values != 0)
    turned = codec.decode(replace(codes, values=torch.where(ours, factor * codes.values, codes.values)))
    return turned.to(x.dtype), codec.decode(codes).to(x.dtype), ours.any(-1)


@torch.no_grad()
def misses(codec: SparseCoder, x: Float[Tensor, "n d"], chosen: Sequence[int], factor: float) -> Float[Tensor, "n"]:
    """|x - x̃|² / |x|² of each row, x̃ the edited reconstruction."""
    parts = []
    for part in x.split(8192):
        edited, _, _ = reconstructed(codec, part, chosen, factor)
        parts.append((part - edited).square().sum(-1) / part.square().sum(-1).clamp_min(torch.finfo(x.dtype).tiny))
    return torch.cat(parts)


def shares_of_prompts(missed: Float[Tensor, "n"], x: Float[Tensor, "n d"], prompt: Tensor) -> Float[Tensor, "p"]:
    """Σ|x - x̃|² / Σ|x|² over the rows of each prompt, from the share of each row and the `prompt` (n,) that it is of."""
    _, where = prompt.unique(return_inverse=True)
    sizes, count = x.square().sum(-1), int(where.max()) + 1
    lost, whole = (y.new_zeros(count).index_add(0, where, y) for y in (missed * sizes, sizes))
    return lost / whole.clamp_min(torch.finfo(x.dtype).tiny)
