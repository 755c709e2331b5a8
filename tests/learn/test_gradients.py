"""Gradients worked out by hand equal autograd's of the plain loss, in float64, for every objective."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from concept_probe.learn.train.adam import normalise_rows, remove_radial
from concept_probe.learn.train.initialise import geometric_median
from concept_probe.learn.train.objective import Objective, backward
from concept_probe.learn.train.weights import DictionaryWeights
from concept_probe.types import unit
from tests.learn.dense import codes, losses

OBJECTIVES = {
    "topk": Objective(3),
    "topk, one feature": Objective(1),
    "topk with auxk": Objective(3, auxk=4),
    "more auxk than dead": Objective(3, auxk=99),
    "batchtopk": Objective(3, "batchtopk"),
    "batchtopk with auxk": Objective(3, "batchtopk", auxk=4),
    "matryoshka": Objective(3, prefixes=(2, 7, 18)),
    "matryoshka batchtopk with auxk": Objective(3, "batchtopk", (5, 18), 4),
}


def made(d=6, d_out=None, f=18, n=20, seed=0) -> tuple[DictionaryWeights, torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    decoder = unit(noise(f, d_out or d), dim=1)
    encoder = decoder + 0.1 * noise(f, d) if d_out is None else noise(f, d)
    weights = DictionaryWeights(encoder, 0.1 * noise(f), decoder, noise(d_out or d), tied=d_out is None)
    x = noise(n, d)
    y = x if d_out is None else noise(n, d_out)
    return weights, x, y, torch.arange(f) % 3 == 0


def autograd(weights: DictionaryWeights, x, y, objective: Objective, dead) -> dict[str, torch.Tensor]:
    twin = DictionaryWeights(
        *(p.clone().requires_grad_(True) for p in weights.parameters().values()), tied=weights.tied
    )
    losses(twin, x, y, objective, dead)[0].backward()
    return gradients(twin)


def gradients(weights: DictionaryWeights) -> dict[str, torch.Tensor]:
    """Copies, because the next batch writes its gradients into the same memory."""
    return {name: p.grad.clone() for name, p in weights.parameters().items() if p.grad is not None}


@pytest.mark.parametrize("kind", ["autoencoder", "transcoder"])
@pytest.mark.parametrize("name", OBJECTIVES)
def test_gradients_equal_autograds(name, kind):
    objective = OBJECTIVES[name]
    weights, x, y, dead = made(d_out=None if kind == "autoencoder" else 5)
    outcome = backward(weights, x, y, objective, dead)
    for parameter, expected in autograd(weights, x, y, objective, dead).items():
        got = weights.parameters()[parameter].grad
        torch.testing.assert_close(got, expected, msg=lambda m, parameter=parameter: f"{parameter}: {m}")
    _, fvu, auxk, z = losses(weights, x, y, objective, dead)
    assert outcome.fvu == pytest.approx(float(fvu)) and outcome.auxk == pytest.approx(float(auxk))
    assert (auxk > 0) == (objective.auxk > 0)
    torch.testing.assert_close(outcome.counts, (z > 0).sum(0).double())
    torch.testing.assert_close(outcome.least, z[z > 0].min())


def test_the_plain_loss_agrees_with_finite_differences():
    """The truth itself, for once, against the definition of a derivative."""
    weights, x, y, dead = made()
    flat = tuple(p.clone().requires_grad_(True) for p in weights.parameters().values())
    assert torch.autograd.gradcheck(lambda *p: losses(DictionaryWeights(*p), x, y, Objective(3), dead)[0], flat)


def test_the_target_is_x_and_the_bias_is_added_once():
    """With no feature firing, the best b_dec is the mean of x: not half of it, as with x - b_dec as the target."""
    weights, x, y, dead = made()
    weights = replace(weights, b_enc=torch.full((18,), -1e6, dtype=torch.float64), b_dec=x.mean(0))
    outcome = backward(weights, x, y, Objective(3), dead)
    assert outcome.fvu == pytest.approx(1.0)
    torch.testing.assert_close(weights.b_dec.grad, torch.zeros_like(weights.b_dec))
    assert not outcome.least.isfinite() and not outcome.counts.any()


def test_batchtopk_fires_k_per_row_on_average_and_looks_again_at_rows_that_have_more():
    """One row is worth all that may fire: more than the features that are looked at first."""
    weights, x, _, _ = made(f=64, n=8)
    x[0] *= 1e3
    objective = Objective(1, "batchtopk")
    outcome = backward(weights, x, x, objective, torch.zeros(64, dtype=torch.bool))
    _, z = codes(weights, x, objective)
    assert (z[0] > 0).sum() > 4, "the row has to have more than four times k"
    torch.testing.assert_close(outcome.counts, (z > 0).sum(0).double())
    assert int(outcome.counts.sum()) == 8


def test_auxk_reaches_the_encoder_of_dead_features_that_do_not_fire_and_no_other():
    weights, x, y, dead = made()
    weights.b_enc[dead] -= 100.0  # every dead pre-activation is negative: a ReLU would stop the gradient
    whole = backward(weights, x, y, Objective(3, auxk=4), dead)
    with_auxk = gradients(weights)
    backward(weights, x, y, Objective(3), dead)
    moved = {name: (with_auxk[name] - g).abs() for name, g in gradients(weights).items()}
    assert (whole.counts[dead] == 0).all()
    for name in ("encoder", "b_enc", "decoder"):
        assert moved[name][dead].max() > 0 and moved[name][~dead].max() == 0


def test_a_step_against_the_auxk_gradient_brings_the_error_down():
    """With the wrong sign of e, dead features would learn to write -e, and the error |e - ê| would grow."""
    weights, x, y, dead = made()
    objective = Objective(3, auxk=4)
    before = backward(weights, x, y, objective, dead)
    with_auxk = gradients(weights)
    backward(weights, x, y, Objective(3), dead)
    for name, parameter in weights.parameters().items():
        if name != "b_dec":  # what other features leave over stays what it was
            parameter[...] -= 1.6 * (with_auxk[name] - gradients(weights)[name])
    after = backward(weights, x, y, objective, dead)
    assert after.auxk < before.auxk


def test_auxk_without_dead_features_is_nothing():
    weights, x, y, dead = made()
    assert backward(weights, x, y, Objective(3, auxk=4), torch.zeros_like(dead)).auxk == 0
    assert backward(weights, x, y, Objective(3), dead).auxk == 0


def test_decoder_gradient_has_no_part_along_its_rows_and_rows_stay_unit():
    weights, x, y, dead = made()
    backward(weights, x, y, Objective(3, auxk=4), dead)
    decoder = weights.decoder
    whole = gradients(weights)["decoder"]
    remove_radial(decoder)
    left = gradients(weights)["decoder"]
    torch.testing.assert_close((left * decoder).sum(1), torch.zeros(18, dtype=torch.float64))
    torch.testing.assert_close(whole - left, (whole * decoder).sum(1, keepdim=True) * decoder)
    decoder -= left
    normalise_rows(decoder)
    torch.testing.assert_close(torch.linalg.vector_norm(decoder, dim=1), torch.ones(18, dtype=torch.float64))


def test_geometric_median_is_the_least_summed_distance():
    g = torch.Generator().manual_seed(3)
    x = torch.randn(200, 5, generator=g, dtype=torch.float64) + 4
    x[:60] += 50.0  # far rows drag the mean, hardly the median
    point = geometric_median(x)

    def distance(p):
        return torch.linalg.vector_norm(x - p, dim=1).sum()

    nudges = 1e-3 * torch.randn(50, 5, generator=g, dtype=torch.float64)
    assert all(distance(point) <= distance(point + n) for n in nudges)
    assert distance(point) < distance(x.mean(0))
    assert (point - 4).abs().max() < 1.0 < (x.mean(0) - 4).abs().min()


def test_geometric_median_of_rows_that_coincide_is_that_row():
    x = torch.cat([torch.full((90, 3), 2.0), torch.randn(10, 3, generator=torch.Generator().manual_seed(0))])
    torch.testing.assert_close(geometric_median(x), torch.full((3,), 2.0), rtol=0, atol=1e-4)
