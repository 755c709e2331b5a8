"""Training: what it finds, what it starts from, what it refuses."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from concept_probe.learn import TrainingStep
from concept_probe.learn.train.initialise import geometric_median
from concept_probe.types import Site
from tests.learn.planted import SITE, Planted, recovery
from tests.learn.training import trained

SMALL: dict[str, Any] = {"site": SITE, "k": 3, "expansion": 4, "batch": 256, "samples": 256 * 40}


def small(**changes: Any) -> dict[str, Any]:
    return {**SMALL, **changes}


@torch.no_grad()
def held_out_fvu(sae, x) -> float:
    return float((x - sae(x)).square().sum() / (x - x.mean(0)).square().sum())


def fired(sae, x) -> int:
    codes = sae.encode(x)
    return len(codes.indices[codes.values > 0].unique())


def sae_lens_trains(planted: Planted, samples: int, rate: float) -> tuple[float, float]:
    """Recovery and FVU of sae-lens's own TopK trainer: same rows, width, k, batch, rate, schedule and start of b_dec.

    sae-lens starts b_dec at 0, from where it cannot reach the rows' offset in so few steps; left so, the comparison
    would be won by the start alone.
    """
    from sae_lens.config import LoggingConfig, SAETrainerConfig
    from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.training.sae_trainer import SAETrainer

    steps = samples // 512
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(planted.seed)
        module = TopKTrainingSAE(TopKTrainingSAEConfig(d_in=planted.d, d_sae=4 * planted.d, k=planted.active))
        module.b_dec.data.copy_(geometric_median(planted.batch(512, 0)))
        config = SAETrainerConfig(
            total_training_samples=samples,
            train_batch_size_samples=512,
            lr=rate,
            lr_end=rate / 10,
            lr_warm_up_steps=steps // 20,
            lr_decay_steps=steps // 5,
            dead_feature_window=steps // 10,
            logger=LoggingConfig(log_to_wandb=False),
        )
        trained = SAETrainer(config, module, planted.batches(512)).fit()
    x = planted.batch(4096, 10**6)
    return recovery(trained.W_dec.detach(), planted.directions), held_out_fvu(trained, x)


@pytest.mark.slow
@pytest.mark.exhaustive
def test_planted_features_are_found_as_well_as_sae_lens_finds_them(capsys):
    """At 5e-3, the best for either of 5e-4, 2e-3 and 5e-3. Margins are about twice the spread over seeds."""
    samples, rate = 500_000, 5e-3
    ours, theirs = [], []
    for seed in range(3):
        planted = Planted(seed=seed)
        options: dict[str, Any] = {"k": 3, "expansion": 4, "samples": samples, "batch": 512, "rate": rate, "seed": seed}
        sae = trained(planted.batches(512), site=SITE, **options)
        x = planted.batch(4096, 10**6)
        ours.append((recovery(sae.decoder, planted.directions), held_out_fvu(sae, x)))
        theirs.append(sae_lens_trains(planted, samples, rate))
    with capsys.disabled():
        for name, results in (("concept_probe", ours), ("sae-lens", theirs)):
            figures = "; ".join(f"{found:.4f}, {unexplained:.4f}" for found, unexplained in results)
            print(f"\nplanted dictionary, {name}: mean largest cosine, FVU per seed: {figures}", end="")
    our_cosine, our_fvu = torch.tensor(ours).mean(0).tolist()
    their_cosine, their_fvu = torch.tensor(theirs).mean(0).tolist()
    assert min(found for found, _ in theirs) > 0.99, "a baseline that fails compares with nothing"
    assert our_cosine > their_cosine - 0.005
    assert our_fvu < their_fvu + 0.005


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1e-3, *(pytest.param(x, marks=pytest.mark.exhaustive) for x in (1.0, 1e3))])
def test_planted_features_are_found_whatever_the_unit_of_the_rows(scale):
    planted = Planted(features=32, d=16, scale=scale)
    sae = trained(planted.batches(256), site=SITE, k=3, expansion=4, samples=200_000, batch=256, rate=4e-3)
    assert recovery(sae.decoder, planted.directions) > 0.97


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.exhaustive) for seed in (1, 2))])
def test_auxk_revives_features_and_without_it_they_stay_dead(seed):
    """b_dec starts from a first batch without the offset of all later ones, and one direction drowns many features.

    With an offset of 1 and more it depends on the seed, and from 3 on nothing is revived.
    """
    rows = Planted(features=256, d=64, active=5, offset=0.0, seed=seed)
    shift = replace(rows, offset=0.5).bias
    held = rows.batch(4096, 10**6) + shift

    def judged(auxk: int | None) -> tuple[int, float]:
        source = (x if i == 0 else x + shift for i, x in enumerate(rows.batches(512)))
        sae = trained(source, site=SITE, k=5, expansion=4, samples=200_000, batch=512, dead_after=10_000, auxk=auxk)
        return sae.width - fired(sae, held), held_out_fvu(sae, held)

    (dead, fvu), (dead_without, fvu_without) = judged(None), judged(0)
    print(f"dead of 256, FVU: {dead}, {fvu:.3f} with AuxK; {dead_without}, {fvu_without:.3f} without")
    assert dead_without >= 30
    assert dead <= dead_without // 4


def test_start_is_the_geometric_median_unit_rows_and_the_transpose():
    """A rate of 0 leaves the start in place."""
    planted = Planted(offset=5.0)
    sae = trained(planted.batches(256), **SMALL, rate=0.0)
    torch.testing.assert_close(sae.bias, geometric_median(planted.batch(256, 0)))
    torch.testing.assert_close(torch.linalg.vector_norm(sae.W_dec, dim=1), torch.ones(128))
    torch.testing.assert_close(sae.W_enc, sae.W_dec.mT)
    assert (sae.b_enc == 0).all()
    spread = ((planted.batch(256, 0) - sae.bias) * sae.scale).square().mean().sqrt()
    assert 2**-0.5 <= spread <= 2**0.5
    assert math.log2(sae.scale).is_integer()


def test_decoder_rows_are_unit_after_training_and_weights_ask_for_no_gradient():
    sae = trained(Planted().batches(256), **SMALL)
    torch.testing.assert_close(torch.linalg.vector_norm(sae.W_dec, dim=1), torch.ones(128))
    assert not any(p.requires_grad or p.grad is not None for p in sae.parameters())


@pytest.mark.slow
def test_same_seed_same_bits_and_the_global_random_state_is_left_alone():
    before = torch.get_rng_state()
    one, two = (trained(Planted().batches(256), **SMALL) for _ in range(2))
    other = trained(Planted().batches(256), **SMALL, seed=1)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.equal(one.W_dec, other.W_dec)


@pytest.mark.slow
def test_the_size_of_the_blocks_of_an_iterator_does_not_matter():
    rows = torch.cat(list(itertools.islice(Planted().batches(256), 41)))
    ragged = iter(rows.split([100, 1, 500, 37, 3000, *[129] * 53, 21]))
    one, two = trained(Planted().batches(256), **SMALL), trained(ragged, **SMALL)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


def test_a_feature_counts_as_dead_after_the_window_and_not_before():
    log: list[TrainingStep] = []
    trained(Planted(features=8, d=16, active=1).batches(256), **small(k=1), dead_after=256 * 10, on_step=log.append)
    assert [s.step for s in log] == list(range(40))
    assert all(s.dead == 0 for s in log[:9]) and all(s.auxk == 0 for s in log[:10])
    assert log[9].dead > 0 and log[10].auxk > 0
    assert log[-1].fvu < log[0].fvu


def test_default_dead_window_is_reached_within_the_run():
    sae = trained(Planted().batches(256), **SMALL)
    dead_after = sae.made_by["dead_after"]
    assert isinstance(dead_after, int) and 0 < dead_after <= SMALL["samples"] // 2


def test_a_dead_window_longer_than_the_run_is_refused():
    with pytest.raises(ValueError, match="dead_after is 10240 rows but the run has only 10240"):
        trained(Planted().batches(256), **SMALL, dead_after=10_240)
    trained(Planted().batches(256), **SMALL, dead_after=10_240, auxk=0)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("step", [0, 7])
def test_rows_that_are_not_finite_name_the_step(bad, step):
    def source():
        for i, x in enumerate(Planted().batches(256)):
            if i == step:
                x[3, 5] = bad
            yield x

    with pytest.raises(FloatingPointError, match=f"planted:out: row 3 of step {step} holds NaN or infinity"):
        trained(source(), **SMALL)


def test_a_batch_without_variance_names_the_step():
    with pytest.raises(FloatingPointError, match="at step 2"):
        trained((x if i < 2 else torch.ones(256, 32) for i, x in enumerate(Planted().batches(256))), **SMALL)
    with pytest.raises(ValueError, match="all 256 rows of the first batch are equal"):
        trained(itertools.repeat(torch.ones(256, 32)), **SMALL)


def test_rows_of_another_width_name_both():
    with pytest.raises(ValueError, match=r"rows of width 31 after rows of width 32"):
        trained((x if i < 4 else x[:, 1:] for i, x in enumerate(Planted().batches(256))), **SMALL)
    with pytest.raises(ValueError, match=r"the source gave a tensor of shape \(256, 4, 8\)"):
        trained((x.reshape(256, 4, 8) for x in Planted().batches(256)), **SMALL)


def test_a_source_that_ends_early_is_an_error():
    with pytest.raises(ValueError, match="ended after 2560 rows of the 10240 asked for"):
        trained(itertools.islice(Planted().batches(256), 10), **SMALL)
    with pytest.raises(ValueError, match="gave no batch of 256 rows"):
        trained([], **SMALL)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"site": None}, "an iterator does not say where its rows come from"),
        ({"k": 0}, "k is 0"),
        ({"k": 129}, "k is 129, more than the 128 features"),
        ({"samples": 100}, "samples is 100, less than one batch of 256"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        trained(Planted().batches(256), **small(**options))


@dataclass(frozen=True)
class TwoSites:
    """The least that a store must offer."""

    planted: Planted
    sites: tuple[Site, ...] = (SITE, Site("unet", "mid_block"))

    def width(self, site: Site) -> int:
        return self.planted.d

    def rows(self, site: Site) -> int:
        return 10**6

    def batches(self, site, size, *, seed=0, epochs=None, start=0):
        return (self.planted.batch(size, i + 10**6 * seed) for i in itertools.count(start))


def test_a_store_with_several_sites_must_be_told_which():
    store = TwoSites(Planted())
    with pytest.raises(ValueError, match="hold 2 sites; pass site= one of synthetic/planted:out, unet/mid_block:out"):
        trained(store, **small(site=None))
    with pytest.raises(LookupError, match=r"site 'unet/mid_blok:out' not found; nearest: 'unet/mid_block:out'"):
        trained(store, **small(site=Site("unet", "mid_blok")))
    assert trained(store, **small(site=store.sites[1])).site == store.sites[1]
