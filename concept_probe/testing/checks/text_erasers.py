"""Laws of erasers that erase from what writes texts: those of every eraser, and where each has to lead."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from concept_probe.activations import read_site
from concept_probe.erasers.unlearning.activations import after_first_token
from concept_probe.families import Subject
from concept_probe.testing import found
from concept_probe.testing.checks.erasers import Anything, EraserLaws, edits_by_features
from concept_probe.testing.concepts import MADE_UP_FACTS, tiny_facts
from concept_probe.testing.law import about
from concept_probe.types import Concept, Prompt, Query, Sampling, Site

ErasureEffect = Callable[[Any, Any], float]
"""(subject, erasure) -> how far the erasure moves what it is to move."""
RANDOM = 3


class TextErasers(EraserLaws):
    answers = "texts"
    concept = tiny_facts()
    effects: ClassVar[Mapping[str, ErasureEffect]] = {}
    """Of methods whose effect is another than that which `effect_of` has for what they need."""

    def another(self) -> Concept:
        return tiny_facts(*MADE_UP_FACTS[0])

    @property
    def prompts(self) -> tuple[Prompt, ...]:
        return (*self.concept.target.fit, *self.concept.neighbours.fit)

    def read(self, subject: Any) -> Tensor:
        with torch.no_grad():
            return subject.next_logits(self.prompts)

    def read_in_parts(self, subject: Any) -> tuple[Tensor, Tensor]:
        turned = self.prompts[::-1]
        texts = subject.generate([Query(p) for p in self.prompts], Sampling(tokens=3))
        assert subject.generate([Query(p) for p in turned], Sampling(tokens=3, batch=2))[::-1] == texts
        return self.read(subject), subject.next_logits(turned, batch=2).flip(0)

    @classmethod
    def settings(cls, name: str) -> Mapping[str, Any]:
        """Projections act while a language model runs: it has no matrices that only read its text."""
        return {name: cls.registry[name].tiny()}

    def elsewhere(self, eraser: Anything, subject: Subject, seed: int) -> Any:
        """The same method, given as much at random; where it goes by answers or prompts, other words."""
        at_random = found.drawn(eraser.needs, subject, self.concept, seed)
        if at_random is not None and not edits_by_features(eraser):
            return eraser(subject, self.concept, at_random)
        other = tiny_facts(*MADE_UP_FACTS[seed])
        return eraser(subject, other, found.aimed(eraser.needs, subject, other))

    def effect_of(self, eraser: Anything, subject: Any) -> ErasureEffect:
        """How much likelihood the concept's answers lose, for what needs answers.

        For edits by features, how far what these read moves; else how far what the unembedding reads moves at the
        concept's prompts, beyond how far it moves at others.
        """
        if eraser.name in self.effects:
            return self.effects[eraser.name]
        if eraser.needs.answers:
            return answers_lost
        if edits_by_features(eraser):
            (space,) = found.aimed(eraser.needs, subject, self.concept)

            def read(s: Subject) -> Tensor:
                return later_states(s, space.site, self.concept.target.fit) @ space.basis

            return lambda s, erasure: float(change(s, erasure, read).abs().mean())
        return self.told_apart

    def told_apart(self, subject: Any, erasure: Any) -> float:
        own, others = (
            change(subject, erasure, lambda s, of=splits.fit: s.encode(of).states).square().mean()
            for splits in (self.concept.target, self.concept.neighbours)
        )  # fmt: skip
        return float(own - others)

    @about(lambda eraser: eraser.aims == "prompts")
    def test_the_target_moves_more_than_under_a_random_aim(self, subject: Any, eraser: Anything, erasure: Any) -> None:
        """Other words with other answers, unlearned as hard, are the control, or as much of what was found at random."""
        effect = self.effect_of(eraser, subject)
        aimed = effect(subject, erasure)
        random = [effect(subject, self.elsewhere(eraser, subject, seed)) for seed in range(RANDOM)]
        assert aimed > 0 and aimed > sum(random) / len(random)


def change(subject: Subject, erasure: Any, read: Callable[[Any], Tensor]) -> Tensor:
    """What an erasure changes of what is read."""
    with torch.no_grad():
        before = read(subject)
        with erasure.on(subject):
            return read(subject) - before


def answered_prompts(concept: Concept) -> list[tuple[Prompt, str]]:
    """The concept's fit prompts, each with its answer."""
    return [(p, " " + p.answers[0]) for p in concept.target.fit]


def answers_lost(subject: Any, erasure: Any) -> float:
    """Log likelihood that the answers of the erasers' concept lose, in the mean."""
    return -float(change(subject, erasure, lambda s: s.log_probs(answered_prompts(TextErasers.concept)).total).mean())


def later_states(subject: Any, site: Site, prompts: Sequence[Prompt]) -> Tensor:
    """States at a site of all tokens behind the first of their prompt, (n, d)."""
    x, read = read_site(subject, site, prompts)
    return x[after_first_token(read)]
