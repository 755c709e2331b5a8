"""Edits written in every form: read again they are the same edit, and the field's loaders make the edited model of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from diffusers.loaders import single_file_utils
from safetensors.torch import load_file

from concept_probe.erasers import Columns, Edit, LowRank, Shift, WrongBase
from concept_probe.erasers.interop import EDIT_FORMS, export_edit, read_edit
from concept_probe.erasers.interop.joint import joint_names
from concept_probe.erasers.interop.naming import in_checkpoints, in_comfy
from concept_probe.families import adopt
from concept_probe.testing.models.diffusion import tiny_sd, tiny_sdxl
from concept_probe.testing.models.language import tiny_gpt2, tiny_llama
from concept_probe.testing.models.transformers import tiny_flux, tiny_sd3
from tests.interop.files import assert_same, edited, fused, merged, weights

pytest.importorskip("peft")
MODELS = {"sd": tiny_sd, "sdxl": tiny_sdxl, "flux": tiny_flux, "sd3": tiny_sd3, "llama": tiny_llama, "gpt2": tiny_gpt2}
WRITTEN = [name for name, form in EDIT_FORMS.items() if form.write is not None]
NAMED = ("diffusers", "kohya", "comfy")
"""Forms whose names depend on the model."""
TRIED = {
    "sd": WRITTEN,
    "sdxl": (*NAMED, "checkpoint"),
    "flux": NAMED,
    "sd3": NAMED,
    "llama": ("peft",),
    "gpt2": [name for name in WRITTEN if EDIT_FORMS[name].on == "both"],
}
HAND = "a hand's"


def edit_of(subject, form: str, *, every: int = 5) -> Edit:
    """Of some of all that the form holds: products, columns, whole changes, and biases, norms and embeddings where it may."""
    held, g, deltas = EDIT_FORMS[form].holds, torch.Generator().manual_seed(0), {}
    for component, module in subject.components.items():
        if component == "vae" and form not in ("edit", "checkpoint", "pipeline", "state-dict", "peft"):
            continue
        i = -1
        for name, x in module.named_parameters():
            path, _, leaf = name.rpartition(".")
            matrix = leaf == "weight" and x.ndim > 1 and not isinstance(module.get_submodule(path), torch.nn.Embedding)
            unheld = any(part in path for part in ("wte", "shared", "embed_tokens"))  # tied
            unheld |= form == "comfy" and "norm_" in path and component == "transformer"  # no weight there
            unheld |= form == "diffusers" and component not in subject.pipeline._lora_loadable_modules
            i += not unheld and bool(path) and (matrix or "biases" in held)
            if not (matrix or "biases" in held) or i % every or unheld or not path:
                continue
            turned = (
                "in_out"
                if subject.answers == "texts" and "Conv1D" in type(module.get_submodule(path)).__name__
                else "out_in"
            )
            d_out, d_in = (x.shape[0], x[0].numel()) if x.ndim else (0, 0)
            if matrix and i % 2 == 0:
                sides = (d_in, d_out) if turned == "in_out" else (d_out, d_in)
                u, v = (torch.randn(n, 2, generator=g) / 8 for n in sides)
                deltas[f"{component}/{path}:{leaf}"] = LowRank(u, v, turned)
            elif matrix and i % 3 == 0 and turned == "out_in":
                values = torch.randn(d_out, 2, *x.shape[2:], generator=g) / 8
                deltas[f"{component}/{path}:{leaf}"] = Columns(torch.tensor([0, 2]), values, x.shape[1])
            else:
                deltas[f"{component}/{path}:{leaf}"] = Shift(torch.randn(x.shape, generator=g) / 8, turned)
    return Edit("by hand", HAND, deltas, subject.weight_hash())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "form"),
    [(model, form) for model, forms in TRIED.items() for form in forms],
)
def test_what_is_written_is_read_as_the_same_edit_and_loads_elsewhere(model, form, tmp_path):
    make = MODELS[model]
    subject, fresh = make(), make()
    edit = edit_of(subject, form)
    base, wanted = weights(subject), edited(subject, edit)
    written = export_edit(edit, subject, tmp_path, form)
    for place in written if form == "state-dict" else (tmp_path if form == "peft" else written[0],):
        found = edited(fresh, read_edit(place, fresh))
        whose = f"{place.stem}/" if form == "state-dict" else ""
        assert_same(
            {name: x for name, x in found.items() if name.startswith(whose)},
            {name: x for name, x in wanted.items() if name.startswith(whose)},
            {name: x for name, x in base.items() if name.startswith(whose)},
        )
    if form == "diffusers" or (form == "kohya" and model in ("sd", "sdxl")):
        assert_same(fused(fresh, written[0]), wanted, base)
    if form == "peft":
        for folder in written:
            mine = {n.partition("/")[2]: x for n, x in wanted.items() if n.startswith(f"{folder.name}/")}
            for name, x in merged(fresh.components[folder.name], folder).items():
                torch.testing.assert_close(x, mine[name], atol=2e-6, rtol=2e-5)
    if form == "checkpoint":
        fresh.pipeline.save_pretrained(tmp_path / "base")
        kind = type(fresh.pipeline)
        told = {"config": str(tmp_path / "base"), "local_files_only": True}
        assert_same(weights(adopt(kind.from_single_file(str(written[0]), **told), "loaded")), wanted, base)
    if form == "state-dict":
        for place in written:
            component = fresh.components[place.stem]
            missing, left = component.load_state_dict(load_file(place), strict=False)
            assert not left and all("lm_head" in name for name in missing)


def test_names_of_publishers_are_those_that_diffusers_converts():
    """Whole transformers by their publishers' names, put together by ours, taken apart by diffusers."""
    for make, convert in (
        (tiny_flux, single_file_utils.convert_flux_transformer_checkpoint_to_diffusers),
        (tiny_sd3, single_file_utils.convert_sd3_transformer_checkpoint_to_diffusers),
    ):
        subject = make()
        transformer = subject.components["transformer"]
        held = {
            f"transformer/{n.rpartition('.')[0]}:{n.rpartition('.')[2]}": x for n, x in transformer.named_parameters()
        }
        theirs = {
            f"model.diffusion_model.{name}": torch.cat(
                [held[p.where][slice(*p.at)] if p.at else held[p.where] for p in pieces]
            )
            for name, pieces in joint_names("transformer", transformer)
        }
        buffers = {"pos_embed": dict(transformer.named_buffers()).get("pos_embed.pos_embed")}
        if make is tiny_flux:  # the conversion knows the width of the release alone
            theirs = {name: x for name, x in theirs.items() if "linear1" not in name}
            spare = {"linear1.weight": torch.zeros(21504, 1), "linear1.bias": torch.zeros(21504)}
            theirs |= {f"single_blocks.{i}.{name}": x for i in range(2) for name, x in spare.items()}
        converted = convert({**theirs, **buffers})
        checked = [
            name for name, x in transformer.named_parameters() if name in converted and converted[name].shape == x.shape
        ]
        for name in checked:
            assert torch.equal(converted[name], transformer.get_parameter(name)), name
        rest = {name for name, _ in transformer.named_parameters()} - {*checked}
        assert all("single_transformer_blocks" in name and ("attn.to_" in name or "proj_mlp" in name) for name in rest)


@pytest.mark.slow
def test_a_lower_rank_is_the_nearest_and_says_what_it_loses(tmp_path):
    subject = tiny_sd()
    where = "unet/mid_block.attentions.0.transformer_blocks.0.attn2.to_k:weight"
    g = torch.Generator().manual_seed(0)
    change = torch.randn(32, 16, generator=g) @ torch.diag(0.5 ** torch.arange(16.0)) / 4
    edit = Edit("x", "cat", {where: Shift(change)}, subject.weight_hash())
    u, s, v = torch.linalg.svd(change, full_matrices=False)
    lost = float(s[3:].square().sum().sqrt() / s.square().sum().sqrt())
    for form in ("diffusers", "kohya", "comfy", "peft"):
        with pytest.warns(UserWarning, match=re.escape(f"cut to rank 3, {lost:.2%} of the edit by norm is lost")):
            export_edit(edit, subject, tmp_path / form, form, rank=3)
        found = edited(subject, read_edit(tmp_path / form, subject))
        moved = found["unet/mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"]
        base = weights(subject)["unet/mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"]
        torch.testing.assert_close(moved - base, u[:, :3] @ torch.diag(s[:3]) @ v[:3], atol=1e-5, rtol=1e-4)


def test_what_a_form_can_t_hold_is_refused_by_name(tmp_path):
    subject = tiny_sd()
    bias = Edit("x", "cat", {"unet/conv_in:bias": Shift(torch.ones(16))}, subject.weight_hash())
    vae = Edit("x", "cat", {"vae/quant_conv:weight": Shift(torch.ones(8, 8, 1, 1))}, subject.weight_hash())
    for form in ("diffusers", "kohya", "peft"):
        with pytest.raises(ValueError, match=r"changes 'unet/conv_in:bias': .*can't hold a bias"):
            export_edit(bias, subject, tmp_path, form)
    for form, said in {
        "diffusers": "'vae' of 'tiny-sd-0'",
        "kohya": "'vae/quant_conv:weight'",
        "comfy": "'vae/quant",
    }.items():
        with pytest.raises(ValueError, match=f"no place for {said}.*write the form 'edit' or 'pipeline'"):
            export_edit(vae, subject, tmp_path, form)
    for form, problem, said in (
        ("kohja", LookupError, "nearest: 'kohya'"),
        ("lycoris", ValueError, r"is read and not written; those that are: edit, diffusers"),
    ):
        with pytest.raises(problem, match=said):
            export_edit(bias, subject, tmp_path, form)
    with pytest.raises(WrongBase, match="nothing was written"):
        export_edit(bias, tiny_sd(1), tmp_path, "comfy")
    with pytest.raises(ValueError, match="changes nothing"):
        export_edit(bias.scaled(0), subject, tmp_path, "kohya")
    with pytest.raises(ValueError, match="of models that answer with pictures"):
        export_edit(bias, tiny_llama(), tmp_path, "kohya")
    flux = tiny_flux()
    of_flux = Edit("x", "cat", {"transformer/x_embedder:weight": Shift(torch.ones(32, 16))}, flux.weight_hash())
    with pytest.raises(ValueError, match="of pipelines with a U-Net"):
        export_edit(of_flux, flux, tmp_path, "checkpoint")
    assert not list(tmp_path.iterdir())
    (tmp_path / "taken").write_text("mine")
    for form in (name for name, one in EDIT_FORMS.items() if one.write is not None):
        with pytest.raises(NotADirectoryError, match="is a file, and an edit is written into a folder"):
            export_edit(bias, subject, tmp_path / "taken", form)


def test_comfy_s_names_are_those_of_checkpoints():
    """Which `from_single_file` above has read: ComfyUI keeps its models so, and takes changes by the same names."""
    for make in (tiny_sd, tiny_sdxl):
        subject = make()
        checkpoint = {name.removeprefix("model."): at for name, at in in_checkpoints(subject)}
        comfy = {name: at for name, at in in_comfy(subject) if name.startswith("diffusion_model.")}
        assert comfy == {name: at for name, at in checkpoint.items() if name in comfy} and len(comfy) > 150
        names = (name.rpartition(".") for name, _ in subject.components["unet"].named_parameters())
        assert {at[0].where for at in comfy.values()} == {f"unet/{path}:{leaf}" for path, _, leaf in names}


def test_the_page_has_the_table_of_forms():
    page = (Path(__file__).parents[2] / "docs/how-to/audit-a-checkpoint.md").read_text(encoding="utf-8")
    section = page.partition("\n## Forms of files\n")[2].partition("\n## ")[0]
    rows = dict(re.findall(r"^\| `([\w-]+)` \| (.+) \|$", section, re.M))
    assert rows == {name: form.row() for name, form in EDIT_FORMS.items()}
