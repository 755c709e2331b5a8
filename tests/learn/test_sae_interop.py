"""On disk, and to and from sae-lens."""

from __future__ import annotations

import json

import pytest
import torch

from concept_probe.learn import CorruptFile, JumpRelu, Relu, Sae, TopK, from_sae_lens, load_sae, save_sae, train_sae
from concept_probe.types import Site
from tests.learn.planted import SITE, Planted

D, F = 16, 48


def rows(n=64, d=D, seed=5):
    return 0.3 + torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def lens_module(name: str, **options):
    """A sae-lens autoencoder with random weights of uneven norm."""
    from sae_lens.saes.gated_sae import GatedSAE, GatedSAEConfig
    from sae_lens.saes.jumprelu_sae import JumpReLUSAE, JumpReLUSAEConfig
    from sae_lens.saes.standard_sae import StandardSAE, StandardSAEConfig
    from sae_lens.saes.topk_sae import TopKSAE, TopKSAEConfig

    kind, config = {
        "topk": (TopKSAE, TopKSAEConfig),
        "standard": (StandardSAE, StandardSAEConfig),
        "jumprelu": (JumpReLUSAE, JumpReLUSAEConfig),
        "gated": (GatedSAE, GatedSAEConfig),
    }[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = kind(config(d_in=D, d_sae=F, **options))
        for parameter in module.parameters():
            parameter.data.copy_(torch.randn_like(parameter))
        module.W_dec.data *= torch.linspace(0.5, 2.0, F)[:, None]
    return module


MADE = [
    ("topk", {"k": 5}),
    ("topk", {"k": 5, "rescale_acts_by_decoder_norm": True}),
    ("topk", {"k": 5, "apply_b_dec_to_input": False}),
    ("standard", {}),
    ("standard", {"apply_b_dec_to_input": False}),
    ("jumprelu", {}),
    ("jumprelu", {"apply_b_dec_to_input": False}),
    ("gated", {}),
    ("gated", {"apply_b_dec_to_input": False}),
]


@pytest.mark.parametrize(("name", "options"), MADE)
def test_what_sae_lens_made_gives_the_same_codes_and_reconstruction_here(name, options, tmp_path):
    module = lens_module(name, **options)
    module.save_model(tmp_path)
    for sae in (load_sae(tmp_path, site=SITE), from_sae_lens(module, SITE)):
        x, codes = rows(), sae.encode(rows())
        theirs = module.encode(x).detach()
        if options.get("rescale_acts_by_decoder_norm"):  # there the codes are per unit of decoder norm
            torch.testing.assert_close(codes.dense(F) @ sae.W_dec, theirs / module.W_dec.norm(dim=-1) @ module.W_dec)
        torch.testing.assert_close(codes.dense(F), theirs, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(sae.decode(codes), module.decode(theirs).detach(), rtol=1e-4, atol=1e-4)
        assert sae.site == SITE


def test_what_sae_lens_trained_is_loaded(tmp_path):
    from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        module = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=D, d_sae=F, k=4))
    module.b_enc.data.uniform_(-0.01, 0.01)
    module.save_inference_model(tmp_path)
    sae = load_sae(tmp_path, site=SITE)
    torch.testing.assert_close(sae(rows()), module(rows()).detach(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(torch.linalg.vector_norm(sae.W_dec, dim=1), torch.ones(F))


@pytest.mark.parametrize("name", ["batchtopk", "matryoshka"])
@pytest.mark.parametrize("rescale", [False, True])
def test_batchtopk_is_read_with_its_threshold_in_training_and_after(name, rescale, tmp_path):
    from sae_lens import SAE
    from sae_lens.saes.batchtopk_sae import BatchTopKTrainingSAE, BatchTopKTrainingSAEConfig
    from sae_lens.saes.matryoshka_batchtopk_sae import (
        MatryoshkaBatchTopKTrainingSAE,
        MatryoshkaBatchTopKTrainingSAEConfig,
    )

    options = {"d_in": D, "d_sae": F, "k": 4, "rescale_acts_by_decoder_norm": rescale}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        if name == "batchtopk":
            module = BatchTopKTrainingSAE(BatchTopKTrainingSAEConfig(**options))
        else:
            options["matryoshka_widths"] = [F // 4, F]
            module = MatryoshkaBatchTopKTrainingSAE(MatryoshkaBatchTopKTrainingSAEConfig(**options))
        for parameter in module.parameters():
            parameter.data.copy_(0.3 * torch.randn_like(parameter))
        module.W_dec.data *= torch.linspace(0.5, 2.0, F)[:, None]
        module.topk_threshold.fill_(0.4)
    module.save_model(tmp_path / "training")
    in_training = [load_sae(tmp_path / "training", site=SITE), from_sae_lens(module, SITE)]
    module.save_inference_model(tmp_path / "after")
    theirs = SAE.load_from_disk(tmp_path / "after")
    codes = theirs.encode(rows()).detach()
    assert 0 < float((codes > 0).float().mean()) < 0.5
    for sae in (*in_training, load_sae(tmp_path / "after", site=SITE)):
        torch.testing.assert_close(sae.encode(rows()).dense(F), codes, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(sae(rows()), theirs(rows()).detach(), rtol=1e-4, atol=1e-5)


NORMALISED = [("topk", {"k": 5}), ("topk", {"k": 5, "rescale_acts_by_decoder_norm": True}), ("standard", {}), ("jumprelu", {}),
              ("gated", {}), ("standard", {"apply_b_dec_to_input": False})]  # fmt: skip


def same_codes(module, sae):
    """The codes of raw rows, and what they write."""
    theirs = module.encode(rows()).detach()
    torch.testing.assert_close(sae.encode(rows()).dense(F), theirs, rtol=1e-4, atol=2e-4)
    torch.testing.assert_close(sae(rows()), module.decode(theirs).detach(), rtol=1e-4, atol=2e-4)


@pytest.mark.parametrize(("name", "options"), NORMALISED)
def test_a_scaling_beside_the_checkpoint_is_folded_as_sae_lens_folds_it(name, options, tmp_path):
    from sae_lens.training.activation_scaler import ActivationScaler

    module = lens_module(name, normalize_activations="expected_average_only_in", **options)
    module.save_model(tmp_path)
    with pytest.raises(ValueError, match=r"'expected_average_only_in', and the factor .* is not there as activation_s"):
        load_sae(tmp_path, site=SITE)
    ActivationScaler(scaling_factor=0.37).save(str(tmp_path / "activation_scaler.json"))
    sae = load_sae(tmp_path, site=SITE)
    assert sae.scale == pytest.approx(0.37)
    if options.get("rescale_acts_by_decoder_norm"):
        module.fold_W_dec_norm()  # before the scaling, which changes the norms that TopK is decided by
        module.cfg.rescale_acts_by_decoder_norm = False
    module.fold_activation_norm_scaling_factor(0.37)
    same_codes(module, sae)
    same_codes(module, load_sae(save_sae(sae, tmp_path / "again")))


@pytest.mark.parametrize(("name", "options"), [case for case in NORMALISED if case[0] != "gated"])
def test_a_whitening_beside_the_checkpoint_is_folded_as_sae_lens_folds_it(name, options, tmp_path):
    from sae_lens.training.activation_scaler import ActivationScaler

    module = lens_module(name, normalize_activations="covariance_whitening", **options)
    module.save_model(tmp_path)
    with pytest.raises(ValueError, match="the matrices that rows went through is not there as activation_whitening"):
        load_sae(tmp_path, site=SITE)
    scaler = ActivationScaler()
    scaler.estimate_whitening(D, iter([rows(512) @ torch.diag(torch.linspace(0.5, 2, D))] * 2), 2)
    scaler.save(str(tmp_path / "activation_scaler.json"))
    sae = load_sae(tmp_path, site=SITE)
    white = scaler.whitening
    assert white is not None
    module.fold_activation_whitening(white.mean, white.matrix, white.inverse_matrix)
    same_codes(module, sae)


@pytest.mark.parametrize("kind", ["layer_norm", "constant_norm_rescale"])
def test_what_differs_from_row_to_row_is_refused(kind, tmp_path):
    lens_module("standard", normalize_activations=kind).save_model(tmp_path)
    with pytest.raises(ValueError, match=rf"normalize_activations is '{kind}', which divides each row by its own size"):
        load_sae(tmp_path, site=SITE)


def test_heads_side_by_side_are_the_rows_of_hook_z(tmp_path):
    from sae_lens.saes.sae import SAEMetadata

    module = lens_module("standard", reshape_activations="hook_z", metadata=SAEMetadata(hook_name="attn.hook_z"))
    module.save_model(tmp_path)
    heads = rows().reshape(-1, 4, D // 4)
    ours = load_sae(tmp_path, site=SITE)(rows()).reshape(heads.shape)
    torch.testing.assert_close(ours, module(heads).detach(), rtol=1e-4, atol=1e-4)


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
    sae = train_sae(
        Planted(scale=30.0).batches(64), site=SITE, k=3, expansion=2, samples=640, batch=64, folder=tmp_path
    )
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
    with pytest.raises(CorruptFile, match=r"sae_weights\.safetensors: sha256 is [0-9a-f]+, cfg\.json says"):
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
    change(tmp_path, normalize_activations="layer_norm")
    with pytest.raises(ValueError, match="normalize_activations is 'layer_norm'"):
        load_sae(tmp_path)


def test_an_unknown_architecture_lists_the_known_ones(tmp_path):
    save_sae(made(), tmp_path)
    change(tmp_path, architecture="temporal")
    with pytest.raises(LookupError, match=r"'temporal' not found; .*known: topk, standard, jumprelu, batchtopk"):
        load_sae(tmp_path)
