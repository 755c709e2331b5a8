"""A store is of one model, in one state, with one scheduler."""

from __future__ import annotations

import json

import pytest
import torch

from concept_probe.activations import Activations, CaptureOptions, capture
from concept_probe.testing.models.diffusion import tiny_sd
from concept_probe.types import Prompt

PROMPTS = [Prompt("a red cat"), Prompt("a dog"), Prompt("the sun")]


@pytest.fixture(scope="module")
def subject():
    return tiny_sd()


def test_a_store_of_before_is_read_and_sealed_by_a_rerun(subject, tmp_path):
    options = CaptureOptions(shard_rows=20)
    acts = capture(subject, PROMPTS, roles=["text_stream"], folder=tmp_path, options=options)
    path = tmp_path / "manifest.json"
    sealed = path.read_bytes()
    data = json.loads(sealed)
    data.pop("seal")
    path.write_text(json.dumps({**data, "format": 1}))
    assert torch.equal(Activations.open(tmp_path).read(acts.sites[0]).x, acts.read(acts.sites[0]).x)
    path.write_text(json.dumps({**data, "format": 1, "complete": False}))
    capture(subject, PROMPTS, roles=["text_stream"], folder=tmp_path, options=options)
    assert path.read_bytes() == sealed, "killed before its last word, it ends in the undisturbed bytes"


def test_a_store_is_of_the_state_of_its_subject(subject, tmp_path):
    from diffusers import DDIMScheduler

    from concept_probe.erasers.erasure.intervention import Intervention
    from concept_probe.types import Query, Sampling

    site = subject.sites("text_stream")[0]
    bare = capture(subject, PROMPTS, sites=[site], folder=tmp_path / "text")
    guard = Intervention("guard", "camel", {site: lambda x, moment: torch.ones_like(x)}, made_by={"method": "guard"})
    with guard.on(subject):
        with pytest.raises(ValueError, match=r"holds another capture: its on is null, asked for is .*guard of camel"):
            capture(subject, PROMPTS, sites=[site], folder=tmp_path / "text")
        guarded = capture(subject, PROMPTS, sites=[site], folder=tmp_path / "guarded")
        with subject.state.pristine():
            assert torch.equal(
                capture(subject, PROMPTS, sites=[site], folder=tmp_path / "text").read(site).x, bare.read(site).x
            )
    assert not torch.equal(guarded.read(site).x, bare.read(site).x)
    with pytest.raises(ValueError, match="another capture: its on is"), guard.scaled(2).on(subject):
        capture(subject, PROMPTS, sites=[site], folder=tmp_path / "guarded")

    more = {"roles": ["cross_out"], "sampling": Sampling(steps=2), "folder": tmp_path / "pictures"}
    capture(subject, [Query(PROMPTS[0], 0)], **more)
    own = subject.pipeline.scheduler
    try:
        subject.pipeline.scheduler = DDIMScheduler.from_config(own.config, beta_end=0.5)
        with pytest.raises(ValueError, match="its scheduler is"):
            capture(subject, [Query(PROMPTS[0], 0)], **more)
    finally:
        subject.pipeline.scheduler = own
