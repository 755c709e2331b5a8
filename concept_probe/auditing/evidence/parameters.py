"""Parameters: how much of every concept vector is left in the weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from concept_probe.auditing.arm import Arm
from concept_probe.auditing.context import Context
from concept_probe.auditing.evidence.cut import cut, whole_weight
from concept_probe.auditing.evidence.finding import Evidence, Measure, Metric, Need, compare, mean_estimate
from concept_probe.evaluation.bayesian import Draws, residual_index
from concept_probe.types import Site, Subspace

COSINE = Metric("parameters", "cosine with before", "none")
RELATIVE_L2 = Metric("parameters", "relative L2 from before", "none")
SHARE_LEFT = Metric("parameters", "share of the concept vectors left", "lower", "share")
OTHER_VECTORS = 64
"""Vectors of the same weight, at most, that concept vectors are compared with where there is no twin."""
VectorPair = tuple[Float[Tensor, "d k"], Float[Tensor, "d k"]]
"""Vectors as they were and as they are."""


def vectors_found(context: Context) -> list[Subspace]:
    """What was found in weights."""
    return [f for f in context.found if f.space == "parameter"]


VECTORS = Need(
    lambda context: bool(vectors_found(context)),
    "Parameters: no concept vectors were given (`found=`, `--found`), so none could be looked for.",
)


@dataclass(frozen=True, eq=False)
class VectorPairs:
    """Concept vectors before and after, one entry per subspace."""

    found: Sequence[Subspace]
    originals: dict[Site, Float[Tensor, "d_out d_in"]]
    """The weights that they are of, whole, as they were."""
    changed: Sequence[VectorPair]
    """By the erasure."""
    never: Sequence[VectorPair]
    """The same vectors of the twin; without one, vectors of the same weights that were not found, after the erasure."""

    @property
    def untouched(self) -> bool:
        """Whether the erasure leaves them as they were, to the bit."""
        return all(torch.equal(a, b) for a, b in self.changed)


def vector_pairs(context: Context) -> VectorPairs:
    """What became of the concept vectors."""
    found, arms = vectors_found(context), context.arms
    originals = {whole_weight(f.site): arms.before.subject.matrix(f.site).detach().clone() for f in found}
    first = [_vectors(originals[whole_weight(f.site)], f) for f in found]
    with arms.after.on():
        second = _vectors_of(arms.after, found)
        others = [
            _others(originals[whole_weight(f.site)], arms.after.subject.matrix(f.site).detach(), f, found)
            for f in found
        ]
    third = None if arms.control is None else _vectors_of(arms.control, found)
    never = others if third is None else list(zip(first, third, strict=True))
    return VectorPairs(found, originals, list(zip(first, second, strict=True)), never)


def _vectors_of(arm: Arm, found: Sequence[Subspace]) -> list[Tensor]:
    return [_vectors(arm.subject.matrix(f.site), f) for f in found]


def _vectors(weight: Tensor, of: Subspace) -> Tensor:
    weight = weight.detach()
    return cut(weight, of).vectors(weight)


def _others(weight: Tensor, now: Tensor, of: Subspace, found: Sequence[Subspace]) -> VectorPair:
    """Some vectors of the weight of `of` that are not in `found`."""
    side = cut(weight, of).inputs
    rows, after = (weight.mT, now.mT) if side else (weight, now)
    cuts = [cut(weight, f) for f in found if whole_weight(f.site) == whole_weight(of.site)]
    taken = torch.stack([c.basis.abs().amax(1) for c in cuts if c.inputs == side]).amax(0)
    free = torch.arange(len(rows), device=weight.device)[taken < 0.5][:OTHER_VECTORS]
    return rows[free].mT, (after[free.to(after.device)] if now.shape == weight.shape else rows[free]).mT


def _vector_changes(context: Context) -> Evidence:
    """Cosine and relative L2 of every subspace's vectors; the twin's, or those that were not found, are the control."""
    pairs = vector_pairs(context)
    name = "never-taught twin" if context.has_twin else "other vectors of the same weights"
    findings = []
    for of, pair, others in zip(pairs.found, pairs.changed, pairs.never, strict=True):
        fits = len(others[0]) == len(others[1]) and others[0].numel()
        for metric, measure, start in ((COSINE, column_cosine, 1.0), (RELATIVE_L2, column_distance, 0.0)):
            values = measure(*pair).to("cpu")
            after = mean_estimate(context, values, f"{of.site}/{metric.name}")
            never, control = (float(measure(*others).mean()), name) if fits else (None, "")
            findings.append(compare(metric, str(of.site), start, after, never, control=control))
    return Evidence(tuple(findings))


def column_cosine(a: Float[Tensor, "d k"], b: Float[Tensor, "d k"]) -> Float[Tensor, "k"]:
    """Of each column with the one that it has become; 0 where one of them is 0."""
    a, b = a.double(), b.double().to(a.device)
    norms = torch.linalg.vector_norm(a, dim=0) * torch.linalg.vector_norm(b, dim=0)
    return (a * b).sum(0) / norms.clamp_min(1e-30)


def column_distance(a: Float[Tensor, "d k"], b: Float[Tensor, "d k"]) -> Float[Tensor, "k"]:
    """How far each column went, in units of its length before."""
    a, b = a.double(), b.double().to(a.device)
    return torch.linalg.vector_norm(a - b, dim=0) / torch.linalg.vector_norm(a, dim=0).clamp_min(1e-30)


def _vectors_left(context: Context) -> Evidence:
    """The share of every concept vector that is left, ⟨b, a⟩ / ⟨a, a⟩ of a before and b after."""
    pairs = vector_pairs(context)
    kept = [share_left(a, b) for a, b in pairs.changed]
    if context.has_twin:
        never, control = [share_left(a, b) for a, b in pairs.never], "never-taught twin"
    else:
        control = "other vectors of the same weights"
        never = [
            _share_of_others(pairs.originals[whole_weight(f.site)], a, f)
            for f, (a, _) in zip(pairs.found, pairs.changed, strict=True)
        ]
    count = sum(len(k) for k in kept)
    start = context.bootstrap.certain(1.0, count)
    now, chance = _mean(context, kept), _mean(context, never)
    index = residual_index("concept vectors left in the weights", start, now, chance, context.gap)
    note = "the erasure leaves these weights as they were" if pairs.untouched else ""
    where = f"{now.n} vectors"
    return Evidence((compare(SHARE_LEFT, where, start, now, chance, control=control, index=index, note=note),))


def share_left(a: Float[Tensor, "d k"], b: Float[Tensor, "d k"]) -> Float[Tensor, "k"]:
    """Per vector, ⟨b, a⟩ / ⟨a, a⟩ clipped to 0..1: 1 as it was, 0 gone or turned away."""
    a, b = a.double(), b.double()
    if a.shape != b.shape:
        return torch.zeros(a.shape[1], dtype=torch.float64)
    return ((a * b).sum(0) / a.square().sum(0).clamp_min(1e-30)).clamp(0, 1)


def _share_of_others(weight: Tensor, a: Tensor, of: Subspace) -> Tensor:
    """(k,) `share_left` of vectors of the same weight that were not found, mean over them."""
    others, _ = _others(weight, weight, of, [of])
    return torch.stack([share_left(v.unsqueeze(1).expand_as(others), others).mean() for v in a.mT])


def _mean(context: Context, kept: Sequence[Tensor]) -> Draws:
    """The mean over vectors. They are all there are and each is measured exactly: only their choice is drawn."""
    return context.bootstrap.share(torch.cat(list(kept)).to("cpu"), "vectors")


VECTOR_CHANGES = Measure("vector changes", _vector_changes, needs=(VECTORS,))
VECTORS_LEFT = Measure("vectors left", _vectors_left, needs=(VECTORS,))
