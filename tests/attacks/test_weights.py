"""Attacks on weights: what each level does to a matrix, and what is left alone."""

from __future__ import annotations

import pytest
import torch

from concept_probe.attacks import Budget, Merging, Pruning, Quantisation, UnAblation
from concept_probe.attacks.weights.lora_relearning import at_random, product_norm
from concept_probe.attacks.weights.originals import OriginalWeights
from concept_probe.attacks.weights.parameters import matrices
from concept_probe.attacks.weights.pruning import pruned
from concept_probe.attacks.weights.quantisation import rounded
from concept_probe.attacks.weights.unablation import leading_terms
from concept_probe.erasers import Blocklist, Uce
from concept_probe.erasers.training.trainable import LowRankAdapters
from concept_probe.testing.concepts import tiny_concept, tiny_recogniser
from concept_probe.testing.models.diffusion import tiny_sd
from concept_probe.testing.models.language import LANGUAGE
from concept_probe.types import Sampling

SAMPLING = Sampling(steps=2, guidance=2.0, batch=8)
BUDGET = Budget(queries=12, gradient_steps=0, examples=0)


def weight(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("bits", [8, 4, 2])
def test_rounding_is_within_half_a_step_of_each_channel_and_keeps_what_lies_on_the_grid(bits):
    w = weight(5, 7, 3, 3)
    w[2] = 0
    out = rounded(w, bits)
    step = w.flatten(1).abs().amax(1) / (2 ** (bits - 1) - 1)
    assert bool(((out - w).flatten(1).abs().amax(1) <= step / 2 + 1e-6).all())
    assert all(len(row.unique()) <= 2**bits - 1 for row in out.flatten(1))
    torch.testing.assert_close(rounded(out, bits), out)
    assert not torch.equal(out, w) and torch.equal(out[2], w[2])


def test_pruning_takes_the_smallest_entries_and_no_others():
    w = weight(6, 10)
    out = pruned(w, 0.3)
    assert int((out == 0).sum()) == 18
    assert w[out == 0].abs().max() <= w[out != 0].abs().min()
    assert torch.equal(out[out != 0], w[out != 0]) and torch.equal(pruned(w, 0.001), w)


def test_the_strongest_component_of_a_patch_is_the_patch():
    u, v = weight(6, 1), weight(1, 8)
    torch.testing.assert_close(leading_terms(u @ v, 1), u @ v)
    both = 10 * u @ v + 0.1 * weight(6, 8)
    left = [float((both - leading_terms(both, r)).norm()) for r in (1, 2, 6)]
    assert left[0] > left[1] > left[2] and left[2] < 1e-4
    assert torch.equal(leading_terms(weight(4), 1), weight(4))


def test_an_edit_puts_the_tensors_aside_that_it_changes_and_nested_edits_leave_the_first():
    subject, concept = tiny_sd(), tiny_concept()
    before = {id(p): p.detach().clone() for m in subject.components.values() for p in m.parameters()}
    edit = Uce()(subject, concept)
    with edit.on(subject):
        second = Uce(beta=3.0)(subject, concept)
        with second.on(subject):
            aside = {id(p): (p, x) for p, x in subject.state.originals()}
            assert aside and all(torch.equal(x, before[key]) for key, (_, x) in aside.items())
            assert all(not torch.equal(p, x) for p, x in aside.values())
    assert subject.state.originals() == []


@pytest.mark.parametrize("make", [lambda: Merging(tiny_recogniser(), percent=(50, 100)), UnAblation])
def test_all_of_the_way_back_is_the_original(make):
    subject, concept = tiny_sd(), tiny_concept()
    attack = make() if not isinstance(make, type) else UnAblation(tiny_recogniser(), components=(64,))
    with Uce()(subject, concept).on(subject):
        aside = {id(p): (p, x) for p, x in subject.state.originals()}
        parameters = attack.parameters(subject)
        last = attack.levels(subject)[-1]
        assert {id(p) for p, _ in parameters} == set(aside)
        for p, original in parameters:
            torch.testing.assert_close(
                attack.changed(p.detach(), original, last), aside[id(p)][1], atol=1e-5, rtol=1e-4
            )


@pytest.mark.slow
@pytest.mark.parametrize("attack", [Merging, UnAblation])
def test_a_guard_leaves_nothing_to_take_back_and_the_attempt_says_so(attack):
    subject, concept = tiny_sd(), tiny_concept()
    with Blocklist()(subject, concept).on(subject):
        attempt = attack(tiny_recogniser(), SAMPLING)(subject, concept, BUDGET)
    assert [x for x, _ in attempt.curve] == [0] and "guard keeps its full strength" in attempt.note
    with Uce()(subject, concept).on(subject):
        attempt = attack(tiny_recogniser(), SAMPLING)(subject, concept, BUDGET)
    assert len(attempt.curve) == 3 and attempt.note == ""


@pytest.mark.slow
def test_weights_of_another_model_can_be_merged_in():
    subject, other, concept = tiny_sd(0), tiny_sd(1), tiny_concept()
    attack = Merging(tiny_recogniser(), SAMPLING, percent=(100,), original=OriginalWeights.of(other))
    seen = []
    generate = other.generate(
        [q for q in attack(subject_with(subject, seen), concept, BUDGET).trials[-1] for q in [q.query]], SAMPLING
    )
    torch.testing.assert_close(seen[1], generate, atol=1e-4, rtol=1e-3)
    with pytest.raises(ValueError, match="the original of"):
        wrong = {"unet/conv_in:weight": torch.zeros(2, 2)}
        Merging(tiny_recogniser(), SAMPLING, original=OriginalWeights("", wrong))(subject, concept, BUDGET)


def subject_with(subject, seen: list):
    """The subject, noting the pictures that it makes. Its autoencoder becomes the other's, which is never merged."""
    subject.components["vae"].load_state_dict(tiny_sd(1).components["vae"].state_dict())
    generate = subject.generate

    def noting(queries, sampling=SAMPLING):
        seen.append(generate(queries, sampling))
        return seen[-1]

    subject.generate = noting
    return subject


@pytest.mark.parametrize("attack", [Quantisation, Pruning])
def test_no_table_norm_or_autoencoder_is_touched(attack):
    subject = tiny_sd()
    names = {
        id(p): n for c, m in subject.components.items() for n, p in [(f"{c}/{k}", v) for k, v in m.named_parameters()]
    }
    touched = [names[id(p)] for p, _ in attack(tiny_recogniser()).parameters(subject)]
    assert touched and not [n for n in touched if n.startswith("vae") or "token_embedding" in n or "norm" in n]
    assert any(n.startswith("unet/conv_in") for n in touched) and any("fc2" in n for n in touched)


@pytest.mark.parametrize("family", LANGUAGE)
def test_matrices_of_a_language_model_leave_out_its_tables(family):
    subject = LANGUAGE[family]()
    tables = {
        id(m.weight) for c in subject.components.values() for m in c.modules() if isinstance(m, torch.nn.Embedding)
    }
    found = matrices(subject)
    assert found and not tables & {id(p) for p in found}


@pytest.mark.parametrize(
    "attack, options, message",
    [
        (Quantisation, {"bits": (4, 8)}, "falling numbers"),
        (Pruning, {"percent": (0, 10)}, "between 0 and 100"),
        (Merging, {"percent": (50, 25)}, "up to 100"),
        (UnAblation, {"components": (0,)}, "rising numbers from 1"),
    ],
)
def test_levels_that_make_no_sense(attack, options, message):
    with pytest.raises(ValueError, match=message):
        attack(tiny_recogniser(), SAMPLING, **options)


def test_random_adapters_have_the_norms_of_the_trained_ones_and_go_away():
    subject = tiny_sd()
    sites = subject.sites("cross_key_weight")
    adapters = LowRankAdapters(subject, sites, 2, 0)
    for u, _ in adapters.pairs.values():
        u.data = torch.ones_like(u)
    before = {w: (u.data.clone(), v.data.clone()) for w, (u, v) in adapters.pairs.items()}
    norms = {w: float((u @ v.mT).norm()) for w, (u, v) in before.items()}
    with at_random(adapters, torch.Generator().manual_seed(0)):
        for w, (u, v) in adapters.pairs.items():
            assert float((u.data @ v.data.mT).norm()) == pytest.approx(norms[w], rel=1e-4)
            assert float(product_norm(u.data, v.data)) == pytest.approx(norms[w], rel=1e-4)
            assert not torch.allclose(u, before[w][0])
    assert all(torch.equal(u, before[w][0]) and torch.equal(v, before[w][1]) for w, (u, v) in adapters.pairs.items())
