"""What is learned beside a matrix, or in it, is the edit that comes of it, and what peft loads."""

from __future__ import annotations

import pytest
import torch

from concept_probe.erasers import Edit, Npo
from concept_probe.erasers.training.trainable import LowRankAdapters
from concept_probe.testing.concepts import tiny_facts
from concept_probe.testing.models.language import LANGUAGE, tiny_gpt2, tiny_llama

CONCEPT = tiny_facts()


@pytest.mark.parametrize("family", LANGUAGE)
def test_an_adapter_beside_a_matrix_is_the_edit_of_it(family):
    """While it is trained an adapter stands beside the module; afterwards it is a delta of the stored weight."""
    subject = LANGUAGE[family]()
    student = LowRankAdapters(subject, subject.sites("mlp_value"), 3, seed=0)
    for u, _ in student.pairs.values():
        u.data.normal_(generator=torch.Generator().manual_seed(1))
    with student.on():
        beside = subject.next_logits(CONCEPT.target.fit).detach()
    with Edit("test", "cat", student.deltas(), subject.weight_hash()).on(subject):
        torch.testing.assert_close(subject.next_logits(CONCEPT.target.fit), beside, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(beside, subject.next_logits(CONCEPT.target.fit), atol=1e-2)


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2])
def test_an_adapter_exports_to_peft(make, tmp_path):
    peft = pytest.importorskip("peft")
    subject = make()
    edit = Npo(steps=6, rate=0.05)(subject, CONCEPT)
    with edit.on(subject):
        expected = subject.next_logits(CONCEPT.target.fit)
    (folder,) = edit.export_lora(tmp_path)
    model = peft.PeftModel.from_pretrained(subject.model, folder)
    torch.testing.assert_close(subject.next_logits(CONCEPT.target.fit), expected, atol=1e-4, rtol=1e-4)
    model.unload()


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2])
def test_whole_matrices_export_to_peft_however_they_are_stored(make, tmp_path):
    """An edit of every entry, of square and of oblong matrices, also where the library holds them transposed."""
    peft = pytest.importorskip("peft")
    subject = make()
    names = ("c_proj", "c_attn") if make is tiny_gpt2 else ("down_proj", "q_proj")
    edit = Npo(steps=6, rate=0.05, rank=None, modules=names)(subject, CONCEPT)
    read = Edit.load(edit.save(tmp_path / "edit"))
    before = subject.next_logits(CONCEPT.target.fit)
    with edit.on(subject):
        expected = subject.next_logits(CONCEPT.target.fit)
    assert not torch.allclose(expected, before, atol=1e-2)
    (folder,) = read.export_lora(tmp_path)
    model = peft.PeftModel.from_pretrained(subject.model, folder)
    torch.testing.assert_close(subject.next_logits(CONCEPT.target.fit), expected, atol=1e-4, rtol=1e-4)
    model.unload()
