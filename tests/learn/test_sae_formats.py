"""Published checkpoints: each format's own arithmetic, what is refused, and how a folder is told."""

from __future__ import annotations

import json

import pytest
import safetensors.torch
import torch
from safetensors.torch import load_file, save_file

from concept_probe.learn import CorruptFile, load_sae, load_saes, save_sae
from concept_probe.learn.interop import FORMATS
from concept_probe.types import Site
from tests.learn import checkpoints as made
from tests.learn.checkpoints import WRITERS, D, F, rows
from tests.learn.planted import SITE

EXACT = {"gemma-scope": 1e-5, "gemma-scope-2": 1e-5, "llama-scope": 1e-5}
"""x itself is encoded there, so a bias is folded in the weights' float32."""


def agrees(sae, written: made.Written, exact: float = 1e-12) -> None:
    sae = sae.double()
    codes = sae.encode(rows().double())
    torch.testing.assert_close(codes.dense(F), written.codes, rtol=0, atol=exact)
    torch.testing.assert_close(sae.decode(codes), written.reconstruction, rtol=0, atol=exact)
    assert (codes.values > 0).any()


def test_every_format_is_tested():
    assert set(WRITERS) == set(FORMATS)


@pytest.mark.parametrize("name", FORMATS)
def test_codes_and_reconstruction_are_those_of_the_formats_own_formula(name, tmp_path):
    written = WRITERS[name](tmp_path)
    agrees(load_sae(tmp_path, site=SITE), written, EXACT.get(name, 1e-12))


@pytest.mark.parametrize("name", FORMATS)
def test_what_was_read_can_be_written_and_read_again(name, tmp_path):
    written = WRITERS[name](tmp_path / "theirs")
    agrees(load_sae(save_sae(load_sae(tmp_path / "theirs", site=SITE), tmp_path / "ours")), written, 1e-5)


@pytest.mark.parametrize("name", FORMATS)
def test_cut_weights_and_configurations_are_refused_naming_the_file(name, tmp_path):
    WRITERS[name](tmp_path)
    (weights,) = tmp_path.glob(FORMATS[name].weights)
    config = tmp_path / (FORMATS[name].config or "none")
    content = weights.read_bytes()
    weights.write_bytes(content[:-10])
    with pytest.raises(CorruptFile, match=rf"{weights.name}: not a whole (safetensors|npz) file"):
        load_sae(tmp_path, site=SITE)
    weights.write_bytes(content)
    if not config.is_file():
        return
    for text, said in ((config.read_text()[:20], "not whole JSON"), ("[1]", "a JSON list, not an object")):
        config.write_text(text)
        with pytest.raises(CorruptFile, match=rf"{config.name}: {said}"):
            load_sae(tmp_path, site=SITE)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"transcode": True}, "transcode is true, and a transcoder reads one site and writes another"),
        ({"skip_connection": True}, "skip_connection is true"),
        ({"activation": "groupmax"}, "activation is 'groupmax', and only 'topk' is known"),
        ({"batch_topk": True}, "batch_topk is true, so which features of a row fire depends on other rows"),
        ({"sample_topk": True}, "sample_topk is true"),
        ({"input_unit_norm": True}, "input_unit_norm is true, which divides each row by its own size"),
        ({"d_in": D + 1}, r"encoder.weight is \(48, 16\), cfg.json \(d_in 17, 51 latents\) asks for \(51, 17\)"),
        ({"num_latents": 50}, r"asks for \(50, 16\)"),
        ({"k": "many"}, "k is 'many' in the configuration; a whole number is needed"),
    ],
)
def test_sparsify_refuses_what_would_give_other_codes(options, said, tmp_path):
    made.sparsify(tmp_path, **options)
    with pytest.raises(ValueError, match=said):
        load_sae(tmp_path, site=SITE)


def test_the_number_of_latents_may_stand_alone(tmp_path):
    written = made.sparsify(tmp_path, num_latents=F, expansion_factor=1)
    agrees(load_sae(tmp_path, site=SITE), written)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"normalize": "rows"}, "normalize is 'rows' in the configuration; true or false is needed"),
        ({"input_scale": 2.0}, "input_scale is 2.0, which no reader here knows and which may change the codes"),
        ({"activation": "JumpReLU"}, "activation is 'JumpReLU', and TopK or ReLU is known"),
        ({"d_model": 17}, r"encoder.weight is \(48, 16\), the configuration says d_model 17"),
        ({"n_dirs_local": 49}, "the configuration says n_dirs_local 49"),
    ],
)
def test_openai_refuses_what_would_give_other_codes(options, said, tmp_path):
    made.openai(tmp_path, **options)
    with pytest.raises(ValueError, match=said):
        load_sae(tmp_path, site=SITE)


def test_openai_without_k_is_relu_where_it_says_so(tmp_path):
    made.openai(tmp_path, k=None)
    with pytest.raises(ValueError, match=r'neither k nor activation, .* put "k": N or "activation": "ReLU" into it'):
        load_sae(tmp_path, site=SITE)
    written = made.openai(tmp_path, k=None, activation="ReLU")
    sae = load_sae(tmp_path, site=SITE)
    assert sae.k is None and sae.activation.architecture == "standard"
    agrees(sae, written)


def test_openai_with_tied_weights_decodes_with_the_encoder(tmp_path):
    made.openai(tmp_path, tied=True)
    w = made.weights()
    save_file(
        {"encoder.weight": w["W"], "latent_bias": w["b"], "pre_bias": w["c"]}, tmp_path / "state_dict.safetensors"
    )
    assert torch.equal(load_sae(tmp_path, site=SITE).W_dec, w["W"])
    made.write_json(tmp_path / "config.json", k=3)
    with pytest.raises(ValueError, match=r"decoder.weight is None, encoder.weight \(48, 16\) asks for \(16, 48\)"):
        load_sae(tmp_path, site=SITE)


@pytest.mark.parametrize("k", [0, float("nan"), float("inf"), -1, 2.5, True, "3"])
def test_a_k_that_counts_nothing_is_refused(tmp_path, k):
    made.openai(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"k": k}))
    with pytest.raises(ValueError, match=r"k is .* a whole number is needed"):
        load_sae(tmp_path, site=SITE)


def test_other_safetensors_are_no_autoencoder_of_openai(tmp_path):
    made.write_json(tmp_path / "config.json", model_type="clip")
    save_file({"embedding": torch.zeros(3)}, tmp_path / "model.safetensors")
    with pytest.raises(
        ValueError, match=r"by its tensors \(embedding\) and its configuration \(model_type\) it is none of openai"
    ):
        load_sae(tmp_path, site=SITE)


def test_a_pickle_is_refused_with_lines_that_convert_it(tmp_path, monkeypatch):
    """The lines of the message are run, on a file as published text-to-image autoencoders have it."""
    written = made.openai(tmp_path)
    whole = tmp_path / "state_dict.safetensors"
    torch.save({"state_dict": load_file(whole)}, tmp_path / "state_dict.pth")
    whole.unlink()
    with pytest.raises(ValueError, match=r"state_dict.pth is a pickle") as caught:
        load_sae(tmp_path, site=SITE)
    lines = str(caught.value).partition("tensors: ")[2]
    monkeypatch.chdir(tmp_path)
    exec(lines, {"torch": torch, "safetensors": safetensors})
    agrees(load_sae(tmp_path, site=SITE), written)


def test_a_wrong_folder_is_told_what_was_looked_for_and_found(tmp_path):
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "sub").mkdir()
    with pytest.raises(FileNotFoundError) as caught:
        load_sae(tmp_path)
    for part in (
        "sae-lens (cfg.json and sae_weights.safetensors)",
        "sparsify (cfg.json and sae.safetensors)",
        "openai (config.json and *.safetensors)",
        "found notes.txt, sub/",
    ):
        assert part in str(caught.value)
    with pytest.raises(FileNotFoundError, match="there is no such folder"):
        load_sae(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"no sub-folder of .* holds an autoencoder; looked for sae-lens"):
        load_saes(tmp_path)


def test_a_folder_of_hook_points_points_to_load_saes(tmp_path):
    written = made.sparsify(tmp_path / "layers.3.mlp")
    made.sparsify(tmp_path / "layers.10.mlp")
    with pytest.raises(
        FileNotFoundError, match=r"load_saes reads the 2 in its sub-folders, load_sae\('layers.10.mlp'\)"
    ):
        load_sae(tmp_path)
    with pytest.raises(ValueError, match=r"'layers.10.mlp' doesn't say what stands before it in 'model', .* subject="):
        load_saes(tmp_path, component="model")
    for name in ("layers.3.mlp", "layers.10.mlp"):
        (tmp_path / name).rename(tmp_path / f"encoder.{name}")
    found = load_saes(tmp_path, component="model")
    assert {name: str(sae.site) for name, sae in found.items()} == {
        "encoder.layers.10.mlp": "model/encoder.layers.10.mlp:out",
        "encoder.layers.3.mlp": "model/encoder.layers.3.mlp:out",
    }
    agrees(found["encoder.layers.3.mlp"], written)


def test_sites_come_from_the_names_of_sub_folders_unless_the_file_says_otherwise(tmp_path):
    made.sparsify(tmp_path / "unet.up_blocks.1.attentions.1")
    for component in (None, "unet"):
        (sae,) = load_saes(tmp_path, component=component).values()
        assert sae.site == Site("unet", "up_blocks.1.attentions.1")
    save_sae(load_sae(tmp_path / "unet.up_blocks.1.attentions.1", site=SITE), tmp_path / "deep" / "some.name")
    assert load_saes(tmp_path)["deep/some.name"].site == SITE


def test_configurations_before_version_6_are_read(tmp_path):
    written = made.sae_lens(tmp_path)
    path = tmp_path / "cfg.json"
    old = {"d_in": D, "d_sae": F, "activation_fn_str": "topk", "activation_fn_kwargs": {"k": made.K}}
    path.write_text(json.dumps({**old, "normalize_activations": False, "hook_name": "blocks.3.hook_resid_pre"}))
    agrees(load_sae(tmp_path, site=SITE), written)


def test_sparsify_itself_gives_the_same_codes(tmp_path, monkeypatch):
    monkeypatch.setenv("SPARSIFY_DISABLE_TRITON", "1")  # its kernel needs a GPU
    sparsify = pytest.importorskip("sparsify")
    made.sparsify(tmp_path)
    theirs = sparsify.SparseCoder.load_from_disk(tmp_path)
    sae = load_sae(tmp_path, site=SITE)
    with torch.no_grad():
        out = theirs(rows())
    codes = torch.zeros(len(rows()), F).scatter(1, out.latent_indices, out.latent_acts)
    torch.testing.assert_close(sae.encode(rows()).dense(F), codes, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(sae(rows()), out.sae_out, rtol=1e-5, atol=1e-5)
