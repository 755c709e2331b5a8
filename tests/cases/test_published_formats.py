"""Formats are told by their tensors, and each gives its own codes and reconstruction."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from concept_probe.learn import load_sae
from concept_probe.types import Site
from tests.learn import checkpoints as made
from tests.learn.checkpoints import D, F, K, rows

SITE = Site("model", "model.layers.1")


def dictionary(folder, name, tensors, **trainer):
    """A folder as dictionary_learning writes it, with ae.pt converted."""
    config = {"dict_class": name, "activation_dim": D, "dict_size": F, "layer": 1, "lr": 1e-3, **trainer}
    made.write_json(folder / "config.json", trainer=config, buffer={"io": "out", "ctx_len": 64})
    save_file({n: t.contiguous() for n, t in tensors.items()}, folder / "ae.safetensors")
    return folder


def linear():
    w = made.weights()
    return {"encoder.weight": w["W"], "decoder.weight": w["V"].mT}, w


def classes():
    layers, w = linear()
    matrices = {"W_enc": w["W"].mT, "b_enc": w["b"], "W_dec": w["V"], "b_dec": w["c"]}
    x, level, k = rows(), torch.tensor(0.7), torch.tensor(K)
    on_x, on_rest = x @ w["W"].mT, (x - w["c"]) @ w["W"].mT
    pre, norms = on_rest + w["b"], w["V"].norm(dim=1)
    above = torch.where(pre > level, pre.relu(), 0)
    gate, gain = made.weights()["b"].flip(0), torch.linspace(-0.5, 0.5, F)
    magnitude = (gain.exp() * on_rest + w["b"]).relu()
    levels, new = torch.linspace(0, 2, F), on_x + w["b"]
    return {
        "AutoEncoder": ({**layers, "encoder.bias": w["b"], "bias": w["c"]}, {}, pre.relu() * norms, pre.relu()),
        "AutoEncoderNew": ({**layers, "encoder.bias": w["b"], "decoder.bias": w["c"]}, {}, new.relu(), None),
        "GatedAutoEncoder": (
            {**layers, "decoder_bias": w["c"], "gate_bias": gate, "mag_bias": w["b"], "r_mag": gain},
            {},
            torch.where(on_rest + gate > 0, magnitude, 0),
            None,
        ),
        "JumpReluAutoEncoder": (
            {**matrices, "threshold": levels},
            {"bandwidth": 0.001},
            torch.where(new > levels, new.relu(), 0),
            None,
        ),
        "AutoEncoderTopK": (
            {**layers, "encoder.bias": w["b"], "b_dec": w["c"], "k": k, "threshold": level},
            {"k": K},
            made.keep(pre, K),
            None,
        ),
        "BatchTopKSAE": (
            {**layers, "encoder.bias": w["b"], "b_dec": w["c"], "k": k, "threshold": level},
            {"k": K, "norm_factor": 3.0},
            above,
            None,
        ),
        "MatryoshkaBatchTopKSAE": (
            {**matrices, "k": k, "threshold": level, "group_sizes": torch.tensor([16, F - 16])},
            {"k": K, "group_sizes": [16, F - 16]},
            above,
            None,
        ),
    }


@pytest.mark.parametrize("name", classes())
def test_every_class_of_dictionary_learning_gives_its_own_codes(name, tmp_path):
    tensors, trainer, codes, written_by = classes()[name]
    sae, w = load_sae(dictionary(tmp_path, name, tensors, **trainer), site=SITE), made.weights()
    written = (codes if written_by is None else written_by) @ w["V"] + w["c"]
    torch.testing.assert_close(sae.encode(rows()).dense(F), codes, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(sae(rows()), written, rtol=1e-4, atol=1e-4)
    assert sae.made_by["dict_class"] == name and sae.made_by["ctx_len"] == 64


def test_what_contradicts_itself_is_refused(tmp_path):
    tensors = classes()["BatchTopKSAE"][0]
    for trainer, said in (
        ({"k": K + 1}, "the tensor k is 5, the configuration says k 6"),
        ({"dict_size": F + 1}, "the encoder has 48 features, the configuration says dict_size 49"),
        ({"output_scale": 2.0}, "output_scale is 2.0, which no reader here knows"),
    ):
        with pytest.raises(ValueError, match=said):
            load_sae(dictionary(tmp_path, "BatchTopKSAE", tensors, **trainer), site=SITE)
    with pytest.raises(LookupError, match="class of dictionary 'CrossCoder' not found"):
        load_sae(dictionary(tmp_path, "CrossCoder", tensors), site=SITE)
    with pytest.raises(ValueError, match="extra would be left over"):
        load_sae(dictionary(tmp_path, "BatchTopKSAE", {**tensors, "extra": torch.ones(2)}, k=K), site=SITE)
    with pytest.warns(UserWarning, match="threshold is -1, which training never set"):
        load_sae(dictionary(tmp_path, "BatchTopKSAE", {**tensors, "threshold": torch.tensor(-1.0)}, k=K), site=SITE)


def test_a_folder_that_is_of_no_format_says_which_tensors_each_asks_for(tmp_path):
    tensors = classes()["BatchTopKSAE"][0]
    made.write_json(tmp_path / "config.json", k=K)
    save_file({n: t.contiguous() for n, t in tensors.items()}, tmp_path / "ae.safetensors")
    with pytest.raises(
        ValueError, match=r"by its tensors \(b_dec, decoder.weight, .* none of openai \(encoder.weight, lat"
    ):
        load_sae(tmp_path, site=SITE)


@pytest.mark.parametrize(
    ("write", "options", "said"),
    [
        (
            made.gemma_scope_2,
            {"affine_connection": True},
            "affine_connection is true, and an autoencoder has no such path",
        ),
        (
            made.gemma_scope_2,
            {"hf_hook_point_out": "model.layers.1.mlp.output"},
            "a transcoder reads one site and writes",
        ),
        (made.gemma_scope_2, {"architecture": "topk"}, "architecture is 'topk', which is not known"),
        (made.gemma_scope_2, {"width": 50}, "w_enc has 48 features, the configuration says width 50"),
        (
            made.llama_scope,
            {"hook_point_out": "blocks.1.hook_mlp_out"},
            "a transcoder reads one site and writes another",
        ),
        (made.llama_scope, {"norm_activation": "token-wise"}, "norm_activation is 'token-wise', which is not known"),
        (made.llama_scope, {"dataset_average_activation_norm": None}, "the factor on its rows is not known"),
        (made.llama_scope, {"use_glu_encoder": True}, "use_glu_encoder is true"),
        (made.llama_scope, {"sparsity_include_decoder_norm": True}, "readers of this format differ in what fires"),
    ],
)
def test_scopes_refuse_what_would_give_other_codes(write, options, said, tmp_path):
    write(tmp_path, **options)
    with pytest.raises(ValueError, match=said):
        load_sae(tmp_path, site=SITE)


def test_a_skip_that_only_the_tensors_tell_of_is_refused(tmp_path):
    made.gemma_scope_2(tmp_path)
    held = load_file(tmp_path / "params.safetensors") | {"affine_skip_connection": torch.zeros(D, D)}
    save_file(held, tmp_path / "params.safetensors")
    with pytest.raises(ValueError, match="affine_skip_connection is there"):
        load_sae(tmp_path, site=SITE)


def test_gemma_scope_says_when_it_is_of_transcoders_or_of_the_embedding(tmp_path):
    for name, said in (
        ("gemma-scope-2b-pt-transcoders/layer_1/width_16k/average_l0_5", "a set of transcoders"),
        ("gemma-scope-2b-pt-res/embedding/width_4k/average_l0_6", "is of the embedding"),
    ):
        made.gemma_scope(tmp_path / name)
        with pytest.raises(ValueError, match=said):
            load_sae(tmp_path / name, site=SITE)
