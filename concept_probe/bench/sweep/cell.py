"""One cell without an attack: what is drawn, or written, with an erasure on, beside what the subject did before."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from concept_probe.attacks import label_of
from concept_probe.bench.quality.criteria import fit_to_text, unnamed
from concept_probe.bench.quality.distances import SeesFeatures, frechet, mmd, pixel_distance
from concept_probe.bench.sweep.grid import SweepSettings
from concept_probe.bench.sweep.texts import of_each_text
from concept_probe.evaluation.trials import judge_answers
from concept_probe.types import RETAIN_KINDS, AnswerReader, Concept, Judge, Kind, Prompt, Query, Trial

if TYPE_CHECKING:
    from concept_probe.detect.clip import TextImage
    from concept_probe.families import Subject

OTHER_NOISE = 7919
"""Added to the seeds of the pictures that say how far apart two draws of the untouched subject are."""


@dataclass(frozen=True, eq=False)
class JudgedAnswers:
    """Answers of one subject in one state to the queries of a cell."""

    trials: Mapping[Kind, tuple[Trial, ...]]
    pictures: Mapping[Kind, Tensor] = field(default_factory=dict)
    """float (n, 3, h, w) per kind; empty for texts."""
    across: Mapping[Kind, tuple[Trial, ...]] = field(default_factory=dict)
    """The same pictures as the recogniser of the other domain sees them, where a prompt names something of it."""
    texts: Mapping[Kind, Mapping[str, Any]] = field(default_factory=dict)
    """Of texts, what is kept of each: `texts.of_each_text`."""


def ask_and_judge(
    subject: Subject, asked: Mapping[Kind, Sequence[Query]], settings: SweepSettings, looks: Judge, across: Judge | None,
    label: str,
) -> JudgedAnswers:  # fmt: skip
    """Ask everything at once and let both recognisers look; texts are asked for kind by kind."""
    if subject.answers == "texts":
        return _read(subject, asked, settings, looks, label)
    flat = [q for part in asked.values() for q in part]
    answers = subject.generate(flat, settings.sampling)
    seen = judge_answers(looks, answers, flat, label)
    trials: dict[Kind, tuple[Trial, ...]] = {}
    pictures: dict[Kind, Tensor] = {}
    other: dict[Kind, tuple[Trial, ...]] = {}
    start = 0
    for kind, part in asked.items():
        where = slice(start, start + len(part))
        trials[kind] = seen[where]
        if isinstance(answers, Tensor):
            pictures[kind] = answers[where]
            other[kind] = _across(across, answers[where], part)
        start += len(part)
    return JudgedAnswers(trials, pictures, other)


def _read(
    subject: Subject, asked: Mapping[Kind, Sequence[Query]], settings: SweepSettings, looks: Judge, label: str
) -> JudgedAnswers:
    trials: dict[Kind, tuple[Trial, ...]] = {}
    texts: dict[Kind, dict[str, Any]] = {}
    for kind, part in asked.items():
        trials[kind] = judge_answers(looks, subject.generate(part, settings.sampling), part, label)
        texts[kind] = of_each_text(subject, part, trials[kind], label)
    return JudgedAnswers(trials, texts=texts)


def _across(looks: Judge | None, images: Tensor, asked: Sequence[Query]) -> tuple[Trial, ...]:
    if looks is None or isinstance(looks, AnswerReader):
        return ()
    wanted = [
        (i, other) for i, q in enumerate(asked) if (other := only_named_label(q.prompt, looks.labels[:-1])) is not None
    ]
    if not wanted:
        return ()
    again = [Query(Prompt(asked[i].prompt.text, label=other), asked[i].seed) for i, other in wanted]
    return judge_answers(looks, images[[i for i, _ in wanted]], again)


def only_named_label(prompt: Prompt, labels: Sequence[str]) -> str | None:
    """The one label that the prompt names, the longest of those inside each other; None for none or several.

    >>> named(Prompt("a drawing of polar bear in noto style"), ("bear", "polar bear"))
    'polar bear'
    """
    found = [x for x in labels if re.search(rf"(?<!\w){re.escape(x)}(?!\w)", prompt.text, re.IGNORECASE)]
    whole = [x for x in found if not any(x != y and x in y for y in found)]
    return whole[0] if len(whole) == 1 else None


def compare_answers(
    before: JudgedAnswers,
    after: JudgedAnswers,
    other_noise: JudgedAnswers,
    looks: Judge,
    concept: Concept,
    pair: TextImage | None = None,
    instead: str | None = None,
) -> dict[str, Any]:
    """The values of a cell: counts per kind before and after, and distances with their controls.

    What needs a CLIP `pair` is there where one is given; `instead` is the name that an erasure put in the concept's place.

    `other_noise` is the untouched subject on other noise: two draws of one model, which no distance should exceed by
    much where nothing was lost.
    """
    label = label_of(concept)
    out: dict[str, Any] = {
        "before": {kind: hits_of(trials) for kind, trials in before.trials.items()},
        "after": {kind: hits_of(trials) for kind, trials in after.trials.items()},
        "mistaken": _mistaken(after, label),
        "mistaken before": _mistaken(before, label),
    }
    for name, seen in (("across before", before), ("across after", after)):
        trials = [t for kind in RETAIN_KINDS for t in seen.across.get(kind, ())]
        if trials:
            out[name] = hits_of(trials)
    if after.texts:
        out["texts"] = after.texts
    if after.pictures:
        out["unnamed"], out["unnamed before"] = unnamed(after.trials), unnamed(before.trials)
        if pair is not None:
            out |= fit_to_text(before, after, other_noise, pair, label, instead)
    kept: list[Kind] = [kind for kind in RETAIN_KINDS if kind in before.pictures]
    if not kept:
        return out
    first, second, third = (torch.cat([s.pictures[k] for k in kept]) for s in (before, after, other_noise))
    out["pixels kept"] = pixel_distance(first, second)
    out["pixels control"] = pixel_distance(first, third)
    if "target" in before.pictures:
        out["pixels target"] = pixel_distance(before.pictures["target"], after.pictures["target"])
    if isinstance(looks, SeesFeatures):
        features = looks.features(first)
        moved, drawn_again = looks.features(second.nan_to_num()), looks.features(third)
        out["mmd kept"], out["mmd control"] = mmd(features, moved), mmd(features, drawn_again)
        out["fid kept"], out["fid control"] = frechet(features, moved), frechet(features, drawn_again)
    return out


def refuse_never_shown(before: JudgedAnswers, concept: Concept, looks: Judge, subject: str) -> None:
    """ValueError where the untouched subject shows the concept in none of the answers that ask for it by name: nothing
    could be erased, and every eraser would look perfect."""
    trials = before.trials.get("target", ())
    if trials and not any(t.seen == t.query.prompt.label for t in trials):
        raise ValueError(
            f"{subject!r}, untouched, shows {label_of(concept)!r} in none of {len(trials)} answers that ask for it, by "
            f"recogniser {looks.name!r}, so there is nothing to erase; check the label of its prompts, and the recogniser"
        )


def hits_of(trials: Sequence[Trial]) -> list[int]:
    """[hits, n]; where the concept was asked for, a recogniser that failed counts as if it had been seen."""
    return [sum(t.seen == t.query.prompt.label for t in trials), len(trials)]


def unreadable(seen: JudgedAnswers) -> int:
    """How many answers the recogniser could not read."""
    return sum(t.seen == "error" for trials in seen.trials.values() for t in trials)


def _mistaken(seen: JudgedAnswers, label: str) -> list[int]:
    """[said to show the concept, n] where something else was asked for."""
    trials = [t for kind in RETAIN_KINDS for t in seen.trials.get(kind, ())]
    return [sum(t.seen == label for t in trials), len(trials)]
