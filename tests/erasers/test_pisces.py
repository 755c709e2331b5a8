"""PISCES: what becomes of each column against an autoencoder worked out by hand, and which columns are acted on."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from concept_probe.activations import read_site
from concept_probe.erasers import Pisces
from concept_probe.erasers.ablation.pisces import at_features, rewritten
from concept_probe.erasers.erasure.deltas import Columns
from concept_probe.erasers.erasure.parameters import address
from concept_probe.erasers.unlearning.activations import after_first_token
from concept_probe.families import CausalLMSubject
from concept_probe.find.rows import gather_prompts
from concept_probe.learn.sae import Relu, Sae
from concept_probe.testing.concepts import tiny_facts
from concept_probe.testing.found import CERTAIN, random_sae
from concept_probe.testing.models.diffusion import tiny_sd
from concept_probe.testing.models.language import LANGUAGE, LM_WIDTH, tiny_llama
from concept_probe.types import Codes, Site, Subspace

CONCEPT = tiny_facts()
families = pytest.mark.parametrize("family", LANGUAGE)


def space(sae: Sae, *features: int, site: Site | None = None) -> Subspace:
    return Subspace(
        site or sae.site, sae.decoder[list(features)].mT, "activation", CERTAIN, features=features, codec=sae
    )


def narrow_sae(subject: CausalLMSubject) -> Sae:
    """Over the first block, and of another width."""
    rows = torch.eye(12)
    return Sae(subject.sites("resid")[0], Relu(), W_enc=rows, b_enc=torch.zeros(12), W_dec=rows, b_dec=torch.zeros(12))


def biased(subject: CausalLMSubject, role: str, block: int = 0) -> Sae:
    """An autoencoder with offsets and a scale, so that how long a row is matters."""
    plain = random_sae(subject, role, block)
    generator = torch.Generator().manual_seed(1)
    return Sae(
        plain.site, Relu(), W_enc=plain.W_enc, W_dec=plain.W_dec, scale=0.5,
        b_enc=-0.3 * torch.rand(4 * LM_WIDTH, generator=generator), b_dec=0.2 * torch.randn(LM_WIDTH, generator=generator),
    )  # fmt: skip


def by_hand(sae: Sae, weight: Tensor, features: list[int], tau: float, mu: float, norm: float | None) -> Tensor:
    """What is added to each column (d, h), column by column and in float64, straight from the weights."""
    enc, dec, b_enc, b_dec = (x.double() for x in (sae.W_enc, sae.W_dec, sae.b_enc, sae.b_dec))
    columns = weight.double().mT
    factors = [1.0 if norm is None else norm / float(v.norm()) for v in columns]

    def coded(v: Tensor) -> Tensor:
        return ((v * sae.scale - b_dec) @ enc + b_enc).relu()

    values = [[coded(sign * f * v) for v, f in zip(columns, factors, strict=True)] for sign in (1, -1)]
    out = torch.zeros_like(columns)
    for j in features:
        most = max(float(a[j]) for side in values for a in side)
        for sign, side in zip((1, -1), values, strict=True):
            for i, a in enumerate(side):
                if float(a[j]) > tau * most and float(a[j]) > 0:
                    out[i] += sign * (-mu * most - float(a[j])) * dec[j] / sae.scale / factors[i]
    return out.mT


@families
@pytest.mark.parametrize("length", ["site", "own"])
def test_each_column_is_what_the_autoencoder_makes_of_it(family, length):
    subject = LANGUAGE[family]()
    sae, features = biased(subject, "mlp_out", 1), [5, 40]
    edit = Pisces(tau=0.4, mu=0.5, length=length)(subject, CONCEPT, [space(sae, *features)])
    value = subject.sites("mlp_value")[1]
    norm = None
    if length == "site":
        with torch.no_grad():
            x, read = read_site(subject, sae.site, [p for _, p in gather_prompts(CONCEPT, "fit")])
        norm = float(x[after_first_token(read)].norm(dim=-1).mean())
    wanted = by_hand(sae, subject.matrix(value).detach(), features, 0.4, 0.5, norm)
    assert list(edit.deltas) == [address(value)]
    before = subject.matrix(value).detach().clone()
    with edit.on(subject):
        moved = (subject.matrix(value) - before).double()
    torch.testing.assert_close(moved, wanted, atol=1e-4, rtol=1e-3)
    acted = wanted.any(0)
    assert 0 < acted.sum() < len(acted)
    assert edit.made_by["columns"] == {str(value): int(acted.sum())}
    assert edit.made_by["features"] == {str(sae.site): features}


def test_what_the_autoencoder_does_not_explain_stays():
    """A column's edited reconstruction, with its residual, differs from it along the features alone."""
    subject = tiny_llama()
    sae = biased(subject, "resid")
    x = torch.randn(20, LM_WIDTH, generator=torch.Generator().manual_seed(3))
    codes = sae.encode(x)
    change = rewritten(sae, codes, [7], torch.zeros(20, 1))
    edited = sae.decode(Codes(torch.where(codes.indices == 7, 0, codes.values), codes.indices)) + x - sae.decode(codes)
    torch.testing.assert_close(x + change, edited, atol=1e-5, rtol=1e-5)
    fires = at_features(codes, [7])[:, 0] > 0
    assert fires.any() and not change[~fires].any()


@families
def test_the_strictest_threshold_acts_on_the_strongest_column_alone(family):
    subject = LANGUAGE[family]()
    sae = random_sae(subject, "resid")
    counts = []
    for tau in (0.0, 0.5, 0.999):
        (delta,) = Pisces(tau=tau)(subject, CONCEPT, [space(sae, 3)]).deltas.values()
        assert isinstance(delta, Columns)
        counts.append(len(delta.indices))
    assert counts[0] >= counts[1] >= counts[2] == 1 and counts[0] > 1


def test_after_removal_no_column_is_coded_with_the_feature():
    """With an orthogonal dictionary, whose features are independent of each other."""
    subject = tiny_llama()
    basis, _ = torch.linalg.qr(torch.randn(LM_WIDTH, LM_WIDTH, generator=torch.Generator().manual_seed(0)))
    zero = torch.zeros(LM_WIDTH)
    sae = Sae(subject.sites("mlp_out")[0], Relu(), W_enc=basis.mT.clone(), b_enc=zero, W_dec=basis, b_dec=zero.clone())
    value = subject.sites("mlp_value")[0]
    with Pisces(tau=0.0)(subject, CONCEPT, [space(sae, 2)]).on(subject):
        left = basis[2] @ subject.matrix(value).detach()
        assert float(left.abs().max()) < 1e-5
    with Pisces(tau=0.0, signs="positive")(subject, CONCEPT, [space(sae, 2)]).on(subject):
        left = basis[2] @ subject.matrix(value).detach()
        assert float(left.max()) < 1e-5 and float(left.min()) < -0.1


def test_blocks_below_a_residual_stream_and_two_autoencoders_of_one_matrix():
    subject = tiny_llama()
    upper, out = random_sae(subject, "resid", 1), random_sae(subject, "mlp_out", 1)
    own = Pisces()(subject, CONCEPT, [space(upper, 3)])
    both = Pisces(below=1)(subject, CONCEPT, [space(upper, 3)])
    first, second = (address(s) for s in subject.sites("mlp_value"))
    assert list(own.deltas) == [second] and list(both.deltas) == [first, second]
    assert list(Pisces(below=1)(subject, CONCEPT, [space(out, 3)]).deltas) == [second]
    two = Pisces()(subject, CONCEPT, [space(upper, 3), space(out, 5)])
    alone = Pisces()(subject, CONCEPT, [space(out, 5)])
    base = subject.parameter(subject.sites("mlp_value")[1]).detach()
    summed = own.deltas[second].apply(base) + alone.deltas[second].apply(base) - base
    torch.testing.assert_close(two.deltas[second].apply(base), summed, atol=1e-6, rtol=1e-5)


def test_what_cannot_be_coded_is_refused():
    subject, pictures = tiny_llama(), tiny_sd()
    before, sae = subject.weight_hash(), random_sae(subject, "resid")
    with pytest.raises(TypeError, match="answer with texts"):
        Pisces()(pictures, CONCEPT, [space(sae, 1)])
    with pytest.raises(ValueError, match="0 subspaces were given, none of them such"):
        Pisces()(subject, CONCEPT)
    for elsewhere in (space(random_sae(pictures, "text_stream"), 1), space(sae, 1, site=subject.sites("resid")[1])):
        with pytest.raises(ValueError, match="read where it was trained, such as model/"):
            Pisces()(subject, CONCEPT, [elsewhere])
    with pytest.raises(ValueError, match="has width 12, and tiny-llama-0 has width 16"):
        Pisces()(subject, CONCEPT, [space(narrow_sae(subject), 1)])
    with pytest.raises(ValueError, match="two autoencoders at"):
        Pisces()(subject, CONCEPT, [space(sae, 1), space(random_sae(subject, "resid"), 2)])
    for wrong in ({"tau": 1.0}, {"mu": -1.0}, {"below": -1}, {"length": "long"}, {"signs": "none"}):
        with pytest.raises(ValueError, match=r"pisces: (tau|length|signs) is"):
            Pisces(**wrong)(subject, CONCEPT, [space(sae, 1)])  # pyright: ignore[reportArgumentType]
    silent = Sae(
        sae.site, Relu(), W_enc=sae.W_enc, b_enc=torch.full((4 * LM_WIDTH,), -1e9), W_dec=sae.W_dec, b_dec=sae.b_dec
    )
    with pytest.raises(ValueError, match="is coded with any of the features"):
        Pisces()(subject, CONCEPT, [replace(space(sae, 1), codec=silent)])
    assert subject.weight_hash() == before
