"""Parameters: how much of every concept vector is left, and what it does when it is put back alone."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from concept_probe.auditing.arm import Arm
from concept_probe.auditing.evidence.behaviour import Evidence, Views
from concept_probe.auditing.evidence.patching import patched_queries
from concept_probe.auditing.evidence.promoted_tokens import tokens
from concept_probe.evaluation.bayesian import Draws, residual_index
from concept_probe.evaluation.rates import per_fact, succeeded
from concept_probe.evaluation.trials import judge_answers
from concept_probe.families.state import swapped
from concept_probe.types import Finding, Site, Subspace

if TYPE_CHECKING:
    from concept_probe.families import Subject

MOST = 12
"""Pictures for vectors put back, and as many for random ones."""


@dataclass(frozen=True, eq=False)
class Cut:
    """How a subspace cuts a weight (d_out, d_in): its part is W D Eᵀ where D is made of inputs, else E Dᵀ W."""

    basis: Float[Tensor, "d k"]
    dual: Float[Tensor, "d k"]
    inputs: bool

    def vectors(self, weight: Tensor) -> Float[Tensor, "d k"]:
        """W D, or Wᵀ D: one vector per direction."""
        return weight @ self.basis if self.inputs else weight.mT @ self.basis

    def part(self, weight: Tensor) -> Tensor:
        """The part of a weight that runs along the subspace; it has the shape of the weight."""
        if self.inputs:
            return (weight @ self.basis) @ self.dual.mT
        return self.dual @ (self.basis.mT @ weight)


def cut(weight: Tensor, of: Subspace) -> Cut:
    """A column is an input direction; a basis of width d_in is made of inputs too, one of width d_out of outputs.

    Raises ValueError for a column or a basis that does not fit.
    """
    d_out, d_in = weight.shape
    columns = (of.site.item,) if of.site.item is not None else of.features
    if columns:
        if max(columns) >= d_in:
            raise ValueError(f"{of.site}: column {max(columns)} of a weight of {d_in} columns")
        picked = torch.eye(d_in, dtype=weight.dtype, device=weight.device)[:, list(columns)]
        return Cut(picked, picked, True)
    if of.basis.shape[0] not in (d_in, d_out):
        raise ValueError(f"{of.site}: a basis of width {of.basis.shape[0]} fits no side of a weight {d_out} x {d_in}")
    inputs = of.basis.shape[0] == d_in
    if of.dual is not None:
        return Cut(of.basis.to(weight), of.dual.to(weight), inputs)
    basis = torch.linalg.qr(of.basis.double())[0].to(weight)
    return Cut(basis, basis, inputs)


@contextlib.contextmanager
def put_back(subject: Subject, originals: dict[Site, Tensor], found: Sequence[Subspace]) -> Iterator[None]:
    """The vectors `found` as they were, in an otherwise erased subject; every byte comes back afterwards."""

    def restored(of: Subspace) -> tuple[torch.nn.Parameter, Tensor]:
        parameter, turned = subject.parameter(of.site), subject.orientation(of.site) == "in_out"
        now = parameter.data.mT if turned else parameter.data
        new = now + cut(now, of).part(originals[_whole(of.site)].to(now) - now)
        return parameter, new.mT.contiguous() if turned else new

    with swapped(restored(of) for of in found):  # one by one: two vectors of one weight add up
        yield


def parameters(views: Views, arms: tuple[Arm, Arm, Arm | None], found: Sequence[Subspace]) -> Evidence:
    """Cosine, relative L2 and retained share of every concept vector; detection when they alone are put back."""
    out = Evidence()
    vectors = [f for f in found if f.space == "parameter"]
    if not vectors:
        out.not_measured.append(
            "Parameters: no concept vectors were given (`found=`, `--found`), so none could be looked for."
        )
        return out
    before, after, control = arms
    originals = {_whole(f.site): before.subject.matrix(f.site).detach().clone() for f in vectors}
    first = [_vectors(originals[_whole(f.site)], f) for f in vectors]
    with after.on():
        second = [_vectors(after.subject.matrix(f.site), f) for f in vectors]
        beside = [
            _beside(originals[_whole(f.site)], after.subject.matrix(f.site).detach(), f, vectors) for f in vectors
        ]
    third = None if control is None else [_vectors(control.subject.matrix(f.site), f) for f in vectors]
    untouched = all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    kept = [_retained(a, b) for a, b in zip(first, second, strict=True)]
    if third is not None:
        baseline = [_retained(a, b) for a, b in zip(first, third, strict=True)]
    else:
        baseline = [_of_others(originals[_whole(f.site)], a, f) for f, a in zip(vectors, first, strict=True)]
    _changes(
        out,
        views,
        vectors,
        list(zip(first, second, strict=True)),
        beside if third is None else list(zip(first, third, strict=True)),
    )
    tokens(out, views, before, after, vectors)
    start = Draws(1.0, torch.ones(views.bootstrap.resamples, dtype=torch.float64), sum(len(k) for k in kept))
    now, never = _share(views, kept), _share(views, baseline)
    score = residual_index("concept vectors left in the weights", start, now, never, views.thresholds.gap)
    name = "never-taught twin" if control else "other vectors of the same weights"
    out.findings.append(
        Finding(
            "parameters",
            "share of the concept vectors left",
            f"{now.n} vectors",
            1.0,
            now.value,
            never.value,
            *now.interval(),
            now.n,
            "lower",
            score,
            name,
            "share",
            "the erasure leaves these weights as they were" if untouched else "",
        )
    )
    if score:
        out.indices.append(score)
    _causal(out, views, after, originals, vectors, untouched)
    return out


def _retained(a: Tensor, b: Tensor) -> Tensor:
    """Per vector, ⟨b, a⟩ / ⟨a, a⟩ clipped to 0..1: 1 as it was, 0 gone or turned away. (k,)"""
    a, b = a.double(), b.double()
    if a.shape != b.shape:
        return torch.zeros(a.shape[1], dtype=torch.float64)
    return ((a * b).sum(0) / a.square().sum(0).clamp_min(1e-30)).clamp(0, 1)


def _of_others(weight: Tensor, a: Tensor, of: Subspace) -> Tensor:
    """What `_retained` gives for vectors of the same weight that were not found, (k,) means over some of them."""
    others, _ = _beside(weight, weight, of, [of])
    return torch.stack([_retained(v.unsqueeze(1).expand_as(others), others).mean() for v in a.mT])


def _beside(
    weight: Tensor, now: Tensor, of: Subspace, found: Sequence[Subspace], count: int = 64
) -> tuple[Tensor, Tensor]:
    """At most `count` vectors of the weight of `of` that are not in `found`, as they were and as they are, (d, m) each."""
    side = cut(weight, of).inputs
    rows, after = (weight.mT, now.mT) if side else (weight, now)
    cuts = [cut(weight, f) for f in found if _whole(f.site) == _whole(of.site)]
    taken = torch.stack([c.basis.abs().amax(1) for c in cuts if c.inputs == side]).amax(0)
    free = torch.arange(len(rows), device=weight.device)[taken < 0.5][:count]
    return rows[free].mT, (after[free.to(after.device)] if now.shape == weight.shape else rows[free]).mT


def _share(views: Views, kept: Sequence[Tensor]) -> Draws:
    """The mean over vectors. They are all there are and each is measured exactly: only their choice is drawn."""
    values = torch.cat(list(kept)).to("cpu")
    weights = views.bootstrap.weights("vectors", len(values))
    return Draws(float(values.mean()), (weights @ values) / weights.sum(1), len(values))


Pairs = Sequence[tuple[Tensor, Tensor]]
"""Vectors (d, k) as they were and as they are, per subspace."""


def _changes(out: Evidence, views: Views, vectors: Sequence[Subspace], pairs: Pairs, controls: Pairs) -> None:
    """Cosine and relative L2 of every subspace's vectors; the twin's, or those that were not found, are the control."""
    name = "never-taught twin" if views.control else "other vectors of the same weights"
    for of, pair, beside in zip(vectors, pairs, controls, strict=True):
        fits = len(beside[0]) == len(beside[1]) and beside[0].numel()
        for metric, measure, start in (("cosine with before", cosine, 1.0), ("relative L2 from before", moved, 0.0)):
            values = measure(*pair).to("cpu")
            low, high = views.bootstrap.mean(values, f"{of.site}/{metric}")
            out.findings.append(
                Finding(
                    evidence="parameters",
                    metric=metric,
                    split=str(of.site),
                    before=start,
                    after=float(values.mean()),
                    control=float(measure(*beside).mean()) if fits else None,
                    low=low,
                    high=high,
                    n=len(values),
                    control_name=name if fits else "",
                )
            )


def cosine(a: Float[Tensor, "d k"], b: Float[Tensor, "d k"]) -> Float[Tensor, "k"]:
    """Of each column with the one that it has become; 0 where one of them is 0."""
    a, b = a.double(), b.double().to(a.device)
    norms = torch.linalg.vector_norm(a, dim=0) * torch.linalg.vector_norm(b, dim=0)
    return (a * b).sum(0) / norms.clamp_min(1e-30)


def moved(a: Float[Tensor, "d k"], b: Float[Tensor, "d k"]) -> Float[Tensor, "k"]:
    """How far each column went, in units of its length before."""
    a, b = a.double(), b.double().to(a.device)
    return torch.linalg.vector_norm(a - b, dim=0) / torch.linalg.vector_norm(a, dim=0).clamp_min(1e-30)


def _causal(
    out: Evidence, views: Views, after: Arm, originals: dict[Site, Tensor], vectors: Sequence[Subspace], untouched: bool
) -> None:
    """Detection with the vectors alone put back; it says whether they are where the concept was, so it has no residual_index."""
    queries = patched_queries(views, MOST)
    if untouched or not queries:
        out.not_measured.append("What the concept vectors do when put back alone: the erasure did not change them.")
        return
    if any(after.subject.matrix(site).shape != original.shape for site, original in originals.items()):
        out.not_measured.append("What the concept vectors do when put back alone: the weights have another shape now.")
        return
    generator = torch.Generator().manual_seed(views.bootstrap.seed)
    rates = []
    with after.on():
        for chosen in (vectors, [_random_like(f, originals[_whole(f.site)], generator) for f in vectors]):
            with put_back(after.subject, originals, chosen):
                answers = after.subject.generate(list(queries), views.plan.sampling)
            trials = judge_answers(views.plan.recogniser, answers, queries, views.plan.label)
            hits = per_fact(torch.tensor([[float(succeeded(t))] for t in trials]), [q.prompt for q in queries])
            rates.append(views.rate(hits, "put back", f"put back {len(rates)}"))
    start = per_fact(views.after.hits("target")[: len(queries), :1], [q.prompt for q in queries])
    erased = views.rate(start, "put back", "after")
    low, high = rates[0].interval()
    out.findings.append(
        Finding(
            evidence="parameters",
            metric="detection with the concept vectors alone put back",
            split="target",
            before=erased.value,
            after=rates[0].value,
            control=rates[1].value,
            low=low,
            high=high,
            n=rates[0].n,
            control_name="random vectors put back",
            unit="rate",
            note="before: with none put back",
        )
    )


def _random_like(of: Subspace, weight: Tensor, generator: torch.Generator) -> Subspace:
    """As many random directions on the same side of the same weight."""
    noise = torch.randn(cut(weight, of).basis.shape, generator=generator)
    return Subspace(_whole(of.site), noise, "parameter", of.score, of.concept, of.role)


def _vectors(weight: Tensor, of: Subspace) -> Tensor:
    weight = weight.detach()
    return cut(weight, of).vectors(weight)


def _whole(site: Site) -> Site:
    return Site(site.component, site.path, site.side)
