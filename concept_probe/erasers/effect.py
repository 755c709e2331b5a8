"""What an erasure did, said after it was made: what is left, what is kept, and pictures in which nothing is seen."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import Tensor

from concept_probe.erasers.erasure.edit import Edit
from concept_probe.erasers.erasure.intervention import Intervention
from concept_probe.erasers.erasure.provenance import shown_name
from concept_probe.evaluation.panel import NothingSeen, panel
from concept_probe.evaluation.trials import judge_answers
from concept_probe.families import DiffusionSubject
from concept_probe.families.subject import SAMPLING
from concept_probe.types import FORGET_KINDS, OTHER_KINDS, Concept, Erasure, Judge, Kind, Prompt, Query, Sampling, Trial
from concept_probe.types.prompts import evenly

if TYPE_CHECKING:
    from concept_probe.families import Subject

AnyErasure = TypeVar("AnyErasure", bound=Erasure)
MOST_LEFT, LEAST_KEPT, MOST_UNSEEN = 0.5, 0.8, 0.5
"""Warned of: more than this share of what was seen of the concept is left; others keep less of their recognition; in
more of the pictures nothing is seen, beyond those of the untouched subject."""
ASKED, BRIEFLY = 2, Sampling(steps=2, guidance=4.0)
"""Prompts of each side, and how they are drawn, that a movement is measured on."""


@dataclass(frozen=True)
class StatedEffect:
    """What answers to prompts of the select split show under an erasure; shares, 0..1."""

    label: str
    """What is looked for."""
    before: float
    """Answers to the concept's prompts in which the untouched subject shows it."""
    left: float
    """The same under the erasure."""
    kept: Mapping[str, tuple[float, float]]
    """By list of other prompts: answers that show what they were asked for, of the untouched subject and under it."""
    nothing_seen: tuple[float, float]
    """Pictures of all lists in which nothing is seen, or that can't be judged, before and under it: a picture off what the
    model draws is one of these, and one of an anchor that shows nothing."""
    answers: int
    """How many were judged."""

    def faults(self) -> tuple[str, ...]:
        """What is beyond the bounds, in words."""
        out = []
        if self.left > MOST_LEFT * self.before:
            out.append(f"{self.label!r} is still seen in {self.left:.0%} of its answers ({self.before:.0%} before)")
        for kind, (before, after) in self.kept.items():
            if not before:
                out.append(f"{kind} are recognised in none of their answers before, so what they keep can't be said")
            elif after < LEAST_KEPT * before:
                out.append(f"{kind} are recognised in {after:.0%} of theirs ({before:.0%} before)")
        if self.nothing_seen[1] > self.nothing_seen[0] + MOST_UNSEEN:
            out.append(
                f"in {self.nothing_seen[1]:.0%} of the pictures nothing is seen ({self.nothing_seen[0]:.0%} before)"
            )
        return tuple(out)


@torch.no_grad()
def state_effect(
    erasure: Erasure,
    subject: Subject,
    concept: Concept,
    judge: Judge,
    *,
    answers: int = 12,
    sampling: Sampling = Sampling(),
    seed: int = 0,
) -> StatedEffect:
    """Look at about `answers` answers to the concept's select prompts, and as many to others, before and under an erasure.

    >>> state_effect(edit, subject, concept, detect.recogniser("emoji")).faults()

    Raises NothingSeen where the untouched subject shows the concept in no answer: then nothing can be said of it.
    """
    asked = panel(concept, images=answers, seed=seed)
    queries = (*asked.forget, *asked.retain)

    def seen() -> Sequence[Trial]:
        return judge_answers(judge, subject.generate(queries, sampling), queries)

    before = seen()
    with erasure.on(subject):
        after = seen()
    own = len(asked.forget)
    start, left = (_share([t.seen == asked.concept for t in trials[:own]]) for trials in (before, after))
    if not start:
        refuse_unseen(asked.concept, own)
    kinds: dict[str, list[int]] = {}
    for i, query in enumerate(asked.retain):
        kinds.setdefault(_kind_of(query.prompt, concept), []).append(own + i)
    kept = {
        kind: (_share([_right(before[i]) for i in rows]), _share([_right(after[i]) for i in rows]))
        for kind, rows in kinds.items()
    }
    blank = [_share([t.seen in ("none", "error") for t in trials]) for trials in (before, after)]
    return StatedEffect(asked.concept, start, left, kept, (blank[0], blank[1]), len(queries))


def refuse_unseen(label: str, count: int) -> None:
    """Raise NothingSeen: what is looked for is seen in none of `count` answers of the untouched subject."""
    raise NothingSeen(
        f"{label!r}, the label of the concept's target prompts, is seen in none of {count} answers of the untouched "
        "subject, so nothing can be said of its removal; check the label, the recogniser and the sampling"
    )


def _share(hits: Sequence[bool]) -> float:
    return sum(hits) / max(len(hits), 1)


def _right(trial: Trial) -> bool:
    return trial.seen == trial.query.prompt.label


def _kind_of(prompt: Prompt, concept: Concept) -> Kind:
    return next(kind for kind in OTHER_KINDS if prompt in concept.prompts(kind, "select"))


@torch.no_grad()
def movement(erasure: Erasure, subject: Subject, concept: Concept) -> dict[str, float]:
    """How far answers to a few select prompts move under an erasure, relative to their size: the concept's (`target_moved`)
    and others' (`others_moved`).

    Of pictures the latents after a few denoising steps, or of an edit, which every pass reads, the denoiser's prediction
    from noise, both as small as costs least; of texts the states that the answer is made from. Empty where the select
    split lacks prompts on either side.
    """
    own = [p for kind in FORGET_KINDS for p in concept.prompts(kind, "select")]
    others = [p for kind in OTHER_KINDS for p in concept.prompts(kind, "select")]
    if not own or not others:
        return {}
    asked = (*evenly(own, ASKED), *evenly(others, ASKED))

    def said() -> Tensor:
        if isinstance(subject, DiffusionSubject):
            with subject.sized(*subject.smallest()):
                if isinstance(erasure, Edit):
                    start = subject.trajectory(range(len(asked)), SAMPLING.steps)
                    x = subject.predict(start.model_input(0), start.timesteps[0], subject.encode(asked))
                else:
                    x = subject.sample([Query(p, i) for i, p in enumerate(asked)], _brief(subject))
            return x.float().flatten(1)
        return torch.stack([subject.encode([p]).states[0, -1].float() for p in asked])

    before = said()
    with warnings.catch_warnings(), erasure.on(subject):
        warnings.simplefilter("ignore")
        gone = torch.linalg.vector_norm(said() - before, dim=1) / torch.linalg.vector_norm(before, dim=1)
    first = len(evenly(own, ASKED))
    parts = {"target_moved": gone[:first], "others_moved": gone[first:]}
    return {name: float(f"{float(part.mean()):.4g}") for name, part in parts.items()}


def _brief(subject: DiffusionSubject) -> Sampling:
    """As briefly as the scheduler can: Runge-Kutta steps of PNDM are laid out for four steps at least."""
    try:
        subject.passes(BRIEFLY)
    except ValueError:
        return replace(BRIEFLY, steps=4)
    return BRIEFLY


def with_effect(
    erasure: AnyErasure, subject: Subject, concept: Concept, judge: Judge | None = None, sampling: Sampling = Sampling()
) -> AnyErasure:
    """The erasure, with what it did under `effect` of its `made_by`; warns of what is beyond the bounds.

    Without a `judge` that is how far prompts of the select split move; with one also what is seen, see `state_effect`. Of
    several concepts it is said of each, by its name.
    """
    if not _acts(erasure):
        return erasure
    told: dict[str, Any] = {}
    said: list[str] = []
    for part in concept.parts or (concept,):
        of, faults = _effect_on(part, erasure, subject, judge, sampling)
        told |= {part.name: of} if concept.parts and of else of
        said += [f"of {part.name!r}: {fault}" if concept.parts else fault for fault in faults]
    warn_of(shown_name(erasure), said)
    return with_note(erasure, effect=told) if told else erasure


def _effect_on(
    concept: Concept, erasure: Erasure, subject: Subject, judge: Judge | None, sampling: Sampling
) -> tuple[dict[str, Any], list[str]]:
    """What it did about one concept, and what of it is beyond the bounds."""
    told: dict[str, Any] = dict(movement(erasure, subject, concept))
    said = []
    if told and not told["target_moved"]:
        said.append(f"it changes nothing of {ASKED} select prompts of {concept.name!r}")
    elif told and told["others_moved"] > told["target_moved"]:
        said.append(
            f"it moves other prompts farther ({told['others_moved']:.2g} of their size) than the concept's "
            f"({told['target_moved']:.2g})"
        )
    if judge is not None:
        try:
            effect = state_effect(erasure, subject, concept, judge, sampling=sampling)
        except NothingSeen as problem:  # what was made is whole, whoever can't see it
            said.append(str(problem))
        else:
            told |= asdict(effect)
            said += effect.faults()
    return told, said


def with_note(erasure: AnyErasure, **more: Any) -> AnyErasure:
    """The erasure, with more in its `made_by`; any other kind than this package's as it is."""
    if isinstance(erasure, Edit | Intervention):
        return replace(erasure, made_by={**erasure.made_by, **more})
    return erasure


def warn_of(name: str, faults: Sequence[str]) -> None:
    """Warn, in one sentence, of what an erasure did that it should not."""
    if faults:
        warnings.warn(f"{name}: on prompts of the select split, {'; '.join(faults)}", stacklevel=3)


def _acts(erasure: Erasure) -> bool:
    """Whether it is meant to change anything."""
    if isinstance(erasure, Intervention):
        return bool(erasure.strength)
    return bool(getattr(erasure, "deltas", True))
