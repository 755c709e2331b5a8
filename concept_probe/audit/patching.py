"""How deep the erasure cuts: the erased text activations, put into the subject as it was, layer by layer.

As in the Unlearning Depth Score (arXiv 2605.24614), with pictures in place of probabilities.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from concept_probe import detect
from concept_probe.attack.budget import succeeded
from concept_probe.audit.arms import Arm
from concept_probe.audit.bootstrap import index
from concept_probe.audit.metrics import Evidence, Views
from concept_probe.audit.observe import Places
from concept_probe.capture import tap
from concept_probe.types import Finding, Moment, Prompt, Query, Site, TraceMap

if TYPE_CHECKING:
    from concept_probe.families import Subject

MOST = 12
"""Pictures per level, at most."""


def levels(sites: Places, subject: Subject) -> list[tuple[Site, ...]]:
    """Text-stream sites by depth: with two encoders, the sites at the same relative depth go together."""
    by: dict[str, list[Site]] = {}
    for site in sites.text:
        if site in subject.sites("text_stream"):
            by.setdefault(site.component, []).append(site)
    count = max((len(v) for v in by.values()), default=0)
    return [tuple(v[math.ceil((i + 1) * len(v) / count) - 1] for v in by.values()) for i in range(count)]


def text_states(
    subject: Subject, prompts: Sequence[Prompt], sites: Sequence[Site]
) -> dict[Site, Float[Tensor, "n t d"]]:
    """Whole activations of text sites."""
    parts: dict[Site, list[Tensor]] = {site: [] for site in sites}
    with torch.no_grad(), tap(subject, {s: lambda x, _, s=s: parts[s].append(x.detach()) for s in sites}):
        subject.encode(list(prompts))
    return {site: torch.cat(rows) for site, rows in parts.items()}


def patched_queries(views: Views, most: int) -> tuple[Query, ...]:
    """Direct test prompts, first seed, at most `most`: what is asked of the subject with patched activations."""
    return tuple(Query(p, views.plan.seeds[0]) for p in views.plan.prompts("target")[:most])


def put(site_states: dict[Site, Tensor], queries: tuple[Query, ...]) -> dict[Site, Callable[[Tensor, Moment], Tensor]]:
    """Taps that replace conditional rows by `site_states[site]`, (n, t, d) in the order of the queries' prompts."""

    def replace_rows(states: Tensor):
        def fn(x: Tensor, moment: Moment) -> Tensor:
            new = x.clone()
            for row, (i, branch) in enumerate(zip(moment.prompts, moment.branches, strict=True)):
                if branch == "cond":
                    new[row] = states[i].to(x)
            return new

        return fn

    return {site: replace_rows(states) for site, states in site_states.items()}


def restored(views: Views, before: Arm, after: Arm, sites: Places) -> tuple[Evidence, TraceMap | None]:
    """Detection by the subject as it was, when it goes on from the erased activations of one depth.

    All of it: up to there the erasure removed nothing that the rest of the model needs. The never-taught
    value is how often the recogniser sees the concept where it was not asked for.
    """
    out = Evidence()
    depths = levels(sites, before.subject)
    queries = patched_queries(views, MOST)
    if not depths or not queries:
        out.not_measured.append("How much erased activations carry, layer by layer: the subject has no text stream.")
        return out, None
    if any(s.component not in after.subject.components for of in depths for s in of):
        out.not_measured.append("How much erased activations carry: the subject before has other components.")
        return out, None
    prompts = [q.prompt for q in queries]
    every = [s for of in depths for s in of]
    with after.on():
        erased = text_states(after.subject, prompts, every)
    whole = text_states(before.subject, prompts, every)
    first = views.before.hits("target")[: len(queries), :1]
    never = views.mistakes()
    cells: list[tuple[float, ...]] = []
    start = views.rate(first, "patched", "before")
    for of in depths:
        name = " + ".join(map(str, of))
        if any(erased[s].shape != whole[s].shape for s in of):
            out.not_measured.append(f"What the erased activations of {name} carry: their shapes differ from before.")
            cells.append((float("nan"),))
            continue
        same = all(torch.equal(erased[s], whole[s]) for s in of)
        hits = first if same else _ask(views, before.on(), before, {s: erased[s] for s in of}, queries)
        drawn = views.rate(hits, "patched", f"after {name}")
        score = index(
            f"behaviour carried by the erased activations of {name}", start, drawn, never, views.thresholds.gap
        )
        note = "the erasure changes nothing up to here" if same else "" if score else "before − control is too small"
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
                control_name="mistakes of the recogniser on other concepts",
                unit="rate",
                note=note,
            )
        )
        cells.append((drawn.value,))
        if score:
            out.indices.append(score)
    rows = tuple(" + ".join(map(str, of)) for of in depths)
    before_cells, control = tuple((start.value,) for _ in rows), tuple((never.value,) for _ in rows)
    return out, TraceMap(
        "detection, continued from erased activations", rows, ("target",), before_cells, tuple(cells), control, "rate"
    )


def _ask(
    views: Views, on: AbstractContextManager, arm: Arm, states: dict[Site, Tensor], queries: tuple[Query, ...]
) -> Tensor:
    with on, tap(arm.subject, put(states, queries)):
        images = arm.subject.generate(list(queries), views.plan.sampling)
    trials = detect.trials(views.plan.recogniser, images, queries, views.plan.label)
    return torch.tensor([[float(succeeded(t))] for t in trials])
