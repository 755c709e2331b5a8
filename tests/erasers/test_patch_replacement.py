"""Patch replacement: seen patches against loops, replaced ones against a walk that was asked for the other text."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from concept_probe.activations import tap
from concept_probe.erasers import Intervention, NegativePrompt, PatchReplacement
from concept_probe.erasers.guards.patch_replacement import PatchDetector, Replacer, distinctive_features, summed_firing
from concept_probe.erasers.guards.requery import Requery
from concept_probe.families import UNetSubject
from concept_probe.find import ConceptRows
from concept_probe.learn.sae import Sae, TopK
from concept_probe.testing.concepts import tiny_concept
from concept_probe.testing.models.diffusion import DIFFUSION, tiny_sd
from concept_probe.types import Moment, Prompt, Query, Sampling, Score, Site, Subspace

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
        if not moment.nested:
            seen.append(x.clone())

    with tap(subject, {site: look}):
        subject.run_to([site], QUERIES, SAMPLING, [0])
    return seen[0]


def test_a_patch_counts_where_its_features_together_exceed_the_floor_of_the_nearest_step():
    sae, x = sae_at(Site("unet", "x"), 6), torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(1))
    features = torch.tensor([[0, 4], [7, 2]])
    codes = sae.encode(x)
    seen = PatchDetector(sae, torch.tensor([900, 300]), features, torch.tensor([0.2, 0.5]))(
        x, Moment((0, 1), ("cond",) * 2, 1, 320)
    )
    for row in range(2):
        for patch in range(5):
            pairs = zip(codes.indices[row, patch].tolist(), codes.values[row, patch].tolist(), strict=True)
            total = sum(value for index, value in pairs if index in (7, 2))
            assert bool(seen[row, patch]) == (total > 0.5)
    assert seen.any() and not seen.all()


@pytest.mark.parametrize("family", DIFFUSION)
def test_seen_patches_are_those_of_a_pass_without_the_concept(family):
    subject = DIFFUSION[family]()
    site = subject.sites("cross_out")[0]
    before = at(subject, site)
    with torch.no_grad():
        alone = [Query(Prompt("a dog"), 1), Query(Prompt("a dog"), 2)]
        others: list[Tensor] = []
        with tap(subject, {site: lambda x, m: others.append(x.clone())}):
            subject.run_to([site], alone, SAMPLING, [0])
    mask = torch.zeros(2, before.shape[1], dtype=torch.bool)
    mask[0, 1], mask[1, 2:4] = True, True
    guard = Intervention("p", "cat", {site: Replacer(Requery(subject, "a dog")).where(site, lambda x, m: mask)})
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

    replacer = Replacer(Requery(subject, ""))
    with Intervention("p", "cat", {site: replacer.seeing(sees), out: replacer.replacing(out)}).on(subject):
        after = at(subject, out)
    corner = before.shape[-1] // side
    moved = (after != before).any(1)
    assert not moved[:2].any() and moved[2:, :corner, :corner].any()
    moved[2:, :corner, :corner] = False
    assert not moved.any()
    # The empty prompt's prediction is the unconditional one of the same pass.
    torch.testing.assert_close(after[2:, :, :corner, :corner], before[:2, :, :corner, :corner], atol=1e-4, rtol=1e-3)


@pytest.mark.slow
def test_patches_that_were_seen_are_replaced_though_another_guard_asks_meanwhile():
    subject = tiny_sd()
    site, out = subject.sites("cross_out")[0], subject.sites("denoiser_out")[0]
    other = NegativePrompt("a dog")(subject, CONCEPT)
    replacer = Replacer(Requery(subject, "the sun"))

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


@pytest.mark.slow
def test_floors_are_quantiles_of_other_prompts_and_features_fire():
    subject = tiny_sd()
    site = subject.sites("cross_out")[0]
    sae = sae_at(site, at(subject, site).shape[-1])
    space = Subspace(site, sae.decoder[:1].mT, "activation", Score("test", 1.0, 1.0, 1.0, 1), features=(0,), codec=sae)
    guard = PatchReplacement(count=3, quantile=0.5, sampling=SAMPLING, limit=2)(subject, CONCEPT, (space,))
    chosen, floors = (guard.made_by[k][str(site)] for k in ("features", "floors"))
    assert len(chosen) == len(floors) == SAMPLING.steps and all(len(set(row)) == 3 for row in chosen)
    x = at(subject, site)[2:]
    assert summed_firing(sae, x, torch.tensor(chosen[0])).max() > 0


def test_features_that_never_fire_on_the_concept_are_not_chosen():
    """Four features, one per axis: the concept fires two of them, another thing all."""
    sae = Sae(
        Site("unet", "x"), TopK(4), W_enc=torch.eye(4), b_enc=torch.zeros(4), W_dec=torch.eye(4), b_dec=torch.zeros(4)
    )
    x = torch.tensor([[3.0, 1.0, -1.0, -1.0], [2.0, 1.0, -1.0, -1.0], [0.5, 0.5, 0.5, 0.0]])
    one, concept = torch.zeros(3, dtype=torch.long), torch.tensor([True, True, False])
    rows = ConceptRows(x, concept, one, one - 1, torch.arange(3), one, (~concept).long())
    assert set(distinctive_features(sae, rows, 4)[0].tolist()) == {0, 1} and distinctive_features(
        sae, rows, 2
    ).tolist() == [[0, 1]]
