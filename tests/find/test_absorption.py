"""Splitting and absorption, on autoencoders of which it is known."""

from __future__ import annotations

import math

import pytest
import torch

from concept_probe.find import absorption, splitting
from concept_probe.find.readout import Readout, last_rows, readouts
from concept_probe.find.rows import ConceptRows
from concept_probe.learn import Sae, TopK
from concept_probe.testing.concepts import tiny_concept
from concept_probe.testing.models.diffusion import tiny_sd
from concept_probe.types import Site
from tests.learn.planted import SITE

D, KINDS, OTHERS = 40, 4, 12
"""The concept's direction, one for each of its four kinds, and twelve that have nothing to do with it."""


def world(count: int, seed: int) -> Readout:
    """Half the rows hold the concept and one of its kinds; every row holds two of the other directions."""
    g = torch.Generator().manual_seed(seed)
    x = 0.02 * torch.randn(count, D, generator=g)
    own = torch.arange(count) % 2 == 0
    kind = torch.arange(count) // 2 % KINDS
    x[own, 0] += 1
    x[own, 1 + kind[own]] += 1
    for _ in range(2):
        which = torch.randint(OTHERS, (count,), generator=g)
        x[torch.arange(count), 1 + KINDS + which] += 0.5 + torch.rand(count, generator=g)
    return Readout(x, own)


def sae(absorbed: int = 0, split: bool = False) -> Sae:
    """One feature per direction. Kind i < `absorbed`: its feature writes the concept too, and the concept's is silent.

    `split`: there is no feature of the concept, only one per kind.
    """
    W_dec = torch.eye(D)[: 1 + KINDS + OTHERS].clone()
    W_enc = W_dec.mT.clone()
    b_enc = torch.full((len(W_dec),), -0.2)
    if split:
        W_dec[1 : 1 + KINDS, 0] = 1
        W_enc[:, 0] = 0
        b_enc[0] = -1
    for i in range(absorbed):
        W_dec[1 + i, 0] = 1
        W_enc[1 + i, 0] -= 10  # the concept's pre-activation sinks below 0 where this kind is
    return Sae(SITE, TopK(6), W_enc=W_enc, b_enc=b_enc, W_dec=W_dec, b_dec=torch.zeros(D))


FIT, TEST = world(400, 0), world(240, 1)


@pytest.mark.slow
def test_a_concept_with_a_feature_of_its_own_needs_one():
    found = splitting(sae(), FIT, TEST)
    assert found.features[0] == 0 and found.needed.value == 1 and found.main == (0,)
    assert found.curve.y[0] > 0.99 and found.needed.control == math.inf
    assert max(found.curve.control) < 0.8
    assert all(low <= y <= high for low, y, high in zip(found.curve.low, found.curve.y, found.curve.high, strict=True))


@pytest.mark.slow
def test_a_concept_split_into_four_needs_four():
    found = splitting(sae(split=True), FIT, TEST)
    assert set(found.features[:4]) == {1, 2, 3, 4} and found.needed.value == 4
    assert list(found.curve.y[:4]) == sorted(found.curve.y[:4]) and found.curve.y[3] > 0.99


@pytest.mark.parametrize("absorbed", [0, 1, 2])
def test_absorption_is_the_share_of_prompts_of_the_absorbed_kinds(absorbed):
    found = absorption(sae(absorbed), FIT, TEST, [0])
    assert found.full.value == pytest.approx(absorbed / KINDS, abs=0.02)
    assert found.full.low <= absorbed / KINDS <= found.full.high + 0.02
    assert {feature for feature, _ in found.absorbers} == set(range(1, 1 + absorbed))
    assert found.fraction.value == pytest.approx(absorbed / KINDS, abs=0.05)
    assert found.full.control is not None and found.full.control > 0.5


def test_partial_absorption_is_seen_by_the_fraction_alone():
    half = sae(1)
    with torch.no_grad():
        half.W_enc[1, 0] = -0.4  # on the first kind the concept's feature fires at 0.4 of its strength
    found = absorption(half, FIT, TEST, [0])
    assert found.full.value == 0 and found.fraction.low > 0.05


def test_what_no_probe_reads_is_refused():
    g = torch.Generator().manual_seed(2)
    noise = Readout(torch.randn(60, D, generator=g), torch.arange(60) % 2 == 0)
    with pytest.raises(ValueError, match=r"reads the concept with F1 0\.\d\d, in \d+ test prompts; absorption needs"):
        absorption(sae(), noise, Readout(torch.randn(40, D, generator=g), torch.arange(40) % 4 == 0), [0])
    with pytest.raises(ValueError, match=r"main features are \[99\]; give at least one, each below 17"):
        absorption(sae(), FIT, TEST, [99])
    with pytest.raises(ValueError, match="test holds 240 of 240 rows of the concept; both are needed"):
        splitting(sae(), FIT, Readout(TEST.x, torch.ones(240, dtype=torch.bool)))
    dumb = sae()
    with torch.no_grad():
        dumb.b_enc.fill_(-99.0)
    with pytest.raises(ValueError, match="no feature over synthetic/planted:out fires more on the concept"):
        splitting(dumb, FIT, TEST)


def test_the_last_row_of_a_kind_stands_for_its_prompt():
    kind = torch.tensor([0, 2, 2, 3, 0, 2, 1, 3, 1])
    prompt = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1, 2])
    x = torch.arange(9.0)[:, None]
    zeros = torch.zeros(9, dtype=torch.long)
    rows = ConceptRows(x, prompt == 1, zeros, kind, prompt, zeros, zeros)
    out = last_rows(rows)
    assert out.x[:, 0].tolist() == [2, 5] and out.concept.tolist() == [False, True]
    with pytest.raises(ValueError, match="no row is of token kind 'pad'"):
        last_rows(rows, "pad")


def test_readouts_of_a_subject_have_a_row_per_prompt():
    subject, about = tiny_sd(), tiny_concept()
    fit, test = readouts(subject, about, subject.sites("text_stream")[0])
    assert fit.concept.any() and not fit.concept.all() and test.n and fit.x.shape[1] == test.x.shape[1]
    with pytest.raises(ValueError, match="are not text tokens"):
        readouts(subject, about, Site("unet", subject.sites("block_out")[0].path))
