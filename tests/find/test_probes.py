"""Probes against scikit-learn; controls at chance; the split they were fitted on is refused."""

from __future__ import annotations

import pytest
import torch

from concept_probe.find import ConceptRows, fit_probe, probe_auroc, probe_rows
from concept_probe.testing.concepts import tiny_concept
from concept_probe.testing.models.diffusion import tiny_sd


def made(n: int, gap: float, seed: int) -> ConceptRows:
    generator = torch.Generator().manual_seed(seed)
    prompt = torch.arange(n) // 3
    own = prompt % 2 == 0
    x = torch.randn(n, 6, generator=generator)
    x[own, 0] += gap
    zero = torch.zeros(n, dtype=torch.long)
    return ConceptRows(x, own, zero, zero, prompt, zero - 1, prompt)


def test_the_fit_is_the_minimum_scikit_learn_finds():
    linear = pytest.importorskip("sklearn.linear_model")
    rows = made(300, 1.0, 0)
    probe = fit_probe(rows.x, rows.concept, penalty=1e-2)
    x = rows.x.double()
    x = (x - x.mean(0)) / x.std(0)
    # Its objective is |w|²/2 + C Σ weighted loss; ours divides the loss by the weights' sum.
    solver = linear.LogisticRegression(C=1 / (1e-2 * len(x)), class_weight="balanced", tol=1e-10, max_iter=10000)
    solver.fit(x.numpy(), rows.concept.numpy())
    expected = torch.from_numpy(solver.coef_[0]) / rows.x.double().std(0)
    torch.testing.assert_close(probe.weight, expected, atol=1e-4, rtol=1e-3)


@pytest.mark.slow
def test_signal_is_read_and_noise_is_not():
    signal = probe_rows(made(240, 2.0, 0), made(120, 2.0, 1))
    noise = probe_rows(made(240, 0.0, 0), made(120, 0.0, 1))
    assert signal.low > 0.9
    assert noise.low < 0.5 < noise.high
    for score in (signal, noise):
        assert score.control is not None
        assert abs(score.control - 0.5) < 0.2
        assert score.n == 40


def test_labels_of_one_kind_are_refused():
    with pytest.raises(ValueError, match="both labels"):
        fit_probe(torch.randn(4, 2), torch.zeros(4, dtype=torch.bool))


@pytest.mark.slow
def test_a_probe_reads_a_concept_from_the_text_stream():
    subject, concept = tiny_sd(), tiny_concept()
    score = probe_auroc(subject, concept, subject.sites("text_stream")[0], split="test")
    assert score.control is not None
    assert score.value > max(0.7, score.control)
    with pytest.raises(ValueError, match="'select' or 'test'"):
        probe_auroc(subject, concept, subject.sites("text_stream")[0], split="fit")
