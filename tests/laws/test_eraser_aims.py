"""Where erasers lead that have no aim of their own to be compared with: texts, goals of training, pictures."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from concept_probe.activations import tap
from concept_probe.families import UNetSubject
from concept_probe.testing.models.diffusion import DIFFUSION
from concept_probe.types import Query
from tests.laws.eraser_aims import read_values
from tests.laws.eraser_cases import (
    CASES,
    CLIMBING,
    CONCEPT,
    LEADING,
    SAMPLING,
    TRAINED,
    Erasure,
)


@pytest.fixture(scope="module", params=DIFFUSION)
def subject(request) -> UNetSubject:
    return DIFFUSION[request.param]()


@pytest.mark.parametrize("name", LEADING)
def test_a_text_leads_away_from_the_prompts_that_say_it(subject: UNetSubject, name: str):
    """Cosine between what a guard does to the guided prediction of a cat, and the way from it to the empty prompt.

    Texts of the same length about something else are the control.
    """
    site, asked = subject.sites("denoiser_out")[0], CONCEPT.target.fit[0]

    def parts() -> tuple[Tensor, Tensor]:
        """Unconditional and conditional prediction at the first step."""
        seen = []
        with tap(subject, {site: lambda x, m: seen.append(x.clone())}):
            subject.run_to([site], [Query(asked, i) for i in range(4)], SAMPLING, [0])
        empty, cond = seen[-1].chunk(2)  # a guard's own pass comes before the one that it is part of
        return empty, cond

    empty, cond = parts()

    def away(text: str) -> float:
        with LEADING[name](subject, text).on(subject):
            u, c = parts()
        moved = (1 - SAMPLING.guidance) * (u - empty) + SAMPLING.guidance * (c - cond)
        return float(torch.cosine_similarity(moved.flatten(), (empty - cond).flatten(), dim=0))

    others = [away(text) for text in ("the dog", "the sun", "the red")]
    assert away("the cat") > sum(others) / len(others)


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_training_leads_the_target_to_its_goal_and_random_words_do_not(subject: UNetSubject, name: str):
    """Share of the way from the target's predictions to its goal that an erasure goes.

    Where all that reads any prompt is trained, less that which the same sentences about something else go.
    """
    lists = (CONCEPT.target.fit, CONCEPT.unrelated.fit)
    before = [read_values(subject, prompts, "denoiser_out") for prompts in lists]
    goal = read_values(subject, TRAINED[name], "denoiser_out")

    def gone(made: Erasure) -> float:
        with made.on(subject):
            after = [read_values(subject, prompts, "denoiser_out") for prompts in lists]
        own, others = (
            float(((a - b) * (goal - b)).sum() / (goal - b).square().sum())
            for a, b in zip(after, before, strict=True)
        )  # fmt: skip
        return own - others if name == "adv_unlearn" else own

    aimed = gone(CASES[name].aimed(subject))
    random = [gone(CASES[name].random(subject, seed)) for seed in range(3)]
    assert aimed > 0 and aimed > sum(random) / len(random)


@pytest.mark.parametrize("name", CLIMBING)
def test_pictures_fit_the_target_worse_than_after_training_on_random_words(subject: UNetSubject, name: str):
    """Denoising loss of the concept's pictures under its prompts, at the same noise and timesteps each time."""
    assert CONCEPT.examples is not None
    clean = subject.latents(CONCEPT.examples)

    def misfit() -> float:
        draws = [torch.Generator().manual_seed(seed) for seed in range(4)]
        return sum(float(subject.denoising_loss(clean, CONCEPT.target.fit, draw)) for draw in draws)

    def after(made: Erasure) -> float:
        with made.on(subject), torch.no_grad():
            return misfit()

    with torch.no_grad():
        before = misfit()
    aimed = after(CASES[name].aimed(subject))
    random = [after(CASES[name].random(subject, seed)) for seed in range(3)]
    assert aimed > before and aimed > sum(random) / len(random)
