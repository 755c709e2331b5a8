"""Features: the contrast is the formula, planted features are found, unselective ones are not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from concept_probe.find import ConceptRows, concept_rows, contrast, difference_of_means, find_features
from concept_probe.find.features.contrast import mean_firing, prompt_firing
from concept_probe.find.rows import RowQuery
from concept_probe.learn.sae import Relu, Sae, TopK
from concept_probe.testing.concepts import tiny_concept
from concept_probe.testing.models.diffusion import tiny_sd, tiny_sdxl
from concept_probe.types import KINDS, TOKEN_KINDS, Codes, Sampling, Site

CONCEPT = tiny_concept()
SITE = Site("text_encoder", "somewhere")


def random_sae(site, d: int, f: int = 48, k: int = 4, seed: int = 0) -> Sae:
    rows = torch.nn.functional.normalize(torch.randn(f, d, generator=torch.Generator().manual_seed(seed)), dim=1)
    return Sae(site, TopK(k), W_enc=rows.mT.contiguous(), b_enc=torch.zeros(f), W_dec=rows, b_dec=torch.zeros(d))


def planted_sae(subject, site, d: int) -> Sae:
    """Feature 7 reads the concept's difference of means, above its middle; the rest is noise that rarely fires."""
    space = difference_of_means(subject, CONCEPT, site, which=RowQuery(("subject",)))
    rows = concept_rows(
        subject, CONCEPT, [site], which=RowQuery(("subject",), sources=("target", "unrelated", "neighbours"))
    )[site]
    axis = space.basis[:, 0]
    readings = rows.x @ axis
    middle = (readings[rows.concept].mean() + readings[~rows.concept].mean()) / 2
    directions = torch.nn.functional.normalize(torch.randn(16, d, generator=torch.Generator().manual_seed(1)), dim=1)
    directions[7] = axis
    bias = torch.full((16,), -3.0)
    bias[7] = -middle
    return Sae(site, Relu(), W_enc=directions.mT.contiguous(), b_enc=bias, W_dec=directions, b_dec=torch.zeros(d))


def test_the_contrast_is_the_formula():
    subject = tiny_sd()
    site = subject.sites("block_out")[0]
    sae = random_sae(site, 32)
    rows = concept_rows(subject, CONCEPT, [site], which=RowQuery(limit=2, sampling=Sampling(steps=3)))[site]
    table = contrast(sae, rows, "share")
    dense = sae.encode(rows.x).dense(sae.width).double()
    for (source, kind, step), line in zip(table.groups, table.table, strict=True):
        assert kind == "patch"
        here = rows.step == step
        own = dense[here & rows.concept & (rows.source == KINDS.index(source))].mean(0)
        other = dense[here & ~rows.concept].mean(0)
        torch.testing.assert_close(line, own / own.sum() - other / other.sum(), atol=1e-9, rtol=1e-6)
    assert {step for _, _, step in table.groups} == {0, 1, 2}
    table = contrast(sae, rows, "margin")
    for (source, _, step), line in zip(table.groups, table.table, strict=True):
        here = rows.step == step
        own = dense[here & rows.concept & (rows.source == KINDS.index(source))].mean(0)
        rest = here & ~rows.concept
        others = [dense[rest & (rows.about == thing)].mean(0) for thing in rows.about[rest].unique()]
        assert len(others) > 2
        torch.testing.assert_close(line, own - torch.stack(others).amax(0), atol=1e-9, rtol=1e-6)
    with pytest.raises(ValueError, match="formula"):
        contrast(sae, rows, "ratio")  # pyright: ignore[reportArgumentType]


def test_a_feature_that_one_neighbour_shares_has_no_margin():
    """Feature 0 fires on the concept and as much on one rare thing, feature 1 less, but on the concept only."""
    sae = Sae(SITE, Relu(), W_enc=torch.eye(3), b_enc=torch.zeros(3), W_dec=torch.eye(3), b_dec=torch.zeros(3))
    x = torch.zeros(40, 3)
    x[:10, 0], x[:10, 1], x[10:12, 0], x[:, 2] = 3.0, 2.0, 3.0, 0.5
    concept, about = torch.arange(40) < 10, torch.arange(40) // 2
    zero = torch.zeros(40, dtype=torch.long)
    rows = ConceptRows(x, concept, zero, zero + 2, torch.arange(40), zero - 1, torch.where(concept, 0, about))
    assert contrast(sae, rows, "mean").total().argmax() == 0
    assert contrast(sae, rows, "margin").total().tolist() == [0.0, 2.0, 0.0]


@pytest.mark.slow
def test_a_planted_feature_is_found_first():
    subject = tiny_sd()
    site = subject.sites("text_stream")[0]
    sae = planted_sae(subject, site, 16)
    (space,) = find_features(sae, subject, CONCEPT, which=RowQuery(("subject",)), formula="mean", count=1)
    assert space.features == (7,)
    assert space.codec is sae
    torch.testing.assert_close(space.basis[:, 0], sae.decoder[7])
    assert space.scores[0].control is not None


@pytest.mark.slow
def test_with_no_count_only_selective_features_are_kept():
    subject = tiny_sd()
    sae = random_sae(subject.sites("text_stream")[0], 16)
    for space in find_features(sae, subject, CONCEPT):
        for score in space.scores:
            assert score.control is not None
            assert score.low > max(score.control, 0.5)
    shuffled = CONCEPT.unrelated
    # The same prompts on both sides: nothing can be selective.
    nothing = replace(
        CONCEPT, target=shuffled, paraphrases=type(shuffled)(), implicit=type(shuffled)(), neighbours=shuffled
    )
    assert find_features(sae, subject, nothing) == ()


@pytest.mark.slow
def test_several_sites_and_a_pair_of_encoders():
    subject = tiny_sdxl()
    first, second = subject.sites("text_stream")[0], subject.sites("text_stream")[2]
    found = find_features([random_sae(first, 16), random_sae(second, 24)], subject, CONCEPT, count=3)
    assert [s.site for s in found] == [first, second]
    assert [s.basis.shape for s in found] == [(16, 3), (24, 3)]


@pytest.mark.slow
def test_chosen_steps_alone_are_used():
    subject = tiny_sd()
    sae = random_sae(subject.sites("block_out")[0], 32)
    one, two = (
        find_features(sae, subject, CONCEPT, which=RowQuery(limit=2, steps=steps, sampling=Sampling(steps=3)), count=3)
        for steps in ([0], [2])
    )
    assert one[0].scores != two[0].scores


def test_mean_firing_counts_only_rows_that_fire():
    subject = tiny_sd()
    site = subject.sites("text_stream")[0]
    sae = random_sae(site, 16)
    rows = concept_rows(subject, CONCEPT, [site], which=RowQuery(TOKEN_KINDS))[site]
    dense = sae.encode(rows.x[rows.concept]).dense(sae.width)
    features = dense.sum(0).topk(2).indices.tolist()
    expected = torch.stack([dense[:, j][dense[:, j] > 0].mean() for j in features])
    torch.testing.assert_close(mean_firing(sae, subject, CONCEPT, features), expected)


def test_padding_hides_no_feature_that_fires():
    """Codes are padded with value 0 at any index, here at that of a feature that fires."""
    sae = Sae(SITE, Relu(), W_enc=torch.eye(3), b_enc=torch.zeros(3), W_dec=torch.eye(3), b_dec=torch.zeros(3))
    sae.activation.forward = lambda pre: Codes(torch.tensor([[2.0, 0.0, 0.0]]), torch.tensor([[0, 0, 0]]))
    one = torch.zeros(1, dtype=torch.long)
    rows = ConceptRows(torch.ones(1, 3), one == 0, one, one, one, one, one)
    firing, _ = prompt_firing(sae, rows, torch.tensor([0, 1]))
    assert firing.tolist() == [[2.0, 0.0]]


class Elsewhere:
    """An autoencoder on another device, that of nothing: its codes come back as a device's would, without values."""

    site, width, decoder = SITE, 3, torch.zeros(3, 3, device="meta")

    def encode(self, x: torch.Tensor) -> Codes:
        assert x.device == self.decoder.device
        return Codes(torch.ones(len(x), 1), torch.zeros(len(x), 1, dtype=torch.long))

    def decode(self, codes: Codes) -> torch.Tensor:
        raise AssertionError("nothing is decoded to find a feature")


def test_rows_are_coded_where_the_autoencoder_is():
    numbers = torch.arange(4)
    zeros = torch.zeros(4, dtype=torch.long)
    rows = ConceptRows(torch.ones(4, 3), numbers < 2, zeros, zeros, numbers, zeros, numbers)
    firing, labels = prompt_firing(Elsewhere(), rows, torch.tensor([0, 1]))
    assert firing.tolist() == [[1.0, 0.0]] * 4 and labels.tolist() == [True, True, False, False]
    assert contrast(Elsewhere(), rows, "mean").table.tolist() == [[0.0, 0.0, 0.0]]


def test_bad_counts_are_refused():
    subject = tiny_sd()
    with pytest.raises(ValueError, match="count is 0"):
        find_features(random_sae(subject.sites("text_stream")[0], 16), subject, CONCEPT, count=0)
    with pytest.raises(ValueError, match="no autoencoder"):
        find_features([], subject, CONCEPT)
