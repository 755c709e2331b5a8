"""What each kind of guidance makes of a batch, and of what the denoiser predicts for it."""

from __future__ import annotations

import pytest
import torch

from concept_probe.content import digest_of
from concept_probe.families import Conditioning
from concept_probe.families.diffusion.guidance import ClassifierFree, Distilled, NoGuidance, classifier_free
from concept_probe.testing.models.diffusion import tiny_sd
from concept_probe.types import Sampling

TEXT = Conditioning(torch.randn(2, 3, 4), torch.randn(2, 5), torch.ones(2, 3, dtype=torch.long))
NULL = Conditioning(torch.zeros(1, 3, 4), torch.zeros(1, 5), torch.zeros(1, 3, dtype=torch.long))
LATENTS = torch.randn(2, 4, 8, 8)


def test_classifier_free_guidance_puts_both_branches_in_one_batch():
    guidance = ClassifierFree(3.0)
    assert guidance.needs_null_text and guidance.branches(2) == ("uncond", "uncond", "cond", "cond")
    assert guidance.rows((5, 6)) == (5, 6, 5, 6)
    condition = guidance.condition(TEXT, NULL)
    assert torch.equal(condition.states, torch.cat([NULL.states, NULL.states, TEXT.states]))
    assert condition.pooled is not None and TEXT.pooled is not None and torch.equal(condition.pooled[2:], TEXT.pooled)
    assert torch.equal(guidance.inputs(LATENTS), torch.cat([LATENTS, LATENTS]))
    uncond, cond = torch.randn(2, 2, 4, 8, 8)
    assert torch.equal(guidance.combined(torch.cat([uncond, cond])), uncond + 3.0 * (cond - uncond))
    with pytest.raises(ValueError, match="needs the condition of no prompt"):
        guidance.condition(TEXT, None)


def test_a_rescaled_prediction_has_the_spread_of_the_one_under_the_prompt():
    """As `rescale_noise_cfg` of the library has it (arXiv 2305.08891, section 3.4)."""
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg

    uncond, cond = torch.randn(2, 2, 4, 8, 8)
    both, guided = torch.cat([uncond, cond]), uncond + 3.0 * (cond - uncond)
    whole = ClassifierFree(3.0).rescaled(1.0).combined(both)
    torch.testing.assert_close(whole.std((1, 2, 3)), cond.std((1, 2, 3)))
    some = ClassifierFree(3.0).rescaled(0.7).combined(both)
    torch.testing.assert_close(some, rescale_noise_cfg(guided, cond, 0.7))
    assert torch.equal(ClassifierFree(3.0).rescaled(0.0).combined(both), guided)
    assert NoGuidance().rescaled(0.7) == NoGuidance() and Distilled(2.0).rescaled(0.0) == Distilled(2.0)
    with pytest.raises(ValueError, match=r"guidance_rescale 0\.7 was asked of a denoiser that was distilled"):
        Distilled(2.0).rescaled(0.7)


def test_names_of_measurements_hold_the_rescale_where_there_is_one():
    """So what was stored before there was one keeps its name."""
    usual, rescaled = Sampling(), Sampling(guidance_rescale=0.7)
    assert str(usual) == "Sampling(steps=15, guidance=4.0, batch=16, tokens=32, temperature=0.0)"
    assert "guidance_rescale" not in usual.options() and rescaled.options()["guidance_rescale"] == 0.7
    assert digest_of(usual) != digest_of(rescaled)
    with pytest.raises(ValueError, match="guidance_rescale"):
        Sampling(guidance_rescale=1.5)


@pytest.mark.parametrize("guidance", [NoGuidance(), Distilled(3.5)])
def test_with_one_branch_the_batch_stays_as_it_is(guidance):
    assert not guidance.needs_null_text and guidance.branches(2) == ("cond", "cond")
    assert guidance.rows((5, 6)) == (5, 6)
    assert guidance.inputs(LATENTS) is LATENTS and guidance.combined(LATENTS) is LATENTS
    assert torch.equal(guidance.condition(TEXT, None).states, TEXT.states)


def test_a_distilled_denoiser_reads_the_weight_with_the_text():
    condition = Distilled(3.5).condition(TEXT, None)
    assert condition.guidance is not None and condition.guidance.tolist() == [3.5, 3.5]
    rows = condition.rows(torch.tensor([1, 1, 0]))
    assert rows.guidance is not None and len(rows.guidance) == 3
    both = condition.then(condition)
    assert both.guidance is not None and len(both.guidance) == 4
    assert condition.then(TEXT).guidance is None
    assert condition.zeroed(torch.tensor([True, False])).guidance is condition.guidance


def test_a_weight_of_1_or_less_asks_nothing_without_a_prompt():
    assert classifier_free(1.0) == NoGuidance() and classifier_free(1.5) == ClassifierFree(1.5)


def test_an_autoencoder_s_shift_is_taken_off_and_put_back():
    """As pipelines with a `shift_factor` have it: latents are (z - shift) · scale."""
    subject = tiny_sd()
    pictures = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    vae = subject.pipeline.vae
    plain = subject.latents(pictures)
    vae.register_to_config(shift_factor=0.3)
    shifted = subject.latents(pictures)
    mean = vae.encode(pictures * 2 - 1).latent_dist.mode()
    torch.testing.assert_close(shifted, (mean - 0.3) * vae.config.scaling_factor)
    assert not torch.allclose(shifted, plain)
    vae.register_to_config(shift_factor=None)
    before = subject.decode(plain)
    vae.register_to_config(shift_factor=0.3)
    torch.testing.assert_close(subject.decode(shifted), before)
