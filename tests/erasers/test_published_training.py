"""Training as the authors of most methods do it: a latent at a time, and steps of Adam's own size."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from concept_probe.erasers import Training
from concept_probe.erasers.finetune.distillation import (
    DistillationTerm,
    distil,
    latent_by_latent,
    retain_terms,
    same_prompt,
)
from concept_probe.erasers.finetune.negative_guidance import negative_guidance_target
from concept_probe.erasers.finetune.parts import denoiser_parameters
from concept_probe.erasers.training.loop import AdamStep, descend
from concept_probe.erasers.training.replay import collect
from concept_probe.erasers.training.trainable import FullWeights
from concept_probe.testing.concepts import tiny_concept
from concept_probe.testing.models.diffusion import tiny_sd
from concept_probe.types import Sampling

CONCEPT = tiny_concept()
SAMPLING = Sampling(steps=3, guidance=2.0, batch=8)


def met_in_training(options: Training, monkeypatch) -> list[list[str]]:
    """Texts of the prompts that each walk was made for, of a term that erases and one that keeps, as they came."""
    subject, met = tiny_sd(), []

    def noted(subject, prompts, *rest):
        met.append([p.text for p in prompts])
        return collect(subject, prompts, *rest)

    monkeypatch.setattr("concept_probe.erasers.finetune.distillation.collect", noted)
    terms = [
        DistillationTerm(CONCEPT.target.fit, same_prompt, lambda pool: negative_guidance_target(subject, pool, 3.0)),
        *retain_terms(subject, CONCEPT, ["unrelated"], 1.0),
    ]
    distil(subject, FullWeights(subject, denoiser_parameters(subject, "strict")), terms, options, "test")
    return met


def test_one_latent_at_a_time_is_of_the_next_prompt_of_every_term(monkeypatch):
    steps = len(CONCEPT.target.fit)
    assert steps > 1 and len(CONCEPT.unrelated.fit) > 1
    met = met_in_training(replace(latent_by_latent(steps, 1e-4), sampling=SAMPLING, retain=1.0), monkeypatch)
    assert met[::2] == [[p.text] for p in CONCEPT.target.fit]
    assert met[1::2] == [[CONCEPT.unrelated.fit[i % len(CONCEPT.unrelated.fit)].text] for i in range(steps)]
    same = met_in_training(Training(steps=3, pictures=1, refresh=1, sampling=SAMPLING), monkeypatch)
    assert [m for m in same if m != same[1]] == [same[0]] * 3, "unless asked for, the concept's own first, again"


def test_a_published_step_is_adams_own_and_stays():
    subject = tiny_sd()
    addresses = denoiser_parameters(subject, "strict")

    def largest_moves(step: AdamStep, steps: int) -> list[float]:
        pupil = FullWeights(subject, addresses)

        def loss(_: int, __: torch.Generator) -> torch.Tensor:
            return torch.stack([x.sum() for x in pupil.parameters.values()]).sum()

        descend(pupil, loss, steps=steps, rate=step, generator=torch.Generator(), method="test")
        return [float((pupil.trained[a] - pupil.original[a]).abs().max()) for a in addresses]

    assert largest_moves(AdamStep(1e-3, absolute=True), 1) == pytest.approx([1e-3] * len(addresses), rel=1e-3)
    assert max(largest_moves(AdamStep(1e-3), 1)) < 5e-4, "a multiple of the mean size, which is smaller"
    constant = largest_moves(AdamStep(1e-3, absolute=True, constant=True), 4)
    assert constant == pytest.approx([4e-3] * len(addresses), rel=1e-2)
    assert max(largest_moves(AdamStep(1e-3, absolute=True), 4)) < 3.5e-3
