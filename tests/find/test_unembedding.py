"""Columns read through the unembedding are what a plain loop through the model's own modules says."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from concept_probe.find.language.gain import norm_gain
from concept_probe.find.language.unembedding import CHUNK, Unembedding, read_columns
from concept_probe.registry import UnknownName
from concept_probe.testing.models.language import LANGUAGE, LM_HIDDEN, LM_WIDTH


def worn(name: str):
    """A tiny model whose final norm has gains (and biases) of its own, as a trained one has."""
    subject = LANGUAGE[name]()
    generator = torch.Generator().manual_seed(5)
    for parameter in subject.final_norm.parameters():
        parameter.data += 0.5 * torch.randn(parameter.shape, generator=generator)
    return subject


@pytest.fixture(params=LANGUAGE)
def subject(request):
    return worn(request.param)


def plainly(subject, column, norm):
    """Scores of every token for one column, through the model's own modules."""
    head = subject.model.get_output_embeddings()
    if norm == "plain":
        return head(column)
    final, big = subject.final_norm, 1e4 * column
    return head((final(big) - final(-big)) / 2)


@pytest.mark.parametrize("norm", ["folded", "plain"])
def test_top_tokens_are_those_of_a_plain_loop(subject, norm):
    for site, reading in zip(subject.sites("mlp_value"), read_columns(subject, norm=norm, top=7), strict=True):
        assert reading.site == site and reading.promoted.shape == (LM_HIDDEN, 7)
        for j in range(LM_HIDDEN):
            scores = plainly(subject, subject.matrix(site)[:, j], norm)
            z = (scores - scores.mean()) / scores.std(correction=0)
            high, low = z.topk(7), z.topk(7, largest=False)
            torch.testing.assert_close(reading.values[j], high.values, atol=1e-3, rtol=1e-3)
            torch.testing.assert_close(reading.lowest[j], low.values, atol=1e-3, rtol=1e-3)
            torch.testing.assert_close(z[reading.promoted[j]], high.values, atol=1e-3, rtol=1e-3)
            torch.testing.assert_close(z[reading.demoted[j]], low.values, atol=1e-3, rtol=1e-3)


def test_folding_the_norm_makes_a_difference(subject):
    folded, plain = (next(read_columns(subject, norm=n, top=5)) for n in ("folded", "plain"))
    assert not torch.equal(folded.promoted, plain.promoted)


def test_reading_in_chunks_gives_the_same(subject, monkeypatch):
    assert CHUNK > LM_HIDDEN
    whole = next(read_columns(subject, top=5))
    monkeypatch.setattr("concept_probe.find.language.unembedding.CHUNK", 7)
    part = next(read_columns(subject, top=5))
    assert torch.equal(part.promoted, whole.promoted)
    torch.testing.assert_close(part.values, whole.values)


def test_gains_are_measured_whatever_the_class_keeps():
    kept = {
        "llama": lambda n: (n.weight, False), "gemma": lambda n: (1 + n.weight, False),
        "gpt2": lambda n: (n.weight, True), "olmo": lambda n: (torch.ones(LM_WIDTH), True),
    }  # fmt: skip
    for name, of in kept.items():
        norm = worn(name).final_norm
        gain, centres = of(norm)
        found = norm_gain(norm, LM_WIDTH)
        torch.testing.assert_close(found.gain, gain.data, atol=1e-3, rtol=1e-3)
        assert found.centres == centres, name


def test_what_is_no_norm_or_no_choice_is_refused():
    with pytest.raises(ValueError, match="Tanh is no norm with a gain; read the columns with norm='plain'"):
        norm_gain(nn.Tanh(), 8)
    subject = LANGUAGE["llama"]()
    with pytest.raises(UnknownName, match="treatment of the final norm 'fold' not found; nearest: 'folded'"):
        Unembedding.of(subject, "fold")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="top is 999; the vocabulary has 276 tokens"):
        next(read_columns(subject, top=999))
