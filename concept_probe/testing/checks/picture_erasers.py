"""Laws of erasers that erase from what makes pictures: those of every eraser, and where each has to lead."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from concept_probe.activations import tap
from concept_probe.erasers import Edit
from concept_probe.erasers.eraser import TINY_SAMPLING
from concept_probe.families import Subject
from concept_probe.testing import found
from concept_probe.testing.checks.erasers import Anything, EraserLaws, edits
from concept_probe.testing.concepts import made_up_concept, tiny_concept
from concept_probe.testing.law import about, once
from concept_probe.testing.reading import read_first
from concept_probe.types import Concept, Prompt, Query, Site

GOALS = {"to_empty": (Prompt(""),) * 4, "to_anchor": tiny_concept().anchor.fit}
"""The prompts whose predictions the concept's fit prompts are led to."""
FEW, SOME = 3, 8
"""Random aims that trained erasers, and others, are compared with."""


class PictureErasers(EraserLaws):
    answers = "pictures"
    concept = tiny_concept()
    random_aims: ClassVar[Mapping[str, Callable[[Any, int], Any]]] = {}
    """(subject, seed) -> the erasure, of methods that choose by themselves what they work on: a random choice."""

    def another(self) -> Concept:
        return made_up_concept(0)

    def read(self, subject: Subject) -> Tensor:
        return subject.generate([Query(p, i) for i, p in enumerate(self.concept.target.test[:2])], TINY_SAMPLING)

    def read_in_parts(self, subject: Subject) -> tuple[Tensor, Tensor]:
        own, others = self.concept.target.test, self.concept.unrelated.test
        queries = [Query(p, i) for i, p in enumerate((*own, *others))]
        parts = subject.generate(queries[::-1], replace(TINY_SAMPLING, batch=2)).flip(0)
        return subject.generate(queries, TINY_SAMPLING), parts

    def elsewhere(self, eraser: Anything, subject: Subject, seed: int) -> Any:
        """The same method, given as much at random; where it goes by prompts, the same sentences with a made-up word."""
        if eraser.name in self.random_aims:
            return self.random_aims[eraser.name](subject, seed)
        drawn = found.drawn(eraser.needs, subject, self.concept, seed)
        if drawn is not None:
            return eraser(subject, self.concept, drawn)
        return eraser(subject, made_up_concept(seed), found.aimed(eraser.needs, subject, self.concept))

    def of_random(self, effect: Callable[[Any], float], eraser: Anything, subject: Subject, count: int) -> float:
        """The mean effect of as many erasures that are aimed elsewhere."""
        return sum(effect(self.elsewhere(eraser, subject, seed)) for seed in range(count)) / count

    @about(lambda eraser: eraser.aims in ("prompts", "patches"))
    def test_the_target_moves_more_than_under_a_random_aim(self, subject: Any, eraser: Anything, erasure: Any) -> None:
        joint = "cross_value" not in subject.roles()
        if joint and eraser.aims == "patches":
            pytest.skip("what a joint attention writes to patches comes from patches too, by chance in a random model")
        if joint and len(subject.text.encoders) > 1:
            acts = {site.component for site in getattr(erasure, "actions", ())}
            acts |= {where.partition("/")[0] for where in getattr(erasure, "deltas", ())}
            if acts and acts <= subject.text.encoders.keys():
                pytest.skip("how much of a text each of several encoders tells is chance in a random model")
        own, others = (
            (*splits.fit, *splits.test) for splits in (self.concept.target, self.concept.unrelated)
        )  # the same sentences, word for word, about the concept and about something else
        patches = eraser.aims == "patches"
        role = "denoiser_out" if patches else "cross_value"

        def both() -> tuple[Tensor, Tensor]:
            return read_first(subject, own, role), read_first(subject, others, role)

        before = both()

        def moved(made: Any) -> float:
            """How far the target moves relative to the other prompts: what happens to both alike doesn't count."""
            with made.on(subject):
                change = [x - y for x, y in zip(both(), before, strict=True)]
            apart = float(torch.linalg.vector_norm(change[0] - change[1]))
            # Random features of a random model fire everywhere: there it's the share of the change that counts.
            whole = float(torch.stack([x.square().sum() for x in change]).sum().sqrt()) if patches else 1.0
            return apart / whole if whole else 0.0

        assert moved(erasure) > self.of_random(moved, eraser, subject, SOME)

    @about(lambda eraser: not edits(eraser) and eraser.aims != "to_anchor")
    @once
    def test_a_guard_acts_without_guidance_or_says_that_it_can_not(self, subject: Subject, erasure: Any) -> None:
        """Those that tell trajectories of the concept from others may take these for others, and are left out."""
        asked = [Query(p, i) for i, p in enumerate(self.concept.target.fit[:2])]
        plain = replace(TINY_SAMPLING, guidance=1.0)
        before = subject.generate(asked, plain)
        with warnings.catch_warnings(record=True) as said, erasure.on(subject):
            warnings.simplefilter("always")
            during = subject.generate(asked, plain)
        told = [w for w in said if "changes nothing" in str(w.message)]
        assert len(told) == (1 if torch.equal(before, during) else 0)

    @about(lambda eraser: eraser.aims == "text")
    def test_a_text_leads_away_from_the_prompts_that_say_it(self, subject: Subject, eraser: Anything) -> None:
        """Cosine between what a guard does to the guided prediction of a cat, and the way from it to the empty prompt.

        Texts of the same length about something else are the control.
        """
        site, asked = subject.sites("denoiser_out")[0], self.concept.target.fit[0]
        empty, cond = guided_parts(subject, site, asked)

        def away(text: str) -> float:
            with self.make(replace(eraser, text=text), subject).on(subject):
                u, c = guided_parts(subject, site, asked)
            moved = (1 - TINY_SAMPLING.guidance) * (u - empty) + TINY_SAMPLING.guidance * (c - cond)
            return float(torch.cosine_similarity(moved.flatten(), (empty - cond).flatten(), dim=0))

        others = [away(text) for text in ("the dog", "the sun", "the red")]
        assert away("the cat") > sum(others) / len(others)

    @about(lambda eraser: eraser.aims in GOALS)
    def test_training_leads_the_target_to_its_goal_and_random_words_do_not(
        self, subject: Subject, eraser: Anything, erasure: Any
    ) -> None:
        """Share of the way from the target's predictions to its goal that an erasure goes.

        Where all that reads any prompt is trained, less that which the same sentences about something else go.
        """
        lists = (self.concept.target.fit, self.concept.unrelated.fit)
        before = [read_first(subject, prompts, "denoiser_out") for prompts in lists]
        goal = read_first(subject, GOALS[eraser.aims], "denoiser_out")

        def gone(made: Any) -> float:
            with made.on(subject):
                after = [read_first(subject, prompts, "denoiser_out") for prompts in lists]
            own, others = (
                float(((a - b) * (goal - b)).sum() / (goal - b).square().sum())
                for a, b in zip(after, before, strict=True)
            )  # fmt: skip
            return own - others if changes_reading(made, subject) else own

        aimed = gone(erasure)
        assert aimed > 0 and aimed > self.of_random(gone, eraser, subject, FEW)

    @about(lambda eraser: eraser.aims == "examples")
    def test_pictures_fit_the_target_worse_than_after_training_on_random_words(
        self, subject: Any, eraser: Anything, erasure: Any
    ) -> None:
        """Denoising loss of the concept's pictures under its prompts, at the same noise and timesteps each time."""
        clean = subject.latents(self.concept.examples)

        def misfit() -> float:
            draws = [torch.Generator().manual_seed(seed) for seed in range(4)]
            return sum(float(subject.denoising_loss(clean, self.concept.target.fit, draw)) for draw in draws)

        def after(made: Any) -> float:
            with made.on(subject), torch.no_grad():
                return misfit()

        with torch.no_grad():
            before = misfit()
        aimed = after(erasure)
        assert aimed > before and aimed > self.of_random(after, eraser, subject, FEW)


def guided_parts(subject: Subject, site: Site, asked: Prompt) -> tuple[Tensor, Tensor]:
    """Unconditional and conditional prediction at the first step."""
    seen = []
    with tap(subject, {site: lambda x, moment: seen.append(x.clone())}):
        subject.run_to([site], [Query(asked, i) for i in range(4)], TINY_SAMPLING, [0])
    empty, cond = seen[-1].chunk(2)  # a guard's own pass comes before the one that it is part of
    return empty, cond


def changes_reading(made: Any, subject: Subject) -> bool:
    """Whether it is an edit of what reads prompts, and of nothing else."""
    if not isinstance(made, Edit):
        return False
    reads = {site.component for site in subject.sites("text_stream")}
    return all(address.partition("/")[0] in reads for address in made.deltas)
