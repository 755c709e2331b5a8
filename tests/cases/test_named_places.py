"""Sets of autoencoders are loaded by the names of their folders, which are looked up in the subject."""

from __future__ import annotations

import pytest
import torch

from concept_probe.activations import read_rows
from concept_probe.learn import load_sae, load_saes
from concept_probe.learn.interop.places import site_named
from concept_probe.testing.models import TINY_MODELS
from concept_probe.types import Prompt, Site
from tests.learn import checkpoints as made


@pytest.fixture(scope="module", params=["llama", "gpt2", "neox"])
def model(request):
    return TINY_MODELS[request.param]()


@pytest.fixture(scope="module")
def llama():
    return TINY_MODELS["llama"]()


def test_hook_points_are_the_tensors_that_they_name(model):
    named = {name: site_named(f"blocks.1.{name}", model) for name in
             ("hook_resid_pre", "hook_resid_post", "hook_mlp_out", "hook_attn_out", "attn.hook_z", "mlp.hook_post")}  # fmt: skip
    assert (
        named["hook_resid_post"]
        == model.sites("resid")[1]
        == site_named("layers.1", model)
        == site_named("layer_1", model)
    )
    assert named["hook_mlp_out"] == model.sites("mlp_out")[1]
    before = Site(model.sites("resid")[1].component, model.sites("resid")[1].path, "in")
    rows = read_rows(model, [Prompt("the red cat")], sites=[*named.values(), before])
    assert torch.equal(rows[named["hook_resid_pre"]].x, rows[before].x)
    attention = model.components["model"].get_submodule(named["attn.hook_z"].path)
    torch.testing.assert_close(attention(rows[named["attn.hook_z"]].x), rows[named["hook_attn_out"]].x)
    assert site_named("blocks.0.hook_resid_pre", model).side == "in"


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("layers.1", "model.layers.1"),
        ("layers.1.mlp", "model.layers.1.mlp"),
        ("model.layers.1.output", "model.layers.1"),
        ("model.model.layers.0", "model.layers.0"),
        ("model/model.layers.1:out", "model.layers.1"),
        ("blocks.1.hook_resid_pre", "model.layers.0"),
        ("resid_post_layer_1", "model.layers.1"),
    ],
)
def test_a_set_is_loaded_by_the_names_of_its_folders(name, path, llama, tmp_path):
    if "/" in name:
        assert site_named(name, llama).path == path
        return
    made.sparsify(tmp_path / name)
    (sae,) = load_saes(tmp_path, subject=llama).values()
    assert sae.site == Site("model", path) and sae.site in llama.sites("resid") + llama.sites("mlp_out")


@pytest.mark.slow
def test_paths_inside_a_denoiser_may_lack_their_component(tmp_path):
    sd = TINY_MODELS["sd"]()
    site = sd.sites("block_out")[0]
    assert site_named(f"unet.{site.path}", sd) == site_named(site.path, sd) == site


def test_what_the_subject_lacks_is_refused_when_it_is_loaded(llama, tmp_path):
    for name, said in (
        ("layers.9", "place 'layers.9' not found"),
        ("blocks.9.hook_resid_post", "has 2 blocks"),
        ("blocks.0.hook_rot_q", "hook point 'blocks.0.hook_rot_q' not found; nearest"),
        ("somewhere", "place 'somewhere' not found"),
    ):
        made.sparsify(tmp_path / name[:3] / name)
        with pytest.raises(LookupError, match=said):
            load_saes(tmp_path / name[:3], subject=llama)
    with pytest.raises(ValueError, match=r"place 'mlp' is model/model.layers.0.mlp:out, .*; pass component= or site="):
        site_named("mlp", llama)
    for name, said in (("blocks.0.hook_mlp_out", "pass subject= to look it up"), ("layers.1", "names no component")):
        made.sparsify(tmp_path / "alone" / name)
        with pytest.raises(ValueError, match=said):
            load_saes(tmp_path / "alone")
        (tmp_path / "alone" / name).rename(tmp_path / f"done-{name}")
    with pytest.raises(LookupError, match="a hook point of language models"):
        site_named("blocks.0.hook_mlp_out", TINY_MODELS["sd"]())


def test_the_place_that_a_file_names_is_looked_up_and_must_agree_with_the_folders(llama, tmp_path):
    made.sae_lens(tmp_path / "any", hook_name="blocks.1.hook_resid_pre")
    assert load_sae(tmp_path / "any", subject=llama).site == llama.sites("resid")[0]
    made.gemma_scope_2(tmp_path / "average")
    assert load_sae(tmp_path / "average", subject=llama).site == llama.sites("resid")[1]
    made.dictionary_learning(tmp_path / "trainer_0", layer=1, submodule_name="resid_post_layer_1")
    assert load_sae(tmp_path / "trainer_0", subject=llama).site == llama.sites("resid")[1]
    made.sae_lens(tmp_path / "layers.1", hook_name="blocks.1.hook_resid_pre")
    with pytest.raises(
        ValueError, match=r"says 'blocks.1.hook_resid_pre', which is .*layers.0:out, and the folder's name"
    ):
        load_sae(tmp_path / "layers.1", subject=llama)
    with pytest.raises(ValueError, match=r"pass site=.*, or subject= to look up its place 'blocks.1.hook_resid_pre'"):
        load_sae(tmp_path / "any")
    with pytest.raises(LookupError, match=r"site .model/layers\.1:out. not found"):
        load_sae(tmp_path / "any", site=Site("model", "layers.1"), subject=llama)


def test_the_place_that_a_file_names_must_agree_with_the_site_asked_for(llama, tmp_path):
    made.sae_lens(tmp_path / "any", hook_name="blocks.1.hook_resid_pre")
    first, second = llama.sites("resid")
    for site in (first, Site(second.component, second.path, "in")):
        assert load_sae(tmp_path / "any", site=site, subject=llama).site == site
    with pytest.raises(ValueError, match=r"says 'blocks.1.hook_resid_pre', which is .*layers.0:out of .* asked for"):
        load_sae(tmp_path / "any", site=second, subject=llama)
    assert load_sae(tmp_path / "any", site=second).site == second


def test_nested_sets_are_named_by_the_folders_above(llama, tmp_path):
    inside = "layer_1/width_16k/average_l0_20"
    made.gemma_scope(tmp_path / "gemma-scope-2b-pt-mlp" / inside)
    (sae,) = load_saes(tmp_path / "gemma-scope-2b-pt-mlp", subject=llama).values()
    assert sae.site == llama.sites("mlp_out")[1]
    made.gemma_scope(tmp_path / "mine" / inside)
    with pytest.warns(
        UserWarning, match=r"whether it reads the residual stream; it is taken for model/model.layers.1:out"
    ):
        found = load_saes(tmp_path / "mine", subject=llama)
    assert {name: sae.site for name, sae in found.items()} == {inside: llama.sites("resid")[1]}
    for root in ("gemma-scope-2b-pt-mlp", "mine"):
        with pytest.raises(ValueError, match="doesn't say what stands before it in 'model'"):
            load_saes(tmp_path / root, component="model")
