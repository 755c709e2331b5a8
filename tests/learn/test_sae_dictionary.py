"""Density, neighbours and stability: against their definition, and against controls that tell good from bad."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import torch

from concept_probe.learn import Sae, TopK, decoder_neighbours, evaluate_sae, feature_density, stability
from concept_probe.learn.judge import heldout as held
from concept_probe.learn.judge.neighbours import nearest_rows, nearest_within
from concept_probe.types import Prompt, Site, unit
from tests.learn.planted import SITE, Planted
from tests.learn.test_sae_evaluate import Held, Rows, by_name, oracle
from tests.learn.test_sae_evaluate import held as whole
from tests.learn.training import trained


@dataclass(frozen=True)
class Shards:
    """The same rows as `whole`, in pieces."""

    inner: Held
    piece: int = 100

    @property
    def sites(self) -> tuple[Site, ...]:
        return self.inner.sites

    @property
    def prompts(self) -> tuple[Prompt, ...]:
        return self.inner.prompts

    def width(self, site: Site) -> int:
        return self.inner.width(site)

    def read(self, site: Site, *, columns: bool = True) -> Rows:
        raise AssertionError("evaluation should not hold all rows at once")

    def blocks(self, site: Site) -> Iterator[Rows]:
        rows = self.inner.rows
        for start in range(0, len(rows.x), self.piece):
            part = slice(start, start + self.piece)
            yield Rows(rows.x[part], {name: column[part] for name, column in rows.columns.items()})


def test_rows_in_shards_and_small_chunks_give_the_same_figures(monkeypatch):
    planted = Planted(features=24, d=48, active=2)
    sae, rows = oracle(planted), whole(planted.batch(1024, 0))
    before = evaluate_sae(sae, rows)
    density = feature_density(sae, rows)
    monkeypatch.setattr(held, "_VALUES", 40 * 37)
    monkeypatch.setattr(held, "_CHUNK", 37)
    for one, other in zip(before, evaluate_sae(sae, Shards(rows)), strict=True):
        for name in ("value", "low", "high", "n", "control"):
            assert getattr(one, name) == pytest.approx(getattr(other, name), rel=1e-9), one.name
    assert torch.equal(feature_density(sae, Shards(rows)).fired, density.fired)


def test_many_prompts_are_resampled_in_groups_and_give_the_interval_of_single_ones(monkeypatch):
    planted = Planted(features=24, d=48, active=2)
    sae, rows = oracle(planted), whole(planted.batch(8000, 0), per_prompt=10)
    alone = by_name(evaluate_sae(sae, rows))
    monkeypatch.setattr(held, "GROUPS", 100)
    grouped = by_name(evaluate_sae(sae, rows))
    assert grouped["fvu"].value == pytest.approx(alone["fvu"].value) and grouped["fvu"].n == alone["fvu"].n == 800
    one, other = (s["fvu"].high - s["fvu"].low for s in (alone, grouped))
    assert 0.7 < other / one < 1.4


def test_density_counts_the_rows_on_which_each_feature_fires():
    planted = Planted(features=24, d=48, active=2)
    sae, x = oracle(planted), planted.batch(2048, 0)
    found = feature_density(sae, whole(x))
    fires = sae.encode(x).dense(sae.width) > 0
    assert torch.equal(found.fired, fires.sum(0)) and found.rows == 2048
    assert found.log10[24:].eq(-torch.inf).all() and found.log10[:24].isfinite().all()
    scores = by_name(found.scores)
    frequency = fires.double().mean(0)
    assert scores["dense"].value == pytest.approx(float((frequency > 0.1).double().mean()))
    assert scores["rare"].value == 16 / 40 and scores["rare"].control is not None
    for score in found.scores:
        assert score.low <= score.value <= score.high and score.n == 32


def test_a_feature_that_fires_everywhere_is_dense():
    planted = Planted(features=24, d=48, active=2)
    sae, x = oracle(planted), planted.batch(2048, 0)
    quiet = by_name(feature_density(sae, whole(x)).scores)["dense"]
    with torch.no_grad():
        sae.b_enc[30:34] = 1e3  # four that always win
    sae.activation = TopK(6)
    loud = by_name(feature_density(sae, whole(x)).scores)["dense"]
    assert quiet.value < 4 / 40 <= loud.low


def test_the_nearest_are_those_of_the_whole_matrix(monkeypatch):
    from concept_probe.learn.judge import neighbours as module

    monkeypatch.setattr(module, "_BLOCK", 7)
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(30, 8, generator=g), torch.randn(50, 8, generator=g)
    cosines = unit(a, dim=1) @ unit(b, dim=1).mT
    values, indices = nearest_rows(a, b)
    torch.testing.assert_close(values, cosines.max(1).values)
    assert torch.equal(indices, cosines.argmax(1))
    own = unit(a, dim=1) @ unit(a, dim=1).mT - 9 * torch.eye(30)
    values, indices = nearest_within(a)
    torch.testing.assert_close(values, own.max(1).values)
    assert torch.equal(indices, own.argmax(1))


def dictionary(rows: torch.Tensor) -> Sae:
    f, d = rows.shape
    return Sae(SITE, TopK(2), W_enc=rows.mT.clone(), b_enc=torch.zeros(f), W_dec=rows, b_dec=torch.zeros(d))


def random_rows(f: int, d: int, seed: int) -> torch.Tensor:
    return torch.randn(f, d, generator=torch.Generator().manual_seed(seed))


def test_copies_stand_out_against_random_directions():
    rows = random_rows(200, 64, 1)
    usual = decoder_neighbours(dictionary(rows), seed=7)
    assert abs(usual.score.value - float(usual.control.mean())) < 0.02  # random rows are their own control
    rows[100:150] = rows[:50] + 0.01 * random_rows(50, 64, 2)
    found = decoder_neighbours(dictionary(rows), seed=7)
    assert (found.cosine > 0.99).sum() == 100 and torch.equal(found.index[:50], torch.arange(100, 150))
    assert found.score.control is not None and found.score.low > found.score.control


@pytest.mark.parametrize("matching", ["nearest", "one_to_one"])
def test_a_shuffled_copy_is_stable_and_a_random_dictionary_is_not(matching):
    if matching == "one_to_one":
        pytest.importorskip("scipy")
    rows = random_rows(120, 64, 1)
    order = torch.randperm(120, generator=torch.Generator().manual_seed(3))
    same = stability([dictionary(rows), dictionary(2 * rows[order])], matching=matching)
    assert by_name(same.scores)["stability"].value == pytest.approx(1, abs=1e-5)
    assert by_name(same.scores)["shared"].value == 1 and by_name(same.scores)["shared"].control == 0
    assert same.pairs == ((0, 1), (1, 0)) and [len(c) for c in same.cosines] == [120, 120]
    other = by_name(stability([dictionary(rows), dictionary(random_rows(120, 64, 2))], matching=matching).scores)
    chance = other["stability"].control
    assert chance is not None and abs(other["stability"].value - chance) < 0.05 and other["shared"].value < 0.05


def test_half_a_dictionary_is_half_shared():
    rows = random_rows(100, 64, 1)
    half = torch.cat([rows[:50], random_rows(50, 64, 2)])
    score = by_name(stability([dictionary(rows), dictionary(half)]).scores)["shared"]
    assert score.value == 0.5 and score.low < 0.5 < score.high and score.n == 200


def test_one_to_one_leaves_no_feature_to_two():
    pytest.importorskip("scipy")
    rows = random_rows(40, 64, 1)
    twice = torch.cat([rows[:1].expand(40, -1)])
    cosines = stability([dictionary(twice), dictionary(rows)], matching="one_to_one").cosines[0]
    assert (cosines > 0.99).sum() == 1
    assert (stability([dictionary(twice), dictionary(rows)]).cosines[0] > 0.99).all()


def test_dead_features_can_be_left_out():
    rows = random_rows(100, 64, 1)
    a, b = torch.cat([rows, random_rows(60, 64, 2)]), torch.cat([rows, random_rows(60, 64, 3)])
    mask = torch.arange(160) < 100
    score = stability([dictionary(a), dictionary(b)], alive=[mask, mask]).scores[1]
    assert score.value == 1.0 and score.n == 200
    with pytest.raises(ValueError, match=r"alive holds \[100\] features, the autoencoders \[160, 160\]"):
        stability([dictionary(a), dictionary(b)], alive=[mask[:100]])


def test_what_can_not_be_compared_is_refused():
    one = dictionary(random_rows(20, 8, 0))
    with pytest.raises(ValueError, match="1 autoencoder was given"):
        stability([one])
    with pytest.raises(ValueError, match=r"\(width 8\) and over .* \(width 9\) have no features in common"):
        stability([one, dictionary(random_rows(20, 9, 0))])
    with pytest.raises(ValueError, match="matching is 'best'"):
        stability([one, one], matching="best")  # pyright: ignore[reportArgumentType]


@pytest.mark.slow
def test_seeds_of_one_training_agree_more_than_chance():
    saes = [
        trained(Planted().batches(512), site=SITE, k=3, expansion=3, samples=300_000, batch=512, rate=5e-3, seed=s)
        for s in (0, 1)
    ]
    score = by_name(stability(saes).scores)["shared"]
    assert score.control is not None and score.low > score.control + 0.3
