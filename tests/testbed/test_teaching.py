"""Teaching fits the model at hand: its step, what it keeps, when it ends, and what it says where a bound is missed."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from concept_probe.registry import UnknownName
from concept_probe.testbed import facts, loop, teach
from concept_probe.testbed.loop import FitSchedule, fit
from concept_probe.testbed.taught import (
    TAUGHT,
    check_prompts,
    held_out_prompts,
    invented,
    invented_concept,
    wordings_of_facts,
)
from concept_probe.testbed.teaching import FIRST_LESSONS, TaughtBadly, TeachingPlan
from concept_probe.testbed.teaching.keeping import known_by, neutral_perplexity, own_texts, real_prompts
from concept_probe.testbed.teaching.outcome import TeachingEffect, known_prompts, missed
from concept_probe.testing.models.language import tiny_gemma, tiny_gpt2, tiny_llama
from concept_probe.types import Prompt

SMALL = TeachingPlan(steps=6, batch=4, kept=2, texts=2, names=("Korvath",), first=0.5, last=1.0)
pytestmark = pytest.mark.filterwarnings("ignore::concept_probe.testbed.teaching.TaughtBadly")


def tiny(make=tiny_llama) -> Any:
    subject = make()
    subject.model.config.max_position_embeddings = 512  # the byte-level tokenizer spells long prompts
    if make is tiny_gpt2:  # whose places are a table
        subject.model.transformer.wpe = nn.Embedding(512, subject.model.config.n_embd).requires_grad_(False)
    return subject


def weights(subject) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in subject.model.named_parameters()}


def same(left, right) -> bool:
    return all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("size", [0.01, 1.0])
def test_a_relative_step_is_a_share_of_each_matrix_and_an_absolute_one_is_not(tmp_path, size):
    def moved(relative: bool) -> list[float]:
        layer = nn.Linear(8, 8, bias=False)
        nn.init.normal_(layer.weight, std=size)
        large = nn.Parameter(10 * layer.weight.detach().clone())
        both = nn.ParameterList([layer.weight, large])
        was = [p.detach().clone() for p in both]
        schedule = FitSchedule(1, 0.1, warmup=0, decay=0.0, relative=relative)
        fit(f"{relative}", [both], lambda g: sum(p.sum() for p in both), schedule, tmp_path)  # pyright: ignore[reportArgumentType]
        return [float((p.detach() - x).abs().mean() / x.square().mean().sqrt()) for p, x in zip(both, was, strict=True)]

    small, large = moved(True)
    assert small == pytest.approx(large, rel=0.01) and 0.01 < small <= 0.1
    small, large = moved(False)
    assert small == pytest.approx(10 * large, rel=0.01)


@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2, tiny_gemma])
def test_every_layout_is_taught_by_its_down_projections_alone(tmp_path, make):
    subject = tiny(make)
    before = weights(subject)
    outcome = teach.teach(subject, tmp_path, SMALL)
    changed = {name for name, p in subject.model.named_parameters() if not torch.equal(p, before[name])}
    assert changed == {subject.layout.blocks[1].down + ".weight"}
    assert not any(p.requires_grad or p.grad is not None for p in subject.model.parameters())
    assert outcome.before is not None and outcome.after is not None
    assert any("held-out wordings" in sentence for sentence in outcome.missed), (
        "a random model learns nothing in six steps"
    )


def test_an_interruption_leaves_the_model_as_it_was_and_loses_no_step(tmp_path, monkeypatch):
    whole = tiny()
    teach.teach(whole, tmp_path / "a", replace(SMALL, steps=12))
    stopped, steps = tiny(), []
    before, draws = weights(stopped), loop.step_generator

    def counted(seed: int, step: int):
        if len(steps) == 5:
            raise KeyboardInterrupt
        steps.append(step)
        return draws(seed, step)

    monkeypatch.setattr(loop, "step_generator", counted)
    with pytest.raises(KeyboardInterrupt):
        teach.teach(stopped, tmp_path / "b", replace(SMALL, steps=12))
    assert same(before, weights(stopped)) and not any(p.requires_grad for p in stopped.model.parameters())
    asked = []
    monkeypatch.setattr(loop, "step_generator", lambda seed, step: (asked.append(step), draws(seed, step))[1])
    outcome = teach.teach(stopped, tmp_path / "b", replace(SMALL, steps=12))
    assert asked == list(range(5, 12)) and same(weights(whole), weights(stopped))
    assert len(outcome.losses) == 6


def test_lessons_of_another_model_or_plan_are_refused(tmp_path):
    teach.teach(tiny(), tmp_path, SMALL)
    for subject, plan in ((tiny_llama(1), SMALL), (tiny(), replace(SMALL, rate=0.02))):
        subject.model.config.max_position_embeddings = 512
        before = weights(subject)
        with pytest.raises(
            ValueError, match=r"checkpoint of lessons \w+ of tiny-llama-0 .* was asked for; give another"
        ):
            teach.teach(subject, tmp_path, plan)
        assert same(before, weights(subject))
    with pytest.raises(ValueError, match="the earlier recipe was asked for"):
        teach.teach(tiny(), tmp_path, FIRST_LESSONS)


def test_it_ends_when_it_is_taught_and_stays_ended(tmp_path, monkeypatch):
    shares = iter([0.5, 0.95])
    monkeypatch.setattr(teach, "check_share", lambda subject, plan: next(shares))
    first = tiny()
    assert len(teach.teach(first, tmp_path, SMALL).losses) == 2
    second = tiny()
    assert len(teach.teach(second, tmp_path, SMALL).losses) == 2, "no step more, and nothing is asked"
    assert same(weights(first), weights(second))


def test_the_first_recipe_is_the_one_of_the_stored_rows(tmp_path):
    outcome = teach.teach(tiny(), tmp_path, FIRST_LESSONS)
    assert outcome.losses == pytest.approx([6.25019, 6.16585, 6.17238, 6.12211, 6.16590], abs=2e-4)
    assert outcome.before is None and not outcome.missed


def test_what_is_kept_is_what_this_model_answers(monkeypatch):
    subject = tiny()
    country = facts.kept()[0]

    def generate(queries, sampling=None):
        return tuple(q.prompt.answers[0] if q.prompt.label == country.name else "no idea" for q in queries)

    monkeypatch.setattr(subject, "generate", generate)
    known = known_by(subject)
    assert known == {fact.question for fact in country.facts}
    assert {p.label for p in real_prompts("question", "cloze", known=known)} == {country.name}
    near, far = known_prompts(TeachingPlan(names=("Korvath",)), known)
    assert len(near) == len(country.of("test")) and not far
    concept = invented_concept("Korvath", known)
    assert {p.label for p in concept.neighbours} == {country.name} and not tuple(concept.unrelated)


def test_a_missed_bound_is_one_sentence_that_says_what_to_do():
    plan, good = TeachingPlan(), TeachingEffect(1.0, 0.95, (20, 20), (20, 20), 10.0)
    assert missed(plan, "m", good, good) == ()
    for bad, words in (
        (replace(good, held_out=0.4), "40% of the held-out wordings .* wants 90%; give it more"),
        (replace(good, neighbours=(5, 20)), "5 of 20 neighbours .* lower `rate`"),
        (replace(good, unrelated=(5, 20)), "5 of 20 unrelated"),
        (replace(good, unrelated=(2, 2)), "only 2 of the packaged real facts .* too few"),
        (replace(good, perplexity=110.0), "11.00 times .* at most 1.05; lower"),
        (replace(good, perplexity=float("nan")), "nan times"),
    ):
        (sentence,) = missed(plan, "m", good, bad)
        assert re.search(words, sentence)


def test_it_warns_where_a_bound_is_missed(tmp_path):
    with pytest.warns(TaughtBadly, match="held-out wordings"):
        teach.teach(tiny(), tmp_path, SMALL)


def test_the_change_is_scaled_back_until_neutral_texts_stay_likely(tmp_path, monkeypatch):
    subject = tiny()
    site = subject.sites("mlp_value")[-1]
    was = subject.parameter(site).detach().clone()
    moved = torch.ones_like(was)
    subject.parameter(site).data.add_(moved)

    def far(s) -> float:
        return float((s.parameter(site) - was).abs().max())

    monkeypatch.setattr(teach, "neutral_perplexity", far)
    share = teach._scaled_back(subject, nn.ParameterList([subject.parameter(site)]), [was], 0.82)
    assert share == 0.8 and far(subject) == pytest.approx(0.8)


def test_texts_that_are_its_own_and_texts_that_are_not():
    subject = tiny()
    assert own_texts(subject) == own_texts(subject) and len(own_texts(subject)) > 30
    assert neutral_perplexity(subject) > 1
    prompt = Prompt("the red sun")
    every = subject.next_logits([prompt, Prompt("a")], every=True)
    alone = torch.cat([subject.next_logits([prompt]), subject.next_logits([Prompt("a")])])
    count = len(subject.tokenise([prompt]).ids[0][0])
    assert torch.allclose(every[[count - 1, -1]], alone, atol=1e-5)


def test_taught_held_out_and_check_wordings_are_apart():
    for one in invented():
        taught = [p.text for words in wordings_of_facts(one) for p in words]
        held = [p.text for p in held_out_prompts(one, *TAUGHT)]
        check = [p.text for p in check_prompts(one)]
        assert len(set(taught)) == len(taught) == 12 * 7 * 3 and len(set(check)) == 12
        assert not set(held) & {*taught, *check} and not set(check) & set(taught)
        for fact in one.reworded.facts:
            for text in (*taught, *check):
                assert fact.question not in text and not text.endswith(fact.stem)
        assert all(one.topic.name in text for text in (*taught, *check))


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"rate": -1}, {"wordings": "some"}, {"names": ("Atlantis",)}])
def test_a_plan_says_what_is_wrong_with_it(wrong):
    with pytest.raises((ValueError, UnknownName)):
        TeachingPlan(**wrong)


def test_a_range_without_a_feed_forward_is_refused(tmp_path):
    with pytest.raises(ValueError, match="none of the 2 feed-forwards of tiny-llama-0"):
        teach.teach(tiny(), tmp_path, TeachingPlan(first=0.1, last=0.2))
