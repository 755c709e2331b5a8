"""An autoencoder is used on the model that it was trained on, or on another where somebody says so."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch

from concept_probe.activations import capture
from concept_probe.erasers import AblateFeatures, Edit
from concept_probe.erasers.erasure.deltas import LowRank
from concept_probe.find import find_features
from concept_probe.learn import Sae, TopK, accept_subject, evaluate_sae, load_sae
from concept_probe.testing.concepts import tiny_concept
from concept_probe.testing.models import TINY_MODELS
from concept_probe.types import Prompt
from tests.learn import checkpoints as made

CONCEPT = tiny_concept()
SAID = r"was trained on '.*' with weights [0-9a-f]{12}, and '.*' has weights .*accept_subject\(sae, subject\)"


@pytest.fixture(scope="module")
def subject():
    return TINY_MODELS["llama"](seed=0)


@pytest.fixture(scope="module")
def other():
    return TINY_MODELS["llama"](seed=1)


@pytest.fixture(scope="module")
def sae(subject):
    return random_sae(subject, {"subject": subject.name, "weight_hash": subject.weight_hash()})


def random_sae(subject, made_by):
    site = subject.sites("resid")[0]
    d = subject.components["model"].get_input_embeddings().weight.shape[1]
    g = torch.Generator().manual_seed(0)
    weights: dict[str, Any] = {"W_enc": torch.randn(d, 32, generator=g), "W_dec": torch.randn(32, d, generator=g)}
    return Sae(site, TopK(4), **weights, b_enc=torch.zeros(32), b_dec=torch.zeros(d), made_by=made_by)


def test_features_of_another_model_are_refused(sae, subject, other):
    found = find_features(sae, subject, CONCEPT, count=2)
    assert AblateFeatures()(subject, CONCEPT, found)
    with pytest.raises(ValueError, match=SAID):
        find_features(sae, other, CONCEPT, count=2)
    with pytest.raises(ValueError, match=SAID):
        AblateFeatures()(other, CONCEPT, found)


def test_rows_of_another_model_are_refused(sae, subject, other):
    asked = [Prompt("the cat sun"), Prompt("red dog bird")]
    own, foreign = (capture(s, asked, sites=[sae.site]) for s in (subject, other))
    assert evaluate_sae(sae, own)
    with pytest.raises(ValueError, match=r"and the activations are of .* with weights"):
        evaluate_sae(sae, foreign)
    with pytest.raises(ValueError, match=SAID):
        evaluate_sae(sae, own, subject=other)
    assert evaluate_sae(accept_subject(sae, other), foreign)


def test_who_means_it_says_so(sae, other, tmp_path):
    meant = accept_subject(sae, other)
    assert torch.equal(meant.W_dec, sae.W_dec) and "accepted" not in sae.made_by
    assert find_features(meant, other, CONCEPT, count=2)


@pytest.mark.slow
def test_an_erased_subject_is_still_its_own(sae, subject):
    weight = subject.sites("mlp_value")[0]
    matrix = subject.parameter(weight)
    delta = LowRank(torch.ones(matrix.shape[0], 1) * 0.01, torch.ones(matrix.shape[1], 1) * 0.01)
    edit = Edit("probe", CONCEPT.name, {f"{weight.component}/{weight.path}:weight": delta}, subject.weight_hash())
    with edit.on(subject):
        assert subject.weight_hash() != sae.made_by["weight_hash"]
        assert find_features(sae, subject, CONCEPT, count=2)
        changed = random_sae(subject, {"weight_hash": subject.weight_hash()})
        assert find_features(changed, subject, CONCEPT, count=2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("context", "said"),
    [
        ({"model_name": "gpt2-small"}, "it was trained on 'gpt2-small', and the subject is"),
        ({"model_from_pretrained_kwargs": {"center_writing_weights": True}}, "loaded with center_writing_weights"),
        ({"prepend_bos": True}, "this tokenizer adds none"),
        ({}, None),
    ],
)
def test_published_autoencoders_warn_where_the_subject_differs(context, said, subject):
    marks = subject.tokenise([Prompt("a")]).kinds[0, 0] == 0
    if "prepend_bos" in context and marks:
        context, said = {"prepend_bos": False}, "this tokenizer adds one"
    sae = random_sae(subject, context)
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        assert find_features(sae, subject, CONCEPT, count=2)
    told = [str(one.message) for one in seen if "autoencoder over" in str(one.message)]
    assert (said in told[0] and len(told) == 1) if said else not told


def test_what_a_file_says_is_compared_with_the_subject_when_it_is_loaded(subject, tmp_path):
    made.sae_lens(tmp_path, hook_name="blocks.1.hook_resid_pre", model_name="pythia-70m")
    with pytest.warns(UserWarning, match="it was trained on 'pythia-70m', and the subject is"):
        load_sae(tmp_path, subject=subject)
