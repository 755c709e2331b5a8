"""AUROC against scikit-learn, intervals that cover, controls that sit at chance."""

from __future__ import annotations

import pytest
import torch

from concept_probe.evaluation.auroc import auroc, auroc_scores
from concept_probe.evaluation.bootstrap import mean_score

metrics = pytest.importorskip("sklearn.metrics")


def test_auroc_is_scikit_learns_ties_and_all():
    generator = torch.Generator().manual_seed(0)
    values = torch.randint(0, 5, (60, 3), generator=generator).float()
    labels = torch.rand(60, generator=generator) < 0.4
    expected = [metrics.roc_auc_score(labels.numpy(), values[:, i].numpy()) for i in range(3)]
    torch.testing.assert_close(auroc(values, labels), torch.tensor(expected, dtype=torch.float64))
    assert float(auroc(values[:, 0], labels)) == pytest.approx(expected[0])


def test_one_label_alone_is_refused():
    with pytest.raises(ValueError, match="both labels"):
        auroc(torch.rand(4, 1), torch.ones(4, dtype=torch.bool))


def test_noise_stays_under_its_control_and_signal_does_not():
    generator = torch.Generator().manual_seed(1)
    labels = torch.arange(80) < 30
    values = torch.randn(80, 2, generator=generator)
    values[labels, 1] += 3
    noise, signal = auroc_scores(values, labels)
    assert noise.control is not None
    assert noise.low < noise.control
    assert signal.control is not None
    assert signal.low > signal.control
    assert signal.low <= signal.value <= signal.high


def test_intervals_cover_the_mean_and_repeat_with_their_seed():
    x = (torch.arange(50) % 5 == 0).float()
    score = mean_score(x, "share")
    assert score.value == pytest.approx(0.2)
    assert score.low < 0.2 < score.high
    assert mean_score(x, "share") == score
    with pytest.raises(ValueError, match="no values"):
        mean_score(x[:0], "share")
