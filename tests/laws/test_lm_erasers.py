"""Laws that every unlearner of language models keeps, on every layout of them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from concept_probe.activations import read_site
from concept_probe.erasers import ERASERS, Dpo, Edit
from concept_probe.erasers.ablation.pisces import at_features
from concept_probe.erasers.closed_form.rocr import renamed
from concept_probe.erasers.closed_form.subject_keys import at_places, last_of_subject
from concept_probe.erasers.unlearning.activations import after_first_token
from concept_probe.erasers.unlearning.answer_sets import preferred_pairs
from concept_probe.families import CausalLMSubject
from concept_probe.testing.models.language import LANGUAGE
from concept_probe.types import Query, Sampling, Subspace
from tests.laws.eraser_cases import CASES
from tests.laws.lm_eraser_cases import FOUND, METHODS, concept, elsewhere, made

CONCEPT = concept()
KEPT = tuple(p for p in CONCEPT.neighbours.fit)
OWN = CONCEPT.target.fit
PAIRS = [(p, " " + p.answers[0]) for p in OWN]


def test_every_unlearner_has_a_case():
    assert METHODS.items() <= ERASERS.items() and not set(METHODS) & set(CASES)


@pytest.fixture(scope="module", params=LANGUAGE)
def family(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def subject(family: str) -> CausalLMSubject:
    return LANGUAGE[family]()


@pytest.fixture(scope="module", params=METHODS)
def method(request) -> str:
    return request.param


@pytest.fixture(scope="module")
def edit(subject: CausalLMSubject, family: str, method: str) -> Edit:
    return made(method, family, subject, CONCEPT)


def said(subject: CausalLMSubject) -> Tensor:
    return subject.next_logits([*OWN, *KEPT])


def likely(subject: CausalLMSubject, pairs=PAIRS) -> Tensor:
    with torch.no_grad():
        return subject.log_probs(pairs).total


def held(subject: CausalLMSubject):
    every = dict(subject.model.named_parameters())
    return {n: p.detach().clone() for n, p in every.items()}, [(p.data_ptr(), p.requires_grad) for p in every.values()]


def test_it_acts_and_every_byte_is_back_also_after_an_exception(subject: CausalLMSubject, edit: Edit):
    (weights, places), before = held(subject), said(subject)
    with edit.on(subject):
        assert not torch.allclose(said(subject), before, atol=1e-4)
    with pytest.raises(RuntimeError, match="on purpose"), edit.on(subject):
        raise RuntimeError("on purpose")
    again, now = held(subject)
    assert now == places and all(torch.equal(x, weights[n]) for n, x in again.items())
    assert torch.equal(said(subject), before)
    assert all(p.grad is None for p in subject.model.parameters())


def test_strength_zero_changes_no_bit(subject: CausalLMSubject, family: str, method: str, edit: Edit):
    before = said(subject)
    for nothing in (edit.scaled(0), made(method, family, subject, CONCEPT, strength=0.0)):
        with nothing.on(subject):
            assert torch.equal(said(subject), before)


def test_same_seed_same_edit(subject: CausalLMSubject, family: str, method: str, edit: Edit):
    again = made(method, family, subject, CONCEPT)
    assert again.describe() == edit.describe()
    with edit.on(subject):
        first = subject.weight_hash()
    with again.on(subject):
        assert subject.weight_hash() == first


def test_batch_size_and_order_change_nothing(subject: CausalLMSubject, edit: Edit):
    prompts = [*OWN, *KEPT]
    with edit.on(subject):
        whole = subject.next_logits(prompts)
        parts = subject.next_logits(prompts[::-1], batch=2).flip(0)
        texts = subject.generate([Query(p) for p in prompts], Sampling(tokens=3))
        turned = subject.generate([Query(p) for p in prompts[::-1]], Sampling(tokens=3, batch=2))
    torch.testing.assert_close(parts, whole, atol=1e-4, rtol=1e-4)
    assert turned[::-1] == texts


MOVES = ("rmu", "needle", "pisces")
"""They move what is measured, whichever way; the others lower it."""


def measure(method: str, subject: CausalLMSubject, features: Subspace | None) -> Tensor:
    """What the method works on, at the concept's prompts."""
    if features is not None:
        with torch.no_grad():
            x, read = read_site(subject, features.site, OWN)
            x = x[after_first_token(read)]
            assert features.codec is not None
            return (
                x @ features.basis if method == "pisces" else at_features(features.codec.encode(x), features.features)
            )
    if method in ("rmu", "needle"):
        return states_of(subject, 0 if method == "rmu" else -1)
    if method == "rocr":  # how far what is written at the name is from what is written at the other one
        site, led = subject.sites("mlp_out")[0], [renamed(p, "dog") for p in OWN]
        own, other = (at_places(subject, site, ps, last_of_subject(subject, ps)) for ps in (OWN, led))
        return torch.linalg.vector_norm(own - other, dim=1)
    return likely(subject) - (
        likely(subject, preferred_pairs(PAIRS, Dpo().instead, "dpo")) if method in ("dpo", "memit") else 0
    )


def test_the_target_moves_more_than_under_a_random_aim(subject: CausalLMSubject, family: str, method: str, edit: Edit):
    """The concept's answers lose likelihood, for preferences against the preferred ones; misdirection moves states.

    Other words with other answers, unlearned as hard, are the control; for columns, random ones.
    """
    features = FOUND[method](subject, CONCEPT)[0] if method in ("pisces", "crisp") else None
    before = measure(method, subject, features)

    def moved(one: Edit) -> float:
        with one.on(subject):
            change = measure(method, subject, features) - before
        return float(change.abs().mean()) if method in MOVES else -float(change.mean())

    random = [moved(elsewhere(method, family, subject, CONCEPT, seed)) for seed in range(3)]
    aimed = moved(edit)
    assert aimed > 0 and aimed > sum(random) / len(random)


def states_of(subject: CausalLMSubject, block: int) -> Tensor:
    with torch.no_grad():
        x, read = read_site(subject, subject.sites("resid")[block], OWN)
    return x[after_first_token(read)]


def test_bake_save_and_load_give_the_same_model(family: str, method: str, tmp_path):
    fresh = LANGUAGE[family]()
    edit = made(method, family, fresh, CONCEPT)
    read = Edit.load(edit.save(tmp_path / "edit"))
    assert read.describe() == edit.describe()
    with edit.on(fresh):
        during, edited = said(fresh), fresh.weight_hash()
    with read.on(fresh):
        assert fresh.weight_hash() == edited
    edit.bake(fresh)
    assert fresh.weight_hash() == edited and torch.equal(said(fresh), during)
