"""How deep the erasure cuts: the erased text activations, put into the subject as it was, layer by layer.

As in the Unlearning Depth Score (arXiv 2605.24614), with what is answered in place of probabilities.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from concept_probe.activations import tap
from concept_probe.auditing.arm import Arm
from concept_probe.auditing.context import Context
from concept_probe.auditing.evidence.finding import Evidence, Measure, Metric, Need, compare, joined_evidence
from concept_probe.auditing.places import Places, text_stream
from concept_probe.auditing.sides import Side, Sides
from concept_probe.auditing.states import PromptStates, fit_into, identical, putting, states_of_arm
from concept_probe.evaluation.bayesian import Draws, residual_index
from concept_probe.evaluation.rates import per_fact, succeeded
from concept_probe.evaluation.trials import judge_answers
from concept_probe.types import RETAIN_KINDS, Prompt, Query, Site, TraceMap

if TYPE_CHECKING:
    from concept_probe.families import Subject

CARRIED = Metric("representation", "detection, continued by the subject as it was", "lower", "rate")
TEXT_STREAM = Need(
    lambda context: bool(levels(context.places, context.arms.before.subject) and context.questions.patched()),
    "How much erased activations carry, layer by layer: the subject has no text stream.",
)
DepthLevel = tuple[Site, ...]
"""Sites at the same relative depth, one per text encoder."""


def levels(places: Places, subject: Subject) -> list[DepthLevel]:
    """Text-stream sites by depth: with two encoders, the sites at the same relative depth go together."""
    by: dict[str, list[Site]] = {}
    stream = text_stream(subject)
    for site in places.text:
        if site in stream:
            by.setdefault(site.component, []).append(site)
    count = max((len(v) for v in by.values()), default=0)
    return [tuple(v[math.ceil((i + 1) * len(v) / count) - 1] for v in by.values()) for i in range(count)]


def _patching(context: Context) -> Evidence:
    """Detection by the subject as it was, when it goes on from another arm's activations of one depth.

    All of it with the erased activations: up to there the erasure removed nothing that the rest of the
    model needs. Below everything that it changed there is nothing to go by, and no index. The never-taught
    value is what the twin's activations give; without a twin, or where it has other shapes, how often the
    recogniser sees the concept where it was not asked for.
    """
    depths = levels(context.places, context.arms.before.subject)
    queries = context.questions.patched()
    prompts = [q.prompt for q in queries]
    states = context.arms.map(lambda arm: states_of_arm(arm, prompts, [s for of in depths for s in of]))
    first = per_fact(context.seen.before.hits("target")[: len(queries), :1], prompts)
    start = context.rate(first, "patched", "before")
    parts: list[Evidence] = []
    rows: list[tuple[str, Sides[float]]] = []
    for level in depths:
        name = " + ".join(map(str, level))
        if not fit_into(states.after, states.before, level):
            missing = f"What the erased activations of {name} carry: they have another shape than before."
            parts.append(Evidence(not_measured=(missing,)))
            continue
        found = _at(context, level, states, queries, start)
        parts.append(found)
        rows += [(name, Sides(one.before, one.after, one.control)) for one in found.findings]
    return joined_evidence((*parts, _trace(rows)))


def _at(
    context: Context, level: DepthLevel, states: Sides[PromptStates], queries: Sequence[Query], start: Draws
) -> Evidence:
    """Going on from one depth; `start` is what the subject before answers when it goes on from its own."""
    name = " + ".join(map(str, level))
    whole, erased, untaught = states.before, states.after, states.control
    before, twin = context.arms.before, context.arms.control

    def alike(a: PromptStates, b: PromptStates) -> bool:
        return all(identical(a[s], b[s]) for s in level)

    def carried(of: PromptStates, side: Side) -> Draws:
        if alike(of, whole):
            return start

        arm = twin if side == "control" and twin is not None else context.arms.after
        key = context.questions.key_of_answers(arm, f"patched at {name} into {before.state}")
        known: dict[Query, float] = context.cache.get(key, dict)
        hits = _detected(context, before, {s: of[s] for s in level}, queries, known)
        return context.rate(hits, "patched", f"{side} {name}")

    after = carried(erased, "after")
    never: Draws | None
    if untaught is not None and fit_into(untaught, whole, level):
        control = "activations of the never-taught twin"
        never = after if alike(untaught, erased) else carried(untaught, "control")
    else:
        never, control = context.false_detection(), "mistakes of the recogniser on other concepts"
    if never is None:
        missing = f"What the erased activations of {name} carry: nothing is asked that tells the recogniser's mistakes."
        return Evidence(not_measured=(missing,))
    index, beside = None, all(context.beside(whole[s], erased[s]) for s in level)
    if not beside:
        index = residual_index(
            f"behaviour carried by the erased activations of {name}", start, after, never, context.gap
        )
    note = "" if index else context.no_index(beside=beside)
    return Evidence((compare(CARRIED, name, start, after, never, control=control, index=index, note=note),))


def _detected(
    context: Context, arm: Arm, states: PromptStates, queries: Sequence[Query], known: dict[Query, float]
) -> Tensor:  # fmt: skip
    """(facts, 1): whether the arm's answers show the concept when it goes on from `states`; those that are `known` are not
    asked for again, and what is asked for is."""
    new = [i for i, query in enumerate(queries) if query not in known]
    if new:
        some = {site: [of[i] for i in new] for site, of in states.items()}
        asked = [queries[i] for i in new]
        with arm.on(), tap(arm.subject, putting(some, asked)):
            answers = arm.subject.generate(asked, context.questions.sampling)
        context.cache.answers += len(asked)
        trials = judge_answers(context.questions.recogniser, answers, asked, context.questions.label)
        known.update(zip(asked, (float(succeeded(t)) for t in trials), strict=True))
    return per_fact(torch.tensor([[known[q]] for q in queries]), [q.prompt for q in queries])


def detected(context: Context, answers: Tensor | Sequence[str], queries: Sequence[Query]) -> Tensor:
    """(facts, 1): whether the answers show what their prompts are labelled with."""
    trials = judge_answers(context.questions.recogniser, answers, queries, context.questions.label)
    prompts: list[Prompt] = [q.prompt for q in queries]
    return per_fact(torch.tensor([[float(succeeded(t))] for t in trials]), prompts)


def _trace(rows: Sequence[tuple[str, Sides[float]]]) -> Evidence:
    """A row per depth."""
    return Evidence(
        traces=(
            TraceMap(
                "detection, continued from erased activations",
                tuple(name for name, _ in rows),
                ("target",),
                tuple((of.before,) for _, of in rows),
                tuple((of.after,) for _, of in rows),
                tuple((of.control,) for _, of in rows if of.control is not None),
                "rate",
            ),
        )
    )


def most_patched(context: Context, known: Context | None) -> int:
    """At every depth the erased arm's, and the twin's, for queries that were not patched before."""
    had = set() if known is None else set(known.questions.patched())
    new = [q for q in context.questions.patched() if q not in had]
    arms = 1 if context.arms.control is None else 2
    return len(levels(context.places, context.arms.before.subject)) * len(new) * arms


PATCHING = Measure(
    "patching", _patching, needs=(TEXT_STREAM,), asks=("target", *RETAIN_KINDS), asks_itself=most_patched
)
