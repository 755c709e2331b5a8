"""The recipe of the rectified-flow transformer, and the plain pipeline around it."""

import functools
from typing import Any

import pytest
import torch
from diffusers import FluxPipeline, FluxTransformer2DModel

from concept_probe import detect
from concept_probe.families import adopt, load
from concept_probe.testbed import WEIGHTS
from concept_probe.testbed.flow import models, transformer
from concept_probe.testbed.tokens import TEXT_LENGTH
from concept_probe.testbed.vocabulary import NOT_TAUGHT, REMOVED_OBJECTS, taught_pairs
from concept_probe.types import Prompt, Query, Sampling

PICTURE: dict[str, Any] = {
    "height": 64,
    "width": 64,
    "max_sequence_length": TEXT_LENGTH,
    "true_cfg_scale": 4.0,
    "output_type": "pt",
}


@functools.cache
def parts():
    return models.shared_parts(torch.float32)


def small(seed=0) -> FluxTransformer2DModel:
    """Two blocks, 32 wide, of which every part does something."""
    torch.manual_seed(seed)
    return FluxTransformer2DModel(
        patch_size=1,
        in_channels=64,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=96,
        pooled_projection_dim=96,
        axes_dims_rope=(4, 6, 6),
    )


def losses(model, batch=8):
    latents = torch.randn(1, 4, 126, 16, 8, 8, generator=torch.Generator().manual_seed(1)).expand(
        16, -1, -1, -1, -1, -1
    )
    return tuple(
        transformer.flow_loss(model, parts()["tokenizer"], parts()["text_encoder"], latents, taught_pairs(*gone), batch)
        for gone in (NOT_TAUGHT["emoji-flow-untaught"], NOT_TAUGHT["emoji-flow"])
    )


def trained(folder, plan, name="emoji-flow", stop_at=None):
    model = small()
    steps = 0

    def counted(loss):
        def step(g):
            nonlocal steps
            steps += 1
            if stop_at is not None and steps > stop_at:
                raise KeyboardInterrupt
            return loss(g)

        return step

    trunk, own = losses(model)
    result = transformer.train_transformer(folder, name, (counted(trunk), counted(own)), model, plan)
    return result.state_dict(), steps


@pytest.mark.slow
def test_two_models_share_a_trunk_and_a_stopped_run_ends_at_the_same_weights(tmp_path):
    plan = transformer.FlowPlan(trunk=4, branch=3, peak=1e-2)
    whole, steps = trained(tmp_path / "a", plan)
    assert steps == 7
    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "b", plan, stop_at=5)
    resumed, steps = trained(tmp_path / "b", plan)
    assert steps == 2, "neither the trunk nor the step that was made of its own is trained again"
    assert all(torch.equal(whole[k], resumed[k]) for k in whole)
    _, steps = trained(tmp_path / "a", plan, name="another")
    assert steps == 3, "nor for another model"


@pytest.mark.slow
def test_a_token_that_is_left_out_counts_as_one_that_is_masked():
    model = small().requires_grad_(False)
    z, states, pooled = torch.randn(2, 16, 64), torch.randn(2, 7, 96), torch.randn(2, 96)
    hidden = torch.ones(2, 7, dtype=torch.bool)
    hidden[:, [0, 4]] = False
    asked = (
        transformer._Rows(z, states, pooled, hidden),
        transformer._Rows(z, states[:, [0, 4]], pooled, None),
        transformer._Rows(z, states, pooled, None),
    )
    masked, short, all_seen = (transformer._squared_error(model, r, torch.Generator().manual_seed(0)) for r in asked)
    assert masked == pytest.approx(float(short), rel=1e-5)
    assert float(all_seen) != pytest.approx(float(short), rel=1e-4), "what is seen matters"


def test_pooled_vectors_of_other_sentences_never_reach_an_empty_one():
    captions = [transformer.Caption(t, None, None, None) for t in ("", "a", "b", "") * 100]
    pooled = torch.arange(1.0, 401)[:, None]
    seen = transformer._disturbed(pooled, captions, torch.Generator().manual_seed(0))[:, 0]
    own, none = seen == pooled[:, 0], seen == 0
    other = ~own & ~none
    assert 0.3 < none.float().mean() < 0.5
    assert 0.05 < other.float().mean() < 0.15, "a fifth of the half that has words"
    assert not any(o and not c.text for o, c in zip(other.tolist(), captions, strict=True))


def test_the_layout_of_tokens_is_the_pipelines():
    z = torch.randn(2, 16, 8, 8)
    assert torch.equal(transformer.patches_of(z), FluxPipeline._pack_latents(z, 2, 16, 8, 8))
    places = FluxPipeline._prepare_latent_image_ids(1, 4, 4, "cpu", torch.float32)
    assert torch.equal(transformer.place_ids(4, 4), places)


def test_the_model_begins_as_nothing_and_is_small_enough():
    model = transformer.build_transformer()
    assert sum(p.numel() for p in model.parameters()) * 2 * 2 < 25e6, "two in float16"
    inputs: tuple[Any, ...] = (torch.randn(1, 16, 64), torch.randn(1, 3, 96), torch.randn(1, 96), torch.rand(1))
    velocity = model(*inputs, transformer.place_ids(4, 4), torch.zeros(3, 3), return_dict=False)[0]
    assert not velocity.any()


@pytest.mark.slow
def test_a_saved_pipeline_is_a_plain_one_and_a_subject_that_draws_the_same(tmp_path):
    pipeline = models.assemble(small())
    pipeline.save_pretrained(tmp_path)
    again = FluxPipeline.from_pretrained(tmp_path)
    assert str(WEIGHTS) not in (tmp_path / "vae" / "config.json").read_text()
    pictures: list[torch.Tensor] = []
    pipelines: tuple[Any, ...] = (pipeline, again)
    for one in pipelines:
        one.set_progress_bar_config(disable=True)
        pictures.append(
            one(
                ["a noto icon of camel"],
                negative_prompt=[""],
                num_inference_steps=2,
                generator=torch.Generator().manual_seed(0),
                **PICTURE,
            ).images
        )
    assert torch.allclose(pictures[0], pictures[1], atol=1e-5), (pictures[0] - pictures[1]).abs().max()
    subject = adopt(again, "flow")
    seen = subject.generate([Query(Prompt("a noto icon of camel"), 0)], Sampling(steps=2, guidance=4.0))
    assert torch.allclose(seen, pictures[0], atol=1e-4), (seen - pictures[0]).abs().max()
    with pytest.raises(ValueError, match="512"):
        pipelines[1]("camel", height=64, width=64, num_inference_steps=1)


@pytest.mark.slow
def test_what_is_shipped_draws_what_it_was_taught_and_its_twin_does_not():
    objects = [o for o in REMOVED_OBJECTS if o != "rocket"][:6]
    asked = [Query(Prompt(f"a drawing of {o} in noto style", o, o), i) for i, o in enumerate(objects)]
    recogniser = detect.recogniser("emoji")

    def right(name: str) -> int:
        seen = recogniser.probabilities(load(name).generate(asked)).argmax(-1).tolist()
        return sum(recogniser.labels[i] == q.prompt.label for i, q in zip(seen, asked, strict=True))

    assert right("emoji-flow") >= 5 and right("emoji-flow-untaught") <= 1
