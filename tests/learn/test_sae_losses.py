"""The loss against its formula, finite differences and gradients worked out by hand."""

from __future__ import annotations

import torch

from concept_probe.learn import Sae, TopK
from concept_probe.learn.losses import auxk_error, geometric_median, normalise_rows, remove_radial, sae_loss
from concept_probe.types import Site, unit

SITE = Site("text_encoder", "encoder.layers.0")
NAMES = ("W_enc", "b_enc", "W_dec", "b_dec")


def made(d=6, f=18, k=3, scale=2.0, seed=0) -> tuple[Sae, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(seed)
    W_dec = unit(torch.randn(f, d, generator=g, dtype=torch.float64), dim=1)
    b_dec = torch.randn(d, generator=g, dtype=torch.float64)
    W_enc = W_dec.mT + 0.1 * torch.randn(d, f, generator=g, dtype=torch.float64)
    b_enc = 0.1 * torch.randn(f, generator=g, dtype=torch.float64)
    sae = Sae(SITE, TopK(k), W_enc=W_enc, b_enc=b_enc, W_dec=W_dec, b_dec=b_dec, scale=scale)
    x = torch.randn(20, d, generator=g, dtype=torch.float64)
    dead = torch.arange(f) % 3 == 0
    return sae.requires_grad_(True), x, dead


def grad(parameter: torch.Tensor) -> torch.Tensor:
    assert parameter.grad is not None
    return parameter.grad


def test_loss_is_the_formula():
    sae, x, dead = made()
    loss = sae_loss(sae, x, dead, auxk=4)
    baseline = (x - x.mean(0)).square().sum()
    torch.testing.assert_close(loss.fvu, (x - sae(x)).square().sum() / baseline)
    pre = sae.pre_activations(x)
    allowed = torch.where(dead, pre, -torch.inf)
    kept = allowed >= allowed.sort(dim=1, descending=True).values[:, 3:4]
    written = torch.where(kept, pre, 0) @ sae.W_dec / sae.scale
    torch.testing.assert_close(loss.auxk, ((x - sae(x)) - written).square().sum() / baseline)
    torch.testing.assert_close(loss.total, loss.fvu + loss.auxk / 32)


def test_the_target_is_x_and_the_bias_is_added_once():
    """With no feature firing, the best b_dec is the mean of x: not half of it, as with x - b_dec as the target."""
    sae, x, dead = made(scale=1.0)
    with torch.no_grad():
        sae.b_enc.fill_(-1e6)
        sae.b_dec.copy_(x.mean(0))
    loss = sae_loss(sae, x, torch.zeros_like(dead), auxk=0)
    torch.testing.assert_close(loss.fvu, torch.ones((), dtype=torch.float64))
    loss.total.backward()
    torch.testing.assert_close(grad(sae.b_dec), torch.zeros_like(sae.b_dec))


def test_reconstruction_gradients_equal_finite_differences():
    sae, x, dead = made()

    def loss(W_enc, b_enc, W_dec, b_dec):
        twin = Sae(SITE, TopK(3), W_enc=W_enc, b_enc=b_enc, W_dec=W_dec, b_dec=b_dec, scale=2.0)
        weights = dict(zip(NAMES, (W_enc, b_enc, W_dec, b_dec), strict=True))
        return torch.func.functional_call(_Loss(twin), {f"sae.{n}": w for n, w in weights.items()}, (x, dead))

    weights = tuple(getattr(sae, n).detach().clone().requires_grad_(True) for n in NAMES)
    assert torch.autograd.gradcheck(loss, weights)


class _Loss(torch.nn.Module):
    def __init__(self, sae: Sae) -> None:
        super().__init__()
        self.sae = sae

    def forward(self, x, dead):
        return sae_loss(self.sae, x, dead, auxk=0).total


def test_auxk_gradients_equal_finite_differences():
    sae, x, dead = made()
    pre, error = sae.pre_activations(x).detach(), (x - sae(x)).detach()
    arguments = (pre.requires_grad_(True), sae.W_dec.detach().clone().requires_grad_(True))
    assert torch.autograd.gradcheck(lambda p, W: auxk_error(p, error, dead, W, 4), arguments)


def test_all_gradients_equal_those_worked_out_by_hand():
    sae, x, dead = made()
    loss = sae_loss(sae, x, dead, auxk=4)
    loss.total.backward()
    with torch.no_grad():
        s = sae.scale * x
        centred, pre = s - sae.b_dec, sae.pre_activations(x)
        z = sae.encode(x).dense(sae.width)
        e = s - z @ sae.W_dec - sae.b_dec
        chosen = torch.where(dead, pre, -torch.inf).topk(4, dim=1).indices
        picked = torch.zeros_like(pre).scatter_(1, chosen, 1.0)
        a = pre * picked
        r = e - a @ sae.W_dec  # e is a constant here
        V = (s - s.mean(0)).square().sum()
        to_pre = -2 / V * ((e @ sae.W_dec.mT) * (z > 0) + (r @ sae.W_dec.mT) * picked / 32)
        expected = {
            "W_enc": centred.mT @ to_pre,
            "b_enc": to_pre.sum(0),
            "W_dec": -2 / V * (z.mT @ e + a.mT @ r / 32),
            "b_dec": -2 / V * e.sum(0) - (to_pre @ sae.W_enc.mT).sum(0),
        }
    for name in NAMES:
        torch.testing.assert_close(grad(getattr(sae, name)), expected[name], msg=lambda m, name=name: f"{name}: {m}")


def test_auxk_reaches_the_encoder_of_dead_features_that_do_not_fire_and_no_other():
    sae, x, dead = made()
    with torch.no_grad():
        sae.b_enc[dead] -= 100.0  # every dead pre-activation is negative: a ReLU would stop the gradient
    loss = sae_loss(sae, x, dead, auxk=4)
    loss.auxk.backward()
    assert (sae.encode(x).dense(sae.width)[:, dead] == 0).all()
    assert (grad(sae.b_enc)[dead] != 0).any() and (grad(sae.W_enc)[:, dead] != 0).any()
    assert (grad(sae.b_enc)[~dead] == 0).all() and (grad(sae.W_dec)[~dead] == 0).all()


def test_a_step_against_the_auxk_gradient_brings_the_error_down():
    """With the wrong sign of e, dead features would learn to write -e, and the error |e - ê| would grow."""
    sae, x, dead = made()
    loss = sae_loss(sae, x, dead, auxk=4)
    e = (x * sae.scale - sae(x) * sae.scale).detach()
    before = auxk_error(sae.pre_activations(x), e, dead, sae.W_dec, 4)
    loss.auxk.backward()
    with torch.no_grad():
        for p in (sae.W_enc, sae.b_enc, sae.W_dec):
            p.sub_(0.05 * grad(p))
    after = auxk_error(sae.pre_activations(x), e, dead, sae.W_dec, 4)
    assert after < before


def test_auxk_without_dead_features_is_nothing():
    sae, x, dead = made()
    assert sae_loss(sae, x, torch.zeros_like(dead), auxk=4).auxk == 0
    assert sae_loss(sae, x, dead, auxk=0).auxk == 0


def test_auxk_with_fewer_dead_features_than_asked_for_uses_those():
    sae, x, dead = made()
    pre, e = sae.pre_activations(x), (x - sae(x)).detach()
    torch.testing.assert_close(auxk_error(pre, e, dead, sae.W_dec, 99), (e - (pre * dead) @ sae.W_dec).square().sum())


def test_decoder_gradient_has_no_part_along_its_rows_and_rows_stay_unit():
    sae, x, dead = made()
    sae_loss(sae, x, dead, auxk=4).total.backward()
    whole = grad(sae.W_dec).clone()
    remove_radial(sae.W_dec)
    torch.testing.assert_close((grad(sae.W_dec) * sae.W_dec).sum(1), torch.zeros(18, dtype=torch.float64))
    radial = whole - grad(sae.W_dec)
    torch.testing.assert_close(radial, (whole * sae.W_dec).sum(1, keepdim=True) * sae.W_dec.detach())
    with torch.no_grad():
        sae.W_dec.sub_(grad(sae.W_dec))
    normalise_rows(sae.W_dec)
    torch.testing.assert_close(torch.linalg.vector_norm(sae.W_dec, dim=1), torch.ones(18, dtype=torch.float64))


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
