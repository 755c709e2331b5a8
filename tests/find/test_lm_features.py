"""Features of language models: planted ones are found in every layout, and the first position decides nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from concept_probe.activations import tap
from concept_probe.families.text.kinds import NAMED_KINDS
from concept_probe.find import concept_rows, find_features
from concept_probe.find.features.contrast import mean_firing
from concept_probe.find.rows import RowQuery
from concept_probe.learn.sae import Relu, Sae
from concept_probe.testing.models.language import LANGUAGE, LM_WIDTH, tiny_gpt2, tiny_llama
from concept_probe.types import SUBJECT, TOKEN_KINDS, Concept, Prompt, Site, Splits

TEXTS = ("see the {} in", "a {} and", "my {} is red", "one {} on", "her {} the sun", "old {} was")


def about(word: str) -> Splits:
    own = [t.format(word) for t in TEXTS]
    return Splits(*(tuple(Prompt(text + more, word, word) for text in own) for more in ("", " and", " now")))


CONCEPT = Concept("cat", about("cat"), neighbours=about("dog"), unrelated=about("sun"))


def planted(subject, site: Site, kinds: tuple[str, ...] = ("subject",)) -> Sae:
    """Feature 7 fires where least squares on the fit split say the concept's subject; the others never do."""
    rows = concept_rows(subject, CONCEPT, [site], which=RowQuery(kinds))[site]
    padded = torch.cat([rows.x, torch.ones(len(rows.x), 1)], 1)
    ours = rows.concept & (rows.kind == SUBJECT)
    probe = torch.linalg.pinv(padded) @ (2 * ours.float() - 1)
    encoder, bias = torch.zeros(LM_WIDTH, 16), torch.full((16,), -1.0)
    encoder[:, 7], bias[7] = probe[:-1], probe[-1]
    return Sae(site, Relu(), W_enc=encoder, b_enc=bias, W_dec=torch.eye(16, LM_WIDTH), b_dec=torch.zeros(LM_WIDTH))


@pytest.mark.slow
@pytest.mark.parametrize("role", ["resid", "mlp_out"])
@pytest.mark.parametrize("family", LANGUAGE)
def test_a_planted_feature_is_found_and_told_from_shuffled_labels(family: str, role: str):
    subject = LANGUAGE[family]()
    site = subject.sites(role)[0]
    (space,) = find_features(
        planted(subject, site), subject, CONCEPT, which=RowQuery(("subject",)), formula="mean", count=1
    )
    (score,) = space.scores
    assert space.features == (7,) and space.role == role
    assert score.control is not None and score.value > score.control > 0.5


def test_the_same_prompts_on_both_sides_give_nothing():
    subject = tiny_llama()
    same = replace(CONCEPT, target=CONCEPT.unrelated, neighbours=CONCEPT.unrelated)
    assert find_features(planted(subject, subject.sites("resid")[0]), subject, same) == ()


@pytest.mark.slow
def test_a_first_position_of_any_length_changes_neither_rows_nor_features():
    """Without a begin mark the first position holds a word; here it is made a thousand times as long."""
    subject = tiny_gpt2()
    site = subject.sites("resid")[0]
    prompts = [p for split in (CONCEPT.target, CONCEPT.neighbours, CONCEPT.unrelated) for p in split.fit]
    rows, whole = (concept_rows(subject, CONCEPT, [site], which=RowQuery(k))[site] for k in (NAMED_KINDS, TOKEN_KINDS))
    tokens = [int(subject.tokenise([p]).masks[0].sum()) for p in prompts]
    assert len(whole.x) == sum(tokens) and len(rows.x) == sum(tokens) - len(prompts)
    sae = planted(subject, site)
    before = find_features(sae, subject, CONCEPT, count=2), mean_firing(sae, subject, CONCEPT, [7])

    def lengthen(x, moment):
        return torch.where((moment.places == 0)[..., None], 1000 * x, x)

    with tap(subject, {site: lengthen}):
        after = find_features(sae, subject, CONCEPT, count=2), mean_firing(sae, subject, CONCEPT, [7])
    assert before[0][0].features == after[0][0].features and before[0][0].scores == after[0][0].scores
    assert torch.equal(before[1], after[1])
