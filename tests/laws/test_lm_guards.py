"""Laws that every intervention on language models keeps, on every layout of them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from concept_probe.erasers import Intervention
from concept_probe.families import CausalLMSubject
from concept_probe.testing.models.language import LANGUAGE
from concept_probe.types import Query, Sampling
from tests.laws.lm_eraser_cases import concept
from tests.laws.lm_guard_cases import GUARDS

CONCEPT = concept()
OWN = CONCEPT.target.fit
OTHERS = CONCEPT.neighbours.fit
PROMPTS = [*OWN, *OTHERS]


@pytest.fixture(scope="module", params=LANGUAGE)
def subject(request) -> CausalLMSubject:
    return LANGUAGE[request.param]()


@pytest.fixture(scope="module", params=GUARDS)
def method(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def guard(subject: CausalLMSubject, method: str) -> Intervention:
    return GUARDS[method][0](subject)


def said(subject: CausalLMSubject, prompts=PROMPTS) -> Tensor:
    with torch.no_grad():
        return subject.next_logits(prompts)


def test_it_acts_and_every_byte_is_back_also_after_an_exception(subject: CausalLMSubject, guard: Intervention):
    weights, before = subject.weight_hash(), said(subject)
    with guard.on(subject):
        assert not torch.allclose(said(subject), before, atol=1e-4)
        assert subject.weight_hash() == weights
    with pytest.raises(RuntimeError, match="on purpose"), guard.on(subject):
        raise RuntimeError("on purpose")
    assert torch.equal(said(subject), before)


def test_strength_zero_changes_no_bit(subject: CausalLMSubject, guard: Intervention):
    before = said(subject)
    with guard.scaled(0).on(subject):
        assert torch.equal(said(subject), before)


def test_batch_size_and_order_change_nothing(subject: CausalLMSubject, guard: Intervention):
    with guard.on(subject):
        whole, parts = said(subject), subject.next_logits(PROMPTS[::-1], batch=2).flip(0)
        texts = subject.generate([Query(p) for p in PROMPTS], Sampling(tokens=3))
        turned = subject.generate([Query(p) for p in PROMPTS[::-1]], Sampling(tokens=3, batch=2))
    torch.testing.assert_close(parts, whole, atol=1e-4, rtol=1e-4)
    assert turned[::-1] == texts


def test_same_seed_same_guard(subject: CausalLMSubject, method: str, guard: Intervention):
    again = GUARDS[method][0](subject)
    assert again.describe() == guard.describe()
    with guard.on(subject):
        first = said(subject)
    with again.on(subject):
        assert torch.equal(said(subject), first)


def test_the_target_moves_more_than_under_a_random_aim(subject: CausalLMSubject, method: str, guard: Intervention):
    """More of what is changed in what the unembedding reads is the concept's, beyond what changes for other things."""

    def read(prompts) -> Tensor:
        return subject.encode(prompts).states

    def moved(one: Intervention) -> float:
        own, others = read(OWN), read(OTHERS)
        with one.on(subject):
            return float((read(OWN) - own).square().mean() - (read(OTHERS) - others).square().mean())

    random = [moved(GUARDS[method][1](subject, seed)) for seed in range(6)]
    aimed = moved(guard)
    assert aimed > 0 and aimed > sum(random) / len(random)
