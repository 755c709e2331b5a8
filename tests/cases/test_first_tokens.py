"""Nothing is learned from the first token of a text that is read forward, unless it is asked for."""

from __future__ import annotations

import pytest
import torch

from concept_probe.activations import Activations, Live, Prefetched, capture
from concept_probe.learn import TrainingOptions, evaluate_sae, train_sae
from concept_probe.learn.train.recipe import default_site, train_on_subject
from concept_probe.learn.train.source import open_source
from concept_probe.testing.models import TINY_MODELS
from concept_probe.types import TOKEN_KINDS, Prompt

WORDS = ["the", "cat", "sun", "red", "dog", "bird", "sea", "hat", "big", "old"]
TEXTS = [Prompt(" ".join(WORDS[i % 7 : i % 7 + 2 + i % 3]) + f" {WORDS[i % 10]}") for i in range(24)]


@pytest.fixture(scope="module", params=["llama", "gpt2"])
def subject(request):
    return TINY_MODELS[request.param]()


def sorted_rows(x):
    return x[torch.argsort(x[:, 0])]


def test_training_and_judging_leave_first_tokens_out(subject, tmp_path):
    site = default_site(subject)
    store = capture(subject, TEXTS, sites=[site], folder=tmp_path / "store")
    block = store.read(site)
    behind = block.x[block.columns["token"] != 0]
    assert 0 < len(behind) < len(block.x)
    learned = Activations.open(tmp_path / "store").learnable()
    assert learned.rows(site) == len(behind) and torch.equal(learned.read(site).x, behind)
    for source in (store, Prefetched(store)):
        _, batches = open_source(source, [site], len(behind), 0)
        stream = batches(0)
        torch.testing.assert_close(sorted_rows(next(stream)[site]), sorted_rows(behind))
        stream.close()
    assert torch.equal(torch.cat([b.x for b in learned.blocks(site)]), behind)
    drawn = next(learned.batches(site, len(behind), window=None))
    torch.testing.assert_close(sorted_rows(drawn), sorted_rows(behind))
    sae = train_sae(store, site=site, k=2, expansion=2, samples=64 * 8, options=TrainingOptions(batch=64))
    assert sae.made_by["weight_hash"] == subject.weight_hash() and sae.made_by["first_token"] == "left out"


def test_who_asks_for_first_tokens_gets_them(subject):
    site = default_site(subject)
    store = capture(subject, TEXTS, sites=[site], kinds=TOKEN_KINDS)
    assert store.learnable() is store
    assert TINY_MODELS["sd"]().reads_forward is False


def test_live_rows_are_those_that_are_learned_from(subject):
    site = default_site(subject)
    learned = capture(subject, TEXTS, sites=[site]).learnable()
    live = Live(subject, TEXTS, sites=[site])
    assert live.rows(site) == learned.rows(site)
    drawn = next(live.batches(site, learned.rows(site), epochs=1))
    torch.testing.assert_close(sorted_rows(drawn), sorted_rows(learned.read(site).x), rtol=1e-4, atol=1e-5)


def test_one_call_leads_from_a_language_model_to_a_dictionary(subject):
    site = default_site(subject)
    assert site in subject.sites("resid")
    sae = train_on_subject(subject, TEXTS, site, k=2, expansion=2, samples=2048)
    held = capture(subject, [Prompt("the old sea"), Prompt("big red bird sun")], sites=[site])
    scores = {score.name: score.value for score in evaluate_sae(sae, held)}
    assert 0 <= scores["fvu"] < 2
