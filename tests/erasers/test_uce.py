"""UCE against its formula, and which token is led to which."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from concept_probe.erasers import Uce
from concept_probe.erasers.closed_form.alignment import align
from concept_probe.erasers.closed_form.solve import Moments, solve_uce
from concept_probe.registry import UnknownName
from concept_probe.testing.concepts import tiny_concept
from concept_probe.testing.models.diffusion import tiny_sd, tiny_sdxl
from concept_probe.types import Splits

CONCEPT = tiny_concept()
BOS, CONTENT, SUBJECT, EOS, PAD = range(5)


def test_the_closed_form_is_the_papers():
    generator = torch.Generator().manual_seed(0)
    c, g, p = (torch.randn(n, 6, generator=generator, dtype=torch.float64) for n in (3, 3, 10))
    w = torch.randn(5, 6, generator=generator, dtype=torch.float64)
    lam, alpha, beta = 0.3, 2.0, 0.7
    left = lam * w + alpha * (w @ g.mT) @ c + beta * (w @ p.mT) @ p
    right = lam * torch.eye(6, dtype=torch.float64) + alpha * c.mT @ c + beta * p.mT @ p
    solution = solve_uce(Moments.of(c, g, p), lam=lam, alpha=alpha, beta=beta, method="uce")
    torch.testing.assert_close(w + w @ solution.change, left @ torch.linalg.inv(right))
    assert solution.residual < 1e-12
    assert solution.condition == pytest.approx(float(torch.linalg.cond(right)))


def test_it_minimises_its_objective():
    generator = torch.Generator().manual_seed(1)
    c, g, p = (torch.randn(n, 6, generator=generator, dtype=torch.float64) for n in (3, 3, 10))
    w = torch.randn(5, 6, generator=generator, dtype=torch.float64)
    new = (w + w @ solve_uce(Moments.of(c, g, p), lam=0.3, alpha=2.0, beta=0.7, method="uce").change).requires_grad_()
    moved = (new @ c.mT - w @ g.mT).square().sum()
    kept = (new @ p.mT - w @ p.mT).square().sum()
    (2.0 * moved + 0.7 * kept + 0.3 * (new - w).square().sum()).backward()
    assert new.grad is not None
    assert new.grad.abs().max() < 1e-10


def test_a_singular_solve_is_refused():
    with pytest.raises(ValueError, match="singular"):
        solve_uce(Moments.of(*map(torch.zeros, ((1, 4), (1, 4), (0, 4)))), lam=0.0, alpha=1.0, beta=1.0, method="uce")


def kinds(*names: int) -> torch.Tensor:
    return torch.tensor(names)


def test_policies_choose_their_tokens():
    own = kinds(BOS, CONTENT, SUBJECT, SUBJECT, CONTENT, EOS, PAD, PAD)
    guide = kinds(BOS, CONTENT, SUBJECT, CONTENT, EOS, PAD, PAD, PAD)
    assert align(own, guide, "last_subject") == [(3, 2)]
    assert align(own, guide, "subject") == [(2, 2), (3, 2)]
    assert align(own, guide, "suffix") == [(2, 2), (3, 2), (4, 3), (5, 4), (6, 5), (7, 6)]
    assert align(own, guide, "last_suffix") == [(3, 2), (4, 3), (5, 4), (6, 5), (7, 6)]
    assert align(guide, own, "last_suffix") == [(2, 3), (3, 4), (4, 5), (5, 6), (6, 7)]  # the last has no counterpart
    assert align(own, guide, "all")[0] == (1, 1)
    with pytest.raises(ValueError, match="uce: policy is 'first'; it is one of last_subject, last_suffix, subject"):
        Uce(policy="first")  # pyright: ignore[reportArgumentType]


def test_a_guide_without_a_subject_is_aligned_from_its_end():
    own = kinds(BOS, SUBJECT, SUBJECT, CONTENT, CONTENT, EOS, PAD, PAD)
    guide = kinds(BOS, CONTENT, CONTENT, CONTENT, EOS, PAD, PAD, PAD)
    assert align(own, guide, "suffix") == [(1, 1), (2, 1), (3, 2), (4, 3), (5, 4), (6, 5), (7, 6)]


@pytest.mark.parametrize("policy", ["last_subject", "subject", "suffix", "all"])
def test_an_empty_guide_never_becomes_bos(policy):
    own = kinds(BOS, CONTENT, SUBJECT, SUBJECT, EOS, PAD)
    empty = kinds(BOS, EOS, PAD, PAD, PAD, PAD)
    pairs = align(own, empty, policy)
    assert all(place != 0 for _, place in pairs)
    assert dict(pairs)[3] == 1
    subject = tiny_sd()
    edit = Uce(guide="", policy=policy)(subject, CONCEPT)
    assert edit.made_by["guides"]["a cat"] == "a"
    assert Uce(guide="", policy=policy, sources=("implicit",))(subject, CONCEPT).made_by["guides"] == {
        p.text: "" for p in CONCEPT.implicit.fit
    }


@pytest.mark.parametrize("make", [tiny_sd, tiny_sdxl])
def test_the_concept_is_answered_as_the_guide_and_the_rest_as_before(make):
    subject = make()
    edit = Uce(policy="last_subject", sources=("target",), lam=1e-4, balance="mean")(subject, CONCEPT)
    assert edit.made_by["gap_left"] < 0.5
    assert edit.made_by["preserved_drift"] < 0.2
    assert edit.made_by["residual"] < 1e-8
    assert len(edit.deltas) == len(subject.sites("cross_key_weight")) + len(subject.sites("cross_value_weight"))


def test_without_anything_to_preserve_the_move_is_complete():
    subject = tiny_sd()
    edit = Uce(policy="last_subject", sources=("target",), preserve=(), lam=1e-9)(subject, CONCEPT)
    assert edit.made_by["gap_left"] < 1e-3


def test_a_width_that_does_not_fit_is_refused():
    subject = tiny_sd()
    with pytest.raises(ValueError, match="no anchor prompts"):
        Uce()(subject, replace(CONCEPT, anchor=Splits()))
    with pytest.raises(ValueError, match="no prompts"):
        Uce()(subject, replace(CONCEPT, target=Splits(), paraphrases=Splits(), implicit=Splits()))


def test_an_unknown_method_lists_the_known_ones():
    from concept_probe.erasers import erase

    with pytest.raises(UnknownName, match="nearest: 'uce'"):
        erase("uci", tiny_sd(), CONCEPT)
