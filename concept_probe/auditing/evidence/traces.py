"""Representation: where in the model the concept can still be read, and how far the erased activations carry it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from concept_probe.auditing.arm import Arm
from concept_probe.auditing.evidence.behaviour import Evidence, Views
from concept_probe.auditing.evidence.patching import streams
from concept_probe.auditing.evidence.probing import Rows, compare, made_up, mean_of
from concept_probe.auditing.observe import Observation, Places
from concept_probe.evaluation.bayesian import Draws, residual_index
from concept_probe.types import (
    FORGET_KINDS,
    JUDGED_KINDS,
    RETAIN_KINDS,
    Finding,
    Kind,
    Prompt,
    Site,
    TraceMap,
    evenly_with_ends,
)

if TYPE_CHECKING:
    from concept_probe.families import Subject

TRANSFER = "other words: fitted on some names and descriptions, read from others"
DIRECT = "same words: prompts that name it, in other sentences"


def places(subject: Subject, steps: int, *, text: int = 4, inner: int = 3, at: int = 4) -> Places:
    """Text sites (at most `text` layers of each encoder, and what the denoiser reads) and denoiser blocks to look at.

    Denoiser blocks are read at `at` steps, evenly apart, first and last included.
    """
    roles = subject.roles()
    layers: dict[str, list[Site]] = {}
    for site in streams(subject):
        layers.setdefault(site.component, []).append(site)
    chosen = [s for of in layers.values() for s in evenly_with_ends(of, text)]
    chosen += [s for s in (subject.sites("text_out") if "text_out" in roles else ()) if s not in chosen]
    blocks = evenly_with_ends(list(subject.sites("block_out")) if "block_out" in roles else [], inner)
    return Places(tuple(chosen), tuple(blocks), tuple(evenly_with_ends(range(steps), at)))


def probes(views: Views, before: Arm, sites: Places) -> tuple[Evidence, list[TraceMap]]:
    """Held-out AUROC of probes at every place, before, after and on the control; own probes, and those of before.

    A probe is fitted on each model's own activations. It is read on words that it was not fitted on,
    since the words of a prompt can be read from any model that was given it.
    """
    out = Evidence()
    plan = views.plan
    if not (plan.prompts("paraphrases") or plan.prompts("implicit")):
        out.not_measured.append(
            "Whether the concept is read in other words: it has no paraphrases or implicit prompts."
        )
        return out, []
    if not any(plan.prompts(k) for k in RETAIN_KINDS):
        out.not_measured.append("Whether the concept can be read: there are no other prompts to tell it from.")
        return out, []
    maps = [_text(out, views, before, sites), _inner(out, views, sites)]
    if not out.indices:
        out.not_measured.append(
            "A representation index of probes: at no place can the concept be read at least "
            f"{views.thresholds.gap:g} better before than in the control, so what is read there can be words alone."
        )
    return out, [m for m in maps if m is not None]


def _text(out: Evidence, views: Views, before: Arm, sites: Places) -> TraceMap | None:
    if not sites.text:
        return None
    table: dict[str, list[tuple[float, ...]]] = {"before": [], "after": [], "control": []}
    unknown = made_up(views, before, sites.text) if views.control is None else {}
    for site in sites.text:
        others = _text_rows(views, views.before, site, FORGET_KINDS[1:])
        made = None
        if site in unknown:
            fit, held, named = unknown[site]
            made = (fit, others[1], held, others[3]), (named, _asked(views, RETAIN_KINDS))
        asked = _asked(views, FORGET_KINDS[1:]), _asked(views, RETAIN_KINDS)
        own = compare(
            views, f"text/{site}", lambda o, site=site: _text_rows(views, o, site, FORGET_KINDS[1:]), asked, made
        )
        _report(out, views, str(site), TRANSFER, own)
        if site == sites.text[-1]:
            asked = _asked(views, FORGET_KINDS[:1]), _asked(views, RETAIN_KINDS)
            direct = compare(
                views, f"text/direct/{site}", lambda o, site=site: _text_rows(views, o, site, FORGET_KINDS[:1]), asked
            )
            _report(out, views, str(site), DIRECT, direct)
        for arm, cells in table.items():
            cells.append((own[arm].value if arm in own else float("nan"),))
        _foreign(out, views, str(site), own)
    return _map(
        "AUROC of probes in the text stream", sites.text, ("last token" if views.plan.reads else "end token",), table
    )


def _inner(out: Evidence, views: Views, sites: Places) -> TraceMap | None:
    if not sites.inner or not sites.steps:
        return None
    table: dict[str, list[tuple[float, ...]]] = {"before": [], "after": [], "control": []}
    asked = _asked(views, FORGET_KINDS[1:]), _asked(views, RETAIN_KINDS)
    for site in sites.inner:
        steps = [
            compare(views, f"inner/{site}", lambda o, site=site, step=step: _inner_rows(views, o, site, step), asked)
            for step in sites.steps
        ]
        own = {key: mean_of([s[key] for s in steps]) for key in steps[0]}
        _report(out, views, str(site), TRANSFER, own)
        _foreign(out, views, str(site), own)
        for arm, cells in table.items():
            cells.append(tuple(s[arm].value if arm in s else float("nan") for s in steps))
    return _map("AUROC of probes in the denoiser", sites.inner, tuple(f"step {s}" for s in sites.steps), table)


def _map(name: str, sites: Sequence[Site], columns: tuple[str, ...], table: dict) -> TraceMap:
    known = all(v == v for row in table["control"] for v in row)
    control = tuple(table["control"]) if known else ()
    rows = tuple(map(str, sites))
    return TraceMap(name, rows, columns, tuple(table["before"]), tuple(table["after"]), control, "AUROC")


def _asked(views: Views, kinds: Sequence[Kind]) -> list[Prompt]:
    return [p for kind in kinds for p in views.plan.prompts(kind)]


def _text_rows(views: Views, seen: Observation, site: Site, kinds: Sequence) -> Rows:
    x = seen.text[site].nan_to_num()  # a broken model still gets an audit: what is no number reads as nothing
    mine, others = views.plan.fits(96)
    counts = [len(views.plan.prompts(k)) for k in JUDGED_KINDS]
    fit, rest = x[: len(mine)], x[len(mine) : len(mine) + len(others)]
    parts = dict(zip(JUDGED_KINDS, x[len(mine) + len(others) :].split(counts), strict=True))
    return fit, rest, torch.cat([parts[k] for k in kinds]), torch.cat([parts[k] for k in RETAIN_KINDS])


def _inner_rows(views: Views, seen: Observation, site: Site, step: int) -> Rows:
    x = seen.inner[site, step].nan_to_num()
    mine, others = views.plan.fits()
    width = len(views.plan.seeds)
    tests = len(x) - len(mine) - len(others)
    counts = [len(views.plan.prompts(k)) * width for k in JUDGED_KINDS]
    parts = dict(zip(JUDGED_KINDS, x[:tests].split(counts), strict=True))
    held, rest = torch.cat([parts["paraphrases"], parts["implicit"]]), torch.cat([parts[k] for k in RETAIN_KINDS])

    def fold(a):  # readings of one prompt are averaged over seeds
        return a.reshape(-1, width, a.shape[-1])

    return x[tests : tests + len(mine)], x[tests + len(mine) :], fold(held), fold(rest)


def _report(out: Evidence, views: Views, site: str, what: str, own: dict[str, Draws]) -> None:
    never = own.get("control")
    score = None
    if never is not None:
        score = residual_index(f"probes at {site}", own["before"], own["after"], never, views.thresholds.gap)
    name = "never-taught twin" if views.control else "made-up concept" if never is not None else ""
    note = "" if score else "no twin: words alone can be read" if never is None else "before − control is too small"
    low, high = own["after"].interval()
    out.findings.append(
        Finding(
            evidence="representation",
            metric=f"AUROC of its own probe ({what.partition(':')[0]})",
            split=site,
            before=own["before"].value,
            after=own["after"].value,
            control=None if never is None else never.value,
            low=low,
            high=high,
            n=own["after"].n,
            better="lower",
            index=score,
            control_name=name,
            unit="AUROC",
            note=note,
        )
    )
    if score:
        out.indices.append(score)


def _foreign(out: Evidence, views: Views, site: str, own: dict[str, Draws]) -> None:
    if views.after is views.before:
        return
    out.findings.append(
        Finding(
            "representation",
            "AUROC of the probe from before (other words)",
            site,
            own["before"].value,
            own["foreign"].value,
            own["shuffled"].value,
            *own["foreign"].interval(),
            own["foreign"].n,
            "lower",
            None,
            "probes of shuffled labels",
            "AUROC",
        )
    )
