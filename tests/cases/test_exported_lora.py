"""Exported edits where adapters are used: loaded into a pipeline they draw what the edited model draws."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch

from concept_probe.erasers import Edit, Esd, Training, Uce
from concept_probe.erasers.erasure.deltas import Columns, Delta, LowRank, Shift, Sum
from concept_probe.storage import tensor_entries
from concept_probe.testing.models.diffusion import tiny_sd, tiny_sdxl
from concept_probe.testing.models.language import tiny_llama
from concept_probe.types import Concept, Prompt, Query, Sampling, Splits

peft = pytest.importorskip("peft")

QUERIES = [Query(Prompt("a cat"), 1), Query(Prompt("a dog"), 2)]
SAMPLING = Sampling(steps=2, guidance=3.0)
CONCEPT = Concept(
    "cat",
    Splits(fit=(Prompt("a cat", "cat", "cat"),), select=(Prompt("the cat", "cat", "cat"),)),
    neighbours=Splits(fit=(Prompt("a dog", "dog", "dog"),)),
    anchor=Splits(fit=(Prompt("a sun", "sun", "sun"),)),
)


def change(shape: torch.Size, kind: int, g: torch.Generator) -> Delta:
    """A change of a weight, of one of four kinds."""
    d_out, d_in = shape[0], shape[1:].numel()
    low = LowRank(torch.randn(d_out, 1 + kind, generator=g) / 10, torch.randn(d_in, 1 + kind, generator=g) / 10)
    shift = Shift(torch.randn(shape, generator=g) / 20)
    some = Columns(torch.tensor([0, 2]), torch.randn(d_out, 2, *shape[2:], generator=g) / 20, shape[1])
    return (low, shift, some, Sum((low, some)))[kind]


def of_every_kind(subject) -> Edit:
    """An edit of every fifth weight that adapters can hold, convolutions among it."""
    g, weights = torch.Generator().manual_seed(0), []
    for component in sorted({*subject.components} - {"vae"}):
        for name, x in subject.components[component].named_parameters():
            path, _, leaf = name.rpartition(".")
            if leaf == "weight" and x.ndim > 1 and not path.endswith("embedding"):
                weights.append((f"{component}/{path}:{leaf}", x.shape))
    deltas = {where: change(shape, i % 4, g) for i, (where, shape) in enumerate(weights[::5])}
    return Edit("every-kind", "cat", deltas, subject.weight_hash())


@pytest.fixture(scope="module", params=[tiny_sd, tiny_sdxl])
def exported(request, tmp_path_factory):
    """How a tiny model is made, an edit of it, and the folder that it was exported to."""
    subject = request.param()
    edit, folder = of_every_kind(subject), tmp_path_factory.mktemp("lora")
    folders = edit.export_lora(folder, subject)
    assert {f.name for f in folders} == {*subject.components} - {"vae"}
    return request.param, edit, folder


@pytest.mark.slow
def test_a_pipeline_with_the_adapter_draws_what_the_edited_model_draws(exported):
    make, edit, folder = exported
    edited, loaded = make(), make()
    base = edited.generate(QUERIES, SAMPLING)
    with edit.on(edited):
        wanted = edited.generate(QUERIES, SAMPLING)
    loaded.pipeline.load_lora_weights(str(folder))
    torch.testing.assert_close(loaded.generate(QUERIES, SAMPLING), wanted, atol=2e-5, rtol=1e-4)
    assert (wanted - base).abs().max() > 0.05


@pytest.mark.slow
def test_peft_reads_each_component_convolutions_included(exported):
    make, edit, folder = exported
    subject = make()
    for component in sorted({*subject.components} - {"vae"}):
        module = copy.deepcopy(subject.components[component])
        merged = peft.PeftModel.from_pretrained(module, str(folder / component)).merge_and_unload()
        with edit.on(subject):
            for name, weight in merged.named_parameters():
                torch.testing.assert_close(
                    weight, subject.components[component].get_parameter(name), atol=1e-6, rtol=1e-5
                )


def test_names_are_those_of_pipelines(exported):
    _, edit, folder = exported
    names = tensor_entries(folder / "pytorch_lora_weights.safetensors", "export it again")
    assert len(names) == 2 * len(edit.deltas)
    assert any(name.startswith("text_encoder.text_model.encoder.layers.") for name in names)
    assert any(len(entry.shape) == 4 for entry in names.values())
    assert {name.partition(".")[0] for name in names} == {f.name for f in folder.iterdir() if f.is_dir()}


@pytest.mark.slow
def test_a_closed_form_reaches_a_pipeline(tmp_path):
    edit, subject = Uce()(tiny_sd(), CONCEPT), tiny_sd()
    edit.export_lora(tmp_path)
    with edit.on(subject):
        wanted = subject.generate(QUERIES, SAMPLING)
    subject.pipeline.load_lora_weights(str(tmp_path))
    torch.testing.assert_close(subject.generate(QUERIES, SAMPLING), wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("part", ["x", "u"])
def test_what_adapters_hold_of_trained_parts_is_exported_and_the_rest_named(tmp_path, part):
    training = Training(steps=1, pictures=1, batch=1, sampling=Sampling(steps=1))
    edit, subject = Esd(part=part, training=training)(tiny_sd(), CONCEPT), tiny_sd()
    with pytest.raises(ValueError, match=r"changes 'unet/.*:bias': .* can't hold a bias; .*leave_out=True"):
        edit.export_lora(tmp_path)
    assert not list(tmp_path.iterdir())
    with pytest.warns(UserWarning, match=r"left out of the adapter: 'unet/.*:bias' and \d+ more, [\d.]+% of the edit"):
        edit.export_lora(tmp_path, leave_out=True)
    kept = {w: d for w, d in edit.deltas.items() if isinstance(d, Shift) and d.values.ndim > 1}
    with Edit("kept", "cat", kept, edit.base_hash).on(subject):
        wanted = subject.generate(QUERIES, SAMPLING)
    subject.pipeline.load_lora_weights(str(tmp_path))
    torch.testing.assert_close(subject.generate(QUERIES, SAMPLING), wanted, atol=2e-5, rtol=1e-4)


TEXT = "text_encoder/encoder.layers.0"


@pytest.mark.parametrize(
    ("where", "said"),
    [
        ("unet/conv_in:bias", "a bias"),
        ("unet/conv_norm_out:weight", "the weight of a norm"),
        (f"{TEXT}.layer_norm1:weight", "the weight of a norm"),
        ("text_encoder/embeddings.token_embedding:weight", "an embedding"),
        ("unet/time_embedding.linear_1:alpha", "a parameter that is called alpha"),
    ],
)
def test_what_no_adapter_holds_is_refused_by_name(tmp_path, where, said):
    values = torch.ones(4, 6) if "embedding" in where else torch.ones(4)
    lost, kept = Shift(values * 3), Shift(torch.ones(4, 4))
    edit = Edit("hand", "cat", {"unet/time_embedding.linear_2:weight": kept, where: lost}, "x")
    with pytest.raises(ValueError, match=f"{where}.*can't hold {said}; .*`save`.*leave_out=True"):
        edit.export_lora(tmp_path)
    share = (9 * values.numel() / (9 * values.numel() + 16)) ** 0.5
    with pytest.warns(UserWarning, match=f"{where}', {share:.2%} of the edit by norm"):
        edit.export_lora(tmp_path, leave_out=True)
    with pytest.raises(ValueError, match="nothing that an adapter"):
        Edit("hand", "cat", {where: lost}, "x").export_lora(tmp_path, leave_out=True)


def test_a_component_that_pipelines_load_no_adapter_for_is_named(tmp_path):
    deltas = {"unet/a:weight": Shift(torch.ones(2, 2)), "vae/b:weight": Shift(torch.ones(2, 2))}
    with pytest.warns(UserWarning, match="no place for vae"):
        Edit("hand", "cat", deltas, "x").export_lora(tmp_path)


def test_the_adapter_of_a_language_model_is_peft_s_alone(tmp_path):
    site = tiny_llama().sites("mlp_value")[0]
    edit = Edit("hand", "cat", {f"{site.component}/{site.path}:weight": Shift(torch.ones(16, 40))}, "x")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        edit.export_lora(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
