"""What an audit of a language model reads inside: columns put back, states put in, features, the last token."""

from __future__ import annotations

import pytest
import torch

from concept_probe import detect
from concept_probe.activations import read_texts, tap
from concept_probe.auditing import audit
from concept_probe.auditing.evidence.vectors_put_back import put_back
from concept_probe.auditing.places import Places
from concept_probe.auditing.states import end_states, identical, putting
from concept_probe.auditing.watch import Watching
from concept_probe.detect.answers import GoldAnswers
from concept_probe.erasers import AblateVectors
from concept_probe.evaluation.trials import judge_answers
from concept_probe.testing.concepts import tiny_concept, tiny_recogniser
from concept_probe.testing.models.language import LANGUAGE
from concept_probe.types import Concept, Prompt, Query, Sampling, Score, Site, Splits, Subspace
from tests.auditing.language_cases import CONCEPT, PLAN, SAMPLING, features_of, finding


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_columns_are_followed_however_a_matrix_is_stored(family):
    """Zeroed columns are gone: cosine 0, L2 1, other tokens; put back alone they answer as before."""
    subject = LANGUAGE[family]()
    one = Score("made by the test", 1, 1, 1, 1)
    sites = [Site(s.component, s.path, "weight", j) for s in subject.sites("mlp_value") for j in (3, 8)]
    found = [
        Subspace(s, subject.matrix(s).detach()[:, s.item, None].clone(), "parameter", one, "cat", "mlp_value")
        for s in sites
    ]
    edit = AblateVectors()(subject, CONCEPT, found)
    weights = subject.weight_hash()
    report = audit(subject, edit, CONCEPT, found=found, plan=PLAN)
    assert subject.weight_hash() == weights
    for site in sites:
        turned, far = (finding(report, m, str(site)) for m in ("cosine with before", "relative L2 from before"))
        assert turned.after == pytest.approx(0, abs=1e-6) and far.after == pytest.approx(1)
        assert turned.control == pytest.approx(1) and far.control == 0  # columns that were not found stay
    jaccard = finding(report, "Jaccard index of the tokens that the vectors promote most", "4 vectors")
    assert jaccard.after < 0.5 and jaccard.control is not None and jaccard.control < 0.5
    assert finding(report, "detection with the concept vectors alone put back", "target").control is not None
    checkpoint = LANGUAGE[family]()
    edit.bake(checkpoint)
    released = audit(checkpoint, None, CONCEPT, original=subject, found=found, plan=PLAN)
    again = [f for f in released.findings if f.evidence == "parameters"]
    assert again == [f for f in report.findings if f.evidence == "parameters"]  # a checkpoint is what the edit makes
    originals = {Site(s.component, s.path, s.side): subject.matrix(s).detach().clone() for s in sites}
    with edit.on(subject), put_back(subject, originals, found):
        for whole, matrix in originals.items():
            torch.testing.assert_close(subject.matrix(whole), matrix)


@pytest.mark.parametrize("family", LANGUAGE)
def test_states_put_into_their_own_model_change_no_text_and_those_of_another_prompt_give_its_first_token(family):
    """Prompts of unequal length, so that the batch is filled up; the last block's output decides the next token."""
    subject = LANGUAGE[family]()
    queries = (Query(Prompt("a cat in")), Query(Prompt("see the red dog")))
    prompts, site = [q.prompt for q in queries], subject.sites("resid")[-1]
    own = read_texts(subject, prompts, [site])
    assert [len(x) for x in own[site]] == subject.tokenise(prompts).masks[0].sum(1).tolist()
    plain = subject.generate(queries, SAMPLING)
    with tap(subject, putting(own, queries)):
        assert subject.generate(queries, SAMPLING) == plain
    same_length = (Query(Prompt("a cat in")), Query(Prompt("a dog in")))
    of = read_texts(subject, [q.prompt for q in same_length], [site])
    assert not identical(of[site], of[site][::-1])
    logits = subject.next_logits([q.prompt for q in same_length])
    with tap(subject, putting({site: of[site][::-1]}, same_length)):
        torch.testing.assert_close(subject.next_logits([q.prompt for q in same_length]), logits.flip(0))


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_firing_depends_on_neither_the_batch_nor_what_is_written(family):
    """A prompt alone, and beside a longer one, so that the batch is filled up; with one token written, and with three."""
    subject = LANGUAGE[family]()
    spots = Places((), (), (), features_of(subject))
    asked = [Query(Prompt("a cat in")), Query(Prompt("see the red dog and the cat in the sun"))]

    def fired(queries, tokens: int) -> torch.Tensor:
        watch = Watching(subject, spots)
        with watch.on(0):
            subject.generate(queries, Sampling(tokens=tokens))
        return watch.firing(len(queries))[0][0]

    alone = fired(asked[:1], 1)
    assert alone.any()
    torch.testing.assert_close(fired(asked, 3), alone)


@pytest.mark.parametrize("family", LANGUAGE)
def test_the_last_token_is_what_is_read(family):
    subject = LANGUAGE[family]()
    prompts, site = [Prompt("a cat in"), Prompt("see the red dog")], subject.sites("resid")[0]
    whole = read_texts(subject, prompts, [site])[site]
    found = end_states(subject, prompts, [site])[site]
    torch.testing.assert_close(found, torch.stack([x[-1] for x in whole]))


def test_gold_answers_read_right_ones_mistakes_and_nothing():
    mine = Prompt("the capital is", None, "x", answers=("Harlow",), distractors=("Milton",))
    other = Prompt("the capital of France is", None, "y", answers=("Paris",))
    looks = GoldAnswers.of(Concept("x", Splits(test=(mine,)), unrelated=Splits(test=(other,))))
    assert looks.labels == ("x", "y", "none")
    queries = [Query(mine), Query(mine), Query(other), Query(other), Query(other)]
    texts = ["Harlow.", "Milton or Harlow", "Paris", "Harlow", "London"]
    assert [t.seen for t in judge_answers(looks, texts, queries)] == ["x", "none", "y", "x", "none"]
    assert [t.probability for t in looks.read(texts, queries, "x")] == [1, 0, 0, 1, 0]
    with pytest.raises(ValueError, match="has no answers or no label"):
        GoldAnswers.of(Concept("x", Splits(test=(Prompt("bare"),))))
    with pytest.raises(TypeError, match="can't judge texts"):
        judge_answers(tiny_recogniser(), texts, queries)
    with pytest.raises(TypeError, match="can't judge pictures"):
        judge_answers(looks, torch.rand(5, 3, 8, 8), queries)
    assert detect.judge_for(tiny_concept().__class__("camel", Splits(test=(Prompt("a camel", "camel", "camel"),)))).name
