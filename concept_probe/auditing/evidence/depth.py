"""How deep the erasure of a language model cuts: its erased activations, put into every block of the model as it was.

As in the Unlearning Depth Score (arXiv 2605.24614), with the likelihood of the answer's first token: one pass per block.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from concept_probe.activations import read_texts, tap
from concept_probe.auditing.context import Context
from concept_probe.auditing.evidence.finding import Evidence, Measure, Metric, compare
from concept_probe.auditing.places import text_stream
from concept_probe.auditing.states import PromptStates, fit_into, identical, putting, states_of_arm
from concept_probe.detect.answers import continuation
from concept_probe.evaluation.rates import per_fact
from concept_probe.families import CausalLMSubject
from concept_probe.types import Prompt, Query, TraceMap, evenly_with_ends

MOST_PROMPTS, MOST_BLOCKS = 8, 16
"""At most so many prompts are read, and so many blocks patched, evenly apart."""
DEPTH = Metric(
    "representation",
    "depth: share of the answer's likelihood lost to erased activations, mean over blocks",
    "higher",
    "share",
)


def _depth(context: Context) -> Evidence:
    """Per block, the probability of the answer's first token when the subject before goes on from erased activations.

    The share that is lost, 1 - patched / before in 0..1, is averaged over blocks: 1 would be an erasure that the very
    first block shows, 0 one that no block does. The last block is the erased model itself, but for the unembedding.
    Control: the twin's activations; without a twin, a random change of the activations, as large at every token.
    """
    before, after, control = context.arms.before, context.arms.after, context.arms.control
    queries = tuple(q for q in context.questions.patched(MOST_PROMPTS) if q.prompt.answers)
    subject = before.subject
    if not isinstance(subject, CausalLMSubject) or not queries:
        return Evidence()
    prompts, sites = [q.prompt for q in queries], evenly_with_ends(text_stream(subject), MOST_BLOCKS)
    with before.on():
        whole, start = read_texts(subject, prompts, sites), first_token(subject, prompts)
    erased = states_of_arm(after, prompts, sites)
    if not fit_into(erased, whole, sites):
        missing = "How deep the erasure cuts, block by block: its activations have another shape than before."
        return Evidence(not_measured=(missing,))
    untaught = None if control is None else states_of_arm(control, prompts, sites)
    known = untaught is not None and fit_into(untaught, whole, sites)
    if untaught is None or not known:
        generator = torch.Generator().manual_seed(context.plan.seed)
        untaught = {site: as_large(whole[site], erased[site], generator) for site in sites}
    with before.on():
        patched, never = (_patched(subject, of, whole, start, queries) for of in (erased, untaught))
    lost, lost_never = (per_fact(share_lost(start, torch.stack(of, 1)), prompts) for of in (patched, never))
    alike = known and all(identical(erased[s], untaught[s]) for s in sites)
    now = context.rate(lost.mean(1, keepdim=True), "depth", "after")
    chance = context.rate(lost_never.mean(1, keepdim=True), "depth", "after" if alike else "control")
    half = next((str(s) for s, share in zip(sites, lost.mean(0).tolist(), strict=True) if share >= 0.5), None)
    return Evidence(
        (
            compare(
                DEPTH,
                f"{len(sites)} blocks",
                0.0,
                now,
                chance,
                control="activations of the never-taught twin" if known else "a random change as large",
                note=f"half of it is lost from {half} on" if half else "no block's activations lose half of it",
            ),
        ),
        traces=(
            TraceMap(
                "probability of the answer's first token, continued from erased activations",
                tuple(map(str, sites)),
                ("target",),
                ((float(start.mean()),),) * len(sites),
                tuple((float(p.mean()),) for p in patched),
                tuple((float(p.mean()),) for p in never),
                "probability",
            ),
        ),
    )


def _patched(
    subject: CausalLMSubject, states: PromptStates, whole: PromptStates, start: Tensor, queries: Sequence[Query]
) -> list[Float[Tensor, "n"]]:
    """Probability of the answer's first token when the subject goes on from `states` of one site after the other."""
    out = []
    for site in whole:
        if identical(states[site], whole[site]):
            out.append(start)
            continue
        with tap(subject, putting({site: states[site]}, queries)):
            out.append(first_token(subject, [q.prompt for q in queries]))
    return out


def first_token(subject: CausalLMSubject, prompts: Sequence[Prompt]) -> Float[Tensor, "n"]:
    """Probability, float64, on the CPU, that a prompt goes on with the first token of one of its answers."""
    starts = [{subject.spelled_after(p, continuation(p, a))[0] for a in p.answers} for p in prompts]
    with torch.no_grad():
        probabilities = subject.next_logits(prompts).double().softmax(-1).cpu()
    return torch.stack([row[sorted(ids)].sum() for row, ids in zip(probabilities, starts, strict=True)])


def share_lost(start: Float[Tensor, "n"], patched: Float[Tensor, "n sites"]) -> Float[Tensor, "n sites"]:
    """1 - patched / start, clipped to 0..1, of probabilities."""
    return (1 - patched / start[:, None].clamp_min(1e-12)).clamp(0, 1)


def as_large(whole: Sequence[Tensor], erased: Sequence[Tensor], generator: torch.Generator) -> tuple[Tensor, ...]:
    """(t, d) activations changed at random, at each token by as much as the erasure changed it."""
    out = []
    for a, b in zip(whole, erased, strict=True):
        noise = torch.randn(a.shape, generator=generator).to(a.device, torch.float32)
        size = torch.linalg.vector_norm((b - a).float(), dim=-1, keepdim=True)
        out.append((a.float() + noise * size / torch.linalg.vector_norm(noise, dim=-1, keepdim=True)).to(a))
    return tuple(out)


DEPTH_OF_ERASURE = Measure("depth", _depth, on="texts", asks=("target",))
