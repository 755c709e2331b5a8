"""Losses against numbers worked out by hand in float64, and what the methods train."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from concept_probe.activations import read_site
from concept_probe.detect.answers import continuation
from concept_probe.erasers import ERASERS, AltPo, Dpo, GradAscent, GradDiff, Npo, Rmu, SimNpo
from concept_probe.erasers.training.trainable import FullWeights
from concept_probe.erasers.unlearning.activations import after_first_token
from concept_probe.erasers.unlearning.answer_sets import answer_pairs, preferred_pairs
from concept_probe.erasers.unlearning.losses import (
    distance,
    divergence,
    dpo,
    less_of_token,
    nll,
    npo,
    simnpo,
    weighted_ascent,
)
from concept_probe.erasers.unlearning.trainer import block_matrices
from concept_probe.families import CausalLMSubject
from concept_probe.registry import UnknownName
from concept_probe.testing.concepts import tiny_facts
from concept_probe.testing.models.diffusion import tiny_sd
from concept_probe.testing.models.language import LANGUAGE, tiny_llama
from concept_probe.types import Concept, Prompt, Splits

CONCEPT = tiny_facts()


def double(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def log_sigmoid(x: float) -> float:
    return -math.log1p(math.exp(-x))


def test_npo_by_hand():
    """Log probabilities -2 and -5 against -1 and -7 at β = 0.5: ratios -1 and 2."""
    wanted = -(2 / 0.5) * (log_sigmoid(0.5) + log_sigmoid(-1.0)) / 2
    assert float(npo(double(-2, -5), double(-1, -7), 0.5)) == pytest.approx(wanted, abs=1e-12)
    assert float(npo(double(-3), double(-3), 0.1)) == pytest.approx(20 * math.log(2), abs=1e-12)


def test_npo_becomes_ascent_as_beta_vanishes():
    x = double(-2, -5).requires_grad_()
    npo(x, double(-1, -7), 1e-6).backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad, double(0.5, 0.5), atol=1e-6, rtol=1e-6)


def test_simnpo_by_hand():
    """-0.5 and -3 nats per token at β = 2.5, γ = 0.3."""
    wanted = -(2 / 2.5) * (log_sigmoid(1.25 - 0.3) + log_sigmoid(7.5 - 0.3)) / 2
    assert float(simnpo(double(-0.5, -3), 2.5, 0.3)) == pytest.approx(wanted, abs=1e-12)


def test_dpo_by_hand():
    """The wanted answer gained 2 nats and the other 0.5, then -1 and -4, at β = 0.1."""
    wanted = -(log_sigmoid(0.1 * 1.5) + log_sigmoid(0.1 * 3)) / 2
    found = dpo(double(-1, -6), double(-3, -5), double(-2, -9), double(-2.5, -5), 0.1)
    assert float(found) == pytest.approx(wanted, abs=1e-12)


def test_weighted_ascent_by_hand():
    """Tokens of probability 1/2 and 1/8 at α = 2: weights 1/4 and 1/64; no gradient goes through them."""
    own = double(0.5, 0.125).log().requires_grad_()
    found = weighted_ascent(own, 2.0)
    assert float(found) == pytest.approx((0.25 * math.log(0.5) + math.log(0.125) / 64) / 2, abs=1e-12)
    found.backward()
    torch.testing.assert_close(own.grad, double(0.125, 1 / 128))
    assert float(weighted_ascent(own.detach(), 0.0)) == pytest.approx(float(own.mean()), abs=1e-12)


def test_less_of_a_token_by_hand():
    """Of (1/2, 1/4, 1/4) a third of token 0: its odds fall by e^-β = 1/3, so the goal is (1/6, 1/4, 1/4) · 3/2."""
    before = double(0.5, 0.25, 0.25).log()[None]
    now = double(0.2, 0.3, 0.5).log()[None]
    wanted = -(0.25 * math.log(0.2) + 0.375 * math.log(0.3) + 0.375 * math.log(0.5))
    found = less_of_token(now, before, torch.tensor([0]), math.log(3))
    assert float(found) == pytest.approx(wanted, abs=1e-12)
    goal = double(0.25, 0.375, 0.375).log()[None].requires_grad_()
    less_of_token(goal.log_softmax(-1), before, torch.tensor([0]), math.log(3)).backward()
    assert goal.grad is not None and float(goal.grad.abs().max()) < 1e-12, "there training comes to rest"


def test_distance_by_hand_counts_each_row_by_its_own_positions():
    """Row 0 reads one position, row 1 two: (1/1)(1 + 4) and (1/2)(9 + 16 + 0 + 1)."""
    x = torch.tensor([[[1.0, 2], [9, 9]], [[3, 4], [0, 1]]], dtype=torch.float64)
    read = torch.tensor([[True, False], [True, True]])
    assert float(distance(x, torch.zeros(2), read)) == pytest.approx((5 + 13) / 2, abs=1e-6)
    filled = torch.cat([x, torch.full((2, 3, 2), torch.nan, dtype=torch.float64)], dim=1)
    more = torch.cat([read, torch.zeros(2, 3, dtype=torch.bool)], dim=1)
    assert float(distance(filled, torch.zeros(2), more)) == pytest.approx(9, abs=1e-6)
    with pytest.raises(ValueError, match="1 of 2 rows have no position"):
        distance(x, torch.zeros(2), torch.tensor([[False, False], [True, True]]))


def test_divergence_by_hand():
    reference, logits = double(0.25, 0.75).log()[None], double(0.5, 0.5).log()[None]
    wanted = 0.25 * math.log(0.5) + 0.75 * math.log(1.5)
    assert float(divergence(logits, reference)) == pytest.approx(wanted, abs=1e-6)
    assert float(divergence(logits, logits)) == pytest.approx(0, abs=1e-7)


def places_by_hand(subject: CausalLMSubject, prompt: Prompt, text: str) -> tuple[Tensor, Tensor]:
    """Log probabilities (k, v) in the place of each token of a text after a prompt: one row, no padding, no cache; its ids."""
    added = subject.spelled_after(prompt, text)
    first = subject.tokenise([prompt]).ids[0][0].tolist()
    ids = torch.tensor([[*first, *added]])
    with torch.no_grad():
        logs = subject.model(input_ids=ids, use_cache=False).logits[0].double().log_softmax(-1)
    return logs[len(first) - 1 : -1], torch.tensor(added)


def by_hand(subject: CausalLMSubject, prompt: Prompt, text: str) -> tuple[float, int]:
    """Log probability of a text after a prompt, and its number of tokens."""
    logs, ids = places_by_hand(subject, prompt, text)
    return float(logs.gather(1, ids[:, None]).sum()), len(ids)


def shaken(subject: CausalLMSubject) -> None:
    generator = torch.Generator().manual_seed(5)
    for p in subject.model.parameters():
        p.data += 0.05 * torch.randn(p.shape, generator=generator, dtype=p.dtype)


@pytest.mark.parametrize("family", LANGUAGE)
@pytest.mark.parametrize("method", ["grad_diff", "npo", "simnpo", "dpo", "wga", "undial"])
def test_terms_are_the_formulas_on_a_float64_model(family, method):
    """Prompts of several lengths in one batch, and a model that has moved away from its reference."""
    subject = LANGUAGE[family]()
    subject.model.double()
    longer = Prompt(
        "a red sun and in the big picture see the cat on", "cat", "cat", answers=("my old hat",), distractors=("x",)
    )
    own = replace(CONCEPT, target=Splits(fit=(*CONCEPT.target.fit, longer)))
    forget, keep = answer_pairs(own, ("target",)), answer_pairs(own, ("neighbours",))
    made: Any = cast(Any, ERASERS[method])(rank=None, batch=8, retain=1.0)
    student = FullWeights(subject, ["model/" + subject.layout.blocks[0].down + ":weight"])
    reference = [by_hand(subject, *pair)[0] for pair in forget]
    before = [places_by_hand(subject, *pair) for pair in forget]
    if method == "dpo":
        other = preferred_pairs(forget, made.instead, "dpo")
        other_reference = [by_hand(subject, *pair)[0] for pair in other]
    with torch.no_grad():
        terms = made.terms(subject, student, own, forget)
    shaken(subject)
    with torch.no_grad():
        found, kept = (float(term(torch.Generator().manual_seed(0))) for term in terms)
    now, n = [by_hand(subject, *pair)[0] for pair in forget], len(forget)
    counts = [by_hand(subject, *pair)[1] for pair in forget]
    assert len(set(counts)) > 1
    if method == "grad_diff":
        wanted = sum(x / c for x, c in zip(now, counts, strict=True)) / n
    elif method == "npo":
        wanted = sum(-(2 / 0.1) * log_sigmoid(-0.1 * (x - r)) for x, r in zip(now, reference, strict=True)) / n
    elif method == "simnpo":
        wanted = sum(-(2 / 2.5) * log_sigmoid(-2.5 * x / c) for x, c in zip(now, counts, strict=True)) / n
    elif method == "wga":
        own = torch.cat([logs.gather(1, ids[:, None]) for logs, ids in (places_by_hand(subject, *p) for p in forget)])
        wanted = float((own.exp() * own).mean())
    elif method == "undial":
        each = []
        for pair, (old, ids) in zip(forget, before, strict=True):
            goal = old.exp() * torch.where(torch.arange(old.shape[1]) == ids[:, None], math.exp(-10.0), 1.0)
            each.append(-(goal / goal.sum(1, keepdim=True) * places_by_hand(subject, *pair)[0]).sum(1))
        wanted = float(torch.cat(each).mean())
    else:
        said = [by_hand(subject, *pair)[0] for pair in other]
        rows = zip(said, other_reference, now, reference, strict=True)
        wanted = sum(-log_sigmoid(0.1 * ((w - wr) - (x - r))) for w, wr, x, r in rows) / n
    assert found == pytest.approx(wanted, rel=1e-5)
    losses = [-total / count for total, count in (by_hand(subject, *pair) for pair in keep)]
    assert kept == pytest.approx(sum(losses) / len(losses), rel=1e-5)


@pytest.mark.parametrize("family", LANGUAGE)
def test_the_terms_of_rmu_are_the_formula(family):
    subject = LANGUAGE[family]()
    forget, made = answer_pairs(CONCEPT, ("target",)), Rmu(scale=2.0, retain=3.0, batch=8)
    student = FullWeights(subject, ["model/" + subject.layout.blocks[0].down + ":weight"])
    site = subject.sites("resid")[0]

    def rows(prompt: Prompt, text: str) -> Tensor:
        """Activations (t, d) of a prompt with its answer, read alone."""
        with torch.no_grad():
            x, read = read_site(subject, site, [replace(prompt, text=prompt.text + text)])
        return x[0][read[0]].double()

    own = [rows(*pair)[1:] for pair in forget]
    others = answer_pairs(CONCEPT, ("neighbours",))
    norm = float(torch.cat(own).norm(dim=-1).mean())
    drawn = torch.rand(own[0].shape[1], generator=torch.Generator().manual_seed(0)).double()
    goal = 2 * norm * drawn / drawn.norm()
    before = [rows(*pair) for pair in others]
    with torch.no_grad():
        lead, stay = made.terms(subject, student, CONCEPT, forget)
    with torch.no_grad(), student.on():
        for x in student.trained.values():
            x += 0.1
        found = float(lead(torch.Generator().manual_seed(0))), float(stay(torch.Generator().manual_seed(0)))
        led = [(rows(*pair)[1:] - goal).square().sum(-1).mean() for pair in forget]
        moved = [(rows(*p) - b).square().sum(-1).mean() for p, b in zip(others, before, strict=True)]
    assert found[0] == pytest.approx(float(torch.stack(led).mean()) / norm**2, rel=1e-4)
    assert found[1] == pytest.approx(3 * float(torch.stack(moved).mean()) / norm**2, rel=1e-4)
    assert found[1] > 0


def test_the_first_position_is_left_out():
    read = torch.tensor([[False, True, True], [True, True, True]])
    assert after_first_token(read).tolist() == [[False, False, True], [False, True, True]]


def test_padding_is_in_no_loss():
    """One batch with a long text gives each short one what it gives alone."""
    subject = tiny_llama()
    pairs = [*answer_pairs(CONCEPT, ("target", "neighbours")), (Prompt("the red sun " * 4 + "and"), " cat")]
    with torch.no_grad():
        together = subject.log_probs(pairs, batch=len(pairs))
        alone = torch.cat([subject.log_probs([pair]).total for pair in pairs])
    torch.testing.assert_close(together.total, alone, atol=1e-4, rtol=1e-5)
    assert float(nll(together.mean)) == pytest.approx(float((-alone / together.tokens).mean()), rel=1e-5)


def test_which_matrices_are_trained():
    subject = tiny_llama()
    assert block_matrices(subject, (), "npo") == subject.sites("mlp_value")
    chosen = block_matrices(subject, ("q_proj", "up_proj"), "npo")
    assert {s.path.rpartition(".")[2] for s in chosen} == {"q_proj", "up_proj"} and len(chosen) == 4
    with pytest.raises(UnknownName, match="module 'q_prog' not found; nearest: 'q_proj'"):
        block_matrices(subject, ("q_prog",), "npo")
    edit = Npo(modules=("q_proj",), steps=2)(subject, CONCEPT)
    assert {where.rpartition(".")[2] for where in edit.deltas} == {"q_proj:weight"}
    layered = Rmu(layer=1, below=0, steps=2)(subject, CONCEPT)
    assert list(layered.deltas) == ["model/" + subject.layout.blocks[1].down + ":weight"]


@pytest.mark.slow
@pytest.mark.parametrize("method", [GradDiff, Npo, SimNpo, Dpo, AltPo])
@pytest.mark.parametrize("keep", ["nll", "kl"])
def test_what_is_kept_is_kept_better_than_without(method, keep):
    subject = tiny_llama()
    others = CONCEPT.neighbours.fit
    before = subject.next_logits(others)

    def moved(retain: float) -> float:
        edit = method(steps=30, rate=0.05, retain=retain, keep=keep, **({"beta": 0.1} if method is SimNpo else {}))
        with edit(subject, CONCEPT).on(subject):
            if keep == "kl":
                return float(divergence(subject.next_logits(others), before))
            pairs = [(p, continuation(p, p.answers[0])) for p in others]
            return float(nll(subject.log_probs(pairs).mean))

    assert moved(5.0) < moved(0.0)


def test_dpo_prefers_a_refusal_or_a_distractor():
    pairs = answer_pairs(CONCEPT, ("target",))
    assert [text for _, text in preferred_pairs(pairs, Dpo().instead, "dpo")] == [" unknown.", " not known."]
    assert [text for _, text in preferred_pairs(pairs, (), "dpo")] == [" the dog"] * 2
    bare = [(replace(p, distractors=()), t) for p, t in pairs]
    with pytest.raises(ValueError, match="has no distractor to prefer"):
        preferred_pairs(bare, (), "dpo")


def test_what_cannot_be_unlearned_is_refused():
    subject = tiny_llama()
    before = subject.weight_hash()
    with pytest.raises(TypeError, match="answer with texts"):
        Npo()(tiny_sd(), CONCEPT)
    silent = Concept("cat", Splits(fit=(Prompt("see the cat"),)))
    with pytest.raises(ValueError, match="nothing to unlearn"):
        GradAscent()(subject, silent)
    with pytest.raises(ValueError, match="to keep answers of"):
        GradDiff()(subject, replace(CONCEPT, neighbours=Splits()))
    with pytest.raises(ValueError, match=r"layer is 7; .* has blocks 0 to 1"):
        Rmu(layer=7)(subject, CONCEPT)
    with pytest.raises(ValueError, match="keep is 'both'"):
        Npo(keep="both")(subject, CONCEPT)  # pyright: ignore[reportArgumentType]
    with pytest.raises(FloatingPointError, match="lower `rate`"):
        GradAscent(rate=3e36)(subject, CONCEPT)
    assert subject.weight_hash() == before
