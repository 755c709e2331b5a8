"""The training loop ends at the same bits however often it was stopped."""

import pytest
import torch
from torch import nn

from concept_probe.testbed.loop import FitSchedule, fit, learning_rate


def small_model():
    torch.manual_seed(0)
    return nn.Linear(4, 3)


def train(folder, steps, stop_at=None, stop=KeyboardInterrupt):
    model = small_model()
    target = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
    seen = 0

    def loss(g):
        nonlocal seen
        seen += 1
        if stop_at is not None and seen > stop_at:
            raise stop
        x = torch.randn(16, 4, generator=g)
        return (model(x) - x @ target).square().mean()

    fit("small", [model], loss, FitSchedule(steps, peak=1e-2, seed=3, every=10), folder)
    return model, seen


@pytest.mark.parametrize(("stop", "left"), [(KeyboardInterrupt, 23), (MemoryError, 30)])
def test_an_interrupted_run_ends_at_the_same_weights(tmp_path, stop, left):
    whole, _ = train(tmp_path / "a", 60)
    with pytest.raises(stop):
        train(tmp_path / "b", 60, stop_at=37, stop=stop)
    resumed, seen = train(tmp_path / "b", 60)
    assert seen == left, "an interruption loses no step, a breakdown those since the checkpoint at step 30"
    assert torch.equal(whole.weight, resumed.weight)
    assert torch.equal(whole.bias, resumed.bias)


def test_training_lowers_the_loss_and_returns_its_history(tmp_path):
    model = small_model()
    x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    history = fit(
        "line",
        [model],
        lambda g: (model(x) - x[:, :3]).square().mean(),
        FitSchedule(steps=200, peak=5e-2, every=50),
        tmp_path,
    )
    assert len(history) == 4
    assert history[-1] < 0.2 * history[0]


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    model = small_model()
    with pytest.raises(FloatingPointError, match="step 0"):
        fit("bad", [model], lambda g: model(torch.full((1, 4), torch.nan)).sum(), FitSchedule(5, peak=1e-3), tmp_path)


def test_the_rate_rises_then_falls():
    rates = [learning_rate(s, 1000, 1.0) for s in (0, 99, 100, 550, 999)]
    assert rates[0] < rates[1] <= 1.0
    assert rates[2] > rates[3] > rates[4] > 0
