"""DoCo: the critic's game, and gradients that cost others nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits

from concept_probe.erasers import DoCo, Training
from concept_probe.erasers.closed_form.destinations import destinations_of, prompts_by_destination
from concept_probe.erasers.finetune.doco import Critic, CriticGame, critic_loss, deception_loss, without_conflict
from concept_probe.erasers.finetune.parts import denoiser_parameters
from concept_probe.erasers.training.loop import apply_surgery
from concept_probe.erasers.training.replay import predictions
from concept_probe.erasers.training.trainable import FullWeights
from concept_probe.testing.concepts import tiny_concept
from concept_probe.testing.models.diffusion import DIFFUSION, tiny_sd
from concept_probe.types import Sampling, Splits

CONCEPT = tiny_concept()
SHORT = Training(steps=4, batch=4, pictures=2, sampling=Sampling(steps=2, guidance=2.0, batch=8))


def test_surgery_by_hand():
    aim = [torch.tensor(x, dtype=torch.float64) for x in ([3.0, -4.0], [3.0, 4.0], [1.0, -2.0], [1.0, 1.0])]
    kept = [torch.tensor(x, dtype=torch.float64) for x in ([0.0, 2.0], [0.0, 2.0], [1.0, 3.0], [0.0, 0.0])]
    got = without_conflict(aim, kept)
    # Against: (3, -4) loses its second entry. Along: as it is. Askew: -5 / 10 (1, 3) is taken away. Nothing kept: as it is.
    for x, wanted in zip(got, ([3.0, 0.0], [3.0, 4.0], [1.5, -0.5], [1.0, 1.0]), strict=True):
        torch.testing.assert_close(x, torch.tensor(wanted, dtype=torch.float64), rtol=0, atol=1e-15)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_surgery_on_half_precision_knows_small_gradients(dtype):
    """Squares of 1e-4 are 0 in float16."""
    aim, kept = torch.tensor([3e-4, -4e-4], dtype=dtype), torch.tensor([0.0, 1e-4], dtype=dtype)
    (x,) = without_conflict([aim], [kept])
    assert x.dtype == dtype and x[0] == aim[0] and x[1].abs() < 1e-6


def test_what_surgery_leaves_never_goes_against_what_is_kept():
    generator = torch.Generator().manual_seed(0)
    aim, kept = ([torch.randn(5, 3, generator=generator, dtype=torch.float64) for _ in range(40)] for _ in range(2))
    against = 0
    for a, k, x in zip(aim, kept, without_conflict(aim, kept), strict=True):
        dot = float((a * k).sum())
        against += dot < 0
        assert float((x * k).sum()) == pytest.approx(max(dot, 0.0), abs=1e-12)
        assert float((x * a).sum()) >= 0  # still a descent of the aim
    assert 10 < against < 30


def test_the_loop_gives_each_term_its_own_gradient():
    p, q = (torch.nn.Parameter(torch.tensor([1.0, 2.0], dtype=torch.float64)) for _ in range(2))
    terms = torch.stack([(p**2).sum() + q[0], (3 * p).sum()])  # q is not in the second term
    apply_surgery(terms, [p, q], lambda first, second: [a + 10 * b for a, b in zip(first, second, strict=True)])
    assert p.grad is not None and q.grad is not None
    assert p.grad.tolist() == [32.0, 34.0] and q.grad.tolist() == [1.0, 0.0]


def test_a_critic_is_the_same_each_time_and_leaves_every_global_generator_alone(monkeypatch):
    seeded = []
    monkeypatch.setattr(torch, "manual_seed", seeded.append)  # which seeds those of all devices
    before = torch.random.get_rng_state()
    one, two, other = (next(Critic(4, 8, seed).parameters()) for seed in (3, 3, 4))
    assert torch.equal(one, two) and not torch.equal(one, other)
    assert torch.equal(torch.random.get_rng_state(), before) and not seeded


def test_losses_are_cross_entropies():
    critic = Critic(4, 8, 0)
    seen, anchor, concept = torch.randn(3, 2, 4, 8, 8, generator=torch.Generator().manual_seed(1)).unbind()
    with torch.no_grad():
        real, fake = critic(seen, anchor), critic(seen, concept)
        assert real.shape == (2, 1, 4, 4)
        entropy = binary_cross_entropy_with_logits
        wanted = entropy(real, torch.ones_like(real)) + entropy(fake, torch.zeros_like(fake))
        torch.testing.assert_close(critic_loss(critic, seen, anchor, concept), wanted)
        torch.testing.assert_close(deception_loss(critic, seen, concept), entropy(fake, torch.ones_like(fake)))


def test_a_critic_is_its_seeds_and_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    first, again, other = (next(Critic(4, 8, seed).parameters()) for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.slow
@pytest.mark.parametrize("family", DIFFUSION)
def test_the_critic_learns_to_tell_them_apart_and_the_student_to_fool_it(family):
    subject = DIFFUSION[family]()
    eraser = DoCo(width=8, warmup=60, critic_rate=1e-2, training=SHORT)
    student = FullWeights(subject, denoiser_parameters(subject, "strict"))
    led = prompts_by_destination(destinations_of(CONCEPT.target.fit, CONCEPT, None, "doco"))
    game = CriticGame(eraser, subject, led, CONCEPT.unrelated.fit)
    assert sum(game.critics[-10:]) < 0.8 * sum(game.critics[:10])
    before = [x.clone() for x in game.critic.parameters()]
    with student.on(), torch.enable_grad():
        terms = game.loss(0, torch.Generator().manual_seed(0))
        assert terms[1] < 1e-9  # nothing is trained yet, so others are answered as before
        moved = [x.clone() for x in game.critic.parameters()]
        apply_surgery(terms, list(student.parameters.values()), lambda aim, kept: without_conflict(aim, kept))
        slope = torch.cat([p.grad.flatten() for p in student.parameters.values() if p.grad is not None])
        assert slope.abs().max() > 0
        with torch.no_grad():
            for p in student.parameters.values():
                assert p.grad is not None
                p -= 0.01 * p.grad / slope.norm()
        generator = torch.Generator().manual_seed(0)
        index, _ = (torch.randint(len(pool), (4,), generator=generator) for pool in (game.anchor, game.others))
        part = game.anchor.rows(index)
        asked = game._asked(part, generator)

        def taken() -> float:
            said = predictions(subject, part, asked)
            return float(deception_loss(game.critic, part.inputs, game.direction(said, index)).detach())

        after = taken()
        with student.reference():
            assert after < taken()
    assert not all(torch.equal(x, y) for x, y in zip(before, moved, strict=True))
    assert all(torch.equal(x, y) for x, y in zip(moved, game.critic.parameters(), strict=True))


@pytest.mark.slow
def test_the_target_is_led_to_its_anchor_and_the_weights_are_back():
    subject = tiny_sd()
    weights = subject.weight_hash()
    edit = DoCo(width=8, warmup=4, training=SHORT)(subject, CONCEPT)
    assert set(edit.deltas) == set(denoiser_parameters(subject, "strict"))
    assert len(edit.made_by["loss"]) == len(edit.made_by["critic"]) == 2
    assert subject.weight_hash() == weights
    assert not DoCo(strength=0.0)(subject, CONCEPT).deltas


def test_bad_input_is_refused_and_changes_nothing():
    subject = tiny_sd()
    weights = subject.weight_hash()
    with pytest.raises(ValueError, match="whose gradient the surgery needs"):
        DoCo(preserve=(), training=SHORT)(subject, CONCEPT)
    with pytest.raises(ValueError, match="no anchor prompts"):
        DoCo(training=SHORT)(subject, replace(CONCEPT, anchor=Splits()))
    with pytest.raises(ValueError, match="no prompts in target"):
        DoCo(training=SHORT)(subject, replace(CONCEPT, target=Splits()))
    with pytest.raises(ValueError, match="part is 'y'"):
        DoCo(part="y", training=SHORT)(subject, CONCEPT)  # pyright: ignore[reportArgumentType]
    assert subject.weight_hash() == weights
