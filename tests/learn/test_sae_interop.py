"""To and from sae-lens: the same codes and reconstructions on both sides."""

from __future__ import annotations

import pytest
import torch

from concept_probe.learn import from_sae_lens, load_sae, save_sae
from tests.learn.lens_cases import D, F, lens_module, rows
from tests.learn.planted import SITE

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
    ("standard", {"normalize_activations": "layer_norm"}),
    ("topk", {"k": 5, "normalize_activations": "layer_norm", "rescale_acts_by_decoder_norm": True}),
    ("jumprelu", {"normalize_activations": "layer_norm", "apply_b_dec_to_input": False}),
    ("standard", {"normalize_activations": "constant_norm_rescale"}),
]


@pytest.mark.parametrize(("name", "options"), MADE)
def test_what_sae_lens_made_gives_the_same_codes_and_reconstruction_here(name, options, tmp_path):
    module = lens_module(name, **options)
    module.save_model(tmp_path)
    for sae in (load_sae(tmp_path, site=SITE), from_sae_lens(module, SITE)):
        x, codes = rows(), sae.encode(rows())
        theirs = module.encode(x).detach()
        if options.get("rescale_acts_by_decoder_norm"):  # there the codes are per unit of decoder norm
            written = theirs / module.W_dec.norm(dim=-1) @ module.W_dec
            torch.testing.assert_close(codes.dense(F) @ sae.W_dec, written, rtol=1e-4, atol=1e-4)
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


NORMALISED = [
    ("topk", {"k": 5}),
    ("topk", {"k": 5, "rescale_acts_by_decoder_norm": True}),
    ("standard", {}),
    ("jumprelu", {}),
    ("gated", {}),
    ("standard", {"apply_b_dec_to_input": False}),
]


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
def test_what_differs_from_row_to_row_is_written_for_sae_lens_too(kind, tmp_path):
    from sae_lens import SAE

    module = lens_module("standard", normalize_activations=kind)
    save_sae(from_sae_lens(module, SITE), tmp_path)
    theirs, x = SAE.load_from_disk(tmp_path), rows()
    torch.testing.assert_close(theirs(x), module(x), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(load_sae(tmp_path)(x), module(x).detach(), rtol=1e-4, atol=1e-4)


def test_heads_side_by_side_are_the_rows_of_hook_z(tmp_path):
    from sae_lens.saes.sae import SAEMetadata

    module = lens_module("standard", reshape_activations="hook_z", metadata=SAEMetadata(hook_name="attn.hook_z"))
    module.save_model(tmp_path)
    heads = rows().reshape(-1, 4, D // 4)
    ours = load_sae(tmp_path, site=SITE)(rows()).reshape(heads.shape)
    torch.testing.assert_close(ours, module(heads).detach(), rtol=1e-4, atol=1e-4)
