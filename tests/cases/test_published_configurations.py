"""A published autoencoder's configuration is used whole or refused, in every dialect, and gives its own loader's codes."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest
import torch
from safetensors.torch import load_file, save_file

from concept_probe.learn import load_sae, save_sae
from concept_probe.learn.interop.keys import Keys
from concept_probe.learn.interop.lens_reader import ARCHITECTURES
from concept_probe.types import Site
from tests.learn import checkpoints as made
from tests.learn.checkpoints import D, F, rows

SITE = Site("model", "model.layers.1")
OLD = {"d_in": D, "d_sae": F, "dtype": "float32", "device": "cpu", "hook_name": "blocks.8.hook_resid_post"}


def write(folder, config, **tensors):
    w = made.weights()
    held = {"W_enc": w["W"].mT.contiguous(), "b_enc": w["b"], "W_dec": w["V"], "b_dec": w["c"], **tensors}
    (folder / "cfg.json").write_text(json.dumps(config))
    save_file(held, folder / "sae_weights.safetensors")
    return folder


TOPK = {"activation_fn_kwargs": {"k": 5}, "normalize_activations": "none"}
DIALECTS = [
    {**TOPK, "architecture": "standard", "activation_fn": "topk", "apply_b_dec_to_input": True},
    {**TOPK, "activation_fn_str": "topk", "normalize_activations": False},
    {**TOPK, "architecture": "topk", "activation_fn": "topk", "apply_b_dec_to_input": False},
    {"architecture": "topk", "k": 5, "hook_layer": 8, "normalize_activations": None},
    {
        "architecture": "standard",
        "activation_fn_str": "relu",
        "activation_fn_kwargs": {},
        "normalize_activations": None,
    },
    {"activation_fn": "relu", "normalize_activations": "layer_norm", "finetuning_scaling_factor": False},
    {"hook_point": "blocks.1.hook_resid_pre", "hook_point_head_index": None, "lp_norm": 1, "noise_scale": 0.1},
    {"architecture": "topk", "k": 5, "metadata": {"sae_lens_version": "6.1.0", "seqpos_slice": [None]}},
]


@pytest.mark.slow
@pytest.mark.parametrize("config", DIALECTS)
def test_every_dialect_gives_the_codes_of_sae_lens(config, tmp_path):
    from sae_lens import SAE

    folder = write(tmp_path, {**OLD, **config})
    ours, theirs, x = load_sae(folder, site=SITE), SAE.load_from_disk(str(folder)), rows()
    torch.testing.assert_close(ours.encode(x).dense(F), theirs.encode(x).detach(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(ours(x), theirs(x).detach(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"activation_fn": "tanh-relu"}, "the activation is 'tanh-relu'; known: relu, topk"),
        ({"activation_fn": "topk"}, "k is None in the configuration"),
        (
            {"activation_fn": "topk", "activation_fn_kwargs": {"k": 5, "signed": True}},
            "signed True, which is not known",
        ),
        ({"architecture": "gated", **TOPK, "activation_fn": "topk"}, "is 'topk' and architecture is 'gated'"),
        ({"architecture": "topk", "k": 4, **TOPK}, "k is 4 and activation_fn_kwargs has k 5"),
        (
            {"architecture": "topk", "k": 5, "activation_fn": "relu"},
            "the activation is 'relu' and architecture is 'topk'",
        ),
        (
            {"architecture": "topk", "k": 5, "activation_fn_str": "relu", "sae_lens_version": "6.2.0"},
            "the activation is 'relu' and architecture is 'topk'",
        ),
        ({"hook_layer": 7}, "hook_name is 'blocks.8.hook_resid_post' and hook_layer is 7, another block"),
        ({"hook_name": "model.layers.12", "metadata": {"hook_layer": 2}}, "'model.layers.12' and hook_layer is 2"),
        ({"architecture": "standard", "k": 4}, "k is 4, and architecture 'standard' lets any number"),
        (
            {"architecture": "standard", **TOPK, "activation_fn": "topk", "sae_lens_version": "6.0.0"},
            "which in version 6.0.0 decides alone",
        ),
        ({"architecture": "transcoder", "d_out": D}, "a transcoder reads one site and writes another"),
        (
            {"hook_name_out": "blocks.8.hook_mlp_out"},
            "it reads 'blocks.8.hook_resid_post' and writes 'blocks.8.hook_mlp_",
        ),
        ({"hook_head_index": 0}, "hook_head_index is 0, so it reads one head alone"),
        ({"apply_b_dec_to_input": "false"}, "apply_b_dec_to_input is 'false' in the configuration; true or false"),
        ({"reshape_activations": "hook_q"}, "reshape_activations is 'hook_q', which is not known"),
        ({"normalize_activations": "unit"}, "normalize_activations is 'unit', which is not known"),
        ({"tied_weights": True}, "tied_weights is True, which no reader here knows"),
        ({"input_scale": 0.5}, "input_scale is 0.5, which no reader here knows and which may change the codes"),
        ({"finetuning_scaling_factor": True}, "the tensor scaling_factor is not there"),
        ({"sae_lens_version": "new"}, "sae_lens_version is 'new', which is no version"),
        ({"architecture": "abstopk", "k": 5}, "'abstopk' not found"),
    ],
)
def test_a_key_that_changes_codes_in_a_way_not_known_is_refused_by_name(config, said, tmp_path):
    with pytest.raises((ValueError, LookupError), match=said):
        load_sae(write(tmp_path, {**OLD, **config}), site=SITE)


def test_tensors_that_nothing_is_made_of_are_refused_by_name(tmp_path):
    config = {**OLD, "architecture": "standard"}
    with pytest.raises(ValueError, match="W_skip would be left over, and what they do"):
        load_sae(write(tmp_path, config, W_skip=torch.zeros(D, D)), site=SITE)
    with pytest.raises(ValueError, match="scaling_factor is not 1 everywhere and finetuning_scaling_factor is false"):
        load_sae(write(tmp_path, config, scaling_factor=torch.full((F,), 2.0)), site=SITE)
    assert load_sae(write(tmp_path, config, scaling_factor=torch.ones(F)), site=SITE).width == F


def test_a_finetuned_scale_changes_what_codes_write(tmp_path):
    config = {**OLD, "architecture": "standard", "finetuning_scaling_factor": True}
    factor = torch.linspace(0.5, 2, F)
    sae, w = load_sae(write(tmp_path, config, scaling_factor=factor), site=SITE), made.weights()
    codes = ((rows() - w["c"]) @ w["W"].mT + w["b"]).relu()
    torch.testing.assert_close(sae.encode(rows()).dense(F), codes, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(sae(rows()), (codes * factor) @ w["V"] + w["c"], rtol=1e-4, atol=1e-4)


def test_what_is_said_of_the_subject_is_kept_and_processed_weights_are_warned_of(tmp_path):
    context = {"prepend_bos": True, "context_size": 64, "model_name": "gpt2-small", "dataset_path": "words"}
    folder = write(tmp_path, {**OLD, **context, "model_from_pretrained_kwargs": {"center_writing_weights": True}})
    with pytest.warns(
        UserWarning, match="center_writing_weights; rows of the residual stream had their mean taken away"
    ):
        sae = load_sae(folder, site=SITE)
    assert {name: sae.made_by[name] for name in context} == context
    assert sae.made_by["model_from_pretrained_kwargs"] == {"center_writing_weights": True}
    assert load_sae(save_sae(sae, tmp_path / "again")).made_by == sae.made_by


@pytest.mark.slow
def test_every_key_that_sae_lens_writes_in_training_is_known():
    from sae_lens import registry
    from sae_lens.config import LanguageModelSAERunnerConfig

    read = registry.SAE_TRAINING_CLASS_REGISTRY.items()
    classes = [config for name, (_, config) in read if name in ARCHITECTURES] + [LanguageModelSAERunnerConfig]
    known = {"normalize_activations", "reshape_activations", "apply_b_dec_to_input", "rescale_acts_by_decoder_norm"}
    names = {field.name for one in classes for field in fields(one)} - known
    assert "jumprelu_bandwidth" in names and Keys(dict.fromkeys(names, True), "here").kept()


class TestOpenAI:
    """The release for language models normalises each row of a TopK autoencoder; work that took over its names does not."""

    def expected(self):
        w = {name: t.double() for name, t in made.weights().items()}
        x = rows().double()
        mean = x.mean(1, keepdim=True)
        std = (x - mean).std(1, keepdim=True)
        codes = made.keep(((x - mean) / (std + 1e-5) - w["c"]) @ w["W"].mT + w["b"], made.K)
        return codes, (codes @ w["V"] + w["c"]) * std + mean

    @pytest.mark.parametrize("how", ["by its tensors", "by its configuration", "by its activation"])
    def test_rows_are_normalised_as_by_its_own_loader(self, how, tmp_path):
        by_activation = {"k": None, "activation": "TopK", "activation_state_dict": {"k": made.K, "postact_fn": "ReLU"}}
        options = {"by its configuration": {"normalize": True}, "by its activation": by_activation}.get(how, {})
        made.openai(tmp_path, **options)
        if how != "by its configuration":
            held = load_file(tmp_path / "state_dict.safetensors") | {"latents_activation_frequency": torch.ones(F)}
            save_file(held, tmp_path / "state_dict.safetensors")
        codes, written = self.expected()
        for sae in (read := load_sae(tmp_path, site=SITE), load_sae(save_sae(read, tmp_path / "again"))):
            sae = sae.double()
            torch.testing.assert_close(sae.encode(rows().double()).dense(F), codes, rtol=0, atol=1e-9)
            torch.testing.assert_close(sae(rows().double()), written, rtol=0, atol=1e-9)

    def test_codes_without_the_units_of_their_rows_are_not_decoded(self, tmp_path):
        made.openai(tmp_path, normalize=True)
        sae = load_sae(tmp_path, site=SITE)
        codes = sae.encode(rows())
        with pytest.raises(ValueError, match="these codes don't say the units of their rows"):
            sae.decode(type(codes)(codes.values, codes.indices))


@pytest.mark.parametrize(
    ("change", "said"), [("int", r"is of torch.int32; .* quantised"), ("zero_", "is 0 everywhere")]
)
@pytest.mark.parametrize("kind", ["sparsify", "openai", "sae_lens", "dictionary_learning"])
def test_weights_that_are_none_are_refused(kind, change, said, tmp_path):
    getattr(made, kind)(tmp_path)
    (path,) = tmp_path.glob("*.safetensors")
    held = {name: getattr(x, change)() if x.ndim == 2 else x for name, x in load_file(path).items()}
    save_file(held, path)
    with pytest.raises(ValueError, match=said):
        load_sae(tmp_path, site=SITE)
