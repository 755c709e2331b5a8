"""How deep the erasure of a language model cuts: its erased activations, put into every block of the model as it was.

As in the Unlearning Depth Score (arXiv 2605.24614), with the likelihood of the answer's first token: one pass per block.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from concept_probe.activations import tap
from concept_probe.auditing.arm import Arm
from concept_probe.auditing.evidence.behaviour import Evidence, Views
from concept_probe.auditing.evidence.patching import patched_queries, put, same, streams, text_states
from concept_probe.detect.answers import continuation
from concept_probe.evaluation.rates import per_fact
from concept_probe.families import CausalLMSubject
from concept_probe.types import Finding, Prompt, Site, TraceMap, evenly_with_ends

PROMPTS, BLOCKS = 8, 16
"""At most so many prompts are read, and so many blocks patched, evenly apart."""
METRIC = "depth: share of the answer's likelihood lost to erased activations, mean over blocks"


def depth(views: Views, arms: tuple[Arm, Arm, Arm | None]) -> tuple[Evidence, TraceMap | None]:
    """Per block, the probability of the answer's first token when the subject before goes on from erased activations.

    The share that is lost, 1 - patched / before in 0..1, is averaged over blocks: 1 would be an erasure that the very
    first block shows, 0 one that no block does. The last block is the erased model itself, but for the unembedding.
    Control: the twin's activations; without a twin, a random change of the activations, as large at every token.
    """
    out = Evidence()
    before, after, control = arms
    queries = tuple(q for q in patched_queries(views, PROMPTS) if q.prompt.answers)
    subject = before.subject
    if not isinstance(subject, CausalLMSubject) or not views.plan.reads or not queries:
        return out, None
    prompts, sites = [q.prompt for q in queries], evenly_with_ends(streams(subject), BLOCKS)
    with before.on():
        whole, start = text_states(subject, prompts, sites), first_token(subject, prompts)
    erased = _of(after, prompts, sites)
    twin = None if control is None else _of(control, prompts, sites)
    if not _fit(whole, erased):
        out.not_measured.append(
            "How deep the erasure cuts, block by block: its activations have another shape than before."
        )
        return out, None
    generator = torch.Generator().manual_seed(views.bootstrap.seed)
    patched: dict[str, list[Tensor]] = {"after": [], "control": []}
    known = twin is not None and _fit(whole, twin)
    with before.on():
        for site in sites:
            other = twin[site] if twin is not None and known else as_large(whole[site], erased[site], generator)
            for arm, states in (("after", erased[site]), ("control", other)):
                if same(states, whole[site]):
                    patched[arm].append(start)
                    continue
                with tap(subject, put({site: states}, queries)):
                    patched[arm].append(first_token(subject, prompts))
    lost = {arm: per_fact(share_lost(start, torch.stack(of, 1)), prompts) for arm, of in patched.items()}
    alike = known and all(same(erased[s], twin[s]) for s in sites if twin is not None)
    mean, never = (
        views.rate(lost[arm].mean(1, keepdim=True), "depth", "after" if alike else arm) for arm in ("after", "control")
    )
    by_site = lost["after"].mean(0)
    half = next((str(s) for s, share in zip(sites, by_site.tolist(), strict=True) if share >= 0.5), None)
    low, high = mean.interval()
    out.findings.append(
        Finding(
            evidence="representation",
            metric=METRIC,
            split=f"{len(sites)} blocks",
            before=0.0,
            after=mean.value,
            control=never.value,
            low=low,
            high=high,
            n=mean.n,
            better="higher",
            control_name="activations of the never-taught twin" if known else "a random change as large",
            unit="share",
            note=f"half of it is lost from {half} on" if half else "no block's activations lose half of it",
        )
    )
    rows = tuple(map(str, sites))
    table = {arm: tuple((float(p.mean()),) for p in of) for arm, of in patched.items()}
    name = "probability of the answer's first token, continued from erased activations"
    return out, TraceMap(
        name, rows, ("target",), ((float(start.mean()),),) * len(rows), table["after"], table["control"], "probability"
    )


def first_token(subject: CausalLMSubject, prompts: Sequence[Prompt]) -> Tensor:
    """(n,) probability, float64, on the CPU, that a prompt goes on with the first token of one of its answers."""
    starts = [{subject.spelled_after(p, continuation(p, a))[0] for a in p.answers} for p in prompts]
    with torch.no_grad():
        said = subject.next_logits(prompts).double().softmax(-1).cpu()
    return torch.stack([row[sorted(ids)].sum() for row, ids in zip(said, starts, strict=True)])


def share_lost(start: Tensor, patched: Tensor) -> Tensor:
    """(n, sites) 1 - patched / start, clipped to 0..1, of (n,) and (n, sites) probabilities."""
    return (1 - patched / start[:, None].clamp_min(1e-12)).clamp(0, 1)


def as_large(whole: Sequence[Tensor], erased: Sequence[Tensor], generator: torch.Generator) -> tuple[Tensor, ...]:
    """(t, d) activations changed at random, at each token by as much as the erasure changed it."""
    out = []
    for a, b in zip(whole, erased, strict=True):
        noise = torch.randn(a.shape, generator=generator).to(a.device, torch.float32)
        size = torch.linalg.vector_norm((b - a).float(), dim=-1, keepdim=True)
        out.append((a.float() + noise * size / torch.linalg.vector_norm(noise, dim=-1, keepdim=True)).to(a))
    return tuple(out)


def _of(arm: Arm, prompts: Sequence[Prompt], sites: Sequence[Site]) -> Mapping[Site, tuple[Tensor, ...]]:
    own = set(streams(arm.subject))
    with arm.on():
        return text_states(arm.subject, prompts, [s for s in sites if s in own])


def _fit(whole: Mapping[Site, tuple[Tensor, ...]], states: Mapping[Site, tuple[Tensor, ...]]) -> bool:
    return all(s in states and [x.shape for x in states[s]] == [x.shape for x in whole[s]] for s in whole)
