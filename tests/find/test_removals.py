"""What stands in the place of what is taken out, in weights and in activations."""

from __future__ import annotations

import itertools
import typing
from typing import Any

import pytest
import torch
from torch import Tensor

from concept_probe.activations import tap
from concept_probe.erasers import AblateFeatures, AblateVectors
from concept_probe.find import REMOVALS, Player, Spot, attribute
from concept_probe.find.attribution.players import players_of, readers_of
from concept_probe.find.removals import removal_of
from concept_probe.find.removals.acting import without
from concept_probe.find.removals.plain import joint_change
from concept_probe.testing.concepts import tiny_concept
from concept_probe.testing.found import aimed_columns, features_of, random_sae, stream
from concept_probe.testing.models import TINY_MODELS
from concept_probe.testing.models.diffusion import tiny_sd
from concept_probe.types import Subspace
from tests.find.attribution_cases import SAMPLING, about, game_of, plan_of, spots


def test_the_game_is_what_zeroing_by_hand_gives():
    subject = tiny_sd()
    places = spots(subject)
    game = game_of(subject, players_of(places), behaviour="divergence")
    queries = list(game.setting.queries)
    before = subject.generate(queries, SAMPLING)

    def silent(x: Tensor, moment: Any) -> Tensor | None:
        return torch.where((moment.token_kinds == 3)[..., None], 0, x) if moment.branches[0] == "cond" else None

    for keep in itertools.product((0.0, 1.0), repeat=2):
        out = {spot.site: silent for spot, k in zip(places, keep, strict=True) if not k}
        with tap(subject, out):
            now = subject.generate(queries, SAMPLING)
        wanted = -(now - before).double().square().flatten(1).mean(1)
        torch.testing.assert_close(game.values(torch.tensor(keep).double()), wanted)


def test_a_column_that_is_zeroed_is_the_weight_that_is():
    subject = tiny_sd()
    (column, *_) = aimed_columns(subject, tiny_concept())
    game = game_of(subject, (Player("one", (column,)),))
    weight = subject.parameter(column.site)
    value = game.values(torch.zeros(1, dtype=torch.float64))
    held = weight.data.clone()
    weight.data[:, column.site.item] = 0
    try:
        whole = game.measure(range(len(value))).double()
    finally:
        weight.data.copy_(held)
    torch.testing.assert_close(value, whole, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("model", ("sd", "gpt2"))
@pytest.mark.parametrize(
    "removal", [n for n, kind in REMOVALS.items() if "columns" in kind.on and kind.reads == "nothing"]
)
def test_a_removal_in_weights_is_the_one_in_activations(model, removal):
    """Columns taken out of the matrix by an eraser, and while the model runs, everywhere: the same states."""
    subject = TINY_MODELS[model]()
    concept = tiny_concept()
    columns = aimed_columns(subject, concept)[:4]
    (reader, *more) = readers_of(subject, [Player("all", columns)])
    prompts = list(concept.target.test)
    states = []
    edit = AblateVectors(how=removal, factor=0.7)(subject, concept, columns)
    acting = without(subject, [reader, *more], removal_of(removal, factor=0.7), torch.zeros(1))
    for on in (edit.on(subject), acting):
        with on:
            states.append(subject.encode(prompts).states)
    torch.testing.assert_close(*states, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(states[0], subject.encode(prompts).states, atol=1e-5)


def test_removals_that_erasers_name_are_in_the_table():
    for kind, option in ((AblateVectors, "how"), (AblateFeatures, "mode")):
        named = typing.get_args(typing.get_type_hints(kind)[option])
        assert set(named) <= set(REMOVALS)
    assert set(typing.get_args(typing.get_type_hints(AblateVectors)["how"])) == {n for n, k in REMOVALS.items() if k.on}


def twins(subject: Any) -> tuple[Subspace, Subspace]:
    """Two features with one encoder and one decoder row: whatever one does, the other does."""
    sae: Any = random_sae(subject, stream(subject))
    with torch.no_grad():
        sae.W_enc[:, 1], sae.W_dec[1], sae.b_enc[:2] = sae.W_enc[:, 0], sae.W_dec[0], 3.0
    return features_of(sae, [0]), features_of(sae, [1])


@pytest.mark.parametrize("summary", ["leave_one_out", "alone", "shapley", "banzhaf", "kernel"])
def test_a_feature_that_stands_there_twice_is_worth_the_same_twice(summary):
    subject = TINY_MODELS["gpt2"]()
    found = attribute(subject, about(subject), twins(subject), "zero", "readout", summary, plan_of(subject))
    first, second = (score.value for score in found.scores)
    assert first == pytest.approx(second, rel=1e-4, abs=1e-7) and abs(first) > 1e-6


def test_projection_takes_the_span_whoever_writes_it():
    generator = torch.Generator().manual_seed(0)
    x, vectors = torch.randn(5, 7, generator=generator), torch.randn(3, 7, generator=generator)
    q = torch.linalg.qr(vectors.mT).Q
    torch.testing.assert_close(x + joint_change(x, vectors, torch.ones(3)), x - x @ q @ q.mT)
    one = torch.tensor([0.0, 1.0, 0.0])
    axis = vectors[1] / vectors[1].norm()
    torch.testing.assert_close(x + joint_change(x, vectors, one), x - (x @ axis)[:, None] * axis)
    torch.testing.assert_close(
        x + joint_change(x, vectors[1:2], torch.tensor([0.3])), x - 0.3 * (x @ axis)[:, None] * axis
    )
    twice = vectors[[1, 1, 2]]
    q = torch.linalg.qr(vectors[1:].mT).Q
    torch.testing.assert_close(x + joint_change(x, twice, torch.ones(3)), x - x @ q @ q.mT)
    assert not joint_change(x, vectors, torch.zeros(3)).any()


@pytest.mark.parametrize("model", ("sd", "gpt2"))
def test_the_mean_is_that_of_other_prompts_at_the_same_kind_of_token(model):
    """By hand: the rows of each kind over the other prompts of the fit split, the first position of a text left out."""
    subject = TINY_MODELS[model]()
    role = "text_mlp_out" if model == "sd" else "mlp_out"
    site = subject.sites(role)[0]
    game = game_of(subject, (Player("it", (Spot(site),)),), "mean")
    prompts = [q.prompt for q in game.setting.queries]
    others = game.elsewhere
    seen: list[Tensor] = []
    with game.without(torch.zeros(1).double()), tap(subject, {site: lambda x, m: seen.append(x)}):
        subject.encode(prompts)
    (kinds,) = {tuple(subject.tokenise([p]).kinds[0].tolist()) for p in prompts[:1]}
    rows = {k: torch.cat([s.c[s.kinds == k] for s in others.others[0][None]]) for k in set(kinds)}
    for place, kind in enumerate(kinds):
        if (model == "gpt2" and place == 0) or not len(rows[kind]):
            continue
        at = place - len(kinds) if model == "gpt2" else place  # filled up on the left
        torch.testing.assert_close(seen[0][0, at], rows[kind].mean(0), atol=1e-5, rtol=1e-4)


def test_resampling_puts_in_rows_that_another_prompt_has():
    subject = tiny_sd()
    site = subject.sites("text_mlp_out")[0]
    game = game_of(subject, (Player("it", (Spot(site, ("eos",)),)),), "resample")
    seen: list[Tensor] = []
    with game.without(torch.zeros(1).double()), tap(subject, {site: lambda x, m: seen.append(x[m.token_kinds == 3])}):
        subject.encode([q.prompt for q in game.setting.queries])
    pool = torch.cat([s.c[s.kinds == 3] for s in game.elsewhere.others[0][None]])
    nearest = torch.cdist(seen[0], pool).amin(1)
    assert float(nearest.max()) < 1e-5 and len(pool) == 3


def test_only_the_rows_that_are_named_change():
    subject = tiny_sd()
    site = subject.sites("text_mlp_out")[0]
    prompts = [q.prompt for q in game_of(subject, (Player("it", (Spot(site),)),)).setting.queries]
    (reader,) = readers_of(subject, [Player("it", (Spot(site, ("subject", "pad")),))])
    seen: list[tuple[Tensor, Tensor]] = []

    def look(x: Tensor, moment: Any) -> None:
        seen.append((x.clone(), moment.token_kinds))

    with tap(subject, {site: look}):
        subject.encode(prompts)
    with without(subject, [reader], removal_of("zero"), torch.zeros(1)), tap(subject, {site: look}):
        subject.encode(prompts)
    (before, kinds), (after, _) = seen
    named = (kinds == 2) | (kinds == 4)
    assert not after[named].any() and torch.equal(after[~named], before[~named])


def test_steps_of_the_denoiser_are_players_of_their_own():
    subject = tiny_sd()
    site = subject.sites("block_out")[0]
    early, late = Spot(site, steps=(0,)), Spot(site, steps=(1,))
    found = attribute(subject, tiny_concept(), [early, late], "mean", "divergence", "shapley", plan_of(subject))
    assert found.scores[0].value > 0 and found.scores[1].value > 0 and found.scores[0] != found.scores[1]
