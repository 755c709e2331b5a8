"""RepIt against an example by hand, its own steps in another form, and what it leaves at a site."""

from __future__ import annotations

import pytest
import torch

from concept_probe.find import ConceptRows, difference_of_means, isolate, repit
from concept_probe.find.directions.repit import isolated_directions
from concept_probe.testing.concepts import tiny_concept
from concept_probe.testing.models.diffusion import tiny_sd

V = torch.tensor([3.0, 4.0, 5.0], dtype=torch.float64)


def test_an_example_by_hand():
    """The others span the first two axes, so of (3, 4, 5) that part is cut: by half at a share of 3/4."""
    others = torch.tensor([[2.0, 1.0], [0.0, 1.0], [0.0, 0.0]], dtype=torch.float64)
    half = torch.tensor([1.5, 2.0, 5.0], dtype=torch.float64)
    torch.testing.assert_close(isolate(V, others, share=0.75), half, atol=1e-7, rtol=0)
    torch.testing.assert_close(isolate(V, others, share=1.0), V * torch.tensor([0, 0, 1.0]), atol=1e-7, rtol=0)
    torch.testing.assert_close(isolate(V, others, share=0.0), V)
    along = torch.tensor([[0.0], [0.0], [7.0]], dtype=torch.float64)
    torch.testing.assert_close(isolate(V, along, share=0.36), torch.tensor([3.0, 4.0, 4.0], dtype=torch.float64))


def test_the_share_is_that_of_the_energy_in_the_others_span():
    generator = torch.Generator().manual_seed(0)
    v, others = (torch.randn(20, *m, generator=generator, dtype=torch.float64) for m in ((), (4,)))
    q, _ = torch.linalg.qr(others)
    left = isolate(v, others, share=0.6)
    assert abs(float((q.mT @ left).square().sum() / (q.mT @ v).square().sum()) - 0.4) < 1e-6
    torch.testing.assert_close(left - q @ (q.mT @ left), v - q @ (q.mT @ v), atol=1e-7, rtol=0)


def test_others_that_repeat_each_other_or_are_zero_change_nothing():
    one = torch.tensor([[1.0], [1.0], [0.0]], dtype=torch.float64)
    wide = torch.cat([one, one, 1e-3 * one, 0 * one], 1)
    torch.testing.assert_close(isolate(V, wide), isolate(V, one), atol=1e-7, rtol=0)
    assert torch.equal(isolate(V, 0 * one), V)
    with pytest.raises(ValueError, match=r"share is 1\.5"):
        isolate(V, one, share=1.5)


def test_a_direction_is_that_of_least_squares_residuals():
    """Pets: a cat is a pet and a cat, two others are pets; the rest is neither."""
    pet, cat, dog, hen = torch.eye(4)
    x = torch.stack([pet + cat, pet + dog, pet + hen, 0 * pet, 0 * pet]).repeat_interleave(3, 0)
    about = torch.arange(5).repeat_interleave(3)
    one = torch.zeros(15, dtype=torch.long)
    rows = ConceptRows(x, about == 0, one, one, torch.arange(15), one - 1, about)
    base = x[3:].mean(0)
    plain, others = x[0] - base, torch.stack([x[3 * i] - base for i in (1, 2, 3)], 1)
    found = isolated_directions(rows, share=1.0)[:, 0]
    residual = plain - others @ torch.linalg.lstsq(others, plain[:, None], driver="gelsd").solution[:, 0]
    torch.testing.assert_close(found.float(), residual, atol=1e-5, rtol=0)
    assert plain[0] == 0.5 and float(found[0]) < 0.4 and abs(float(found[1]) - 1) < 1e-6


@pytest.mark.slow
def test_a_site_holds_one_direction_per_kind_of_token_and_a_score():
    subject, concept = tiny_sd(), tiny_concept()
    site = subject.sites("text_stream")[0]
    space, plain = repit(subject, concept, site), difference_of_means(subject, concept, site)
    assert (space.rank, space.role, space.dual, len(space.scores)) == (3, "text_stream", None, 3)
    assert space.score.value > 0.7 and space.score.control is not None
    assert (space.basis.mT @ plain.basis).square().sum() < 2.999, "the others' directions are left out"
    same = repit(subject, concept, site, share=0.0)
    torch.testing.assert_close((same.basis.mT @ plain.basis).square().sum(), torch.tensor(3.0))
