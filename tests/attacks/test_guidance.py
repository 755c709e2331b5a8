"""Classifier guidance: whose gradient leads, how far, and what it costs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace

import pytest
import torch

import concept_probe as cp
from concept_probe import detect
from concept_probe.attacks import Budget, ClassifierGuidance, NothingToAsk
from concept_probe.attacks.budget import Meter
from concept_probe.attacks.latents.classifier_guidance import Lead
from concept_probe.erasers import Blocklist
from concept_probe.families.diffusion.trajectory import SamplingHook, Trajectory
from concept_probe.testing.concepts import TinyRecogniser, tiny_concept, tiny_recogniser
from concept_probe.testing.models.diffusion import tiny_sd, tiny_sdxl
from concept_probe.types import Classifier, Prompt, Query, Sampling

SAMPLING = Sampling(steps=4, guidance=2.0, batch=8)
CONCEPT = tiny_concept()
QUERIES = [Query(p, i) for i, p in enumerate(CONCEPT.target.test)]
models = pytest.mark.parametrize("make", [tiny_sd, tiny_sdxl])


def walk_of(subject, count: int = 2) -> Trajectory:
    return subject.trajectory(range(count), 4)


@pytest.mark.slow
@models
def test_the_share_of_the_picture_is_that_of_the_scheduler(make):
    """Against pictures that the scheduler itself noised: what the denoiser sees of nothing but noise, and of no noise."""
    walk = walk_of(make())
    one, none = torch.ones(1, 4, 8, 8), torch.zeros(1, 4, 8, 8)
    for step in range(4):
        level = walk.level(step)
        for clean, noise, share in ((one, none, level.signal), (none, one, level.noise)):
            fresh = walk_of(make(), 1)
            fresh.latents = fresh.noised(clean, noise, step)
            fresh.starts_at(step)
            assert float(fresh.model_input(step).mean()) == pytest.approx(float(share), rel=1e-3, abs=1e-3)


@models
def test_a_guided_step_moves_the_predicted_picture_by_the_stated_length_and_up_the_gradient(make):
    subject = make()
    guide, walk = tiny_recogniser(), walk_of(subject)
    lead = Lead(subject, guide, 0.2, [1], [0, 2], Meter(Budget(gradient_steps=1)))
    lead.begin(walk, (0, 1))
    prediction = torch.randn(walk.latents.shape, generator=torch.Generator().manual_seed(5))
    assert lead(walk, 0, prediction) is prediction  # no guided step
    led = lead(walk, 1, prediction)
    level, x = walk.level(1), walk.model_input(1)
    (before, _), (after, _) = (walk.schedule.x0_and_noise(x, p, level) for p in (prediction, led))
    moved = (after - before).flatten(1)
    torch.testing.assert_close(moved.square().mean(1).sqrt(), (0.2 * level.noise).expand(2), rtol=2e-3, atol=1e-4)
    z = before.clone().requires_grad_(True)
    guide.logits(subject.decode(z)).log_softmax(-1)[[0, 1], [0, 2]].sum().backward()
    assert z.grad is not None
    assert (torch.cosine_similarity(moved, z.grad.flatten(1)) > 0.99).all()


@pytest.mark.slow
@models
def test_batches_change_nothing_and_each_picture_is_led_to_its_own_label(make):
    subject = make()
    made = []
    for batch in (8, 1):
        lead = Lead(subject, tiny_recogniser(), 0.5, range(4), [0, 1, 2], Meter(Budget(gradient_steps=12)))
        with subject.hooked(SamplingHook(start=lead.begin, replace_prediction=lead)):
            made.append(subject.generate(QUERIES, replace(SAMPLING, batch=batch)))
    torch.testing.assert_close(made[0], made[1], atol=2e-4, rtol=1e-3)
    plain = tiny_recogniser().probabilities(subject.generate(QUERIES, SAMPLING))
    led = tiny_recogniser().probabilities(made[0])
    assert all(led[i, i] > plain[i, i] for i in range(3))


@pytest.mark.slow
def test_the_budget_says_how_many_steps_are_guided():
    attack, subject = ClassifierGuidance(tiny_recogniser(), Sampling(steps=10, batch=8)), tiny_sd()
    assert [attack._most(subject, Budget(gradient_steps=n), 8, 3) for n in (0, 2, 3, 16, 30)] == [0, 1, 1, 6, 10]
    assert attack._most(subject, Budget(gradient_steps=16), 16, 3) == 3  # two batches
    attempt = replace(attack, sampling=SAMPLING)(tiny_sd(), CONCEPT, Budget(queries=12, gradient_steps=10))
    assert [x for x, _ in attempt.curve] == [0, 2, 4] and attempt.spent.gradient_steps == 2 + 4 + 4
    assert attempt.control is not None and attempt.control.name == "guidance towards other labels"


@pytest.mark.slow
def test_whose_gradient_leads_is_said_and_a_judge_without_one_is_refused():
    @dataclass(frozen=True)
    class Silent:
        name: str = "silent"
        version: str = "1"
        labels: tuple[str, ...] = ("cat", "none")

        def probabilities(self, images):
            return torch.full((len(images), 2), 0.5)

    subject, budget = tiny_sd(), Budget(queries=4, gradient_steps=4)
    assert ClassifierGuidance(tiny_recogniser(), SAMPLING)(subject, CONCEPT, budget).note.endswith("(the judge itself)")
    led = ClassifierGuidance(Silent(), SAMPLING, guide=TinyRecogniser(name="other"))(subject, CONCEPT, budget)
    assert led.note == "led by other"
    with pytest.raises(NothingToAsk, match="no gradient to follow"):
        ClassifierGuidance(Silent(), SAMPLING)(subject, CONCEPT, budget)
    with pytest.raises(NothingToAsk, match="can't see 'cat'"):
        ClassifierGuidance(Silent(), SAMPLING, guide=TinyRecogniser(labels=("dog", "sun", "a", "none")))(
            subject, CONCEPT, budget
        )


@pytest.mark.slow
def test_a_judge_of_emoji_is_led_by_another_whose_gradient_is_that_of_its_likelihood():
    """The CLIP pair, and its slope in a picture against a difference."""
    judge = detect.recogniser("emoji")
    guide = detect.second_classifier(judge)
    assert (
        isinstance(judge, Classifier)
        and isinstance(guide, Classifier)
        and guide.labels == judge.labels
        and guide.name == "clip"
    )
    assert detect.second_classifier(tiny_recogniser()) is None
    for one in (judge, guide):
        images = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)).requires_grad_(True)
        one.logits(images)[0, 3].backward()
        assert images.grad is not None
        way = images.grad / images.grad.norm()
        ends = [float(one.logits(images.detach() + s * 0.05 * way)[0, 3]) for s in (1, -1)]
        assert (ends[0] - ends[1]) / 0.1 == pytest.approx(float(images.grad.norm()), rel=0.05)


@pytest.mark.slow
def test_led_by_its_own_judge_a_model_that_never_knew_the_concept_is_said_to_show_it():
    """Why the twin is the control that decides, and why another recogniser leads where there is one."""
    subject, concept = cp.load("emoji-untaught"), cp.concept("camel")
    judge = detect.recogniser("emoji")
    assert isinstance(judge, Classifier)
    budget = Budget(queries=24, gradient_steps=30)
    own, other = (
        ClassifierGuidance(judge, cp.Sampling(steps=10), guide=guide, points=2)(subject, concept, budget)
        for guide in (judge, None)
    )
    assert own.success is not None and own.success.value > 0.5
    assert other.success is not None and other.success.value < 0.3


@pytest.mark.slow
def test_a_guard_stays_on_while_the_walk_is_led():
    """A blocklist reads the name as the anchor: guided pictures of the concept's prompts are those of the anchor's."""
    subject, made = tiny_sd(), []
    anchors = [Query(Prompt(CONCEPT.anchor.fit[0].text), q.seed) for q in QUERIES]
    lead = Lead(subject, tiny_recogniser(), 0.5, range(4), [0] * 3, Meter(Budget(gradient_steps=9)))
    with (
        Blocklist()(subject, CONCEPT).on(subject),
        subject.hooked(SamplingHook(start=lead.begin, replace_prediction=lead)),
    ):
        made = [subject.generate(q, SAMPLING) for q in (QUERIES, anchors)]
    torch.testing.assert_close(made[0], made[1], atol=1e-5, rtol=1e-4)
    assert Counter(q.seed for q in QUERIES) == Counter(range(3))
