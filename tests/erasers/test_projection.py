"""Projections: baked equals acting, affine parts go into biases, what can't be baked is refused."""

from __future__ import annotations

import pytest
import torch

from concept_probe.activations import tap
from concept_probe.erasers import DifferenceOfMeans, Edit, Intervention, Leace
from concept_probe.erasers.projection import projector
from concept_probe.find import concept_rows, difference_of_means, leace
from concept_probe.find.directions.projection import DIRECTION_KINDS, contrast_directions
from concept_probe.find.rows import RowQuery
from concept_probe.testing.concepts import tiny_concept
from concept_probe.testing.models.diffusion import DIFFUSION, tiny_sd
from concept_probe.types import Moment, Query, Sampling, Site

CONCEPT = tiny_concept()
QUERIES = [Query(p, i) for i, p in enumerate(CONCEPT.target.test)]
SAMPLING = Sampling(steps=2, guidance=2.0)


@pytest.mark.slow
@pytest.mark.parametrize("family", DIFFUSION)
@pytest.mark.parametrize("role", ["text_out", "text_mlp_hidden", "text_mlp_out", "cross_value"])
def test_a_baked_projection_does_what_the_intervention_does(family: str, role: str):
    subject = DIFFUSION[family]()
    # Without a bias there is no place for the affine part: there the linear projection is compared.
    affine = role in ("text_mlp_hidden", "text_mlp_out")
    # The pooled embedding reads a text encoder's stream past what cross-attention reads.
    sites = (
        subject.sites(role)[:1]
        if role != "text_out"
        else [s for s in subject.sites(role) if s.component == "text_encoder"]
    )
    found = [leace(subject, CONCEPT, site, which=RowQuery(limit=2, sampling=SAMPLING), affine=affine) for site in sites]
    acting, baked = (Leace(how=how)(subject, CONCEPT, found) for how in ("intervention", "bake"))
    assert isinstance(baked, Edit)
    assert baked.made_by["affine_dropped"] == []
    before = subject.generate(QUERIES, SAMPLING)
    with acting.on(subject):
        during = subject.generate(QUERIES, SAMPLING)
    with baked.on(subject):
        torch.testing.assert_close(subject.generate(QUERIES, SAMPLING), during, atol=1e-5, rtol=1e-4)
    assert (during - before).abs().max() > 1e-4


def test_a_dropped_affine_part_is_said():
    subject = tiny_sd()
    edit = DifferenceOfMeans(how="bake")(subject, CONCEPT)
    assert isinstance(edit, Edit)
    assert len(edit.made_by["affine_dropped"]) == len(edit.deltas)
    assert all(where.endswith(":weight") for where in edit.deltas)


def test_a_site_read_by_more_than_linear_maps_is_refused():
    subject = tiny_sd()
    with pytest.raises(ValueError, match="can't be baked") as caught:
        Leace(how="bake", role="text_stream")(subject, CONCEPT)
    assert "text_out" in str(caught.value)


def test_leace_leaves_no_difference_of_means():
    subject = tiny_sd()
    site = subject.sites("text_stream")[0]
    guard = Leace(how="intervention", role="text_stream")(subject, CONCEPT, [leace(subject, CONCEPT, site)])
    before = contrast_directions(concept_rows(subject, CONCEPT, [site], which=RowQuery(DIRECTION_KINDS))[site])
    with guard.on(subject):
        after = contrast_directions(concept_rows(subject, CONCEPT, [site], which=RowQuery(DIRECTION_KINDS))[site])
    assert after.abs().max() < 1e-4 * before.abs().max()


def test_difference_sets_the_reading_to_the_others_average():
    subject = tiny_sd()
    site = subject.sites("text_out")[0]
    space = difference_of_means(subject, CONCEPT, site)
    guard = DifferenceOfMeans(how="intervention")(subject, CONCEPT, [space])
    readings = []
    with guard.on(subject), tap(subject, {site: lambda x, m: readings.append(x @ space.basis)}):
        subject.encode(CONCEPT.target.test)
    assert space.mean is not None
    torch.testing.assert_close(readings[0], (space.mean @ space.basis).expand_as(readings[0]), atol=1e-4, rtol=1e-4)


def test_chosen_tokens_alone_are_acted_on():
    subject = tiny_sd()
    site = subject.sites("text_out")[0]
    guard = Leace(how="intervention", tokens=("subject",))(subject, CONCEPT)
    plain, edited = subject.encode(CONCEPT.target.test), None
    with guard.on(subject):
        edited = subject.encode(CONCEPT.target.test)
    changed = (plain.states != edited.states).any(-1)
    named = plain.kinds == 2
    assert torch.equal(changed, named), str(site)


@pytest.mark.slow
def test_a_wrong_width_is_refused():
    subject = tiny_sd()
    space = difference_of_means(subject, CONCEPT, subject.sites("text_mlp_out")[0])
    wide = difference_of_means(subject, CONCEPT, subject.sites("text_mlp_hidden")[0])
    mixed = DifferenceOfMeans(how="bake")
    from dataclasses import replace

    with pytest.raises(ValueError, match="width"):
        mixed(subject, CONCEPT, [replace(wide, site=space.site)])


@pytest.mark.slow
def test_prompts_are_read_once_for_several_sites_and_give_what_each_site_gives_alone(monkeypatch):
    module, subject, asked = projector, tiny_sd(), []
    sites = subject.sites("cross_value")
    read = module.rows_to_fit
    monkeypatch.setattr(module, "rows_to_fit", lambda *given: asked.append(given[2]) or read(*given))
    guard = Leace(how="intervention", role="cross_value")(subject, CONCEPT)
    assert len(sites) > 1 and [len(part) for part in asked] == [min(len(sites), module.SITES_AT_ONCE)]
    alone = Leace(how="intervention", role="cross_value")(subject, CONCEPT, [leace(subject, CONCEPT, s) for s in sites])
    width = subject.matrix(Site(sites[0].component, sites[0].path, "weight")).shape[0]
    x = torch.randn(2, 5, width, generator=torch.Generator().manual_seed(0))
    moment = Moment((0, 1), ("cond",) * 2, token_kinds=torch.full((2, 5), 3))
    assert isinstance(guard, Intervention) and isinstance(alone, Intervention)
    ours, theirs = (made.actions[sites[0]](x, moment) for made in (guard, alone))
    assert ours is not None and theirs is not None and ours.abs().max() > 0
    torch.testing.assert_close(ours, theirs)
