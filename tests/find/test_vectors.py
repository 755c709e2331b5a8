"""Concept vectors: planted columns are ranked first, and kept because pictures need them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from concept_probe.evaluation.panel import panel, recognised
from concept_probe.evaluation.selection import Selection
from concept_probe.find import (
    ColumnCandidates,
    DirectionCandidates,
    concept_rows,
    find_vectors,
    fit_probe,
    rank_columns,
    search_vectors,
    text_directions,
)
from concept_probe.find.rows import RowQuery
from concept_probe.find.vectors.removal import RemovalCurve, VectorRemoval
from concept_probe.testing.concepts import tiny_concept, tiny_recogniser
from concept_probe.testing.models.diffusion import tiny_sd, tiny_sdxl
from concept_probe.types import EOS, TOKEN_KINDS, Query, Sampling, Score, Site, Splits

CONCEPT = tiny_concept()
SAMPLING = Sampling(steps=2, guidance=1.0)
PLANTED = (5, 11, 30)


@dataclass(frozen=True)
class Remembers:
    """Names a picture that is close to one it was shown, and sees nothing in any other."""

    known: Tensor
    places: Tensor
    tolerance: float
    name: str = "remembers"
    version: str = "1"
    labels: tuple[str, ...] = ("cat", "dog", "sun", "none")

    def probabilities(self, images: Tensor) -> Tensor:
        gaps = (images.flatten(1)[:, None] - self.known.flatten(1)).square().mean(-1).sqrt()
        near = gaps.min(1)
        return torch.nn.functional.one_hot(
            torch.where(near.values < self.tolerance, self.places[near.indices], 3), 4
        ).float()

    @classmethod
    def of(cls, subject, tolerance: float) -> Remembers:
        tested = panel(CONCEPT, split="fit", images=9)
        queries = (*tested.forget, *tested.retain)
        places = torch.tensor([cls.labels.index(q.prompt.label or "none") for q in queries])
        return cls(subject.generate(queries, SAMPLING), places, tolerance)


def planted():
    """A subject whose second text layer has three columns that fire for `cat` and write a lot."""
    subject = tiny_sd()
    for weight in subject.sites("mlp_value"):
        subject.parameter(weight).data.mul_(0.1)
    site = subject.sites("mlp_value")[1]
    fc1 = Site(site.component, site.path.replace("fc2", "fc1"), "in")
    rows = concept_rows(subject, CONCEPT, [fc1], which=RowQuery(TOKEN_KINDS))[fc1]
    late = rows.select(rows.kind >= EOS)
    probe = fit_probe(late.x, late.concept, penalty=1e-4)
    least = probe(rows.x[~rows.concept]).max()  # so that no other prompt makes them fire
    hidden = Site(site.component, fc1.path, "weight")
    bias = subject.module(hidden).bias
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        assert isinstance(bias, Tensor)
        for j in PLANTED:
            subject.parameter(hidden)[j] = probe.weight.float()
            bias[j] = probe.bias.float() - least
            subject.parameter(site)[:, j] = 4 * torch.randn(16, generator=generator)
        for weight in subject.sites("cross_value_weight"):
            subject.parameter(weight).mul_(8)
    return subject


@pytest.mark.parametrize("effect", ["gradient", "alignment", "norm"])
def test_planted_columns_come_first(effect):
    subject = planted()
    ranked = rank_columns(subject, CONCEPT, effect=effect)
    layer = subject.sites("mlp_value")[1].path
    top = {(site.path, site.item) for site in ranked.sites[:5]}
    assert sum((layer, j) in top for j in PLANTED) >= 2
    assert (ranked.scores[:-1] >= ranked.scores[1:]).all()
    assert len(ranked.sites) == 96


def test_the_gradient_is_what_a_unit_of_the_coefficient_does():
    from concept_probe.activations import tap
    from concept_probe.find.vectors.ranking import coefficient_contrast, readout_gradients

    subject = tiny_sd()
    hidden = list(subject.sites("text_mlp_hidden"))
    slopes = readout_gradients(subject, CONCEPT, hidden, ("eos",), 32)
    (out,) = subject.sites("text_out")
    lines, groups = coefficient_contrast(concept_rows(subject, CONCEPT, [out], which=RowQuery(("eos",)))[out])
    direction = torch.nn.functional.normalize(lines, dim=1)[groups.index((0, 3))]
    prompts = CONCEPT.target.fit
    step = 1e-3

    def readout(size: float) -> float:
        def bump(x, moment):
            moved = x.clone()
            moved[..., 4] += size * (moment.token_kinds == 3)
            return moved

        with tap(subject, {hidden[1]: bump}), torch.no_grad():
            made = subject.encode(prompts)
        return float((made.states[made.kinds == 3] @ direction).sum())

    numeric = (readout(step) - readout(-step)) / (2 * step) / len(prompts)
    assert float(slopes[hidden[1]][0, 3][4]) == pytest.approx(numeric, rel=1e-2, abs=1e-4)


def test_a_concept_that_lacks_a_list_of_prompts_is_ranked_by_the_others():
    """A style has no descriptions that leave its name out."""
    subject = tiny_sd()
    lacking = replace(CONCEPT, implicit=Splits())
    named = rank_columns(subject, lacking, kinds=("eos",))
    alone = rank_columns(subject, replace(lacking, paraphrases=Splits()), kinds=("eos",))
    assert torch.isfinite(named.scores).all() and torch.isfinite(alone.scores).all()
    assert len(named.sites) == len(alone.sites) and not torch.equal(named.scores, alone.scores)


@pytest.mark.slow
def test_the_search_keeps_the_planted_columns_and_says_why():
    subject = planted()
    # Judged together: a random encoder has no reason to carry all lists of prompts in the same columns.
    tested = replace(panel(CONCEPT, split="fit", images=9), forget_lists=())
    options = {"counts": (3, 8), "selection": Selection(sampling=SAMPLING, goal=0.5), "tested": tested}
    candidates = ColumnCandidates(subject, CONCEPT, rank_columns(subject, CONCEPT))
    search = search_vectors(candidates, Remembers.of(subject, 0.0015), **options)
    layer = subject.sites("mlp_value")[1].path
    assert {(s.site.path, s.site.item) for s in search.subspaces} == {(layer, j) for j in PLANTED}
    assert search.curve.before.value == 1.0
    chosen = search.curve.chosen()
    assert chosen is not None
    assert chosen.count == 3
    assert chosen.drop.low > 0
    assert chosen.target.control == 1.0
    assert chosen.target.value < 0.5
    assert chosen.others.value == chosen.others.control == 1.0
    for space in search.subspaces:
        assert space.space == "parameter"
        assert space.basis.shape == (16, 1)
        torch.testing.assert_close(space.basis[:, 0], subject.parameter(space.site)[:, space.site.item])
        assert space.score == chosen.drop
    again = search_vectors(candidates, Remembers.of(subject, 0.0015), **options)
    assert again.curve == search.curve


@pytest.mark.slow
@pytest.mark.parametrize("role", ["mlp_value", "cross_value_weight"])
def test_nothing_is_kept_where_no_picture_changes(role: str):
    subject = tiny_sd()
    recogniser = Remembers.of(subject, 1e9)
    few = Selection(images=6, sampling=SAMPLING)
    found = find_vectors(subject, CONCEPT, recogniser=recogniser, role=role, counts=(2,), selection=few)
    assert found == ()


@pytest.mark.slow
@pytest.mark.parametrize("make", [tiny_sd, tiny_sdxl])
def test_directions_of_cross_attention(make):
    subject = make()
    directions = text_directions(subject, CONCEPT)
    width = subject.encode(CONCEPT.target.fit[:1]).states.shape[-1]
    assert directions.basis.shape == (width, len(directions.names))
    removal = directions.removal(3)
    torch.testing.assert_close(removal.dual.mT @ removal.basis, torch.eye(3, dtype=torch.float64), atol=1e-6, rtol=1e-6)
    candidates = DirectionCandidates(subject, CONCEPT, directions)
    few = Selection(images=6, sampling=SAMPLING)
    tested = panel(CONCEPT, split="fit", images=9)
    looks = Remembers.of(subject, 0.0015)
    search = search_vectors(candidates, looks, counts=(1, 2), tested=tested, selection=few)
    assert len(search.curve.removals) >= 1
    chosen = search.curve.chosen()
    assert len(search.subspaces) == (0 if chosen is None else 2 * len(subject.sites("cross_value_weight")))


def score(value: float, low: float = 0.0, control: float = 1.0) -> Score:
    return Score("x", value, low, value, 8, control=control)


def test_the_smallest_removal_that_reaches_the_goal_is_chosen():
    removals = (
        VectorRemoval(4, score(0.6), score(0.3, 0.1), score(1.0)),
        VectorRemoval(8, score(0.1), score(0.8, 0.5), score(0.95)),
        VectorRemoval(16, score(0.0), score(0.9, 0.6), score(0.95)),
    )
    curve = RemovalCurve(score(1.0), removals, Selection(goal=0.2, retain=0.9, floor=0.9))
    chosen = curve.chosen()
    assert chosen is not None
    assert chosen.count == 8
    best = replace(curve, selection=replace(curve.selection, goal=-1.0)).chosen()
    assert best is not None
    assert best.count == 16
    assert replace(curve, removals=(VectorRemoval(4, score(0.0), score(0.5, -0.1), score(1.0)),)).chosen() is None
    assert replace(curve, removals=(VectorRemoval(4, score(0.0), score(0.9, 0.5), score(0.5)),)).chosen() is None
    strict = replace(curve, selection=replace(curve.selection, retain=0.98))
    assert strict.done() is None
    assert strict.chosen() == removals[1]
    kept_more = VectorRemoval(12, score(0.2), score(0.7, 0.4), score(0.97))
    assert replace(strict, removals=(*removals, kept_more)).chosen() == kept_more


def test_random_columns_are_of_the_same_layers_and_alike_in_load():
    ranked = rank_columns(tiny_sd(), CONCEPT)
    generator = torch.Generator().manual_seed(0)
    drawn = ranked.matched(range(10), generator, pool=1)
    assert not set(drawn) & set(range(10))
    assert [ranked.sites[i].path for i in drawn] == [ranked.sites[i].path for i in range(10)]
    matched = (ranked.load[drawn].log() - ranked.load[:10].log()).abs().mean()
    anything = (ranked.load[20:].log()[:, None] - ranked.load[:10].log()).abs().mean()
    assert matched < anything
    with pytest.raises(ValueError, match="no columns left"):
        ranked.matched(range(96), generator)


def test_hits_compare_with_the_concept_or_with_each_querys_label():
    subject = tiny_sd()
    queries = [Query(p, i) for i, p in enumerate(CONCEPT.neighbours.select)]
    images = subject.generate(queries, SAMPLING)
    recogniser = Remembers(images, torch.ones(3, dtype=torch.long), 0.01)
    assert recognised(subject, queries, recogniser, SAMPLING, None).tolist() == [1, 1, 1]
    assert recognised(subject, queries, recogniser, SAMPLING, "cat").tolist() == [0, 0, 0]


def test_an_unknown_role_is_refused():
    with pytest.raises(ValueError, match="'mlp_value'"):
        find_vectors(tiny_sd(), CONCEPT, recogniser=tiny_recogniser(), role="text_stream")
