"""RECE, SPEED, MACE and EMCID against plain float64 computations of what they minimise."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from concept_probe.activations.attention import attention_to_text
from concept_probe.erasers import Emcid, LowRank, Mace, Rece, Speed, Uce
from concept_probe.erasers.closed_form.key_values import solve_key_values
from concept_probe.erasers.closed_form.mace import Contribution, fuse
from concept_probe.erasers.closed_form.null_space import null_projector
from concept_probe.erasers.closed_form.rece import Rounds, derive, solve_rece
from concept_probe.erasers.closed_form.solve import Moments, factors, solve_uce
from concept_probe.erasers.closed_form.speed import augmented, influenced, solve_speed
from concept_probe.erasers.closed_form.states import TokenStates
from concept_probe.testing.concepts import tiny_concept
from concept_probe.testing.models.diffusion import tiny_sd, tiny_sdxl
from concept_probe.types import Prompt, Sampling, Splits

CONCEPT = tiny_concept()
SAMPLING = Sampling(steps=2, guidance=2.0, batch=8)
D = 6


def rows(*counts: int, seed: int = 0, d: int = D) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(n, d, generator=generator, dtype=torch.float64) for n in counts]


def gradient(loss, weight: Tensor) -> Tensor:
    free = weight.clone().requires_grad_()
    loss(free).backward()
    assert free.grad is not None
    return free.grad


def test_sums_of_two_concepts_add_and_mean_weights_do_not_depend_on_the_number_of_tokens():
    c, g, p = rows(4, 4, 6)
    both = Moments.of(c[:2], g[:2], p[:3]) + Moments.of(c[2:], g[2:], p[3:])
    whole = Moments.of(c, g, p)
    for name in ("edited", "destination", "retained"):
        torch.testing.assert_close(getattr(both, name), getattr(whole, name))
    assert (both.count_edited, both.count_retained) == (4, 6)
    twice = whole + whole
    for sums in (whole, twice):
        alpha, beta = sums.weights(2.0, 0.5, "mean")
        torch.testing.assert_close(alpha * sums.edited, 2.0 * D * c.mT @ c / 4)
        torch.testing.assert_close(beta * sums.retained, 0.5 * D * p.mT @ p / 6)
    assert whole.weights(2.0, 0.5, "sum") == (2.0, 0.5)
    with pytest.raises(ValueError, match="uce: balance is 'median'; it is one of sum, mean"):
        Uce(balance="median")  # pyright: ignore[reportArgumentType]


def test_factors_of_a_low_rank_matrix_are_those_of_the_whole():
    left, right = rows(3, 3, d=40)
    change = left.mT @ right
    for most in (3, 12, 40):
        u, v = factors(change, most)
        assert u.shape[1] == v.shape[1] == 3
        torch.testing.assert_close(u @ v.mT, change)


def test_an_edit_that_stays_near_another_minimises_its_objective():
    c, g, p, w = rows(3, 3, 9, 5)
    start = rows(D, seed=2)[0] * 0.3
    change = solve_uce(Moments.of(c, g, p), lam=0.3, alpha=2.0, beta=0.7, start=start, method="uce").change

    def objective(x: Tensor) -> Tensor:
        near = (x - w - w @ start).square().sum()
        moved, kept = (x @ c.mT - w @ g.mT).square().sum(), (x @ p.mT - w @ p.mT).square().sum()
        return 2.0 * moved + 0.7 * kept + 0.3 * near

    assert gradient(objective, w + w @ change).abs().max() < 1e-9


def test_derived_embeddings_are_those_that_edited_matrices_answer_as_the_originals_did():
    c, g = rows(3, 3)
    weights = rows(5, 8, seed=3)
    change = rows(D, seed=4)[0] * 0.2
    stack = torch.stack([w.mT @ w for w in weights]).sum(0)
    derived, share = derive(c, g, change, stack, 0.05)
    edited = [w + w @ change for w in weights]

    def objective(x: Tensor) -> Tensor:
        gaps = [(e @ x.mT - w @ c.mT).square().sum() for e, w in zip(edited, weights, strict=True)]
        return torch.stack(gaps).sum() + 0.05 * x.square().sum()

    assert gradient(objective, derived).abs().max() < 1e-9
    lost = sum((e @ derived.mT - w @ c.mT).square().sum() for e, w in zip(edited, weights, strict=True))
    whole = sum((w @ g.mT - w @ c.mT).square().sum() for w in weights)
    assert share == pytest.approx(float(1 - lost / whole))


@pytest.mark.parametrize("remember", [0.0, 1.0])
def test_a_round_of_rece_is_the_papers_with_each_matrix_solved_alone(remember):
    c, g, p = rows(2, 2, 9)
    weights = rows(5, 8, seed=3)
    stack = torch.stack([w.mT @ w for w in weights]).sum(0)
    lam, alpha, beta, ridge = 0.3, 2.0, 0.7, 0.05
    rounds = Rounds(2, ridge, remember)
    got = solve_rece(TokenStates(c, g, p, {}), stack, rounds, lam=lam, alpha=alpha, beta=beta)
    eye = torch.eye(D, dtype=torch.float64)
    now = list(weights)
    seen: list[Tensor] = []
    for step in range(3):
        if step == 0:
            moved = c
        else:
            left = ridge * eye + torch.stack([n.mT @ n for n in now]).sum(0)
            right = torch.stack([n.mT @ w for n, w in zip(now, weights, strict=True)]).sum(0)
            moved = (torch.linalg.inv(left) @ right @ c.mT).mT
        whole = 1 + remember * len(seen)
        groups = [(1.0 / whole, moved), *((remember / whole, old) for old in seen)]
        after = []
        for n, w in zip(now, weights, strict=True):
            top = lam * n + beta * (w @ p.mT) @ p
            bottom = lam * eye + beta * p.mT @ p
            for weight, tokens in groups:
                top = top + weight * alpha * (w @ g.mT) @ tokens
                bottom = bottom + weight * alpha * tokens.mT @ tokens
            after.append(top @ torch.linalg.inv(bottom))
        now, seen = after, [*seen, moved]
    for n, w in zip(now, weights, strict=True):
        torch.testing.assert_close(w + w @ got.solution.change, n)
    assert len(got.regained) == 2


def test_rece_without_rounds_is_uce_and_negative_rounds_are_refused():
    subject = tiny_sd()
    plain, none = Uce()(subject, CONCEPT), Rece(rounds=0)(subject, CONCEPT)
    for where, delta in plain.deltas.items():
        other = none.deltas[where]
        assert isinstance(delta, LowRank) and isinstance(other, LowRank)
        torch.testing.assert_close(other.u @ other.v.mT, delta.u @ delta.v.mT, atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="rounds"):
        Rece(rounds=-1)(subject, CONCEPT)


def test_speed_is_the_least_of_its_objective_among_changes_that_keep_what_must_be_kept():
    d = 9
    c, g, kept, fixed, w = rows(4, 4, 3, 2, 5, d=d)
    projector = null_projector(kept.mT @ kept, 1e-12)
    assert round(float(projector.trace())) == d - 3
    change = w @ solve_speed(Moments.of(c, g, kept), projector, fixed, rho=0.4, lam=0.0).change
    assert (change @ kept.mT).abs().max() < 1e-8
    assert (change @ fixed.mT).abs().max() < 1e-8
    free = torch.linalg.svd(torch.cat([kept, fixed]))[2][5:]  # every change that keeps both is made of these rows

    def objective(x: Tensor) -> Tensor:
        return ((w + x @ free) @ c.mT - w @ g.mT).square().sum() + 0.4 * (x @ free).square().sum()

    torch.testing.assert_close(change @ free.mT @ free, change)
    assert gradient(objective, change @ free.mT).abs().max() < 1e-8


def test_the_projector_leaves_at_most_its_share_of_the_energy():
    (kept,) = rows(50, d=9)
    moment = (kept * torch.arange(1, 10)).mT @ (kept * torch.arange(1, 10))
    for null in (0.0, 0.01, 0.2):
        projector = null_projector(moment, null)
        assert float((projector @ moment).trace() / moment.trace()) <= null + 1e-12
    assert float(null_projector(moment, 1.0).trace()) == pytest.approx(9)


def test_speed_counts_what_an_unguarded_edit_moves_and_adds_noise_where_matrices_do_not_look():
    kept, weight, change = rows(20, 5, D)
    stack = weight.mT @ weight
    shift = torch.stack([(weight @ change @ row).square().sum() for row in kept])
    assert torch.equal(influenced(kept, change, stack, 1.0), shift >= shift.mean())
    assert influenced(kept, change, stack, 0.0).all()
    more = augmented(kept, stack, 3, 1, seed=0)
    assert len(more) == 80 and torch.equal(more[:20], kept)
    torch.testing.assert_close(more[20:40] @ weight.mT, kept @ weight.mT)  # 5 outputs leave one unseen direction
    assert not torch.allclose(more[20:40], kept)


def test_speed_says_when_nothing_is_left_to_edit():
    with pytest.raises(ValueError, match="leaves none"):
        Speed(null=0.0)(tiny_sd(), CONCEPT)
    with pytest.raises(ValueError, match="rho"):
        Speed(rho=0.0)(tiny_sd(), CONCEPT)


@pytest.mark.parametrize("make", [tiny_sd, tiny_sdxl])
def test_speed_keeps_the_empty_prompt(make):
    subject = make()
    edit = Speed(lam=0.0, null=0.2)(subject, CONCEPT)
    before = subject.encode([Prompt("")]).states[0]
    for site in subject.sites("cross_key_weight"):
        delta = edit.deltas[f"{site.component}/{site.path}:weight"]
        assert isinstance(delta, LowRank)
        assert (before @ delta.v @ delta.u.mT).abs().max() < 1e-4


def test_fusion_is_the_least_of_its_objective():
    first, second, kept, w = rows(3, 2, 9, 5)
    k1, k2 = (x * 0.3 for x in rows(D, D, seed=5))
    u, v = rows(5, D, seed=6, d=1)
    parts = [Contribution(first, k1, {"w": LowRank(u, v)}), Contribution(second, k2, {"w": LowRank(2 * u, v.flip(0))})]
    change, filters = fuse(parts, kept, alpha=2.0, beta=0.7, lam=0.3)
    fused = w + w @ change
    for part, through in zip(parts, filters, strict=True):
        fused = fused + part.terms["w"].u @ part.terms["w"].v.mT @ through

    def objective(x: Tensor) -> Tensor:
        total = 0.7 * (x @ kept.mT - w @ kept.mT).square().sum() + 0.3 * (x - w).square().sum()
        for part in parts:
            own = w + w @ part.refined + part.terms["w"].u @ part.terms["w"].v.mT
            total = total + 2.0 * ((x - own) @ part.states.mT).square().sum()
        return total

    assert gradient(objective, fused).abs().max() < 1e-9


def test_attention_is_that_of_the_model():
    """What the maps say a layer writes is what it writes."""
    from concept_probe.activations import tap

    subject = tiny_sd()
    condition = subject.encode(CONCEPT.target.fit[:2])
    site, value = subject.sites("cross_out")[0], subject.sites("cross_value")[0]
    module = subject.module(site)
    seen = {}
    looks = {s: (lambda x, m, s=s: seen.update({s: x})) for s in (site, value)}
    with attention_to_text(subject) as maps, tap(subject, looks):
        subject.predict(torch.randn(2, *subject.latent_shape), torch.tensor([10, 20]), condition)
    assert len(maps) == len(subject.sites("cross_out"))
    values = seen[value].unflatten(-1, (module.heads, -1)).transpose(1, 2)  # pyright: ignore[reportArgumentType]
    read = (maps[0] @ values).transpose(1, 2).flatten(2)
    torch.testing.assert_close(module.to_out[0](read), seen[site], atol=1e-5, rtol=1e-4)  # pyright: ignore


@pytest.mark.slow
def test_mace_lowers_attention_to_the_subject_and_fuses_several_concepts():
    subject = tiny_sd()
    other = replace(CONCEPT, name="dog", target=CONCEPT.neighbours, neighbours=CONCEPT.target)
    edit = Mace(steps=12, pictures=2, sampling=SAMPLING, rate=0.1).together(subject, [CONCEPT, other])
    assert edit.concept == "cat+dog" and edit.made_by["concepts"] == ["cat", "dog"]
    for stage in edit.made_by["stages"]:
        assert stage["loss"][1] < stage["loss"][0]
    bare = Splits(fit=tuple(replace(p, subject=None) for p in CONCEPT.target.fit))
    with pytest.raises(ValueError, match="has a subject"):
        Mace(steps=1, pictures=1, sampling=SAMPLING)(subject, replace(CONCEPT, target=bare))


def test_a_memory_is_written_with_the_least_harm_to_kept_keys():
    keys, kept = rows(4, 20, d=8)
    (wanted,) = rows(4, d=3)
    delta = solve_key_values(keys, wanted, kept, 0.7)
    ridge = 1e-6 * (keys.mT @ keys / 4 + 0.7 * kept.mT @ kept / 20).diagonal().mean()

    def objective(x: Tensor) -> Tensor:
        moved = (x @ keys.mT - wanted.mT).square().sum() / 4
        return moved + 0.7 * (x @ kept.mT).square().sum() / 20 + ridge * x.square().sum()

    assert gradient(objective, delta.u @ delta.v.mT).abs().max() < 1e-9
    exact = solve_key_values(keys, wanted, kept[:0], 0.7)
    torch.testing.assert_close(keys @ exact.v @ exact.u.mT, wanted, atol=1e-3, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("make", [tiny_sd, tiny_sdxl])
def test_emcid_learns_offsets_and_writes_them(make):
    subject = make()
    edit = Emcid(steps=60, batch=8, pictures=2, sampling=SAMPLING, lam=0.01)(subject, CONCEPT)
    first, last = edit.made_by["loss"]
    assert last < first
    assert all(left < 0.9 for left in edit.made_by["gap_left"].values())
    assert len(edit.deltas) == len(subject.sites("text_out"))
    with pytest.raises(ValueError, match="layer 9"):
        Emcid(layers=(9,), sampling=SAMPLING)(subject, CONCEPT)
