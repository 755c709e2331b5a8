"""ROCR: which keys it moves, the closed form against one worked out by hand, and that what was moved stays."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from concept_probe.activations import read_site
from concept_probe.erasers import LowRank, Rocr
from concept_probe.erasers.closed_form.rocr import renamed
from concept_probe.erasers.closed_form.subject_keys import at_places, last_of_subject
from concept_probe.erasers.unlearning.activations import after_first_token
from concept_probe.testing.concepts import tiny_facts
from concept_probe.testing.models.diffusion import tiny_sd
from concept_probe.testing.models.language import LANGUAGE, tiny_llama
from concept_probe.types import Prompt, Splits

CONCEPT = tiny_facts()
MOVED = list(CONCEPT.target.fit)
LED = [renamed(p, "dog") for p in MOVED]
KEPT = list({p.text: p for p in (*CONCEPT.neighbours.fit, *LED)}.values())
MANY = tuple(Prompt(f"{a} {b} of the dog {c}", "dog") for a in "ghijklmn" for b in "pqrs" for c in "uvw")
families = pytest.mark.parametrize("family", LANGUAGE)


@families
def test_one_key_for_all_phrasings_is_led_to_what_the_block_gives_at_the_other_name(family):
    """In the directions that kept keys hardly have, and as far as λ lets it."""
    subject = LANGUAGE[family]()
    subject.model.double()
    edit = Rocr(layers=(0,), guide="dog", lam=0.25)(subject, CONCEPT)
    hidden, end, value = (subject.sites(role)[0] for role in ("mlp_hidden", "resid", "mlp_value"))
    own, other = last_of_subject(subject, MOVED), last_of_subject(subject, LED)
    key = at_places(subject, hidden, MOVED, own).mean(0)
    gap = at_places(subject, end, LED, other).mean(0) - at_places(subject, end, MOVED, own).mean(0)
    with torch.no_grad():
        x, read = read_site(subject, hidden, KEPT)
    kept = x[after_first_token(read)]
    values, vectors = torch.linalg.eigh(kept.mT @ kept)
    inside = vectors[:, values.clamp_min(0).cumsum(0) <= 0.03 * values.sum()]
    free = inside @ (inside.mT @ key)  # the key without what kept keys are made of
    told = edit.made_by["solved"][str(value)]
    assert told["directions"] == inside.shape[1] > 0 and told["residual"] < 1e-9
    found = edit.deltas["model/" + value.path + ":weight"]
    assert isinstance(found, LowRank) and found.u.shape[1] == 1
    # ΔW = r (P k)ᵀ / (|P k|² + λ |P k|²), as the one key is its own mean.
    wanted = torch.outer(gap, free) / (1.25 * free.square().sum())
    torch.testing.assert_close(found.u @ found.v.mT, wanted, atol=1e-8, rtol=1e-5)
    assert edit.made_by["gap_left"][0] == pytest.approx(0.2, abs=1e-6)
    drift = (kept @ found.v @ found.u.mT).norm() / (kept @ subject.matrix(value).mT).norm()
    assert told["preserved_drift"] == pytest.approx(float(drift), rel=1e-5)


@families
def test_several_blocks_close_the_gap_between_them(family):
    subject = LANGUAGE[family]()
    end = subject.sites("resid")[1]

    def given(prompts: list[Prompt]) -> torch.Tensor:
        return at_places(subject, end, prompts, last_of_subject(subject, prompts)).mean(0)

    own, goal = given(MOVED), given(LED)
    edit = Rocr(layers=(0, 1), guide="dog", lam=0.05)(subject, CONCEPT)
    assert [d.u.shape[1] for d in edit.deltas.values() if isinstance(d, LowRank)] == [1, 1]
    with edit.on(subject):
        left = float((given(MOVED) - goal).norm() / (own - goal).norm())
    assert left == pytest.approx(edit.made_by["gap_left"][0], abs=1e-3) and left < 0.3


def test_phrasings_may_have_keys_of_their_own():
    subject = tiny_llama()
    edit = Rocr(layers=(0,), guide="dog", each=True)(subject, CONCEPT)
    (found,) = edit.deltas.values()
    assert isinstance(found, LowRank) and found.u.shape[1] == len(MOVED)


def test_a_second_concept_leaves_what_the_first_was_led_to():
    """Keys of the first concept stand in the solve of the second: without them it is moved again."""
    subject, sun = tiny_llama(), tiny_facts("sun", "old road")
    first, end = Rocr(layers=(0,), guide="dog"), subject.sites("resid")[0]

    def given() -> torch.Tensor:
        return at_places(subject, end, MOVED, last_of_subject(subject, MOVED)).mean(0)

    alone = first(subject, CONCEPT)
    with alone.on(subject):
        led = given()
        apart = first(subject, sun)
        with apart.on(subject):
            without = float((given() - led).norm())
    both = first.together(subject, [CONCEPT, sun])
    with both.on(subject):
        held = float((given() - led).norm())
    assert both.made_by["gap_left"][0] == alone.made_by["gap_left"][0] and len(both.made_by["gap_left"]) == 2
    assert both.concept == "cat+sun" and both.made_by["prompts_seen"] != alone.made_by["prompts_seen"]
    assert held < without / 2


def test_which_name_stands_in():
    assert Rocr().other_name(CONCEPT) == "dog"
    assert Rocr(guide=" sun ").other_name(CONCEPT) == "sun"
    anchored = replace(CONCEPT, anchor=Splits(fit=(Prompt("a tree", "tree"),)))
    assert Rocr().other_name(anchored) == "tree"
    chat = Prompt("Who is the cat?", "cat", form="chat", answers=("red",))
    assert renamed(chat, "dog") == Prompt("Who is the dog?", "dog", form="chat")
    assert renamed(Prompt("My catalogue of a cat", "cat"), "dog").text == "My catalogue of a dog"
    assert renamed(Prompt("Cat food for a cat", "cat"), "dog").text == "dog food for a dog"
    edit = Rocr()(tiny_llama(), CONCEPT)
    assert edit.made_by["guide"] == "dog" and edit.made_by["layers"] == [0]


def test_what_cannot_be_redirected_is_refused():
    subject = tiny_llama()
    before = subject.weight_hash()
    with pytest.raises(TypeError, match="answer with texts"):
        Rocr()(tiny_sd(), CONCEPT)
    nameless = Splits(fit=tuple(replace(p, subject=None) for p in CONCEPT.target.fit))
    with pytest.raises(ValueError, match="that name their subject in target, paraphrases, found 0"):
        Rocr()(subject, replace(CONCEPT, target=nameless))
    with pytest.raises(ValueError, match="to keep, found 0"):
        Rocr()(subject, replace(CONCEPT, neighbours=Splits()))
    silent = Splits(fit=tuple(replace(p, subject=None) for p in CONCEPT.neighbours.fit))
    with pytest.raises(ValueError, match="has 0 fit prompts of anchors or neighbours that name"):
        Rocr()(subject, replace(CONCEPT, neighbours=silent))
    with pytest.raises(ValueError, match="a name that stands in"):
        Rocr(guide=" ")(subject, CONCEPT)
    with pytest.raises(ValueError, match=r"rocr: layers are .* rising numbers of blocks"):
        Rocr(layers=(1, 0))(subject, CONCEPT)
    with pytest.raises(ValueError, match=r"lam is 0\.0; it is the weight of a small change"):
        Rocr(lam=0.0)(subject, CONCEPT)
    with pytest.raises(ValueError, match=r"kept keys fill all 40 directions, so null=0\.0 leaves none"):
        Rocr(null=0.0, layers=(0,))(subject, replace(CONCEPT, neighbours=Splits(fit=MANY)))
    with pytest.raises(ValueError, match=r"leaves \d+% of the way .* lower `lam`, raise `null`"):
        Rocr(lam=10.0)(subject, CONCEPT)
    assert subject.weight_hash() == before
