"""A store is of one model, in one state, with one scheduler."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import Any, cast

import pytest
import torch

from concept_probe.activations import Activations, CaptureOptions, capture, tap
from concept_probe.testing.models import TINY_MODELS
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


class NoAttention:
    def __call__(self, attention, x, encoder_hidden_states=None, attention_mask=None, **more):
        return torch.zeros_like(x)


def doubled(module, args, out):
    return out * 2


@pytest.mark.parametrize("change", ["tokenizer", "configuration", "chat", "hook", "tap", "freeu", "attention", "eps"])
def test_a_store_is_of_how_its_subject_reads(change, tmp_path):
    """What no weight tells: the folder of another state is refused, and that of the same goes on."""
    from concept_probe.families import ChatFrame

    subject = TINY_MODELS["llama" if change == "chat" else "sd"](seed=0)
    role = "resid" if change == "chat" else "text_stream"
    site = subject.sites(role)[0]
    again = {"sites": [site], "folder": tmp_path}
    before = capture(subject, PROMPTS, **again).read(site).x
    module: Any = subject.module(site)
    with ExitStack() as stack:
        if change == "tokenizer":
            subject.pipeline.tokenizer.add_tokens(["zed"])
        elif change == "configuration":
            cast(Any, subject.components["text_encoder"]).config.layer_norm_eps = 0.5
        elif change == "chat":
            cast(Any, subject).chat = ChatFrame(system="be brief")
        elif change == "eps":
            module.layer_norm1.eps = 0.5
        elif change == "freeu":
            subject.pipeline.enable_freeu(0.9, 0.2, 1.2, 1.4)
        elif change == "attention":
            subject.pipeline.unet.set_attn_processor(NoAttention())
        elif change == "hook":
            stack.callback(module.register_forward_hook(doubled).remove)
        else:
            stack.enter_context(tap(subject, {site: lambda x, moment: x * 2}))
        with pytest.raises(ValueError, match=r"holds another capture: its (reads|chat|hooks|on) is"):
            capture(subject, PROMPTS, **again)
    if change in ("hook", "tap"):
        assert torch.equal(capture(subject, PROMPTS, **again).read(site).x, before)


def test_dropout_never_reaches_a_row(tmp_path):
    subject = TINY_MODELS["sd"](seed=0)
    site = subject.sites("text_stream")[0]
    before = capture(subject, PROMPTS, sites=[site]).read(site).x
    for module in subject.components.values():
        module.train()
    assert torch.equal(capture(subject, PROMPTS, sites=[site], folder=tmp_path).read(site).x, before)


def test_a_store_that_does_not_say_how_its_subject_read_goes_on(subject, tmp_path):
    acts = capture(subject, PROMPTS, roles=["text_stream"], folder=tmp_path)
    path = tmp_path / "manifest.json"
    data = json.loads(path.read_text())
    data.pop("seal")
    del data["header"]["reads"]
    path.write_text(json.dumps({**data, "format": 1}))
    again = capture(subject, PROMPTS, roles=["text_stream"], folder=tmp_path)
    assert torch.equal(again.read(acts.sites[0]).x, acts.read(acts.sites[0]).x)


def test_a_tokenizer_that_was_exchanged_is_refused():
    subject, other = TINY_MODELS["sd"](seed=0), TINY_MODELS["sd"](seed=0)
    subject.pipeline.tokenizer = other.pipeline.tokenizer
    with pytest.raises(ValueError, match=r"the pipeline's tokenizer was replaced .* adopt the pipeline again"):
        subject.encode(PROMPTS)


def test_equal_stamps_are_of_equal_tokenizers_and_schedulers():
    from diffusers import DDIMScheduler

    subject = TINY_MODELS["sd"](seed=0)
    stamps = [subject.stamp(), subject.stamp()]
    subject.pipeline.tokenizer.add_tokens(["zed"])
    stamps.append(subject.stamp())
    subject.pipeline.scheduler = DDIMScheduler.from_config(subject.pipeline.scheduler.config, beta_end=0.5)
    stamps.append(subject.stamp())
    assert stamps[0] == stamps[1] and stamps[1] != stamps[2] != stamps[3]
