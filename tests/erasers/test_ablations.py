"""Ablating features and vectors: what is taken out, where, and what happens to the rest."""

from __future__ import annotations

import pytest
import torch

from concept_probe.activations import tap
from concept_probe.erasers import AblateFeatures, AblateVectors, Blocklist, Columns, Edit
from concept_probe.erasers.erasure.parameters import address
from concept_probe.find.rows import RowQuery
from concept_probe.find.vectors.columns import zero_columns
from concept_probe.find.vectors.text_directions import project_texts, text_directions
from concept_probe.learn.sae import Sae, TopK
from concept_probe.testing.concepts import tiny_concept
from concept_probe.testing.models.diffusion import tiny_sd, tiny_sdxl
from concept_probe.types import Prompt, Query, Sampling, Score, Site, Subspace

CONCEPT = tiny_concept()
SAMPLING = Sampling(steps=2, guidance=2.0)
QUERIES = [Query(p, i) for i, p in enumerate(CONCEPT.target.test)]
SCORE = Score("made by the test", 1, 1, 1, 1)


def sae_at(site: Site, d: int = 16, k: int = 3, seed: int = 0) -> Sae:
    rows = torch.nn.functional.normalize(torch.randn(48, d, generator=torch.Generator().manual_seed(seed)), dim=1)
    return Sae(
        site,
        TopK(k),
        W_enc=rows.mT.contiguous(),
        b_enc=torch.zeros(48),
        W_dec=rows,
        b_dec=torch.full((d,), 0.1),
        scale=2.0,
    )


def space(sae: Sae, features: tuple[int, ...]) -> Subspace:
    return Subspace(sae.site, sae.decoder[list(features)].mT, "activation", SCORE, features=features, codec=sae)


def seen_at(subject, site, prompts, erasure=None):
    out = []
    with tap(subject, {site: lambda x, m: out.append(x.clone())}):
        if erasure is None:
            subject.run_to([site], [Query(p) for p in prompts], SAMPLING, [0])
    if erasure is not None:
        with erasure.on(subject), tap(subject, {site: lambda x, m: out.append(x.clone())}):
            subject.run_to([site], [Query(p) for p in prompts], SAMPLING, [0])
    return out[-1]


@pytest.mark.parametrize("role", ["text_stream", "block_out"])
def test_keep_takes_out_the_features_own_contribution(role: str):
    subject = tiny_sd()
    site = subject.sites(role)[0]
    sae = sae_at(site, 16 if role == "text_stream" else 32)
    x = seen_at(subject, site, CONCEPT.target.test)
    rows = x.movedim(1, -1) if x.ndim == 4 else x
    dense = sae.encode(rows).dense(sae.width)
    features = tuple(dense.flatten(0, -2).sum(0).topk(3).indices.tolist())
    edited = seen_at(subject, site, CONCEPT.target.test, AblateFeatures()(subject, CONCEPT, [space(sae, features)]))
    expected = rows - dense[..., list(features)] @ sae.decoder[list(features)]
    torch.testing.assert_close(edited.movedim(1, -1) if x.ndim == 4 else edited, expected, atol=1e-5, rtol=1e-4)


def test_drop_puts_the_edited_reconstruction_in_place_of_affected_rows_only():
    subject = tiny_sd()
    site = subject.sites("text_stream")[0]
    sae = sae_at(site)
    x = seen_at(subject, site, CONCEPT.target.test)
    codes = sae.encode(x)
    feature = int(codes.indices[0, 2, 0])
    guard = AblateFeatures(error="drop")(subject, CONCEPT, [space(sae, (feature,))])
    edited = seen_at(subject, site, CONCEPT.target.test, guard)
    fires = ((codes.indices == feature) & (codes.values > 0)).any(-1)
    assert 0 < fires.sum() < fires.numel()
    assert torch.equal(edited[~fires], x[~fires])
    dense = codes.dense(sae.width)
    dense[..., feature] = 0
    torch.testing.assert_close(
        edited[fires], ((dense @ sae.W_dec + sae.b_dec) / sae.scale)[fires], atol=1e-5, rtol=1e-4
    )


def test_clamp_sets_firing_features_to_a_multiple_of_their_mean():
    from concept_probe.find.features.contrast import mean_firing

    subject = tiny_sd()
    site = subject.sites("text_stream")[0]
    sae = sae_at(site)
    x = seen_at(subject, site, CONCEPT.target.test)
    dense = sae.encode(x).dense(sae.width)
    feature = int(dense.flatten(0, 1).sum(0).argmax())
    edited = seen_at(subject, site, CONCEPT.target.test,
                     AblateFeatures(mode="clamp", gamma=-2.0)(subject, CONCEPT, [space(sae, (feature,))]))  # fmt: skip
    mean = mean_firing(sae, subject, CONCEPT, [feature])
    assert mean > 0
    shift = torch.where(dense[..., feature] > 0, -2 * mean - dense[..., feature], 0)
    torch.testing.assert_close(edited - x, shift[..., None] * sae.decoder[feature], atol=1e-5, rtol=1e-4)


def test_a_feature_that_does_not_fire_changes_no_bit():
    subject = tiny_sd()
    site = subject.sites("text_stream")[0]
    sae = sae_at(site)
    with torch.no_grad():
        sae.b_enc[5] = -1e6
    before = subject.generate(QUERIES, SAMPLING)
    for error in ("keep", "drop"):
        with AblateFeatures(error=error)(subject, CONCEPT, [space(sae, (5,))]).on(subject):
            assert torch.equal(subject.generate(QUERIES, SAMPLING), before)


def test_strength_scales_what_is_taken_out():
    subject = tiny_sd()
    site = subject.sites("text_stream")[0]
    sae = sae_at(site)
    x = seen_at(subject, site, CONCEPT.target.test)
    found = [space(sae, tuple(range(20)))]
    once = seen_at(subject, site, CONCEPT.target.test, AblateFeatures()(subject, CONCEPT, found)) - x
    thrice = seen_at(subject, site, CONCEPT.target.test, AblateFeatures(strength=3.0)(subject, CONCEPT, found)) - x
    torch.testing.assert_close(thrice, 3 * once, atol=1e-5, rtol=1e-4)


def test_gradients_pass_through_the_guard():
    subject = tiny_sd()
    site = subject.sites("text_stream")[0]
    guard = AblateFeatures()(subject, CONCEPT, [space(sae_at(site), tuple(range(20)))])
    leaf = []

    def fn(x, moment):
        leaf.append(x.detach().requires_grad_())
        return leaf[0]

    with guard.on(subject), tap(subject, {subject.sites("token_embedding")[0]: fn}):
        subject.encode(CONCEPT.target.test).states.square().sum().backward()
    assert leaf[0].grad.abs().max() > 0


def test_bad_options_and_missing_features_are_named():
    subject = tiny_sd()
    with pytest.raises(ValueError, match="needs features"):
        AblateFeatures()(subject, CONCEPT)
    with pytest.raises(ValueError, match="error is 'loose'"):
        AblateFeatures(error="loose")(subject, CONCEPT)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="needs concept vectors"):
        AblateVectors()(subject, CONCEPT)


def columns_of(subject, items, layer=0):
    site = subject.sites("mlp_value")[layer]
    return [
        Subspace(
            Site(site.component, site.path, "weight", j),
            subject.parameter(site)[:, j, None].clone(),
            "parameter",
            SCORE,
        )
        for j in items
    ]


def test_zeroed_columns_are_zero_and_equal_the_causal_test():
    subject = tiny_sd()
    site = subject.sites("mlp_value")[0]
    edit = AblateVectors()(subject, CONCEPT, columns_of(subject, (3, 9, 20)))
    with edit.on(subject):
        assert not subject.parameter(site)[:, [3, 9, 20]].any()
        edited = subject.generate(QUERIES, SAMPLING)
    with zero_columns(subject, {site: [3, 9, 20]}):
        torch.testing.assert_close(subject.generate(QUERIES, SAMPLING), edited, atol=1e-6, rtol=1e-5)


def test_reflected_columns_point_the_other_way():
    subject = tiny_sd()
    site = subject.sites("mlp_value")[0]
    before = subject.parameter(site).detach().clone()
    edit = AblateVectors(how="reflect", factor=2.0)(subject, CONCEPT, columns_of(subject, (3,)))
    with edit.on(subject):
        torch.testing.assert_close(subject.parameter(site)[:, 3], -2 * before[:, 3])


def test_mean_ablation_keeps_the_average_of_other_prompts():
    from concept_probe.find import concept_rows
    from concept_probe.types import TOKEN_KINDS

    subject = tiny_sd()
    out = subject.sites("text_mlp_out")[0]
    edit = AblateVectors(how="mean")(subject, CONCEPT, columns_of(subject, (3, 9, 20)))
    assert isinstance(edit, Edit)
    assert any(where.endswith(":bias") for where in edit.deltas)

    def average() -> torch.Tensor:
        rows = concept_rows(subject, CONCEPT, [out], which=RowQuery(TOKEN_KINDS))[out]
        return rows.x[~rows.concept].mean(0)

    before = average()
    with edit.on(subject):
        torch.testing.assert_close(average(), before, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("make", [tiny_sd, tiny_sdxl])
def test_directions_in_the_matrices_equal_the_causal_test(make):
    subject = make()
    directions = text_directions(subject, CONCEPT)
    removal = directions.removal(2)
    sites = [*subject.sites("cross_key_weight"), *subject.sites("cross_value_weight")]
    found = [Subspace(s, removal.basis.float(), "parameter", SCORE, dual=removal.dual.float()) for s in sites]
    edit = AblateVectors()(subject, CONCEPT, found)
    with edit.on(subject):
        edited = subject.generate(QUERIES, SAMPLING)
    with project_texts(subject, removal, sites):
        torch.testing.assert_close(subject.generate(QUERIES, SAMPLING), edited, atol=1e-4, rtol=1e-3)
    with pytest.raises(ValueError, match="how='mean'"):
        AblateVectors(how="mean")(subject, CONCEPT, found)


def test_a_repeated_column_counts_once():
    subject = tiny_sd()
    edit = AblateVectors()(subject, CONCEPT, columns_of(subject, (3, 3)))
    delta = edit.deltas[address(subject.sites("mlp_value")[0])]
    assert isinstance(delta, Columns)
    assert delta.indices.tolist() == [3]


@pytest.mark.parametrize("make", [tiny_sd, tiny_sdxl])
def test_the_blocklist_hits_the_name_and_nothing_else(make):
    subject = make()
    guard = Blocklist()(subject, CONCEPT)
    anchor = subject.encode(CONCEPT.anchor.fit[:1]).states
    with guard.on(subject):
        blocked = subject.encode(CONCEPT.target.test)
    torch.testing.assert_close(blocked.states, anchor.expand_as(blocked.states), atol=1e-5, rtol=1e-4)
    others = [*CONCEPT.paraphrases.test, *CONCEPT.implicit.test, *CONCEPT.neighbours.test, Prompt("a category")]
    plain = subject.encode(others).states
    with guard.on(subject):
        assert torch.equal(subject.encode(others).states, plain)


def test_a_blocklist_takes_names_and_an_anchor():
    subject = tiny_sd()
    guard = Blocklist(names=("kitty", "pet"), anchor="a dog")(subject, CONCEPT)
    dog = subject.encode([Prompt("a dog")]).states
    with guard.on(subject):
        states = subject.encode([Prompt("the kitty"), Prompt("one pet that purrs"), Prompt("a cat")]).states
    torch.testing.assert_close(states[:2], dog.expand_as(states[:2]), atol=1e-5, rtol=1e-4)
    assert not torch.allclose(states[2:], dog)
