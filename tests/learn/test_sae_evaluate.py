"""Judging: figures against their definition, controls that tell good from bad, overlap refused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from concept_probe.activations import CaptureOptions, capture
from concept_probe.learn import Sae, TopK, card, evaluate_sae
from concept_probe.learn.judge.downstream import Coverage, replacing
from concept_probe.testing.models.diffusion import DIFFUSION, tiny_sd
from concept_probe.types import Moment, Prompt, Query, Sampling, Score, Site, unit
from tests.learn.planted import SITE, Planted
from tests.learn.training import trained

FIT = [Prompt(f"a {w}") for w in ("cat", "dog", "sun", "red thing", "picture of the sun", "red dog in the sun")]
TEST = [Prompt(f"the {w} of a dog") for w in ("cat", "sun", "thing", "red cat", "picture", "red sun")]
FAST = Sampling(steps=2, guidance=2.0)


@dataclass(frozen=True)
class Rows:
    x: Tensor
    columns: Mapping[str, Tensor]


@dataclass(frozen=True)
class Held:
    """Held-out rows that were not captured."""

    rows: Rows
    prompts: tuple[Prompt, ...]
    sites: tuple[Site, ...] = (SITE,)

    def width(self, site: Site) -> int:
        return self.rows.x.shape[1]

    def read(self, site: Site, *, columns: bool = True) -> Rows:
        return self.rows


def held(x: Tensor, per_prompt: int = 64) -> Held:
    owner = torch.arange(len(x)) // per_prompt
    prompts = tuple(Prompt(f"prompt {i}") for i in range(int(owner.max()) + 1))
    return Held(Rows(x, {"prompt": owner}), prompts)


def oracle(planted: Planted, extra: int = 16) -> Sae:
    """An autoencoder that knows the planted directions, with `extra` features that never fire."""
    W_dec = torch.cat([planted.directions, unit(torch.randn(extra, planted.d), dim=1)])
    b_enc = torch.cat([torch.zeros(planted.features), torch.full((extra,), -1e4)])
    return Sae(SITE, TopK(planted.active), W_enc=W_dec.mT.clone(), b_enc=b_enc, W_dec=W_dec, b_dec=planted.bias)


def by_name(scores: tuple[Score, ...]) -> dict[str, Score]:
    return {s.name: s for s in scores}


def test_figures_are_their_definitions():
    planted = Planted(features=24, d=48, active=2)
    sae, x = oracle(planted), planted.batch(1024, 0)
    got = by_name(evaluate_sae(sae, held(x)))
    fires = sae.encode(x).dense(sae.width) > 0
    assert got["fvu"].value == pytest.approx(
        float((x - sae(x)).square().sum() / (x - x.mean(0)).square().sum()), rel=1e-4
    )
    assert got["l0"].value == pytest.approx(float(fires.sum(1).float().mean()))
    assert got["dead"].value == pytest.approx(float((~fires.any(0)).float().mean()))
    assert got["dead"].value == 16 / 40
    for score in got.values():
        assert score.low <= score.value <= score.high and score.n == 16


def test_an_untrained_control_is_worse_than_one_that_knows():
    planted = Planted(features=24, d=48, active=2)
    score = evaluate_sae(oracle(planted), held(planted.batch(1024, 0)))[0]
    assert score.high < 0.3 and score.control is not None and score.control > 0.5


@pytest.mark.slow
def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    planted = Planted(features=24, d=48, active=2)
    sae = oracle(planted)
    truth = evaluate_sae(sae, held(planted.batch(40_000, 999)), draws=10)[0].value
    scores = [evaluate_sae(sae, held(planted.batch(640, i), per_prompt=16), draws=300)[0] for i in range(60)]
    assert 0.85 <= sum(s.low <= truth <= s.high for s in scores) / len(scores) <= 1.0


def test_prompts_seen_in_training_are_refused():
    @dataclass(frozen=True)
    class Store:
        prompts: tuple[Prompt, ...] = (Prompt("prompt 1"), Prompt("other"))
        sites: tuple[Site, ...] = (SITE,)

        def width(self, site):
            return 32

        def rows(self, site):
            return 10**6

        def batches(self, site, size, *, seed=0, epochs=None, start=0):
            return Planted().batches(size)

    sae = trained(Store(), k=3, expansion=2, samples=640, batch=64)
    with pytest.raises(ValueError, match=r"1 prompts were used to train .* cannot judge it: 'prompt 1'"):
        evaluate_sae(sae, held(Planted().batch(256, 0)))


def test_rows_that_are_not_finite_and_a_single_prompt_are_refused():
    sae, x = oracle(Planted()), Planted().batch(256, 0)
    with pytest.raises(ValueError, match="rows of 1 prompt; an interval needs at least two"):
        evaluate_sae(sae, held(x, per_prompt=256))
    x[17, 2] = torch.nan
    with pytest.raises(FloatingPointError, match="row 17 holds NaN"):
        evaluate_sae(sae, held(x))


def test_another_width_or_site_names_both():
    sae = oracle(Planted())
    with pytest.raises(ValueError, match="has width 32, the activations there have width 31"):
        evaluate_sae(sae, held(Planted().batch(256, 0)[:, 1:]))
    elsewhere = Held(held(Planted().batch(256, 0)).rows, (Prompt("x"),), (Site("unet", "mid_block"),))
    with pytest.raises(ValueError, match=r"is for site synthetic/planted:out; the activations hold unet/mid_block:out"):
        evaluate_sae(sae, elsewhere)


@pytest.fixture(scope="module", params=list(DIFFUSION))
def subject(request):
    return DIFFUSION[request.param]()


def exact(site: Site, d: int, mean: Tensor) -> Sae:
    """2 d features that write any row exactly: one for each sign of each coordinate."""
    W_dec = torch.cat([torch.eye(d), -torch.eye(d)])
    return Sae(site, TopK(d), W_enc=W_dec.mT.clone(), b_enc=torch.zeros(2 * d), W_dec=W_dec, b_dec=mean)


@pytest.mark.parametrize("role", ["text_stream", "text_mlp_hidden"])
def test_downstream_text_is_0_for_an_exact_autoencoder_and_1_for_the_mean(subject, role):
    site = subject.sites(role)[0]
    acts = capture(subject, TEST, sites=[site])
    x = acts.read(site).x
    good = exact(site, x.shape[1], x.mean(0))
    score = by_name(evaluate_sae(good, acts, subject=subject, queries=TEST))["downstream"]
    assert score.value < 1e-6 and score.control == 1.0 and score.n == len(TEST) and "text states" in score.unit
    good.b_enc.fill_(-1e6)  # nothing fires: the reconstruction is the mean itself
    score = by_name(evaluate_sae(good, acts, subject=subject, queries=TEST))["downstream"]
    assert score.value == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize("role", ["cross_out", "block_out", "text_stream"])
def test_downstream_pictures(subject, role):
    site = subject.sites(role)[-1]
    queries = [Query(p, seed) for p in TEST[:3] for seed in (0, 1)]
    acts = capture(subject, queries, sites=[site], sampling=FAST, options=CaptureOptions(branches=("cond", "uncond")))
    x = acts.read(site).x
    good = exact(site, x.shape[1], x.mean(0))
    score = by_name(evaluate_sae(good, acts, subject=subject, queries=queries, sampling=FAST))["downstream"]
    assert score.value < 1e-3 and score.n == 3 and "pictures" in score.unit
    assert score.low <= score.value <= score.high


@pytest.mark.slow
def test_a_trained_autoencoder_loses_less_than_an_untrained_one():
    subject = tiny_sd()
    site = subject.sites("text_stream")[0]
    fit, test = capture(subject, FIT, sites=[site]), capture(subject, TEST, sites=[site])
    options = {"k": 6, "expansion": 4, "batch": 64, "rate": 3e-3}
    scores = [
        by_name(evaluate_sae(trained(fit, samples=n, **options), test, subject=subject, queries=TEST))
        for n in (64, 40_000)
    ]
    assert scores[1]["fvu"].value < 0.5 * scores[0]["fvu"].value
    assert scores[1]["downstream"].value < scores[0]["downstream"].value


@pytest.mark.slow
def test_a_text_encoder_asked_about_the_unet_says_that_queries_are_needed():
    subject = tiny_sd()
    site = subject.sites("cross_out")[0]
    acts = capture(subject, TEST, sites=[site], sampling=FAST)
    sae = exact(site, acts.width(site), acts.read(site).x.mean(0))
    with pytest.raises(ValueError, match=r"changed nothing in the output of 6 Prompt objects; .* needs Query objects"):
        evaluate_sae(sae, acts, subject=subject, queries=TEST)


def test_only_what_the_store_holds_is_replaced():
    kinds = torch.tensor([[0, 1, 2, 3], [0, 2, 3, 4]])
    moment = Moment((0, 0), ("cond", "uncond"), step=3, token_kinds=kinds)
    columns = {"kind": torch.tensor([1, 2]), "branch": torch.tensor([0]), "step": torch.tensor([-1])}
    zeroed = replacing(lambda rows: rows * 0, Coverage.of(columns))(torch.ones(2, 4, 5), moment)
    assert zeroed[..., 0].tolist() == [[1, 0, 0, 1], [1, 1, 1, 1]]
    everywhere = replacing(lambda rows: rows * 0, Coverage.of({}))(torch.ones(2, 4, 5), moment)
    assert (everywhere == 0).all()
    other_step = Coverage.of({"step": torch.tensor([0, 1])})
    assert (replacing(lambda rows: rows * 0, other_step)(torch.ones(2, 4, 5), moment) == 1).all()
    picture = torch.arange(2 * 3 * 2 * 2.0).reshape(2, 3, 2, 2)
    weights = torch.tensor([1.0, 10.0, 100.0])
    scaled = replacing(lambda rows: rows * weights, Coverage.of({}))(picture, moment)
    torch.testing.assert_close(scaled, picture * weights[:, None, None])


def test_the_card_holds_the_figures_and_what_made_it():
    sae = trained(Planted().batches(64), site=SITE, k=3, expansion=2, samples=640, batch=64, seed=5)
    scores = evaluate_sae(sae, held(Planted().batch(256, 0)))
    text = card(sae, scores, "Planted rows.")
    assert text.startswith("# Sparse autoencoder over `synthetic/planted:out`") and "Planted rows." in text
    for part in ("| seed | 5 |", "topk, k = 3", "sae_lens.SAE.load_from_disk", f"{scores[0].value:.4g}", "untrained"):
        assert part in text
    assert "prompts |  |" not in text
    assert "Measured" not in card(sae, (), "Not judged.")
