"""Columns of a language model are kept only if its answers need them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from concept_probe.activations import capture, tap
from concept_probe.evaluation.rates import per_fact
from concept_probe.find.language.columns import LmRanking, WeighedPrompts, find_lm_columns, search_lm_columns
from concept_probe.find.language.enrichment import NoTokens, enriched_columns
from concept_probe.find.language.knowledge import log_odds, weigh
from concept_probe.find.language.ranking import rank_by_effect, rank_by_reading
from concept_probe.find.vectors.columns import matrix_site, zero_columns
from concept_probe.registry import UnknownName
from concept_probe.testing.models.language import LANGUAGE
from concept_probe.types import SPLITS, Concept, Prompt, Split, Splits

PLANTED = (3, 11, 20, 33)
LAYER = 1


def splits(subject, answer, wrong, *texts) -> Splits:
    asked = [Prompt(t, subject, subject, "plain", (answer,), (wrong,)) for t in texts]
    third = len(asked) // 3
    return Splits(*(tuple(asked[i * third : (i + 1) * third]) for i in range(3)))


CONCEPT = Concept(
    "cat",
    target=splits("cat", "sun", "red", "my cat", "old cat", "big cat", "one cat", "a cat", "fat cat"),
    unrelated=splits("dog", "the", "red", "my dog", "old dog", "big dog", "one dog", "a dog", "fat dog"),
)


def final_rows(subject, prompts):
    """What the feed-forward of the last layer reads at the last token of each prompt, (n, d)."""
    seen = []
    up = subject.model.transformer.h[LAYER].mlp.c_fc
    handle = up.register_forward_pre_hook(lambda _m, args: seen.append(args[0][0, -1].detach()))
    try:
        for p in prompts:
            subject.next_logits([p])
    finally:
        handle.remove()
    return torch.stack(seen)


@pytest.fixture
def subject():
    """A tiny GPT-2 that answers "sun" after "cat" because four columns say so, and after "dog" does not."""
    subject = LANGUAGE["gpt2"]()
    own, others = list(CONCEPT.target), list(CONCEPT.unrelated)
    rows = final_rows(subject, [*own, *others])
    goal = torch.tensor([4.0] * len(own) + [-4.0] * len(others))
    probe = torch.linalg.lstsq(torch.cat([rows, torch.ones(len(rows), 1)], 1), goal[:, None]).solution[:, 0]
    mlp = subject.model.transformer.h[LAYER].mlp
    word = subject.tokenizer(" sun").input_ids[0]
    direction = subject.matrix(subject.sites("unembed")[0]).detach()[word]
    columns = subject.matrix(subject.sites("mlp_value")[LAYER]).detach()
    for j in PLANTED:
        mlp.c_fc.weight.data[:, j], mlp.c_fc.bias.data[j] = probe[:-1], probe[-1]
        columns[:, j] = 0.5 * direction
    return subject


def test_the_plant_works(subject):
    own, others = list(CONCEPT.target), list(CONCEPT.unrelated)
    before = log_odds(subject, [*own, *others])
    site = subject.sites("mlp_value")[LAYER]
    with zero_columns(subject, {site: list(PLANTED)}):
        after = log_odds(subject, [*own, *others])
    drops = before - after
    assert float(drops[: len(own)].mean()) > 3 * float(drops[len(own) :].abs().mean()) + 1


def test_planted_columns_are_ranked_first_and_are_exactly_what_is_kept(subject):
    search = search_lm_columns(subject, CONCEPT, LmRanking("reading"), counts=(4, 8))
    assert {(s.path, s.item) for s in search.ranked.sites[:4]} == {
        (subject.sites("mlp_value")[LAYER].path, j) for j in PLANTED
    }
    rung = search.removals[0]
    assert rung.count == 4 and rung.causal and rung.drop.value > 1 and rung.drop.n == 2 and rung.odds.low > 1
    by_odds = rank_by_effect(subject, CONCEPT, on="odds")
    assert set(by_odds.sites[:4]) == set(search.ranked.sites[:4])
    found = find_lm_columns(subject, CONCEPT)
    assert len(found) >= 2
    for f in found:
        assert (f.space, f.role, f.concept, f.rank) == ("parameter", "mlp_value", "cat", 1)
        assert torch.equal(f.basis[:, 0], subject.matrix(matrix_site(f.site))[:, f.site.item])
        assert f.score.low > 0 and f.scores[0].control is not None and f.scores[0].value > f.scores[0].control


@pytest.mark.slow
def test_nothing_is_kept_where_no_answer_changes(subject):
    """The columns still speak of the concept, but what they write is taken out again before it is read."""
    plain = search_lm_columns(subject, CONCEPT, LmRanking("reading"), counts=(4,))
    (norm,) = subject.sites("text_out")
    constant = torch.zeros(16)
    with tap(subject, {norm: lambda x, moment: x * 0 + constant}):
        silent = search_lm_columns(subject, CONCEPT, LmRanking("reading"), counts=(4,))
        assert find_lm_columns(subject, CONCEPT) == ()
    assert plain.chosen() is not None
    assert silent.enriched is not None and plain.enriched is not None
    assert silent.enriched.sites == plain.enriched.sites
    assert silent.removals[0].drop.value == 0 and silent.chosen() is None


def test_a_concept_without_tokens_of_its_own_is_looked_for_by_its_answers_alone(subject):
    """Other prompts say each of its words, so no column can be said to speak of it; that is no reason to give up."""
    shared = ("my dog cat sun", "old dog cat sun", "big dog cat sun", "one dog", "a dog", "fat dog")
    plain = replace(CONCEPT, unrelated=splits("dog", "the", "red", *shared))
    with pytest.raises(NoTokens, match="every token of its fit prompts also stands in other prompts"):
        search_lm_columns(subject, plain, LmRanking("reading"))
    (norm,) = subject.sites("text_out")
    constant = torch.zeros(16)
    with tap(subject, {norm: lambda x, moment: x * 0 + constant}):
        assert find_lm_columns(subject, plain) == ()


def test_only_discovered_columns_are_candidates(subject):
    enriched = enriched_columns(subject, CONCEPT)
    ranked = rank_by_reading(subject, CONCEPT, enriched)
    found = enriched.discovered()
    assert int(torch.isfinite(ranked.scores).sum()) == found < 80
    assert set(ranked.sites[:found]) == set(enriched.sites[:found]) and len(ranked.sites) == 80
    none = search_lm_columns(subject, CONCEPT, LmRanking("reading", rate=0.0))
    assert none.removals == () and none.chosen() is None


def test_load_is_the_mean_size_of_what_a_column_adds(subject):
    enriched = enriched_columns(subject, CONCEPT)
    ranked = rank_by_reading(subject, CONCEPT, enriched)
    site = next(s for s in ranked.sites if s.item == PLANTED[0] and s.path == subject.sites("mlp_value")[LAYER].path)
    prompts = [*CONCEPT.target.fit, *CONCEPT.unrelated.fit]
    block = capture(subject, prompts, roles=["mlp_hidden"])
    hidden = block.read(subject.sites("mlp_hidden")[LAYER])
    each = [hidden.x[hidden.columns["prompt"] == i][:, site.item].abs().mean() for i in range(len(prompts))]
    length = torch.linalg.vector_norm(subject.matrix(subject.sites("mlp_value")[LAYER])[:, site.item])
    assert float(ranked.load[ranked.sites.index(site)]) == pytest.approx(
        float(torch.stack(each).mean() * length), rel=1e-4
    )


def test_random_columns_are_of_the_same_layers(subject):
    search = search_lm_columns(subject, CONCEPT, counts=(4,))
    drawn = search.ranked.matched(range(4), torch.Generator().manual_seed(0))
    assert {search.ranked.sites[i].path for i in drawn} == {search.ranked.sites[i].path for i in range(4)}
    assert not set(drawn) & set(range(4))


def test_prompts_without_answers_cannot_be_judged(subject):
    bare = Concept("cat", target=Splits(*(tuple(Prompt(p.text) for p in getattr(CONCEPT.target, s)) for s in SPLITS)),
                   unrelated=CONCEPT.unrelated)  # fmt: skip
    split: Split = "select"
    with pytest.raises(ValueError, match="no prompts with answers and distractors in target, paraphrases, implicit"):
        search_lm_columns(subject, bare, asked=WeighedPrompts(split))


def test_wordings_of_one_fact_count_once(subject):
    asked = [replace(p, fact="one") for p in CONCEPT.target.select] + list(CONCEPT.unrelated.select)
    assert per_fact(torch.tensor([1.0, 3.0, 5.0, 7.0]), asked).tolist() == [2.0, 5.0, 7.0]
    once = replace(CONCEPT, target=replace(CONCEPT.target, select=tuple(asked[:2])))
    worded = search_lm_columns(subject, once, counts=(4,)).removals[0]
    plain = search_lm_columns(subject, CONCEPT, counts=(4,)).removals[0]
    assert (worded.drop.n, plain.drop.n) == (1, 2)
    assert worded.drop.value == pytest.approx(plain.drop.value) and worded.drop.low == worded.drop.high
    assert plain.causal and not worded.causal


@pytest.mark.slow
@pytest.mark.parametrize("name,on", [("llama", "answers"), ("gpt2", "answers"), ("gpt2", "odds")])
def test_what_answers_owe_to_a_column_is_what_zeroing_takes_to_first_order(name, on):
    """Columns are made short, so that what is owed is nearly linear in each."""
    subject = LANGUAGE[name]()
    for site in subject.sites("mlp_value"):
        subject.matrix(site).detach().mul_(0.1)
    ranked = rank_by_effect(subject, CONCEPT, on=on)
    assert ranked.effect == ("odds" if on == "odds" else "attribution")
    assert len(set(ranked.sites)) == 80 and bool((ranked.scores.diff() <= 0).all())
    own, others = CONCEPT.target.fit, CONCEPT.unrelated.fit

    @torch.no_grad()
    def measured() -> torch.Tensor:
        weighed = weigh(subject, [*own, *others])
        return (weighed.odds if on == "odds" else weighed.right).double()

    before, exact = measured(), []
    for site in ranked.sites:
        with zero_columns(subject, {matrix_site(site): [site.item or 0]}):
            fell = before - measured()
        mine, theirs = fell[: len(own)], fell[len(own) :]
        error = (mine.var() / len(mine) + theirs.var() / len(theirs)).sqrt()
        exact.append(mine.mean() - theirs.mean() - 2 * error)
    found = torch.stack(exact)
    assert float(torch.corrcoef(torch.stack([found, ranked.scores.double()]))[0, 1]) > 0.99


def test_the_other_ranking_is_searched_alike(subject):
    search = search_lm_columns(subject, CONCEPT, LmRanking("attribution"), counts=(4, 8))
    assert (search.ranked.effect, search.enriched, [r.count for r in search.removals]) == ("attribution", None, [4, 8])
    by_reading, by_effect = rank_by_reading(subject, CONCEPT, enriched_columns(subject, CONCEPT)), search.ranked
    for site, load in zip(by_effect.sites, by_effect.load.tolist(), strict=True):
        assert load == pytest.approx(float(by_reading.load[by_reading.sites.index(site)]), rel=1e-4)
    assert search_lm_columns(subject, CONCEPT, LmRanking("odds"), counts=(4,)).ranked.effect == "odds"
    with pytest.raises(UnknownName, match="what is owed to columns"):
        rank_by_effect(subject, CONCEPT, on="odd")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="by is 'read'; it is one of reading, attribution, odds"):
        LmRanking("read")  # pyright: ignore[reportArgumentType]
