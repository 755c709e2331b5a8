"""What ESD and its kin lead a prompt to: the opposite of what it said, reckoned from the empty prompt or an anchor."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from concept_probe.erasers import AdversarialPreservation, AdvUnlearn, Esd, Receler, Training
from concept_probe.erasers.closed_form.destinations import destinations_of
from concept_probe.erasers.finetune.negative_guidance import negative_guidance_target, negative_guidance_term
from concept_probe.erasers.training.replay import collect, predictions
from concept_probe.testing.concepts import tiny_concept
from concept_probe.testing.models.diffusion import tiny_sd
from concept_probe.types import Prompt, Sampling, Splits

CONCEPT = tiny_concept()
SAMPLING = Sampling(steps=3, guidance=2.0, batch=8)
SHORT = Training(steps=8, batch=4, pictures=2, sampling=SAMPLING)


@pytest.fixture(scope="module")
def met():
    """A subject, latents of two walks of its own, and what it says there of prompts in place of those walked."""
    subject = tiny_sd()
    pool = collect(subject, CONCEPT.target.fit[:2], 2, SAMPLING, 0)

    def said(put: dict[Prompt, str]) -> torch.Tensor:
        return predictions(subject, pool, [Prompt(put.get(p, p.text)) for p in pool.prompts])

    return subject, pool, said


def test_the_goal_is_the_papers(met):
    subject, pool, said = met
    empty = said(dict.fromkeys(pool.prompts, ""))
    torch.testing.assert_close(negative_guidance_target(subject, pool, 1.7), empty - 1.7 * (said({}) - empty))


def test_an_anchor_takes_the_place_of_the_base_alone(met):
    subject, pool, said = met
    stands = destinations_of(CONCEPT.target.fit, CONCEPT, None, "esd")
    empty, anchor = said(dict.fromkeys(pool.prompts, "")), said({p: g.text for p, g in stands.items()})
    lesson = negative_guidance_term(subject, CONCEPT, CONCEPT.target.fit, 1.7, "anchor", "esd")
    torch.testing.assert_close(lesson.target(pool), anchor - 1.7 * (said({}) - empty))
    torch.testing.assert_close(
        negative_guidance_term(subject, CONCEPT, CONCEPT.target.fit, 0.0, "anchor", "esd").target(pool), anchor
    )
    assert not torch.allclose(anchor, empty, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("made", [Esd, Receler, AdvUnlearn, AdversarialPreservation])
def test_every_method_of_the_kind_has_the_choice(made):
    subject = tiny_sd()
    with pytest.raises(ValueError, match="base is 'anchr'; it is one of empty, anchor"):
        made(base="anchr")
    bare = replace(CONCEPT, anchor=Splits((), (), ()))
    with pytest.raises(ValueError, match=f"{made.name}: concept 'cat' has no anchor prompts"):
        made(base="anchor")(subject, bare)


@pytest.mark.slow
def test_what_is_trained_depends_on_the_base_and_the_erasure_says_which():
    subject = tiny_sd()
    edits = [Esd(training=SHORT, base=base)(subject, CONCEPT) for base in ("empty", "anchor")]
    assert [e.made_by["options"]["base"] for e in edits] == ["empty", "anchor"]
    (where, *_) = edits[0].deltas
    weight = torch.zeros_like(
        subject.components[where.partition("/")[0]].get_parameter(where.partition("/")[2].replace(":", "."))
    )
    one, other = (e.deltas[where].apply(weight) for e in edits)
    assert not torch.allclose(one, other, rtol=1e-3, atol=0)
