"""PISCES: take a feature of an autoencoder out of the columns that write it (arXiv 2505.22586)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from concept_probe.activations import read_site
from concept_probe.arguments import Count
from concept_probe.erasers.ablation.found import Dictionary, dictionaries_of
from concept_probe.erasers.eraser import Eraser
from concept_probe.erasers.erasure.deltas import Columns, Delta, Sum
from concept_probe.erasers.erasure.edit import Edit
from concept_probe.erasers.erasure.parameters import address, dtype_of, find_parameter
from concept_probe.erasers.needs import Needs
from concept_probe.erasers.published import Published
from concept_probe.erasers.unlearning.activations import after_first_token
from concept_probe.families import CausalLMSubject
from concept_probe.find.language.writing import Writing
from concept_probe.find.rows import gather_prompts
from concept_probe.types import Codes, Concept, Site, SparseCoder, Subspace


@dataclass(frozen=True)
class Pisces(Eraser[CausalLMSubject, Edit]):
    """Columns that an autoencoder codes with a feature of the concept are written again without it.

    >>> edit = Pisces(tau=0.4, mu=1.0)(subject, concept, find_features(sae, subject, concept))
    """

    name = "pisces"
    makes = "edit"
    on = "texts"
    needs = Needs(found="features")
    aims = "prompts"
    origin = "published"
    authors = Published(
        {"length": "own", "signs": "positive", "by_reading": True, "mu": 1.0},
        apart="τ and μ are searched for each concept; features are read through the unembedding",
    )
    tau: float = 0.5
    """τ: a column is acted on where a feature's coefficient exceeds this share of its largest one over the matrix."""
    mu: float = 0.0
    """μ: what the coefficient becomes is -μ times that largest one; at 0 the feature is removed."""
    below: int = 0
    """For an autoencoder over `resid`: blocks below its own whose columns are coded, too."""
    length: Literal["site", "own"] = "site"
    """How long a column is when it is coded: `site`, as the site's activations are on average (what is written is scaled
    back); `own`, as it is. An autoencoder has learned offsets for the lengths that it was shown."""
    signs: Literal["both", "positive"] = "both"
    """Whether a column is also coded with its sign turned: coefficients of gated feed-forwards have either sign."""
    limit: Count | None = 32
    """Prompts of each list (fit split) that the mean length is measured on."""
    strength: float = 1.0
    """Factor on the change; at 0 nothing is coded."""
    by_reading: bool = False
    """Whether columns are chosen, and τ and μ meant, by what the encoder's own column of a feature reads of them, as published:
    of either sign, without bias or threshold. The feature then becomes -μ times the largest reading of all features in every
    such column, whether it was coded with it or not; `signs` says nothing then."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.tau < 1 or self.mu < 0 or self.below < 0:
            raise ValueError(
                f"pisces: tau is {self.tau}, mu {self.mu} and below {self.below}; tau lies in 0..1 without 1, the others "
                "are not negative"
            )

    def make(self, subject: CausalLMSubject, concept: Concept, found: tuple[Subspace, ...]) -> Edit:
        """`found`: features of `find_features` with their autoencoder, over `resid` or `mlp_out`.

        Raises ValueError for an autoencoder of another site or width, and where no column is coded with any feature.
        """
        chosen = dictionaries_of(subject, found, self.name)
        deltas: dict[str, Delta] = {}
        counts: dict[str, int] = {}
        for one in chosen if self.strength else ():
            norm = self._norm(subject, concept, one) if self.length == "site" else None
            lowest = max(one.block - self.below, 0) if one.role == "resid" else one.block
            for site in subject.sites("mlp_value")[lowest : one.block + 1]:
                delta = self._edited(subject, site, one, norm)
                counts[str(site)] = counts.get(str(site), 0) + len(delta.indices)
                if not delta.is_empty():
                    where = address(site)
                    deltas[where] = Sum((deltas[where], delta)) if where in deltas else delta
        if self.strength and not deltas:
            raise ValueError(
                f"pisces: no column of {', '.join(counts)} is coded with any of the features "
                f"{', '.join(str(d.features) for d in chosen)}; raise `below`, try the other `length`, or find others"
            )
        features = {str(d.codec.site): d.features for d in chosen}
        return self.edit(subject, concept, deltas, features=features, columns=counts)

    def _norm(self, model: CausalLMSubject, concept: Concept, one: Dictionary) -> float:
        """Mean length of the activations that the autoencoder reads, first tokens left out."""
        prompts = [p for _, p in gather_prompts(concept, "fit", limit=self.limit)]
        with torch.no_grad():
            parts = [read_site(model, one.codec.site, prompts[i : i + 32]) for i in range(0, len(prompts), 32)]
        rows = [torch.linalg.vector_norm(x[after_first_token(read)].float(), dim=-1) for x, read in parts]
        return float(torch.cat(rows).mean())

    @torch.no_grad()
    def _edited(self, model: CausalLMSubject, site: Site, one: Dictionary, norm: float | None) -> Columns:
        """What is added to the columns of one matrix; they are coded as they are written into the stream."""
        weight = model.matrix(site).detach()
        writing = Writing.of(model, site)
        rows = writing(weight.to(dtype_of(find_parameter(model.components, address(site))))).mT
        lengths = torch.linalg.vector_norm(rows, dim=1, keepdim=True).clamp_min(torch.finfo(rows.dtype).tiny)
        factor = torch.ones_like(lengths) if norm is None else norm / lengths
        if self.by_reading:
            change = self._reversed(one, factor * rows) / factor
            return self._columns(model, site, writing, weight, change)
        signs = (1, -1) if self.signs == "both" else (1,)
        coded = [(sign, one.codec.encode(sign * factor * rows)) for sign in signs]
        values = torch.stack([at_features(codes, one.features) for _, codes in coded])
        most = values.amax((0, 1)).clamp_min(0)
        change = torch.zeros_like(rows)
        for (sign, codes), own in zip(coded, values, strict=True):
            acted = (own > 0) & (own > self.tau * most)
            goal = torch.where(acted, -self.mu * most, own)
            change += sign * rewritten(one.codec, codes, one.features, goal).to(rows) / factor
        return self._columns(model, site, writing, weight, change)

    def _columns(
        self, model: CausalLMSubject, site: Site, writing: Writing, weight: Tensor, change: Tensor
    ) -> Columns:  # fmt: skip
        """Those of the changes (m, d) of a matrix's columns that are any."""
        touched = change.abs().amax(1).nonzero()[:, 0]
        edited = self.strength * writing.back(change[touched].mT)
        return Columns(touched, edited.contiguous(), weight.shape[1], model.orientation(site))

    def _reversed(self, one: Dictionary, rows: Tensor) -> Tensor:
        """What is added to coded rows (m, d) where the encoder reads a chosen feature of them."""
        read = getattr(one.codec, "pre_activations", None)
        if read is None:
            raise ValueError(
                f"pisces: by_reading needs what each feature reads, and a {type(one.codec).__name__} over {one.codec.site} says "
                "only which fire; leave by_reading out"
            )
        codes = one.codec.encode(rows)
        if codes.units is not None:
            raise ValueError(
                f"pisces: by_reading takes what a feature reads of a column as it is, and the autoencoder over {one.codec.site} "
                "brings each row to a length of its own first; leave by_reading out"
            )
        readings = (read(rows) - read(torch.zeros_like(rows[:1])))[:, one.features]
        sizes = readings.abs()
        acted = sizes > self.tau * sizes.amax(0)
        own = at_features(codes, one.features)
        change = torch.where(acted, -self.mu * sizes.max() - own, 0)
        return codes.in_row_units(change @ one.codec.decoder.detach()[one.features].to(change)).to(rows)


def at_features(codes: Codes, features: Sequence[int]) -> Tensor:
    """(n, m): coefficient of each chosen feature in each row, 0 where it does not fire."""
    return torch.stack([torch.where(codes.indices == j, codes.values, 0).sum(-1) for j in features], -1)


def rewritten(codec: SparseCoder, codes: Codes, features: Sequence[int], goal: Tensor) -> Tensor:
    """(n, d): x̂(edited codes) - x̂(codes), with the coefficient of feature i set to `goal` (n, m) where it fires.

    Added to x it gives the edited reconstruction with what the autoencoder leaves unexplained.
    """
    values = codes.values.clone()
    for i, j in enumerate(features):
        values = torch.where(codes.indices == j, goal[:, i, None], values)
    # A padded place names feature 0 with value 0: what does not fire is left alone.
    values = torch.where(codes.values == 0, codes.values, values)
    return codec.decode(replace(codes, values=values)) - codec.decode(codes)
