"""Rows say how much noise there was in their own pass; stores of before they did stay readable."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import diffusers
import pytest
import torch

from concept_probe.activations import Activations, CaptureOptions, Live, capture, read_rows
from concept_probe.activations.columns import COLUMNS, FIRST_COLUMNS
from concept_probe.families.diffusion.trajectory import SamplingHook
from concept_probe.registry import UnknownName
from concept_probe.testing.models.diffusion import tiny_sd
from concept_probe.testing.models.transformers import tiny_flux, tiny_sd3
from concept_probe.types import Prompt, Query, Sampling

QUERIES = [Query(Prompt("a cat", "cat"), 0), Query(Prompt("the dog"), 1), Query(Prompt("the sun"), 2)]
SAMPLING = Sampling(steps=3, guidance=2.0, batch=2)
CASES = {
    "Euler": (tiny_sd, "EulerDiscreteScheduler", 3),
    "Heun": (tiny_sd, "HeunDiscreteScheduler", 5),
    "flux": (tiny_flux, "", 3),
    "sd3": (tiny_sd3, "", 3),
    "sd3, Heun": (tiny_sd3, "FlowMatchHeunDiscreteScheduler", 5),
}


def given(subject: Any) -> list[float]:
    """The scheduler's own sigma in each pass, read where it has just made its step."""
    met = []

    def after(trajectory: Any, step: int) -> None:
        scheduler = trajectory.schedule.scheduler
        met.append(float(scheduler.sigmas[scheduler.step_index - 1]))

    with subject.hooked(SamplingHook(after_step=after)):
        subject.sample(QUERIES[:1], SAMPLING)
    return met


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_rows_say_the_noise_of_their_own_pass(name, tmp_path):
    make, kind, passes = CASES[name]
    subject = make()
    if kind:
        config = subject.pipeline.scheduler.config
        subject.pipeline.scheduler = getattr(diffusers, kind).from_config(config)
    wanted = given(subject)
    assert len(wanted) == passes and len(set(wanted)) == 3 and wanted == sorted(wanted, reverse=True)
    text, seen = subject.sites("text_out")[0], subject.sites("denoiser_out")[0]
    capture(subject, QUERIES, sites=[text, seen], sampling=SAMPLING, folder=tmp_path)
    store = Activations.open(tmp_path)
    rows = read_rows(subject, QUERIES, sites=[seen], sampling=SAMPLING)[seen]
    live = Live(subject, QUERIES, sites=[seen], sampling=SAMPLING)._run((seen,), range(3))[seen]
    for found in (store.read(seen).columns, *(b.columns for b in store.blocks(seen)), rows.columns, live):
        assert found["sigma"].dtype == torch.float32
        assert found["sigma"].tolist() == [wanted[step] for step in found["step"].tolist()]
    assert set(store.read(text).columns["sigma"].tolist()) == {-1.0}
    assert next(store.joint((seen, seen), 4))[0].shape[0] == 4
    last = CaptureOptions(steps=[passes - 1])
    only = read_rows(subject, QUERIES, sites=[seen], sampling=SAMPLING, options=last)[seen]
    assert set(only.columns["sigma"].tolist()) == {wanted[-1]}


@pytest.mark.slow
def test_a_store_of_before_stays_readable_goes_on_as_it_began_and_says_what_it_lacks(tmp_path, monkeypatch):
    subject = tiny_sd()
    site = subject.sites("denoiser_out")[0]
    options = {"sites": [site], "sampling": SAMPLING, "options": CaptureOptions(shard_rows=600)}
    whole = capture(subject, QUERIES, **options)
    capturing = import_module("concept_probe.activations.capture")
    header = capturing._header

    def of_before(*args: Any) -> dict[str, Any]:
        return {name: value for name, value in header(*args).items() if name != "columns"}

    passes = []

    def fail(*_: Any) -> None:
        passes.append(1)
        if len(passes) > SAMPLING.steps:  # in the second batch
            raise KeyboardInterrupt

    hook = subject.module(site).register_forward_hook(fail)
    monkeypatch.setattr(capturing, "_header", of_before)
    with pytest.raises(KeyboardInterrupt):
        capture(subject, QUERIES, folder=tmp_path, **options)
    hook.remove()
    monkeypatch.undo()
    with pytest.warns(UserWarning, match="was cut off after 2 of 3 prompts"):
        assert Activations.open(tmp_path).columns == FIRST_COLUMNS
    acts = capture(subject, QUERIES, folder=tmp_path, **options)
    again = Activations.open(tmp_path).read(site)
    assert acts.complete and whole.columns == COLUMNS and tuple(again.columns) == FIRST_COLUMNS
    assert torch.equal(again.x, whole.read(site).x)
    assert all(torch.equal(x, whole.read(site).columns[name]) for name, x in again.columns.items())
    assert next(acts.joint((site, site), 4))[0].shape[0] == 4
    with pytest.raises(
        UnknownName, match=r"column 'sigma' not found; known: prompt, .* was captured before rows said it"
    ):
        again.columns["sigma"]
    with pytest.raises(UnknownName, match=r"column 'sigmas' not found; nearest: 'sigma'.*rows say nothing else"):
        whole.read(site).columns["sigmas"]
