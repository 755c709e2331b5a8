"""MEMIT: where it acts, what it asks the layers to write, and the closed form in float64."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from concept_probe.activations import read_site
from concept_probe.erasers import Edit, Memit
from concept_probe.erasers.closed_form.subject_keys import at_places, last_of_subject
from concept_probe.erasers.erasure.deltas import LowRank
from concept_probe.erasers.erasure.parameters import find_parameter
from concept_probe.erasers.unlearning.activations import after_first_token
from concept_probe.erasers.unlearning.answer_sets import answer_pairs, preferred_pairs
from concept_probe.testing.concepts import tiny_facts
from concept_probe.testing.models.diffusion import tiny_sd
from concept_probe.testing.models.language import LANGUAGE, tiny_llama
from concept_probe.types import Prompt, Splits

CONCEPT = tiny_facts()
PAIRS = answer_pairs(CONCEPT, ("target",))
PROMPTS = [p for p, _ in PAIRS]
families = pytest.mark.parametrize("family", LANGUAGE)


@families
def test_the_place_is_the_subjects_last_token(family):
    """Prompts of unequal length in one batch give what each gives alone."""
    subject = LANGUAGE[family]()
    prompts = [*PROMPTS, Prompt("no name here at all")]
    places, site = last_of_subject(subject, prompts), subject.sites("resid")[0]
    for i, prompt in enumerate(prompts):
        ids = subject.tokenise([prompt]).ids[0][0].tolist()
        upto = len(prompt.text[: prompt.text.index("cat") + 3]) if prompt.subject else len(prompt.text)
        read = subject.tokenizer.decode(ids[: int(places[i]) + 1], skip_special_tokens=True)
        assert read == prompt.text[:upto]
        alone = at_places(subject, site, [prompt], places[i : i + 1])
        torch.testing.assert_close(at_places(subject, site, prompts, places)[i : i + 1], alone, atol=1e-4, rtol=1e-4)


@families
def test_offsets_make_the_wanted_answer_likelier(family):
    subject = LANGUAGE[family]()
    made = Memit(steps=15)
    site = subject.sites("resid")[0]
    places = last_of_subject(subject, PROMPTS)
    goal, losses = made.wanted(subject, site, preferred_pairs(PAIRS, made.instead, "memit"), places)
    begun = at_places(subject, site, PROMPTS, places).double()
    assert bool(((goal - begun).norm(dim=1) <= 0.75001 * begun.norm(dim=1)).all())
    assert losses[-1] < losses[0] and goal.shape == (len(PROMPTS), 16) and goal.dtype == torch.float64


@families
def test_each_layer_solves_the_ridge_regression_on_a_float64_model(family):
    """ΔW = R Kᵀ (λ E[ppᵀ] + E[kkᵀ] + ridge)⁻¹ / n with R the gap over the layers that are left, layer by layer."""
    subject = LANGUAGE[family]()
    subject.model.double()
    places = last_of_subject(subject, PROMPTS)
    end = subject.sites("resid")[1]
    generator = torch.Generator().manual_seed(0)
    goal = at_places(subject, end, PROMPTS, places) + torch.randn(2, 16, generator=generator, dtype=torch.float64)
    others = CONCEPT.neighbours.fit
    made = Memit(lam=0.7)
    deltas, left = made.written(subject, (0, 1), PROMPTS, places, goal, others)
    done: dict = {}
    for i, value in enumerate(subject.sites("mlp_value")):
        hidden = subject.sites("mlp_hidden")[i]
        with Edit("by hand", "", done, subject.weight_hash()).on(subject), torch.no_grad():
            k = at_places(subject, hidden, PROMPTS, places)
            r = (goal - at_places(subject, end, PROMPTS, places)) / (2 - i)
            x, read = read_site(subject, hidden, others)
        p = x[after_first_token(read)]
        moment = k.mT @ k / 2 + 0.7 * p.mT @ p / len(p)
        moment += 1e-6 * moment.diagonal().mean() * torch.eye(len(moment), dtype=moment.dtype)
        change = (r.mT @ k / 2) @ torch.linalg.inv(moment)
        where = "model/" + value.path + ":weight"
        found = deltas[where]
        assert isinstance(found, LowRank)
        torch.testing.assert_close(found.u @ found.v.mT, change, atol=1e-8, rtol=1e-6)
        done[where] = found
    assert 0 <= left < 1


def test_what_cannot_be_rewritten_is_refused():
    subject = tiny_llama()
    with pytest.raises(TypeError, match="answer with texts"):
        Memit()(tiny_sd(), CONCEPT)
    with pytest.raises(ValueError, match=r"no fit prompts in .* to keep"):
        Memit()(subject, replace(CONCEPT, neighbours=Splits()))
    for layers in ((7,), (1, 0)):
        with pytest.raises(ValueError, match="rising numbers of blocks"):
            Memit(layers=layers)(subject, CONCEPT)
    bare = replace(CONCEPT, target=Splits(fit=tuple(replace(p, distractors=()) for p in CONCEPT.target.fit)))
    with pytest.raises(ValueError, match="has no distractor to prefer"):
        Memit(instead=())(subject, bare)


def test_a_text_with_two_answers_is_given_one_goal():
    """Two offsets at one place can't both be reached; the first answer counts."""
    subject = tiny_llama()
    twice = replace(CONCEPT.target.fit[0], answers=("sun",))
    made = Memit(steps=2, sources=("target",))
    doubled = replace(CONCEPT, target=replace(CONCEPT.target, fit=(*CONCEPT.target.fit, twice)))
    once, both = (made(subject, c).deltas for c in (CONCEPT, doubled))
    assert once.keys() == both.keys()
    for where, delta in once.items():
        weight = find_parameter(subject.components, where)
        torch.testing.assert_close(delta.apply(weight), both[where].apply(weight), atol=1e-4, rtol=1e-3)
