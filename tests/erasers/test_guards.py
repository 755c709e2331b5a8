"""Guards against plain computations of their formulas: what they add, where, and when."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from concept_probe.activations import tap
from concept_probe.erasers import Itd, NegativePrompt, Saeuron, Safree, Sld, Steer
from concept_probe.erasers.guards.itd import only_of
from concept_probe.erasers.guards.safree import made_safe, triggers
from concept_probe.erasers.guards.sld import safety_term
from concept_probe.families import UNetSubject
from concept_probe.learn.sae import Sae, TopK
from concept_probe.testing.concepts import tiny_concept
from concept_probe.testing.models.diffusion import DIFFUSION, tiny_sd
from concept_probe.types import Prompt, Query, Sampling, Score, Site, Splits, Subspace

CONCEPT = tiny_concept()
SAMPLING = Sampling(steps=3, guidance=3.0, batch=8)
QUERIES = [Query(Prompt("a cat"), 1), Query(Prompt("the sun"), 2)]
SCORE = Score("made by the test", 1.0, 1.0, 1.0, 1)


def said(subject: UNetSubject, steps: int = 1) -> list[Tensor]:
    """Predictions (4, c, h, w) at each of the first steps: two unconditional rows, then two conditional ones."""
    seen: list[Tensor] = []
    site = subject.sites("denoiser_out")[0]

    def look(x: Tensor, moment) -> None:
        if "cond" in moment.branches:
            seen.append(x.clone())

    with tap(subject, {site: look}):
        subject.run_to([site], QUERIES, SAMPLING, [steps - 1])
    return seen


def under(subject: UNetSubject, text: str) -> Tensor:
    """What the denoiser says of the first latents under `text` (2, c, h, w)."""
    inputs: list[tuple[Tensor, float | None]] = []
    site = subject.sites("denoiser_in")[0]
    with tap(subject, {site: lambda x, m: inputs.append((x.clone(), m.timestep))}):
        subject.run_to([site], QUERIES, SAMPLING, [0])
    latents, timestep = inputs[0]
    condition = subject.encode([Prompt(text)]).rows(torch.zeros(2, dtype=torch.long))
    return subject.predict(latents[:2], torch.full((2,), timestep or 0), condition)


@pytest.mark.parametrize("family", DIFFUSION)
def test_the_negative_prompt_stands_in_for_the_empty_one(family):
    subject = DIFFUSION[family]()
    with torch.no_grad():
        wanted, before = under(subject, "a dog"), said(subject)[0]
    with NegativePrompt("a dog")(subject, CONCEPT).on(subject):
        after = said(subject)[0]
    torch.testing.assert_close(after[:2], wanted, atol=1e-4, rtol=1e-3)  # timesteps of a walk may be fractions
    assert torch.equal(after[2:], before[2:])


def test_without_guidance_a_negative_prompt_changes_no_bit():
    subject, plain = tiny_sd(), replace(SAMPLING, guidance=1.0)
    before = subject.generate(QUERIES, plain)
    for guard in (NegativePrompt()(subject, CONCEPT), Sld(warmup=0.0)(subject, CONCEPT)):
        with guard.on(subject):
            assert torch.equal(subject.generate(QUERIES, plain), before)


def test_the_term_of_sld_is_the_papers():
    p, s, e = (torch.randn(1, 2, 3, 3, generator=torch.Generator().manual_seed(i)) for i in range(3))
    got = safety_term(p, s, e, scale=1.5, threshold=0.2)
    for at in range(p.numel()):
        gap = float(p.flatten()[at] - s.flatten()[at])
        weight = min(1.0, abs(1.5 * gap)) if gap < 0.2 else 0.0
        assert float(got.flatten()[at]) == pytest.approx(weight * float((s - e).flatten()[at]), abs=1e-6)


def test_sld_subtracts_its_term_and_half_of_what_it_gathered():
    subject = tiny_sd()
    options = {"scale": 50.0, "threshold": 0.5, "momentum": 0.5, "decay": 0.7}
    with torch.no_grad():
        before, concept = said(subject)[0], under(subject, "a dog")
    term = safety_term(before[2:], concept, before[:2], scale=50.0, threshold=0.5)
    with Sld("a dog", warmup=0.0, **options)(subject, CONCEPT).on(subject):
        first = said(subject)[0]
    torch.testing.assert_close(first[2:], before[2:] - term, atol=1e-5, rtol=1e-4)
    assert torch.equal(first[:2], before[:2])
    # A pause in the first step alone: nothing is subtracted there, and the second step has momentum.
    paused, none = Sld("a dog", warmup=0.1, **options), Sld("a dog", warmup=0.1, **{**options, "momentum": 0.0})
    seen = []
    for guard in (paused, none):
        with guard(subject, CONCEPT).on(subject):
            seen.append(said(subject, steps=2))
    assert torch.equal(seen[0][0], before) and torch.equal(seen[1][0], before)
    torch.testing.assert_close(seen[0][1][2:] - seen[1][1][2:], -0.5 * 0.3 * term, atol=1e-5, rtol=1e-3)


def test_momentum_does_not_outlive_a_walk():
    subject = tiny_sd()
    guard = Sld("a dog", warmup=0.0)(subject, CONCEPT)
    with guard.on(subject):
        first = subject.generate(QUERIES, SAMPLING)
        assert torch.equal(subject.generate(QUERIES, SAMPLING), first)


def test_asking_again_sees_the_same_latents_and_needs_a_pass_under_way():
    subject = tiny_sd()
    condition = subject.encode([Prompt("a dog")])
    with pytest.raises(RuntimeError, match="not at work"):
        subject.repredict(condition, [0])
    answers = []

    def look(x: Tensor, moment) -> None:
        if not moment.nested:
            again = subject.encode([Prompt("a cat")]).rows(torch.tensor([0]))
            answers.append((x[2:3].clone(), subject.repredict(again, [2])))
            answers.append((x[[3, 1]].clone(), subject.repredict(None, [3, 1])))

    site = subject.sites("denoiser_out")[0]
    with tap(subject, {site: look}):
        subject.run_to([site], QUERIES, SAMPLING, [1])
    assert len(answers) == 4
    for own, again in answers:
        torch.testing.assert_close(again, own, atol=1e-5, rtol=1e-4)


def sae_over(subject: UNetSubject, site: Site, d: int, k: int = 4) -> Sae:
    rows = torch.nn.functional.normalize(torch.randn(4 * d, d, generator=torch.Generator().manual_seed(0)), dim=1)
    return Sae(site, TopK(k), W_enc=rows.mT.contiguous(), b_enc=torch.zeros(4 * d), W_dec=rows, b_dec=torch.ones(d))


def space(sae: Sae) -> tuple[Subspace, ...]:
    return (Subspace(sae.site, sae.decoder[:1].mT, "activation", SCORE, features=(0,), codec=sae),)


def test_steering_subtracts_the_features_of_the_text_at_each_place_and_no_bias():
    subject = tiny_sd()
    site = subject.sites("text_stream")[0]
    sae = sae_over(subject, site, 16)
    seen: list[Tensor] = []
    with tap(subject, {site: lambda x, m: seen.append(x.clone())}):
        subject.encode([Prompt("cat")])
        subject.encode([Prompt("the sun")])
        with (
            Steer("cat", strength=0.7)(subject, CONCEPT, space(sae)).on(subject),
            tap(subject, {site: lambda x, m: seen.append(x.clone())}),
        ):
            subject.encode([Prompt("the sun")])
    codes = sae.encode(seen[0][0])
    written = sae.decode(codes) - sae.bias
    torch.testing.assert_close(seen[-1][0, 1:], seen[1][0, 1:] - 0.7 * written[1:], atol=1e-5, rtol=1e-4)
    assert torch.equal(seen[-1][0, 0], seen[1][0, 0])


def test_guards_over_features_say_what_they_need():
    subject = tiny_sd()
    for guard in (Steer(), Itd(), Saeuron()):
        with pytest.raises(ValueError, match="needs features of a sparse autoencoder"):
            guard(subject, CONCEPT)
    nameless = replace(CONCEPT, target=Splits(fit=(Prompt("x"),)))
    for guard in (NegativePrompt(), Sld()):
        with pytest.raises(ValueError, match="give `text`"):
            guard(subject, nameless)


def test_only_features_that_no_other_prompt_has_are_the_concepts():
    firing = torch.tensor([[3.0, 2, 1, 0, 0], [0, 0, 3, 2, 0], [0, 5, 0, 0, 1]])
    own = torch.tensor([True, True, False])
    assert only_of(firing, own, 2) == [0, 2, 3]
    assert only_of(firing, own, 5) == [0, 2, 3]
    assert only_of(firing, ~own, 5) == [4]


@pytest.mark.parametrize("error", ["drop", "keep"])
def test_itd_multiplies_features_where_the_edited_reconstruction_misses(error):
    subject = tiny_sd()
    site = subject.sites("text_stream")[0]
    sae = sae_over(subject, site, 16)
    eraser = Itd(factor=-2.0, error=error)
    chosen = [1, 5, 9, 20, 33, 40]
    x = torch.randn(2, 5, 16, generator=torch.Generator().manual_seed(3))
    dense = sae.encode(x).dense(sae.width)
    turned = dense.clone()
    turned[..., chosen] *= -2.0
    plain, edited = (z @ sae.decoder + sae.bias for z in (dense, turned))
    missed = (x - edited).square().sum(-1) / x.square().sum(-1)
    fires = (dense[..., chosen] != 0).any(-1)
    levels = missed[fires].sort().values
    least = float(levels[len(levels) // 2 - 1 : len(levels) // 2 + 1].mean())
    kinds = torch.full((2, 5), 1)
    kinds[:, 0] = 0
    here = fires & (missed > least) & (kinds != 0)
    assert 0 < here.sum() < fires.sum()
    from concept_probe.types import Moment

    got = eraser._action(sae, chosen, least)(x, Moment((0, 1), ("cond", "cond"), token_kinds=kinds))
    wanted = torch.where(here[..., None], edited - (x if error == "drop" else plain), 0)
    assert got is not None
    torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-4)


def test_saeuron_sets_firing_features_to_gamma_times_their_mean_at_the_nearest_step():
    from concept_probe.erasers.guards.saeuron import Timetable
    from concept_probe.types import Moment

    subject = tiny_sd()
    sae = sae_over(subject, subject.sites("cross_out")[0], 8)
    table = Timetable(
        torch.tensor([900, 500]),
        torch.tensor([[3, 4], [7, 8]]),
        torch.tensor([[0.1, 0.2], [0.3, 0.0]]),
        torch.tensor([[1.0, 2.0], [3.0, 4.0]]),
    )
    x = 2 * torch.randn(3, 50, 8, generator=torch.Generator().manual_seed(3))
    change = Saeuron(gamma=-1.5)._action(sae, table)
    for timestep, row in ((980, 0), (610, 1), (1, 1)):
        dense, wanted = sae.encode(x).dense(sae.width), torch.zeros_like(x)
        for m in range(2):
            j = int(table.features[row, m])
            fires = dense[..., j] > table.floor[row, m]
            assert fires.any() and not fires.all()
            shift = torch.where(fires, -1.5 * table.typical[row, m] - dense[..., j], 0)
            wanted += shift[..., None] * sae.decoder[j]
        got = change(x, Moment((0, 1, 2), ("cond",) * 3, step=0, timestep=timestep))
        assert got is not None
        torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-4)


def test_a_word_that_stands_out_is_a_trigger_and_is_projected():
    axes = torch.eye(4)
    concept = axes[:, :1]  # the concept lies along the first axis
    without = torch.stack([axes[0] + 0.1 * axes[1], axes[0] + 0.1 * axes[2], axes[3]])
    assert triggers(without, concept, 0.01).tolist() == [False, False, True]
    assert not triggers(without[:1], concept, 0.01).any()
    safe = made_safe(torch.ones(1, 4), without, concept)
    span = torch.linalg.qr(without.mT)[0]
    torch.testing.assert_close(safe, torch.tensor([[0.0, 1, 1, 1]]) @ span @ span.mT, atol=1e-5, rtol=1e-4)


def test_a_word_is_left_out_by_reading_it_as_the_end_token():
    """What SAFREE thinks a prompt without a word is, against the encoder run on such ids."""
    from concept_probe.erasers.guards.safree import EncoderReader

    subject = tiny_sd()
    embedding, out = subject.sites("token_embedding")[0], subject.sites("text_out")[0]
    reader, prompt = EncoderReader(subject, embedding, out), Prompt("the red cat", "cat")
    tokens = subject.tokenise([prompt])
    found: list[Tensor] = []

    def look(x: Tensor, moment) -> None:
        if not reader.asking:
            found.append(reader.without(0, torch.tensor([1, 3]), moment.token_kinds[0]))

    with tap(subject, {embedding: reader.remember, out: look}):
        subject.encode([prompt])
    end = int((tokens.kinds[0] == 3).nonzero()[0])
    encoder = subject.components["text_encoder"]
    for i, place in enumerate((1, 3)):
        ids = tokens.ids[0].clone()
        ids[0, place] = ids[0, end]
        torch.testing.assert_close(found[0][i], encoder(ids).last_hidden_state[0, end], atol=1e-5, rtol=1e-4)


def test_safree_leaves_prompts_of_one_word_and_unconditional_rows_alone():
    subject = tiny_sd()
    guard = Safree(alpha=-10.0)(subject, CONCEPT)
    before = subject.encode([Prompt("cat"), Prompt("a cat")]).states
    with guard.on(subject):
        after = subject.encode([Prompt("cat"), Prompt("a cat")]).states
    assert torch.equal(after[0], before[0]) and not torch.equal(after[1], before[1])
    with pytest.raises(ValueError, match="no prompts"):
        Safree(sources=())(subject, CONCEPT)
