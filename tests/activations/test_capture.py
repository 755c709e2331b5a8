"""Every captured row is the tensor that passed, and says where it comes from."""

from __future__ import annotations

import pytest
import torch

from concept_probe.activations import CaptureOptions, capture, tap
from concept_probe.registry import UnknownName
from concept_probe.testing.models.diffusion import DIFFUSION
from concept_probe.types import TOKEN_KINDS, Prompt, Query, Sampling

PROMPTS = [Prompt("a cat", "cat"), Prompt("the red dog", "dog"), Prompt("sun"), Prompt("a cat", "cat")]
QUERIES = [Query(p, i) for i, p in enumerate(PROMPTS)]


@pytest.fixture(scope="module", params=DIFFUSION)
def subject(request):
    return DIFFUSION[request.param]()


def refuse_components(subject, *names):
    def fail(*_):
        raise AssertionError("a component ran that nothing here needs")

    return [subject.components[name].register_forward_pre_hook(fail) for name in names]


def test_text_rows_are_the_encoder_s_states_in_order(subject):
    hooks = refuse_components(subject, "unet", "vae")
    try:
        acts = capture(subject, PROMPTS, roles=["text_out"])
    finally:
        for hook in hooks:
            hook.remove()
    states = torch.cat([acts.read(s).x.unflatten(0, (4, 20)) for s in acts.sites], dim=-1)
    torch.testing.assert_close(states, subject.encode(PROMPTS).states)
    columns = acts.read(acts.sites[0]).columns
    assert columns["prompt"].tolist() == [i for i in range(4) for _ in range(20)]
    assert columns["token"].tolist() == [*range(20)] * 4
    assert torch.equal(columns["kind"], subject.tokenise(PROMPTS).kinds.flatten())
    for absent in ("step", "patch"):
        assert set(columns[absent].tolist()) == {-1}
    assert set(columns["branch"].tolist()) == {0}
    assert acts.prompts == tuple(PROMPTS) and acts.complete and acts.weight_hash == subject.weight_hash()


def test_kinds_keep_only_those_tokens(subject):
    acts = capture(subject, PROMPTS, roles=["text_stream"], kinds=["subject", "eos"])
    block = acts.read(acts.sites[-1])
    assert {TOKEN_KINDS[k] for k in block.columns["kind"].tolist()} == {"subject", "eos"}
    whole = capture(subject, PROMPTS, roles=["text_stream"]).read(acts.sites[-1])
    wanted = torch.isin(whole.columns["kind"], block.columns["kind"])
    assert torch.equal(block.x, whole.x[wanted])
    assert torch.equal(block.columns["prompt"], whole.columns["prompt"][wanted])


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_denoiser_rows_know_their_step_branch_and_prompt(subject, guidance):
    """Against a plain recording of the whole walk, also where there is no unconditional half."""
    key, block = subject.sites("cross_key")[0], subject.sites("block_out")[-1]
    sampling = Sampling(steps=3, guidance=guidance, batch=3)
    branches = ("cond", "uncond")
    acts = capture(subject, QUERIES, sites=[key, block], sampling=sampling, options=CaptureOptions([0, 2], branches))
    seen = {key: {}, block: {}}

    def record(site):
        def look(x, moment):
            for row, prompt, branch in zip(x, moment.prompts, moment.branches, strict=True):
                seen[site][prompt, branch, moment.step] = row

        return look

    with tap(subject, {s: record(s) for s in seen}):
        subject.generate(QUERIES, sampling)
    for site, axis in ((key, "token"), (block, "patch")):
        got = acts.read(site)
        assert set(got.columns["step"].tolist()) == {0, 2}
        assert set(got.columns["branch"].tolist()) == ({0} if guidance == 1 else {0, 1})
        other = "patch" if axis == "token" else "token"
        assert set(got.columns[other].tolist()) == {-1}
        names = ("prompt", "branch", "step", axis)
        for x, prompt, branch, step, at in zip(got.x, *(got.columns[n].tolist() for n in names), strict=True):
            row = seen[site][prompt, branches[branch], step]
            expected = row[at] if axis == "token" else row.flatten(1)[:, at]
            torch.testing.assert_close(x, expected, atol=1e-5, rtol=1e-5)
        per_prompt = 20 if axis == "token" else seen[block][0, "cond", 0][0].numel()
        assert len(got.x) == 4 * 2 * per_prompt * (1 if guidance == 1 else 2)
    kinds = acts.read(key).columns
    first = (kinds["prompt"] == 1) & (kinds["branch"] == 0) & (kinds["step"] == 2)
    assert torch.equal(kinds["kind"][first], subject.tokenise(PROMPTS).kinds[1])


def test_the_conditional_branch_alone_is_the_default(subject):
    site = subject.sites("cross_out")[0]
    acts = capture(subject, QUERIES, sites=[site], sampling=Sampling(steps=2))
    assert set(acts.read(site).columns["branch"].tolist()) == {0}


def test_text_and_denoiser_in_one_run(subject):
    text, key = subject.sites("text_stream")[0], subject.sites("cross_key")[-1]
    acts = capture(
        subject, QUERIES, sites=[text, key], sampling=Sampling(steps=2), kinds=["eos"], options=CaptureOptions([1])
    )
    # The fourth query repeats the first's prompt and shares its text row.
    assert acts.read(text).columns["prompt"].tolist() == [0, 1, 2]
    assert acts.read(key).columns["prompt"].tolist() == [0, 1, 2, 3]


def test_pooled_rows_have_no_token():
    subject = DIFFUSION["sdxl"]()
    acts = capture(subject, PROMPTS, roles=["text_pooled"], kinds=["subject"])
    block = acts.read(acts.sites[0])
    torch.testing.assert_close(block.x, subject.encode(PROMPTS).pooled)
    assert set(block.columns["token"].tolist()) == {-1} == set(block.columns["kind"].tolist())


def test_capture_leaves_no_trace_on_the_subject(subject):
    before = subject.generate(QUERIES[:1], Sampling(steps=2))
    capture(subject, QUERIES, roles=["cross_out"], sampling=Sampling(steps=2))
    assert torch.equal(before, subject.generate(QUERIES[:1], Sampling(steps=2)))
    assert not any(m._forward_hooks or m._forward_pre_hooks for c in subject.components.values() for m in c.modules())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_stored_dtype(subject, dtype):
    full = capture(subject, PROMPTS, roles=["text_out"])
    small = capture(subject, PROMPTS, roles=["text_out"], options=CaptureOptions(dtype=dtype))
    site = full.sites[0]
    assert torch.equal(small.read(site).x, full.read(site).x.to(dtype))
    assert next(small.batches(site, 8)).dtype == dtype


def test_a_value_that_is_not_finite_is_named_and_not_written(subject, tmp_path):
    site = subject.sites("cross_value")[1]

    def spoil(x, moment):
        x = x.clone()
        if moment.step == 1:
            x[moment.branches.index("cond"), 4, 0] = float("nan")
        return x

    with tap(subject, {site: spoil}), pytest.raises(FloatingPointError) as caught:
        capture(subject, QUERIES, sites=[site], folder=tmp_path, sampling=Sampling(steps=3))
    said = str(caught.value)
    for part in (f"site {str(site)!r}", "prompt 0 'a cat'", "pass 1", "branch cond", "token 4", "was not written"):
        assert part in said, said
    assert not list(tmp_path.glob("*.safetensors*"))


def test_wrong_requests(subject, tmp_path):
    with pytest.raises(ValueError, match=r"no site was given to capture; name roles \(token_embedding"):
        capture(subject, PROMPTS)
    with pytest.raises(ValueError, match="no prompt"):
        capture(subject, [], roles=["text_out"])
    with pytest.raises(UnknownName, match="role 'text_outs' not found; nearest: 'text_out'"):
        capture(subject, PROMPTS, roles=["text_outs"])
    with pytest.raises(UnknownName, match="token kind 'subjects' not found; nearest: 'subject'"):
        capture(subject, PROMPTS, roles=["text_out"], kinds=["subjects"])
    with pytest.raises(ValueError, match=r"branches is .*'both'.*; it is a tuple, each of it one of cond, uncond"):
        capture(subject, PROMPTS, roles=["text_out"], options=CaptureOptions(branches=["both"]))  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="is a weight"):
        capture(subject, PROMPTS, roles=["mlp_value"], folder=tmp_path / "a")
    with pytest.raises(TypeError, match="found str"):
        capture(subject, ["a cat"], roles=["text_out"])  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="pass 15 was asked for"):
        capture(subject, PROMPTS, roles=["cross_key"], options=CaptureOptions(steps=[15]))


def test_too_small_a_disk_is_said_before_anything_is_written(subject, tmp_path, monkeypatch):
    import collections
    import shutil

    monkeypatch.setattr(shutil, "disk_usage", lambda _: collections.namedtuple("U", "total used free")(9, 8, 1))
    with pytest.raises(OSError, match=r"needs about .* GB and .* free; keep fewer token kinds \(kinds=\)"):
        capture(subject, PROMPTS, roles=["text_out"], folder=tmp_path)
    assert not list(tmp_path.glob("*.safetensors*"))
