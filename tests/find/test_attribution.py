"""Attribution by removal on tiny models of every family: what is taken out, where, and what is refused."""

from __future__ import annotations

import itertools
import json
import typing
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

import concept_probe as cp
from concept_probe.activations import tap
from concept_probe.erasers import AblateFeatures, AblateVectors
from concept_probe.find import BEHAVIOURS, PLAYERS, REMOVALS, SUMMARIES, AttributionPlan, Player, Spot, attribute
from concept_probe.find.attribution.attribute import queries_in
from concept_probe.find.attribution.behaviours import Setting
from concept_probe.find.attribution.game import RemovalGame
from concept_probe.find.attribution.players import players_of, readers_of
from concept_probe.find.attribution.summaries import Shapley
from concept_probe.find.attribution.values import KeptValues
from concept_probe.find.removals import removal_of
from concept_probe.find.removals.acting import without
from concept_probe.find.removals.plain import joint_change
from concept_probe.find.vectors.columns import hidden_site, matrix_site
from concept_probe.registry import UnknownName
from concept_probe.storage import CorruptFile
from concept_probe.testing.concepts import tiny_concept, tiny_facts, tiny_recogniser
from concept_probe.testing.found import aimed_columns, aimed_features, features_of, random_sae, stream
from concept_probe.testing.models import TINY_MODELS
from concept_probe.testing.models.diffusion import tiny_sd
from concept_probe.types import Concept, Prompt, Query, Sampling, Splits, Subspace

SAMPLING = Sampling(steps=2, guidance=2.0, tokens=3)
FAMILIES = ("sd", "sdxl", "flux", "pixart-alpha", "gpt2", "llama")


def about(subject: Any) -> Concept:
    """A concept whose test prompts have answers where a language model is asked."""
    if subject.answers == "pictures":
        return tiny_concept()
    facts = tiny_facts()
    return replace(facts, target=replace(facts.target, test=facts.target.select))


def plan_of(subject: Any, **more: Any) -> AttributionPlan:
    judge = tiny_recogniser() if subject.answers == "pictures" else None
    given = {"prompts": 2, "sampling": SAMPLING, "judge": judge, "controls": False, "judged": None, "others": 3} | more
    return AttributionPlan(**given)


def spots(subject: Any) -> tuple[Spot, ...]:
    if subject.answers == "texts":
        return tuple(Spot(site) for site in subject.sites("mlp_out"))
    return tuple(Spot(site, ("eos",)) for site in subject.sites("text_mlp_out")[:2])


def game_of(subject: Any, players: tuple[Player, ...], removal: str = "zero", behaviour: str = "readout", **more: Any):
    concept, plan = about(subject), plan_of(subject)
    setting = Setting(subject, concept, queries_in(concept, "select", plan), SAMPLING, plan.judge)
    return RemovalGame(setting, players, removal_of(removal, **more), BEHAVIOURS[behaviour](), KeptValues(None), 3)


@pytest.mark.parametrize("model", FAMILIES)
@pytest.mark.parametrize("behaviour", BEHAVIOURS)
def test_every_behaviour_of_every_family_adds_up(model, behaviour):
    subject = TINY_MODELS[model]()
    if BEHAVIOURS[behaviour].on not in ("both", subject.answers):
        with pytest.raises(ValueError, match="answers with"):
            attribute(subject, about(subject), spots(subject), "zero", behaviour, "shapley", plan_of(subject))
        return
    found = attribute(subject, about(subject), spots(subject), "zero", behaviour, "shapley", plan_of(subject))
    assert len(found.scores) == 2 and found.gap == pytest.approx(0, abs=1e-9)
    if behaviour not in ("detection", "probability"):  # what a random recogniser sees may not change
        assert any(score.value for score in found.scores)
    if behaviour == "divergence":
        assert found.whole.value == 0 and found.none.value < 0


@pytest.mark.parametrize("model", ("sd", "gpt2"))
@pytest.mark.parametrize("removal", REMOVALS)
@pytest.mark.parametrize("summary", SUMMARIES)
def test_every_removal_under_every_summary(model, removal, summary):
    """Two features that always fire, and one that never does and is worth exactly nothing."""
    subject = TINY_MODELS[model]()
    sae: Any = random_sae(subject, stream(subject))
    with torch.no_grad():
        sae.b_enc[:2], sae.b_enc[2] = 3.0, -1e6
    players = tuple(features_of(sae, [j]) for j in range(3))
    if summary == "gradients" and REMOVALS[removal].draws:
        with pytest.raises(ValueError, match="draws where it ends"):
            attribute(subject, about(subject), players, removal, "readout", summary, plan_of(subject))
        return
    found = attribute(subject, about(subject), players, removal, "readout", summary, plan_of(subject))
    assert all(score.low <= score.high for score in found.scores)
    assert any(abs(score.value) > 1e-9 for score in found.scores[:2])
    if removal != "project":  # which takes the direction, whoever writes it
        assert found.scores[2].value == pytest.approx(0, abs=1e-12)


def one_by_one(subject: Any) -> list[Subspace]:
    """The features of largest contrast as subspaces of their own, of one autoencoder."""
    (space,) = aimed_features(subject, about(subject))
    return [replace(space, basis=space.basis[:, [i]], features=(j,)) for i, j in enumerate(space.features)]


@pytest.mark.parametrize("model", FAMILIES)
@pytest.mark.parametrize("players", PLAYERS)
def test_named_players_of_every_family_can_be_played_or_are_refused(model, players):
    subject = TINY_MODELS[model]()
    readable = subject.answers == "texts"
    if players == "features":  # none is shipped for a tiny model
        with pytest.raises(UnknownName, match="shipped autoencoder"):
            attribute(subject, about(subject), players, "zero", "divergence", "alone", plan_of(subject))
        return
    if players == "cross" and (readable or model == "pixart-alpha"):
        with pytest.raises((ValueError, UnknownName)):
            attribute(subject, about(subject), players, "zero", "divergence", "alone", plan_of(subject))
        return
    found = attribute(subject, about(subject), players, "zero", "divergence", "alone", plan_of(subject))
    assert any(score.value for score in found.scores) and len(set(found.players)) == len(found.players)


@pytest.mark.parametrize("behaviour", ["readout", "divergence"])
@pytest.mark.parametrize("model", [name for name in TINY_MODELS if name not in FAMILIES])
def test_every_other_model_plays_its_feed_forward_parts(model, behaviour):
    subject = TINY_MODELS[model]()
    found = attribute(subject, about(subject), "mlp", "mean", behaviour, "alone", plan_of(subject))
    assert any(score.value for score in found.scores)


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


@pytest.mark.parametrize("behaviour", ["readout", "answers", "odds"])
def test_gradients_are_slopes_of_the_values(behaviour):
    subject = TINY_MODELS["gpt2"]()
    players = players_of(spots(subject))
    game = game_of(subject, players, "zero", behaviour)
    at = torch.tensor([0.4, 0.6], dtype=torch.float64)
    slopes = game.gradients(at)
    for i in range(2):
        step = 1e-2 * torch.eye(2, dtype=torch.float64)[i]
        numeric = (game.values(at + step) - game.values(at - step)) / 2e-2
        torch.testing.assert_close(slopes[i], numeric, atol=5e-3, rtol=5e-2)


def test_integrated_gradients_say_how_far_they_are_off():
    subject = TINY_MODELS["gpt2"]()
    found = attribute(subject, about(subject), spots(subject), "zero", "readout", "gradients", plan_of(subject))
    assert found.gap is not None and abs(found.gap) < 0.05 * abs(found.whole.value - found.none.value)


def test_curves_start_and_end_where_they_must_and_have_controls():
    subject = tiny_sd()
    plan = plan_of(subject, judged="test", controls=True, points=3)
    found = attribute(subject, tiny_concept(), one_by_one(subject)[:4], "zero", "readout", "shapley", plan)
    down, up = found.deletion, found.insertion
    assert down and up and down.x == (0, 2, 4) and len(down.control) == 3
    assert down.y[0] == pytest.approx(up.y[-1]) and down.y[-1] == pytest.approx(up.y[0])
    assert down.control[0] == pytest.approx(down.y[0])
    assert found.deletion_area and found.deletion_area.control is not None
    assert len(found.controls) == 4 and [s.control for s in found.scores] == [c.value for c in found.controls]
    assert found.share(found.players[0]) == pytest.approx(
        found.scores[0].value / sum(score.value for score in found.scores)
    )


@pytest.mark.parametrize("what", ["columns", "features", "directions", "spots"])
def test_controls_are_others_of_the_same_kind(what):
    from concept_probe.find.attribution.controls import MatchedPlayers
    from concept_probe.testing.found import directions

    subject, concept = tiny_sd(), tiny_concept()
    parts: list[Any] = {
        "columns": lambda: list(aimed_columns(subject, concept)),
        "features": lambda: one_by_one(subject),
        "directions": lambda: list(directions(subject, concept)[:1]),
        "spots": lambda: list(spots(subject)),
    }[what]()
    players = players_of(parts)
    like = MatchedPlayers(subject, concept, SAMPLING).players(players)
    assert [len(p.parts) for p in like] == [len(p.parts) for p in players]
    for own, other in zip(players, like, strict=True):
        a, b = own.parts[0], other.parts[0]
        assert type(a) is type(b)
        if isinstance(a, Subspace) and isinstance(b, Subspace):
            assert b.basis.shape == a.basis.shape and not torch.equal(a.basis, b.basis)
            assert not set(b.features) & {j for p in parts for j in p.features}
    assert len({str(p.parts[0].site) + str(getattr(p.parts[0], "features", "")) for p in like}) == len(like)
    readers_of(subject, like)


def test_a_turned_spot_is_as_large_as_the_real_one():
    subject = tiny_sd()
    site = subject.sites("text_mlp_out")[0]
    change = {}
    for turn in (None, 5):
        (reader,) = readers_of(subject, [Player("it", (Spot(site, ("eos",), turn=turn),))])
        seen: list[Tensor] = []
        with (
            tap(subject, {site: lambda x, m, seen=seen: seen.append(x[m.token_kinds == 3].clone())}),
            without(subject, [reader], removal_of("zero"), torch.zeros(1)),
            tap(subject, {site: lambda x, m, seen=seen: seen.append(x[m.token_kinds == 3].clone())}),
        ):
            subject.encode(list(tiny_concept().target.fit))
        change[turn] = seen[1] - seen[0]
    torch.testing.assert_close(change[None].norm(dim=1), change[5].norm(dim=1))
    assert not torch.allclose(change[None], change[5], atol=1e-3)


def test_values_are_kept_and_nothing_is_asked_again(tmp_path):
    subject = tiny_sd()
    plan = plan_of(subject, judged="test", controls=True, points=3)
    args = (subject, tiny_concept(), spots(subject), "zero", "divergence", "shapley", plan)
    first = attribute(*args, folder=tmp_path)
    lines = (tmp_path / "values.jsonl").read_bytes()
    again = attribute(*args, folder=tmp_path)
    assert again == replace(first, answers=again.answers) and again.answers == 0 < first.answers
    assert (tmp_path / "values.jsonl").read_bytes() == lines
    other = attribute(*args[:3], "mean", *args[4:], folder=tmp_path)
    assert other.answers > 0 and other.scores != first.scores


def test_slopes_are_kept_too(tmp_path):
    subject = TINY_MODELS["gpt2"]()
    args = (subject, about(subject), spots(subject), "mean", "answers", "gradients", plan_of(subject))
    first = attribute(*args, folder=tmp_path)
    again = attribute(*args, folder=tmp_path)
    assert again == replace(first, answers=0) and first.answers > 0


def test_interrupted_work_goes_on(tmp_path, monkeypatch):
    subject = tiny_sd()
    args = (subject, tiny_concept(), spots(subject), "zero", "divergence", "shapley", plan_of(subject))
    whole = attribute(*args)
    generate, asked = subject.generate, [0]

    def stops(*more: Any) -> Any:
        asked[0] += 1
        if asked[0] == 4:
            raise KeyboardInterrupt
        return generate(*more)

    monkeypatch.setattr(subject, "generate", stops)
    with pytest.raises(KeyboardInterrupt):
        attribute(*args, folder=tmp_path)
    monkeypatch.setattr(subject, "generate", generate)
    with (tmp_path / "values.jsonl").open("ab") as file:
        file.write(b'{"game": "cut sho')
    resumed = attribute(*args, folder=tmp_path)
    assert resumed == replace(whole, answers=resumed.answers) and 0 < resumed.answers < whole.answers


def test_a_value_that_was_altered_is_refused(tmp_path):
    subject = tiny_sd()
    args = (subject, tiny_concept(), spots(subject), "zero", "readout", "shapley", plan_of(subject))
    attribute(*args, folder=tmp_path)
    file = tmp_path / "values.jsonl"
    line, *rest = file.read_text().splitlines()
    value = json.loads(line)
    value["values"][0] += 1
    file.write_text("\n".join([json.dumps(value), *rest]) + "\n")
    with pytest.raises(CorruptFile, match="line 1"):
        attribute(*args, folder=tmp_path)


@dataclass(frozen=True)
class Blind:
    """A recogniser that fails where a picture has changed."""

    name: str = "blind"
    version: str = "1"
    labels: tuple[str, ...] = ("cat", "none")

    def probabilities(self, images: Tensor) -> Tensor:
        return torch.full((len(images), 2), torch.nan)


def refused() -> dict[str, tuple[Any, ...]]:
    subject, concept = tiny_sd(), tiny_concept()
    places = spots(subject)
    loop = subject.sites("block_out")[0]
    column = aimed_columns(subject, concept)[0]
    bare = replace(concept, target=replace(concept.target, select=()))
    lonely = Concept("cat", Splits(concept.target.fit, concept.target.select, concept.target.test))
    plan = plan_of(subject)

    def at(players: Any, removal: Any = "zero", behaviour: Any = "readout", summary: Any = "shapley", **more: Any):
        who = {"concept": concept, "plan": plan} | more
        return subject, who["concept"], players, removal, behaviour, summary, who["plan"]

    return {
        "no players were given": at([]),
        "'shapely' not found; nearest: 'shapley'": at(places, summary="shapely"),
        "removal 'zeros' not found": at(places, removal="zeros"),
        "behaviour 'reading' not found": at(places, behaviour="reading"),
        "kind of players 'mpl' not found; nearest: 'mlp'": at("mpl"),
        "no prompts in target of split 'select'": at(places, concept=bare),
        "has none in neighbours, anchor, unrelated": at(places, "mean", "divergence", concept=lonely),
        "gave a value that is no number": at(places, behaviour="detection", plan=plan_of(subject, judge=Blind())),
        "has no label 'cat'": at(
            places, behaviour="detection", plan=plan_of(subject, judge=Blind(labels=("dog", "none")))
        ),
        "was met in no pass": at([Spot(loop, steps=(7,))], behaviour="divergence"),
        "so it has no steps": at([replace(places[0], steps=(0,))]),
        "ends before the denoiser": at([Spot(loop)]),
        "not text tokens": at([Spot(loop, ("eos",))], behaviour="divergence"),
        "can be taken out once": at([places[0], Player("again", (places[0],))]),
        "two kinds of part at": at([Spot(hidden_site(subject, matrix_site(column.site))), column]),
        "a whole place has none": at(places, removal="project"),
        "needs a behaviour with a slope": at(places, behaviour="divergence", summary="gradients"),
        "was found in other weights": at([replace(column, base_hash="0" * 64)]),
        "the plan allows 10": at(places, plan=plan_of(subject, most_answers=10, prompts=3)),
        "a player is a str": at(["mlp"]),
        "site 'unet/nowhere:out' not found": at([Spot(cp.Site("unet", "nowhere"))]),
        "is a weight, which no pass produces": at([Spot(subject.sites("mlp_value")[0])]),
        "token kind 'end' not found": (),
    }


@pytest.mark.parametrize("said", refused())
def test_what_cannot_be_played_is_refused_in_one_sentence(said):
    args = refused()[said]
    with pytest.raises((ValueError, TypeError, LookupError)) as error:
        attribute(*args) if args else Spot(cp.Site("unet", "conv_in"), ("end",))
    message = str(error.value)
    assert said in message and "\n" not in message


def test_what_no_player_changes_is_said():
    subject = tiny_sd()
    judge = replace(tiny_recogniser(), labels=("cat", "dog", "sun", "none"))
    sae: Any = random_sae(subject, stream(subject))
    with torch.no_grad():
        sae.b_enc[:2] = -1e6
    players = [features_of(sae, [j]) for j in range(2)]
    with pytest.warns(UserWarning, match="owed to none of them"):
        attribute(subject, tiny_concept(), players, "zero", "detection", "shapley", plan_of(subject, judge=judge))


def test_too_few_other_columns_are_refused_with_the_mend():
    subject = tiny_sd()
    site = subject.sites("mlp_value")[0]
    (space, *_) = aimed_columns(subject, tiny_concept())
    many = [replace(space, site=replace(site, item=j)) for j in range(30)]
    with pytest.raises(ValueError, match="ask without controls"):
        attribute(subject, tiny_concept(), many, "zero", "readout", "alone", plan_of(subject, controls=True))


def test_joint_players_are_one():
    subject = tiny_sd()
    columns = aimed_columns(subject, tiny_concept())
    found = attribute(subject, tiny_concept(), [columns[:4], columns[4:]], "zero", "readout", "alone", plan_of(subject))
    together = attribute(
        subject, tiny_concept(), [Player("all", columns)], "zero", "readout", "leave_one_out", plan_of(subject)
    )
    assert len(found.scores) == 2 and found.none.value == pytest.approx(together.none.value)


def test_a_subject_is_as_it_was():
    subject = tiny_sd()
    queries = [Query(Prompt("a cat"), 1)]
    before, hash_before = subject.generate(queries, SAMPLING), subject.weight_hash(whole=True)
    attribute(
        subject, tiny_concept(), "mlp", "resample", "divergence", Shapley(exact=False, samples=1), plan_of(subject)
    )
    assert torch.equal(subject.generate(queries, SAMPLING), before) and subject.weight_hash(whole=True) == hash_before
