"""Few-shot unlearning: which parameters climb, on which pictures, and by what loss."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from concept_probe.erasers import FewShot, Training
from concept_probe.erasers.erasure.parameters import find_parameter
from concept_probe.erasers.finetune.few_shot import example_images, feed_forward_parameters
from concept_probe.testing.concepts import tiny_concept
from concept_probe.testing.models.diffusion import DIFFUSION, tiny_sd, tiny_sdxl
from concept_probe.types import Query, Sampling, Splits

CONCEPT = tiny_concept()
SAMPLING = Sampling(steps=2, guidance=2.0)
SHORT = Training(steps=3, batch=4, pictures=2, sampling=SAMPLING, rate=0.01, retain=0.0)


def test_mlps_are_trained_and_the_attention_of_the_last_layers():
    subject = tiny_sd()
    names = {
        f"text_encoder/{path}:{leaf}"
        for path, _, leaf in (name.rpartition(".") for name, _ in subject.components["text_encoder"].named_parameters())
    }
    assert set(feed_forward_parameters(subject, 0, "test")) == {n for n in names if ".mlp." in n}
    one = set(feed_forward_parameters(subject, 1, "test"))
    assert one == {n for n in names if ".mlp." in n or ("layers.1." in n and ".self_attn." in n)}
    two = set(feed_forward_parameters(subject, 2, "test"))
    assert two == {n for n in names if ".mlp." in n or ".self_attn." in n}
    for wrong in (3, -1):
        with pytest.raises(ValueError, match=f"attentions is {wrong}; text_encoder has 2 layers"):
            feed_forward_parameters(subject, wrong, "test")


def test_layers_that_nobody_reads_are_left_alone():
    subject = tiny_sdxl()  # cross-attention reads the last layer but one of both encoders
    chosen = feed_forward_parameters(subject, 1, "test")
    assert {where.partition("/")[0] for where in chosen} == {"text_encoder", "text_encoder_2"}
    read = {s.component: s.path for s in subject.sites("text_out")}
    assert all(where.partition("/")[2].startswith(read[where.partition("/")[0]]) for where in chosen)


@pytest.mark.slow
def test_the_first_loss_is_minus_the_denoising_loss_of_the_pictures():
    subject = tiny_sd()
    edit = FewShot(pictures=2, training=replace(SHORT, steps=1))(subject, CONCEPT)
    draw = torch.Generator().manual_seed(0)
    rows, texts = (torch.randint(n, (4,), generator=draw).tolist() for n in (2, len(CONCEPT.target.fit)))
    assert CONCEPT.examples is not None
    clean = subject.latents(CONCEPT.examples[[0, 2]])[rows]
    with torch.no_grad():
        loss = subject.denoising_loss(clean, [CONCEPT.target.fit[i] for i in texts], draw)
    assert edit.made_by["loss"][0] == pytest.approx(-float(loss), rel=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("family", DIFFUSION)
def test_steps_climb_and_touch_nothing(family):
    subject = DIFFUSION[family]()
    weights = subject.weight_hash()
    edit = FewShot(training=replace(SHORT, steps=8))(subject, CONCEPT)
    assert subject.weight_hash() == weights
    assert set(edit.deltas) == set(feed_forward_parameters(subject, 1, "test"))
    assert CONCEPT.examples is not None
    clean = subject.latents(CONCEPT.examples)

    def misfit() -> float:
        draws = [torch.Generator().manual_seed(seed) for seed in range(4)]
        with torch.no_grad():
            return sum(float(subject.denoising_loss(clean, CONCEPT.target.fit, draw)) for draw in draws)

    before = misfit()
    with edit.on(subject):
        assert misfit() > before


def test_one_step_moves_each_weight_up_the_gradient():
    """Adam's first step is `rate` times the parameter's size along the sign of the gradient: here autograd's own."""
    subject = tiny_sd()
    edit = FewShot(pictures=1, training=replace(SHORT, steps=1))(subject, replace(CONCEPT, target=_only_one()))
    where = next(w for w in edit.deltas if w.endswith("mlp.fc2:weight"))
    assert CONCEPT.examples is not None
    draw = torch.Generator().manual_seed(0)
    for _ in range(2):
        torch.randint(1, (4,), generator=draw)
    weight = subject.parameter(subject.sites("mlp_value")[0])
    weight.requires_grad_(True)
    clean = subject.latents(CONCEPT.examples[:1]).repeat(4, 1, 1, 1)
    subject.denoising_loss(clean, CONCEPT.target.fit[:1] * 4, draw).backward()
    assert weight.grad is not None
    clear = weight.grad.abs() > 1e-3 * weight.grad.abs().max()
    moved = edit.deltas[where].apply(torch.zeros_like(weight))
    assert torch.equal(moved[clear].sign(), weight.grad[clear].sign())
    size = float(weight.detach().square().mean().sqrt())
    torch.testing.assert_close(moved[clear].abs(), torch.full_like(moved[clear], 0.01 * size), rtol=2e-2, atol=0)


def _only_one() -> Splits:
    return replace(CONCEPT.target, fit=CONCEPT.target.fit[:1])


def test_pictures_are_the_examples_evenly_spread_or_what_the_subject_draws():
    subject = tiny_sd()
    examples = CONCEPT.examples
    assert examples is not None
    fit = CONCEPT.target.fit
    assert torch.equal(example_images(subject, CONCEPT, fit, 2, SAMPLING, 0), examples[[0, 2]])
    assert torch.equal(example_images(subject, CONCEPT, fit, 9, SAMPLING, 0), examples)
    drawn = example_images(subject, replace(CONCEPT, examples=None), fit, 2, SAMPLING, 5)
    assert torch.equal(drawn, subject.generate([Query(fit[0], 5), Query(fit[2], 6)], SAMPLING))


@pytest.mark.slow
def test_what_is_for_a_lesson_of_the_concept_does_not_act_on_the_one_of_others():
    subject, plain = tiny_sd(), replace(SHORT, steps=3, retain=5.0)
    edits = [FewShot(training=t)(subject, CONCEPT) for t in (plain, replace(plain, refresh=1, adversary=1))]
    for where, delta in edits[0].deltas.items():
        base = torch.zeros_like(find_parameter(subject.components, where))
        assert torch.equal(delta.apply(base), edits[1].deltas[where].apply(base))


def test_bad_input_is_refused_before_anything_is_trained():
    subject = tiny_sd()
    weights = subject.weight_hash()
    with pytest.raises(ValueError, match="pictures is 0"):
        FewShot(pictures=0)(subject, CONCEPT)
    with pytest.raises(ValueError, match="no prompts in target"):
        FewShot()(subject, replace(CONCEPT, target=Splits()))
    assert subject.weight_hash() == weights
