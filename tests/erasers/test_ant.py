"""ANT turns late guidance around, keeps early guidance, and trains the entries that every map of saliency names."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from concept_probe.erasers import Ant, Training
from concept_probe.erasers.erasure.deltas import Shift
from concept_probe.erasers.finetune import ant as module
from concept_probe.erasers.finetune.ant import (
    LOOKS,
    is_early,
    largest_entries,
    reversed_guidance_target,
    saliency_masks,
)
from concept_probe.erasers.finetune.distillation import DistillationTerm, distillation_loss, same_prompt
from concept_probe.erasers.finetune.parts import denoiser_parameters
from concept_probe.erasers.training.replay import LatentBuffer, collect, predictions
from concept_probe.erasers.training.trainable import FullWeights, MaskedWeights
from concept_probe.testing.concepts import tiny_concept
from concept_probe.testing.models.diffusion import DIFFUSION, tiny_sd, tiny_sdxl
from concept_probe.types import Prompt, Sampling, Splits

CONCEPT = tiny_concept()
SAMPLING = Sampling(steps=4, guidance=2.0, batch=8)
SHORT = Training(steps=4, batch=4, pictures=2, sampling=SAMPLING)


def test_early_is_the_noisy_end_of_a_walk():
    times = torch.tensor([999, 861, 860, 400, 1])
    pool = LatentBuffer(torch.zeros(5, 1, 1, 1), times, (Prompt("a cat"),) * 5)
    assert is_early(pool, 0.14, 1000).tolist() == [True, True, False, False, False]
    assert is_early(pool, 0.5, 2000).tolist() == [False] * 5
    assert not is_early(pool, 0.0, 1000).any() and is_early(pool, 1.0, 1000).all()


@pytest.mark.parametrize("family", DIFFUSION)
def test_its_goal_is_the_papers_on_either_side_of_the_turn(family):
    subject = DIFFUSION[family]()
    pool = collect(subject, CONCEPT.target.fit[:1], 2, SAMPLING, 0)
    own, empty = (predictions(subject, pool, [Prompt(text)] * len(pool)) for text in (CONCEPT.target.fit[0].text, ""))
    said = reversed_guidance_target(subject, pool, 1.3, 0.5)
    for i, timestep in enumerate(pool.timesteps.tolist()):
        sign = 1 if timestep > 500 else -1
        torch.testing.assert_close(said[i], empty[i] + sign * 1.3 * (own[i] - empty[i]))
    assert 0 < int(is_early(pool, 0.5, 1000).sum()) < len(pool)


def test_a_lesson_may_weigh_its_latents():
    subject = tiny_sd()
    pool = collect(subject, CONCEPT.target.fit, SHORT.pictures, SAMPLING, SHORT.seed)
    early = is_early(pool, 0.5, 1000)
    lesson = DistillationTerm(
        CONCEPT.target.fit[:2], same_prompt, lambda part: torch.zeros_like(part.inputs), 2.0,
        lambda part: torch.where(is_early(part, 0.5, 1000), 3.0, 0.5),
    )  # fmt: skip
    student = FullWeights(subject, denoiser_parameters(subject, "strict"))
    with torch.no_grad():
        loss = distillation_loss(subject, student, [lesson], SHORT)(0, torch.Generator().manual_seed(5))
    drawn = torch.randint(len(pool), (SHORT.batch,), generator=torch.Generator().manual_seed(5))
    said = predictions(subject, pool, pool.prompts)
    wanted = sum(2.0 * (3.0 if early[i] else 0.5) * float(said[i].square().mean()) for i in drawn.tolist())
    assert float(loss) == pytest.approx(wanted / SHORT.batch, rel=1e-5)


def test_the_heaviest_are_the_largest_in_size():
    slope = torch.tensor([[0.1, -5.0, 2.0], [0.0, -0.3, 1.0]])
    assert largest_entries(slope, 0.5).tolist() == [[False, True, True], [False, False, True]]
    assert int(largest_entries(slope, 0.0).sum()) == 1 and largest_entries(slope, 1.0).all()


@pytest.mark.slow
def test_salient_entries_are_those_that_every_view_names():
    subject = tiny_sd()
    student = FullWeights(subject, denoiser_parameters(subject, "strict"))
    weights = subject.weight_hash()
    views = [
        (
            DistillationTerm(prompts, same_prompt, lambda pool: reversed_guidance_target(subject, pool, 1.0, 0.0)),
            replace(SHORT, seed=seed),
        )
        for seed, prompts in ((3, CONCEPT.target.fit[:2]), (4, CONCEPT.paraphrases.fit[:2]))
    ]
    wanted = {}
    for lesson, training in views:
        pool = collect(subject, lesson.prompts, training.pictures, SAMPLING, training.seed)
        goal, generator = (
            reversed_guidance_target(subject, pool, 1.0, 0.0),
            torch.Generator().manual_seed(training.seed),
        )
        batches = [torch.randint(len(pool), (training.batch,), generator=generator) for _ in range(LOOKS)]
        with student.on():
            parts = [pool.rows(index) for index in batches]
            gaps = [
                (subject.predict(part.inputs, part.timesteps, subject.encode(part.prompts)) - goal[index])
                .square()
                .mean()
                for part, index in zip(parts, batches, strict=True)
            ]
            slopes = torch.autograd.grad(torch.stack(gaps).sum(), list(student.parameters.values()))
        for where, slope in zip(student.parameters, slopes, strict=True):
            wanted.setdefault(where, []).append(slope)
    found = saliency_masks(subject, student, views, 0.4)
    for where, (first, second) in wanted.items():
        both = largest_entries(first, 0.4) & largest_entries(second, 0.4)
        assert torch.equal(found[where], both) and both.float().mean() < 0.4
    assert subject.weight_hash() == weights and not any(p.requires_grad for p in student.parameters.values())


def test_only_chosen_entries_are_trained():
    subject = tiny_sdxl()
    weights = subject.weight_hash()
    (where, *_) = denoiser_parameters(subject, "strict")
    p = FullWeights(subject, [where]).parameters[where]
    mask = torch.rand(p.shape, generator=torch.Generator().manual_seed(0)) < 0.3
    student = MaskedWeights(subject, {where: mask})
    optimiser = torch.optim.Adam(student.groups(0.1))
    with student.on(), torch.enable_grad():
        for _ in range(3):
            optimiser.zero_grad()
            (p**2).sum().backward()
            optimiser.step()
    change = student.deltas()[where]
    assert isinstance(change, Shift) and torch.equal(change.values != 0, mask)
    with torch.enable_grad():
        assert p.grad is None and not p.requires_grad and subject.weight_hash() == weights


@pytest.mark.slow
def test_an_edit_moves_no_more_than_its_share():
    edit = Ant(part="strict", share=0.3, views=2, training=SHORT)(tiny_sd(), CONCEPT)
    for delta in edit.deltas.values():
        assert isinstance(delta, Shift) and 0 < (delta.values != 0).float().mean() <= 0.31
    every = Ant(part="strict", share=1.0, training=SHORT)(tiny_sd(), CONCEPT)
    assert all((delta.values != 0).float().mean() > 0.9 for delta in every.deltas.values() if isinstance(delta, Shift))


@pytest.mark.slow
def test_bad_input_is_refused_and_changes_nothing(monkeypatch):
    subject = tiny_sd()
    weights = subject.weight_hash()
    with pytest.raises(ValueError, match=r"early is 1\.5"):
        Ant(early=1.5)(subject, CONCEPT)
    with pytest.raises(ValueError, match="share is -1"):
        Ant(share=-1)(subject, CONCEPT)
    with pytest.raises(ValueError, match="no prompts in target"):
        Ant()(subject, replace(CONCEPT, target=Splits()))
    with pytest.raises(ValueError, match="no prompts in paraphrases"):
        Ant(augment=("paraphrases",), training=SHORT)(subject, replace(CONCEPT, paraphrases=Splits()))
    monkeypatch.setattr(module, "saliency_masks", lambda *_: {})
    with pytest.raises(ValueError, match="in all 2 maps of saliency; raise `share`"):
        Ant(views=1, training=SHORT)(subject, CONCEPT)
    assert subject.weight_hash() == weights
