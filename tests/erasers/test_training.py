"""Gradient methods: what is trained, towards what, and that nothing else moves."""

from __future__ import annotations

import pytest
import torch

from concept_probe.activations import tap
from concept_probe.erasers import AdvUnlearn, Edit, Esd, Receler, Spm, Training
from concept_probe.erasers.erasure.parameters import find_parameter
from concept_probe.erasers.finetune.adversarial import adversarial_offsets, embeddings_moved
from concept_probe.erasers.finetune.distillation import (
    DistillationTerm,
    distil,
    retain_terms,
    same_prompt,
)
from concept_probe.erasers.finetune.negative_guidance import negative_guidance_target
from concept_probe.erasers.finetune.parts import adapted_sites, denoiser_parameters
from concept_probe.erasers.finetune.receler import Bottlenecks
from concept_probe.erasers.training.loop import adam
from concept_probe.erasers.training.replay import LatentBuffer, collect, encode_prompts, predictions
from concept_probe.erasers.training.trainable import FullWeights, LowRankAdapters
from concept_probe.testing.concepts import tiny_concept
from concept_probe.testing.models.diffusion import DIFFUSION, tiny_sd, tiny_sdxl
from concept_probe.testing.models.transformers import tiny_sd3
from concept_probe.types import Prompt, Query, Sampling, Site, evenly

CONCEPT = tiny_concept()
SAMPLING = Sampling(steps=3, guidance=2.0, batch=8)
SHORT = Training(steps=8, batch=4, pictures=2, sampling=SAMPLING)


def test_parts_cover_the_denoiser_once():
    subject = tiny_sdxl()
    every, x, u, strict = (set(denoiser_parameters(subject, part)) for part in ("all", "x", "u", "strict"))
    assert x | u == every and not x & u and strict < x
    assert len(every) == len(list(subject.components["unet"].parameters()))
    assert all(where.rpartition(".")[2] in ("to_k:weight", "to_v:weight") for where in strict)
    with pytest.raises(ValueError, match="part is 'y'"):
        Esd(part="y")  # pyright: ignore[reportArgumentType]


def test_walks_are_those_of_pictures():
    subject = tiny_sd()
    prompts, seen = CONCEPT.target.fit[:2], []
    with tap(subject, {subject.sites("denoiser_in")[0]: lambda x, m: seen.append((x[2:].clone(), m.timestep))}):
        subject.generate([Query(prompts[0], 7), Query(prompts[1], 8)], SAMPLING)
    pool = collect(subject, prompts, 2, SAMPLING, 7)
    torch.testing.assert_close(pool.inputs, torch.cat([x for x, _ in seen]))
    assert pool.timesteps.tolist() == [t for _, t in seen for _ in range(2)]
    assert pool.prompts == tuple(prompts) * 3
    part = pool.rows(torch.tensor([3, 0]))
    assert part.prompts == (prompts[1], prompts[0]) and torch.equal(part.inputs[1], pool.inputs[0])


@pytest.mark.parametrize("family", DIFFUSION)
def test_predictions_are_those_of_the_walk(family):
    """A tap's prediction on the way equals the one asked for outside: to rounding, or to that of the timestep."""
    subject = DIFFUSION[family]()
    prompts, said = CONCEPT.target.fit[:2], []
    with tap(subject, {subject.sites("denoiser_out")[0]: lambda x, m: said.append(x.clone())}):
        subject.generate([Query(p, 7 + i) for i, p in enumerate(prompts)], Sampling(steps=3, guidance=1.0))
    pool = collect(subject, prompts, 2, Sampling(steps=3, guidance=1.0), 7)
    tolerance = 1e-5 if family == "sd" else 5e-3  # Euler's timesteps are fractions
    torch.testing.assert_close(predictions(subject, pool, pool.prompts), torch.cat(said), atol=tolerance, rtol=1e-2)


@pytest.mark.parametrize("family", DIFFUSION)
def test_the_empty_prompt_is_what_guidance_has_for_it(family):
    """SDXL's guidance reads zeros, of states and pooled embedding, and not what the encoders make of an empty text."""
    subject, said, inputs = DIFFUSION[family](), [], []
    queries, out = [Query(p, i) for i, p in enumerate(CONCEPT.target.fit[:2])], subject.sites("denoiser_out")[0]
    looks = {
        subject.sites("denoiser_in")[0]: lambda x, m: inputs.append((x.clone(), m.timestep)),
        out: lambda x, m: said.append(x.clone()),
    }
    with tap(subject, looks):
        subject.run_to([out], queries, SAMPLING, [0])
    seen, timestep = inputs[0]
    pool = LatentBuffer(seen[:2], torch.full((2,), timestep), tuple(CONCEPT.target.fit[:2]))
    torch.testing.assert_close(predictions(subject, pool, [Prompt("")] * 2), said[0][:2], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(predictions(subject, pool, pool.prompts), said[0][2:], atol=1e-5, rtol=1e-4)
    mixed = encode_prompts(subject, [pool.prompts[0], Prompt("")])  # only the empty one is another
    torch.testing.assert_close(mixed.states[:1], subject.encode(pool.prompts[:1]).states)


@pytest.mark.slow
def test_keeping_costs_nothing_before_anything_is_learned_and_something_after():
    subject = tiny_sd()
    pupil = FullWeights(subject, denoiser_parameters(subject, "strict"))
    only = retain_terms(subject, CONCEPT, ["unrelated"], 1.0)
    assert distil(subject, pupil, only, SHORT, "test")[0] < 1e-9
    moved = DistillationTerm(CONCEPT.target.fit, same_prompt, lambda pool: negative_guidance_target(subject, pool, 3.0))
    distil(subject, pupil, [moved], Training(steps=20, pictures=2, sampling=SAMPLING, rate=0.05), "test")
    goal = collect(subject, CONCEPT.unrelated.fit, 2, SAMPLING, 0)
    frozen = predictions(subject, goal, goal.prompts)
    with pupil.on():
        learned = predictions(subject, goal, goal.prompts)
        with pupil.reference():
            assert torch.equal(predictions(subject, goal, goal.prompts), frozen)
        assert torch.equal(predictions(subject, goal, goal.prompts), learned)
    assert not torch.allclose(learned, frozen, atol=1e-5)
    assert retain_terms(subject, CONCEPT, ["unrelated"], 0.0) == retain_terms(subject, CONCEPT, [], 1.0) == []


def test_a_term_of_a_methods_own_is_added_to_the_lessons():
    subject = tiny_sd()
    addresses = denoiser_parameters(subject, "strict")
    kept = retain_terms(subject, CONCEPT, ["unrelated"], 1.0)
    for lessons in (kept, []):
        pupil = FullWeights(subject, addresses)
        weight = pupil.parameters[addresses[0]]
        size = float(weight.detach().square().sum())

        def own(step: int, generator: torch.Generator, weight: torch.Tensor = weight) -> torch.Tensor:
            return weight.square().sum()

        losses = distil(subject, pupil, lessons, SHORT, "test", own)
        assert losses[0] == pytest.approx(size, rel=1e-5)
        assert losses[-1] < losses[0] and float(pupil.trained[addresses[0]].square().sum()) < size


@pytest.mark.slow
def test_fresh_walks_are_the_students_and_goals_the_frozen_subjects():
    subject, asked = tiny_sd(), []

    def goal(pool):
        asked.append((pool, predictions(subject, pool, pool.prompts)))
        return negative_guidance_target(subject, pool, 3.0)

    pupil = FullWeights(subject, denoiser_parameters(subject, "strict"))
    options = Training(steps=9, refresh=4, pictures=1, sampling=SAMPLING, rate=0.2)
    distil(subject, pupil, [DistillationTerm(CONCEPT.target.fit[:1], same_prompt, goal)], options, "test")
    assert len(asked) == 3
    for pool, said in asked:
        torch.testing.assert_close(said, predictions(subject, pool, pool.prompts))
    frozen = collect(subject, CONCEPT.target.fit[:1], 1, SAMPLING, 4000)
    assert torch.equal(asked[1][0].inputs[0], frozen.inputs[0])  # the same noise
    assert not torch.allclose(asked[1][0].inputs[-1], frozen.inputs[-1], atol=1e-5)  # other steps


def test_a_loss_that_is_no_number_is_refused_and_the_weights_are_back():
    subject = tiny_sd()
    weights = subject.weight_hash()
    lesson = DistillationTerm(CONCEPT.target.fit, same_prompt, lambda pool: torch.full_like(pool.inputs, torch.nan))
    with pytest.raises(FloatingPointError, match="at step 0"):
        distil(subject, FullWeights(subject, denoiser_parameters(subject, "x")), [lesson], SHORT, "test")
    assert subject.weight_hash() == weights


@pytest.mark.slow
@pytest.mark.parametrize("family", DIFFUSION)
def test_adapters_do_what_the_edit_made_of_them_does(family):
    subject = DIFFUSION[family]()
    sites = [s for role in ("cross_key_weight", "cross_value_weight") for s in subject.sites(role)]
    pupil = LowRankAdapters(subject, sites, 2, seed=0)
    lesson = DistillationTerm(
        CONCEPT.target.fit, same_prompt, lambda pool: negative_guidance_target(subject, pool, 3.0)
    )
    before = subject.generate([Query(Prompt("a cat"))], SAMPLING)
    distil(subject, pupil, [lesson], Training(steps=8, pictures=1, sampling=SAMPLING, rate=0.1), "test")
    with pupil.on(), torch.no_grad():
        during = subject.generate([Query(Prompt("a cat"))], SAMPLING)
        with pupil.reference():
            assert torch.equal(subject.generate([Query(Prompt("a cat"))], SAMPLING), before)
    assert torch.equal(subject.generate([Query(Prompt("a cat"))], SAMPLING), before)
    with Edit("test", "cat", pupil.deltas(), subject.weight_hash()).on(subject):
        torch.testing.assert_close(subject.generate([Query(Prompt("a cat"))], SAMPLING), during, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(during, before, atol=1e-4)


@pytest.mark.slow
def test_a_membrane_exports_as_an_adapter_that_peft_loads(tmp_path):
    import copy

    peft = pytest.importorskip("peft")
    subject = tiny_sd()
    edit = Spm(training=Training(steps=4, pictures=1, sampling=SAMPLING, rate=0.1))(subject, CONCEPT)
    assert all(delta.describe()["rank"] == 1 for delta in edit.deltas.values())
    (folder,) = edit.export_lora(tmp_path)
    merged = peft.PeftModel.from_pretrained(copy.deepcopy(subject.components["unet"]), str(folder)).merge_and_unload()
    with edit.on(subject):
        for name, weight in merged.named_parameters():
            torch.testing.assert_close(weight, subject.components["unet"].get_parameter(name), atol=1e-6, rtol=1e-5)


@pytest.mark.slow
def test_bottlenecks_write_nothing_before_training_and_their_formula_after():
    subject = tiny_sd()
    guard = Receler(training=Training(steps=6, pictures=1, sampling=SAMPLING, adversary=1))(subject, CONCEPT)
    site = subject.sites("cross_out")[0]
    d = subject.module(site).to_out[0].out_features  # pyright: ignore
    pupil = Bottlenecks(subject, [site], {site: d}, 4, seed=0)
    x = torch.randn(2, 5, d)
    assert not pupil.written(site, x).any()
    pupil.up[site].data = torch.randn(4, d)
    wanted = torch.stack([torch.nn.functional.gelu(row @ pupil.down[site]) @ pupil.up[site] for row in x.flatten(0, 1)])
    torch.testing.assert_close(pupil.written(site, x), wanted.view_as(x))
    assert set(guard.actions) == set(subject.sites("cross_out"))


@pytest.mark.slow
def test_the_text_encoders_layers_are_trained_and_their_embeddings_are_not():
    subject = tiny_sdxl()
    edit = AdvUnlearn(training=Training(steps=2, pictures=1, sampling=SAMPLING, adversary=1))(subject, CONCEPT)
    assert {where.partition("/")[0] for where in edit.deltas} == {"text_encoder", "text_encoder_2"}
    assert all(".layers.0." in where for where in edit.deltas)
    with pytest.raises(ValueError, match="layer 5"):
        AdvUnlearn(layers=(5,))(subject, CONCEPT)


def test_an_adapter_needs_a_linear_module_or_a_convolution():
    subject = tiny_sd()
    with pytest.raises(ValueError, match="linear modules and convolutions"):
        LowRankAdapters(subject, [Site("unet", "conv_norm_out", "weight")], 1, seed=0)


def test_adapters_beside_convolutions_do_what_the_edit_made_of_them_does():
    """Of every stride and kernel: all that published membranes and sliders stand beside."""
    subject = tiny_sd()
    chosen = ("transformers", "but_cross_attention")
    sites = list(dict.fromkeys(s for modules in chosen for s in adapted_sites(subject, (), modules)))
    pupil = LowRankAdapters(subject, sites, 2, seed=0)
    for i, (u, _) in enumerate(pupil.pairs.values()):
        u.data.copy_(0.02 * torch.randn(u.shape, generator=torch.Generator().manual_seed(i)))
    pool = collect(subject, CONCEPT.target.fit[:1], 1, SAMPLING, 0)
    before = predictions(subject, pool, pool.prompts)
    with pupil.active():
        during = predictions(subject, pool, pool.prompts)
    assert not torch.allclose(during, before, atol=1e-3)
    with Edit("test", "cat", pupil.deltas(), subject.weight_hash()).on(subject):
        torch.testing.assert_close(predictions(subject, pool, pool.prompts), during, atol=1e-5, rtol=1e-4)
    with pytest.raises(ValueError, match="has none of"):
        adapted_sites(tiny_sd3(), (), "transformers")


@pytest.mark.slow
def test_the_adversary_stays_within_reach_leads_back_and_leaves_no_gradients():
    subject = tiny_sd()
    pool = collect(subject, CONCEPT.target.fit[:1], 2, SAMPLING, 0)
    asked = [Prompt("the sun")] * len(pool)
    own = predictions(subject, pool, pool.prompts)
    embeddings = subject.sites("token_embedding")[0]

    def gap(steps: int) -> float:
        generator = torch.Generator().manual_seed(0)
        offsets = adversarial_offsets(subject, pool, asked, own, steps=steps, epsilon=0.8, generator=generator)
        size = float(find_parameter(subject.components, "text_encoder/embeddings.token_embedding:weight").std())
        assert offsets[embeddings].abs().max() < 0.8 * size * 2
        with embeddings_moved(subject, offsets), torch.no_grad():
            condition = subject.encode(asked)
        return float((subject.predict(pool.inputs, pool.timesteps, condition) - own).square().mean())

    with FullWeights(subject, denoiser_parameters(subject, "x")).on():
        assert gap(8) < 0.8 * gap(0)
        assert all(p.grad is None for p in subject.components["unet"].parameters())


def test_offsets_are_added_to_the_first_prompts_alone_and_never_to_bos():
    subject = tiny_sd()
    site = subject.sites("token_embedding")[0]
    seen = []
    with (
        embeddings_moved(subject, {site: torch.ones(1, 20, 16)}),
        tap(subject, {site: lambda x, m: seen.append(x.clone())}),
    ):
        subject.encode([Prompt("a cat"), Prompt("a cat")])
    torch.testing.assert_close(seen[0][0, 1:] - seen[0][1, 1:], torch.ones(19, 16))
    assert torch.equal(seen[0][0, 0], seen[0][1, 0])


def test_spread_is_even():
    prompts = tuple(Prompt(str(i)) for i in range(10))
    assert [p.text for p in evenly(prompts, 5)] == ["0", "2", "4", "6", "8"]
    assert evenly(prompts, 20) == prompts


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_weight_without_a_gradient_stays_in_every_precision(dtype):
    """In float16 the usual eps of Adam is 0, and 0 / 0 would be written into the weight."""
    weight = torch.nn.Parameter(torch.ones(3, dtype=dtype))
    optimiser = adam([{"params": [weight], "lr": 0.1}])
    weight.grad = torch.tensor([0.0, 1.0, -1.0], dtype=dtype)
    optimiser.step()
    assert weight[0] == 1 and weight[1] < 1 < weight[2]
