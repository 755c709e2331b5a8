"""Adversarial preservation: whom the search finds, what is kept then, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from concept_probe.erasers import AdversarialPreservation, Training
from concept_probe.erasers.erasure.deltas import LowRank
from concept_probe.erasers.erasure.edit import Edit
from concept_probe.erasers.finetune.adversarial_preservation import Adversary
from concept_probe.erasers.finetune.parts import denoiser_parameters
from concept_probe.erasers.training.replay import collect
from concept_probe.testing.concepts import tiny_concept
from concept_probe.testing.models.diffusion import DIFFUSION, tiny_sd
from concept_probe.types import Prompt, Query, Sampling, Splits

CONCEPT = tiny_concept()
SAMPLING = Sampling(steps=3, guidance=2.0, batch=2)
CANDIDATES = (Prompt("a dog"), Prompt("the sun"), Prompt("red red red red red"), Prompt("a thing in the picture"))
SHORT = Training(steps=9, batch=4, pictures=2, sampling=SAMPLING, rate=0.02)


def adversary(subject, worst: int = 1, every: int = 1, weight: float = 2.0) -> Adversary:
    training = Training(batch=4, sampling=SAMPLING, retain=weight, seed=3)
    return Adversary(AdversarialPreservation(worst=worst, every=every, training=training), subject, CANDIDATES)


def harmed(subject, seed: int = 0) -> Edit:
    """An edit of all keys and values, at random."""
    draw, deltas = torch.Generator().manual_seed(seed), {}
    for where in denoiser_parameters(subject, "strict"):
        path = where.partition("/")[2].partition(":")[0]
        d_out, d_in = subject.components["unet"].get_submodule(path).weight.shape
        deltas[where] = LowRank(torch.randn(d_out, 2, generator=draw), torch.randn(d_in, 2, generator=draw))
    return Edit("test", "cat", deltas, subject.weight_hash())


def by_hand(subject, edit: Edit, one: Prompt, steps: list[int], seed: int) -> float:
    """Mean squared change of the prediction for a candidate, on its own walk."""
    pool = collect(subject, [one], 1, SAMPLING, seed)
    total = 0.0
    for i in steps:
        asked = (pool.inputs[i : i + 1], pool.timesteps[i : i + 1])
        with torch.no_grad():
            before = subject.predict(*asked, subject.encode([one]))
            with edit.on(subject):
                total += float((subject.predict(*asked, subject.encode([one])) - before).square().mean())
    return total / len(steps)


@pytest.mark.slow
@pytest.mark.parametrize("family", DIFFUSION)
def test_the_harm_of_each_candidate_is_that_on_its_own_walk(family):
    subject = DIFFUSION[family]()
    opponent, edit = adversary(subject), harmed(subject)
    assert opponent.harm(torch.arange(3)).max() < 1e-9
    with edit.on(subject):
        found = opponent.harm(torch.tensor([0, 2]))
    wanted = [by_hand(subject, edit, p, [0, 2], 3 + i) for i, p in enumerate(CANDIDATES)]
    assert found.tolist() == pytest.approx(wanted, rel=1e-3)


def test_the_search_keeps_the_most_harmed_until_the_next_one():
    subject = tiny_sd()
    opponent, edit = adversary(subject, worst=2, every=2), harmed(subject)
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        opponent(0, draw)
        with edit.on(subject):
            opponent(1, draw)
            assert len(opponent.chosen) == 1
            again = torch.Generator()
            again.set_state(draw.get_state())
            steps = torch.randperm(3, generator=again)[:2]
            opponent(2, draw)
            order = opponent.harm(steps).argsort(descending=True).tolist()
    assert opponent.chosen[1] == order[:2]


def test_the_term_is_the_weighted_error_on_the_kept_candidate_and_its_gradient_autograds():
    subject = tiny_sd()
    opponent, edit = adversary(subject, worst=1, every=5, weight=2.0), harmed(subject)
    draw = torch.Generator().manual_seed(0)
    with edit.on(subject):
        weight = subject.parameter(subject.sites("cross_value_weight")[0])
        weight.requires_grad_(True)
        term = opponent(0, draw)
        (kept,) = opponent.chosen[0]
        again = torch.Generator().manual_seed(0)
        torch.rand(4, generator=again)
        torch.randint(1, (4,), generator=again)
        steps = torch.randint(3, (4,), generator=again).tolist()
        rows = [opponent.rows[kept, s] for s in steps]
        pool = opponent.buffer
        whole = torch.zeros(())
        for j in rows:
            said = subject.predict(pool.inputs[j][None], pool.timesteps[j][None], subject.encode([CANDIDATES[kept]]))
            whole = whole + (said - opponent.own[j]).square().mean() / 4
        torch.testing.assert_close(term, 2 * whole, rtol=1e-4, atol=1e-8)
        (mine,), (plain,) = (torch.autograd.grad(x, [weight]) for x in (term, 2 * whole))
        torch.testing.assert_close(mine, plain, rtol=1e-3, atol=1e-6)
        weight.requires_grad_(False)
    assert float(term.detach()) > 0


@pytest.mark.slow
@pytest.mark.parametrize("family", DIFFUSION)
def test_it_erases_says_what_it_kept_and_touches_nothing(family):
    subject = DIFFUSION[family]()
    weights, before = subject.weight_hash(), subject.generate([Query(CONCEPT.target.test[0])], SAMPLING)
    edit = AdversarialPreservation(candidates=6, worst=2, every=3, training=SHORT)(subject, CONCEPT)
    assert edit.made_by["candidates"] == 6
    assert sum(edit.made_by["kept"].values()) == 3 * 2  # searches at steps 0, 3 and 6
    assert set(edit.made_by["kept"]) <= {
        p.text for kind in ("neighbours", "anchor", "unrelated") for p in CONCEPT.prompts(kind, "fit")
    }
    assert subject.weight_hash() == weights
    with edit.on(subject):
        assert not torch.equal(subject.generate([Query(CONCEPT.target.test[0])], SAMPLING), before)


def test_without_weight_nobody_is_asked():
    edit = AdversarialPreservation(training=replace(SHORT, steps=2, retain=0.0))(tiny_sd(), CONCEPT)
    assert edit.made_by["kept"] == {}


def test_bad_input_is_refused_before_anything_is_trained():
    subject = tiny_sd()
    weights = subject.weight_hash()
    wrongs: list[dict[str, Any]] = [{"every": 0}, {"worst": 0}]
    for wrong in wrongs:
        with pytest.raises(ValueError, match=r"both are 1 or more|worst is 0; it is a whole number from 1 on"):
            AdversarialPreservation(**wrong)(subject, CONCEPT)
    with pytest.raises(ValueError, match="20 candidates are to be kept"):
        AdversarialPreservation(worst=20)(subject, CONCEPT)
    with pytest.raises(ValueError, match="no prompts in target"):
        AdversarialPreservation()(subject, replace(CONCEPT, target=Splits()))
    assert subject.weight_hash() == weights
