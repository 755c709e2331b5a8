"""Guards that see before they act: against loops, autograd, and pictures where the answer is plain."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from concept_probe.capture import tap
from concept_probe.erase import Cgce, Intervention, Irece, NegativePrompt, PatchReplacement, Uce
from concept_probe.erase.attention import attention
from concept_probe.erase.cgce import per_prompt, refined
from concept_probe.erase.irece import Locator, Region, disturbed, laid_out, unedited
from concept_probe.erase.negative_prompt import Asker
from concept_probe.erase.patch_replacement import Detector, Replacer, distinct, firing
from concept_probe.families import UNetSubject
from concept_probe.find import Rows, concept_rows
from concept_probe.find.probes import Probe, fit_probe
from concept_probe.learn.sae import Sae, TopK
from concept_probe.types import Moment, Prompt, Query, Sampling, Score, Site, Subspace
from tests.tiny import FAMILIES, tiny_concept, tiny_sd

CONCEPT = tiny_concept()
SAMPLING = Sampling(steps=3, guidance=3.0, batch=8)
QUERIES = [Query(Prompt("a cat"), 1), Query(Prompt("the sun"), 2)]


def sae_at(site: Site, d: int) -> Sae:
    rows = torch.nn.functional.normalize(torch.randn(2 * d, d, generator=torch.Generator().manual_seed(3)), dim=1)
    return Sae(site, TopK(3), W_enc=rows.mT.contiguous(), b_enc=torch.zeros(2 * d), W_dec=rows, b_dec=torch.zeros(d))


def at(subject: UNetSubject, site: Site) -> Tensor:
    """What the first step of QUERIES holds at a site: two unconditional rows, then two conditional ones."""
    seen: list[Tensor] = []

    def look(x: Tensor, moment: Moment) -> None:
        if not moment.aside:
            seen.append(x.clone())

    with tap(subject, {site: look}):
        subject.run_to([site], QUERIES, SAMPLING, [0])
    return seen[0]


def test_a_patch_counts_where_its_features_together_exceed_the_floor_of_the_nearest_step():
    sae, x = sae_at(Site("unet", "x"), 6), torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(1))
    features = torch.tensor([[0, 4], [7, 2]])
    codes = sae.encode(x)
    seen = Detector(sae, torch.tensor([900, 300]), features, torch.tensor([0.2, 0.5]))(
        x, Moment((0, 1), ("cond",) * 2, 1, 320)
    )
    for row in range(2):
        for patch in range(5):
            pairs = zip(codes.indices[row, patch].tolist(), codes.values[row, patch].tolist(), strict=True)
            total = sum(value for index, value in pairs if index in (7, 2))
            assert bool(seen[row, patch]) == (total > 0.5)
    assert seen.any() and not seen.all()


@pytest.mark.parametrize("family", FAMILIES)
def test_seen_patches_are_those_of_a_pass_without_the_concept(family):
    subject = FAMILIES[family]()
    site = subject.sites("cross_out")[0]
    before = at(subject, site)
    with torch.no_grad():
        alone = [Query(Prompt("a dog"), 1), Query(Prompt("a dog"), 2)]
        others: list[Tensor] = []
        with tap(subject, {site: lambda x, m: others.append(x.clone())}):
            subject.run_to([site], alone, SAMPLING, [0])
    mask = torch.zeros(2, before.shape[1], dtype=torch.bool)
    mask[0, 1], mask[1, 2:4] = True, True
    guard = Intervention("p", "cat", {site: Replacer(Asker(subject, "a dog", "p")).where(site, lambda x, m: mask)})
    with guard.on(subject):
        after = at(subject, site)
    wanted = torch.where(mask[..., None], others[0][2:], before[2:])
    torch.testing.assert_close(after[2:], wanted, atol=1e-4, rtol=1e-3)
    assert torch.equal(after[:2], before[:2])
    assert torch.equal(after[2:][~mask], before[2:][~mask])


def test_the_prediction_is_replaced_where_patches_of_the_same_pass_were_seen():
    subject = tiny_sd()
    site, out = subject.sites("cross_out")[0], subject.sites("denoiser_out")[0]
    before, patches = at(subject, out), at(subject, site).shape[1]
    side = round(patches**0.5)

    def sees(x: Tensor, moment: Moment) -> Tensor:
        mask = torch.zeros(len(x), patches, dtype=torch.bool)
        mask[:, 0] = True  # the upper left patch
        return mask

    replacer = Replacer(Asker(subject, "", "p"))
    with Intervention("p", "cat", {site: replacer.seeing(sees), out: replacer.replacing(out)}).on(subject):
        after = at(subject, out)
    corner = before.shape[-1] // side
    moved = (after != before).any(1)
    assert not moved[:2].any() and moved[2:, :corner, :corner].any()
    moved[2:, :corner, :corner] = False
    assert not moved.any()
    # The empty prompt's prediction is the unconditional one of the same pass.
    torch.testing.assert_close(after[2:, :, :corner, :corner], before[:2, :, :corner, :corner], atol=1e-4, rtol=1e-3)


def test_patches_that_were_seen_are_replaced_though_another_guard_asks_meanwhile():
    subject = tiny_sd()
    site, out = subject.sites("cross_out")[0], subject.sites("denoiser_out")[0]
    other = NegativePrompt("a dog")(subject, CONCEPT)
    replacer = Replacer(Asker(subject, "the sun", "p"))

    def sees(x: Tensor, moment: Moment) -> Tensor:
        return torch.full(x.shape[:2], "cond" in moment.branches)

    guard = Intervention("p", "cat", {site: replacer.seeing(sees), out: replacer.replacing(out)})
    with other.on(subject):
        before = at(subject, out)
        with guard.on(subject):
            after = at(subject, out)
    assert torch.equal(after[:2], before[:2]) and (after[2:] != before[2:]).any()


def test_patch_replacement_says_what_it_lacks():
    with pytest.raises(ValueError, match="needs features of a sparse autoencoder over patches"):
        PatchReplacement()(tiny_sd(), CONCEPT)
    with pytest.raises(ValueError, match="one of site, prediction"):
        PatchReplacement(at="everywhere")(tiny_sd(), CONCEPT)  # pyright: ignore[reportArgumentType]


def test_floors_are_quantiles_of_other_prompts_and_features_fire():
    subject = tiny_sd()
    site = subject.sites("cross_out")[0]
    sae = sae_at(site, at(subject, site).shape[-1])
    space = Subspace(site, sae.decoder[:1].mT, "activation", Score("test", 1.0, 1.0, 1.0, 1), features=(0,), codec=sae)
    guard = PatchReplacement(count=3, quantile=0.5, sampling=SAMPLING, limit=2)(subject, CONCEPT, (space,))
    chosen, floors = (guard.made_by[k][str(site)] for k in ("features", "floors"))
    assert len(chosen) == len(floors) == SAMPLING.steps and all(len(set(row)) == 3 for row in chosen)
    x = at(subject, site)[2:]
    assert firing(sae, x, torch.tensor(chosen[0])).max() > 0


def test_features_that_never_fire_on_the_concept_are_not_chosen():
    """Four features, one per axis: the concept fires two of them, another thing all."""
    sae = Sae(
        Site("unet", "x"), TopK(4), W_enc=torch.eye(4), b_enc=torch.zeros(4), W_dec=torch.eye(4), b_dec=torch.zeros(4)
    )
    x = torch.tensor([[3.0, 1.0, -1.0, -1.0], [2.0, 1.0, -1.0, -1.0], [0.5, 0.5, 0.5, 0.0]])
    one, concept = torch.zeros(3, dtype=torch.long), torch.tensor([True, True, False])
    rows = Rows(x, concept, one, one - 1, torch.arange(3), one, (~concept).long())
    assert set(distinct(sae, rows, 4)[0].tolist()) == {0, 1} and distinct(sae, rows, 2).tolist() == [[0, 1]]


def test_a_step_of_cgce_follows_the_gradient_of_its_loss():
    generator = torch.Generator().manual_seed(0)
    probe = Probe(torch.randn(6, generator=generator), torch.tensor(0.3), 0.0)
    x = torch.randn(4, 6, generator=generator, requires_grad=True)
    loss = -torch.log1p(-probe(x).sigmoid()).sum()
    (gradient,) = torch.autograd.grad(loss, x)
    moved = refined(x, probe, goal=-50.0, rate=0.05, steps=1) - x.detach()
    torch.testing.assert_close(moved.norm(dim=-1), 0.05 * x.detach().norm(dim=-1))
    assert torch.allclose(torch.cosine_similarity(moved, -gradient, dim=-1), torch.ones(4), atol=1e-5)


def test_cgce_ends_at_its_goal_and_leaves_what_is_there_already():
    probe = Probe(torch.tensor([2.0, 0.0]), torch.tensor(0.0), 0.0)
    x = torch.tensor([[3.0, 1.0], [-4.0, 1.0], [0.5, 7.0]])
    out = refined(x, probe, goal=-1.0, rate=0.1, steps=100)
    torch.testing.assert_close(probe(out), torch.tensor([-1.0, -8.0, -1.0]))
    assert torch.equal(out[1], x[1]) and torch.equal(out[:, 1], x[:, 1])
    assert probe(refined(x, probe, goal=-1.0, rate=0.1, steps=2))[0] > -1.0  # too few steps to arrive


def test_cgce_changes_prompts_that_its_probe_sees_and_no_others():
    subject = tiny_sd()
    site = subject.sites("text_out")[0]
    rows = concept_rows(subject, CONCEPT, [site], "fit", sources=("target", "unrelated"))[site]
    probe = fit_probe(rows.x, rows.concept, penalty=1e-4)
    logits, _ = per_prompt(probe, rows)
    least = float(logits.median())  # half of the prompts are caught, whichever they are
    guard = Intervention("cgce", "cat", {site: Cgce()._action(probe, least)})
    probes = guard.actions[site]
    prompts = [*CONCEPT.target.fit, *CONCEPT.unrelated.fit]
    before = subject.encode(prompts).states
    with guard.on(subject):
        after = subject.encode(prompts).states
    changed = (after != before).flatten(1).any(1)
    away = (logits - least).abs() > 1e-3  # the median itself may fall on either side
    assert torch.equal(changed[away], (logits > least)[away]) and 0 < changed.sum() < len(prompts)
    assert torch.equal(after[:, 0], before[:, 0])  # the beginning token is the same for every prompt
    moment = Moment((0,), ("uncond",), token_kinds=subject.tokenise(prompts[:1]).kinds)
    assert probes(before[:1], moment) is None  # guidance's own prompt is left alone


def test_attention_to_the_name_is_the_mean_over_heads_and_layers():
    subject = tiny_sd()
    locator, out = Locator(subject, "cat", "irece"), subject.sites("denoiser_out")[0]
    got, inputs = [], []

    def look(x: Tensor, moment: Moment) -> None:
        found = locator([2, 3], (8, 8)) if "cond" in moment.branches else None
        if found is not None:
            got.append(found)

    with tap(
        subject, {out: look, subject.sites("denoiser_in")[0]: lambda x, m: inputs.append((x.clone(), m.timestep))}
    ):
        subject.run_to([out], QUERIES, SAMPLING, [0])
    latents, timestep = inputs[0]
    condition = subject.encode([Prompt("cat")]).rows(torch.zeros(2, dtype=torch.long))
    with torch.no_grad(), attention(subject) as maps:
        subject.predict(latents[2:], torch.full((2,), timestep), condition)
    wanted = 0
    for layer in maps:  # token 1 is the name, behind the beginning token
        side = round(layer.shape[2] ** 0.5)
        square = layer[..., 1].mean(1).view(2, 1, side, side)
        wanted = wanted + torch.nn.functional.interpolate(square, (8, 8), mode="bilinear", align_corners=False)[
            :, 0
        ] / len(maps)
    torch.testing.assert_close(got[0], wanted, atol=1e-5, rtol=1e-4)


def test_a_name_that_is_given_is_taken_whole():
    given = Irece(text="a cat, a dog", limit=1, sampling=SAMPLING)(tiny_sd(), CONCEPT)
    assert given.made_by["options"]["text"] == "a cat, a dog"
    assert Irece(limit=1, sampling=SAMPLING)(tiny_sd(), CONCEPT).made_by["options"]["text"] == "cat"


def test_patches_keep_the_ratio_of_the_sides():
    assert laid_out(torch.arange(8.0)[None], (4, 8)).shape == (1, 4, 8)
    assert torch.equal(laid_out(torch.arange(8.0)[None], (2, 4))[0], torch.arange(8.0).view(2, 4))


def test_the_level_of_disturbed_latents_stays():
    x = 5 * torch.randn(3, 4, 32, 32, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    out = disturbed(x, noise, 0.7)
    torch.testing.assert_close(out.flatten(1).std(1), x.flatten(1).std(1), rtol=0.05, atol=0.0)
    assert torch.equal(disturbed(x, noise, 0.0), x)


@pytest.mark.parametrize("family", FAMILIES)
def test_only_the_region_and_only_early_steps_are_disturbed(family):
    subject = FAMILIES[family]()
    region = Region(Locator(subject, "cat", "irece"), {999: 0.0}, Irece(until=0.5))
    walk = walk_of(subject)
    before = walk.latents.clone()
    region.seen = torch.zeros(2, 8, 8, dtype=torch.bool)
    region.seen[1, 2:5, 3] = True
    moved = region.disturb(walk, 1)
    assert moved is not None and (moved[1, :, 2:5, 3] != 0).all()
    moved[1, :, 2:5, 3] = 0
    assert not moved.any() and torch.equal(walk.latents, before)
    region.seen = torch.ones(2, 8, 8, dtype=torch.bool)
    assert region.disturb(walk, 2) is None  # 2 of 3 steps is behind half of them


def test_what_was_seen_in_a_step_outlasts_the_passes_of_other_guards():
    subject = tiny_sd()
    out = subject.sites("denoiser_out")[0]
    region = Region(Locator(subject, "cat", "irece"), {999: 0.0}, Irece())
    guard = Intervention("irece", "cat", {out: region.see}, between=region.disturb)
    with guard.on(subject), NegativePrompt("a dog")(subject, CONCEPT).on(subject):
        subject.run_to([out], QUERIES, SAMPLING, [0])
    assert region.seen is not None and region.seen.shape == (2, *subject.latent_shape[1:]) and region.seen.all()


def walk_of(subject: UNetSubject):
    from concept_probe.families.denoise import Walk

    return Walk.start(
        subject.pipeline.scheduler, [1, 2], subject.latent_shape, steps=3, device=subject.device, dtype=subject.dtype
    )


def test_the_place_is_found_with_the_weights_before_the_edit():
    subject = tiny_sd()
    weights = subject.weight_hash()
    edit = Uce()(subject, CONCEPT)
    with edit.on(subject):
        edited = subject.weight_hash()
        with unedited(subject):
            assert subject.weight_hash() == weights
        assert subject.weight_hash() == edited != weights


def test_a_guard_between_steps_scales_and_ends():
    subject = tiny_sd()
    site = subject.sites("denoiser_out")[0]
    before = subject.generate(QUERIES, SAMPLING)
    seen: list[Tensor] = []

    def between(walk, step):
        seen.append(walk.latents.clone())
        return torch.ones_like(walk.latents) if step == 0 else None

    guard = Intervention("between", "cat", {}, 0.5, between=between)
    with guard.on(subject):
        during = subject.generate(QUERIES, SAMPLING)
    inputs: list[Tensor] = []
    with (
        guard.scaled(3.0).on(subject),
        tap(subject, {subject.sites("denoiser_in")[0]: lambda x, m: inputs.append(x.clone())}),
    ):
        subject.generate(QUERIES, SAMPLING)
    torch.testing.assert_close(inputs[1][2:], seen[0] + 1.5)
    assert not torch.equal(during, before) and torch.equal(subject.generate(QUERIES, SAMPLING), before)
    assert subject.steerings == () and site.component == "unet"
    with replace(guard, strength=0.0).on(subject):
        assert torch.equal(subject.generate(QUERIES, SAMPLING), before)
