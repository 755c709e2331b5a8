"""Autoencoders on disk: every bit comes back, and what is damaged or unknown is refused."""

from __future__ import annotations

import json

import pytest
import torch

from concept_probe.learn import CorruptFile, JumpRelu, Relu, Sae, TopK, load_sae, save_sae
from concept_probe.types import Site
from tests.learn.lens_cases import D, F, lens_module, rows
from tests.learn.planted import SITE, Planted
from tests.learn.training import trained


def made(activation=None, scale=8.0) -> Sae:
    g = torch.Generator().manual_seed(0)
    weights = {"W_enc": torch.randn(D, F, generator=g), "b_enc": torch.randn(F, generator=g)}
    weights |= {"W_dec": torch.randn(F, D, generator=g), "b_dec": torch.randn(D, generator=g)}
    return Sae(SITE, activation or TopK(5), **weights, scale=scale, made_by={"recipe": "test", "seed": 3})


@pytest.mark.parametrize("activation", [TopK(5), Relu(), JumpRelu(torch.linspace(-1, 2, F))])
def test_saving_and_loading_changes_no_bit(activation, tmp_path):
    sae = made(activation)
    again = load_sae(save_sae(sae, tmp_path))
    assert (again.site, again.k, again.scale, again.made_by) == (sae.site, sae.k, sae.scale, sae.made_by)
    for name, tensor in sae.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    assert torch.equal(again(rows()), sae(rows()))


def test_half_precision_weights_keep_their_type(tmp_path):
    assert load_sae(save_sae(made().bfloat16(), tmp_path)).W_enc.dtype == torch.bfloat16


def test_the_scale_of_a_trained_autoencoder_survives(tmp_path):
    sae = trained(Planted(scale=30.0).batches(64), site=SITE, k=3, expansion=2, samples=640, batch=64, folder=tmp_path)
    again = load_sae(tmp_path)
    assert again.scale == sae.scale != 1.0 and torch.equal(again.W_dec, sae.W_dec)
    assert again.made_by == sae.made_by


def test_another_site_names_both(tmp_path):
    save_sae(made(), tmp_path)
    with pytest.raises(ValueError, match=r"is for site synthetic/planted:out, unet/mid_block:out was asked for"):
        load_sae(tmp_path, site=Site("unet", "mid_block"))


def test_a_file_without_a_site_asks_for_one(tmp_path):
    lens_module("standard").save_model(tmp_path)
    with pytest.raises(ValueError, match="does not say which site it is for; pass site="):
        load_sae(tmp_path)


@pytest.mark.parametrize("damage", ["cut", "altered", "swapped"])
def test_damaged_weights_are_refused_naming_file_and_check(tmp_path, damage):
    save_sae(made(), tmp_path)
    path = tmp_path / "sae_weights.safetensors"
    content = bytearray(path.read_bytes())
    if damage == "cut":
        del content[-100:]
    elif damage == "altered":
        content[-50] ^= 4
    else:
        save_sae(made(scale=2.0), tmp_path / "other")
        content = (tmp_path / "other" / path.name).read_bytes()
    path.write_bytes(content)
    with pytest.raises(
        CorruptFile, match=r"sae_weights\.safetensors: truncated or altered: sha256 is [0-9a-f]+, cfg\.json says"
    ):
        load_sae(tmp_path)


def test_cut_weights_of_sae_lens_are_refused_though_they_have_no_hash(tmp_path):
    lens_module("standard").save_model(tmp_path)
    path = tmp_path / "sae_weights.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(CorruptFile, match=r"sae_weights\.safetensors: not a whole safetensors file"):
        load_sae(tmp_path, site=SITE)


def test_weights_that_are_not_finite_are_refused(tmp_path):
    module = lens_module("standard")
    module.b_dec.data[3] = torch.nan
    module.save_model(tmp_path)
    with pytest.raises(CorruptFile, match="b_dec holds NaN or infinity"):
        load_sae(tmp_path, site=SITE)


def test_a_cut_configuration_is_refused(tmp_path):
    save_sae(made(), tmp_path)
    path = tmp_path / "cfg.json"
    path.write_text(path.read_text()[:80])
    with pytest.raises(CorruptFile, match=r"cfg\.json: not whole JSON"):
        load_sae(tmp_path)


@pytest.mark.parametrize("name", ["ae.pt", "model.bin", "weights.pth"])
def test_pickles_are_refused_as_file_and_in_a_folder(tmp_path, name):
    torch.save({"W_enc": torch.zeros(2, 2)}, tmp_path / name)
    with pytest.raises(ValueError, match=rf"{name} is a pickle"):
        load_sae(tmp_path / name)
    with pytest.raises(ValueError, match=rf"{name} is a pickle"):
        load_sae(tmp_path)


def test_a_folder_without_an_autoencoder_says_what_it_should_hold(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"looked for sae-lens \(cfg\.json and sae_weights\.safetensors\)"):
        load_sae(tmp_path)


def change(folder, **values):
    path = folder / "cfg.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_a_configuration_of_another_width_names_both(tmp_path):
    save_sae(made(), tmp_path)
    change(tmp_path, d_in=20)
    with pytest.raises(ValueError, match=r"W_enc is \(16, 48\), cfg.json \(d_in 20, d_sae 48\) asks for \(20, 48\)"):
        load_sae(tmp_path)


def test_options_that_would_change_the_codes_are_refused(tmp_path):
    save_sae(made(), tmp_path)
    change(tmp_path, normalize_activations="unit_sphere")
    with pytest.raises(
        ValueError, match="normalize_activations is 'unit_sphere', which is not known; known: none, exp"
    ):
        load_sae(tmp_path)


def test_an_unknown_architecture_lists_the_known_ones(tmp_path):
    save_sae(made(), tmp_path)
    change(tmp_path, architecture="temporal")
    with pytest.raises(LookupError, match=r"'temporal' not found; .*known: topk, standard, jumprelu, batchtopk"):
        load_sae(tmp_path)
