"""Columns that speak of a concept stand out from matched random columns; others do not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from concept_probe.find.language.enrichment import (
    _rates,
    background_tokens,
    concept_tokens,
    enriched_columns,
    shuffled_columns,
)
from concept_probe.find.language.unembedding import Unembedding
from concept_probe.testing.models.language import LANGUAGE
from concept_probe.types import Concept, Prompt, Splits

PLANTED = (3, 11, 20, 33)


def prompt(text, *answers):
    return Prompt(text, None, None, "plain", answers, ("zz",))


CONCEPT = Concept(
    "cat",
    target=Splits(fit=(prompt("see the cat", "red"), prompt("a cat", "sun"))),
    unrelated=Splits(fit=(prompt("the dog", "dog"),)),
)


@pytest.fixture(params=LANGUAGE)
def subject(request):
    return LANGUAGE[request.param]()


def ids(subject, *words):
    return tuple(sorted(subject.tokenizer(f" {w}", add_special_tokens=False).input_ids[0] for w in words))


def plant(subject, tokens, layer=1, sign=1.0):
    """Make four columns of a layer speak for `tokens`."""
    rows = subject.matrix(subject.sites("unembed")[0]).detach()[list(tokens)]
    columns = subject.matrix(subject.sites("mlp_value")[layer]).detach()
    direction = rows.sum(0) - rows.sum(0).mean()
    for j in PLANTED:
        columns[:, j] = sign * direction + 0.05 * columns[:, j]


def test_tokens_are_the_words_that_no_other_prompt_has(subject):
    assert concept_tokens(subject, CONCEPT) == ids(subject, "cat", "red", "sun")  # "the" also stands with the dog
    with pytest.raises(ValueError, match="every token of its fit prompts also stands in other prompts"):
        concept_tokens(subject, Concept("dog", target=CONCEPT.unrelated, unrelated=CONCEPT.unrelated))


@pytest.mark.parametrize("norm", ["folded", "plain"])
def test_scores_are_those_of_a_plain_loop(subject, norm):
    tokens = list(ids(subject, "cat", "red"))
    found = enriched_columns(subject, CONCEPT, norm=norm, tokens=tokens)
    head = Unembedding.of(subject, norm)
    for i in range(0, 80, 9):
        site = found.sites[i]
        scores = head.scores(subject.matrix(site).detach()[:, site.item, None])[0]
        like = scores[list(background_tokens(subject, tokens))]
        value = float((scores[tokens].mean() - like.mean()) / like.std(correction=0)) * 2**0.5
        assert float(found.scores[i] * found.sign[i]) == pytest.approx(value, abs=1e-3)
    assert bool((found.scores.diff() <= 0).all()) and len(found.sites) == 80 and len(found.random) == 320


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_planted_columns_are_discovered_first(subject, sign):
    plant(subject, ids(subject, "cat", "red", "sun"), sign=sign)
    found = enriched_columns(subject, CONCEPT)
    assert {(s.path, s.item) for s in found.sites[:4]} == {(subject.sites("mlp_value")[1].path, j) for j in PLANTED}
    assert found.discovered(0.1) >= 4 and found.sign[:4].tolist() == [sign] * 4


def test_where_nothing_is_planted_little_is_discovered():
    """Thirty sets of three random tokens: at a rate of 0.1, few searches may find anything at all."""
    subject = LANGUAGE["llama"]()
    generator = torch.Generator().manual_seed(0)
    hits = 0
    for seed in range(30):
        tokens = torch.randperm(256, generator=generator)[:3].tolist()
        hits += enriched_columns(subject, CONCEPT, tokens=tokens, seed=seed).discovered(0.1) > 0
    assert hits <= 6


def test_random_columns_are_alike_in_every_coordinate_and_in_length():
    columns = torch.randn(6, 2000, generator=torch.Generator().manual_seed(0)) * torch.arange(1, 7)[:, None]
    mixed = shuffled_columns(columns, torch.Generator().manual_seed(1))
    torch.testing.assert_close(torch.linalg.vector_norm(mixed, dim=0), torch.linalg.vector_norm(columns, dim=0))
    back = mixed / torch.linalg.vector_norm(mixed, dim=0)
    assert float((back.mT @ (columns / torch.linalg.vector_norm(columns, dim=0))).diagonal().abs().mean()) < 0.7
    torch.testing.assert_close(mixed.std(1), columns.std(1), rtol=0.35, atol=0)


def test_rates_count_random_columns_above():
    scores = torch.tensor([9.0, 8.0, 5.0, 1.0])
    random = torch.tensor([6.0, 0.5, 0.4, 2.0, 0.1, 0.2, 0.3, 0.6])  # two per column
    # above 9: 0, above 8: 0, above 5: 1, above 1: 2; (1 + above) / 2 / rank
    assert _rates(scores, random, 2).tolist() == pytest.approx([0.25, 0.25, 1 / 3, 3 / 8])
    assert _rates(scores, torch.zeros(0), 0).tolist() == [1.0] * 4


def test_same_seed_same_result(subject):
    first, again = (enriched_columns(subject, CONCEPT, seed=3) for _ in range(2))
    assert first.sites == again.sites and torch.equal(first.q, again.q)


def test_only_whole_words_count(subject):
    beginnings = Concept("a", target=Splits(fit=(prompt("see the cats", "redo"),)), unrelated=CONCEPT.unrelated)
    with pytest.raises(ValueError, match="every token of its fit prompts"):
        concept_tokens(subject, beginnings)  # " cat" and " red" only begin these


def test_a_word_of_two_targets_is_the_concept_s_even_if_it_is_no_answer(subject):
    asked = [
        replace(prompt(text, "zz"), fact=fact) for text, fact in (("red cat", "1"), ("cat sun", "2"), ("sun", "2"))
    ]
    concept = Concept("a", target=Splits(fit=tuple(asked)), unrelated=CONCEPT.unrelated)
    concept = replace(concept, target=Splits(fit=tuple(replace(p, distractors=("yz",)) for p in asked)))
    assert concept_tokens(subject, concept) == ids(subject, "cat")  # "sun" is in two wordings of one fact


def test_the_background_is_the_nearest_in_the_vocabulary(subject):
    tokens = ids(subject, "cat", "sun")
    count = min(len(subject.tokenizer), subject.matrix(subject.sites("unembed")[0]).shape[0])
    words = ids(subject, "the", "red", "dog")
    found = background_tokens(subject, tokens, each=2)
    assert found == tuple(w for t in tokens for w in sorted(words, key=lambda w, t=t: abs(w - t))[:2])
    rest = background_tokens(subject, tokens[:1], each=10_000)  # too few words: every other token
    assert len(set(rest)) == count - 1 and tokens[0] not in rest
