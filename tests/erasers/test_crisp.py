"""CRISP: which features are salient, each term against the formula, and what training does to them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from concept_probe.activations import read_site
from concept_probe.erasers import Crisp
from concept_probe.erasers.ablation.found import dictionaries_of
from concept_probe.erasers.training.trainable import LowRankAdapters
from concept_probe.erasers.unlearning.activations import after_first_token
from concept_probe.erasers.unlearning.answer_sets import texts_with_answers
from concept_probe.erasers.unlearning.crisp import firing_sums
from concept_probe.families import CausalLMSubject
from concept_probe.find import find_features
from concept_probe.learn.sae import Sae
from concept_probe.testing.concepts import tiny_facts
from concept_probe.testing.found import random_sae
from concept_probe.testing.models.diffusion import tiny_sd
from concept_probe.testing.models.language import LANGUAGE, tiny_llama
from concept_probe.types import Prompt, Splits
from tests.erasers.test_pisces import narrow_sae, space

CONCEPT = tiny_facts()
OWN, OTHERS = texts_with_answers(CONCEPT, ("target",)), texts_with_answers(CONCEPT, ("neighbours",))
families = pytest.mark.parametrize("family", LANGUAGE)


def rows(subject: CausalLMSubject, sae: Sae, prompt: Prompt) -> Tensor:
    """Activations (t, d) of one text, read alone, without its first token."""
    with torch.no_grad():
        x, read = read_site(subject, sae.site, [prompt])
    return x[after_first_token(read)]


def dense(subject: CausalLMSubject, sae: Sae, texts: list[Prompt]) -> Tensor:
    return sae.encode(torch.cat([rows(subject, sae, p) for p in texts])).dense(sae.width).double()


def test_texts_are_prompts_with_their_answers():
    assert [p.text for p in OWN] == ["see the cat in red sun", "a cat and the red sun"]


@families
def test_salient_features_are_those_of_the_definition(family):
    subject = LANGUAGE[family]()
    sae = random_sae(subject, "resid")
    own, other = dense(subject, sae, OWN), dense(subject, sae, OTHERS)
    sums = firing_sums(subject, sae, OWN, batch=1)
    torch.testing.assert_close(sums.fires, (own > 0).double().sum(0), atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(sums.total, own.sum(0), atol=1e-3, rtol=1e-4)
    assert sums.tokens == len(own)
    (one,) = dictionaries_of(subject, [space(sae, 0)], "crisp")
    salient = Crisp(count=5, ratio=2.0).chosen(subject, one, OWN, OTHERS)
    more = (own > 0).double().mean(0) - (other > 0).double().mean(0)
    able = [j for j in range(sae.width) if more[j] > 0 and own[:, j].mean() >= 2 * other[:, j].mean()]
    assert 0 < len(salient) == min(5, len(able)) and set(salient) <= set(able)
    assert min(float(more[j]) for j in salient) >= max([float(more[j]) for j in able if j not in salient], default=-1)
    assert Crisp(features="found").chosen(subject, one, OWN, OTHERS) == [0]


@families
@pytest.mark.parametrize("role", ["resid", "mlp_out"])
def test_terms_are_the_formula_where_the_student_has_moved(family, role):
    subject = LANGUAGE[family]()
    sae = random_sae(subject, role)
    (one,) = dictionaries_of(subject, [space(sae, 0)], "crisp")
    made = Crisp(batch=8, hold=3.0)
    student = LowRankAdapters(subject, made.sites(subject, [one]), 4, seed=0)
    aim = made.chosen(subject, one, OWN, OTHERS) if role == "resid" else [1, 9, 33]
    with torch.no_grad():
        suppress, stay = made.terms(subject, student, one, aim, OWN, OTHERS)
    before = dense(subject, sae, OWN)[:, aim].sum(1).mean()
    norm = torch.cat([rows(subject, sae, p) for p in OWN]).norm(dim=-1).mean()
    still = [read_site(subject, sae.site, [p])[0][0].detach() for p in OTHERS]
    for u, _ in student.pairs.values():
        u.data.normal_(generator=torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad(), student.on():
        found = float(suppress(generator)), float(stay(generator))
        now = dense(subject, sae, OWN)[:, aim].sum(1).mean()
        moved = [
            (read_site(subject, sae.site, [p])[0][0] - x).square().sum(-1).mean()
            for p, x in zip(OTHERS, still, strict=True)
        ]
    assert found[0] == pytest.approx(float(now / before), rel=1e-3)
    assert found[1] == pytest.approx(3 * float(torch.stack(moved).mean() / norm**2), rel=1e-3) and found[1] > 0


@pytest.mark.slow
@families
def test_suppressed_features_fire_less_and_holding_holds(family):
    subject = LANGUAGE[family]()
    sae = random_sae(subject, "resid")
    found = find_features(sae, subject, CONCEPT, count=4)
    aim = list(found[0].features)
    before, still = dense(subject, sae, OWN)[:, aim].mean(), torch.cat([rows(subject, sae, p) for p in OTHERS])

    def trained(hold: float) -> tuple[float, float]:
        edit = Crisp(features="found", steps=25, rate=0.05, hold=hold, retain=0.0)(subject, CONCEPT, found)
        with edit.on(subject):
            now = torch.cat([rows(subject, sae, p) for p in OTHERS])
            return float(dense(subject, sae, OWN)[:, aim].mean() / before), float((now - still).norm())

    (left, drift), (_, loose) = trained(10.0), trained(0.0)
    assert left < 0.8 and drift < loose


def test_what_is_trained_and_what_is_said_of_it():
    subject = tiny_llama()
    lower, upper = random_sae(subject, "resid", 0), random_sae(subject, "resid", 1)
    low = Crisp(steps=2, ratio=1.0)(subject, CONCEPT, [space(lower, 0)])
    both = Crisp(steps=2, ratio=1.0, modules=("q_proj", "down_proj"))(
        subject, CONCEPT, [space(upper, 0), space(lower, 1)]
    )
    assert [where.split(".")[2] for where in low.deltas] == ["0"]
    assert {where.rpartition(".")[2] for where in both.deltas} == {"q_proj:weight", "down_proj:weight"}
    assert len(both.deltas) == 4 and list(both.made_by["suppressed"]) == [str(lower.site), str(upper.site)]
    assert len(low.made_by["loss"]) == 2 and low.made_by["suppressed"][str(lower.site)]


@pytest.mark.slow
def test_what_cannot_be_suppressed_is_refused():
    subject, pictures = tiny_llama(), tiny_sd()
    before, sae = subject.weight_hash(), random_sae(subject, "resid")
    with pytest.raises(TypeError, match="answer with texts"):
        Crisp()(pictures, CONCEPT, [space(sae, 1)])
    with pytest.raises(ValueError, match="crisp needs features of a sparse autoencoder"):
        Crisp()(subject, CONCEPT)
    with pytest.raises(ValueError, match="read where it was trained"):
        Crisp()(subject, CONCEPT, [space(random_sae(pictures, "text_stream"), 1)])
    with pytest.raises(ValueError, match="has width 12"):
        Crisp()(subject, CONCEPT, [space(narrow_sae(subject), 1)])
    with pytest.raises(ValueError, match="features is 'all'"):
        Crisp(features="all")(subject, CONCEPT, [space(sae, 1)])  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"no feature over .* lower `ratio`"):
        Crisp(ratio=1e30)(subject, replace(CONCEPT, neighbours=CONCEPT.target), [space(sae, 1)])
    with pytest.raises(ValueError, match="to compare with, found 0"):
        Crisp()(subject, replace(CONCEPT, neighbours=Splits()), [space(sae, 1)])
    quiet = [j for j in range(sae.width) if not dense(subject, sae, OWN)[:, j].any()][:1]
    with pytest.raises(ValueError, match="do not fire on any"):
        Crisp(features="found")(subject, CONCEPT, [space(sae, *quiet)])
    assert subject.weight_hash() == before
