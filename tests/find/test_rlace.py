"""R-LACE: the Fantope against brute force, and what a fresh reader is left with."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from sklearn.linear_model import LogisticRegression

from concept_probe.find import Game, fit_leace, fit_rlace, project_to_fantope, rlace
from concept_probe.find.directions.rlace import clipped_to_sum
from concept_probe.testing.concepts import tiny_concept
from concept_probe.testing.models.diffusion import tiny_sd


@pytest.mark.parametrize("total", [1, 2.5, 4, 6])
def test_clipping_is_what_a_solver_of_the_problem_finds(total: float):
    values = torch.randn(6, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2
    goal = values.numpy()
    solved = minimize(
        lambda v: float(np.square(v - goal).sum()), np.full(6, total / 6), jac=lambda v: 2 * (v - goal), method="SLSQP",
        bounds=[(0, 1)] * 6, constraints={"type": "eq", "fun": lambda v: v.sum() - total}, options={"ftol": 1e-14},
    )  # fmt: skip
    torch.testing.assert_close(clipped_to_sum(values, total), torch.from_numpy(solved.x), atol=1e-6, rtol=0)


def test_equal_and_distant_eigenvalues_are_no_trouble():
    for values, total, wanted in (
        ([2.0, 2.0, 2.0], 1, [1 / 3] * 3), ([9.0, -9.0], 1, [1, 0]), ([5.0, 0.2, 0.1], 0, [0, 0, 0]), ([3.0], 1, [1]),
        ([0.0, 0.0], 2, [1, 1]),
    ):  # fmt: skip
        found = clipped_to_sum(torch.tensor(values, dtype=torch.float64), total)
        torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64))


def test_the_fantope_is_reached_and_its_members_and_projections_stay():
    generator = torch.Generator().manual_seed(2)
    a = torch.randn(7, 7, generator=generator, dtype=torch.float64)
    p = project_to_fantope(a, 3)
    values = torch.linalg.eigvalsh(p)
    assert values.min() > -1e-12 and values.max() < 1 + 1e-12 and abs(float(p.trace()) - 3) < 1e-10
    torch.testing.assert_close(project_to_fantope(p, 3), p)
    axes = torch.linalg.qr(a)[0][:, :3]
    torch.testing.assert_close(project_to_fantope(axes @ axes.mT, 3), axes @ axes.mT)
    # No other member is nearer to a.
    for _ in range(50):
        other = project_to_fantope(torch.randn(7, 7, generator=generator, dtype=torch.float64), 3)
        assert (a - p).square().sum() <= (a - other).square().sum()
    with pytest.raises(ValueError, match="rank is 8"):
        project_to_fantope(a, 8)


def planted(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """A label in two of twelve coordinates of unequal spread, mixed by a rotation."""
    generator = torch.Generator().manual_seed(seed)
    y = (torch.rand(500, generator=generator) < 0.4).double()
    x = torch.randn(500, 12, generator=generator, dtype=torch.float64) * torch.linspace(0.4, 2, 12)
    x[:, 2] += 2 * y
    x[:, 9] += 3 * y
    turn = torch.linalg.qr(torch.randn(12, 12, generator=generator, dtype=torch.float64))[0]
    return x @ turn + 3, y


def read(x: torch.Tensor, y: torch.Tensor) -> float:
    """Balanced accuracy of a logistic regression on the rows that it was fitted on."""
    said = LogisticRegression(class_weight="balanced", max_iter=1000).fit(x.numpy(), y.numpy()).predict(x.numpy())
    return sum(float((said == y.numpy())[y.numpy() == v].mean()) for v in (0, 1)) / 2


def test_a_probe_falls_to_chance_as_it_does_after_leace():
    x, y = planted()
    weights = (y / y.sum() + (1 - y) / (1 - y).sum())[:, None]
    played = fit_rlace(x, y[:, None], weights, 1)
    without = x - (x @ played.basis) @ played.basis.mT
    axis = torch.nn.functional.one_hot(torch.tensor(5), 12).double()[:, None]
    assert read(x, y) > 0.85 and read(x - (x @ axis) @ axis.mT, y) > 0.75
    assert read(without, y) < 0.56 and read(fit_leace(x, y[:, None])(x), y) < 0.56
    assert abs(played.loss - 0.6931) < 2e-4
    torch.testing.assert_close(played.basis.mT @ played.basis, torch.eye(1, dtype=torch.float64))


@pytest.mark.slow
def test_the_game_is_better_than_its_start():
    x, y = planted(3)
    weights = torch.ones(len(y), 1)
    first, last = (fit_rlace(x, y[:, None], weights, 1, Game(rounds=r)) for r in (1, 300))
    assert last.loss > first.loss + 0.02


def test_rows_that_span_little_are_no_trouble_and_a_rank_beyond_them_is_refused():
    x, _ = planted()
    few, labels = torch.cat([x[:6], x[:6]], 1), torch.tensor([0, 1, 0, 1, 0, 1.0])[:, None]
    played = fit_rlace(few, labels, torch.ones(6, 1), 2, Game(rounds=20))
    assert played.basis.shape == (24, 2) and played.basis.isfinite().all()
    with pytest.raises(ValueError, match="span 5 directions"):
        fit_rlace(few, labels, torch.ones(6, 1), 6)


@pytest.mark.slow
def test_a_site_holds_one_direction_per_kind_of_token_and_a_score():
    subject, concept = tiny_sd(), tiny_concept()
    site = subject.sites("text_stream")[0]
    space = rlace(subject, concept, site, game=Game(rounds=20))
    assert (space.rank, space.role, space.dual, len(space.scores)) == (3, "text_stream", None, 3)
    assert space.score.low <= space.score.value <= space.score.high and space.score.control is not None
    assert space.mean is not None
    torch.testing.assert_close(space.basis.mT @ space.basis, torch.eye(3), atol=1e-5, rtol=0)
    assert rlace(subject, concept, site, rank=1, game=Game(rounds=20)).rank == 1
