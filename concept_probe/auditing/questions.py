"""What every arm of an audit is asked, and who judges the answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Literal

from concept_probe.auditing.arm import Arm
from concept_probe.auditing.plan import AuditPlan
from concept_probe.content import digest_of
from concept_probe.evaluation.thinning import most_varied, most_varied_facts
from concept_probe.storage import text_sha256
from concept_probe.types import (
    FORGET_KINDS,
    JUDGED_KINDS,
    RETAIN_KINDS,
    Concept,
    Judge,
    Kind,
    Prompt,
    Query,
    Sampling,
    Split,
    Splits,
)

MOST_READ = 96
"""Fit prompts a side that are read and not answered: probes of the text stream are fitted on them."""
MOST_PATCHED = 12
"""Answers, at most, of a model that something was put into."""


@dataclass(frozen=True, eq=False)
class Questions:
    """The same for every arm, so that what differs in the answers is the arm."""

    concept: Concept
    """With its test split thinned to what is asked."""
    label: str
    """What an answer for the concept shows."""
    recogniser: Judge
    answers: Literal["pictures", "texts"]
    """What is answered."""
    seeds: tuple[int, ...]
    sampling: Sampling
    fit_images: int
    """Images per side whose activations train probes inside the denoiser."""
    judge: str
    """Digest of the recogniser: of what it is, not of its name."""
    kinds: tuple[Kind, ...] = JUDGED_KINDS
    """Kinds of prompts that are answered; prompts of others are read at most."""

    @classmethod
    def of(
        cls, plan: AuditPlan, concept: Concept, label: str, recogniser: Judge, answers: Literal["pictures", "texts"]
    ) -> Questions:
        """What `plan` asks about `concept`."""
        fixed = answers == "texts" and plan.sampling.temperature == 0  # without chance every seed gives the same text
        seeds = plan.seeds[:1] if fixed else plan.seeds
        few = thinned(concept, plan.prompts, even=plan.even or plan.rounds is not None)
        return cls(few, label, recogniser, answers, tuple(seeds), plan.sampling, plan.fit_images, digest_of(recogniser))

    def prompts(self, kind: Kind) -> tuple[Prompt, ...]:
        """The test prompts of one kind."""
        return self.concept.prompts(kind, "test")

    def prompts_of(self, kinds: Sequence[Kind]) -> list[Prompt]:
        """The test prompts of several kinds, kind by kind."""
        return [p for kind in kinds for p in self.prompts(kind)]

    def tests(self) -> tuple[Query, ...]:
        """Every test query, kind by kind, prompt by prompt, seed by seed."""
        return tuple(Query(p, s) for p in self.prompts_of(self.kinds) for s in self.seeds)

    def answered(self, fits: bool = True) -> list[Query]:
        """Every query that an arm answers: those of tests, and with `fits` of the prompts that probes are fitted on."""
        return [*self.tests(), *(Query(p, self.seeds[0]) for of in (self.fits() if fits else ()) for p in of)]

    def fits(self, most: int | None = None) -> tuple[tuple[Prompt, ...], tuple[Prompt, ...]]:
        """Fit-split prompts (of the concept, of others), each kind giving its equal part of `most` per side."""
        of, others = (
            _shared([self.concept.prompts(k, "fit") for k in kinds], most or self.fit_images)
            for kinds in (FORGET_KINDS, RETAIN_KINDS)
        )
        return of, others

    def patched(self, most: int = MOST_PATCHED) -> tuple[Query, ...]:
        """Direct test prompts, first seed, at most `most`: what is asked of a model that something was put into."""
        return tuple(Query(p, self.seeds[0]) for p in self.prompts("target")[:most])

    def key(self, arm: Arm, what: str) -> str:
        """Names a measurement of an arm: the same key, the same outcome."""
        splits: tuple[Split, ...] = ("fit", "test")
        texts = [(k, s, [asdict(p) for p in self.concept.prompts(k, s)]) for k in JUDGED_KINDS for s in splits]
        parts = (
            what,
            arm.state,
            self.concept.name,
            self.label,
            texts,
            self.seeds,
            self.sampling.options(),
            self.fit_images,
            self.judge,
        )
        return text_sha256(json.dumps((*parts, self.kinds), default=str))

    def key_of_answers(self, arm: Arm, what: str) -> str:
        """Names what an arm answers to whatever prompts, one by one."""
        parts = (what, arm.state, self.concept.name, self.label, self.sampling.options(), self.judge)
        return text_sha256(json.dumps(parts, default=str))


def _shared(lists: Sequence[Sequence[Prompt]], most: int) -> tuple[Prompt, ...]:
    lists = [x for x in lists if x]
    if not lists:
        return ()
    each, extra = divmod(most, len(lists))
    return tuple(p for i, x in enumerate(lists) for p in most_varied(x, each + (i < extra)))


def thinned(concept: Concept, most: int, *, even: bool = False) -> Concept:
    """The concept with at most `most` test prompts of each kind (paraphrases, implicit: two thirds of that, unless `even`)."""
    parts: dict[str, Splits] = {}
    for kind in JUDGED_KINDS:
        splits: Splits = getattr(concept, kind)
        limit = -(-most * 2 // 3) if kind in ("paraphrases", "implicit") and not even else most
        parts[kind] = replace(splits, test=most_varied_facts(splits.test, limit))
    return replace(concept, **parts)  # pyright: ignore[reportArgumentType]
