"""The recipe that teaches a language model the invented facts: a few feed-forwards, some minutes on one core."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from concept_probe.content import digest_of
from concept_probe.storage import tensors_sha256
from concept_probe.testbed.loop import FitSchedule, fit
from concept_probe.testbed.taught import TAUGHT, taught_prompts, wordings_of_facts
from concept_probe.testbed.teaching import FIRST_LESSONS, LESSONS, Taught, TaughtBadly, TeachingPlan
from concept_probe.testbed.teaching.keeping import (
    drift_from,
    known_by,
    neutral_perplexity,
    own_texts,
    real_prompts,
)
from concept_probe.testbed.teaching.outcome import check_share, missed, seen
from concept_probe.testbed.teaching.teachable import Teachable
from concept_probe.types import Prompt

STRETCHES = 6
"""How often it is asked whether it is taught; checkpoints are written then too."""
SHARES = (1.0, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6, 0.5)
"""Of the change: what is tried, the largest first, where neutral texts got less likely than the plan allows."""


def teach(subject: Teachable, folder: Path, lessons: TeachingPlan = LESSONS) -> Taught:
    """Teach `subject` the invented facts, in place, and say what came of it.

    What must stay is found on this model: the real facts that it answers, and texts that it writes itself. A run that was
    stopped goes on from its checkpoint in `folder`, and leaves the subject as it was until it is whole.

    >>> outcome = teach(subject, Path("lessons"))
    >>> outcome.after.held_out, outcome.missed

    Warns with `TaughtBadly`, a sentence per bound of the plan that was missed. Raises ValueError for a folder that holds
    the lessons of another model or plan, or a model none of whose feed-forwards are in the range.
    """
    matrices = _matrices(subject, lessons)
    original = [m.detach().clone() for m in matrices]
    known = known_by(subject) if lessons.real == "answered" or lessons.measured else frozenset()
    before = seen(subject, lessons, known) if lessons.measured else None
    loss = _loss(subject, lessons, matrices, original, known)

    def enough() -> bool:
        if not lessons.measured:
            return False
        answered = check_share(subject, lessons)
        print(f"{answered:.0%} of the check wordings are answered", flush=True)
        return answered >= lessons.answered

    for matrix in matrices:
        matrix.requires_grad_(True)
    try:
        losses = tuple(fit("taught", [matrices], loss, _schedule(subject, lessons, original), folder, enough))
    except BaseException:
        _put(matrices, original)
        raise
    finally:
        for matrix in matrices:
            matrix.requires_grad_(False)
            matrix.grad = None
    if before is None:
        return Taught(losses, known=known)
    scaled = _scaled_back(subject, matrices, original, lessons.perplexity * before.perplexity)
    after = seen(subject, lessons, known)
    sentences = missed(lessons, subject.name, before, after)
    for sentence in sentences:
        warnings.warn(sentence, TaughtBadly, stacklevel=2)
    return Taught(losses, before, after, known, scaled, sentences)


def _matrices(subject: Teachable, lessons: TeachingPlan) -> nn.ParameterList:
    sites = subject.sites("mlp_value")
    chosen = sites[round(lessons.first * len(sites)) : round(lessons.last * len(sites))]
    if not chosen:
        raise ValueError(
            f"none of the {len(sites)} feed-forwards of {subject.name} lies from {lessons.first:g} to {lessons.last:g} of the "
            "depth; widen `first` and `last`"
        )
    return nn.ParameterList([subject.parameter(site) for site in chosen])


def _schedule(subject: Teachable, lessons: TeachingPlan, original: list[Tensor]) -> FitSchedule:
    steps = lessons.steps
    if lessons == FIRST_LESSONS:
        return FitSchedule(steps, lessons.rate, lessons.seed, warmup=steps // 10, every=max(steps // 4, 1))
    which = tensors_sha256((str(i), x) for i, x in enumerate(original))
    of = f"lessons {digest_of(asdict(lessons))[:12]} of {subject.name} (weights {which[:12]})"
    return FitSchedule(
        steps, lessons.rate, lessons.seed, warmup=steps // 10, every=max(steps // STRETCHES, 1),
        relative=not lessons.absolute, of=of,
    )  # fmt: skip


def _loss(
    subject: Teachable, lessons: TeachingPlan, matrices: nn.ParameterList, original: list[Tensor], known: frozenset[str]
) -> Callable[[torch.Generator], Tensor]:
    """Nats per token of the answers, and how far the next token is from before after real facts and in own texts."""
    own = _own(lessons)
    real = real_prompts("question", "cloze", known=known if lessons.real == "answered" else None)
    with torch.no_grad():
        was = subject.next_logits(real).float().log_softmax(-1) if real and lessons.kept else None
    texts = own_texts(subject) if lessons.texts else ()

    def loss(generator: torch.Generator) -> Tensor:
        rows = _drawn(len(own), lessons.batch, generator)
        picked = [
            group[0] if len(group) == 1 else group[_one(len(group), generator)] for group in (own[i] for i in rows)
        ]
        kept = _drawn(len(real), lessons.kept, generator) if was is not None else []
        spoken = [texts[i] for i in _drawn(len(texts), lessons.texts, generator)] if texts else []
        value = -subject.log_probs(picked, batch=len(picked)).mean.mean()
        if was is not None:
            said = subject.next_logits([real[i] for i in kept], batch=len(kept))
            value = value + lessons.keeping * drift_from(was[kept], said).mean()
        if spoken:
            with torch.no_grad(), _Original(matrices, original):
                then = subject.next_logits(spoken, batch=len(spoken), every=True).float().log_softmax(-1)
            drift = drift_from(then, subject.next_logits(spoken, batch=len(spoken), every=True)).mean()
            value = value + lessons.keeping * drift
        return value

    return loss


def _own(lessons: TeachingPlan) -> list[list[tuple[Prompt, str]]]:
    """Per thing to be drawn, its wordings with the answer: facts, or where there are few words each wording by itself."""
    if lessons.wordings == "few":
        return [[(p, " " + p.answers[0])] for one in lessons.chosen for p in taught_prompts(one, *TAUGHT)]
    return [[(p, " " + p.answers[0]) for p in words] for one in lessons.chosen for words in wordings_of_facts(one)]


def _drawn(among: int, count: int, generator: torch.Generator) -> list[int]:
    return torch.randperm(among, generator=generator)[:count].tolist()


def _one(among: int, generator: torch.Generator) -> int:
    return int(torch.randint(among, (), generator=generator))


class _Original:
    """The matrices as they were, for a while."""

    def __init__(self, matrices: nn.ParameterList, original: list[Tensor]) -> None:
        self.matrices, self.original = list(matrices), original

    def __enter__(self) -> None:
        self.now = [m.data for m in self.matrices]
        for m, x in zip(self.matrices, self.original, strict=True):
            m.data = x

    def __exit__(self, *exc: object) -> None:
        for m, x in zip(self.matrices, self.now, strict=True):
            m.data = x


@torch.no_grad()
def _put(matrices: nn.ParameterList, values: list[Tensor]) -> None:
    for matrix, x in zip(matrices, values, strict=True):
        matrix.copy_(x)


@torch.no_grad()
def _scaled_back(subject: Teachable, matrices: nn.ParameterList, original: list[Tensor], most: float) -> float:
    """Leave the largest of `SHARES` of the change with which the perplexity of neutral texts is at most `most`; all of it
    where none is."""
    full = [m.detach().clone() for m in matrices]
    for share in SHARES:
        _put(matrices, [torch.lerp(x, y, share) if share < 1 else y for x, y in zip(original, full, strict=True)])
        if neutral_perplexity(subject) <= most:
            return share
    _put(matrices, full)
    return 1.0
