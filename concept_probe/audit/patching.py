"""How deep the erasure cuts: the erased text activations, put into the subject as it was, layer by layer.

As in the Unlearning Depth Score (arXiv 2605.24614), with pictures in place of probabilities.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from concept_probe import detect
from concept_probe.attack.budget import succeeded
from concept_probe.audit.arms import Arm, Memory
from concept_probe.audit.bootstrap import Draws, index
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
    first = views.before.hits("target")[: len(queries), :1]
    start = views.rate(first, "patched", "before")
    table: dict[str, list[tuple[float, ...]]] = {"before": [], "after": [], "control": []}
    for of in depths:
        name = " + ".join(map(str, of))
        if not _fits(whole, erased, of):
            out.not_measured.append(
                f"What the erased activations of {name} carry: they have another shape than before."
            )
            continue

        def carried(states: dict[Site, Tensor], arm: str, of: tuple[Site, ...] = of, name: str = name) -> Draws:
            if all(torch.equal(states[s], whole[s]) for s in of):
                return start

            def hits() -> Tensor:
                return _ask(views, before, {s: states[s] for s in of}, queries)

            if arm == "control" and control is not None:
                key = views.plan.key(control, f"patched at {name} into {before.state}")
                return views.rate(memory.get(key, hits), "patched", f"{arm} {name}")
            return views.rate(hits(), "patched", f"{arm} {name}")

        drawn = carried(erased, "after")
        never, control_name = views.mistakes(), "mistakes of the recogniser on other concepts"
        if control is not None and _fits(whole, never_taught, of):
            control_name = "activations of the never-taught twin"
            same = all(torch.equal(never_taught[s], erased[s]) for s in of)
            never = drawn if same else carried(never_taught, "control")
        score = index(
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


def _states(arm: Arm | None, depths: list[tuple[Site, ...]], queries: tuple[Query, ...]) -> dict[Site, Tensor]:
    """Activations of an arm at all depths that it has."""
    if arm is None:
        return {}
    sites = [s for of in depths for s in of if s in arm.subject.sites("text_stream")]
    with arm.on():
        return text_states(arm.subject, [q.prompt for q in queries], sites)


def _fits(whole: dict[Site, Tensor], states: dict[Site, Tensor], of: tuple[Site, ...]) -> bool:
    return all(s in states and states[s].shape == whole[s].shape for s in of)


def _ask(views: Views, arm: Arm, states: dict[Site, Tensor], queries: tuple[Query, ...]) -> Tensor:
    with arm.on(), tap(arm.subject, put(states, queries)):
        images = arm.subject.generate(list(queries), views.plan.sampling)
    trials = detect.trials(views.plan.recogniser, images, queries, views.plan.label)
    return torch.tensor([[float(succeeded(t))] for t in trials])
