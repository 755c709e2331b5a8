"""How deep the erasure cuts: the erased text activations, put into the subject as it was, layer by layer.

As in the Unlearning Depth Score (arXiv 2605.24614), with what is answered in place of probabilities.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from concept_probe.activations import tap
from concept_probe.auditing.arm import Arm, Memory
from concept_probe.auditing.evidence.behaviour import Evidence, Views
from concept_probe.auditing.observe import Places
from concept_probe.evaluation.bayesian import Draws, residual_index
from concept_probe.evaluation.rates import per_fact, succeeded
from concept_probe.evaluation.trials import judge_answers
from concept_probe.types import Finding, Moment, Prompt, Query, Site, TraceMap

if TYPE_CHECKING:
    from concept_probe.families import Subject

MOST = 12
"""Answers per level, at most."""
States = dict[Site, tuple[Tensor, ...]]
"""Activations per site and prompt, (t, d) each."""


def levels(sites: Places, subject: Subject) -> list[tuple[Site, ...]]:
    """Text-stream sites by depth: with two encoders, the sites at the same relative depth go together."""
    by: dict[str, list[Site]] = {}
    stream = streams(subject)
    for site in sites.text:
        if site in stream:
            by.setdefault(site.component, []).append(site)
    count = max((len(v) for v in by.values()), default=0)
    return [tuple(v[math.ceil((i + 1) * len(v) / count) - 1] for v in by.values()) for i in range(count)]


def text_states(
    subject: Subject, prompts: Sequence[Prompt], sites: Sequence[Site]
) -> dict[Site, tuple[Float[Tensor, "t d"], ...]]:
    """Whole activations of text sites, one (t, d) per prompt, without positions that only fill the batch."""
    parts: dict[Site, dict[int, Tensor]] = {site: {} for site in sites}

    def keep(site: Site) -> Callable[[Tensor, Moment], None]:
        def see(x: Tensor, moment: Moment) -> None:
            for row, i in enumerate(moment.prompts):
                parts[site][i] = x[row, read_at(moment, row)].detach()

        return see

    with torch.no_grad(), tap(subject, {s: keep(s) for s in sites}):
        subject.encode(list(prompts))
    return {site: tuple(rows[i] for i in range(len(prompts))) for site, rows in parts.items()}


def read_at(moment: Moment, row: int) -> slice | Tensor:
    """The positions of a row that hold its prompt."""
    return slice(None) if moment.places is None else moment.places[row] >= 0


def streams(subject: Subject) -> tuple[Site, ...]:
    """The sites of text that are met layer by layer: those of text encoders, or of a language model."""
    roles = subject.roles()
    return next((subject.sites(role) for role in ("text_stream", "resid") if role in roles), ())


def patched_queries(views: Views, most: int) -> tuple[Query, ...]:
    """Direct test prompts, first seed, at most `most`: what is asked of the subject with patched activations."""
    return tuple(Query(p, views.plan.seeds[0]) for p in views.plan.prompts("target")[:most])


def put(
    site_states: Mapping[Site, Sequence[Tensor]], queries: tuple[Query, ...]
) -> dict[Site, Callable[[Tensor, Moment], Tensor | None]]:
    """Taps that replace conditional rows by `site_states[site]`, (t, d) each, in the order of the queries' prompts.

    What is written after a prompt is left as it comes: it depends on the prompt through what was put in.
    """

    def replace_rows(states: Sequence[Tensor]):
        def fn(x: Tensor, moment: Moment) -> Tensor | None:
            if moment.step is not None and moment.places is not None:
                return None
            new = x.clone()
            for row, (i, branch) in enumerate(zip(moment.prompts, moment.branches, strict=True)):
                if branch == "cond":
                    new[row, read_at(moment, row)] = states[i].to(x)
            return new

        return fn

    return {site: replace_rows(states) for site, states in site_states.items()}


def restored(
    views: Views, arms: tuple[Arm, Arm, Arm | None], sites: Places, memory: Memory
) -> tuple[Evidence, TraceMap | None]:
    """Detection by the subject as it was, when it goes on from another arm's activations of one depth.

    All of it with the erased activations: up to there the erasure removed nothing that the rest of the
    model needs. The never-taught value is what the twin's activations give; without a twin, or where it
    has other shapes, how often the recogniser sees the concept where it was not asked for.
    """
    out = Evidence()
    before, _after, control = arms
    depths = levels(sites, before.subject)
    queries = patched_queries(views, MOST)
    if not depths or not queries:
        out.not_measured.append("How much erased activations carry, layer by layer: the subject has no text stream.")
        return out, None
    whole, erased, never_taught = (_states(arm, depths, queries) for arm in arms)
    asked = [q.prompt for q in queries]
    first = per_fact(views.before.hits("target")[: len(queries), :1], asked)
    start = views.rate(first, "patched", "before")
    table: dict[str, list[tuple[float, ...]]] = {"before": [], "after": [], "control": []}
    for of in depths:
        name = " + ".join(map(str, of))
        if not _fits(whole, erased, of):
            out.not_measured.append(
                f"What the erased activations of {name} carry: they have another shape than before."
            )
            continue

        def carried(states: States, arm: str, of: tuple[Site, ...] = of, name: str = name) -> Draws:
            if all(same(states[s], whole[s]) for s in of):
                return start

            def hits() -> Tensor:
                return per_fact(_ask(views, before, {s: states[s] for s in of}, queries), asked)

            if arm == "control" and control is not None:
                key = views.plan.key(control, f"patched at {name} into {before.state}")
                return views.rate(memory.get(key, hits), "patched", f"{arm} {name}")
            return views.rate(hits(), "patched", f"{arm} {name}")

        drawn = carried(erased, "after")
        never, control_name = views.mistakes(), "mistakes of the recogniser on other concepts"
        if control is not None and _fits(whole, never_taught, of):
            control_name = "activations of the never-taught twin"
            alike = all(same(never_taught[s], erased[s]) for s in of)
            never = drawn if alike else carried(never_taught, "control")
        score = residual_index(
            f"behaviour carried by the erased activations of {name}", start, drawn, never, views.thresholds.gap
        )
        unchanged = "the erasure changes nothing up to here" if drawn is start else ""
        low, high = drawn.interval()
        out.findings.append(
            Finding(
                evidence="representation",
                metric="detection, continued by the subject as it was",
                split=name,
                before=start.value,
                after=drawn.value,
                control=never.value,
                low=low,
                high=high,
                n=drawn.n,
                better="lower",
                index=score,
                control_name=control_name,
                unit="rate",
                note=unchanged if score else "before − control is too small",
            )
        )
        for arm, value in (("before", start), ("after", drawn), ("control", never)):
            table[arm].append((value.value,))
        if score:
            out.indices.append(score)
    rows = tuple(f.split for f in out.findings)
    cells = {arm: tuple(values) for arm, values in table.items()}
    name = "detection, continued from erased activations"
    return out, TraceMap(name, rows, ("target",), cells["before"], cells["after"], cells["control"], "rate")


def _states(arm: Arm | None, depths: list[tuple[Site, ...]], queries: tuple[Query, ...]) -> States:
    """Activations of an arm at all depths that it has."""
    if arm is None:
        return {}
    stream = streams(arm.subject)
    sites = [s for of in depths for s in of if s in stream]
    with arm.on():
        return text_states(arm.subject, [q.prompt for q in queries], sites)


def same(a: Sequence[Tensor], b: Sequence[Tensor]) -> bool:
    """Whether all rows are the same to the bit."""
    return len(a) == len(b) and all(map(torch.equal, a, b))


def _fits(whole: States, states: States, of: tuple[Site, ...]) -> bool:
    return all(s in states and [x.shape for x in states[s]] == [x.shape for x in whole[s]] for s in of)


def _ask(views: Views, arm: Arm, states: States, queries: tuple[Query, ...]) -> Tensor:
    with arm.on(), tap(arm.subject, put(states, queries)):
        answers = arm.subject.generate(list(queries), views.plan.sampling)
    trials = judge_answers(views.plan.recogniser, answers, queries, views.plan.label)
    return torch.tensor([[float(succeeded(t))] for t in trials])
