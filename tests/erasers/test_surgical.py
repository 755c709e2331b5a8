"""All but One: the guidance term by hand, its gradients, the window, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from concept_probe.erasers import Surgical, Training
from concept_probe.erasers.erasure.parameters import find_parameter
from concept_probe.erasers.finetune.parts import denoiser_parameters
from concept_probe.erasers.finetune.surgical import GuidanceTarget, in_window
from concept_probe.erasers.training.replay import LatentBuffer, collect, encode_prompts, predictions
from concept_probe.erasers.training.trainable import FullWeights
from concept_probe.testing.concepts import tiny_concept
from concept_probe.testing.models.diffusion import DIFFUSION, tiny_sd
from concept_probe.types import Prompt, Sampling, Splits

CONCEPT = tiny_concept()
SAMPLING = Sampling(steps=4, guidance=2.0)
CAT, THING, EMPTY = CONCEPT.target.fit[0], CONCEPT.anchor.fit[0], Prompt("")


def said(subject, pool: LatentBuffer, prompt: Prompt):
    """What the subject says, latent by latent."""
    one = [
        subject.predict(pool.inputs[i : i + 1], pool.timesteps[i : i + 1], encode_prompts(subject, [prompt]))
        for i in range(len(pool))
    ]
    return torch.cat(one)


@pytest.mark.slow
@pytest.mark.parametrize("family", DIFFUSION)
def test_the_wanted_guidance_and_the_loss_are_the_formula(family):
    subject = DIFFUSION[family]()
    pool = collect(subject, [CAT], 1, SAMPLING, 0)
    with torch.no_grad():
        cat, thing, empty = (said(subject, pool, p) for p in (CAT, THING, EMPTY))
        made = GuidanceTarget.of(subject, pool, [THING] * 4, 0.7)
    torch.testing.assert_close(made.wanted, thing - empty - 0.7 * (cat - empty), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(made.empty, empty, atol=1e-5, rtol=1e-4)
    pupil, index = FullWeights(subject, denoiser_parameters(subject, "x")), torch.tensor([2, 0, 2])
    for x in pupil.trained.values():
        x.add_(0.1 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1)))
    with pupil.on():
        loss = made.loss(subject, pool, index, 2.5)
        now, free = said(subject, pool, CAT)[index], said(subject, pool, EMPTY)[index]
        gap = (now - free - (thing - empty - 0.7 * (cat - empty))[index]).square().mean()
        whole = gap + 2.5 * (free - empty[index]).square().mean()
        torch.testing.assert_close(loss, whole, atol=1e-5, rtol=1e-4)
        parameters = list(pupil.parameters.values())
        mine = torch.autograd.grad(loss, parameters, retain_graph=True)
        for x, y in zip(mine, torch.autograd.grad(whole, parameters), strict=True):
            torch.testing.assert_close(x, y, atol=1e-5, rtol=1e-3)
    assert float(gap.detach()) > 0 and float((whole - gap).detach()) > 0


@pytest.mark.slow
def test_what_is_for_a_lesson_of_the_concept_does_not_act_on_the_one_of_others():
    subject, plain = tiny_sd(), Training(steps=3, batch=2, pictures=2, sampling=SAMPLING, retain=5.0)
    edits = [Surgical(training=t)(subject, CONCEPT) for t in (plain, replace(plain, refresh=1, adversary=1))]
    for where, delta in edits[0].deltas.items():
        base = torch.zeros_like(find_parameter(subject.components, where))
        assert torch.equal(delta.apply(base), edits[1].deltas[where].apply(base))


def test_nothing_is_lost_where_the_concept_is_its_own_alternative():
    subject = tiny_sd()
    pool = collect(subject, [CAT], 1, SAMPLING, 0)
    made = GuidanceTarget.of(subject, pool, [CAT] * 4, 0.0)
    with torch.no_grad():
        assert made.loss(subject, pool, torch.arange(4), 1.0) < 1e-10


def test_the_window_is_a_part_of_every_walk_noise_first():
    prompts = (Prompt("a"), Prompt("b"))
    times = torch.tensor([900, 900, 600, 600, 300, 300, 1, 1])
    pool = LatentBuffer(torch.arange(8.0).view(8, 1, 1, 1), times, prompts * 4)
    assert in_window(pool, (0.0, 1.0)).timesteps.tolist() == times.tolist()
    assert in_window(pool, (0.0, 0.5)).timesteps.tolist() == [900, 900, 600, 600]
    late = in_window(pool, (0.75, 1.0))
    assert late.timesteps.tolist() == [1, 1] and late.prompts == prompts
    assert late.inputs.flatten().tolist() == [6, 7]
    assert in_window(pool, (0.99, 1.0)).timesteps.tolist() == [1, 1]


@pytest.mark.slow
def test_training_leads_the_guidance_to_the_alternative_and_lets_the_rest_drift_little():
    subject = tiny_sd()
    weights = subject.weight_hash()
    school = Training(steps=24, batch=4, pictures=2, sampling=SAMPLING, rate=0.02, retain=0.0)
    pool = collect(subject, CONCEPT.target.fit[:1], 2, SAMPLING, 0)
    goal = predictions(subject, pool, [THING] * 8) - predictions(subject, pool, [EMPTY] * 8)

    def after(drift: float) -> tuple[float, float]:
        edit = Surgical(drift=drift, training=school)(subject, replace(CONCEPT, target=Splits(fit=(CAT,))))
        before = predictions(subject, pool, [EMPTY] * 8)
        with edit.on(subject):
            empty = predictions(subject, pool, [EMPTY] * 8)
            guidance = predictions(subject, pool, pool.prompts) - empty
        return float((guidance - goal).square().mean()), float((empty - before).square().mean())

    start = predictions(subject, pool, pool.prompts) - predictions(subject, pool, [EMPTY] * 8)
    gap, drifted = after(1.0)
    assert gap < float((start - goal).square().mean())
    assert drifted < after(0.0)[1]
    assert subject.weight_hash() == weights


def test_bad_input_is_refused_before_anything_is_trained():
    subject = tiny_sd()
    weights = subject.weight_hash()
    for window in ((0.5, 0.5), (0.5, 0.2), (-0.1, 1.0), (0.0, 1.1)):
        with pytest.raises(ValueError, match="window is"):
            Surgical(window=window)(subject, CONCEPT)
    with pytest.raises(ValueError, match="no anchor prompts"):
        Surgical()(subject, replace(CONCEPT, anchor=Splits()))
    with pytest.raises(ValueError, match="no prompts in target"):
        Surgical()(subject, replace(CONCEPT, target=Splits()))
    with pytest.raises(ValueError, match="part is 'y'"):
        Surgical(part="y")(subject, CONCEPT)  # pyright: ignore[reportArgumentType]
    assert subject.weight_hash() == weights
