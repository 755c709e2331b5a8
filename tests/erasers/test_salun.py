"""SalUn trains what matters most to the concept, and leads it to another at its own latents."""

from __future__ import annotations

import pytest
import torch

from concept_probe.erasers import Training
from concept_probe.erasers.erasure.deltas import Shift
from concept_probe.erasers.finetune.parts import denoiser_parameters
from concept_probe.erasers.finetune.salun import MAP_BATCHES, SalUn, guided_gradients, largest_of_all
from concept_probe.erasers.training.trainable import FullWeights
from concept_probe.testing.concepts import tiny_concept
from concept_probe.testing.models.diffusion import tiny_sd
from concept_probe.testing.models.transformers import tiny_sd3
from concept_probe.types import Query, Sampling

CONCEPT = tiny_concept()
SHORT = Training(steps=3, batch=3, pictures=2, sampling=Sampling(steps=3, guidance=2.0))


def test_the_largest_are_those_of_all_parameters_together():
    gradients = {
        "a": torch.tensor([[0.1, -3.0], [0.2, 0.3]]),
        "b": torch.tensor([-5.0, 0.05]),
        "c": torch.tensor([0.01]),
    }
    found = largest_of_all(gradients, 3 / 7)
    assert {w: m.tolist() for w, m in found.items()} == {"a": [[False, True], [False, True]], "b": [True, False]}
    least = largest_of_all(gradients, 3 / 7, least=True)
    assert {w: m.tolist() for w, m in least.items()} == {
        "a": [[True, False], [False, False]],
        "b": [False, True],
        "c": [True],
    }
    assert sum(int(m.sum()) for m in largest_of_all(gradients, 1e-9).values()) == 1


@pytest.mark.parametrize("make", [tiny_sd, tiny_sd3])
def test_what_matters_is_told_by_the_guided_loss_of_the_concepts_pictures(make):
    """Without guidance it is the gradient of the denoising loss; the empty prompt has a part in it with."""
    subject = make()
    student = FullWeights(subject, denoiser_parameters(subject, "strict"))
    asked = CONCEPT.target.fit[:1]
    found = guided_gradients(subject, student, asked, 0.0, SHORT)
    clean = subject.sample([Query(asked[0], SHORT.seed + i) for i in range(2)], SHORT.sampling)
    generator = torch.Generator().manual_seed(SHORT.seed)
    with student.on(), torch.enable_grad():
        for _ in range(MAP_BATCHES):
            rows = torch.randint(2, (3,), generator=generator)
            subject.denoising_loss(clean[rows], asked * 3, generator).backward()
        wanted = {where: p.grad.clone() for where, p in student.parameters.items() if p.grad is not None}
    assert wanted and all(torch.allclose(found[w], x, rtol=1e-3, atol=1e-6) for w, x in wanted.items())
    guided = guided_gradients(subject, student, asked, 7.5, SHORT)
    assert not any(torch.allclose(guided[w], found[w], rtol=1e-2) for w in wanted)
    assert all(p.grad is None for p in student.parameters.values())


@pytest.mark.parametrize("least", [False, True])
def test_what_does_not_matter_stays_to_the_bit(least):
    subject = tiny_sd()
    options = SalUn(part="strict", share=0.25, least=least, training=SHORT)
    edit = options(subject, CONCEPT)
    student = FullWeights(subject, denoiser_parameters(subject, "strict"))
    gradients = guided_gradients(subject, student, CONCEPT.target.fit, 7.5, SHORT)
    masks = largest_of_all(gradients, 0.25, least=least)
    moved = 0
    for where, mask in masks.items():
        delta = edit.deltas[where]
        assert isinstance(delta, Shift)
        assert not delta.apply(torch.zeros(mask.shape))[~mask].any()
        moved += int(delta.apply(torch.zeros(mask.shape)).count_nonzero())
    assert set(edit.deltas) == set(masks) and 0 < moved <= round(0.25 * sum(g.numel() for g in gradients.values()))


def test_a_guide_is_another_thing_and_no_share_is_refused():
    subject = tiny_sd()
    made = SalUn(part="strict", guide="sun", training=SHORT)(subject, CONCEPT)
    assert set(made.made_by["guides"].values()) == {p.text.replace("cat", "sun") for p in CONCEPT.target.fit}
    with pytest.raises(ValueError, match="leads every prompt to itself"):
        SalUn(guide="cat", training=SHORT)(subject, CONCEPT)
    with pytest.raises(ValueError, match="share is 0"):
        SalUn(share=0.0)(subject, CONCEPT)
