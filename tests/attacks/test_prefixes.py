"""Learned prefixes: what stands before the question, what it descends, and what it is tested on."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from concept_probe import detect
from concept_probe.attacks import Budget, PrefixSearch, SoftPrefix
from concept_probe.attacks.attempt import AttackRun
from concept_probe.attacks.embeddings.learned import behind_filler
from concept_probe.attacks.embeddings.vectors import start_vectors, with_vectors
from concept_probe.attacks.examples import answers_of
from concept_probe.attacks.search.prefix_search import embeddings, nearest_tokens, swap
from concept_probe.families.state import with_gradients
from concept_probe.testing.checks import TextAttacks
from concept_probe.testing.concepts import tiny_concept, tiny_recogniser
from concept_probe.testing.models.diffusion import tiny_sd
from concept_probe.testing.models.language import LANGUAGE, tiny_llama
from concept_probe.types import Prompt

FILLER = "so sun"
CONCEPT, SAMPLING = TextAttacks.concept, TextAttacks.sampling
FIT = behind_filler(CONCEPT.target.fit, FILLER)
PAIRS = [(p, " " + p.answers[0]) for p in FIT]
LOOKS = detect.judge_for(CONCEPT)


def read(subject) -> float:
    """Negative log likelihood per token of the fit answers behind the filler."""
    with torch.no_grad():
        return -float(subject.log_probs(PAIRS).mean.mean())


@pytest.mark.parametrize("family", LANGUAGE)
def test_vectors_start_as_the_filler_and_reach_it_alone(family):
    subject = LANGUAGE[family]()
    vectors = start_vectors(subject, FIT)
    prompts = [*FIT, Prompt("the cat")]
    plain = subject.next_logits(prompts)
    with with_vectors(subject, vectors):
        torch.testing.assert_close(subject.next_logits(prompts), plain, atol=1e-5, rtol=1e-5)
        for v in vectors.values():
            v.data += torch.randn(v.shape, generator=torch.Generator().manual_seed(0))
        moved = subject.next_logits(prompts)
    assert not torch.allclose(moved[:-1], plain[:-1], atol=1e-3) and torch.equal(moved[-1], plain[-1])


@pytest.mark.parametrize("family", LANGUAGE)
def test_tokens_of_the_table_are_those_that_the_model_reads(family):
    """A vector put in from the table does what the token itself does, however the module scales it."""
    subject = LANGUAGE[family]()
    (v,) = start_vectors(subject, FIT).values()
    table = embeddings(subject)
    ids = nearest_tokens(v, table)
    torch.testing.assert_close(v.detach(), table[ids])
    assert set(ids.tolist()) <= set(subject.tokenise(FIT[:1]).ids[0][0].tolist())


@pytest.mark.slow
@pytest.mark.parametrize("family", LANGUAGE)
def test_a_search_step_takes_the_best_of_all_swaps(family):
    """With every pair of position and token tried, the step is the best single swap there is."""
    subject = LANGUAGE[family]()
    vectors, table = start_vectors(subject, FIT), embeddings(subject)[:40]
    (v,) = vectors.values()
    start = v.detach().clone()
    ids = torch.arange(len(v)) % 40

    def loss(generator: torch.Generator):
        return -subject.log_probs(PAIRS).mean.mean()

    with with_vectors(subject, vectors):
        v.data.copy_(table[ids])
        begun = v.detach().clone()
        every = []
        for place, token in itertools.product(range(len(v)), range(len(table))):
            v.data.copy_(begun)
            v.data[place] = table[token]
            every.append(read(subject))
        v.data.copy_(begun)
        with with_gradients([v]):
            reached = swap(v, ids, table, loss, torch.Generator().manual_seed(0), 10_000, 10_000)
        assert reached == pytest.approx(min(every), abs=1e-4) and read(subject) == pytest.approx(reached, abs=1e-4)
        assert torch.equal(v.detach(), table[ids]) and not torch.equal(v.detach(), start)


@pytest.mark.slow
@pytest.mark.parametrize(
    "attack", [SoftPrefix(LOOKS, SAMPLING, filler=FILLER, rate=0.2), PrefixSearch(LOOKS, SAMPLING, filler=FILLER)]
)
def test_what_is_learned_makes_answers_likelier(attack, monkeypatch):
    subject, seen = tiny_llama(), []
    generate = subject.generate
    monkeypatch.setattr(subject, "generate", lambda q, s=SAMPLING: (seen.append(read(subject)), generate(q, s))[1])
    attempt = attack(subject, CONCEPT, Budget(queries=16, gradient_steps=20, examples=2))
    assert [x for x, _ in attempt.curve] == [0, 10, 20] and attempt.control is not None
    assert seen[2] < seen[0] and seen[2] < seen[3]  # the last is the random candidate's
    assert attempt.spent.gradient_steps == 20 and attempt.spent.examples == 2
    facts = {p.fact for p, _ in answers_of(CONCEPT, Budget())}
    assert not facts & {t.query.prompt.fact for part in attempt.trials for t in part}


def test_a_model_of_pictures_is_refused():
    with pytest.raises(TypeError, match="answers with pictures"):
        SoftPrefix(tiny_recogniser())(tiny_sd(), tiny_concept(), Budget())


def test_random_tokens_are_rows_of_the_table():
    subject = tiny_llama()
    learned = start_vectors(subject, FIT)
    attack = PrefixSearch(LOOKS)
    made = attack.random(AttackRun.start(attack, subject, CONCEPT, Budget(), None), learned)
    table = embeddings(subject)
    for site, v in made.items():
        assert isinstance(v, nn.Parameter) and v.shape == learned[site].shape
        assert all(bool((table == row).all(1).any()) for row in v.detach())
