"""Parameters: what the concept vectors do when they alone are put back into the erased weights.

It says whether they are where the concept was, so it has no index.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from concept_probe.auditing.context import Context
from concept_probe.auditing.evidence.cut import cut, whole_weight
from concept_probe.auditing.evidence.finding import Evidence, Measure, Metric, compare
from concept_probe.auditing.evidence.parameters import VECTORS, vector_pairs, vectors_found
from concept_probe.auditing.evidence.patching import detected
from concept_probe.erasers.erasure.provenance import content_hash
from concept_probe.evaluation.rates import per_fact
from concept_probe.families.state import swapped
from concept_probe.types import Site, Subspace

if TYPE_CHECKING:
    from concept_probe.families import Subject

PUT_BACK = Metric("parameters", "detection with the concept vectors alone put back", "none", "rate")


def _vectors_put_back(context: Context) -> Evidence:
    pairs, queries = vector_pairs(context), context.questions.patched()
    after, what = context.arms.after, "What the concept vectors do when put back alone"
    if pairs.untouched or not queries:
        return Evidence(not_measured=(f"{what}: the erasure did not change them.",))
    if any(after.subject.matrix(site).shape != original.shape for site, original in pairs.originals.items()):
        return Evidence(not_measured=(f"{what}: the weights have another shape now.",))
    generator = torch.Generator().manual_seed(context.plan.seed)
    random = [_random_like(f, pairs.originals[whole_weight(f.site)], generator) for f in pairs.found]

    def hits_with(chosen: Sequence[Subspace]) -> Tensor:
        with after.on(), put_back(after.subject, pairs.originals, chosen):
            answers = after.subject.generate(list(queries), context.questions.sampling)
        context.cache.answers += len(queries)
        return detected(context, answers, queries)

    rates = []
    for i, chosen in enumerate((pairs.found, random)):
        vectors = [content_hash(f) for f in chosen]
        key = context.questions.key(after, f"put back {vectors} of {context.arms.before.state}")
        hits = context.cache.get(key, lambda chosen=chosen: hits_with(chosen))
        rates.append(context.rate(hits, "put back", f"put back {i}"))
    start = per_fact(context.seen.after.hits("target")[: len(queries), :1], [q.prompt for q in queries])
    erased = context.rate(start, "put back", "after")
    control, note = "random vectors put back", "before: with none put back"
    return Evidence((compare(PUT_BACK, "target", erased, rates[0], rates[1], control=control, note=note),))


@contextlib.contextmanager
def put_back(subject: Subject, originals: Mapping[Site, Tensor], found: Sequence[Subspace]) -> Iterator[None]:
    """The vectors `found` as they were, in an otherwise erased subject; every byte comes back afterwards."""

    def restored(of: Subspace) -> tuple[torch.nn.Parameter, Tensor]:
        parameter, turned = subject.parameter(of.site), subject.orientation(of.site) == "in_out"
        now = parameter.data.mT if turned else parameter.data
        new = now + cut(now, of).part(originals[whole_weight(of.site)].to(now) - now)
        return parameter, new.mT.contiguous() if turned else new

    with swapped(restored(of) for of in found):  # one by one: two vectors of one weight add up
        yield


def _random_like(of: Subspace, weight: Tensor, generator: torch.Generator) -> Subspace:
    """As many random directions on the same side of the same weight."""
    noise = torch.randn(cut(weight, of).basis.shape, generator=generator)
    return Subspace(whole_weight(of.site), noise, "parameter", of.score, of.concept, of.role)


def most_put_back(context: Context, known: Context | None) -> int:
    """With the vectors and with random ones."""
    return 2 * len(context.questions.patched()) if vectors_found(context) else 0


VECTORS_PUT_BACK = Measure(
    "vectors put back", _vectors_put_back, needs=(VECTORS,), asks=("target",), asks_itself=most_put_back
)
