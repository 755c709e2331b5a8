"""Laws of every autoencoder: those shipped in sae_checkpoints/, and one of each architecture."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from concept_probe.learn import JumpRelu, Relu, Sae, TopK, load_sae, save_sae, shipped_saes
from concept_probe.types import Codes, unit
from tests.learn.planted import SITE, Planted
from tests.learn.training import trained

SHIPPED = sorted(p.parent for p in (Path(__file__).parents[2] / "sae_checkpoints").rglob("cfg.json"))
ACTIVATIONS = {
    "topk": lambda f: TopK(7),
    "standard": lambda f: Relu(),
    "jumprelu": lambda f: JumpRelu(torch.linspace(0.0, 1.0, f)),
}
CASES = [*ACTIVATIONS, "trained", *SHIPPED]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case if isinstance(case, str) else case.name)
def folder(request, tmp_path_factory) -> Path:
    if isinstance(request.param, Path):
        return request.param
    place = tmp_path_factory.mktemp(request.param)
    if request.param == "trained":
        trained(
            Planted(scale=50.0).batches(256), site=SITE, k=3, expansion=4, samples=256 * 60, batch=256, folder=place
        )
        return place
    g = torch.Generator().manual_seed(1)
    d, f = 24, 96
    W_dec = unit(torch.randn(f, d, generator=g), dim=1)
    b_enc, b_dec = 0.1 * torch.randn(f, generator=g), torch.randn(d, generator=g)
    activation = ACTIVATIONS[request.param](f)
    return save_sae(
        Sae(SITE, activation, W_enc=W_dec.mT.clone(), b_enc=b_enc, W_dec=W_dec, b_dec=b_dec, scale=0.25), place
    )


@pytest.fixture(scope="module")
def sae(folder: Path) -> Sae:
    return load_sae(folder).float()


@pytest.fixture(scope="module")
def x(sae: Sae) -> torch.Tensor:
    """Rows of the size that the autoencoder expects: noise about its bias, and sums of what it writes."""
    g = torch.Generator().manual_seed(2)
    noise = torch.randn(128, sae.d, generator=g) / sae.scale
    weights = torch.rand(128, 4, generator=g)
    indices = torch.randint(sae.width, (128, 4), generator=g)
    return sae.bias + torch.cat([noise, Codes(3 * weights, indices).dense(sae.width) @ sae.decoder])


def test_sae_lens_reads_the_same_codes_and_reconstructions(folder, sae, x):
    from sae_lens import SAE

    theirs = SAE.load_from_disk(folder, device="cpu", dtype="float32")
    assert tuple(theirs.W_enc.shape) == (sae.d, sae.width) and tuple(theirs.W_dec.shape) == (sae.width, sae.d)
    with torch.no_grad():
        codes, reconstruction = theirs.encode(x), theirs(x)
    torch.testing.assert_close(sae.encode(x).dense(sae.width), codes, rtol=1e-4, atol=1e-4 * float(codes.max()))
    torch.testing.assert_close(sae(x), reconstruction, rtol=1e-4, atol=1e-4 * float(x.abs().max()))
    ours = sae.decode(Codes(*codes.topk(sae.width, dim=1)))
    torch.testing.assert_close(ours, theirs.decode(codes).detach(), rtol=1e-4, atol=1e-4 * float(x.abs().max()))


def test_reconstruction_and_error_give_the_input_back(sae, x):
    torch.testing.assert_close(sae(x) + (x - sae(x)), x, rtol=0, atol=4e-7 * float(x.abs().max()))


def test_a_feature_that_does_not_fire_contributes_no_bit(sae, x):
    codes = sae.encode(x)
    fires = codes.dense(sae.width) > 0
    before = sae.decode(codes)
    rare = int(fires.sum(0).argmin())
    kept = sae.W_dec[rare].clone()
    try:
        with torch.no_grad():
            sae.W_dec[rare] = 1e6
        changed = sae.decode(codes)
    finally:
        with torch.no_grad():
            sae.W_dec[rare] = kept
    silent = ~fires[:, rare]
    assert silent.any() and torch.equal(changed[silent], before[silent])
    padded = Codes(
        torch.cat([codes.values, torch.zeros(len(x), 1)], 1),
        torch.cat([codes.indices, torch.full((len(x), 1), rare)], 1),
    )
    assert torch.equal(sae.decode(padded), before)


def test_nothing_firing_writes_the_bias(sae, x):
    nothing = Codes(torch.zeros(3, 2), torch.zeros(3, 2, dtype=torch.long))
    assert torch.equal(sae.decode(nothing), sae.bias.expand(3, -1))


def test_codes_are_never_negative_and_their_features_exist(sae, x):
    codes = sae.encode(x)
    assert (codes.values >= 0).all() and (codes.indices >= 0).all() and (codes.indices < sae.width).all()
    assert (codes.values > 0).any()
    if sae.k is not None:
        assert codes.values.shape[1] == sae.k


def test_rows_do_not_depend_on_their_neighbours(sae, x):
    alone = torch.cat([sae(row[None]) for row in x[:8]])
    torch.testing.assert_close(alone, sae(x)[:8], rtol=1e-5, atol=1e-5 * float(x.abs().max()))


def test_saving_again_changes_no_bit(sae, tmp_path):
    again = load_sae(save_sae(sae, tmp_path))
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), sae.parameters(), strict=True))


@pytest.mark.parametrize("place", SHIPPED, ids=lambda p: p.name)
def test_a_shipped_autoencoder_has_a_card_and_says_what_made_it(place):
    sae = load_sae(place)
    assert str(sae.site) in (place / "README.md").read_text(encoding="utf-8")
    assert sae.made_by["recipe"] == "concept_probe.train_sae" and sae.made_by["prompts"]


@pytest.mark.parametrize("place", SHIPPED, ids=lambda p: p.name)
def test_a_shipped_autoencoder_is_found_by_the_name_of_its_model(place):
    assert str(load_sae(place).site) in [str(s.site) for s in shipped_saes(place.parent.name)]
