"""Bringing decoder rows to norm 1 changes their scale and nothing else."""

from __future__ import annotations

import pytest
import torch

from concept_probe.learn import BatchTopK
from concept_probe.learn.train.activation_rules import Rule
from concept_probe.learn.train.learner import Learner
from concept_probe.learn.train.parallel import Team
from concept_probe.learn.train.settings import Run, settle
from tests.learn.planted import SITE, Planted

ROWS = Planted(dtype=torch.float64)
STEPS = 30


def learned(steps: int, rule: Rule = "topk") -> Learner:
    first = ROWS.batch(128, 0)
    settings = settle(Run(SITE, k=3, expansion=3, rule=rule, rate=1e-2), SITE, SITE, first.shape[1], STEPS * 128, 128)
    learner = Learner(settings, first={SITE: first}, team=Team())
    for number in range(steps):
        learner.step({SITE: ROWS.batch(128, number)}, number)
    return learner


def written(learner: Learner, u: torch.Tensor) -> torch.Tensor:
    """(n, f, d): what each feature would write alone."""
    w = learner.weights
    return (u @ w.encoder.mT + w.b_enc).relu()[:, :, None] * w.decoder


def norms(learner: Learner) -> torch.Tensor:
    return torch.linalg.vector_norm(learner.weights.decoder, dim=1)


def test_what_each_feature_writes_stays_what_it_was():
    learner = learned(20)
    u = ROWS.batch(16, 99)
    before = written(learner, u)
    assert (norms(learner) - 1).abs().max() > 1e-2, "rows were not free"
    learner._fold()
    torch.testing.assert_close(norms(learner), torch.ones_like(norms(learner)))
    torch.testing.assert_close(written(learner, u), before)


def test_adam_s_moments_are_those_of_the_scaled_weights():
    """A gradient by w is n times the one by w n; its square n squared times."""
    learner = learned(20)
    adam, n = learner.adam, norms(learner).clone()
    first, second = ({name: x.clone() for name, x in moments.items()} for moments in (adam.first, adam.second))
    learner._fold()
    for name, factor in (
        ("decoder", n[:, None]),
        ("encoder", 1 / n[:, None]),
        ("b_enc", 1 / n),
        ("b_dec", n.new_ones(1)),
    ):
        torch.testing.assert_close(adam.first[name], first[name] * factor)
        torch.testing.assert_close(adam.second[name], second[name] * factor.square())


def test_rows_are_free_until_the_rate_falls_and_held_afterwards():
    learner = learned(STEPS)
    assert learner.settings.falls < STEPS
    torch.testing.assert_close(norms(learner), torch.ones_like(norms(learner)))


@pytest.mark.parametrize("steps", [20, STEPS])
def test_a_learned_threshold_lets_the_same_features_fire_after_scaling(steps):
    learner = learned(steps, "batchtopk")
    sae, x, w = learner.result({}), ROWS.batch(64, 99), learner.weights
    assert isinstance(sae.activation, BatchTopK)
    pre = (x * learner.scale - w.b_dec) @ w.encoder.mT + w.b_enc
    expected = (pre > learner.threshold) & (pre > 0)
    assert torch.equal(sae.encode(x).dense(len(w.b_enc)) > 0, expected) and expected.any() and not expected.all()
