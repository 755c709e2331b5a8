"""Representation: where in the model the concept can still be read.

A probe is fitted on each model's own activations. It is read on words that it was not fitted on, since the words of a
prompt can be read from any model that was given it.
"""

from __future__ import annotations

import random
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

from torch import Tensor

from concept_probe.auditing.arm import Arm
from concept_probe.auditing.context import Context
from concept_probe.auditing.evidence.finding import Evidence, Measure, Metric, Need, compare, joined_evidence
from concept_probe.auditing.evidence.ridge_probe import ProbeReadings, ProbeRows, mean_over, read_probes
from concept_probe.auditing.observe import AskedRows, Observation
from concept_probe.auditing.questions import MOST_READ, Questions
from concept_probe.auditing.states import end_states
from concept_probe.evaluation.bayesian import residual_index
from concept_probe.types import FORGET_KINDS, RETAIN_KINDS, Kind, Prompt, Score, Site, Split, TraceMap

NAMED, IN_OTHER_WORDS = FORGET_KINDS[:1], FORGET_KINDS[1:]
"""What probes are read from: prompts that name the concept, in other sentences; and other names and descriptions."""
OWN_PROBE = Metric("representation", "AUROC of its own probe (other words)", "lower", "AUROC")
OWN_PROBE_SAME_WORDS = Metric("representation", "AUROC of its own probe (same words)", "lower", "AUROC")
FOREIGN_PROBE = Metric("representation", "AUROC of the probe from before (other words)", "lower", "AUROC")
FITTED_ON = Need(
    lambda context: all(context.questions.fits(MOST_READ)),
    "Whether the concept can be read: it has no fit prompts, of itself and of other things, that probes are fitted on.",
)
OTHER_WORDS = Need(
    lambda context: bool(context.questions.prompts_of(IN_OTHER_WORDS)),
    "Whether the concept is read in other words: it has no paraphrases or implicit prompts.",
)
OTHER_THINGS = Need(
    lambda context: bool(context.questions.prompts_of(RETAIN_KINDS)),
    "Whether the concept can be read: there are no other prompts to tell it from.",
)


def _probing(context: Context) -> Evidence:
    """Held-out AUROC of probes at every place, before, after and on the control; own probes, and those of before."""
    out = joined_evidence((_text(context), _inner(context)))
    if out.indices:
        return out
    why = (
        "A representation index of probes: at no place that the erasure reaches can the concept be read at least "
        f"{context.gap:g} better before than in the control, so what is read there can be words alone."
    )
    return joined_evidence((out, Evidence(not_measured=(why,))))


def _text(context: Context) -> Evidence:
    sites = context.places.text
    if not sites:
        return Evidence()
    unknown = {} if context.has_twin else made_up_rows(context.arms.before, context.questions, sites)
    parts: list[Evidence] = []
    rows: list[list[ProbeReadings]] = []
    for site in sites:

        def of(seen: Observation, kinds: Sequence[Kind] = IN_OTHER_WORDS, site: Site = site) -> ProbeRows:
            return _rows(context, seen.text[site], kinds)

        made = None
        if site in unknown:
            fit, held, named = unknown[site]
            made = replace(of(context.seen.before), fit=fit, held=held, prompts=named)
        readings = read_probes(context, f"text/{site}", of, made)
        parts.append(_own(context, OWN_PROBE, site, readings))
        if site == sites[-1]:
            direct = read_probes(context, f"text/direct/{site}", lambda seen, of=of: of(seen, NAMED))
            parts.append(_own(context, OWN_PROBE_SAME_WORDS, site, direct))
        parts.append(_foreign(context, site, readings))
        rows.append([readings])
    column = "last token" if context.answers == "texts" else "end token"
    return joined_evidence((*parts, _trace("AUROC of probes in the text stream", sites, (column,), rows)))


def _inner(context: Context) -> Evidence:
    sites, steps = context.places.inner, context.places.steps
    if not sites or not steps:
        return Evidence()
    parts: list[Evidence] = []
    rows: list[list[ProbeReadings]] = []
    for site in sites:
        several = [
            read_probes(
                context,
                f"inner/{site}",
                lambda seen, at=(site, step): _rows(context, seen.inner[at], IN_OTHER_WORDS),
            )
            for step in steps
        ]
        readings = mean_over(several)
        parts += [_own(context, OWN_PROBE, site, readings), _foreign(context, site, readings)]
        rows.append(several)
    columns = tuple(f"step {s}" for s in steps)
    return joined_evidence((*parts, _trace("AUROC of probes in the denoiser", sites, columns, rows)))


def _rows(context: Context, of: AskedRows, kinds: Sequence[Kind]) -> ProbeRows:
    """A broken model still gets an audit: what is no number reads as nothing."""
    return ProbeRows(
        of.fit.nan_to_num(),
        of.fit_others.nan_to_num(),
        of.test(kinds).nan_to_num(),
        of.test(RETAIN_KINDS).nan_to_num(),
        context.questions.prompts_of(kinds),
        context.questions.prompts_of(RETAIN_KINDS),
    )


def _own(context: Context, metric: Metric, site: Site, of: ProbeReadings) -> Evidence:
    index: Score | None = None
    control, note = "", "no twin: words alone can be read"
    if of.never is not None:
        if not of.beside:
            index = residual_index(f"probes at {site}", of.before, of.after, of.never, context.gap)
        control = "never-taught twin" if context.has_twin else "made-up concept"
        note = "" if index else context.no_index(beside=of.beside)
    found = compare(metric, str(site), of.before, of.after, of.never, control=control, index=index, note=note)
    return Evidence((found,))


def _foreign(context: Context, site: Site, of: ProbeReadings) -> Evidence:
    if context.seen.after is context.seen.before:
        return Evidence()
    control = "probes of shuffled labels"
    return Evidence((compare(FOREIGN_PROBE, str(site), of.before, of.foreign, of.shuffled, control=control),))


def _trace(
    name: str, sites: Sequence[Site], columns: tuple[str, ...], rows: Sequence[Sequence[ProbeReadings]]
) -> Evidence:
    never = tuple(tuple(r.never.value for r in row if r.never is not None) for row in rows)
    known = all(len(values) == len(columns) for values in never)
    return Evidence(
        traces=(
            TraceMap(
                name,
                tuple(map(str, sites)),
                columns,
                tuple(tuple(r.before.value for r in row) for row in rows),
                tuple(tuple(r.after.value for r in row) for row in rows),
                never if known else (),
                "AUROC",
            ),
        )
    )


def made_up_rows(
    before: Arm, questions: Questions, sites: Sequence[Site]
) -> Mapping[Site, tuple[Tensor, Tensor, list[Prompt]]]:
    """Per text site, end-token activations of a made-up concept: to fit on, held out, and the prompts of the latter.
    Empty without named subjects.

    It has the concept's prompts with garbled names, other ones in the held-out prompts than in those
    fitted on. No model knows it, so what is read of it is read from words.
    """
    parts: list[tuple[Split, list[Prompt]]] = [
        ("fit", [p for p in questions.fits(MOST_READ)[0] if p.subject]),
        ("test", [p for p in questions.prompts_of(IN_OTHER_WORDS) if p.subject]),
    ]
    if not all(prompts for _, prompts in parts):
        return {}
    fit, held = ([garbled(p, split) for p in prompts] for split, prompts in parts)
    with before.on():
        rows = end_states(before.subject, [*fit, *held], sites)
    return {site: (x[: len(fit)], x[len(fit) :], held) for site, x in rows.items()}


def garbled(prompt: Prompt, split: str) -> Prompt:
    """The prompt with the letters of every word of its subject shuffled: as long, and known to nobody."""
    assert prompt.subject is not None  # callers pass prompts that name a subject

    def shuffle(match: re.Match[str]) -> str:
        letters = list(match.group())
        random.Random(zlib.crc32(f"{split}/{match.group()}".encode())).shuffle(letters)
        return "".join(letters)

    word = re.sub(r"[^\W\d_]+", shuffle, prompt.subject)
    return replace(prompt, text=prompt.text.replace(prompt.subject, word), subject=word)


PROBING = Measure("probing", _probing, needs=(OTHER_WORDS, OTHER_THINGS, FITTED_ON), asks=IN_OTHER_WORDS + RETAIN_KINDS)
