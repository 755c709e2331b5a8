"""EraseAnything: attention to subjects against what the image reads, losses against formulas, and what is trained."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from concept_probe.activations import tap
from concept_probe.erasers.finetune.distillation import Training, distillation_loss
from concept_probe.erasers.finetune.erase_anything import (
    TEXT_ROLES,
    EraseAnything,
    TwoLevels,
    _Prompts,
    mean_cosine_of_maps,
    reverse_contrast,
)
from concept_probe.erasers.finetune.negative_guidance import negative_guidance_term
from concept_probe.erasers.finetune.parts import weights_at
from concept_probe.erasers.training.joint_attention import attention_to_subjects
from concept_probe.erasers.training.trainable import LowRankAdapters
from concept_probe.testing.concepts import tiny_concept
from concept_probe.testing.models import TINY_MODELS
from concept_probe.testing.models.read_by_lm import READ_BY_LM
from concept_probe.testing.models.transformers import TRANSFORMERS, tiny_flux, tiny_sd3
from concept_probe.types import SUBJECT, Prompt, Sampling, Site, Splits

CONCEPT = tiny_concept()
SHORT = Training(steps=4, batch=4, pictures=2, sampling=Sampling(steps=2, guidance=2.0, batch=8))
JOINT = ("sd3", "flux", "chroma", "aura-flow", "flux2-klein", "qwen-image")
QUICK = ("sd3", "flux")


@pytest.fixture(scope="module", params=[tiny_flux, tiny_sd3])
def subject(request):
    return request.param()


@pytest.mark.parametrize("model", [m if m in QUICK else pytest.param(m, marks=pytest.mark.slow) for m in JOINT])
def test_shares_are_what_the_image_reads_of_the_subjects_values(model):
    """What is added to the values at the subject's tokens comes out at each patch as the share of its attention to them."""
    subject: Any = (TRANSFORMERS | READ_BY_LM)[model]()
    prompts = [Prompt("the cat", "cat"), Prompt("a red cat in the sun", "sun"), Prompt("the dog")]
    condition = subject.encode(prompts)
    x = torch.randn(3, *subject.latent_shape, generator=torch.Generator().manual_seed(0))
    keys = subject.sites("joint_text_key")
    at = keys[0].path.rpartition(".")[0]
    value, read = subject.sites("joint_text_value")[0], Site(keys[0].component, f"{at}.to_out.0", "in")
    named = condition.kinds == SUBJECT

    def add(v: torch.Tensor, moment: object) -> torch.Tensor:
        first = v.shape[1] - named.shape[1]  # a stream may begin with registers
        marks = torch.nn.functional.pad(named.to(v), (first, 0))
        return v + marks[..., None]

    def reads(**more: object) -> torch.Tensor:
        seen = []
        with tap(subject, {**more, read: lambda x, moment: seen.append(x.clone())}):  # pyright: ignore[reportArgumentType]
            subject.predict(x, torch.full((3,), 500.0), condition)
        return seen[0]

    with torch.no_grad():
        with attention_to_subjects(subject) as shares:
            subject.predict(x, torch.full((3,), 500.0), condition)
        with tap(subject, {value: add}):
            after = reads()
        moved = (after - reads()).mean(-1)
    assert len(shares) == len(keys) and shares[0].shape == moved.shape
    torch.testing.assert_close(shares[0], moved, atol=1e-5, rtol=1e-4)
    assert float(shares[0][:2].min()) > 0 and float(shares[0][2].abs().max()) == 0


def test_only_the_last_pass_is_told_and_what_no_one_saw_is_refused(subject, monkeypatch):
    condition, times = subject.encode([Prompt("the cat", "cat")]), torch.tensor([500.0])
    x = torch.randn(1, *subject.latent_shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad(), attention_to_subjects(subject) as shares:
        subject.predict(x, times, condition)
        first = [share.clone() for share in shares]
        subject.predict(2 * x, times, condition)
        assert len(shares) == len(first) and not torch.equal(shares[0], first[0])
    attend = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", lambda *a, **k: attend(*a, **k))
    with pytest.raises(ValueError, match=r"was not seen, since .* \(transformer.set_attention_backend\('native'\)"):
        unseen = attention_to_subjects(subject)
        with torch.no_grad(), unseen:
            subject.predict(x, times, condition)


def test_the_contrast_is_its_formula_and_falls_as_synonyms_get_less_like():
    synonyms, others = torch.tensor([0.9, 0.2]), torch.tensor([[0.5, 0.1], [0.3, 0.4]])
    alike, unlike = (synonyms / 0.07).exp(), (others / 0.07).exp().sum(0)
    wanted = (alike / (alike + unlike)).log().mean()
    torch.testing.assert_close(reverse_contrast(synonyms, others, 0.07), wanted)
    assert reverse_contrast(synonyms - 0.1, others, 0.07) < wanted < reverse_contrast(synonyms, others - 0.1, 0.07)
    maps, frozen = [torch.eye(2), torch.eye(2)], [torch.eye(2).repeat(2, 1), torch.ones(4, 2)]
    torch.testing.assert_close(mean_cosine_of_maps(maps, frozen), torch.full((2, 2), (1 + 0.5**0.5) / 2))


def levels_of(subject, **options):
    eraser = EraseAnything(training=SHORT, **options)
    student = LowRankAdapters(subject, weights_at(subject, TEXT_ROLES), eraser.rank, 0)
    return TwoLevels(eraser, subject, CONCEPT, student, _Prompts.of(eraser, CONCEPT)), student


def drawn() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def test_steps_take_turns_and_each_level_is_its_losses(subject):
    levels, student = levels_of(subject, attended=0.5, contrast=0.2)
    term = negative_guidance_term(subject, CONCEPT, CONCEPT.target.fit, 1.0, "empty", "erase_anything")
    esd = distillation_loss(subject, student, [term], SHORT)
    assert levels.kept is not None and levels.own is not None
    with student.on(), torch.enable_grad():
        upper, lower = levels.loss(2, drawn()), levels.loss(3, drawn())
        torch.testing.assert_close(upper, esd(1, drawn()) + 0.5 * levels.attended[-1])
        generator = drawn()
        flow = subject.denoising_loss(*levels._drawn(levels.kept, generator), generator)
        contrast = levels.contrast(*levels._drawn(levels.own, generator), generator)
        torch.testing.assert_close(lower, flow + 0.2 * contrast)
        assert levels.erased == [float(upper.detach())] and levels.kept_losses == [float(lower.detach())]
        assert levels.attended[-1] > 0 > float(contrast.detach())
        (upper + lower).backward()
        moved = [where for where, (u, _) in student.pairs.items() if u.grad is not None and u.grad.abs().max() > 0]
    assert {where.rpartition(".")[2] for where in moved} == {"add_q_proj:weight", "add_k_proj:weight"}


@pytest.mark.slow
def test_training_turns_the_image_from_the_subject_and_leaves_the_rest_of_the_model_alone(subject):
    weights = subject.weight_hash(whole=True)
    training = replace(SHORT, steps=24, rate=0.05)
    edit = EraseAnything(attended=20.0, training=training)(subject, CONCEPT)
    assert {where.rpartition(".")[2] for where in edit.deltas} == {"add_q_proj:weight", "add_k_proj:weight"}
    first, last = edit.made_by["attended"]
    assert [len(edit.made_by[name]) for name in ("loss", "keeping")] == [2, 2]
    assert 0 < last < 0.9 * first and subject.weight_hash(whole=True) == weights
    nothing = EraseAnything(strength=0.0)(subject, CONCEPT)
    assert not nothing.deltas and nothing.made_by["loss"] == []


def test_what_it_can_not_tell_is_refused():
    subject, eraser = tiny_flux(), EraseAnything(training=SHORT)
    unnamed = Splits(fit=tuple(replace(p, subject=None) for p in CONCEPT.target.fit))
    with pytest.raises(ValueError, match=r"no prompt of 'cat' in target .* names its subject"):
        eraser(subject, replace(CONCEPT, target=unnamed))
    alone = replace(CONCEPT, neighbours=Splits(), anchor=Splits(), unrelated=unnamed)
    with pytest.raises(
        ValueError, match=r"in neighbours, anchor, unrelated .* or do without the contrast \(contrast=0\)"
    ):
        eraser(subject, alone)
    with pytest.raises(ValueError, match="temperature is 0; it is above 0"):
        replace(eraser, temperature=0.0)(subject, CONCEPT)


@pytest.mark.parametrize("model", ["sd", pytest.param("pixart-alpha", marks=pytest.mark.slow)])
def test_where_the_text_has_no_queries_of_its_own_it_is_refused(model):
    with pytest.raises(ValueError, match=r"the text has queries and keys of its own, and .* has none; ESD"):
        EraseAnything()(TINY_MODELS[model](), CONCEPT)
