"""Edits: exact restoring, refusals, files, adapters, merging."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from torch import nn

from concept_probe.erasers import Columns, Edit, LowRank, Shift, Uce, WrongBase
from concept_probe.erasers.erasure.parameters import address
from concept_probe.registry import UnknownName
from concept_probe.testing.concepts import tiny_concept
from concept_probe.testing.models.diffusion import tiny_sd
from concept_probe.types import Site

CONCEPT = tiny_concept()


def low_rank(subject, rank: int = 2, size: float = 0.1, seed: int = 0) -> Edit:
    """A random edit of every value matrix, one MLP's columns and its bias."""
    generator = torch.Generator().manual_seed(seed)
    deltas = {}
    for site in subject.sites("cross_value_weight"):
        d_out, d_in = subject.parameter(site).shape
        u, v = torch.randn(d_out, rank, generator=generator), torch.randn(d_in, rank, generator=generator)
        deltas[address(site)] = LowRank(size * u, v)
    site = subject.sites("mlp_value")[0]
    weight = subject.parameter(site)
    values = torch.randn(len(weight), 3, generator=generator)
    deltas[address(site)] = Columns(torch.tensor([4, 1, 7]), size * values, weight.shape[1])
    deltas[address(site, "bias")] = Shift(size * torch.randn(len(weight), generator=generator))
    return Edit("random", "cat", deltas, subject.weight_hash(), {"method": "random", "seed": seed})


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_every_dtype_is_restored_to_the_bit(dtype):
    subject = tiny_sd()
    for module in subject.components.values():
        module.to(dtype)
    edit = low_rank(subject, size=3.7)
    before = subject.weight_hash()
    with edit.on(subject):
        assert subject.weight_hash() != before
        assert all(p.dtype == dtype for p in subject.components["unet"].parameters())
    assert subject.weight_hash() == before


def test_the_edit_is_the_sum_it_says():
    subject = tiny_sd()
    edit = low_rank(subject)
    site = subject.sites("cross_value_weight")[0]
    mlp = subject.sites("mlp_value")[0]
    weight, fc2 = subject.parameter(site).clone(), subject.parameter(mlp).clone()
    delta, columns = edit.deltas[address(site)], edit.deltas[address(mlp)]
    assert isinstance(delta, LowRank)
    assert isinstance(columns, Columns)
    with edit.on(subject):
        torch.testing.assert_close(subject.parameter(site), weight + delta.u @ delta.v.mT)
        moved = subject.parameter(mlp) - fc2
        torch.testing.assert_close(moved[:, [4, 1, 7]], columns.values, atol=1e-6, rtol=1e-5)
        moved[:, [4, 1, 7]] = 0
        assert not moved.any()


@pytest.mark.slow
def test_what_trains_inside_is_thrown_away():
    subject = tiny_sd()
    before = subject.weight_hash()
    with low_rank(subject).on(subject), torch.no_grad():
        for parameter in subject.components["unet"].parameters():
            if parameter.data_ptr() in edited_pointers(subject):
                parameter.add_(1.0)
    assert subject.weight_hash() == before


def edited_pointers(subject) -> set[int]:
    return {subject.parameter(site).data_ptr() for site in subject.sites("cross_value_weight")}


def test_nothing_is_applied_where_one_parameter_is_refused():
    subject = tiny_sd()
    edit = low_rank(subject)
    deltas = {**edit.deltas, "unet/nowhere.to_k:weight": LowRank(torch.ones(2, 1), torch.ones(2, 1))}
    broken = Edit("broken", "cat", deltas, edit.base_hash)
    before = subject.weight_hash()
    with pytest.raises(UnknownName, match="nowhere"), broken.on(subject):
        pytest.fail("the block must not run")
    assert subject.weight_hash() == before


def test_another_base_is_refused_with_both_hashes():
    subject, other = tiny_sd(0), tiny_sd(1)
    edit = low_rank(subject)
    before = other.weight_hash()
    with pytest.raises(WrongBase) as caught, edit.on(other):
        pytest.fail("the block must not run")
    assert edit.base_hash in str(caught.value)
    assert before in str(caught.value)
    with pytest.raises(WrongBase):
        edit.bake(other)
    assert other.weight_hash() == before


def test_an_edit_is_not_applied_twice():
    subject = tiny_sd()
    edit = low_rank(subject)
    with edit.on(subject), pytest.raises(WrongBase), edit.on(subject):
        pytest.fail("the block must not run")


def test_tied_weights_are_refused_by_name():
    subject = tiny_sd()
    first, second = subject.sites("cross_value_weight")[:2]
    a, b = subject.module(first), subject.module(second)
    assert isinstance(a, nn.Linear)
    assert isinstance(b, nn.Linear)
    b.weight = a.weight
    edit = low_rank(subject)
    with pytest.raises(ValueError, match="tied") as caught, edit.on(subject):
        pytest.fail("the block must not run")
    assert address(first) in str(caught.value)
    assert address(second) in str(caught.value)


def test_weights_that_share_storage_are_refused():
    subject = tiny_sd()
    first, second = subject.sites("cross_value_weight")[:2]
    subject.parameter(second).data = subject.parameter(first).data.view_as(subject.parameter(first))
    edit = low_rank(subject)
    with pytest.raises(ValueError, match="tied"), edit.on(subject):
        pytest.fail("the block must not run")


def test_quantised_weights_are_refused_by_name():
    subject = tiny_sd()
    edit = low_rank(subject)
    site = subject.sites("cross_value_weight")[0]
    module, weight = subject.module(site), subject.parameter(site)
    module.weight = nn.Parameter(torch.zeros(weight.shape, dtype=torch.int8), requires_grad=False)
    edit = Edit("random", "cat", edit.deltas, subject.weight_hash())
    with pytest.raises(ValueError, match="quantised") as caught, edit.on(subject):
        pytest.fail("the block must not run")
    assert address(site) in str(caught.value)


@pytest.mark.parametrize("role", ["cross_value", "cross_key"])
def test_offloaded_weights_are_refused_by_name(role):
    """Whether the edit means the offloaded parameter or another: its bytes are not there to be known."""
    subject = tiny_sd()
    edit = low_rank(subject)
    module = subject.module(subject.sites(role)[0])
    weight = module.get_parameter("weight")
    module.weight = nn.Parameter(weight.to("meta"), requires_grad=False)
    with pytest.raises(ValueError, match=r"offloaded.*without offloading") as caught, edit.on(subject):
        pytest.fail("the block must not run")
    assert subject.sites(role)[0].path in str(caught.value)


def test_packed_weights_are_refused():
    subject = tiny_sd()
    edit = low_rank(subject)
    site = subject.sites("cross_value_weight")[0]
    module, packed = subject.module(site), subject.parameter(site).data.to(torch.int8)
    del module.weight
    module.register_buffer("weight", packed)
    edit = Edit("random", "cat", edit.deltas, subject.weight_hash())
    with pytest.raises(ValueError, match="not a plain parameter"), edit.on(subject):
        pytest.fail("the block must not run")


def test_scaled_is_linear():
    subject = tiny_sd()
    edit = low_rank(subject)
    site = subject.sites("cross_value_weight")[0]
    base = subject.parameter(site).clone()
    with edit.on(subject):
        once = subject.parameter(site) - base
    with edit.scaled(4).scaled(5).on(subject):
        torch.testing.assert_close(subject.parameter(site) - base, 20 * once, atol=1e-4, rtol=1e-4)
    assert edit.scaled(4).scaled(5).made_by["scaled"] == 20


def test_then_is_one_after_the_other():
    subject = tiny_sd()
    first = low_rank(subject, seed=1)
    with first.on(subject):
        second = low_rank(subject, rank=1, seed=2)
        with second.on(subject):
            expected = subject.weight_hash()
    both = first.then(second, subject)
    with both.on(subject):
        assert subject.weight_hash() == expected
    with pytest.raises(WrongBase):
        first.then(low_rank(subject, seed=3), subject)


def test_merged_edits_survive_the_disk(tmp_path):
    subject = tiny_sd()
    first = low_rank(subject, seed=1)
    with first.on(subject):
        second = low_rank(subject, rank=1, seed=2)
    both = first.then(second, subject)
    read = Edit.load(both.save(tmp_path))
    with both.on(subject):
        expected = subject.weight_hash()
    with read.on(subject):
        assert subject.weight_hash() == expected


def test_altered_and_missing_files_are_named(tmp_path):
    edit = low_rank(tiny_sd())
    edit.save(tmp_path)
    store, note = tmp_path / "edit.safetensors", tmp_path / "edit.json"
    data = bytearray(store.read_bytes())
    data[-1] ^= 1
    store.write_bytes(data)
    with pytest.raises(ValueError, match="sha256") as caught:
        Edit.load(tmp_path)
    assert "edit.safetensors" in str(caught.value)
    store.write_bytes(data[:-10])
    with pytest.raises(ValueError, match="truncated or altered"):
        Edit.load(tmp_path)
    note.write_text(json.dumps({"format": "something else"}))
    with pytest.raises(ValueError, match="something else"):
        Edit.load(tmp_path)
    note.write_text("{")
    with pytest.raises(ValueError, match="not whole JSON"):
        Edit.load(tmp_path)
    note.unlink()
    with pytest.raises(FileNotFoundError, match=r"edit\.json"):
        Edit.load(tmp_path)


@pytest.mark.slow
def test_no_pickle_and_no_leftovers_on_disk(tmp_path):
    low_rank(tiny_sd()).save(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["edit.json", "edit.safetensors"]


def test_an_adapter_of_biases_is_refused(tmp_path):
    with pytest.raises(ValueError, match="bias"):
        low_rank(tiny_sd()).export_lora(tmp_path)


def test_peft_reads_the_exported_adapter(tmp_path):
    peft = pytest.importorskip("peft")
    subject = tiny_sd()
    full = low_rank(subject)
    deltas = {where: delta for where, delta in full.deltas.items() if not where.endswith("bias")}
    edit = Edit(full.name, full.concept, deltas, full.base_hash, full.made_by)
    folders = edit.export_lora(tmp_path)
    assert sorted(f.name for f in folders) == ["text_encoder", "unet"]
    sites = [*subject.sites("cross_value_weight"), subject.sites("mlp_value")[0]]
    with edit.on(subject):
        expected = {site: subject.parameter(site).clone() for site in sites}
    for folder in folders:
        model = peft.PeftModel.from_pretrained(copy.deepcopy(subject.components[folder.name]), str(folder))
        merged = model.merge_and_unload()
        for site in sites:
            if site.component == folder.name:
                torch.testing.assert_close(merged.get_submodule(site.path).weight, expected[site], atol=1e-6, rtol=1e-5)


def test_peft_reads_an_adapter_of_a_closed_form(tmp_path):
    peft = pytest.importorskip("peft")
    subject = tiny_sd()
    edit = Uce()(subject, CONCEPT)
    (folder,) = edit.export_lora(tmp_path)
    site: Site = subject.sites("cross_key_weight")[0]
    with edit.on(subject):
        expected = subject.parameter(site).clone()
    model = peft.PeftModel.from_pretrained(copy.deepcopy(subject.components["unet"]), str(folder)).merge_and_unload()
    torch.testing.assert_close(model.get_submodule(site.path).weight, expected, atol=1e-5, rtol=1e-4)
