"""Columns of language models are ablated as those of text encoders are, however their matrices are stored."""

from __future__ import annotations

import pytest
import torch

from concept_probe.activations import capture
from concept_probe.erasers import AblateVectors, Columns, Edit, erase
from concept_probe.find.vectors.columns import zero_columns
from concept_probe.testing.models.language import LANGUAGE, LM_HIDDEN
from concept_probe.types import Concept, Prompt, Score, Site, Splits, Subspace

ITEMS = (2, 7, 30)
SCORE = Score("made by the test", 1.0, 1.0, 1.0, 1)
PROMPTS = [Prompt("see the cat", "cat"), Prompt("a dog and the red sun", "dog")]
CONCEPT = Concept("cat", target=Splits(fit=(PROMPTS[0],)), unrelated=Splits(fit=(PROMPTS[1],)))


@pytest.fixture(params=LANGUAGE)
def subject(request):
    return LANGUAGE[request.param]()


def found(subject) -> list[Subspace]:
    out = []
    for site in subject.sites("mlp_value"):
        for j in ITEMS:
            column = subject.matrix(site).detach()[:, j, None].clone()
            place = Site(site.component, site.path, "weight", j)
            out.append(Subspace(place, column, "parameter", SCORE, "cat", "mlp_value"))
    return out


def test_zeroed_weights_are_zeroed_coefficients_and_every_byte_comes_back(subject):
    before, weights = subject.next_logits(PROMPTS), subject.weight_hash()
    edit = erase("ablate_vectors", subject, CONCEPT, found(subject))
    assert isinstance(edit, Edit)
    with zero_columns(subject, dict.fromkeys(subject.sites("mlp_value"), ITEMS)):
        expected = subject.next_logits(PROMPTS)
    with edit.on(subject):
        torch.testing.assert_close(subject.next_logits(PROMPTS), expected, atol=1e-5, rtol=1e-5)
        for site in subject.sites("mlp_value"):
            assert not subject.matrix(site)[:, list(ITEMS)].any()
    assert not torch.allclose(expected, before, atol=1e-4)
    assert subject.weight_hash() == weights and torch.equal(subject.next_logits(PROMPTS), before)
    with edit.scaled(0).on(subject):
        assert torch.equal(subject.next_logits(PROMPTS), before)


def test_a_random_aim_of_the_same_method_changes_other_columns(subject):
    other = [Subspace(Site(f.site.component, f.site.path, "weight", (f.site.item or 0) + 5), f.basis, "parameter", SCORE)
             for f in found(subject)]  # fmt: skip
    edit = AblateVectors()(subject, CONCEPT, other)
    with edit.on(subject):
        for site in subject.sites("mlp_value"):
            assert subject.matrix(site)[:, list(ITEMS)].any()
            assert not subject.matrix(site)[:, [i + 5 for i in ITEMS]].any()


@pytest.mark.parametrize("how,factor", [("reflect", 0.5), ("noise", 2.0)])
def test_what_a_column_becomes(subject, how, factor):
    edit = AblateVectors(how=how, factor=factor)(subject, CONCEPT, found(subject))
    plain = {site: subject.matrix(site).detach().clone() for site in subject.sites("mlp_value")}
    changes = []
    with edit.on(subject):
        for site, before in plain.items():
            after = subject.matrix(site).detach()
            rest = [j for j in range(LM_HIDDEN) if j not in ITEMS]
            assert torch.equal(after[:, rest], before[:, rest])
            old, new = before[:, list(ITEMS)], after[:, list(ITEMS)]
            changes.append(new - old)
            if how == "reflect":
                torch.testing.assert_close(new, -factor * old)
            else:
                lengths = torch.linalg.vector_norm(new - old, dim=0) / torch.linalg.vector_norm(old, dim=0)
                torch.testing.assert_close(lengths, torch.full((3,), factor))
    if how == "noise":
        assert not torch.allclose(*(c / torch.linalg.vector_norm(c, dim=0) for c in changes), atol=0.1)
        again = AblateVectors(how="noise", factor=factor)(subject, CONCEPT, found(subject))
        other = AblateVectors(how="noise", factor=factor, seed=1)(subject, CONCEPT, found(subject))
        marks = []
        for made in (edit, again, other):
            with made.on(subject):
                marks.append(subject.weight_hash())
        assert marks[0] == marks[1] != marks[2]


def test_the_mean_needs_a_bias():
    subject = LANGUAGE["gpt2"]()
    edit = AblateVectors(how="mean")(subject, CONCEPT, found(subject))
    site = subject.sites("mlp_value")[1]
    block = capture(subject, [PROMPTS[1]], roles=["mlp_hidden"]).read(subject.sites("mlp_hidden")[1])
    hidden = block.x[block.columns["token"] != 0]  # the first position would decide every mean
    assert 0 < len(hidden) < len(block.x)
    added = subject.matrix(site).detach()[:, list(ITEMS)] @ hidden.mean(0)[list(ITEMS)]
    bias = dict(subject.module(site).named_parameters())["bias"]
    before = bias.detach().clone()
    with edit.on(subject):
        torch.testing.assert_close(bias.detach(), before + added)
    llama = LANGUAGE["llama"]()
    with pytest.raises(ValueError, match="that matrix has no bias; use how='zero', 'reflect' or 'noise'"):
        AblateVectors(how="mean")(llama, CONCEPT, found(llama))


def test_save_load_and_bake(subject, tmp_path):
    edit = AblateVectors()(subject, CONCEPT, found(subject))
    again = Edit.load(edit.save(tmp_path / "edit"))
    assert again.describe() == edit.describe()
    with edit.on(subject):
        edited = subject.weight_hash()
    with again.on(subject):
        assert subject.weight_hash() == edited
    again.bake(subject)
    assert subject.weight_hash() == edited


def test_an_adapter_does_what_the_edit_does(subject, tmp_path):
    peft = pytest.importorskip("peft")
    edit = AblateVectors()(subject, CONCEPT, found(subject))
    with edit.on(subject):
        expected = subject.next_logits(PROMPTS)
    (folder,) = edit.export_lora(tmp_path)
    model = peft.PeftModel.from_pretrained(subject.model, folder)
    torch.testing.assert_close(subject.next_logits(PROMPTS), expected, atol=1e-4, rtol=1e-4)
    model.unload()


def test_columns_of_a_transposed_matrix():
    matrix = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    values = torch.ones(3, 2)
    straight = Columns(torch.tensor([1, 4]), values, 5)
    turned = Columns(torch.tensor([1, 4]), values, 5, "in_out")
    assert torch.equal(turned.apply(matrix.mT.contiguous()), straight.apply(matrix).mT)
    u, v = turned.factors()
    torch.testing.assert_close(matrix + u @ v.mT, straight.apply(matrix))
