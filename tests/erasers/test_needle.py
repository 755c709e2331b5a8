"""Needle: which entries change, that noise starts from the subject's own columns, and what training does to them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from concept_probe.erasers import Columns, Needle
from concept_probe.erasers.erasure.parameters import address
from concept_probe.erasers.training.trainable import ColumnDeltas
from concept_probe.erasers.unlearning.losses import divergence
from concept_probe.find.removals.known import column_noise
from concept_probe.testing.concepts import tiny_facts
from concept_probe.testing.found import CERTAIN, aimed_columns, column, drawn_columns
from concept_probe.testing.models.diffusion import tiny_sd
from concept_probe.testing.models.language import LANGUAGE, tiny_llama
from concept_probe.types import Site, Splits, Subspace

CONCEPT = tiny_facts()
families = pytest.mark.parametrize("family", LANGUAGE)


@families
def test_a_student_of_columns_is_the_edit_of_them(family):
    """While it is trained it stands beside the module; afterwards it is a delta of the stored weight."""
    subject = LANGUAGE[family]()
    generator = torch.Generator().manual_seed(0)
    start = {site: ([3, 30, 7], torch.randn(16, 3, generator=generator)) for site in subject.sites("mlp_value")}
    student = ColumnDeltas(subject, start)
    plain = subject.next_logits(CONCEPT.target.fit)
    with student.on():
        beside = subject.next_logits(CONCEPT.target.fit).detach()
        with student.reference():
            assert torch.equal(subject.next_logits(CONCEPT.target.fit), plain)
    with torch.no_grad():
        for site, (items, added) in start.items():
            subject.matrix(site)[:, items] += added
    torch.testing.assert_close(subject.next_logits(CONCEPT.target.fit), beside, atol=1e-4, rtol=1e-4)
    for site, (items, added) in start.items():
        delta = student.deltas()[address(site)]
        base = subject.parameter(site).detach()
        back = delta.scaled(-1.0).apply(base)
        moved = (base - back).mT if delta.describe().get("stored") == "in_out" else base - back
        torch.testing.assert_close(moved[:, items], added, atol=1e-6, rtol=1e-5)
        assert moved.any(0).sum() == 3


@families
def test_only_the_found_columns_change_and_noise_has_the_length_it_says(family):
    subject = LANGUAGE[family]()
    found = aimed_columns(subject, CONCEPT)
    edit = Needle(factor=3.0, steps=0)(subject, CONCEPT, found)
    before = {site: subject.matrix(site).detach().clone() for site in subject.sites("mlp_value")}
    with edit.on(subject):
        for site, weight in before.items():
            moved, items = (
                subject.matrix(site) - weight,
                sorted(f.site.item or 0 for f in found if site.path == f.site.path),
            )
            assert moved.any(0).nonzero()[:, 0].tolist() == items
            ratio = moved[:, items].norm(dim=0) / weight[:, items].norm(dim=0)
            torch.testing.assert_close(ratio, torch.full_like(ratio, 3.0), atol=1e-3, rtol=1e-3)


def test_noise_of_one_concept_is_not_in_what_the_next_one_begins_from():
    """Made after another concept's, on the same columns, an edit is the same as made alone."""
    alone = Needle(steps=3)(tiny_llama(), CONCEPT, aimed_columns(tiny_llama(), CONCEPT))
    subject = tiny_llama()
    found = aimed_columns(subject, CONCEPT)
    Needle(steps=3, seed=5)(subject, tiny_facts("tub", "low wall"), found)
    after = Needle(steps=3)(subject, CONCEPT, found)
    assert after.base_hash == alone.base_hash and after.deltas.keys() == alone.deltas.keys()
    for where, delta in after.deltas.items():
        assert all(torch.equal(x, alone.deltas[where].tensors()[n]) for n, x in delta.tensors().items())
    values = next(d for d in after.deltas.values() if isinstance(d, Columns)).values
    parts = [p.untyped_storage().data_ptr() for p in subject.model.parameters()]
    assert values.untyped_storage().data_ptr() not in parts


@pytest.mark.slow
@pytest.mark.parametrize("keep", ["kl", "nll"])
def test_training_keeps_other_answers_better_than_noise_alone(keep):
    subject = tiny_llama()
    others, found = CONCEPT.neighbours.fit, drawn_columns(subject, CONCEPT, 0)
    before = subject.next_logits(others)
    pairs = [(p, " " + p.answers[0]) for p in others]

    def lost(steps: int) -> float:
        edit = Needle(steps=steps, rate=0.05, keep=keep)(subject, CONCEPT, found)
        with edit.on(subject), torch.no_grad():
            if keep == "kl":
                return float(divergence(subject.next_logits(others), before))
            return -float(subject.log_probs(pairs).mean.mean())

    assert lost(40) < lost(0)


def test_it_reports_how_much_of_the_columns_comes_back():
    subject = tiny_llama()
    found = aimed_columns(subject, CONCEPT)
    made = Needle(factor=1.0, steps=0)(subject, CONCEPT, found).made_by
    sites = {Site("model", f.site.path, "weight") for f in found}
    cosines = []
    for site in sites:
        own = subject.matrix(site).detach()[:, sorted(f.site.item or 0 for f in found if f.site.path == site.path)]
        cosines.append(torch.cosine_similarity(own + column_noise(site, own, 1.0, 0), own, dim=0))
    wanted = float(torch.cat(cosines).mean())
    assert made["cosine"] == pytest.approx([wanted, wanted], abs=1e-6) and made["loss"] == []
    assert sum(len(items) for items in made["columns"].values()) == len(found)


def test_what_cannot_be_noised_is_refused():
    subject = tiny_llama()
    before, found = subject.weight_hash(), aimed_columns(subject, CONCEPT)
    with pytest.raises(TypeError, match="answer with texts"):
        Needle()(tiny_sd(), CONCEPT, found)
    with pytest.raises(ValueError, match="needle needs columns of a language model"):
        Needle()(subject, CONCEPT)
    with pytest.raises(ValueError, match="is no column of a down projection"):
        Needle()(subject, CONCEPT, [replace(found[0], site=Site("unet", "mid_block", "weight", 3))])
    for wrong in (
        replace(found[0], site=replace(found[0].site, item=40)),
        Subspace(found[0].site, torch.ones(12, 1), "parameter", CERTAIN),
    ):
        with pytest.raises(ValueError, match="find the columns on this model"):
            Needle()(subject, CONCEPT, [wrong])
    with pytest.raises(ValueError, match=r"fit prompts in .* to keep"):
        Needle()(subject, replace(CONCEPT, neighbours=Splits()), [column(subject, found[0].site)])
    assert subject.weight_hash() == before
