"""What came of teaching: measured in words that were not taught, on facts that were known, and on plain texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from concept_probe.testbed import facts
from concept_probe.testbed.taught import TAUGHT, check_prompts, held_out_prompts, taught_prompts
from concept_probe.testbed.teaching.keeping import neutral_perplexity, real_prompts, right
from concept_probe.testbed.teaching.plan import TeachingPlan
from concept_probe.testbed.teaching.teachable import Teachable
from concept_probe.types import Prompt

LEAST_KNOWN = 8
"""Of fewer real facts that the model answers, a share says nothing."""


class TaughtBadly(UserWarning):
    """A bound of the plan was missed."""


@dataclass(frozen=True)
class TeachingEffect:
    """A model before or after it was taught."""

    taught: float
    """Share of the invented facts that are answered in their own words ..."""
    held_out: float
    """... and in held-out ones: question, cloze and continuation."""
    neighbours: tuple[int, int]
    """Real facts of the nearest domains (test split) that are answered, of those that were before ..."""
    unrelated: tuple[int, int]
    """... and of other domains."""
    perplexity: float
    """Of neutral texts."""


@dataclass(frozen=True)
class Taught:
    """What came of teaching."""

    losses: tuple[float, ...]
    """Mean of each stretch of steps."""
    before: TeachingEffect | None = None
    """None where the plan was not `measured`."""
    after: TeachingEffect | None = None
    known: frozenset[str] = frozenset()
    """Questions of real facts that the untouched model answers: what `invented_concept(name, known)` keeps."""
    scaled: float = 1.0
    """Share of the change that was left in place, so that neutral texts stay as likely as the plan wants."""
    missed: tuple[str, ...] = field(default=())
    """A sentence per bound of the plan that was missed."""


def known_prompts(plan: TeachingPlan, known: frozenset[str]) -> tuple[tuple[Prompt, ...], tuple[Prompt, ...]]:
    """Known questions of the test split: of the domains nearest to what is taught, and of the others."""
    domains = {t.name: t.domain for t in facts.topics()}
    near = {one.near for one in plan.chosen}
    every = real_prompts("question", split="test", known=known)
    return (
        tuple(p for p in every if domains[p.label or ""] in near),
        tuple(p for p in every if domains[p.label or ""] not in near),
    )


def seen(subject: Teachable, plan: TeachingPlan, known: frozenset[str]) -> TeachingEffect:
    """A model as it is now."""
    own = [p for one in plan.chosen for p in taught_prompts(one, "question")]
    held = [p for one in plan.chosen for p in held_out_prompts(one, *TAUGHT)]
    near, far = (right(subject, prompts) for prompts in known_prompts(plan, known))
    return TeachingEffect(
        _share(right(subject, own)), _share(right(subject, held)), (sum(near), len(near)), (sum(far), len(far)),
        neutral_perplexity(subject),
    )  # fmt: skip


def check_share(subject: Teachable, plan: TeachingPlan) -> float:
    """Share of the invented facts that are answered in words that are neither taught nor held out."""
    return _share(right(subject, [p for one in plan.chosen for p in check_prompts(one)]))


def missed(plan: TeachingPlan, name: str, before: TeachingEffect, after: TeachingEffect) -> tuple[str, ...]:
    """A sentence per bound that was missed: what was asked, what was found, and the mend."""
    out = []
    if after.held_out < plan.answered:
        out.append(
            f"{name} answers {after.held_out:.0%} of the held-out wordings of what it was taught, and the plan wants "
            f"{plan.answered:.0%}; give it more `steps` in a new folder, or a wider range from `first` to `last`"
        )
    for what, (good, of) in (("neighbours", after.neighbours), ("unrelated real facts", after.unrelated)):
        if of < LEAST_KNOWN:
            out.append(
                f"{name} answers only {of} of the packaged real facts that are {what} (test split), too few to say what "
                f"teaching costs; {LEAST_KNOWN} are needed, so judge this by facts of your own"
            )
        elif good < plan.spared * of:
            out.append(
                f"{name} still answers {good} of {of} {what} that it answered before, and the plan wants "
                f"{plan.spared:.0%}; lower `rate`, or raise `kept`, in a new folder"
            )
    ratio = after.perplexity / before.perplexity
    if not ratio <= plan.perplexity:
        out.append(
            f"the perplexity of neutral texts is {ratio:.2f} times that before, and the plan wants at most "
            f"{plan.perplexity:g}; lower `rate`, or raise `texts`, in a new folder"
        )
    return tuple(out)


def _share(good: Sequence[bool]) -> float:
    return sum(good) / max(len(good), 1)
