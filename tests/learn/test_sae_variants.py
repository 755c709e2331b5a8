"""BatchTopK, Matryoshka, transcoders, and several autoencoders on one pass: what each is for, on planted features."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from concept_probe.learn import BatchTopK, Run, Sae, Transcoder, load_sae
from concept_probe.learn.interop import load_transcoder
from concept_probe.types import Site
from tests.learn.planted import SITE, Planted, recovery
from tests.learn.training import trained, trained_together, trained_transcoder

TARGET = Site("synthetic", "written")
OPTIONS: dict[str, Any] = {"k": 3, "expansion": 4, "samples": 200_000, "batch": 256, "rate": 4e-3}
PLANTED = Planted(features=32, d=16)


def equal(one: torch.nn.Module, two: torch.nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))


def unexplained(y: torch.Tensor, written: torch.Tensor) -> float:
    return float((y - written).square().sum() / (y - y.mean(0)).square().sum())


@pytest.fixture(scope="module")
def batchtopk() -> Sae:
    sae = trained(PLANTED.batches(256), site=SITE, rule="batchtopk", **OPTIONS)
    assert isinstance(sae, Sae)
    return sae


@pytest.mark.slow
def test_batchtopk_finds_planted_features_and_its_threshold_keeps_k_on_average(batchtopk):
    assert isinstance(batchtopk.activation, BatchTopK)
    x = PLANTED.batch(4096, 10**6)
    assert recovery(batchtopk.decoder, PLANTED.directions) > 0.95
    fired = (batchtopk.encode(x).values > 0).sum(1).double()
    assert 2.4 < fired.mean() < 3.6
    # with no threshold nearly all positive pre-activations would fire
    assert (batchtopk.pre_activations(x) > 0).sum(1).double().mean() > 6
    assert unexplained(x, batchtopk(x)) < 0.2


@pytest.mark.slow
def test_a_rows_codes_do_not_depend_on_its_batch(batchtopk):
    x = PLANTED.batch(64, 7)
    whole, alone = batchtopk.encode(x).dense(batchtopk.width), batchtopk.encode(x[:1]).dense(batchtopk.width)
    torch.testing.assert_close(whole[:1], alone)


@pytest.mark.slow
def test_batchtopk_survives_the_disk_and_is_jumprelu_to_sae_lens(batchtopk, tmp_path):
    import sae_lens

    from concept_probe.learn import save_sae

    save_sae(batchtopk, tmp_path)
    again = load_sae(tmp_path)
    assert isinstance(again.activation, BatchTopK) and again.activation.k == 3
    x = PLANTED.batch(64, 7)
    torch.testing.assert_close(again(x), batchtopk(x))
    theirs = sae_lens.SAE.load_from_disk(tmp_path)
    torch.testing.assert_close(theirs.encode(x), batchtopk.encode(x).dense(batchtopk.width), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_matryoshka_prefixes_reconstruct_better_than_those_of_plain_training():
    prefixes = (8, 24, 64)
    plain, nested = (trained(PLANTED.batches(256), site=SITE, prefixes=p, **OPTIONS) for p in ((), prefixes))
    x = PLANTED.batch(4096, 10**6)

    def with_first(sae, count: int) -> float:
        codes = sae.encode(x).dense(sae.width)
        codes[:, count:] = 0
        return unexplained(x, codes @ sae.decoder + sae.bias)

    for count in prefixes[:2]:
        assert with_first(nested, count) < with_first(plain, count) - 0.05
    assert with_first(nested, 64) < 0.5


@pytest.mark.slow
@pytest.mark.parametrize("rule", [pytest.param("topk", marks=pytest.mark.exhaustive), "batchtopk"])
def test_a_transcoder_learns_what_one_site_computes_from_another(tmp_path, rule):
    """The target is the planted codes written along other directions, of another width and scale."""
    other = Planted(features=32, d=24, seed=9).directions * 5

    def pairs(number: int) -> dict[Site, torch.Tensor]:
        x = PLANTED.batch(256, number)
        codes = (x - PLANTED.bias) @ torch.linalg.pinv(PLANTED.directions)
        return {SITE: x, TARGET: codes @ other + 3.0}

    source = (pairs(i) for i in range(800))
    made = trained_transcoder(source, (SITE, TARGET), folder=tmp_path, rule=rule, **OPTIONS)
    assert isinstance(made, Transcoder) and (made.d, made.d_out) == (16, 24)
    held = pairs(10**6)
    assert unexplained(held[TARGET], made(held[SITE])) < 0.35
    assert unexplained(held[TARGET], held[TARGET].mean(0).expand_as(held[TARGET])) == pytest.approx(1.0)
    again = load_transcoder(tmp_path)
    torch.testing.assert_close(again(held[SITE]), made(held[SITE]))
    if rule == "batchtopk":
        import sae_lens

        theirs = sae_lens.SAE.load_from_disk(tmp_path)
        torch.testing.assert_close(theirs(held[SITE]), made(held[SITE]), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_several_on_one_pass_end_in_the_bits_of_each_alone(tmp_path):
    options: dict[str, Any] = {"samples": 256 * 40, "batch": 256}
    runs = {
        "k2": Run(SITE, k=2, expansion=2),
        "wide": Run(SITE, k=3, expansion=8, seed=5),
        "batch": Run(SITE, k=3, expansion=4, rule="batchtopk"),
    }
    read = []

    def counted():
        for x in PLANTED.batches(256):
            read.append(len(x))
            yield x

    together = trained_together(counted(), runs, folder=tmp_path, **options)
    assert sum(read) <= 256 * 42, "the rows were read once for all"
    for name, run in runs.items():
        alone = trained(
            PLANTED.batches(256), site=SITE, k=run.k, expansion=run.expansion, rule=run.rule, seed=run.seed, **options
        )
        assert equal(together[name], alone)
        assert equal(load_sae(tmp_path / name), alone)


def test_what_cannot_be_trained_is_refused():
    with pytest.raises(ValueError, match=r"prefixes are \(8, 30\); they must grow from above 0 and end at all 64"):
        trained(PLANTED.batches(256), site=SITE, prefixes=(8, 30), **OPTIONS)
    with pytest.raises(ValueError, match="rule is 'top'; it is one of topk, batchtopk"):
        trained(PLANTED.batches(256), site=SITE, rule="top", **OPTIONS)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="rows of several sites are asked for: synthetic/planted:out, synthetic/writ"):
        trained_transcoder(PLANTED.batches(256), (SITE, TARGET), **OPTIONS)
    with pytest.raises(ValueError, match="no run was given"):
        trained_together(PLANTED.batches(256), {})


@pytest.mark.slow
def test_a_transcoder_is_trained_on_the_same_rows_of_two_sites_of_a_store():
    """What the text encoder's MLP computes: with rows of the two sites mixed up, nothing could be learned."""
    from concept_probe.activations import capture
    from concept_probe.testing.concepts import tiny_concept
    from concept_probe.testing.models.diffusion import tiny_sd

    subject, concept = tiny_sd(), tiny_concept()
    reads, writes = subject.sites("text_mlp_hidden")[0], subject.sites("text_mlp_out")[0]
    prompts = [*concept.unrelated.fit, *concept.neighbours.fit, *concept.target.fit]
    store = capture(subject, prompts, sites=[reads, writes])
    made = trained_transcoder(store, (reads, writes), k=16, expansion=2, samples=60_000, batch=64, rate=4e-3)
    assert isinstance(made, Transcoder) and (made.site, made.target) == (reads, writes)
    x, y = store.read(reads).x, store.read(writes).x
    assert unexplained(y, made(x)) < 0.5 < unexplained(y, made(x.roll(7, 0)))
