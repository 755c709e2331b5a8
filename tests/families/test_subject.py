"""What every subject does: hash its weights, know the moment, stop when nothing more is wanted."""

from __future__ import annotations

import contextlib

import pytest
import torch

from concept_probe.activations import tap
from concept_probe.erasers import Uce
from concept_probe.families.state import Stopped
from concept_probe.testing.concepts import tiny_concept
from concept_probe.testing.models.diffusion import DIFFUSION
from concept_probe.types import Moment, Prompt, Query, Sampling, Site

PROMPTS = [Prompt("a cat", "cat"), Prompt("the dog")]
QUERIES = [Query(p, i) for i, p in enumerate(PROMPTS)]
SAMPLING = Sampling(steps=2)


@pytest.fixture(params=DIFFUSION)
def subject(request):
    return DIFFUSION[request.param]()


def calls(subject):
    """Names of the modules that finish a forward pass, as a list that grows; and the hooks."""
    done: list[str] = []
    hooks = []
    for component, root in subject.components.items():
        for path, module in root.named_modules():
            name = f"{component}/{path}"
            hooks.append(module.register_forward_hook(lambda *_, name=name: done.append(name)))
            hooks.append(module.register_forward_pre_hook(lambda *_, name=name: done.append("in " + name)))
    return done, hooks


@pytest.mark.slow
def test_hash_sees_one_bit_and_forgets_when_it_is_put_back(subject):
    before = subject.weight_hash()
    assert before == subject.weight_hash() and len(before) == 64
    for component in ("text_encoder", "unet", "vae"):
        weight = next(subject.components[component].parameters())
        kept = weight.detach().clone()
        flat = weight.data.view(-1).view(torch.int32)
        flat[0] ^= 1
        assert subject.weight_hash() != before
        weight.data.copy_(kept)
    assert subject.weight_hash() == before
    assert before != type(subject)("other", subject.pipeline) and DIFFUSION["sd"](seed=1).weight_hash() != before


def test_moment_is_known_inside_a_pass_only(subject):
    with pytest.raises(RuntimeError, match="no forward pass is under way"):
        _ = subject.moment
    subject.generate(QUERIES, Sampling(steps=1))
    with pytest.raises(RuntimeError):
        _ = subject.moment
    outer, inner = Moment((0,), ("cond",)), Moment((1,), ("uncond",))
    with subject.during(outer):
        with pytest.raises(KeyError), subject.during(inner):
            assert subject.moment is inner
            raise KeyError
        assert subject.moment is outer


def test_encoding_touches_neither_denoiser_nor_autoencoder(subject):
    done, _ = calls(subject)
    subject.encode(PROMPTS)
    subject.run_to(subject.sites("text_out"), QUERIES)
    assert done and {name.removeprefix("in ").split("/")[0][:12] for name in done} == {"text_encoder"}


def test_encoding_in_batches_gives_the_same(subject):
    one, many = subject.encode(PROMPTS, batch=1), subject.encode(PROMPTS)
    torch.testing.assert_close(one.states, many.states)
    assert torch.equal(one.kinds, many.kinds)


def test_a_pass_ends_after_the_last_site(subject):
    first = subject.sites("text_stream")[0]
    done, _ = calls(subject)
    subject.run_to([first], QUERIES)
    assert done[-1] == f"{first.component}/{first.path}"
    assert not any("layers.1" in name or "text_encoder_2" in name or "final" in name for name in done)


def test_a_walk_ends_in_the_last_step_after_the_last_site(subject):
    sites = [subject.sites("text_stream")[0], *subject.sites("cross_key")[:2]]
    last = f"unet/{sites[-1].path}"
    done, _ = calls(subject)
    subject.run_to(sites, QUERIES, Sampling(steps=6, guidance=3.0), steps=[1, 2])
    assert done[-1] == last
    assert done.count(last) == 3 and done.count("unet/conv_out") == 2
    assert not any(name.startswith(("vae", "in vae")) for name in done)


def test_input_sites_end_a_pass_before_their_module_runs(subject):
    site = Site("text_encoder", "encoder.layers.1.mlp.fc2", "in")
    done, _ = calls(subject)
    with subject.stop_after([site]):
        subject.encode(PROMPTS)
    assert done[-1] == f"in text_encoder/{site.path}"


def test_stopping_leaves_no_hook_and_lets_other_things_through(subject):
    site = subject.sites("text_stream")[0]
    with pytest.raises(KeyError), subject.stop_after([site]):
        raise KeyError
    with pytest.raises(Stopped), subject.stop_after([site]):
        raise Stopped  # another block's
    with pytest.raises(ValueError, match="is a weight"), subject.stop_after([subject.sites("mlp_value")[0]]):
        pass
    assert not any(m._forward_hooks or m._forward_pre_hooks for c in subject.components.values() for m in c.modules())
    subject.encode(PROMPTS)


def test_a_step_that_sampling_does_not_have_is_refused(subject):
    with pytest.raises(ValueError, match="pass 9 was asked for; sampling has passes 0 to 3"):
        subject.run_to(subject.sites("cross_key"), QUERIES, Sampling(steps=4), steps=[9])


@pytest.mark.slow
def test_bare_is_the_subject_before_anything_was_on_and_all_comes_back(subject):
    """Bit for bit, with an edit on an edit and a tap; taps entered inside act, also after an error inside."""
    concept, site = tiny_concept(), subject.sites("text_out")[0]

    def states():
        with torch.no_grad():
            return torch.cat([subject.encode(PROMPTS).states.flatten(), subject.generate(QUERIES, SAMPLING).flatten()])

    before, hash_before = states(), subject.weight_hash()
    with contextlib.ExitStack() as on:
        for _ in range(2):
            on.enter_context(Uce()(subject, concept).on(subject))
        on.enter_context(tap(subject, {site: lambda x, m: x + 1}))
        erased, erased_hash = states(), subject.weight_hash()
        assert not torch.equal(erased, before)
        with pytest.raises(KeyError), subject.pristine():
            assert torch.equal(states(), before) and subject.weight_hash() == hash_before
            with tap(subject, {site: lambda x, m: x * 0}):
                assert not torch.equal(states(), before)
            raise KeyError
        assert torch.equal(states(), erased) and subject.weight_hash() == erased_hash
    assert torch.equal(states(), before) and subject.weight_hash() == hash_before
