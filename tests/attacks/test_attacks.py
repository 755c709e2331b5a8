"""What single attacks do: their curves, their starting points, what they say when they can't."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from scipy.stats import hypergeom

from concept_probe.activations import tap
from concept_probe.attacks import AnswerCache, Budget, EmbeddingInversion, Paraphrases, Relearning
from concept_probe.attacks.attempt import AttackRun
from concept_probe.attacks.best_of_n import pass_at_k
from concept_probe.attacks.budget import Meter, OverBudget, curve_points, lay_out
from concept_probe.attacks.embeddings.textual_inversion import one_token_word, placeholders
from concept_probe.attacks.embeddings.vectors import start_vectors, with_vectors
from concept_probe.attacks.labels import label_of
from concept_probe.attacks.weights.parameters import random_change
from concept_probe.attacks.weights.relearning import parameters_of
from concept_probe.evaluation.rates import succeeded, success_of, success_rate
from concept_probe.families import DiffusionSubject
from concept_probe.families.diffusion.trajectory import SamplingHook
from concept_probe.families.state import swapped
from concept_probe.families.text.tokens import SUBJECT
from concept_probe.testing.concepts import tiny_concept, tiny_recogniser
from concept_probe.testing.models import TINY_MODELS
from concept_probe.testing.models.diffusion import tiny_sd, tiny_sdxl
from concept_probe.types import Prompt, Query, Sampling, Splits, Trial

SAMPLING = Sampling(steps=2, guidance=2.0, batch=8)


def test_a_negative_budget_is_refused():
    with pytest.raises(ValueError, match="gradient_steps is -1"):
        Budget(gradient_steps=-1)
    with pytest.raises(ValueError, match="seconds is nan"):
        Budget(seconds=math.nan)


def test_a_meter_refuses_what_exceeds_the_budget():
    meter = Meter(Budget(queries=3, gradient_steps=1, examples=2))
    meter.pictures(3)
    meter.step()
    meter.use_examples(2)
    for more in (lambda: meter.pictures(1), meter.step, lambda: meter.use_examples(3)):
        with pytest.raises(OverBudget):
            more()


def test_wilson_interval_holds_the_rate_and_never_leaves_0_to_1():
    for hits in range(9):
        score = success_rate("x", [i < hits for i in range(8)])
        assert 0 <= score.low <= hits / 8 <= score.high <= 1 and score.high > score.low
    assert success_rate("x", [False] * 40).high < success_rate("x", [False] * 8).high
    with pytest.raises(ValueError, match="no trial"):
        success_rate("x", [])


def test_a_failed_recogniser_is_a_success_of_the_attack():
    query = Query(Prompt("a cat", "cat", "cat"))
    assert succeeded(Trial(query, "cat", 1.0)) and succeeded(Trial(query, "error", 0.0))
    assert not succeeded(Trial(query, "none", 0.0))


def test_chance_of_a_hit_among_queries_is_hypergeometric():
    trials = [Trial(Query(Prompt("a cat", "cat", "cat")), "cat" if i < 3 else "none", 1.0) for i in range(20)]
    for q in (1, 2, 5, 17, 20):
        assert pass_at_k("x", trials, q).value == pytest.approx(1 - hypergeom.pmf(0, 20, 3, q))
    assert pass_at_k("x", trials, 18).value == 1


def test_trials_on_one_fact_count_once():
    """Four wordings of each of three facts say no more than three answers; prompts without a fact stand for themselves."""

    def trials(*facts: str | None) -> list[Trial]:
        shown = {"a": "right", "b": "none", "c": "none"}
        return [Trial(Query(Prompt("?", label="right", fact=f)), shown.get(f or "", "right"), 1.0) for f in facts]

    once, often = success_of("x", trials("a", "b", "c")), success_of("x", trials(*"abc" * 4))
    assert often == once and once.n == 3 and once.value == pytest.approx(1 / 3)
    assert success_of("x", trials(*"aaaab")).value == 0.5, "the mean of facts, however often each is asked for"
    assert success_of("x", trials(None, None)).n == 2
    one, many = pass_at_k("x", trials("a", "b", "c"), 1), pass_at_k("x", trials(*"abc" * 4), 1)
    assert (many.low, many.high) == pytest.approx((one.low, one.high))


def test_layout_of_a_curve():
    assert curve_points(60, 4) == (0, 20, 40, 60)
    assert curve_points(0, 4) == (0,) and curve_points(5, 1) == (5,)
    assert lay_out(Budget(queries=80), (0, 20, 40, 60), 16) == ((0, 20, 40, 60), 16)
    assert lay_out(Budget(queries=2), (0, 20, 40, 60), 16) == ((60,), 1)
    assert lay_out(Budget(queries=0), (0, 60), 16)[1] == 0
    run = AttackRun.start(Paraphrases(tiny_recogniser(), seed=7), tiny_sd(), tiny_concept(), Budget(), None)
    queries = run.queries((Prompt("a"), Prompt("b")), 5)
    assert [(q.prompt.text, q.seed) for q in queries] == [("a", 7), ("b", 7), ("a", 8), ("b", 8), ("a", 9)]
    assert run.queries((), 5) == ()


def answers_without_concept(concept):
    """Trials for every query that paraphrases ask: the concept is shown where it is asked for, and nowhere else."""
    own = {Query(p, s): "cat" for part in (concept.paraphrases, concept.implicit) for p in part.test for s in range(9)}
    others = {Query(replace(p, label="cat"), s): "none" for p in concept.unrelated.test for s in range(9)}
    return {q: Trial(q, seen, 1.0) for q, seen in {**own, **others}.items()}


def test_answers_that_are_known_cost_no_picture(monkeypatch):
    subject, concept, budget = tiny_sd(), tiny_concept(), Budget(queries=12)
    attack = Paraphrases(tiny_recogniser(), SAMPLING)
    first = attack(subject, concept, budget)
    known = AnswerCache(subject, tiny_recogniser(), SAMPLING, answers_without_concept(concept))
    monkeypatch.setattr(subject, "generate", lambda *_: pytest.fail("a picture was made for a known answer"))
    again = attack(subject, concept, budget, known)
    assert again.curve[0][1].value == 1 and again.spent.queries == first.spent.queries and again.pictures == ()


@pytest.mark.parametrize("family", ["sd", "llama"])
def test_a_cache_knows_nothing_of_a_subject_that_has_changed(family):
    subject, query = TINY_MODELS[family](), Query(Prompt("a cat", "cat", "cat"))
    looks, trial = tiny_recogniser(), Trial(Query(Prompt("a cat", "cat", "cat")), "cat", 1.0)
    cache = AnswerCache(subject, looks, SAMPLING, {query: trial})
    parameter = next(p for root in subject.components.values() for p in root.parameters())
    site = subject.sites("token_embedding")[0]
    for change in (tap(subject, {site: lambda x, moment: None}), swapped([(parameter, parameter.data.clone())])):
        with change:
            assert not cache.known(subject, looks, SAMPLING)
        assert cache.known(subject, looks, SAMPLING) == {query: trial}
    with swapped([(parameter, parameter.data.clone())]), tap(subject, {site: lambda x, moment: None}):
        own = AnswerCache(subject, looks, SAMPLING, {query: trial})
        assert own.known(subject, looks, SAMPLING) and not own.known(subject, looks, replace(SAMPLING, batch=3))
        with subject.pristine():
            assert not own.known(subject, looks, SAMPLING)
        with torch.no_grad():
            parameter.add_(1)
        assert not own.known(subject, looks, SAMPLING)
    if isinstance(subject, DiffusionSubject):
        with subject.hooked(SamplingHook(after_step=lambda trajectory, step: None)):
            assert not cache.known(subject, looks, SAMPLING)


def test_a_concept_without_words_or_labels_or_pictures():
    concept, subject = tiny_concept(), tiny_sd()
    with pytest.raises(ValueError, match="no paraphrases"):
        Paraphrases(tiny_recogniser(), SAMPLING)(
            subject, replace(concept, paraphrases=Splits(), implicit=Splits()), Budget()
        )
    bare = replace(concept, target=Splits(fit=(Prompt("a cat"),), test=(Prompt("the cat"),)))
    with pytest.raises(ValueError, match="no target prompt has a label"):
        label_of(bare)
    for attack in (EmbeddingInversion, Relearning):
        with pytest.raises(ValueError, match="needs pictures of concept 'cat'"):
            attack(tiny_recogniser(), SAMPLING)(subject, replace(concept, examples=None), Budget())


def test_placeholders_are_the_anchor_then_the_neighbours():
    concept = tiny_concept()
    assert {p.subject for half in placeholders(concept) for p in half} == {"thing"}
    nameless = Splits(fit=(Prompt("an icon"),), test=(Prompt("icons"),))
    assert {p.subject for half in placeholders(replace(concept, anchor=nameless)) for p in half} == {"dog"}
    nothing = dict.fromkeys(("anchor", "neighbours", "unrelated", "target"), nameless)
    with pytest.raises(ValueError, match="no place for a learned word"):
        placeholders(replace(concept, **nothing))


@pytest.mark.parametrize("make", [tiny_sd, tiny_sdxl])
def test_learned_vectors_start_as_the_placeholder_and_take_its_place(make):
    subject, concept = make(), tiny_concept()
    fit, _ = placeholders(concept)
    vectors = start_vectors(subject, fit)
    assert set(vectors) == set(subject.sites("token_embedding"))
    plain = subject.encode(fit[:2])
    with with_vectors(subject, vectors):
        same = subject.encode(fit[:2])
        none = subject.encode([Prompt("the sun")])
    torch.testing.assert_close(same.states, plain.states)
    torch.testing.assert_close(none.states, subject.encode([Prompt("the sun")]).states)
    for v in vectors.values():
        v.data += 1
    with with_vectors(subject, vectors):
        assert not torch.allclose(subject.encode(fit[:2]).states, plain.states)


@pytest.mark.parametrize("tokens", [1, 3])
@pytest.mark.parametrize("make", [tiny_sd, tiny_sdxl])
def test_as_many_vectors_are_learned_as_were_asked_for_and_each_takes_a_place_of_its_own(make, tokens):
    subject, concept = make(), tiny_concept()
    attack = EmbeddingInversion(tiny_recogniser(), SAMPLING, tokens=tokens)
    fit, test = attack.repeated(subject, concept, *placeholders(concept))
    word = (fit[0].subject or "").split()[0]
    assert word not in ("a", "cat", "kitty", "thing")  # beside it, names of the concept, not one token here
    assert [p.text for p in fit[:2]] == [f"{a} " + " ".join([word] * tokens) for a in ("a", "the")]
    vectors = start_vectors(subject, fit)
    assert [len(v) for v in vectors.values()] == [tokens] * len(subject.sites("token_embedding"))
    seen = {}
    for v in vectors.values():
        v.data.copy_(torch.randn(v.shape, generator=torch.Generator().manual_seed(0)))
    looks = {site: lambda x, m, site=site: seen.update({site: x}) for site in vectors}
    with torch.no_grad(), with_vectors(subject, vectors), tap(subject, looks):
        subject.encode([test[0]])
    for (site, v), kinds in zip(vectors.items(), subject.tokenise([test[0]]).kinds_of, strict=True):
        assert torch.equal(seen[site][0][kinds[0] == SUBJECT], v)


def test_a_placeholder_of_several_tokens_gives_way_to_words_of_one():
    subject, concept = tiny_sd(), tiny_concept()
    long = Prompt("a qqqq", "qqqq", "dog")
    assert int((subject.tokenise([Prompt("qqqq")]).kinds == 1).sum()) > 1
    word = one_token_word(subject, concept, [long])
    assert int((subject.tokenise([Prompt(word)]).kinds == 1).sum()) == 1 and word not in ("a", "cat", "kitty")
    assert one_token_word(subject, concept, [Prompt("a qqqq dog", "qqqq dog")]) == "dog"
    assert one_token_word(subject, concept, [Prompt("dog and dog", "dog")]) != "dog"
    for tokens, said in ((-1, "tokens is -1"), (30, "give fewer words")):
        with pytest.raises(ValueError, match=said):
            EmbeddingInversion(tiny_recogniser(), SAMPLING, tokens=tokens)(subject, concept, Budget(queries=4))


@pytest.mark.slow
def test_inversion_lowers_the_loss_that_it_descends(monkeypatch):
    subject, concept = tiny_sd(), tiny_concept()
    losses = []
    loss, examples = subject.denoising_loss, concept.examples
    assert examples is not None

    def fixed(latents, prompts, generator):
        value = loss(
            subject.latents(examples[:2]), list(placeholders(concept)[0][:2]), torch.Generator().manual_seed(0)
        )
        losses.append(float(value.detach()))
        return value

    monkeypatch.setattr(subject, "denoising_loss", fixed)
    EmbeddingInversion(tiny_recogniser(), SAMPLING, rate=0.05)(
        subject, concept, Budget(queries=4, gradient_steps=15, examples=2)
    )
    assert losses[-1] < losses[0]


@pytest.mark.slow
@pytest.mark.parametrize("part", ["cross_attention", "text_encoder", "both"])
def test_relearning_lowers_the_loss_of_the_part_that_it_trains(part, monkeypatch):
    subject, concept = tiny_sdxl(), tiny_concept()
    losses = []
    loss, examples = subject.denoising_loss, concept.examples
    assert examples is not None

    def fixed(latents, prompts, generator):
        value = loss(subject.latents(examples[:2]), list(concept.target.fit[:2]), torch.Generator().manual_seed(0))
        losses.append(float(value.detach()))
        return value

    monkeypatch.setattr(subject, "denoising_loss", fixed)
    before = subject.weight_hash()
    attack = Relearning(tiny_recogniser(), SAMPLING, part=part, rate=0.02)
    attack(subject, concept, Budget(queries=4, gradient_steps=15, examples=2))
    assert losses[-1] < losses[0] and subject.weight_hash() == before


def test_relearning_an_unknown_part():
    with pytest.raises(ValueError, match="part is 'cross_atention'; it is one of cross_attention"):
        Relearning(tiny_recogniser(), part="cross_atention")  # pyright: ignore[reportArgumentType]


def test_a_random_change_has_the_norm_of_the_trained_one():
    for parameter in parameters_of(tiny_sd(), "both"):
        own = parameter.detach()
        changed = own + 0.01
        random = random_change(own, changed, torch.Generator().manual_seed(0))
        assert float((random - own).norm()) == pytest.approx(float((changed - own).norm()), rel=1e-3)
        assert not torch.equal(random, changed)


def test_an_attack_that_finds_no_number_says_so(monkeypatch):
    subject = tiny_sd()
    monkeypatch.setattr(subject, "denoising_loss", lambda *_: torch.tensor(math.nan, requires_grad=True))
    before = subject.weight_hash()
    with pytest.raises(FloatingPointError, match="lower its `rate`"):
        Relearning(tiny_recogniser(), SAMPLING)(subject, tiny_concept(), Budget(queries=4, gradient_steps=2))
    assert subject.weight_hash() == before


@pytest.mark.slow
def test_a_guard_stays_on_while_a_word_is_learned():
    """The attack is adaptive: a tap of the erasure fires in every gradient step and every picture."""
    subject, seen = tiny_sd(), []
    site = subject.sites("text_stream")[0]
    with tap(subject, {site: lambda x, moment: seen.append(x.requires_grad)}):
        EmbeddingInversion(tiny_recogniser(), SAMPLING)(subject, tiny_concept(), Budget(queries=4, gradient_steps=3))
    assert sum(seen) >= 3 and len(seen) > 3
